//! An operation on a target that runs until it is released, and then fails.

use std::io;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use shiplane_files::internals::{Admission, DestinationError, Policy};
use shiplane_wire::Entry;
use tokio::sync::Notify;

/// Holds the plan of an entry, as a policy, or a write, as an output.
pub(super) struct GatedDisk(Arc<Gate>);

/// Lets it go, and counts who still has it.
#[derive(Clone)]
pub(super) struct Holder(Weak<Gate>);

#[derive(Default)]
struct Gate {
    is_at_work: Notify,
    is_open: Mutex<bool>,
    opens: Condvar,
}

impl GatedDisk {
    pub(super) fn new() -> (Self, Holder) {
        let gate = Arc::<Gate>::default();
        let holder = Holder(Arc::downgrade(&gate));
        (Self(gate), holder)
    }

    fn hold(&self) {
        self.0.is_at_work.notify_one();
        let open = self.0.is_open.lock().unwrap();
        // Bounded, so that the test ends even if it is never released.
        drop(self.0.opens.wait_timeout_while(open, Duration::from_secs(5), |is| !*is).unwrap());
    }
}

impl Holder {
    pub(super) fn handles(&self) -> usize {
        self.0.strong_count()
    }

    /// Waits until it is held.
    pub(super) async fn is_at_work(&self) {
        let gate = self.0.upgrade().expect("nobody has it any more");
        gate.is_at_work.notified().await;
    }

    pub(super) fn let_go(&self) {
        if let Some(gate) = self.0.upgrade() {
            *gate.is_open.lock().unwrap() = true;
            gate.opens.notify_all();
        }
    }
}

impl Policy for GatedDisk {
    fn admit(&self, _: &Entry) -> Result<Admission, DestinationError> {
        self.hold();
        Err(DestinationError::NotWanted { entry: 0 })
    }
}

impl io::Write for GatedDisk {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        self.hold();
        Err(io::ErrorKind::QuotaExceeded.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
