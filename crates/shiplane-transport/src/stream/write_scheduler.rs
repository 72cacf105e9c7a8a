//! Schedules the writes of a connection's bulk streams: the highest priority first, equal priorities in turn.
//!
//! When a connection's window opens, quinn wakes all blocked streams, the last one first, and the first to write takes
//! the window. Under pressure some streams would never write, and their receivers would give them up (SPEC 3.9). So
//! blocked streams queue here, and only the first in the queue tries to write. If its own stream's window is full, the
//! next one tries. The priority of a transfer's chunk is its position in `connection/chunk_order.rs`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;

/// The queue of one connection. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteScheduler {
    queue: Arc<Queue>,
}

/// A writer in the queue, until it is dropped. Its owner must keep polling: others wait for it.
#[derive(Debug)]
pub(super) struct QueuedWriter {
    queue: Arc<Queue>,
    number: u64,
    turn_began: Option<Instant>,
}

/// The waker that quinn gets instead of a writer's own, and the writers.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    next_number: u64,
    /// Rises whenever there may be room: everybody may ask again.
    calls: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    priority: i32,
    /// The call after which it has asked, and got nothing.
    asked_after: Option<u64>,
    waker: Option<Waker>,
}

impl WriteScheduler {
    /// Behind all of this priority and of higher ones.
    pub(super) fn enqueue(&self, priority: i32) -> QueuedWriter {
        let mut state = self.queue.lock();
        let number = state.next_number;
        state.next_number += 1;
        state.insert(Waiting { number, priority, asked_after: None, waker: None });
        QueuedWriter { queue: Arc::clone(&self.queue), number, turn_began: None }
    }
}

impl QueuedWriter {
    /// Has `ask` poll for room once it is our turn. It must leave the waker that it is given where room is announced.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Some(calls) = self.queue.lock().is_turn_of(self.number, cx.waker()) else { return Poll::Pending };
        // Not under our lock: the caller that announces room holds one that `ask` takes.
        let polled = ask(&mut Context::from_waker(&Waker::from(Arc::clone(&self.queue))));
        if polled.is_ready() {
            self.turn_began.get_or_insert_with(Instant::now);
        } else {
            self.queue.change(|state| state.has_asked(self.number, calls));
        }
        polled
    }

    /// After something was written: who has had a turn for long enough goes behind those of the same priority.
    pub(super) fn end_long_turn(&mut self) {
        if self.turn_began.is_some_and(|began| began.elapsed() >= TURN) {
            self.turn_began = None;
            self.queue.change(|state| state.move_behind_equals(self.number));
        }
    }
}

impl Drop for QueuedWriter {
    fn drop(&mut self) {
        self.queue.change(|state| state.waiting.retain(|waiting| waiting.number != self.number));
    }
}

impl Wake for Queue {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.change(|state| state.calls += 1);
    }
}

impl Queue {
    /// The waker of the stream whose turn it is after the change.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let next = {
            let mut state = self.lock();
            change(&mut state);
            state.next().and_then(|next| next.waker.clone())
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single step; a panic in between leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first that has not asked since the last call.
    fn next(&self) -> Option<&Waiting> {
        self.waiting.iter().find(|waiting| waiting.asked_after != Some(self.calls))
    }

    /// The call after which it may ask now; otherwise it will be woken.
    fn is_turn_of(&mut self, number: u64, waker: &Waker) -> Option<u64> {
        if let Some(waiting) = self.find(number) {
            waiting.waker = Some(waker.clone());
        }
        self.next().is_some_and(|next| next.number == number).then_some(self.calls)
    }

    fn has_asked(&mut self, number: u64, calls: u64) {
        if let Some(waiting) = self.find(number) {
            waiting.asked_after = Some(calls);
        }
    }

    fn insert(&mut self, waiting: Waiting) {
        let lower = self.waiting.iter().position(|other| other.priority < waiting.priority);
        self.waiting.insert(lower.unwrap_or(self.waiting.len()), waiting);
    }

    fn move_behind_equals(&mut self, number: u64) {
        let place = self.waiting.iter().position(|waiting| waiting.number == number);
        if let Some(waiting) = place.and_then(|place| self.waiting.remove(place)) {
            self.insert(waiting);
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut Waiting> {
        self.waiting.iter_mut().find(|waiting| waiting.number == number)
    }
}

/// A quarter of a second: on a path so slow that a buffer takes longer, a hundred lanes have their turns within the
/// progress timeout.
const TURN: Duration = Duration::from_millis(250);

/// 64: what is no longer goes ahead, as a frame's size, for which its receiver has the least patience, and its digest.
/// It takes no room worth mentioning.
pub(super) const SHORT_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::poll_fn, rc::Rc};

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// Room for everybody, announced as quinn does.
    #[derive(Default)]
    struct Room {
        bytes: usize,
        blocked: Vec<Waker>,
        taken_bytes: Vec<usize>,
    }

    type Shared = Rc<RefCell<Room>>;

