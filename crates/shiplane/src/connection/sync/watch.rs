//! Syncs again with every change on either side. Such a round looks only at what has changed; the first one, one over a new
//! connection, one after a failure, and one from time to time look at everything.

use std::{convert::Infallible, future, sync::Arc, time::Duration};

use shiplane_files::internals::{
    SourceError, SourceRoot,
    sync::{self as disk, DatasetError, DatasetWatch, Relisting, Unwatched, WatchLimit},
};
use shiplane_protocols::internals::sync::{PeerWatch, SyncError};
use shiplane_rpc::{CallError, Fault, FaultCode};
use shiplane_transport::internals::blocking;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Rounds, progress};
use crate::{
    error::{Cause, Error},
    event::{Phase, Side},
    report::Report,
};

/// This side's directory, as it is watched.
struct Here {
    tree: Arc<DatasetWatch>,
    changes: watch::Receiver<u64>,
}

/// The peer's directory.
enum There {
    /// The server has not been asked over this connection.
    New,
    /// It is yet to be created by a sync.
    Missing,
    Watched {
        watch: PeerWatch,
        /// What was known before the last round.
        seen: u64,
        unwatched: Option<Unwatched>,
    },
    /// The server does not watch it for us.
    Unwatched,
}

impl There {
    fn id(&self) -> Option<[u8; 16]> {
        match self {
            Self::Watched { watch, .. } => Some(watch.id()),
            Self::New | Self::Missing | Self::Unwatched => None,
        }
    }
}

impl Rounds {
    /// Ends only by a failure.
    pub(super) async fn watch(&mut self) -> Result<Infallible, Error> {
        let (root, mut here) = self.here().await?;
        self.job.root = Some(root);
        let (mut there, mut is_first, mut told) = (There::New, true, [None; 2]);
        let (mut is_full, mut is_again, mut last_full) = (true, false, Instant::now());
        loop {
            // What changes from here on is the next round's.
            here.changes.mark_unchanged();
            if matches!(there, There::New | There::Missing) {
                let begun = self.begin_there(&mut there).await;
                if !self.survives(begun).await? {
                    there = There::New;
                    continue;
                }
                is_full = true;
            }
            is_full |= last_full.elapsed() >= full_interval(self.took);
            self.job.relisting = Some(Relisting { watch: Arc::clone(&here.tree), is_full });
            self.job.peer_watch = there.id();
            let connection = self.redial.connection().clone();
            let report = self.round().await;
            let Some(report) = self.passing(report)? else {
                is_full = true;
                sleep(BUSY_PAUSE).await;
                continue;
            };
            let ended = Instant::now();
            if is_full {
                last_full = ended;
            }
            // What was not as it was listed is listed again, once, although nothing may tell of a change.
            (is_full, is_again) = (false, self.is_inexact && !is_again);
            self.redial.succeeded();
            let is_told = is_first || !report.actions.is_empty();
            self.tracker.end_round(Report { elapsed: self.took, ..report }, is_told);
            is_first = false;
            if !connection.is_same(self.redial.connection()) {
                there = There::New;
            }
            if let There::Watched { .. } | There::Unwatched = there {
                self.tell_unwatched(&here, &there, &mut told);
                self.tracker.phase(Phase::Watching);
                let full_at = if is_again { ended } else { last_full + full_interval(self.took) };
                if let Err(failed) = self.wait(&mut here, &mut there, full_at).await {
                    there = There::New;
                    self.survives(Err(failed)).await?;
                }
                // Much may change at once, and rounds are not to take more than half of the time.
                let rested = ended + self.took.min(LONGEST_REST);
                sleep_until(rested.max(Instant::now() + SETTLE_TIME)).await;
            }
            // Else it is not known what has changed there since it was listed.
            self.tracker.next_round(progress());
        }
    }

    async fn here(&self) -> Result<(SourceRoot, Here), Error> {
        let (directory, filters) = (self.job.directory.clone(), Arc::clone(&self.job.filters));
        let (changed, changes) = watch::channel(0);
        let on_change = move || changed.send_modify(|changes| *changes += 1);
        let watching = blocking::spawn(move || {
            let root = SourceRoot::open(&directory)?;
            let tree = disk::watch(&root, b"", filters, Box::new(()), on_change)?;
            Ok::<_, SourceError>((root, Arc::new(tree)))
        });
        let watching = watching.await.map_err(|_| Cause::Abandoned)?;
        let failed = |error| Cause::Sync(SyncError::Dataset(DatasetError::Source(error)));
        let (root, tree) = watching.map_err(failed)?;
        Ok((root, Here { tree, changes }))
    }

