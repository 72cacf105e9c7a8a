//! Bulk streams of a connection that wait for room: the higher priority first, equal ones in turn.
//!
//! quinn tells all streams that wait for the connection's windows when there is room again, the last to come first,
//! and whoever asks first takes what there is. Where many wait for little, some get nothing for as long as others
//! have anything to write, and their receiver gives them up (SPEC 3.9). So here they line up: the first in line
//! asks first. Whoever gets nothing lets the next one ask, as it may be its own stream's window that is full. The
//! chunks of a transfer go in order of their index, so that one after another is complete.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;

/// The line of one connection. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    line: Arc<Line>,
}

/// A writer's place in line, until it is dropped. Its owner must go on to poll: others wait for it.
#[derive(Debug)]
pub(super) struct Place {
    line: Arc<Line>,
    number: u64,
    turn_began: Option<Instant>,
}

/// Is told by quinn, in place of whoever has asked, that there may be room.
#[derive(Debug, Default)]
struct Line {
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

impl Turns {
    /// Behind all of this priority and of higher ones.
    pub(super) fn line_up(&self, priority: i32) -> Place {
        let mut state = self.line.lock();
        let number = state.next_number;
        state.next_number += 1;
        state.insert(Waiting { number, priority, asked_after: None, waker: None });
        Place { line: Arc::clone(&self.line), number, turn_began: None }
    }
}

impl Place {
    /// Has `ask` poll for room once it is our turn. It must leave the waker that it is given where room is announced.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Some(calls) = self.line.lock().is_turn_of(self.number, cx.waker()) else { return Poll::Pending };
        // Not under our lock: whoever announces room holds one that `ask` takes.
        let polled = ask(&mut Context::from_waker(&Waker::from(Arc::clone(&self.line))));
        if polled.is_ready() {
            self.turn_began.get_or_insert_with(Instant::now);
        } else {
            self.line.change(|state| state.has_asked(self.number, calls));
        }
        polled
    }

    /// After something was written: who has had a turn for long enough goes behind those of the same priority.
    pub(super) fn end_long_turn(&mut self) {
        if self.turn_began.is_some_and(|began| began.elapsed() >= TURN) {
            self.turn_began = None;
            self.line.change(|state| state.move_behind_equals(self.number));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.change(|state| state.waiting.retain(|waiting| waiting.number != self.number));
    }
}

impl Wake for Line {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.change(|state| state.calls += 1);
    }
}

impl Line {
    /// Whose turn it is after the change is told so.
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
    async fn write_on(turns: Turns, room: Shared, who: usize, piece_bytes: usize, priority: i32) {
        loop {
            let (mut place, mut rest_bytes) = (turns.line_up(priority), piece_bytes);
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

    async fn settle_writers(turns: &Turns, room: &Shared, writers: usize) {
        for who in 0..writers {
            tokio::task::spawn_local(write_on(turns.clone(), Rc::clone(room), who, 1000, 0));
        }
        settle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn however_little_room_there_is_at_a_time_each_gets_its_share() {
        LocalSet::new()
            .run_until(async {
                let (turns, room) = (Turns::default(), room(16));
                settle_writers(&turns, &room, 16).await;
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
                let (turns, room) = (Turns::default(), room(16));
                settle_writers(&turns, &room, 16).await;
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
    async fn who_has_no_room_of_its_own_holds_up_nobody() {
        LocalSet::new()
            .run_until(async {
                let (turns, room) = (Turns::default(), room(2));
                let mut stuck = turns.line_up(0);
                let stuck =
                    tokio::task::spawn_local(poll_fn(move |cx| stuck.poll(cx, |_| Poll::<()>::Pending)));
                settle_writers(&turns, &room, 2).await;
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
    async fn who_gives_up_leaves_the_line_to_the_next() {
        LocalSet::new()
            .run_until(async {
                let (turns, room) = (Turns::default(), room(1));
                // It could ask, but is dropped before it does.
                let first = turns.line_up(0);
                settle_writers(&turns, &room, 1).await;
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
    async fn what_goes_ahead_has_the_first_room() {
        LocalSet::new()
            .run_until(async {
                let (turns, room) = (Turns::default(), room(9));
                settle_writers(&turns, &room, 8).await;
                tokio::task::spawn_local(write_on(turns, Rc::clone(&room), 8, 40, 1));
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
                let (turns, room) = (Turns::default(), room(3));
                for (who, priority) in [(0, -30), (1, -10), (2, -20)] {
                    let writing = write_on(turns.clone(), Rc::clone(&room), who, 1000, priority);
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
