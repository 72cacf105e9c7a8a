//! Fetching: `connection.get(path).to(dest).await`.

mod files;
mod list;
mod output;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use shiplane_files::internals::{
    Comparison, Destination, DestinationError, Existing, Filters, ReceiveOptions, Shape,
};
use shiplane_protocols::internals::{
    Fetch, FetchError, FetchRequest,
    transfer::{FilesReport, OutputStream, Target, TransferError, TransferOptions},
};
use shiplane_transport::internals::blocking;
use shiplane_wire::{Durability, escape};
use tokio::sync::watch;

use self::{
    files::{Expected, FileEvents},
    output::{HashingOutput, OutputDigest},
};
use super::{
    ByCode, Connection,
    preview::{Preview, Previewed},
    redial::Redial,
};
use crate::{
    error::{Cause, ChoiceError, Error},
    event::{Phase, Side},
    report::Report,
    settings::{ExistingFiles, Settings, common_setters, existing_setters},
    tracker::{ProgressState, Tracker},
};

/// Fetches a file or a tree, or lists it. Made by [`Connection::get`] and [`Connection::list`]; runs when it is awaited.
///
/// If the connection is lost, the job connects again by itself and goes on, see
/// [`give_up_after`](Self::give_up_after). Dropping the future ends the transfer. What was verified is kept, and the same
/// job run again does not fetch it twice; no file appears under its name before it is complete.
#[derive(Debug)]
#[must_use = "a job runs when it is awaited"]
pub struct GetJob {
    connection: Connection,
    path: Vec<u8>,
    dest: Dest,
    taken: Vec<PathBuf>,
    existing: ExistingFiles,
    is_dry_run: bool,
    /// Whether it only lists; then, whether everything below.
    listing: Option<bool>,
    verify: bool,
    sha256: bool,
    is_durable: bool,
    /// What a sender that was found by a code has offered.
    by_code: Option<Arc<ByCode>>,
    refuses_hidden: bool,
    settings: Settings,
}

enum Dest {
    Path(PathBuf),
    Writer(Box<dyn io::Write + Send>),
}

impl fmt::Debug for Dest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

impl Connection {
    /// Fetches a file or a tree: await the job that this returns. An empty path means everything that the target
    /// names.
    pub fn get(&self, path: impl AsRef<[u8]>) -> GetJob {
        GetJob::new(self.clone(), path.as_ref())
    }

    /// Lists what [`get`](Self::get) would fetch: await the job that this returns. Each entry is an event of the kind
    /// [`Listed`](crate::EventKind::Listed), in the order in which the server finds them. A directory is listed without
    /// what is in its directories, unless the job is [`recursive`](GetJob::recursive). Of the job's other settings
    /// those count that choose what takes part, watch it and cancel it.
    pub fn list(&self, path: impl AsRef<[u8]>) -> GetJob {
        GetJob::listing(self.clone(), path.as_ref())
    }
}

impl GetJob {
    fn new(connection: Connection, path: &[u8]) -> Self {
        let by_code = connection.by_code().cloned();
        let is_by_code = by_code.is_some();
        // What is written by another's word.
        let settings = Settings { inside_links_only: is_by_code, ..Settings::default() };
        Self {
            by_code: by_code.filter(|_| path.is_empty()),
            refuses_hidden: is_by_code,
            connection,
            path: path.to_vec(),
            dest: Dest::Path(PathBuf::from("./")),
            taken: Vec::new(),
            existing: ExistingFiles::default(),
            is_dry_run: false,
            listing: None,
            verify: false,
            sha256: false,
            is_durable: true,
            settings,
        }
    }

    fn listing(connection: Connection, path: &[u8]) -> Self {
        Self { listing: Some(false), ..Self::new(connection, path) }
    }

    /// The destination. A directory becomes `dest`, whether that exists or not. A file becomes `dest` too, unless that
    /// is a directory: then it lands in it. If `dest` ends in a slash, both land in it by their names; so does a served
    /// root, which has the name of its directory. Missing directories are created. The default is `./`; what a
    /// [code](crate::Client::receive_at) leads to then lands there only if its name does not begin with a dot.
    pub fn to(mut self, dest: impl Into<PathBuf>) -> Self {
        self.dest = Dest::Path(dest.into());
        self.refuses_hidden = false;
        self
    }

    /// Writes the content of a single file to `writer`, in order, each chunk after it was verified. Over a new connection
    /// it goes on with the next byte, provided that the file is still the same.
    pub fn to_writer(mut self, writer: impl io::Write + Send + 'static) -> Self {
        self.dest = Dest::Writer(Box::new(writer));
        self
    }

