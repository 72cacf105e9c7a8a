//! Grows flow-control windows from a shared memory budget as data is consumed.
//!
//! A window is memory that a peer can fill and leave filled: by sending data that is not read yet, or by not
//! acknowledging data that it asked for. So windows begin small. They grow as received data is read and sent data is
//! acknowledged: a peer that only fills windows holds little, all that do share a quarter of the budget, and all peers
//! together hold no more than it. Beyond 4 MiB a receive window grows only as the path needs it: what a slow disk leaves
//! unread is no more. An idle connection's send window is taken back when others need it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{close, config::FIRST_WINDOW_BYTES, memory::MemoryPool};

/// The windows of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionWindows {
    connection: quinn::Connection,
    receive: Window,
    send: Window,
    /// What the send window may be, however wide the path is.
    max_send_bytes: AtomicU64,
    /// When so much was written, it is looked at how wide the path is.
    follow_at_bytes: AtomicU64,
    /// How many packets had been lost then, and until when the path counts as one that loses some.
    lost_packets: AtomicU64,
    lossy_until_bytes: AtomicU64,
    borrowers: Borrowers,
    written_at: Mutex<Instant>,
}

/// What windows are lent from. `None`: they have their full size as soon as they are opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionMemoryBudgets {
    pub(crate) receive: Option<MemoryPool>,
    pub(crate) send: Option<MemoryPool>,
    pub(crate) borrowers: Borrowers,
}

/// All connections whose windows are lent from the same budgets. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Borrowers(Arc<Mutex<KnownBorrowers>>);

#[derive(Debug, Default)]
struct KnownBorrowers {
    windows: Vec<Weak<ConnectionWindows>>,
    looked_at: Option<Instant>,
}

#[derive(Debug)]
struct Window {
    moved_bytes: AtomicU64,
    /// When so much has moved the window is looked at again.
    look_at_bytes: AtomicU64,
    autotune: Option<Mutex<WindowAutotune>>,
    max_bytes: u64,
    /// What may come and is not read for a while.
    reserved_bytes: Mutex<u64>,
}

/// A part of a connection's receive window: so much may come unread and still leave room for what is read at once.
/// Given back when this is dropped.
#[derive(Debug)]
pub struct ReceiveReservation {
    windows: Arc<ConnectionWindows>,
    len_bytes: u64,
}

impl Drop for ReceiveReservation {
    fn drop(&mut self) {
        *self.windows.receive.reserved() -= self.len_bytes;
    }
}

impl ConnectionWindows {
    pub(crate) fn new(
        connection: quinn::Connection,
        budgets: ConnectionMemoryBudgets,
        max_receive_bytes: u32,
        max_send_bytes: u64,
    ) -> Arc<Self> {
        let receive = Window::new(budgets.receive, max_receive_bytes.into());
        let windows = Arc::new(Self {
            connection,
            receive,
            send: Window::new(budgets.send, max_send_bytes),
            max_send_bytes: AtomicU64::new(FIRST_WINDOW_BYTES.into()),
            follow_at_bytes: AtomicU64::new(0),
            lost_packets: AtomicU64::new(0),
            lossy_until_bytes: AtomicU64::new(0),
            borrowers: budgets.borrowers,
            written_at: Instant::now().into(),
        });
        windows.borrowers.add(&windows);
        windows
    }

    /// Lets them grow beyond what a guest has, from `receive_bytes` on: of a peer that we have chosen it is more.
    pub(crate) fn open(&self, receive_bytes: u64) {
        self.set_receive(self.receive.open(receive_bytes));
        self.borrowers.take_back_idle();
        self.max_send_bytes.store(self.send.open(OPENED_SEND_WINDOW_BYTES), Ordering::Relaxed);
        self.follow_path();
    }