    impl Room {
        fn ask(&mut self, who: usize, wanted_bytes: usize, cx: &mut Context<'_>) -> Poll<usize> {
            let bytes = wanted_bytes.min(self.bytes);
            if bytes == 0 {
                self.blocked.push(cx.waker().clone());
                return Poll::Pending;
            }
            self.bytes -= bytes;
            self.taken_bytes[who] += bytes;
            Poll::Ready(bytes)
        }
    }

    fn room(writers: usize) -> Shared {
        Rc::new(RefCell::new(Room { taken_bytes: vec![0; writers], ..Room::default() }))
    }

    fn open(room: &Shared, bytes: usize) {
        room.borrow_mut().bytes += bytes;
        let blocked = std::mem::take(&mut room.borrow_mut().blocked);
        blocked.into_iter().rev().for_each(Waker::wake);
    }

    async fn settle() {
        for _ in 0..200 {
            yield_now().await;
        }
    }

    /// Writes piece after piece.
    async fn write_on(
        write_scheduler: WriteScheduler,
        room: Shared,
        who: usize,
        piece_bytes: usize,
        priority: i32,
    ) {
        loop {
            let (mut place, mut rest_bytes) = (write_scheduler.enqueue(priority), piece_bytes);
            while rest_bytes > 0 {
                let ask =
                    |cx: &mut Context<'_>| place.poll(cx, |cx| room.borrow_mut().ask(who, rest_bytes, cx));
                rest_bytes -= poll_fn(ask).await;
                place.end_long_turn();
            }
            if priority > 0 {
                return;
            }
        }
    }

    async fn settle_writers(write_scheduler: &WriteScheduler, room: &Shared, writers: usize) {
        for who in 0..writers {
            tokio::task::spawn_local(write_on(write_scheduler.clone(), Rc::clone(room), who, 1000, 0));
        }
        settle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn however_little_room_there_is_at_a_time_each_gets_its_share() {
        LocalSet::new()
            .run_until(async {
                let (write_scheduler, room) = (WriteScheduler::default(), room(16));
                settle_writers(&write_scheduler, &room, 16).await;
                for _ in 0..320 {
                    open(&room, 100);
                    settle().await;
                }
                assert_eq!(room.borrow().taken_bytes, [2000; 16]);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_piece_takes_long_a_turn_is_shorter() {
        LocalSet::new()
            .run_until(async {
                let (write_scheduler, room) = (WriteScheduler::default(), room(16));
                settle_writers(&write_scheduler, &room, 16).await;
                for _ in 0..64 {
                    open(&room, 10);
                    settle().await;
                    tokio::time::advance(TURN).await;
                }
                let taken = room.borrow().taken_bytes.clone();
                assert!(taken.iter().all(|&bytes| (20..=60).contains(&bytes)), "{taken:?}");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_room_delays_no_other() {
        LocalSet::new()
            .run_until(async {
                let (write_scheduler, room) = (WriteScheduler::default(), room(2));
                let mut stuck = write_scheduler.enqueue(0);
                let stuck =
                    tokio::task::spawn_local(poll_fn(move |cx| stuck.poll(cx, |_| Poll::<()>::Pending)));
                settle_writers(&write_scheduler, &room, 2).await;
                for _ in 0..40 {
                    open(&room, 100);
                    settle().await;
                }
                assert_eq!(room.borrow().taken_bytes, [2000; 2]);
                assert!(!stuck.is_finished());
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_writer_lets_the_next_one_write() {
        LocalSet::new()
            .run_until(async {
                let (write_scheduler, room) = (WriteScheduler::default(), room(1));
                // It could ask, but is dropped before it does.
                let first = write_scheduler.enqueue(0);
                settle_writers(&write_scheduler, &room, 1).await;
                open(&room, 100);
                settle().await;
                assert_eq!(room.borrow().taken_bytes, [0]);
                drop(first);
                settle().await;
                assert_eq!(room.borrow().taken_bytes, [100]);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_writes_come_before_waiting_ones() {
        LocalSet::new()
            .run_until(async {
                let (write_scheduler, room) = (WriteScheduler::default(), room(9));
                settle_writers(&write_scheduler, &room, 8).await;
                tokio::task::spawn_local(write_on(write_scheduler, Rc::clone(&room), 8, 40, 1));
                settle().await;
                open(&room, 100);
                settle().await;
                assert_eq!(room.borrow().taken_bytes, [60, 0, 0, 0, 0, 0, 0, 0, 40]);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_with_a_lower_index_are_written_first() {
        LocalSet::new()
            .run_until(async {
                let (write_scheduler, room) = (WriteScheduler::default(), room(3));
                for (who, priority) in [(0, -30), (1, -10), (2, -20)] {
                    let writing = write_on(write_scheduler.clone(), Rc::clone(&room), who, 1000, priority);
                    tokio::task::spawn_local(writing);
                }
                settle().await;
                open(&room, 100);
                settle().await;
                assert_eq!(room.borrow().taken_bytes, [0, 100, 0]);
            })
            .await;
    }
}
