//! Pushing: `connection.push(paths).to(directory).await`.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt, TryFutureExt, TryStreamExt,
    future::{BoxFuture, FutureExt},
};
use shiplane_files::internals::{Comparison, Existing, Filters, Shape, Source, SourceRoot};
use shiplane_protocols::internals::{
    Push, PushError, PushRequest,
    transfer::{EventFn, FilesReport, TransferEvent, TransferOptions},
};
use shiplane_rpc::CallError;
use shiplane_transport::internals::blocking;
use shiplane_wire::{DigestAlgorithm, Durability, escape};
use tokio::time::Instant;

use super::{
    Connection,
    preview::{Preview, Previewed},
    redial::Redial,
};
use crate::{
    error::{Cause, ChoiceError, Error},
    event::{Action, Phase, Side},
    report::Report,
    settings::{ExistingFiles, Settings, common_setters, existing_setters},
    tracker::{ProgressState, Tracker},
};

/// Pushes files and trees. Made by [`Connection::push`]; runs when it is awaited.
///
/// If the connection is lost, the job connects again by itself and goes on, see
/// [`give_up_after`](Self::give_up_after). Dropping the future ends the transfer. What the server has verified is kept there, and the same job run again does
/// not send it twice; no file appears under its name before it is complete.
#[derive(Debug)]
#[must_use = "a job runs when it is awaited"]
pub struct PushJob {
    connection: Connection,
    content: Content,
    to: Vec<u8>,
    existing: ExistingFiles,
    is_dry_run: bool,
    is_durable: bool,
    settings: Settings,
}

/// What is pushed.
#[derive(Debug)]
enum Content {
    /// Files and directories, into a directory.
    Paths(Vec<PathBuf>),
    /// The content of an open file or pipe, to a file.
    File(File),
}

impl Connection {
    /// Pushes files and trees, each by its name: await the job that this returns. A path that ends in `.` stands for
    /// the content of the directory.
    pub fn push<P: Into<PathBuf>>(&self, paths: impl IntoIterator<Item = P>) -> PushJob {
        let paths = paths.into_iter().map(Into::into).collect();
        PushJob::new(self.clone(), Content::Paths(paths))
    }

    /// Pushes the content of an open file to the file that [`PushJob::to`] names.
    ///
    /// It may be anything that can be read, such as a pipe. Whatever is not a regular file at its beginning is read once,
    /// from where it is to its end, by a thread that ends with it; 24 MiB of it are held in memory until the server has
    /// them. It may be silent for any time. The file gets its name when all of it has arrived. The job resumes after a
    /// lost connection as long as the server has what was let go of here; another job cannot resume it.
    pub fn push_file(&self, file: File) -> PushJob {
        PushJob::new(self.clone(), Content::File(file))
    }
}

impl PushJob {
    fn new(connection: Connection, content: Content) -> Self {
        let settings = Settings::default();
        Self {
            connection,
            content,
            to: Vec::new(),
            existing: ExistingFiles::default(),
            is_dry_run: false,
            is_durable: true,
            settings,
        }
    }

    /// The directory to push into, which is created if it does not exist; for
    /// [`push_file`](Connection::push_file), the file itself. The default is the path of the connection's target.
    pub fn to(mut self, path: impl AsRef<[u8]>) -> Self {
        self.to = path.as_ref().to_vec();
        self
    }

    existing_setters!();

    /// Whether to change nothing: [`Report::actions`] then says what would be done. It needs
    /// permission to read what is there. Modes and times are not compared.
    pub fn dry_run(mut self, is_dry_run: bool) -> Self {
        self.is_dry_run = is_dry_run;
        self
    }

    /// Whether the job ends only when everything survives a power cut of the server. That is the default; otherwise
    /// the server's system may still hold some of it in memory.
    pub fn durable(mut self, is_durable: bool) -> Self {
        self.is_durable = is_durable;
        self
    }

    common_setters!();

    async fn run(mut self) -> Result<Report, Error> {
        let cancelled = self.settings.take_cancelled();
        let (connection, is_read_once) = (self.connection.clone(), AtomicBool::new(false));
        let ended = connection.run_confirmed(self.push(&is_read_once), cancelled).await;
        match ended {
            Err(error) if is_read_once.into_inner() && error.report().is_none() => {
                Err(Cause::Input(Box::new(error)).into())
            }
            ended => ended,
        }
    }

