//! Synchronising: `connection.sync(directory).await`.

mod watch;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use shiplane_files::internals::sync::{self as disk, Change, Consent, SyncState, Why};
use shiplane_protocols::internals::sync::{self as engine, SyncEvent, SyncEventFn};
use shiplane_wire::LeftOutReason;

use super::{Connection, redial::Redial};
use crate::{
    error::{Cause, Error},
    event::{Action, Phase, Side},
    left_out::CONFLICT,
    report::Report,
    settings::{Settings, common_setters},
    tracker::{ProgressState, Tracker},
};

/// Synchronises two directories. Made by [`Connection::sync`]; runs when it is awaited.
///
/// What either side has written or deleted since the last sync is done on the other. Where both have changed a file,
/// the later version keeps its name and the other is kept beside it. If some paths had to be left out, the job ends with
/// [`ErrorKind::LeftOut`](crate::ErrorKind::LeftOut), and [`Error::report`] says what was done.
///
/// If the connection is lost, the job connects again by itself and goes on, see
/// [`give_up_after`](Self::give_up_after). Dropping the future ends the sync in the middle. Nothing is lost: each file is one of the versions that there were,
/// complete, and the same job run again continues from there.
#[derive(Debug)]
#[must_use = "a job runs when it is awaited"]
pub struct SyncJob {
    connection: Connection,
    directory: PathBuf,
    to: Vec<u8>,
    is_dry_run: bool,
    allows_mass_deletion: bool,
    only_to: Option<disk::Side>,
    watches: bool,
    settings: Settings,
}

impl Connection {
    /// Synchronises a local directory with one of the server's, in both directions: await the job that this returns.
    pub fn sync(&self, directory: impl AsRef<Path>) -> SyncJob {
        SyncJob::new(self.clone(), directory.as_ref())
    }
}

impl SyncJob {
    fn new(connection: Connection, directory: &Path) -> Self {
        Self {
            connection,
            directory: directory.to_owned(),
            to: Vec::new(),
            is_dry_run: false,
            allows_mass_deletion: false,
            only_to: None,
            watches: false,
            settings: Settings::default(),
        }
    }

    /// The server's directory, which is created if it does not exist. The default is the path of the connection's
    /// target.
    pub fn to(mut self, path: impl AsRef<[u8]>) -> Self {
        self.to = path.as_ref().to_vec();
        self
    }

    /// Whether to change nothing: [`Report::actions`] then says what would be done.
    pub fn dry_run(mut self, is_dry_run: bool) -> Self {
        self.is_dry_run = is_dry_run;
        self
    }

    /// Whether the sync may delete more than half of one side's files, or more than a thousand.
    pub fn allow_mass_deletion(mut self, allows_mass_deletion: bool) -> Self {
        self.allows_mass_deletion = allows_mass_deletion;
        self
    }

    /// Syncs in one direction only: applies the changes of the other machine on this one. The other one is not
    /// changed; to take from a server, permission to read is enough, and any server will do. `None`, or [`Side::Network`], which is neither of them: both directions, the default.
    ///
    /// What the side that is changed has of its own stays: files that the other side does not have, and also files that
    /// both have changed, or that one has changed and the other deleted. Those are left out, with an
    /// [`Action::change`] of `conflict`. What was deleted there alone comes again. A later sync in both directions finds
    /// all of that.
    pub fn one_way(mut self, to: impl Into<Option<Side>>) -> Self {
        self.only_to = match to.into() {
            Some(Side::ThisMachine) => Some(disk::Side::Local),
            Some(Side::Peer) => Some(disk::Side::Remote),
            Some(Side::Network) | None => None,
        };
        self
    }