    /// Grows the receive window so that `len_bytes` may stay unread. `None` if not as much can be lent.
    pub(crate) fn reserve(self: &Arc<Self>, len_bytes: u64) -> Option<ReceiveReservation> {
        let mut reserved = self.receive.reserved();
        let wanted_bytes = (*reserved + len_bytes).saturating_mul(5) / 4;
        let window_bytes = self.receive.open(wanted_bytes);
        self.set_receive(window_bytes);
        // quinn tells the peer of new room once that is an eighth of the window: a fifth of it stays for what is read.
        (window_bytes >= wanted_bytes).then(|| {
            *reserved += len_bytes;
            ReceiveReservation { windows: Arc::clone(self), len_bytes }
        })
    }

    /// So much has been read.
    pub(crate) fn read(&self, len_bytes: usize) {
        let rtt = || self.connection.rtt();
        let grow = |autotune: &mut WindowAutotune, bytes| autotune.on_read(bytes, rtt(), Instant::now());
        if let Some(window_bytes) = self.receive.moved(len_bytes, grow) {
            self.set_receive(window_bytes);
        }
    }

    /// So much has been taken to be sent.
    pub(crate) fn wrote(&self, len_bytes: usize) {
        if self.send.is_short() {
            self.borrowers.take_back_idle();
        }
        if let Some(window_bytes) = self.send.moved(len_bytes, WindowAutotune::on_written) {
            self.max_send_bytes.store(window_bytes, Ordering::Relaxed);
            self.follow_path();
        } else if self.send.moved_bytes.load(Ordering::Relaxed)
            >= self.follow_at_bytes.load(Ordering::Relaxed)
        {
            self.follow_path();
        }
    }

    /// What is kept until it has arrived is what the path holds, and as much again to go on with: more would wait in
    /// memory. Where packets are lost it is several times as much: a stream keeps all behind a gap until that is filled,
    /// which takes some round trips.
    fn follow_path(&self) {
        let path = self.connection.stats().path;
        let moved_bytes = self.send.moved_bytes.load(Ordering::Relaxed);
        if self.lost_packets.swap(path.lost_packets, Ordering::Relaxed) != path.lost_packets {
            self.lossy_until_bytes.store(moved_bytes + LOSSY_WINDOWS * path.cwnd, Ordering::Relaxed);
        }
        let is_lossy = moved_bytes < self.lossy_until_bytes.load(Ordering::Relaxed);
        let window_bytes = path.cwnd * if is_lossy { LOSSY_SEND_WINDOWS } else { SEND_WINDOWS };
        let window_bytes = window_bytes.max(MIN_SEND_WINDOW_BYTES);
        self.connection.set_send_window(window_bytes.min(self.max_send_bytes.load(Ordering::Relaxed)));
        self.follow_at_bytes.store(moved_bytes + path.cwnd / 4, Ordering::Relaxed);
        *lock(&self.written_at) = Instant::now();
    }

    /// Gives back what was lent to send with, if nothing was written for a while and all that was has arrived. It is lent
    /// again as soon as there is something to send.
    fn give_back_if_idle(&self) {
        let is_idle = || {
            lock(&self.written_at).elapsed() >= IDLE_AFTER
                && close::acknowledged(&self.connection).in_flight_bytes < FIRST_WINDOW_BYTES.into()
        };
        if self.send.holds_more() && is_idle() {
            self.max_send_bytes.store(self.send.shrink(), Ordering::Relaxed);
            self.connection.set_send_window(FIRST_WINDOW_BYTES.into());
        }
    }

    fn set_receive(&self, window_bytes: u64) {
        self.connection.set_receive_window(u32::try_from(window_bytes).unwrap_or(u32::MAX).into());
    }
}

impl Borrowers {
    fn add(&self, windows: &Arc<ConnectionWindows>) {
        let mut known = lock(&self.0);
        known.windows.retain(|windows| windows.strong_count() > 0);
        known.windows.push(Arc::downgrade(windows));
    }

    /// Takes back the send windows of all that are idle, now and then.
    fn take_back_idle(&self) {
        let now = Instant::now();
        let windows: Vec<_> = {
            let mut known = lock(&self.0);
            if known.looked_at.is_some_and(|looked_at| now - looked_at < IDLE_AFTER) {
                return;
            }
            known.looked_at = Some(now);
            known.windows.iter().filter_map(Weak::upgrade).collect()
        };
        for windows in windows {
            windows.give_back_if_idle();
        }
    }
}