    /// Fails before anything is written if the destination is one of these paths: those where earlier jobs of the same
    /// command have [landed](Report::landed).
    pub fn not_at(mut self, taken: impl IntoIterator<Item = PathBuf>) -> Self {
        self.taken = taken.into_iter().collect();
        self
    }

    /// Whether a listing includes subdirectories. By default it does not.
    pub fn recursive(mut self, is_recursive: bool) -> Self {
        self.listing = self.listing.map(|_| is_recursive);
        self
    }

    existing_setters!();

    /// Whether to change nothing: [`Report::actions`] then says what would be done. Modes and times are not compared.
    pub fn dry_run(mut self, is_dry_run: bool) -> Self {
        self.is_dry_run = is_dry_run;
        self
    }

    /// Whether files that exist are compared by content, not just by size and time.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Whether the event of each file has its SHA-256; each file is then read once more.
    pub fn sha256(mut self, sha256: bool) -> Self {
        self.sha256 = sha256;
        self
    }

    /// Whether the job ends only when everything survives a power cut. That is the default; otherwise the system
    /// may still hold some of it in memory.
    pub fn durable(mut self, is_durable: bool) -> Self {
        self.is_durable = is_durable;
        self
    }

    common_setters!();

    async fn run(mut self) -> Result<Report, Error> {
        let cancelled = self.settings.take_cancelled();
        let connection = self.connection.clone();
        let (writing, mut released) = watch::channel(());
        let ended = connection.run(self.fetch(Arc::new(writing)), cancelled).await;
        if ended.is_err() {
            // So that the same job can be continued at once: a thread may still be writing.
            let released = async { while released.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, released).await;
        }
        ended
    }

    /// `writing` is held as long as anything is written here.
    async fn fetch(mut self, writing: Arc<watch::Sender<()>>) -> Result<Report, Error> {
        let phases = (Phase::Receiving, Phase::Publishing);
        let has_events = self.settings.on_progress.is_some();
        let progress = ProgressState::new(Phase::Listing, 1, Some(phases));
        let tracker = self.settings.tracker(progress)?;
        let path = self.connection.server_path(&self.path)?;
        if let Some(is_recursive) = self.listing {
            return list::list(&self.connection, path, is_recursive, self.settings, &tracker).await;
        }
        let choice = Choice {
            filters: self.settings.filters().await?,
            existing: self.existing.settle().map_err(Cause::from)?,
        };
        if self.is_dry_run {
            return self.preview(path, choice, &tracker).await;
        }
        let mut redial = Redial::new(&self.connection, self.settings.give_up_after);
        let file_events = has_events.then_some(self.sha256);
        let sink = Sink::of(&mut self, file_events, writing);
        let (fetched, landed) = loop {
            let (held, mut released) = watch::channel(());
            let attempt =
                Box::pin(self.attempt(redial.connection(), &path, &choice, (&sink, held), &tracker));
            match redial.attempt(attempt, &tracker).await {
                Ok(fetched) => break fetched,
                Err(failed) => {
                    // The next attempt writes the same files.
                    let released = async { while released.changed().await.is_ok() {} };
                    let _ = tokio::time::timeout(ATTEMPT_RELEASE_TIMEOUT, released).await;
                    redial.after(failed, &tracker).await?;
                }
            }
            tracker.begin_again([0]);
        };
        let mut report = Report::new(fetched.digest_algorithm);
        report.add(&fetched);
        report.bytes_received += tracker.read(|progress| progress.carried_bytes(0));
        report.bytes_resumed = report.bytes_total.saturating_sub(report.bytes_received);
        report.landed = landed;
        if self.by_code.is_some() {
            redial.connection().conclude(true).await?;
        }
        match fetched.summary.is_deletion_withheld {
            true => tracker.end_without_deletion(report),
            false => tracker.end(report),
        }
    }

    async fn preview(self, path: Vec<u8>, choice: Choice, tracker: &Arc<Tracker>) -> Result<Report, Error> {
        let Dest::Path(dest) = self.dest else { return Err(Cause::Choice(ChoiceError::DryRunOutput).into()) };
        let Choice { filters, existing } = choice;
        let local_filters = Arc::clone(&filters);
        let local = move |shape: Option<&Shape>, digest| {
            let shape = shape.ok_or(Cause::Abandoned)?;
            Comparison::at(&dest, shape, local_filters, digest).map_err(Cause::Destination)
        };
        let deletes = self.existing.deletion().is_some();
        let (options, receiver) = (self.settings.options(), Side::ThisMachine);
        let preview = Preview { filters, existing, deletes, options, receiver };
        let events = tracker.events(0, Side::Peer);
        let Previewed { actions, unnamed } = preview.compare(&self.connection, path, events, local).await?;
        tracker.end(Report { actions, actions_unnamed: unnamed, ..Report::new(self.settings.digest) })
    }