    async fn push(mut self, is_read_once: &AtomicBool) -> Result<Report, Error> {
        let target = self.connection.server_path(&self.to)?;
        let filters = self.settings.filters().await?;
        let content = self.content;
        let opening = blocking::spawn(move || open(content, &target));
        let offers = opening.await.map_err(|_| Cause::Abandoned)??;
        is_read_once.store(offers.iter().any(|offer| offer.source.input().is_some()), Ordering::Relaxed);
        if self.is_dry_run {
            let progress = ProgressState::new(Phase::Listing, offers.len(), None);
            let preview = Preview {
                filters,
                existing: self.existing.settle().map_err(Cause::from)?,
                deletes: self.existing.deletion().is_some(),
                options: self.settings.options(),
                receiver: Side::Peer,
            };
            let tracker = self.settings.tracker(progress)?;
            return preview_all(&self.connection, preview, offers, &tracker, self.settings.digest).await;
        }
        // What has no name of its own contains the places of all the others.
        let has_unnamed = offers.iter().any(|offer| offer.name.is_none());
        let at_a_time = if has_unnamed { 1 } else { offers.len().clamp(1, MAX_AT_A_TIME) };
        let phases = (Phase::Sending, Phase::Settling);
        let progress = ProgressState::new(Phase::Offering, offers.len(), Some(phases));
        let run = Run {
            options: TransferOptions {
                lanes: self.settings.concurrency.div_ceil(at_a_time),
                ..self.settings.options()
            },
            filters,
            attributes: self.settings.attributes,
            existing: self.existing.settle().map_err(Cause::from)?,
            deletion: self.existing.deletion(),
            durability: if self.is_durable { Durability::Durable } else { Durability::Verified },
            is_deletion_withheld: AtomicBool::new(false),
            tracker: self.settings.tracker(progress)?,
        };
        let mut redial = Redial::new(&self.connection, self.settings.give_up_after);
        let mut report = Report::new(self.settings.digest);
        let mut left: BTreeMap<usize, Offer> = offers.into_iter().enumerate().collect();
        loop {
            let attempt = Box::pin(run.push_all(redial.connection(), &mut left, at_a_time, &mut report));
            let Err(failed) = redial.attempt(attempt, &run.tracker).await else { break };
            redial.after(failed, &run.tracker).await?;
            run.tracker.begin_again(left.keys().copied());
        }
        match run.is_deletion_withheld.load(Ordering::Relaxed) {
            true => run.tracker.end_without_deletion(report),
            false => run.tracker.end(report),
        }
    }
}