    /// Whether to sync again after every change on either side, until the job is cancelled: it then ends with
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted), and both sides are as after any other sync. Each time
    /// both sides are equal again, there is an event, [`Synced`](crate::EventKind::Synced). What is left out is in it, and
    /// does not end the job.
    ///
    /// With [`give_up_after`](Self::give_up_after) of `Duration::MAX`, it waits for an absent server without end. A dry run
    /// does not watch.
    pub fn watch(mut self, watches: bool) -> Self {
        self.watches = watches;
        self
    }

    common_setters!();

    async fn run(mut self) -> Result<Report, Error> {
        let cancelled = self.settings.take_cancelled();
        let connection = self.connection.clone();
        connection.run_confirmed(self.sync(), cancelled).await
    }

    async fn sync(mut self) -> Result<Report, Error> {
        let tracker = self.settings.tracker(progress())?;
        let filters = self.settings.filters().await?;
        let job = engine::SyncJob {
            directory: self.directory,
            root: None,
            remote_path: self.connection.server_path(&self.to)?,
            state: SyncState::at(self.connection.client().places().sync_path()?),
            own: self.connection.client().id(),
            only_to: self.only_to,
            consent: Consent { mass_deletion: self.allows_mass_deletion },
            filters,
            attributes: self.settings.attributes,
            dry_run: self.is_dry_run,
            relisting: None,
            peer_watch: None,
            transfer: self.settings.options(),
        };
        let redial = Redial::new(&self.connection, self.settings.give_up_after);
        let mut rounds = Rounds { job, redial, tracker, took: Duration::ZERO, is_inexact: false };
        if self.watches && !self.is_dry_run {
            let never = rounds.watch().await?;
            match never {}
        }
        let report = rounds.round().await?;
        rounds.tracker.end(report)
    }
}

impl IntoFuture for SyncJob {
    type Output = Result<Report, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// Syncs of the same two directories, one after the other.
struct Rounds {
    job: engine::SyncJob,
    redial: Redial,
    tracker: Arc<Tracker>,
    /// How long the last one took, once there was a connection for it.
    took: Duration,
    /// Whether something was not as it was listed.
    is_inexact: bool,
}

impl Rounds {
    /// Makes both sides equal, over as many connections as it takes.
    async fn round(&mut self) -> Result<Report, Error> {
        let Self { job, redial, tracker, took, is_inexact } = self;
        let mut planned = Planned::default();
        let synced = loop {
            let began = Instant::now();
            // Large futures would be copied into each one around them.
            let (rpc, events) = (redial.connection().rpc(), events(tracker, planned.latest()));
            let attempt =
                Box::pin(engine::synchronise(rpc, job, events)).map_err(|error| Cause::from(error).into());
            match redial.attempt(attempt, tracker).await {
                Ok(synced) => {
                    *took = began.elapsed();
                    break synced;
                }
                Err(failed) => redial.after(failed, tracker).await?,
            }
            job.relisting.iter_mut().for_each(|relisting| relisting.is_full = true);
            planned.begin_again();
            tracker.begin_again([RECEIVING, SENDING]);
        };
        *is_inexact = synced.left.iter().any(|left| left.why.reason() == LeftOutReason::Changed);
        let report = report(tracker, &synced, job.transfer.digest);
        let actions = planned.with(report.actions);
        Ok(Report { actions, ..report })
    }
}

fn progress() -> ProgressState {
    ProgressState::new(Phase::Scanning, 2, None)
}

/// What the attempts have planned. Whatever of it was not done is planned again by the next.
#[derive(Default)]
struct Planned {
    latest: Arc<Mutex<Vec<Action>>>,
    earlier: Vec<Action>,
}

impl Planned {
    fn latest(&self) -> Arc<Mutex<Vec<Action>>> {
        Arc::clone(&self.latest)
    }

    fn begin_again(&mut self) {
        let latest = std::mem::take(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner));
        let earlier = std::mem::take(&mut self.earlier);
        self.earlier = Self { earlier, ..Self::default() }.with(latest);
    }

    /// All that was planned earlier, and `latest`: what was not done before is in both.
    fn with(self, latest: Vec<Action>) -> Vec<Action> {
        let name = |action: &Action| (action.side, action.change, action.path.clone());
        let again: HashSet<_> = latest.iter().map(name).collect();
        let earlier = self.earlier.into_iter().filter(|action| !again.contains(&name(action)));
        earlier.chain(latest).collect()
    }
}