    /// Fetches over one connection. `held` is dropped once nothing of it is written any more.
    async fn attempt(
        &mut self,
        connection: &Connection,
        path: &[u8],
        choice: &Choice,
        (sink, held): (&Sink, watch::Sender<()>),
        tracker: &Arc<Tracker>,
    ) -> Result<(FilesReport, Option<PathBuf>), Error> {
        let options = self.settings.options();
        let is_new_here = match sink {
            Sink::Output(..) => true,
            Sink::Disk(LocalDest { dest, .. }) => {
                let (dest, path) = (dest.clone(), path.to_vec());
                let looking = blocking::spawn(move || is_new_at(&dest, &path));
                looking.await.map_err(|_| Cause::Abandoned)?
            }
        };
        let filters = Arc::clone(&choice.filters);
        let attributes = self.settings.attributes;
        let request = FetchRequest { path: path.to_vec(), is_new_here, filters, attributes };
        let fetch = Fetch::open(connection.rpc(), request, &options).await.map_err(Cause::from)?;
        let opened = Opened { fetch, options, tracker: Arc::clone(tracker) };
        Ok(match sink {
            Sink::Output(output, digest) => (to_output(opened, output, digest).await?, None),
            Sink::Disk(dest) => {
                let receive = ReceiveOptions {
                    existing: choice.existing,
                    durability: if self.is_durable { Durability::Durable } else { Durability::Verified },
                    verify: self.verify,
                    links: self.settings.links(),
                    attributes,
                    digest: opened.fetch.digest(),
                    chunk_len_bytes: self.settings.chunk_len_bytes,
                };
                let (report, landed) = to_disk(opened, (dest.clone(), held), receive).await?;
                (report, Some(landed))
            }
        })
    }
}

