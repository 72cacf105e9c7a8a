//! Spawns blocking work: reading, hashing, writing.
//!
//! It runs on tokio's blocking threads, and says so here rather than to tokio, since a simulation has to
//! know of it: such threads run whenever the system lets them, which no seed repeats. There, work that does not
//! wait is done on the runtime's own thread, and other threads run one at a time with that one (`simulation::DeterministicScheduler`).

use std::{num::NonZero, thread};

use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

#[cfg(feature = "simulation")]
use crate::simulation::{run_scheduled, scheduler, wait};

/// Runs `work` on a thread that may block, as tokio's `spawn_blocking` does. It waits for the disk and the
/// processor only; what waits for the tasks of the runtime is for [`spawn_waiting`].
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(feature = "simulation")]
    if scheduler().is_some() {
        return tokio::spawn(async { work() });
    }
    tokio::task::spawn_blocking(work)
}

/// The same, as one of a set.
pub fn spawn_into<T: Send + 'static>(set: &mut JoinSet<T>, work: impl FnOnce() -> T + Send + 'static) {
    #[cfg(feature = "simulation")]
    if scheduler().is_some() {
        set.spawn(async { work() });
        return;
    }
    set.spawn_blocking(work);
}

/// Runs `work` on a thread that may block, and that waits with [`recv`], [`recv_unbounded`] and [`send`].
pub fn spawn_waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(feature = "simulation")]
    if let Some(scheduler) = scheduler() {
        return tokio::spawn(run_scheduled(scheduler, work));
    }
    tokio::task::spawn_blocking(work)
}

/// Waits for the next item of a queue, in work that was spawned to wait.
pub fn recv<T>(queue: &mut mpsc::Receiver<T>) -> Option<T> {
    #[cfg(feature = "simulation")]
    if let Some(scheduler) = scheduler() {
        return wait(&*scheduler, queue.recv());
    }
    queue.blocking_recv()
}

/// Waits for the next of a queue without bounds, in work that was spawned to wait.
pub fn recv_unbounded<T>(queue: &mut mpsc::UnboundedReceiver<T>) -> Option<T> {
    #[cfg(feature = "simulation")]
    if let Some(scheduler) = scheduler() {
        return wait(&*scheduler, queue.recv());
    }
    queue.blocking_recv()
}

/// Waits for room in a queue, in work that was spawned to wait.
///
/// # Errors
/// Gives it back when the last taker is gone.
pub fn send<T>(queue: &mpsc::Sender<T>, value: T) -> Result<(), mpsc::error::SendError<T>> {
    #[cfg(feature = "simulation")]
    if let Some(scheduler) = scheduler() {
        return wait(&*scheduler, queue.send(value));
    }
    queue.blocking_send(value)
}

/// How many threads to start for work that is computing: as many as there are cores. With a scheduler, one.
#[must_use]
pub fn cores() -> usize {
    threads(1, usize::MAX)
}

/// How many threads to start for work that also waits for a disk, within limits. With a scheduler, one.
#[must_use]
pub fn threads(min: usize, max: usize) -> usize {
    #[cfg(feature = "simulation")]
    if scheduler().is_some() {
        return 1;
    }
    thread::available_parallelism().map_or(1, NonZero::get).clamp(min, max)
}
