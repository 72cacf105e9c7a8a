//! What is being written into the target right now, and whether any of it has failed.

use tokio::sync::watch;

/// A handle: clones share it.
#[derive(Clone, Debug)]
pub(super) struct Stores(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    have_failed: bool,
}

impl Stores {
    pub(super) fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// Counts `work`, and notes if it fails.
    pub(super) fn count<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.0.send_modify(|state| state.under_way += 1);
        let result = work();
        self.0.send_modify(|state| {
            state.under_way -= 1;
            state.have_failed |= result.is_err();
        });
        result
    }

    /// Whether something is being written right now.
    pub(super) fn are_under_way(&self) -> bool {
        self.0.borrow().under_way > 0
    }

    /// Waits until something has failed, or nothing is under way any more. Cancel-safe.
    pub(super) async fn have_failed(&self) -> bool {
        let mut states = self.0.subscribe();
        let settled = states.wait_for(|state| state.have_failed || state.under_way == 0).await;
        settled.is_ok_and(|state| state.have_failed)
    }
}