impl IntoFuture for GetJob {
    type Output = Result<Report, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// What the server is ready for, and how it is run.
struct Opened {
    fetch: Fetch,
    options: TransferOptions,
    tracker: Arc<Tracker>,
}

impl Opened {
    async fn receive(self, target: Target) -> Result<FilesReport, Cause> {
        let Self { fetch, options, tracker } = self;
        Ok(fetch.receive(target, &options, tracker.events(0, Side::Peer)).await?)
    }
}

/// Where it all goes, over however many connections.
enum Sink {
    Output(OutputStream, OutputDigest),
    Disk(LocalDest),
}

/// What takes part, and what becomes of files that exist.
struct Choice {
    filters: Arc<Filters>,
    existing: Existing,
}

/// Where a fetch lands.
#[derive(Clone)]
struct LocalDest {
    dest: PathBuf,
    /// Where it may not.
    taken: Vec<PathBuf>,
    /// Whether files that are not at the source are removed; then, whether most of the files may be.
    deletion: Option<bool>,
    /// Whether there is an event for each file, and whether that has a digest.
    file_events: Option<bool>,
    /// Held as long as anything is written.
    writing: Arc<watch::Sender<()>>,
    expected: Expected,
}

impl Sink {
    fn of(job: &mut GetJob, file_events: Option<bool>, writing: Arc<watch::Sender<()>>) -> Self {
        match std::mem::replace(&mut job.dest, Dest::Path(PathBuf::new())) {
            Dest::Path(dest) => {
                let (taken, deletion) = (std::mem::take(&mut job.taken), job.existing.deletion());
                let expected = Expected { by_code: job.by_code.clone(), refuses_hidden: job.refuses_hidden };
                Self::Disk(LocalDest { dest, taken, deletion, file_events, writing, expected })
            }
            Dest::Writer(writer) => {
                let (output, digest) = HashingOutput::new(writer, job.sha256);
                Self::Output(OutputStream::new(output), digest)
            }
        }
    }
}

/// One file, in order, each chunk verified before a byte of it is written.
async fn to_output(
    mut opened: Opened,
    output: &OutputStream,
    digest: &OutputDigest,
) -> Result<FilesReport, Cause> {
    let Shape::File { name } = opened.fetch.shape() else {
        return Err(Cause::NotOneFile);
    };
    let name = escape(name).to_string();
    // Chunks that come early are held whole.
    opened.options.chunk_len_bytes = opened.options.chunk_len_bytes.min(MAX_HELD_CHUNK_LEN_BYTES);
    let tracker = Arc::clone(&opened.tracker);
    let report = opened.receive(Target::stream(output)).await.map_err(of_output)?;
    let sha256 = digest.finish().map(|sha256| sha256.to_string());
    tracker.file(name, report.total_bytes, true, sha256);
    Ok(report)
}

/// Tells a writer that fails from a disk that fails.
fn of_output(cause: Cause) -> Cause {
    match cause {
        Cause::Fetch(FetchError::Transfer(TransferError::Destination(DestinationError::Io {
            source,
            ..
        }))) => Cause::Output(source),
        other => other,
    }
}

/// A file or a tree; gives where it has landed.
async fn to_disk(
    opened: Opened,
    (dest, held): (LocalDest, watch::Sender<()>),
    receive: ReceiveOptions,
) -> Result<(FilesReport, PathBuf), Cause> {
    let (shape, key) = (opened.fetch.shape().clone(), opened.fetch.job());
    let LocalDest { dest, taken, deletion, file_events, writing, expected } = dest;
    expected.check_top(&shape)?;
    let rules = expected.rules(&shape);
    let opening = blocking::spawn(move || Destination::open(&dest, &shape, key, receive));
    let destination = opening.await.map_err(|_| Cause::Abandoned)?.map_err(Cause::Destination)?;
    let landed = destination.landing();
    if taken.contains(&landed) {
        let name = landed.file_name().unwrap_or(landed.as_os_str());
        return Err(Cause::SameName { name: escape(name.as_encoded_bytes()).to_string() });
    }
    destination.hold(Arc::new((writing, held)));
    let destination = match deletion {
        Some(consent) => destination.deleting(consent, Box::new(())),
        None => destination,
    };
    let destination = match (file_events, &rules) {
        (None, None) => destination,
        _ => FileEvents::of(destination, file_events, rules, Arc::clone(&opened.tracker)),
    };
    Ok((opened.receive(destination.into()).await?, landed))
}

/// Whether nothing of `path` is at `dest` yet, nor what an earlier run has kept of it. A guess: whether it is a file or
/// a directory, only the server knows. Blocking.
fn is_new_at(dest: &Path, path: &[u8]) -> bool {
    // A dangling link counts as existing.
    let is_missing =
        |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let Ok(entries) = dest.read_dir() else { return is_missing(dest) };
    let mut names = entries.flatten().map(|entry| entry.file_name()).peekable();
    if names.peek().is_none() {
        return true;
    }
    if !dest.as_os_str().as_encoded_bytes().ends_with(b"/") {
        // If it is a directory, this is it.
        return false;
    }
    let name = path.rsplit(|byte| *byte == b'/').next().and_then(|name| str::from_utf8(name).ok());
    let has_unfinished = names.any(|name| name.as_encoded_bytes().starts_with(b".shiplane-"));
    !has_unfinished && name.is_some_and(|name| !name.is_empty() && is_missing(&dest.join(name)))
}

/// 500 ms: a write that a disk will do at all is done by then, and Ctrl-C takes less than a second.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// 30 s: as long as a disk that still does anything may take for what it was given.
const ATTEMPT_RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// 512 KiB: 32 of them are 16 MiB.
const MAX_HELD_CHUNK_LEN_BYTES: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn whether_a_fetch_is_new_is_guessed_by_the_destination() {
        let dir = tempfile::TempDir::new().unwrap();
        let (dest, below) = (dir.path().join("dest"), dir.path().join("dest/photos"));
        let within = dest.join("");
        assert!(is_new_at(&dest, b""), "it does not exist");
        fs::create_dir(&dest).unwrap();
        assert!(is_new_at(&dest, b""), "it is empty");
        fs::write(dest.join("other"), "").unwrap();
        assert!(!is_new_at(&dest, b"2026/photos"), "it may be the directory itself");
        assert!(!is_new_at(&within, b""), "only the server knows its name");
        assert!(is_new_at(&within, b"2026/photos"));
        fs::create_dir(&below).unwrap();
        assert!(!is_new_at(&within, b"2026/photos"));
        assert!(is_new_at(&within, b"2026/videos"));
        fs::write(dest.join(".shiplane-1.part"), "").unwrap();
        assert!(!is_new_at(&within, b"2026/videos"), "an earlier run has left something");
        assert!(!is_new_at(&dest.join("other"), b"other"), "a file");
    }
}
