//! Detects that this process did not run for a while, because it was stopped or the machine slept: deadlines pass as if
//! a peer were gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Detects suspensions for as long as it is held.
pub(crate) struct SuspendDetector {
    suspensions: Arc<AtomicU64>,
    told: AtomicU64,
}

impl SuspendDetector {
    pub(crate) fn start() -> Self {
        let suspensions = Arc::<AtomicU64>::default();
        let (watch, mut looked) = (Arc::downgrade(&suspensions), Instant::now());
        thread::spawn(move || {
            while let Some(suspensions) = watch.upgrade() {
                if looked.elapsed() > SUSPENDED {
                    suspensions.fetch_add(1, Ordering::SeqCst);
                }
                looked = Instant::now();
                drop(suspensions);
                thread::sleep(LOOK);
            }
        });
        Self { suspensions, told: AtomicU64::new(0) }
    }

    /// Whether there was a suspension since the last call. Takes a moment, to detect one that has just ended.
    pub(crate) fn was_suspended(&self) -> bool {
        thread::sleep(2 * LOOK);
        let suspensions = self.suspensions.load(Ordering::SeqCst);
        self.told.swap(suspensions, Ordering::SeqCst) != suspensions
    }
}

const LOOK: Duration = Duration::from_millis(200);

/// 2 s: a client that dials waits for 2.5 s.
const SUSPENDED: Duration = Duration::from_secs(2);
