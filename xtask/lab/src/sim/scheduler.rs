//! Runs blocking work on threads, one at a time, while the runtime waits.
//!
//! A task of the runtime stands for each piece of work. While it is polled the work runs and the runtime's thread
//! waits; when the work waits for a queue, it is the other way round. So virtual time stands still while the disk
//! is at work, and the order of all of it is the runtime's, which a seed repeats.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    thread,
};

use parking_lot::{Condvar, Mutex};
use shiplane_transport::simulation::{DeterministicScheduler, set_scheduler};

use crate::sim::{disk, entropy};

/// Schedules this thread's blocking work on workers, one at a time with its runtime. Their random numbers come from the
/// seed.
pub(crate) fn begin(seed: u64) {
    WORKERS.with_borrow_mut(|workers| *workers = Some(Workers { seed, started: 0, idle: Vec::new() }));
    set_scheduler(Some(Arc::new(SeededScheduler)));
}

/// Ends the workers of this thread.
pub(crate) fn end() {
    set_scheduler(None);
    WORKERS.with_borrow_mut(Option::take);
}

struct SeededScheduler;

impl DeterministicScheduler for SeededScheduler {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Piece { work: Some(work), worker: None })
    }

    fn waker(&self) -> Waker {
        OWN_SEAT.with_borrow(|seat| {
            let waker = seat.as_ref().and_then(|seat| seat.state.lock().waker.clone());
            waker.unwrap_or_else(|| panic!("work waits that was not spawned to wait"))
        })
    }

    fn pass(&self) {
        if let Some(seat) = OWN_SEAT.with_borrow(Option::clone) {
            seat.pass();
        }
    }
}

thread_local! {
    /// Of a thread that runs a runtime.
    static WORKERS: RefCell<Option<Workers>> = const { RefCell::new(None) };
    /// Of a thread that does the work.
    static OWN_SEAT: RefCell<Option<Arc<Seat>>> = const { RefCell::new(None) };
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for work.
struct Workers {
    seed: u64,
    started: u64,
    idle: Vec<Worker>,
}

struct Worker {
    jobs: mpsc::Sender<Work>,
    seat: Arc<Seat>,
}

impl Workers {
    fn take(&mut self) -> Worker {
        self.idle.pop().unwrap_or_else(|| {
            self.started += 1;
            start_worker(self.seed ^ (self.started << 32))
        })
    }
}

fn start_worker(seed: u64) -> Worker {
    let (jobs, queue) = mpsc::channel::<Work>();
    let seat = Arc::new(Seat::default());
    let (own, runtime) = (Arc::clone(&seat), tokio::runtime::Handle::current());
    thread::spawn(move || {
        entropy::seed_thread(seed);
        disk::begin();
        OWN_SEAT.set(Some(Arc::clone(&own)));
        set_scheduler(Some(Arc::new(SeededScheduler)));
        // For its clock, and to spawn on.
        let _entered = runtime.enter();
        while let Ok(work) = queue.recv() {
            own.await_turn();
            let outcome = catch_unwind(AssertUnwindSafe(work));
            own.end(outcome.err());
        }
    });
    Worker { jobs, seat }
}

/// What the thread of a piece of work and the runtime's share.
#[derive(Default)]
struct Seat {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    turn: Turn,
    waker: Option<Waker>,
    /// The runtime has dropped the task.
    abandoned: bool,
    panic: Option<Box<dyn Any + Send>>,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Turn {
    #[default]
    Runtime,
    Work,
    /// The work has ended.
    Ended,
}

/// Unwinds work whose task is gone.
struct Abandoned;

impl Seat {
    fn hand_over(&self, turn: Turn) {
        self.state.lock().turn = turn;
        self.changed.notify_all();
    }

    /// The runtime's: until the work passes or ends.
    fn await_work(&self) -> Turn {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.turn == Turn::Work);
        state.turn
    }

    /// The work's.
    fn await_turn(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.turn != Turn::Work);
        let abandoned = state.abandoned;
        drop(state);
        if abandoned {
            resume_unwind(Box::new(Abandoned));
        }
    }

    fn pass(&self) {
        self.hand_over(Turn::Runtime);
        self.await_turn();
    }

    fn end(&self, panic: Option<Box<dyn Any + Send>>) {
        self.state.lock().panic = panic.filter(|panic| !panic.is::<Abandoned>());
        self.hand_over(Turn::Ended);
    }
}

/// A piece of work, as a task.
struct Piece {
    work: Option<Work>,
    worker: Option<Worker>,
}

impl Future for Piece {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(work) = this.work.take() {
            let Some(worker) = WORKERS.with_borrow_mut(|workers| workers.as_mut().map(Workers::take)) else {
                // A runtime that is no simulation's.
                work();
                return Poll::Ready(());
            };
            // Its thread lives as long as the other end.
            let _ = worker.jobs.send(work);
            this.worker = Some(worker);
        }
        let Some(worker) = &this.worker else { return Poll::Ready(()) };
        worker.seat.state.lock().waker = Some(cx.waker().clone());
        worker.seat.hand_over(Turn::Work);
        if worker.seat.await_work() != Turn::Ended {
            return Poll::Pending;
        }
        let panic = worker.seat.state.lock().panic.take();
        this.retire();
        panic.map_or(Poll::Ready(()), |panic| resume_unwind(panic))
    }
}

impl Piece {
    /// Its thread is free for the next.
    fn retire(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        *worker.seat.state.lock() = State::default();
        WORKERS.with_borrow_mut(|workers| {
            if let Some(workers) = workers {
                workers.idle.push(worker);
            }
        });
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.seat.state.lock().abandoned = true;
            worker.seat.hand_over(Turn::Work);
            worker.seat.await_work();
        }
        self.retire();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shiplane_transport::internals::blocking;
    use tokio::time::Instant;

    use super::*;

    fn simulated<F: Future>(future: impl FnOnce() -> F) -> F::Output {
        begin(1);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let output = runtime.enable_time().start_paused(true).build().unwrap().block_on(future());
        end();
        output
    }

    #[test]
    fn time_passes_while_work_waits_for_a_queue_and_stands_still_while_it_works() {
        simulated(|| async {
            let (outlet, mut queue) = tokio::sync::mpsc::channel(1);
            let began = Instant::now();
            let work = blocking::spawn_waiting(move || {
                let first = blocking::recv(&mut queue);
                (first, began.elapsed(), blocking::recv(&mut queue))
            });
            tokio::time::advance(Duration::from_secs(3600)).await;
            outlet.send(7).await.unwrap();
            drop(outlet);
            assert_eq!(work.await.unwrap(), (Some(7), Duration::from_secs(3600), None));
        });
    }

    #[test]
    fn a_panic_is_the_tasks_and_the_thread_works_on() {
        simulated(|| async {
            for number in 0..3 {
                assert!(blocking::spawn_waiting(|| resume_unwind(Box::new(1))).await.unwrap_err().is_panic());
                assert_eq!(blocking::spawn_waiting(move || number).await.unwrap(), number);
            }
        });
    }

    #[test]
    fn work_whose_runtime_ends_is_unwound() {
        let witness = Arc::new(());
        let held = Arc::clone(&witness);
        simulated(|| async move {
            let (outlet, mut queue) = tokio::sync::mpsc::channel::<()>(1);
            blocking::spawn_waiting(move || {
                let _held = held;
                blocking::recv(&mut queue)
            });
            tokio::task::yield_now().await;
            std::mem::forget(outlet);
        });
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
