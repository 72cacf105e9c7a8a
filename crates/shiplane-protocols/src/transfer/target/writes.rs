//! Tracks the running operations on a target: whether one has failed, and when the last has ended.

use std::time::Duration;

use tokio::sync::watch;

/// Counts writes, and is held by each handle of a target and each writer. A handle: clones share it.
///
/// What is behind a target undoes itself when the last handle goes, on whichever thread that is; a caller that learns that a
/// transfer has failed may rely on it having happened, unless a write hangs.
#[derive(Clone, Debug, Default)]
pub(in crate::transfer) struct WriteTracker(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    have_failed: bool,
}

impl WriteTracker {
    /// Counts `work`, and notes if it fails.
    pub(in crate::transfer) fn count<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.0.send_modify(|state| state.under_way += 1);
        let result = work();
        self.0.send_modify(|state| {
            state.under_way -= 1;
            state.have_failed |= result.is_err();
        });
        result
    }

    /// Whether something is being written right now.
    pub(in crate::transfer) fn are_under_way(&self) -> bool {
        self.0.borrow().under_way > 0
    }

    /// Waits until something has failed, or nothing is under way any more. Cancel-safe.
    pub(in crate::transfer) async fn have_failed(&self) -> bool {
        let mut states = self.0.subscribe();
        let settled = states.wait_for(|state| state.have_failed || state.under_way == 0).await;
        settled.is_ok_and(|state| state.have_failed)
    }

    /// Waits until all handles are gone, but not for ever: a thread that writes into an unread pipe never
    /// comes back, and the failure has to be told all the same.
    pub(in crate::transfer) fn released(&self) -> impl Future<Output = ()> + use<> {
        let mut states = self.0.subscribe();
        async move {
            let gone = async { while states.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(RELEASE_GRACE, gone).await;
        }
    }
}

/// 5 s: a write that a disk will do at all is done by then.
pub(in crate::transfer) const RELEASE_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_one_to_let_go_ends_the_wait_and_one_that_never_does_ends_it_late() {
        let began = Instant::now();
        let writes = WriteTracker::default();
        let (another, released) = (writes.clone(), writes.released());
        drop(writes);
        tokio::join!(released, async {
            another.count(|| Ok::<_, ()>(())).unwrap();
            drop(another);
        });
        assert_eq!(began.elapsed(), Duration::ZERO);

        let stuck = WriteTracker::default();
        stuck.released().await;
        assert!(began.elapsed() >= RELEASE_GRACE);
        drop(stuck);
    }
}