impl Window {
    fn new(budget: Option<MemoryPool>, max_bytes: u64) -> Self {
        let autotune = budget.map(|budget| Mutex::new(WindowAutotune::new(budget, max_bytes)));
        Self {
            moved_bytes: AtomicU64::new(0),
            look_at_bytes: AtomicU64::new(u64::MAX),
            autotune,
            max_bytes,
            reserved_bytes: Mutex::default(),
        }
    }

    fn reserved(&self) -> MutexGuard<'_, u64> {
        lock(&self.reserved_bytes)
    }

    /// What it is from now on: `wanted_bytes` if that can be lent, or its full size if there is nothing to be shared.
    fn open(&self, wanted_bytes: u64) -> u64 {
        let Some(autotune) = &self.autotune else { return self.max_bytes };
        let mut autotune = lock(autotune);
        autotune.borrow_unmoved(wanted_bytes);
        self.look_at_bytes.store(autotune.look_at_bytes, Ordering::Relaxed);
        autotune.window_bytes
    }

    /// Whether it is to be looked at, and could then not grow as it should.
    fn is_short(&self) -> bool {
        self.moved_bytes.load(Ordering::Relaxed) >= self.look_at_bytes.load(Ordering::Relaxed)
            && self.autotune.as_ref().is_some_and(|autotune| lock(autotune).is_short())
    }

    /// Whether it has been lent anything.
    fn holds_more(&self) -> bool {
        self.autotune.as_ref().is_some_and(|autotune| lock(autotune).lent_bytes() > 0)
    }

    /// Gives back what was lent; what it is then.
    fn shrink(&self) -> u64 {
        let Some(autotune) = &self.autotune else { return self.max_bytes };
        let mut autotune = lock(autotune);
        autotune.shrink(self.moved_bytes.load(Ordering::Relaxed));
        self.look_at_bytes.store(autotune.look_at_bytes, Ordering::Relaxed);
        autotune.window_bytes
    }

    /// The new size, if it changes.
    fn moved(
        &self,
        len_bytes: usize,
        grow: impl FnOnce(&mut WindowAutotune, u64) -> Option<u64>,
    ) -> Option<u64> {
        let moved_bytes = self.moved_bytes.fetch_add(len_bytes as u64, Ordering::Relaxed) + len_bytes as u64;
        if moved_bytes < self.look_at_bytes.load(Ordering::Relaxed) {
            return None;
        }
        let mut autotune = lock(self.autotune.as_ref()?);
        let grown = grow(&mut autotune, moved_bytes);
        self.look_at_bytes.store(autotune.look_at_bytes, Ordering::Relaxed);
        grown
    }
}

/// How a window grows, without the connection.
#[derive(Debug)]
struct WindowAutotune {
    budget: MemoryPool,
    window_bytes: u64,
    max_bytes: u64,
    look_at_bytes: u64,
    /// When it was last looked at, and the shortest round trip that was seen.
    looked_at: Option<Instant>,
    rtt: Duration,
}

impl WindowAutotune {
    fn new(budget: MemoryPool, max_bytes: u64) -> Self {
        Self {
            budget,
            window_bytes: FIRST_WINDOW_BYTES.into(),
            max_bytes,
            look_at_bytes: 0,
            looked_at: None,
            rtt: Duration::MAX,
        }
    }

    /// Grows to this size, as far as that can be lent to one who has read or acknowledged as much.
    fn borrow(&mut self, wanted_bytes: u64) {
        self.borrow_and_leave(wanted_bytes, 0);
    }

    /// The same for one who may never do so: three quarters of the budget are for others.
    fn borrow_unmoved(&mut self, wanted_bytes: u64) {
        let total_bytes = self.budget.total_bytes();
        self.borrow_and_leave(wanted_bytes, total_bytes - total_bytes / UNMOVED_PART);
    }

