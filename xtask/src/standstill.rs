//! Notices that this process has not run for a while, because it was stopped or the machine slept: deadlines pass
//! meanwhile as if a peer were gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Watches until it is dropped.
pub(crate) struct Watch {
    has_seen: Arc<AtomicBool>,
    _end: mpsc::Sender<()>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let has_seen = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let seen = Arc::clone(&has_seen);
        std::thread::spawn(move || {
            let mut looked = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                if looked.elapsed() > STANDSTILL {
                    seen.store(true, Ordering::Relaxed);
                }
                looked = Instant::now();
            }
        });
        Self { has_seen, _end: end }
    }

    /// Whether there was a standstill since this was last asked. Takes a moment: one that has just ended is seen, too.
    pub(crate) fn has_seen_one(&self) -> bool {
        std::thread::sleep(2 * LOOK);
        self.has_seen.swap(false, Ordering::Relaxed)
    }
}

const LOOK: Duration = Duration::from_millis(200);

/// 2 s: a client that dials waits for 2.5 s.
const STANDSTILL: Duration = Duration::from_secs(2);
