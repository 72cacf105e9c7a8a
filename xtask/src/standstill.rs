//! Notices that this process has not run for a while, because it was stopped or the machine slept: deadlines pass
//! meanwhile as if a peer were gone.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Watches until it is dropped.
pub(crate) struct Watch {
    watched: Arc<Watched>,
    _end: mpsc::Sender<()>,
}

#[derive(Default)]
struct Watched {
    state: Mutex<State>,
    looked: Condvar,
}

#[derive(Default)]
struct State {
    looks: u64,
    has_seen: bool,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let watched = Arc::<Watched>::default();
        let (end, ended) = mpsc::channel();
        let shared = Arc::clone(&watched);
        std::thread::spawn(move || {
            let mut looked = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                shared.look(looked.elapsed() > STANDSTILL);
                looked = Instant::now();
            }
        });
        Self { watched, _end: end }
    }

    /// Whether there was a standstill since this was last asked. Takes a moment: one that has just ended is seen, too.
    pub(crate) fn has_seen_one(&self) -> bool {
        let state = self.watched.lock();
        let enough = state.looks + 2;
        let waited = self.watched.looked.wait_while(state, |state| state.looks < enough);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).has_seen)
    }
}

impl Watched {
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
const STANDSTILL: Duration = Duration::from_secs(2);
