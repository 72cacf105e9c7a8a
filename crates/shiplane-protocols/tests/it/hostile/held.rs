//! A target that is at work until it is told that all is lost.

use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use shiplane_protocols::{
    files::{Destination, DestinationError, Plan, Summary},
    transfer::Target,
};
use shiplane_wire::{Digest, Entry, Span};

/// Plans its first entry until the transfer is abandoned, and then takes its time to let go.
#[derive(Clone)]
pub(super) struct Held(Arc<Gate>);

/// Counts who still has the target.
pub(super) struct Holders(Weak<Gate>);

#[derive(Default)]
struct Gate {
    is_abandoned: Mutex<bool>,
    opens: Condvar,
}

impl Held {
    pub(super) fn new() -> (Self, Holders) {
        let gate = Arc::new(Gate::default());
        let holders = Holders(Arc::downgrade(&gate));
        (Self(gate), holders)
    }
}

impl Holders {
    pub(super) fn clones(&self) -> usize {
        self.0.strong_count()
    }
}

impl Target for Held {
    type Writer = <Destination as Target>::Writer;

    fn plan(&self, index: u64, _entry: &Entry) -> Result<Plan, DestinationError> {
        let abandoned = self.0.is_abandoned.lock().unwrap();
        // Bounded, so that the test ends even where nobody says so.
        let waited = self.0.opens.wait_timeout_while(abandoned, Duration::from_secs(5), |is| !*is).unwrap();
        drop(waited);
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

    fn writer(&self, chunk: u64, _: &[Span]) -> Result<Self::Writer, DestinationError> {
        Err(DestinationError::NotWanted { entry: chunk })
    }

    fn publish(&self, _: &[u64]) -> Result<(), DestinationError> {
        Ok(())
    }

    fn discard(&self, _: u64) -> Result<(), DestinationError> {
        Ok(())
    }

    fn finish(self) -> Result<Summary, DestinationError> {
        Ok(Summary::default())
    }
}
