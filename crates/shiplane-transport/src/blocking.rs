//! Work that blocks: reading, hashing, writing, and waiting for the task that wants it.
//!
//! It runs on tokio's blocking threads, and says so here rather than to tokio, since a simulation has to
//! know of it: such threads run whenever the system lets them, which no seed repeats. There, work that waits
//! for nobody is done on the runtime's own thread, and other threads take turns with that one ([`Turns`]).

use std::{
    num::NonZero,
    pin::{Pin, pin},
    sync::OnceLock,
    task::{Context, Poll, Waker},
    thread,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

/// Runs `work` on a thread that may block, as tokio's `spawn_blocking` does. It waits for the disk and the
/// processor only; what waits for the tasks of the runtime is for [`spawn_waiting`].
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match TURNS.get() {
        None => tokio::task::spawn_blocking(work),
        Some(_) => tokio::spawn(async { work() }),
    }
}

/// The same, as one of a set.
pub fn spawn_into<T: Send + 'static>(set: &mut JoinSet<T>, work: impl FnOnce() -> T + Send + 'static) {
    match TURNS.get() {
        None => set.spawn_blocking(work),
        Some(_) => set.spawn(async { work() }),
    };
}

/// Runs `work` on a thread that may block, and that waits with [`recv`], [`recv_unbounded`] and [`send`].
pub fn spawn_waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match TURNS.get() {
        None => tokio::task::spawn_blocking(work),
        Some(turns) => tokio::spawn(take_turns(*turns, work)),
    }
}

/// Waits for the next of a queue, in work that was spawned to wait.
pub fn recv<T>(queue: &mut mpsc::Receiver<T>) -> Option<T> {
    match TURNS.get() {
        None => queue.blocking_recv(),
        Some(turns) => wait(*turns, queue.recv()),
    }
}

/// Waits for the next of a queue without bounds, in work that was spawned to wait.
pub fn recv_unbounded<T>(queue: &mut mpsc::UnboundedReceiver<T>) -> Option<T> {
    match TURNS.get() {
        None => queue.blocking_recv(),
        Some(turns) => wait(*turns, queue.recv()),
    }
}

/// Waits for room in a queue, in work that was spawned to wait.
///
/// # Errors
/// Gives it back when nobody takes it any more.
pub fn send<T>(queue: &mpsc::Sender<T>, value: T) -> Result<(), mpsc::error::SendError<T>> {
    match TURNS.get() {
        None => queue.blocking_send(value),
        Some(turns) => wait(*turns, queue.send(value)),
    }
}

/// Whether blocking work takes turns, as in a simulation.
pub(crate) fn takes_turns() -> bool {
    TURNS.get().is_some()
}

/// How many threads to start for work that is computing: as many as there are cores. Where they take turns, one.
#[must_use]
pub fn cores() -> usize {
    threads(1, usize::MAX)
}

/// How many threads to start for work that also waits for a disk, within limits. Where they take turns, one.
#[must_use]
pub fn threads(min: usize, max: usize) -> usize {
    match TURNS.get() {
        None => thread::available_parallelism().map_or(1, NonZero::get).clamp(min, max),
        Some(_) => 1,
    }
}

/// What lets blocking work and the runtime's thread take turns, so that one of them runs at any time.
#[doc(hidden)]
pub trait Turns: Sync {
    /// Runs `work` on a thread of its own while the future is polled; its panic is the future's.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Called by such work: what wakes it after it has passed its turn.
    fn waker(&self) -> Waker;

    /// Called by such work: passes its turn, until it is woken.
    fn pass(&self);
}

/// From now on all blocking work of this process takes turns. Never outside a simulation.
#[doc(hidden)]
pub fn simulate(turns: &'static dyn Turns) {
    let _ = TURNS.set(turns);
}

static TURNS: OnceLock<&'static dyn Turns> = OnceLock::new();

async fn take_turns<T: Send + 'static>(
    turns: &'static dyn Turns,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = oneshot::channel();
    turns.run(Box::new(move || drop(done.send(work())))).await;
    match result.await {
        Ok(value) => value,
        // Never: work that ends has sent, and the panic of any other is that of the line above.
        Err(_) => std::future::pending().await,
    }
}

fn wait<T>(turns: &dyn Turns, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&turns.waker())) {
            Poll::Ready(value) => return value,
            Poll::Pending => turns.pass(),
        }
    }
}
