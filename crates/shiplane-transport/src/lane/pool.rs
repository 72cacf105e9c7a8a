//! The threads that read, hash and store chunks.
//!
//! A runtime's blocking threads would do, but they come one for each piece of work, and wherever the system
//! puts them: ten chunks to read wake ten threads that then wait for one core. Here a thread is woken when there is
//! work and wakes the next one only if there is more when it gets to run, so that few do what is quickly done and many
//! wait for a slow disk; and it is one that ran on another core than the one that wakes it, which is busy.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Work that may block.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// Threads that come as they are needed, and go when they are not. A handle: clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Run by each thread as it starts.
    prepare: fn(),
    /// As many may be on their way from sleep to the queue.
    max_woken: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    /// The one that has slept least is the last.
    asleep: Vec<Sleeper>,
    /// Threads, whatever they do.
    threads: usize,
    /// Of these, woken or started and not at the queue yet.
    woken: usize,
}

/// A thread that waits to be called, until it is no longer among those asleep.
struct Sleeper {
    call: Arc<Condvar>,
    /// The core that it ran on last.
    core: Option<usize>,
}

impl Pool {
    /// No threads yet; each will run `prepare` first.
    pub(super) fn new(prepare: fn()) -> Self {
        let max_woken = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { shared: Arc::new(Shared { state: Mutex::default(), prepare, max_woken }) }
    }

    /// Has it done, in the order of submission as far as threads are free. What panics ends only itself.
    pub(super) fn submit(&self, work: Work) {
        let mut state = self.shared.lock();
        state.queue.push_back(work);
        self.wake_one(state);
    }

    /// Somebody for the queue, unless enough are on their way to it.
    fn wake_one(&self, mut state: MutexGuard<'_, State>) {
        if state.woken >= self.shared.max_woken.min(state.queue.len()) {
            return;
        }
        if let Some(call) = state.choose(current_core()) {
            state.woken += 1;
            drop(state);
            call.notify_one();
        } else if state.threads < MAX_THREADS {
            state.threads += 1;
            state.woken += 1;
            drop(state);
            self.start();
        }
    }

    fn start(&self) {
        let pool = self.clone();
        let started = thread::Builder::new().name(THREAD_NAME.into()).spawn(move || {
            (pool.shared.prepare)();
            pool.serve();
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for chunks");
            let mut state = self.shared.lock();
            state.threads -= 1;
            state.woken -= 1;
            if state.threads == 0 {
                // Slow, and better than never.
                drop(self.work(state));
            }
        }
    }

    /// What a thread does with its life.
    fn serve(&self) {
        let call = Arc::new(Condvar::new());
        let mut state = self.shared.lock();
        loop {
            state.woken -= 1;
            state = self.work(state);
            state.asleep.push(Sleeper { call: Arc::clone(&call), core: current_core() });
            let is_asleep = |state: &mut State| state.asleep.iter().any(|one| Arc::ptr_eq(&one.call, &call));
            let rest = call.wait_timeout_while(state, KEEP_ALIVE, is_asleep);
            (state, _) = rest.unwrap_or_else(PoisonError::into_inner);
            if is_asleep(&mut state) {
                state.asleep.retain(|one| !Arc::ptr_eq(&one.call, &call));
                state.threads -= 1;
                return;
            }
        }
    }

    /// Does what is in the queue, until nothing is.
    fn work<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(work) = state.queue.pop_front() {
            self.wake_one(state);
            // Its waiters see it gone.
            let _ = catch_unwind(AssertUnwindSafe(work));
            state = self.shared.lock();
        }
        state
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who is to be woken from `core`: the one that is warmest elsewhere, or else the warmest.
    fn choose(&mut self, core: Option<usize>) -> Option<Arc<Condvar>> {
        let elsewhere = self.asleep.iter().rposition(|one| one.core != core);
        let at = elsewhere.or_else(|| self.asleep.len().checked_sub(1))?;
        Some(self.asleep.remove(at).call)
    }
}

#[cfg(target_os = "linux")]
fn current_core() -> Option<usize> {
    Some(rustix::thread::sched_getcpu())
}

#[cfg(not(target_os = "linux"))]
fn current_core() -> Option<usize> {
    None
}

/// What debuggers and `top` call them.
pub(super) const THREAD_NAME: &str = "shiplane-lane";

/// 512, as many as a tokio runtime starts for what blocks.
const MAX_THREADS: usize = 512;

/// 10 s without work, as tokio has it.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Work that says that it runs, and runs until it is released.
    fn held(running: &Sender<u32>, name: u32) -> (Work, Sender<()>) {
        let (release, released) = mpsc::channel();
        let running = running.clone();
        let work = move || {
            running.send(name).unwrap();
            let _ = released.recv();
        };
        (Box::new(work), release)
    }

    fn wait_for(running: &Receiver<u32>, count: usize) -> Vec<u32> {
        let mut names: Vec<u32> = running.iter().take(count).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_pool_has_a_thread_for_each_blocked_task() {
        let pool = Pool::new(|| ());
        let (tell, running) = mpsc::channel();
        let release: Vec<_> = (0..20)
            .map(|name| {
                let (work, release) = held(&tell, name);
                pool.submit(work);
                release
            })
            .collect();
        assert_eq!(wait_for(&running, 20), Vec::from_iter(0..20));
        drop(release);
    }

    #[test]
    fn work_that_is_quickly_done_is_done_by_few_and_in_order() {
        let pool = Pool::new(|| ());
        let (tell, running) = mpsc::channel();
        // Submitted by a thread of the pool, so that all of it is there before another can have been woken twice.
        let (inner, told) = (pool.clone(), tell.clone());
        pool.submit(Box::new(move || {
            for name in 0..500 {
                let told = told.clone();
                inner.submit(Box::new(move || told.send(name).unwrap()));
            }
        }));
        assert_eq!(wait_for(&running, 500), Vec::from_iter(0..500));
        let threads = pool.shared.lock().threads;
        assert!(threads < 50, "{threads} threads");
    }

    #[test]
    fn a_panic_ends_only_its_own_task() {
        let pool = Pool::new(|| ());
        let (tell, running) = mpsc::channel();
        pool.submit(Box::new(|| panic!("a source's own mistake")));
        let told = tell.clone();
        pool.submit(Box::new(move || told.send(1).unwrap()));
        assert_eq!(wait_for(&running, 1), [1]);
        drop(tell);
    }

    #[test]
    fn the_warmest_of_another_core_is_woken() {
        let sleeper = |core| Sleeper { call: Arc::default(), core: Some(core) };
        let mut state =
            State { asleep: vec![sleeper(0), sleeper(1), sleeper(1), sleeper(0)], ..State::default() };
        let calls: Vec<_> = state.asleep.iter().map(|one| Arc::clone(&one.call)).collect();
        let order = std::iter::from_fn(|| state.choose(Some(0)));
        let order: Vec<_> =
            order.map(|call| calls.iter().position(|one| Arc::ptr_eq(one, &call)).unwrap()).collect();
        assert_eq!(order, [2, 1, 3, 0]);
    }

    #[test]
    fn every_thread_is_prepared() {
        thread_local! { static PREPARED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) }; }
        let pool = Pool::new(|| PREPARED.set(true));
        let (tell, prepared) = mpsc::channel();
        pool.submit(Box::new(move || tell.send(PREPARED.get()).unwrap()));
        assert!(prepared.recv().unwrap());
    }
}