    fn borrow_and_leave(&mut self, wanted_bytes: u64, leave_bytes: u64) {
        let more_bytes = wanted_bytes.min(self.max_bytes).saturating_sub(self.window_bytes);
        let held_bytes = self.lent_bytes();
        let share = |left_bytes: u64| {
            more_bytes
                .min(MemoryPool::fair_share(held_bytes, left_bytes))
                .min(left_bytes.saturating_sub(leave_bytes))
        };
        self.window_bytes += self.budget.take(share);
    }

    /// For bytes that were taken to be sent: all but a window of them have arrived.
    fn on_written(&mut self, written_bytes: u64) -> Option<u64> {
        self.on_moved(written_bytes.saturating_sub(self.window_bytes), |_| true)
    }

    /// The new window, if it changes. Above [`MIN_PATH_WINDOW_BYTES`] it grows only if half of it was read within a few
    /// round trips: else it is several times what the path holds, and more would only wait for who reads it.
    fn on_read(&mut self, read_bytes: u64, rtt: Duration, now: Instant) -> Option<u64> {
        self.on_moved(read_bytes, |this| {
            // While this side is busy a round trip seems longer.
            this.rtt = this.rtt.min(rtt);
            let elapsed = this.looked_at.replace(now).map_or(Duration::MAX, |before| now - before);
            this.window_bytes < MIN_PATH_WINDOW_BYTES || elapsed < this.rtt * QUICK_ROUND_TRIPS
        })
    }

    /// The new window, if it changes: four times the old one whenever half of it has moved, so that a sender
    /// that doubles what it has under way every round trip never meets it.
    fn on_moved(&mut self, moved_bytes: u64, may_grow: impl FnOnce(&mut Self) -> bool) -> Option<u64> {
        if moved_bytes < self.look_at_bytes {
            return None; // Another thread has just looked.
        }
        let is_first_look = self.look_at_bytes == 0;
        let before_bytes = self.window_bytes;
        if may_grow(self) && !is_first_look {
            self.borrow(self.next_bytes());
        }
        self.look_at_bytes = moved_bytes + self.window_bytes / 2;
        (self.window_bytes != before_bytes).then_some(self.window_bytes)
    }

    /// Whether less is left than it would take.
    fn is_short(&self) -> bool {
        let left_bytes = self.budget.total_bytes() - self.budget.used_bytes();
        MemoryPool::fair_share(self.lent_bytes(), left_bytes)
            < self.next_bytes().saturating_sub(self.window_bytes)
    }

    /// Its next size, if as much can be lent.
    fn next_bytes(&self) -> u64 {
        (4 * self.window_bytes).min(self.max_bytes)
    }

    /// Back to what everyone has, after `moved_bytes`.
    fn shrink(&mut self, moved_bytes: u64) {
        self.budget.give_back(self.lent_bytes());
        self.window_bytes = FIRST_WINDOW_BYTES.into();
        self.look_at_bytes = moved_bytes + self.window_bytes / 2;
    }

    fn lent_bytes(&self) -> u64 {
        self.window_bytes - u64::from(FIRST_WINDOW_BYTES)
    }
}

impl Drop for WindowAutotune {
    fn drop(&mut self) {
        self.budget.give_back(self.lent_bytes());
    }
}

/// Each change is one step.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 1 s: longer than an acknowledgement takes, and than a transfer pauses between two files.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// 1.25 MiB: of a peer that this side has dialled. It holds what may come unasked (SPEC 4.24), and no flight of the first
/// three is longer.
pub(crate) const DIALLED_RECEIVE_WINDOW_BYTES: u64 = (1 << 20) + (256 << 10);

/// 4 MiB: on loopback 1 GiB arrives as fast as with 24 MiB.
const MIN_PATH_WINDOW_BYTES: u64 = 4 << 20;

/// A window that lasts for eight round trips is long enough, also where packets are lost and streams wait behind gaps.
const QUICK_ROUND_TRIPS: u32 = 4;

/// 1 MiB: the first three flights of a connection that finds much room.
const OPENED_SEND_WINDOW_BYTES: u64 = 1 << 20;