fn events(tracker: &Arc<Tracker>, planned: Arc<Mutex<Vec<Action>>>) -> SyncEventFn {
    let tracker = Arc::clone(tracker);
    Arc::new(move |event| match event {
        SyncEvent::Waiting => tracker.phase(Phase::Waiting),
        SyncEvent::Scanning => tracker.phase(Phase::Scanning),
        SyncEvent::Comparing => tracker.phase(Phase::Comparing),
        SyncEvent::Settling => tracker.phase(Phase::Settling),
        SyncEvent::Planned(actions) => {
            *planned.lock().unwrap_or_else(PoisonError::into_inner) = actions.iter().map(action).collect();
            tracker.update(|progress| {
                progress.phase = Phase::Syncing;
                let is_take = |action: &disk::Action| matches!(action.change, Change::Take { .. });
                for (part, side) in [(RECEIVING, disk::Side::Local), (SENDING, disk::Side::Remote)] {
                    if !actions.iter().any(|action| action.side == side && is_take(action)) {
                        progress.is_empty(part);
                    }
                }
            });
        }
        // What is left out is in the report, once for both directions.
        SyncEvent::Receiving(event) => tracker.update(|progress| progress.add(&event, RECEIVING)),
        SyncEvent::Sending(event) => tracker.update(|progress| progress.add(&event, SENDING)),
    })
}

fn report(
    tracker: &Tracker,
    synced: &engine::SyncReport,
    digest_algorithm: shiplane_wire::DigestAlgorithm,
) -> Report {
    for (at, reason, path) in &synced.unlisted {
        tracker.left_out(Action::left_out(side(*at), *reason, path.clone(), None));
    }
    for left in &synced.left {
        let (path, why) = (left.path.to_string(), left.why.to_string());
        let left_out = Action::left_out(side(left.side), left.why.reason(), path, Some(why));
        let is_conflict = matches!(left.why, disk::UnresolvedReason::OwnVersion);
        tracker.left_out(Action { change: if is_conflict { CONFLICT } else { left_out.change }, ..left_out });
    }
    tracker.left_out_unnamed(synced.left_unnamed);
    Report {
        files: synced.files,
        bytes_sent: synced.sent_bytes + tracker.read(|progress| progress.carried_bytes(SENDING)),
        bytes_received: synced.received_bytes + tracker.read(|progress| progress.carried_bytes(RECEIVING)),
        bytes_wire: synced.wire_bytes,
        bytes_resumed: tracker.read(ProgressState::bytes_resumed),
        digest: Some(synced.digest.to_string()),
        actions: synced.actions.iter().map(action).collect(),
        ..Report::new(digest_algorithm)
    }
}

fn action(action: &disk::Action) -> Action {
    let (change, from) = match &action.change {
        Change::KeepAs { from } => ("keep_as", Some(from)),
        Change::Rename { from } => ("rename", Some(from)),
        Change::RemoveFile => ("remove_file", None),
        Change::RemoveDirectory => ("remove_directory", None),
        Change::CreateDirectory => ("create_directory", None),
        Change::CreateLink => ("create_link", None),
        Change::SetMetadata => ("set_metadata", None),
        Change::Take { from } => ("take", Some(from).filter(|from| **from != action.path)),
    };
    let why = match (action.why, action.side) {
        (Why::Created, _) => "new on the other side",
        (Why::Edited, _) => "edited on the other side",
        (Why::MetadataChanged, _) => "another mode or time on the other side",
        (Why::Deleted, _) => "deleted on the other side",
        (Why::EditOutlivesDeletion, disk::Side::Local) => "deleted here, edited there",
        (Why::EditOutlivesDeletion, disk::Side::Remote) => "deleted there, edited here",
        (Why::Restored, _) => "deleted on this side only",
        (Why::BothEdited, _) => "edited on both sides",
        (Why::DirectoryInItsPlace, _) => "a directory has its name",
    };
    let from = from.map(ToString::to_string);
    Action { side: side(action.side), change, path: action.path.to_string(), from, why: why.into() }
}

fn side(side: disk::Side) -> Side {
    match side {
        disk::Side::Local => Side::ThisMachine,
        disk::Side::Remote => Side::Peer,
    }
}

/// The directions are the parts of a sync's progress.
const RECEIVING: usize = 0;
const SENDING: usize = 1;