impl IntoFuture for PushJob {
    type Output = Result<Report, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// Says what a push of these would do.
async fn preview_all(
    connection: &Connection,
    preview: Preview,
    offers: Vec<Offer>,
    tracker: &Arc<Tracker>,
    digest: DigestAlgorithm,
) -> Result<Report, Error> {
    let mut report = Report::new(digest);
    for (part, offer) in offers.into_iter().enumerate() {
        let name = match offer.source.shape() {
            Shape::File { name } => Some(name.clone()),
            Shape::Directory { .. } | Shape::Contents => offer.name,
        };
        let path = match &name {
            Some(name) if offer.path.is_empty() => name.clone(),
            Some(name) => [&offer.path[..], b"/", name].concat(),
            None => offer.path,
        };
        let (source, filters) = (offer.source, Arc::clone(&preview.filters));
        let is_tree = source.is_tree();
        let local = move |shape: Option<&Shape>, digest| {
            if shape.is_some_and(|shape| matches!(shape, Shape::File { .. }) == source.is_tree()) {
                return Err(Cause::OtherKindThere);
            }
            let compared = Comparison::with_source(&source, filters, digest).map_err(Cause::Destination)?;
            compared.ok_or(Cause::Choice(ChoiceError::DryRunOutput))
        };
        let events = tracker.events(part, Side::ThisMachine);
        let Previewed { actions, unnamed } = preview.compare(connection, path, events, local).await?;
        let prefix = name.filter(|_| is_tree).map(|name| format!("{}/", escape(&name))).unwrap_or_default();
        let named =
            actions.into_iter().map(|action| Action { path: format!("{prefix}{}", action.path), ..action });
        report.actions.extend(named);
        report.actions_unnamed += unnamed;
    }
    tracker.end(report)
}

/// Everything that one job needs for each of its paths.
struct Run {
    options: TransferOptions,
    filters: Arc<Filters>,
    attributes: bool,
    existing: Existing,
    deletion: Option<bool>,
    durability: Durability,
    /// Whether a server has deleted nothing because something is left out.
    is_deletion_withheld: AtomicBool,
    tracker: Arc<Tracker>,
}

impl Run {
    /// Pushes what is left over one connection: what arrives is left no more.
    async fn push_all(
        &self,
        connection: &Connection,
        left: &mut BTreeMap<usize, Offer>,
        at_a_time: usize,
        report: &mut Report,
    ) -> Result<(), Error> {
        let offers: Vec<_> = left.iter().map(|(part, offer)| (*part, offer.clone())).collect();
        let mut pushing = futures::stream::iter(offers)
            .map(|(part, offer)| self.push_one(connection, part, offer).map_ok(move |pushed| (part, pushed)))
            .buffer_unordered(at_a_time);
        while let Some((part, pushed)) = pushing.try_next().await? {
            left.remove(&part);
            report.add(&pushed);
            self.is_deletion_withheld.fetch_or(pushed.summary.is_deletion_withheld, Ordering::Relaxed);
            let carried_bytes = self.tracker.read(|progress| progress.carried_bytes(part));
            report.bytes_sent += carried_bytes;
            report.bytes_resumed = report.bytes_resumed.saturating_sub(carried_bytes);
            self.tracker.update(|progress| progress.files = report.files);
        }
        Ok(())
    }

    async fn push_one(
        &self,
        connection: &Connection,
        part: usize,
        offer: Offer,
    ) -> Result<FilesReport, Error> {
        let push = self.open(connection, offer).await?;
        let named = Arc::new(AtomicU64::new(0));
        let events = self.events(part, Arc::clone(&named));
        let report = match push.send(&self.options, events).await {
            // The connection broke after all was sent. What has become of it can be asked for again.
            Err(PushError::Unknown { receipt, source: CallError::ConnectionLost(_) }) => {
                let again = connection.redial().await?;
                receipt.settle(again.rpc()).await.map_err(Cause::from)?
            }
            other => other.map_err(Cause::from)?,
        };
        self.tracker.left_out_unnamed(report.left_out_there.saturating_sub(named.load(Ordering::Relaxed)));
        Ok(report)
    }

    /// The events of one path. `named` counts what the server says that it leaves out.
    fn events(&self, part: usize, named: Arc<AtomicU64>) -> EventFn {
        let events = self.tracker.events(part, Side::ThisMachine);
        Arc::new(move |event| {
            if matches!(event, TransferEvent::LeftOut { at_source: false, .. }) {
                named.fetch_add(1, Ordering::Relaxed);
            }
            events(event);
        })
    }

