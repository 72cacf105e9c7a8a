//! Hashing several chunks at once.
//!
//! Chunks that are small enough are held whole, and those that are under way at the same time are hashed
//! together: as many as the processor's vector unit has lanes for (`shiplane_wire::digest_lanes`), in half
//! the time. It also takes one hand-over to another thread where a chunk that is hashed as it moves takes one
//! for every buffer; and what has been verified is stored by the thread that did it.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use shiplane_wire::{Digest, RecvError, VerifiedChunk, WholeChunk, digest_lanes};

use super::chores::{Chore, Owner, share_out};
use crate::{
    blocking,
    buffer::{Buffer, BufferPool},
    config::LaneThreads,
};

/// Where the chunks of transfers meet to be hashed side by side. A handle: clones share it.
///
/// In [`LaneOptions`](super::LaneOptions) it stands for "hold whole what is no longer than
/// [`MAX_LEN_BYTES`](Self::MAX_LEN_BYTES)"; longer chunks are hashed as they move.
#[derive(Clone)]
pub struct SideBySide {
    sending: Arc<Meeting<SendJob>>,
    receiving: Arc<Meeting<RecvJob>>,
    /// For chunks that are received whole.
    buffers: BufferPool,
    owner: Owner,
}

impl SideBySide {
    /// The longest chunk that is held whole: 1 MiB.
    pub const MAX_LEN_BYTES: u64 = 1 << 20;

    /// Nobody is there yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_buffers(BufferPool::default())
    }

    /// The same, with buffers that are used for other chunks too.
    #[must_use]
    pub fn with_buffers(buffers: BufferPool) -> Self {
        Self {
            sending: Meeting::new(digest_lanes(), tell_digests),
            receiving: Meeting::new(digest_lanes(), verify),
            buffers,
            owner: Owner::default(),
        }
    }

    /// The same meeting for one more transfer. Its chunks are hashed together with those of others, but never wait for
    /// a disk that another's are stored on.
    #[must_use]
    pub fn for_transfer(&self) -> Self {
        static TRANSFERS: AtomicU64 = AtomicU64::new(1);
        Self { owner: Owner(TRANSFERS.fetch_add(1, Ordering::Relaxed)), ..self.clone() }
    }

    /// Says that a chunk is about to be sent, so that others wait for it.
    pub(super) fn sends(&self, threads: LaneThreads) -> Present<SendJob> {
        Present::at(&self.sending, threads)
    }

    /// Says that a chunk is being received.
    pub(super) fn receives(&self, threads: LaneThreads) -> Present<RecvJob> {
        Present::at(&self.receiving, threads)
    }

    /// Buffers for chunks.
    pub(super) fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Whose chunks these are.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }
}

impl Default for SideBySide {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SideBySide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideBySide").finish_non_exhaustive()
    }
}

/// Data, and whom to tell its digest, quickly.
pub(super) type SendJob = (Bytes, Box<dyn FnOnce(Digest) + Send>);

fn tell_digests(jobs: Vec<SendJob>) -> Vec<Chore> {
    let (payloads, done): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    let slices: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
    done.into_iter().zip(Digest::of_each(&slices)).for_each(|(done, digest)| done(digest));
    Vec::new()
}

/// A chunk that is all there, and what stores it if it is good.
pub(super) struct RecvJob {
    pub(super) chunk: WholeChunk<Buffer>,
    pub(super) owner: Owner,
    pub(super) store: Box<dyn FnOnce(Result<VerifiedChunk<Buffer>, RecvError>) + Send>,
}

fn verify(jobs: Vec<RecvJob>) -> Vec<Chore> {
    let (chunks, store): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|RecvJob { chunk, owner, store }| (chunk, (owner, store))).unzip();
    let verified = WholeChunk::verify_each(chunks).into_iter();
    let chores = store.into_iter().zip(verified);
    chores
        .map(|((owner, store), verified)| Chore { owner, work: Box::new(move || store(verified)) })
        .collect()
}

/// One of those that may come to be hashed; while there are enough of them, the others wait a little.
pub(super) struct Present<J: Send + 'static> {
    meeting: Arc<Meeting<J>>,
    threads: LaneThreads,
}

impl<J: Send + 'static> Present<J> {
    fn at(meeting: &Arc<Meeting<J>>, threads: LaneThreads) -> Self {
        let mut state = lock(&meeting.state);
        state.present += 1;
        state.most_present = state.most_present.max(state.present);
        drop(state);
        Self { meeting: Arc::clone(meeting), threads }
    }

    /// Queues a job. It is done on a thread of the lane's.
    pub(super) fn submit(&self, job: J) {
        self.meeting.submit(job, self.threads);
    }
}

impl<J: Send + 'static> Drop for Present<J> {
    fn drop(&mut self) {
        lock(&self.meeting.state).present -= 1;
        // There may be nobody to wait for any more.
        self.meeting.changed.notify_one();
    }
}

