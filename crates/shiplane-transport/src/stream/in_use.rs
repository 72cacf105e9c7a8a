//! Tracks streams that a close of the connection would damage.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::write_scheduler::WriteScheduler;
use crate::window::ConnectionWindows;

/// Counts the open stream halves, and keeps finished ones until the peer has acknowledged them. A handle:
/// clones share it.
#[derive(Clone)]
pub(crate) struct InUse {
    shared: Arc<Shared>,
}

struct Shared {
    connection: quinn::Connection,
    windows: Option<Arc<ConnectionWindows>>,
    held: TaskTracker,
    write_scheduler: WriteScheduler,
    finished: Mutex<Finished>,
}

struct Finished {
    unacknowledged: Vec<Acknowledged>,
    /// From this many halves on, acknowledged ones are searched and dropped.
    full_at: usize,
}

/// Resolves when a finished half needs its connection no more.
type Acknowledged = Pin<Box<dyn Future<Output = ()> + Send>>;

impl InUse {
    #[cfg(feature = "dialect")]
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self::with_windows(connection, None)
    }

    /// `windows` grow as the streams are read and written.
    pub(crate) fn with_windows(
        connection: quinn::Connection,
        windows: Option<Arc<ConnectionWindows>>,
    ) -> Self {
        let held = TaskTracker::new();
        // Only that makes its `wait` end; tokens are given out all the same.
        held.close();
        let finished = Finished { unacknowledged: Vec::new(), full_at: LOOK_AT };
        Self {
            shared: Arc::new(Shared {
                connection,
                windows,
                held,
                write_scheduler: WriteScheduler::default(),
                finished: finished.into(),
            }),
        }
    }

    pub(super) fn windows(&self) -> Option<&Arc<ConnectionWindows>> {
        self.shared.windows.as_ref()
    }

    /// Where streams of low priority line up.
    pub(super) fn write_scheduler(&self) -> &WriteScheduler {
        &self.shared.write_scheduler
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.shared.connection
    }

    /// For one half, as long as it is held.
    pub(super) fn token(&self) -> TaskTrackerToken {
        self.shared.held.token()
    }

    /// Keeps a finished half. Acknowledgements are polled now and then for many halves, because waiting for each
    /// would take a task.
    pub(super) fn finish(&self, stream: &quinn::SendStream) {
        // It has no priority any more once all of it is acknowledged, as a request that was answered.
        if stream.priority().is_err() {
            return;
        }
        let stopped = stream.stopped();
        // Stopped or lost: nothing more can be done for the peer either.
        let acknowledged = Box::pin(async move { drop(stopped.await) });
        let mut finished = self.finished();
        finished.unacknowledged.push(acknowledged);
        if finished.unacknowledged.len() >= finished.full_at {
            finished.look();
            // Not for each of them, if the peer is slow to acknowledge as many.
            finished.full_at = LOOK_AT.max(2 * finished.unacknowledged.len());
        }
    }

    /// Whether a close would lose no data.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.held.is_empty() && {
            let mut finished = self.finished();
            finished.look();
            finished.unacknowledged.is_empty()
        }
    }

    /// Waits until a close would lose no data. Cancel-safe.
    pub(crate) async fn wait(&self) {
        loop {
            let unacknowledged = std::mem::take(&mut self.finished().unacknowledged);
            if !unacknowledged.is_empty() {
                // In a task of its own, so that several can wait, and any of them give up.
                let token = self.token();
                tokio::spawn(async move {
                    for acknowledged in unacknowledged {
                        acknowledged.await;
                    }
                    drop(token);
                });
            }
            self.shared.held.wait().await;
            if self.finished().unacknowledged.is_empty() {
                return;
            }
        }
    }

    fn finished(&self) -> MutexGuard<'_, Finished> {
        // Every change is a single step; a panic in between leaves nothing half done.
        self.shared.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InUse").field("held", &self.shared.held.len()).finish_non_exhaustive()
    }
}

impl Finished {
    /// Drops acknowledged halves.
    fn look(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        self.unacknowledged.retain_mut(|acknowledged| acknowledged.as_mut().poll(&mut nobody).is_pending());
    }
}

/// 64: seldom enough that the looks cost next to nothing, and a few kilobytes of what is remembered.
const LOOK_AT: usize = 64;