    /// A server may be busy with what another job has put there. An interrupted one of this very push it lets
    /// us take over from; of any other it notices within its idle timeout that the connection is dead.
    async fn open(&self, connection: &Connection, offer: Offer) -> Result<Push, Error> {
        let request = PushRequest {
            path: offer.path,
            name: offer.name,
            total_bytes: offer.total_bytes,
            existing: self.existing,
            delete: self.deletion,
            chunk_len_bytes: self.options.chunk_len_bytes,
            durability: self.durability,
            filters: Arc::clone(&self.filters),
            attributes: self.attributes,
            source_name: offer.source_name,
        };
        let give_up_at = Instant::now() + BUSY_PATIENCE;
        loop {
            let rpc = connection.rpc();
            match Push::open(rpc, offer.source.clone(), &request, &self.options).await {
                Err(error) if error.is_busy() && Instant::now() < give_up_at => {
                    self.tracker.phase(Phase::Waiting);
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                opened => return Ok(opened.map_err(Cause::from)?),
            }
        }
    }
}

/// A source, and how it is announced to the server.
#[derive(Clone)]
struct Offer {
    source: Source,
    /// The directory to put it into.
    path: Vec<u8>,
    /// `None` for a single file that goes by its source's name, and for the content of a directory.
    name: Option<Vec<u8>>,
    total_bytes: Option<u64>,
    source_name: Vec<u8>,
}

/// Opens everything before the server is asked for anything. Blocking.
fn open(content: Content, target: &[u8]) -> Result<Vec<Offer>, Cause> {
    let paths = match content {
        Content::File(file) => return Ok(vec![open_file(file, target)?]),
        Content::Paths(paths) if paths.is_empty() => return Err(Cause::NothingToPush),
        Content::Paths(paths) => paths,
    };
    let mut names = HashSet::new();
    for path in &paths {
        let name = name_of(path);
        if !names.insert(name) {
            let shown = name.unwrap_or_else(|| OsStr::new("."));
            return Err(Cause::SameName { name: escape(shown.as_encoded_bytes()).to_string() });
        }
    }
    paths.iter().map(|path| open_path(path, target)).collect()
}

/// The absolute path names the source for a later run, wherever that is started from.
fn open_path(path: &Path, target: &[u8]) -> Result<Offer, Cause> {
    let source = SourceRoot::open(path).and_then(|root| root.resolve(b"")).map_err(Cause::Source)?;
    let total_bytes = match source.shape() {
        Shape::File { .. } => path.metadata().ok().map(|found| found.len()),
        // To know it, all would have to be listed first.
        Shape::Directory { .. } | Shape::Contents => None,
    };
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let source_name = absolute.into_os_string().into_encoded_bytes();
    // The wire's names are bytes; on platforms where they are not, they are UTF-8.
    let name = name_of(path).map(|name| name.as_encoded_bytes().to_vec());
    Ok(Offer { source, path: target.to_vec(), name, total_bytes, source_name })
}

fn open_file(file: File, target: &[u8]) -> Result<Offer, Cause> {
    let (path, name) = match target.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None if target.is_empty() => return Err(Cause::ContentUnnamed),
        None => (&target[..0], target),
    };
    let len_bytes = file.metadata().map(|found| found.len());
    let source = Source::of_open_file(file, name).map_err(Cause::Source)?;
    let total_bytes = len_bytes.ok().filter(|_| source.input().is_none());
    Ok(Offer { source, path: path.to_vec(), name: None, total_bytes, source_name: b"-".to_vec() })
}

/// The name that a path goes by; `None` for the content of a directory.
fn name_of(path: &Path) -> Option<&OsStr> {
    let is_content = path.as_os_str().as_encoded_bytes().ends_with(b"/.");
    if is_content { None } else { path.file_name() }
}

/// Four: enough that small files do not wait for each other's round trips, and few enough that all the
/// chunks of each still find streams.
const MAX_AT_A_TIME: usize = 4;

/// 40 s: a server forgets a pusher that has vanished after 30.
const BUSY_PATIENCE: Duration = Duration::from_secs(40);

/// 1 s: soon enough for a person, and nothing to the server.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_by_its_name_unless_it_ends_in_a_dot() {
        for (typed, name) in [
            ("x", Some("x")),
            ("d/x/", Some("x")),
            (".", None),
            ("..", None),
            ("d/.", None),
            ("/", None),
            ("d/..", None),
            (".hidden", Some(".hidden")),
        ] {
            assert_eq!(name_of(Path::new(typed)), name.map(OsStr::new), "{typed}");
        }
    }

    #[test]
    fn two_paths_of_one_name_are_refused_before_anything_is_opened() {
        for same in [["x", "d/x"], ["x/", "x"], [".", "y/."]] {
            let opened = open(Content::Paths(same.map(PathBuf::from).to_vec()), b"");
            assert!(matches!(opened, Err(Cause::SameName { .. })), "{same:?}");
        }
        assert!(matches!(open(Content::Paths(Vec::new()), b""), Err(Cause::NothingToPush)));
    }

    #[test]
    fn the_content_of_an_open_file_needs_a_name() {
        let open_as = |target: &[u8]| open(Content::File(tempfile::tempfile().unwrap()), target);
        assert!(matches!(open_as(b""), Err(Cause::ContentUnnamed)));
        assert_eq!(open_as(b"logs/today").unwrap()[0].path, b"logs");
        assert_eq!(open_as(b"today").unwrap()[0].path, b"");
    }
}
