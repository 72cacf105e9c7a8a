//! A target that is at work until it is told that all is lost.

use std::iter;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use shiplane_files::internals::{Destination, DestinationError, Plan, Summary};
use shiplane_protocols::internals::transfer::Target;
use shiplane_wire::{Digest, Entry, FailReason, Span};
use tokio::sync::Notify;

/// Plans its first entry, or writes its first chunk, until the transfer is abandoned; and then it fails.
#[derive(Clone)]
pub(super) struct Held(Arc<Gate>);

/// Counts who still has the target.
pub(super) struct Holders(Weak<Gate>);

struct Gate {
    /// Else in the middle of a plan.
    is_held_writing: bool,
    is_at_work: Notify,
    is_abandoned: Mutex<bool>,
    opens: Condvar,
}

impl Held {
    pub(super) fn planning() -> (Self, Holders) {
        Self::new(false)
    }

    pub(super) fn writing() -> (Self, Holders) {
        Self::new(true)
    }

    fn new(is_held_writing: bool) -> (Self, Holders) {
        let gate = Arc::new(Gate {
            is_held_writing,
            is_at_work: Notify::new(),
            is_abandoned: Mutex::new(false),
            opens: Condvar::new(),
        });
        let holders = Holders(Arc::downgrade(&gate));
        (Self(gate), holders)
    }

    fn hold(&self) {
        self.0.is_at_work.notify_one();
        let abandoned = self.0.is_abandoned.lock().unwrap();
        // Bounded, so that the test ends even where nobody says so.
        let waited = self.0.opens.wait_timeout_while(abandoned, Duration::from_secs(5), |is| !*is).unwrap();
        drop(waited);
    }
}

impl Holders {
    pub(super) fn clones(&self) -> usize {
        self.0.strong_count()
    }

    /// Waits until it is held.
    pub(super) async fn is_at_work(&self) {
        let gate = self.0.upgrade().expect("nobody has it any more");
        gate.is_at_work.notified().await;
    }
}

impl Target for Held {
    type Writer = <Destination as Target>::Writer;

    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        if self.0.is_held_writing {
            let missing = iter::once(0..entry.size_bytes).collect();
            return Ok(Plan::Want { missing, resumed_bytes: 0 });
        }
        self.hold();
        Err(DestinationError::NotWanted { entry: index })
    }

    fn abandon(&self) {
        *self.0.is_abandoned.lock().unwrap() = true;
        self.0.opens.notify_all();
    }

    fn compare(&self, _: u64, _: &Entry, _: Digest) -> Result<Plan, DestinationError> {
        unreachable!("it never plans to compare")
    }

    fn reserve(&self, _: u64) -> Result<(), DestinationError> {
        Ok(())
    }

    fn file_len_bytes(&self, _: u64) -> Option<u64> {
        None
    }

    fn writer(&self, _: u64, _: &[Span]) -> Result<Self::Writer, DestinationError> {
        self.hold();
        Err(DestinationError::QuotaExceeded { path: "it".to_owned() })
    }

    fn publish(&self, _: &[u64]) -> Result<(), DestinationError> {
        Ok(())
    }

    fn discard(&self, _: u64, _: FailReason) -> Result<(), DestinationError> {
        Ok(())
    }

    fn finish(self) -> Result<Summary, DestinationError> {
        Ok(Summary::default())
    }
}
