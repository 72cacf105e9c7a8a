//! Detects that this process did not run for a while, because it was stopped or the machine slept: deadlines pass as if
//! a peer were gone.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Detects suspensions until it is dropped.
pub(crate) struct SuspendDetector {
    shared: Arc<Shared>,
    _end: mpsc::Sender<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    looked: Condvar,
}

#[derive(Default)]
struct State {
    looks: u64,
    has_seen: bool,
}

impl SuspendDetector {
    pub(crate) fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let (end, ended) = mpsc::channel();
        let thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut looked = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                thread.look(looked.elapsed() > SUSPENDED);
                looked = Instant::now();
            }
        });
        Self { shared, _end: end }
    }

    /// Whether there was a suspension since the last call. Takes a moment, to detect one that has just ended.
    pub(crate) fn was_suspended(&self) -> bool {
        let state = self.shared.lock();
        let enough = state.looks + 2;
        let waited = self.shared.looked.wait_while(state, |state| state.looks < enough);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).has_seen)
    }
}

impl Shared {
    fn look(&self, has_seen: bool) {
        let mut state = self.lock();
        state.looks += 1;
        state.has_seen |= has_seen;
        self.looked.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOOK: Duration = Duration::from_millis(200);

/// 2 s: a client that dials waits for 2.5 s.
const SUSPENDED: Duration = Duration::from_secs(2);