    /// Asks the server to watch its side, over a connection over which it does not do so yet.
    async fn begin_there(&self, there: &mut There) -> Result<(), SyncError> {
        let client = self.redial.connection().rpc();
        let begun = PeerWatch::begin(client, &self.job.remote_path, &self.job.filters).await;
        *there = match begun {
            Ok((watch, begun)) => There::Watched { watch, seen: begun.changes, unwatched: begun.unwatched },
            Err(SyncError::Refused(CallError::Fault(fault))) if fault.code == FaultCode::NotFound => {
                There::Missing
            }
            Err(SyncError::Refused(CallError::Fault(Fault {
                code: FaultCode::UnknownMethod | FaultCode::Busy,
                ..
            }))) => There::Unwatched,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Whether all is well. If not, there is another connection, or a pause was made.
    async fn survives(&mut self, done: Result<(), SyncError>) -> Result<bool, Error> {
        let Err(error) = done else { return Ok(true) };
        if is_passing(&error) && !self.redial.connection().is_closed() {
            sleep(BUSY_PAUSE).await;
        } else {
            self.redial.after(Cause::Sync(error).into(), &self.tracker).await?;
        }
        Ok(false)
    }

    /// The result of a round; `None` if it failed for a transient reason.
    fn passing<T>(&self, done: Result<T, Error>) -> Result<Option<T>, Error> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) => match error.cause() {
                Cause::Sync(cause) if is_passing(cause) => {
                    tracing::info!(%error, "trying again");
                    self.tracker.phase(Phase::Waiting);
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// Waits for a change, or until it is time to look for one.
    async fn wait(&self, here: &mut Here, there: &mut There, full_at: Instant) -> Result<(), SyncError> {
        let is_whole_there = matches!(there, There::Watched { unwatched: None, .. });
        let is_whole = is_whole_there && here.tree.unwatched().is_none();
        let changed_there = async {
            let There::Watched { watch, seen, unwatched } = there else { return future::pending().await };
            let noticed = watch.changed(*seen).await?;
            (*seen, *unwatched) = (noticed.changes, noticed.unwatched);
            Ok(())
        };
        let due = async {
            match is_whole {
                true => sleep_until(full_at).await,
                false => sleep_until(full_at.min(Instant::now() + scan_interval(self.took))).await,
            }
        };
        tokio::select! {
            // It ends with the watch alone.
            _ = here.changes.changed() => Ok(()),
            changed = changed_there => changed,
            () = due => Ok(()),
        }
    }

    /// Reports once that not everything is watched.
    fn tell_unwatched(&self, here: &Here, there: &There, told: &mut [Option<Unwatched>; 2]) {
        let at_peer = match there {
            There::Watched { unwatched, .. } => *unwatched,
            There::Unwatched => Some(Unwatched { limit: WatchLimit::System, value: 0 }),
            There::New | There::Missing => None,
        };
        let sides = [(Side::ThisMachine, here.tree.unwatched()), (Side::Peer, at_peer)];
        for ((side, unwatched), told) in sides.into_iter().zip(told) {
            if let Some(unwatched) = unwatched.filter(|_| *told != unwatched) {
                self.tracker.not_watched(side, why(unwatched), scan_interval(self.took));
            }
            *told = unwatched;
        }
    }
}

/// Whether the same may succeed a little later.
fn is_passing(error: &SyncError) -> bool {
    let (SyncError::Refused(CallError::Fault(fault)) | SyncError::Rejected(fault)) = error else {
        return matches!(error, SyncError::Dataset(DatasetError::Busy) | SyncError::ListsBusy);
    };
    matches!(fault.code, FaultCode::Busy | FaultCode::ShuttingDown | FaultCode::Gone)
}

/// Where not everything is watched: rarely enough that scans take a tenth of the time.
fn scan_interval(took: Duration) -> Duration {
    LEAST_SCAN_INTERVAL.max(took * 10)
}

/// How long rounds may look only at what has changed: full ones take a hundredth of the time.
fn full_interval(took: Duration) -> Duration {
    LEAST_FULL_INTERVAL.max(took * 100)
}

fn why(Unwatched { limit, value }: Unwatched) -> String {
    match limit.setting() {
        Some(setting) => {
            let more = value.saturating_mul(2).max(LEAST_WATCHES);
            format!("the limit {setting}={value} is reached; raise it with: sudo sysctl -w {setting}={more}")
        }
        None if limit == WatchLimit::Memory => "there is no memory for more directories".to_owned(),
        None => "the system cannot watch all of them".to_owned(),
    }
}

/// 100 ms: a program that writes several files has written them by then, as a rule.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// 10 s, however long a round took.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// 1 s.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// 1 min.
const LEAST_SCAN_INTERVAL: Duration = Duration::from_secs(60);

/// 1 h: what is written through a memory map, or on another machine, is noticed by then.
const LEAST_FULL_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// 131,072: a hundred thousand directories, and some for others.
const LEAST_WATCHES: u64 = 1 << 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_with_the_line_that_raises_it() {
        let why = |limit, value| why(Unwatched { limit, value });
        let line = why(WatchLimit::Watches, 8192);
        assert!(line.contains("fs.inotify.max_user_watches=8192 is reached"), "{line}");
        assert!(line.ends_with("sudo sysctl -w fs.inotify.max_user_watches=131072"), "{line}");
        assert!(why(WatchLimit::Watches, 524_288).ends_with("=1048576"));
        assert!(!why(WatchLimit::Memory, 0).contains("sysctl"));
    }

    #[test]
    fn full_rounds_are_rare_where_they_take_long() {
        assert_eq!(full_interval(Duration::from_secs(1)), LEAST_FULL_INTERVAL);
        assert_eq!(full_interval(Duration::from_secs(60)), Duration::from_secs(6000));
    }

    #[test]
    fn scans_in_place_of_notices_take_a_tenth_of_the_time() {
        assert_eq!(scan_interval(Duration::from_millis(10)), LEAST_SCAN_INTERVAL);
        assert_eq!(scan_interval(Duration::from_secs(30)), Duration::from_secs(300));
    }
}