struct Meeting<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    /// How many are worth waiting for.
    width: usize,
    /// Hashes, and tells what else is to be done, which may take longer.
    run: fn(Vec<J>) -> Vec<Chore>,
}

struct State<J> {
    queue: Vec<J>,
    /// Those that are under way, queued or not.
    present: usize,
    /// The most there were of late: between one chunk and the next, a lane is not there.
    most_present: usize,
    workers: usize,
}

impl<J> State<J> {
    /// How many are worth waiting for: half of those that come, so that the others come while these are hashed and
    /// stored. With too few to fill the vector unit, nobody waits.
    fn goal(&self, width: usize) -> usize {
        if self.most_present < width { 1 } else { (self.most_present / 2).clamp(1, width) }
    }
}

impl<J: Send + 'static> Meeting<J> {
    fn new(width: usize, run: fn(Vec<J>) -> Vec<Chore>) -> Arc<Self> {
        let state = State { queue: Vec::new(), present: 0, most_present: 0, workers: 0 };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), width, run })
    }

    fn submit(self: &Arc<Self>, job: J, threads: LaneThreads) {
        let mut state = lock(&self.state);
        state.queue.push(job);
        let is_full = state.queue.len() >= state.goal(self.width);
        if state.workers == 0 || (is_full && state.workers < blocking::cores()) {
            self.hire(&mut state, threads);
        } else if is_full {
            self.changed.notify_one();
        }
    }

    fn hire(self: &Arc<Self>, state: &mut State<J>, threads: LaneThreads) {
        state.workers += 1;
        let worker = Worker { meeting: Arc::clone(self), threads, has_left: false };
        threads.spawn(move || worker.work());
    }
}

/// A thread that does the jobs.
struct Worker<J: Send + 'static> {
    meeting: Arc<Meeting<J>>,
    threads: LaneThreads,
    /// It has said that it leaves.
    has_left: bool,
}

impl<J: Send + 'static> Worker<J> {
    fn work(mut self) {
        while let Some(group) = self.next_group() {
            let chores = (self.meeting.run)(group);
            if !chores.is_empty() {
                // Whatever they wait for, those that come to be hashed do not.
                self.leave();
                return share_out(chores, self.threads);
            }
        }
    }

    /// Leaves the queue to the others, or to a successor.
    fn leave(&mut self) {
        let mut state = lock(&self.meeting.state);
        state.workers -= 1;
        self.has_left = true;
        if state.workers == 0 && !state.queue.is_empty() {
            self.meeting.hire(&mut state, self.threads);
        }
    }

    /// The next jobs to do together; `None` if there are none, and then it has left.
    fn next_group(&mut self) -> Option<Vec<J>> {
        let Meeting { state, changed, width, .. } = &*self.meeting;
        let deadline = Instant::now() + LINGER;
        let mut state = lock(state);
        loop {
            if state.queue.is_empty() {
                // Under the lock: who submits after this must not take it for one that will come.
                state.workers -= 1;
                self.has_left = true;
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let goal = state.goal(*width);
            if state.queue.len() >= goal || state.present < goal || left.is_zero() {
                let group = state.queue.len().min(*width);
                state.most_present = state.present.max(state.most_present.saturating_sub(1));
                return Some(state.queue.drain(..group).collect());
            }
            (state, _) = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<J: Send + 'static> Drop for Worker<J> {
    /// The runtime ends before it ran, or it has panicked: nobody must wait for what it would have done.
    fn drop(&mut self) {
        if !self.has_left {
            let mut state = lock(&self.meeting.state);
            state.workers -= 1;
            state.queue.clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long chunks wait for others to be hashed with, while others are under way: sixteen of 512 KiB come in
/// that time at a third of a gigabyte a second. Where it takes longer, there is time enough to hash them one
/// after another. With 8 ms more than half of them were, at 0.6 GB/s.
const LINGER: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_those_that_come_are_waited_for() {
        let goal = |most_present, width| {
            State::<SendJob> { queue: Vec::new(), present: 0, most_present, workers: 0 }.goal(width)
        };
        for (most_present, awaited) in [(0, 1), (15, 1), (16, 8), (24, 12), (32, 16), (64, 16)] {
            assert_eq!(goal(most_present, 16), awaited, "{most_present}");
        }
        assert_eq!([goal(0, 1), goal(1, 1), goal(5, 1)], [1; 3], "without a vector unit");
    }

    #[test]
    fn who_comes_and_goes_is_remembered_for_some_groups() {
        let hashing = SideBySide::new();
        let many: Vec<_> = (0..4).map(|_| hashing.sends(LaneThreads::Ordinary)).collect();
        drop(many);
        let state = lock(&hashing.sending.state);
        assert_eq!((state.present, state.most_present), (0, 4));
    }
}
