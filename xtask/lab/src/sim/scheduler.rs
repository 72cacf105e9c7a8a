//! Runs blocking work on threads, one at a time, while the runtime waits.
//!
//! A task of the runtime stands for each piece of work. While it is polled the work runs and the runtime's thread
//! waits; when the work waits for a queue, it is the other way round. So virtual time stands still while the disk
//! is at work, and the order of all of it is the runtime's, which a seed repeats.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    thread,
};

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
    fn run(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Piece { work: Some(work), worker: None })
    }

    fn waker(&self) -> Waker {
        let waker = RUNTIME.with_borrow(|runtime| runtime.as_ref().and_then(|runtime| runtime.waker.clone()));
        waker.unwrap_or_else(|| panic!("work waits that was not spawned to wait"))
    }

    fn pass(&self) {
        let is_heard = |runtime: &Runtime| runtime.told.send(None).is_ok();
        let is_worker = RUNTIME.with_borrow(|runtime| runtime.as_ref().is_some_and(is_heard));
        if is_worker && await_turn().is_none() {
            // Its task is gone.
            resume_unwind(Box::new("abandoned"));
        }
    }
}

thread_local! {
    /// Of a thread that runs a runtime.
    static WORKERS: RefCell<Option<Workers>> = const { RefCell::new(None) };
    /// Of a thread that does the work.
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

type Work = Box<dyn FnOnce() + Send>;

/// From here on the worker runs, and the runtime waits for a message. Without work it goes on with what it has.
type Turn = (Option<Work>, Waker);

/// From here on the runtime runs: nothing if the work waits, else that it has ended, perhaps by a panic.
type WorkerState = Option<thread::Result<()>>;

/// Threads that wait for work.
struct Workers {
    seed: u64,
    started: u64,
    idle: Vec<Worker>,
}

impl Workers {
    fn take(&mut self) -> Worker {
        self.idle.pop().unwrap_or_else(|| {
            self.started += 1;
            start_worker(self.seed ^ (self.started << 32))
        })
    }
}

/// A worker, as the runtime sees it. It ends when this is dropped.
struct Worker {
    turns: mpsc::Sender<Turn>,
    told: mpsc::Receiver<WorkerState>,
}

/// The runtime, as a worker sees it.
struct Runtime {
    turns: mpsc::Receiver<Turn>,
    told: mpsc::Sender<WorkerState>,
    /// Of the task that stands for the work.
    waker: Option<Waker>,
}

fn start_worker(seed: u64) -> Worker {
    let ((turns, own), (told, heard)) = (mpsc::channel(), mpsc::channel());
    let runtime = tokio::runtime::Handle::current();
    thread::spawn(move || {
        entropy::seed_thread(seed);
        disk::begin();
        RUNTIME.set(Some(Runtime { turns: own, told: told.clone(), waker: None }));
        set_scheduler(Some(Arc::new(SeededScheduler)));
        // For its clock, and to spawn on.
        let _entered = runtime.enter();
        while let Some(Some(work)) = await_turn() {
            // The result is dropped if the work was abandoned.
            let _ = told.send(Some(catch_unwind(AssertUnwindSafe(work))));
        }
    });
    Worker { turns, told: heard }
}

/// The worker's next turn, perhaps with other work. None if the runtime has no use for it any more.
fn await_turn() -> Option<Option<Work>> {
    RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.as_mut()?;
        let (work, waker) = runtime.turns.recv().ok()?;
        runtime.waker = Some(waker);
        Some(work)
    })
}

/// A piece of work, as a task.
struct Piece {
    work: Option<Work>,
    worker: Option<Worker>,
}

impl Future for Piece {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let work = self.work.take();
        let known = self.worker.take();
        let taken = known.or_else(|| WORKERS.with_borrow_mut(|workers| workers.as_mut().map(Workers::take)));
        let Some(worker) = taken else {
            // A runtime that is no simulation's.
            work.into_iter().for_each(|work| work());
            return Poll::Ready(());
        };
        // Its thread lives as long as the other end.
        let _ = worker.turns.send((work, cx.waker().clone()));
        let Ok(Some(ended)) = worker.told.recv() else {
            self.worker = Some(worker);
            return Poll::Pending;
        };
        // Its thread is free for the next.
        WORKERS.with_borrow_mut(|workers| {
            if let Some(workers) = workers {
                workers.idle.push(worker);
            }
        });
        ended.map_or_else(|panic| resume_unwind(panic), Poll::Ready)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(Worker { turns, told }) = self.worker.take() {
            // The work unwinds, and its thread ends: wait for that.
            drop(turns);
            while told.recv().is_ok() {}
        }
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