/// A quarter of the budget is for windows of which nothing has moved yet.
const UNMOVED_PART: u64 = 4;

/// Congestion windows that are kept until they have arrived.
const SEND_WINDOWS: u64 = 2;

/// And where packets are lost: in flight, behind gaps of which the first repetition is lost too, and to go on with. Measured
/// with 3 % of loss: 4 of them 172 Mbit/s of 200, 8 of them 175, 2 of them 158.
const LOSSY_SEND_WINDOWS: u64 = 8;

/// After the last loss a path counts as lossy for 16 windows.
const LOSSY_WINDOWS: u64 = 16;

/// 256 KiB: what is read at a time.
const MIN_SEND_WINDOW_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const FIRST: u64 = FIRST_WINDOW_BYTES as u64;
    /// So long that all is read within it.
    const RTT: Duration = Duration::from_secs(3600);

    /// The window after a minute at this rate, over a path with this round trip.
    fn after_a_minute(bytes_per_second: u64, rtt: Duration) -> u64 {
        let mut autotune = autotune(&MemoryPool::new(24 * MIB));
        let (start, step) = (Instant::now(), Duration::from_micros(100));
        for elapsed in (0..600_000).map(|steps| step * steps) {
            let read_bytes = (bytes_per_second as f64 * elapsed.as_secs_f64()) as u64;
            autotune.on_read(read_bytes, rtt, start + elapsed);
        }
        autotune.window_bytes
    }

    #[test]
    fn a_window_is_long_only_where_the_path_is() {
        for (bytes_per_second, rtt_us) in
            [(1 << 30, 100), (1 << 30, 400), (100 << 20, 5_000), (1 << 20, 300_000)]
        {
            let window_bytes = after_a_minute(bytes_per_second, Duration::from_micros(rtt_us));
            assert_eq!(window_bytes, MIN_PATH_WINDOW_BYTES, "{bytes_per_second} bytes a second, {rtt_us} us");
        }
        for (bytes_per_second, rtt_us) in [(1 << 30, 1_000), (100 << 20, 50_000), (10 << 20, 300_000)] {
            let window_bytes = after_a_minute(bytes_per_second, Duration::from_micros(rtt_us));
            assert_eq!(window_bytes, 16 * MIB, "{bytes_per_second} bytes a second, {rtt_us} us");
        }
    }

    #[test]
    fn a_longer_round_trip_while_this_side_is_busy_makes_no_window_longer() {
        let mut autotune = autotune(&MemoryPool::new(24 * MIB));
        let (start, mut read_bytes) = (Instant::now(), 0);
        for elapsed_ms in 0..1000 {
            let rtt = Duration::from_micros(if elapsed_ms == 0 { 100 } else { 50_000 });
            read_bytes += 1 << 20;
            autotune.on_read(read_bytes, rtt, start + Duration::from_millis(elapsed_ms));
        }
        assert_eq!(autotune.window_bytes, MIN_PATH_WINDOW_BYTES);
    }

    fn autotune(budget: &MemoryPool) -> WindowAutotune {
        WindowAutotune::new(budget.clone(), 16 * MIB)
    }

    /// Reads until nothing grows any more.
    fn read_on(autotune: &mut WindowAutotune) -> u64 {
        let mut read_bytes = autotune.look_at_bytes;
        for _ in 0..32 {
            autotune.on_read(read_bytes, RTT, Instant::now());
            read_bytes = autotune.look_at_bytes;
        }
        autotune.window_bytes
    }

    #[test]
    fn what_is_read_without_pause_gets_the_full_window_within_a_few_of_its_sizes() {
        let budget = MemoryPool::new(24 * MIB);
        let mut autotune = autotune(&budget);
        let mut steps = Vec::new();
        let mut read_bytes = 0;
        while autotune.window_bytes < 16 * MIB {
            read_bytes += 1 << 10;
            steps.extend(autotune.on_read(read_bytes, RTT, Instant::now()));
        }
        assert_eq!(steps, [4 * FIRST, 16 * FIRST, 64 * FIRST, 16 * MIB]);
        assert!(read_bytes < 16 * MIB, "{read_bytes}");
    }

    #[test]
    fn a_crowd_gets_no_more_than_the_credit_and_gives_it_back() {
        let budget = MemoryPool::new(24 * MIB);
        let mut crowd: Vec<_> = (0..500).map(|_| autotune(&budget)).collect();
        let windows: u64 = crowd.iter_mut().map(read_on).sum();
        assert!(windows <= 24 * MIB + 500 * FIRST, "{windows}");
        assert!(crowd.iter().all(|autotune| autotune.window_bytes >= FIRST));
        drop(crowd);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(read_on(&mut autotune(&budget)), 16 * MIB);
    }

    #[test]
    fn a_crowd_that_takes_nothing_leaves_most_of_the_credit_to_one_that_does() {
        let budget = MemoryPool::new(24 * MIB);
        let crowd: Vec<_> = (0..500).map(|_| Window::new(Some(budget.clone()), 16 * MIB)).collect();
        for window in &crowd {
            window.open(OPENED_SEND_WINDOW_BYTES);
        }
        assert!(budget.used_bytes() <= 6 * MIB, "{}", budget.used_bytes());
        assert!(read_on(&mut autotune(&budget)) >= 12 * MIB);
    }

    #[test]
    fn a_maximum_below_the_first_window_is_never_short() {
        let window = Window::new(Some(MemoryPool::new(24 * MIB)), FIRST / 2);
        window.open(OPENED_SEND_WINDOW_BYTES);
        window.moved(4 * FIRST as usize, WindowAutotune::on_written);
        assert!(!window.autotune.as_ref().is_some_and(|autotune| lock(autotune).is_short()));
    }

    #[test]
    fn what_is_written_counts_once_all_but_a_window_of_it_has_arrived() {
        let budget = MemoryPool::new(24 * MIB);
        let mut autotune = autotune(&budget);
        let mut written_bytes = 0;
        while autotune.window_bytes < 16 * MIB {
            written_bytes += 1 << 10;
            let before_bytes = autotune.window_bytes;
            autotune.on_written(written_bytes);
            let arrived_bytes = written_bytes - before_bytes.min(written_bytes);
            assert!(autotune.window_bytes == before_bytes || arrived_bytes >= before_bytes / 2);
        }
        assert!(written_bytes < 16 * MIB, "{written_bytes}");
        let mut stalled = WindowAutotune::new(budget.clone(), 16 * MIB);
        assert!((0..=FIRST).all(|written_bytes| stalled.on_written(written_bytes).is_none()));
        assert_eq!(stalled.window_bytes, FIRST, "nothing need have arrived");
    }

    #[test]
    fn a_window_that_is_not_read_does_not_grow() {
        let budget = MemoryPool::new(24 * MIB);
        let mut autotune = autotune(&budget);
        assert_eq!(autotune.on_read(1, RTT, Instant::now()), None);
        assert_eq!(autotune.on_read(FIRST / 2, RTT, Instant::now()), None);
        assert_eq!((autotune.window_bytes, budget.used_bytes()), (FIRST, 0));
    }

    proptest! {
        #[test]
        fn never_more_than_the_credit_is_lent(
            steps in prop::collection::vec((0usize..8, 0u64..8 * MIB, any::<bool>()), 0..300),
        ) {
            let budget = MemoryPool::new(24 * MIB);
            let mut autotunes: Vec<_> = (0..8).map(|_| (autotune(&budget), 0)).collect();
            for (who, len_bytes, ends) in steps {
                if ends {
                    autotunes[who] = (autotune(&budget), 0);
                }
                let (autotune, read_bytes) = &mut autotunes[who];
                *read_bytes += len_bytes;
                autotune.on_read(*read_bytes, RTT, Instant::now());
                prop_assert!(autotune.window_bytes <= 16 * MIB);
                prop_assert!(budget.used_bytes() <= 24 * MIB);
            }
            drop(autotunes);
            prop_assert_eq!(budget.used_bytes(), 0);
        }
    }
}
