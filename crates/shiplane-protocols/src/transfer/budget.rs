//! The memory that peers may make this side hold: chunks that are under way, compressed ones, entries and block signatures
//! of transfers, the lists of syncs, and what interrupted runs have left.
//!
//! A chunk that its peer does not take, or does not finish, is held until a deadline ends it, and so are the entries
//! of a peer that stops. So that a crowd of such peers neither fills the memory nor keeps others from theirs, a
//! transfer gets more the more there is left, and those that have not moved a chunk yet get a quarter of it together.
//! A transfer without anything goes on with little: one chunk at a time, in small pieces, and a few entries.

mod splitters;
mod usage;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use shiplane_files::internals::{CountedMemory, SharedMemory};
use shiplane_transport::{
    PeerId,
    internals::{BufferPool, MemoryPool},
};
use shiplane_wire::{Span, limits};
use tokio::sync::Notify;

pub(super) use self::splitters::BlockSplitters;
use crate::lock;

/// What all transfers of a server, or of a client, may hold together. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    chunks: MemoryPool,
    compressed: MemoryPool,
    entries: MemoryPool,
    signatures: MemoryPool,
    peers: Arc<Peers>,
    pub(super) buffers: BufferPool,
    splitters: Arc<BlockSplitters>,
}

/// What is shared between peers, however many transfers and syncs each of them has: the lists of files of all syncs, those
/// of this side's datasets and those that peers send, and what journals of interrupted runs leave.
#[derive(Debug)]
struct Peers {
    ours: MemoryPool,
    theirs: MemoryPool,
    journals: MemoryPool,
    /// What each peer holds of them.
    held: Mutex<HashMap<PeerId, Weak<HeldByPeer>>>,
}

type HeldByPeer = [Arc<Mutex<u64>>; 3];

impl MemoryBudget {
    /// Holds `chunk_bytes` of chunks, [`COMPRESSED_MEMORY_BYTES`] of compressed ones, [`ENTRY_MEMORY_BYTES`] of entries, [`SIGNATURE_MEMORY_BYTES`] of block
    /// signatures, [`LIST_MEMORY_BYTES`] of the lists of syncs, and [`JOURNAL_MEMORY_BYTES`] of what journals leave.
    #[must_use]
    pub fn new(chunk_bytes: u64) -> Self {
        Self {
            chunks: MemoryPool::new(chunk_bytes),
            compressed: MemoryPool::new(COMPRESSED_MEMORY_BYTES),
            entries: MemoryPool::new(ENTRY_MEMORY_BYTES),
            signatures: MemoryPool::new(SIGNATURE_MEMORY_BYTES),
            peers: Peers::new(LIST_MEMORY_BYTES),
            buffers: BufferPool::default(),
            splitters: Arc::default(),
        }
    }

    /// For destinations that the peer writes to.
    pub(crate) fn of_destinations(&self, peer: PeerId) -> SharedMemory {
        let journal = Box::new(self.of_peer(peer).journals.reservation());
        SharedMemory { buffers: self.splitters.buffers.clone(), journal, links: self.of_requests(peer) }
    }

    /// For other things that a peer's request makes this side remember, of what there is for lists.
    pub(crate) fn of_requests(&self, peer: PeerId) -> Box<dyn CountedMemory> {
        Box::new(self.of_peer(peer).theirs.reservation())
    }

    /// The same with `list_bytes` of the lists of syncs: as much of what is here as of what peers send.
    #[must_use]
    pub fn with_list_bytes(self, list_bytes: u64) -> Self {
        Self { peers: Peers::new(list_bytes), ..self }
    }

    /// What all pushes of a peer and all syncs with it have together.
    pub(crate) fn of_peer(&self, peer: PeerId) -> PeerAccounts {
        let Peers { ours, theirs, journals, held } = &*self.peers;
        let mut peers = lock(held);
        peers.retain(|_, held| held.strong_count() > 0);
        let held = peers.get(&peer).and_then(Weak::upgrade).unwrap_or_default();
        peers.insert(peer, Arc::downgrade(&held));
        let account = |pool: &MemoryPool, number: usize, least_bytes| Account {
            pool: pool.clone(),
            held_bytes: Arc::clone(&held[number]),
            // Nothing moves before there are lists, and before the journal was read.
            has_moved: Arc::new(AtomicBool::new(true)),
            least_bytes,
            given_back: Arc::default(),
            _peer: Some(Arc::clone(&held)),
        };
        PeerAccounts {
            ours: account(ours, 0, LEAST_LIST_BYTES),
            theirs: account(theirs, 1, LEAST_LIST_BYTES),
            journals: account(journals, 2, LEAST_JOURNAL_BYTES),
        }
    }
}

impl Peers {
    fn new(list_bytes: u64) -> Arc<Self> {
        let [ours, theirs, journals] = [list_bytes, list_bytes, JOURNAL_MEMORY_BYTES].map(MemoryPool::new);
        Arc::new(Self { ours, theirs, journals, held: Mutex::default() })
    }
}

/// The accounts of one peer.
#[derive(Debug)]
pub(crate) struct PeerAccounts {
    pub(crate) ours: Account,
    pub(crate) theirs: Account,
    journals: Account,
}

impl Default for MemoryBudget {
    /// [`CHUNK_MEMORY_BYTES`].
    fn default() -> Self {
        Self::new(CHUNK_MEMORY_BYTES)
    }
}

/// What one transfer, or one peer, has of a pool. A handle: clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pool: MemoryPool,
    held_bytes: Arc<Mutex<u64>>,
    has_moved: Arc<AtomicBool>,
    /// It always has this much, whatever others hold.
    least_bytes: u64,
    given_back: Arc<Notify>,
    /// What the peer holds is known as long as any of its accounts is there.
    _peer: Option<Arc<HeldByPeer>>,
}

impl Account {
    fn new(pool: MemoryPool, has_moved: &Arc<AtomicBool>) -> Self {
        let (held_bytes, given_back) = (Arc::default(), Arc::default());
        Self { pool, held_bytes, has_moved: Arc::clone(has_moved), least_bytes: 0, given_back, _peer: None }
    }

    /// A reservation of nothing yet.
    pub(crate) fn reservation(&self) -> Reservation {
        Reservation { account: Some(self.clone()), len_bytes: 0, is_whole: true }
    }

    /// What there is to share.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.pool.total_bytes()
    }

    /// Whether others hold something that they will give back.
    pub(crate) fn is_shared(&self) -> bool {
        self.pool.used_bytes() > *lock(&self.held_bytes)
    }

    /// Takes any amount if nothing is held.
    fn take_alone(&self, bytes: u64) -> bool {
        let total_bytes = self.pool.total_bytes();
        self.take_by(bytes, |_, left_bytes| left_bytes == total_bytes)
    }

    /// Takes `bytes` if that leaves enough to others, or if this account has less than `least_bytes`.
    fn take(&self, bytes: u64, least_bytes: u64) -> bool {
        let total_bytes = self.pool.total_bytes();
        self.take_by(bytes, |held_bytes, left_bytes| {
            let leaves_most = self.has_moved.load(Ordering::Relaxed)
                || left_bytes.saturating_sub(bytes) >= total_bytes - total_bytes / UNMOVED_PART;
            (leaves_most && bytes <= MemoryPool::fair_share(held_bytes, left_bytes))
                || held_bytes < least_bytes
                || held_bytes.saturating_add(bytes) <= self.least_bytes
        })
    }

    /// Takes `bytes` if `may` permits it, given the bytes that this account holds and those that are left.
    fn take_by(&self, bytes: u64, may: impl FnOnce(u64, u64) -> bool) -> bool {
        let mut held = lock(&self.held_bytes);
        let mut is_taken = false;
        *held += self.pool.take(|left_bytes| {
            is_taken = may(*held, left_bytes);
            if is_taken { bytes } else { 0 }
        });
        is_taken
    }

    fn give_back(&self, bytes: u64) {
        let mut held = lock(&self.held_bytes);
        let bytes = bytes.min(*held);
        self.pool.give_back(bytes);
        *held -= bytes;
        self.given_back.notify_waiters();
    }

    /// Waits for `bytes` while this account holds anything that it will give back; `None` if it holds nothing and others
    /// do not leave enough. Cancel-safe.
    pub(super) async fn wait(&self, bytes: u64) -> Option<Reservation> {
        loop {
            let given_back = self.given_back.notified();
            let mut memory = self.reservation();
            if memory.grow_by(bytes) {
                return Some(memory);
            }
            if *lock(&self.held_bytes) == 0 {
                return None;
            }
            given_back.await;
        }
    }
}

/// What one transfer may hold. Without a budget it has all the chunks it wants.
#[derive(Debug)]
pub(super) struct Quota {
    chunks: Option<Account>,
    /// For compressed chunks.
    pub(super) compressed: Account,
    entries: Account,
    /// For block signatures, a peer's or ours.
    pub(super) signatures: Account,
    /// What all transfers split files with.
    pub(super) splitters: Arc<BlockSplitters>,
    has_moved: Arc<AtomicBool>,
}

impl Quota {
    pub(super) fn of(budget: Option<&MemoryBudget>) -> Self {
        // A transfer without a shared budget has nothing to leave to others.
        let has_moved = Arc::new(AtomicBool::new(budget.is_none()));
        let MemoryBudget { compressed, entries, signatures, splitters, .. } =
            budget.cloned().unwrap_or_default();
        Self {
            chunks: budget.map(|budget| Account::new(budget.chunks.clone(), &has_moved)),
            compressed: Account::new(compressed, &has_moved),
            entries: Account::new(entries, &has_moved),
            signatures: Account::new(signatures, &has_moved),
            splitters,
            has_moved,
        }
    }

    /// A chunk has got to its receiver: this is no transfer that only takes memory.
    pub(super) fn moved(&self) {
        self.has_moved.store(true, Ordering::Relaxed);
    }

    /// Memory for a chunk; `None` if it has to wait. While none of the transfer's chunks is `under_way` there is
    /// always some, if need be only for small pieces.
    pub(super) fn reserve(&self, len_bytes: u64, under_way: usize) -> Option<Reservation> {
        let Some(account) = &self.chunks else { return Some(Reservation::UNCOUNTED) };
        if account.take(len_bytes, 0) {
            let account = Some(account.clone());
            return Some(Reservation { account, len_bytes, is_whole: true });
        }
        (under_way == 0).then_some(Reservation { account: None, len_bytes: 0, is_whole: false })
    }

    /// Takes memory for entries, if there is any; a little there always is.
    pub(super) fn take_for_entries(&self, bytes: u64) -> bool {
        self.entries.take(bytes, LEAST_ENTRY_BYTES)
    }

    /// Gives back memory of entries.
    pub(super) fn give_back_of_entries(&self, bytes: u64) {
        self.entries.give_back(bytes);
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.entries.give_back(u64::MAX);
    }
}

/// Memory of a chunk that is under way, or of a list; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Option<Account>,
    len_bytes: u64,
    is_whole: bool,
}

impl Reservation {
    /// Without a budget.
    pub(super) const UNCOUNTED: Self = Self { account: None, len_bytes: 0, is_whole: true };

    /// Reserves more, up to `len_bytes` in all. If there is not as much, it stays as it was.
    pub(super) fn grow_to(&mut self, len_bytes: u64) -> bool {
        self.grow_by(len_bytes.saturating_sub(self.len_bytes))
    }

    /// Gives back what is more.
    fn shrink_to(&mut self, len_bytes: u64) {
        let less_bytes = self.len_bytes.saturating_sub(len_bytes);
        if let Some(account) = self.account.as_ref().filter(|_| less_bytes > 0) {
            account.give_back(less_bytes);
            self.len_bytes = len_bytes;
        }
    }

    /// Reserves `more_bytes`. If there are not as many, it stays as it was.
    pub(crate) fn grow_by(&mut self, more_bytes: u64) -> bool {
        self.grow(more_bytes, |account| account.take(more_bytes, 0))
    }

    /// The same; a sole holder gets as much as it takes.
    pub(crate) fn grow_alone_by(&mut self, more_bytes: u64) -> bool {
        self.grow(more_bytes, |account| account.take(more_bytes, 0) || account.take_alone(more_bytes))
    }

    fn grow(&mut self, more_bytes: u64, take: impl FnOnce(&Account) -> bool) -> bool {
        let has_more = more_bytes == 0 || self.account.as_ref().is_some_and(take);
        if has_more {
            self.len_bytes += more_bytes;
        }
        has_more
    }

    /// Whether all of the chunk may be held; else only what small pieces take.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How much of the chunk is read, hashed and written at a time, if not as the transport is configured.
    pub(super) fn buffer_len_bytes(&self) -> Option<usize> {
        (!self.is_whole).then_some(SMALL_BUFFER_LEN_BYTES)
    }
}

impl CountedMemory for Reservation {
    fn resize(&mut self, len_bytes: u64) -> bool {
        let len_bytes = len_bytes.next_multiple_of(COUNTED_STEP_BYTES);
        self.shrink_to(len_bytes);
        self.grow_to(len_bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.give_back(self.len_bytes);
        }
    }
}

/// 24 MiB: what a single transfer holds with the default lanes, and half as much again for others, well within a
/// process's memory cap of 64 MiB.
pub const CHUNK_MEMORY_BYTES: u64 = 24 << 20;

/// 24 MiB: two thirds of it, which a transfer that is alone has, are as many usual chunks as it compresses at a time, or
/// one of the largest.
pub const COMPRESSED_MEMORY_BYTES: u64 = 24 << 20;

/// 16 MiB: twenty thousand entries of a transfer that is alone, so that many small files move at once.
pub const ENTRY_MEMORY_BYTES: u64 = 16 << 20;

/// 16 MiB: two thirds of it, which a transfer that is alone has, are the list of a file of 64 GiB.
pub const SIGNATURE_MEMORY_BYTES: u64 = 16 << 20;

/// 512 MiB of counted memory, twice: of what is here and of what peers send. A peer that is alone has two thirds of it,
/// which is a list of some six hundred thousand files; what is more is refused. Little of it is in use, as a rule.
pub const LIST_MEMORY_BYTES: u64 = 512 << 20;

/// 48 MiB: two thirds of it, which a peer that is alone has, are as much as is kept of one journal.
pub const JOURNAL_MEMORY_BYTES: u64 = 48 << 20;

/// 16 KiB, some seventy chunks: what grows by little takes a lock now and then.
const COUNTED_STEP_BYTES: u64 = 16 << 10;

/// 256 KiB, a thousand chunks of files that are not complete: a peer always has this much, whatever others hold.
const LEAST_JOURNAL_BYTES: u64 = 256 << 10;

/// 1 MiB, a list of some two thousand files: a peer always has this much, whatever others hold.
const LEAST_LIST_BYTES: u64 = 1 << 20;

/// 64 KiB, as long as an entry may be: a transfer that holds less may go on, or nothing would ever be given back.
const LEAST_ENTRY_BYTES: u64 = limits::FIRST_ENTRY_BYTES;

/// What a chunk of these spans holds while it is under way: the buffers that it is read, hashed and written in, and the
/// spans themselves.
pub(super) fn chunk_cost_bytes(spans: &[Span]) -> u64 {
    let len_bytes: u64 = spans.iter().map(|span| span.len_bytes).sum();
    len_bytes.min(MAX_CHUNK_BUFFER_BYTES) + spans.len() as u64 * SPAN_COST_BYTES
}

/// Two buffers of 256 KiB: one that is filled while another thread works on the one before.
const MAX_CHUNK_BUFFER_BYTES: u64 = 512 << 10;

/// What a span counts as in addition to its bytes: its place, and a handle of its file.
const SPAN_COST_BYTES: u64 = 192;

/// 8 KiB: without memory of its own a chunk holds three of them at a time, in as many transfers as may run.
const SMALL_BUFFER_LEN_BYTES: usize = 8 << 10;

/// A quarter is for those that have not moved a chunk: an honest one has by the time its first is acknowledged.
const UNMOVED_PART: u64 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u64 = MAX_CHUNK_BUFFER_BYTES;

    /// All that it gets.
    fn fill(quota: &Quota) -> Vec<Reservation> {
        std::iter::from_fn(|| quota.reserve(CHUNK, 1)).collect()
    }

    #[test]
    fn one_transfer_alone_has_memory_for_all_the_default_lanes() {
        let quota = Quota::of(Some(&MemoryBudget::default()));
        quota.moved();
        assert_eq!(fill(&quota).len(), super::super::DEFAULT_LANES);
    }

    #[test]
    fn stalled_transfers_leave_three_quarters_to_active_ones() {
        let budget = MemoryBudget::default();
        let stalled: Vec<_> = (0..500).map(|_| Quota::of(Some(&budget))).collect();
        let held: Vec<_> = stalled.iter().flat_map(fill).collect();
        assert_eq!(held.len() as u64 * CHUNK, CHUNK_MEMORY_BYTES / 4);
        let healthy = Quota::of(Some(&budget));
        assert!(healthy.reserve(CHUNK, 1).is_none());
        assert!(healthy.reserve(CHUNK, 0).is_some_and(|first| !first.is_whole()), "it begins with little");
        healthy.moved();
        assert_eq!(fill(&healthy).len(), super::super::DEFAULT_LANES * 3 / 4);
    }

    #[test]
    fn returned_memory_is_available_to_others() {
        let budget = MemoryBudget::new(4 * CHUNK);
        let (one, two) = (Quota::of(Some(&budget)), Quota::of(Some(&budget)));
        one.moved();
        two.moved();
        let held = fill(&one);
        assert_eq!((held.len(), fill(&two).len()), (2, 1));
        drop(held);
        assert_eq!(fill(&two).len(), 2);
    }

    #[test]
    fn chunks_are_not_counted_without_a_budget() {
        assert!(Quota::of(None).reserve(u64::MAX, 1000).is_some_and(|chunk| chunk.is_whole()));
    }

    #[test]
    fn a_crowd_that_lists_without_end_holds_a_quarter_and_a_little_each() {
        let budget = MemoryBudget::default();
        let crowd: Vec<_> = (0..56).map(|_| Quota::of(Some(&budget))).collect();
        for quota in &crowd {
            while quota.take_for_entries(4096) {}
        }
        let used = budget.entries.used_bytes();
        assert!(used <= ENTRY_MEMORY_BYTES / 4 + 56 * (LEAST_ENTRY_BYTES + 4096), "{used}");
        let healthy = Quota::of(Some(&budget));
        assert!(healthy.take_for_entries(4096), "a little there always is");
        healthy.moved();
        while healthy.take_for_entries(4096) {}
        assert!(*lock(&healthy.entries.held_bytes) >= ENTRY_MEMORY_BYTES / 4);
        drop((crowd, healthy));
        assert_eq!(budget.entries.used_bytes(), 0, "all is given back");
    }

    #[tokio::test]
    async fn a_transfer_waits_only_for_its_own_compressed_chunks() {
        let budget = MemoryBudget::default();
        let [one, two] = [(); 2].map(|()| Quota::of(Some(&budget)));
        one.moved();
        two.moved();
        let most = COMPRESSED_MEMORY_BYTES * 2 / 3;
        let first = one.compressed.wait(most).await.unwrap();
        assert!(two.compressed.wait(most).await.is_none(), "others leave not as much");
        let account = &one.compressed;
        let (second, ()) = tokio::join!(account.wait(most), async { drop(first) });
        assert!(second.is_some());
    }

    #[test]
    fn the_lists_of_one_peer_are_bounded_together_and_leave_some_to_others() {
        const LISTS: u64 = 64 << 20;
        let budget = MemoryBudget::default().with_list_bytes(LISTS);
        let peer = |number| PeerId::from_bytes([number; 32]);
        let syncs: Vec<_> = (0..6).map(|_| budget.of_peer(peer(1))).collect();
        let mut held: Vec<_> = syncs.iter().map(|sync| sync.theirs.reservation()).collect();
        for step in 0..1000 {
            let _ = held[step % syncs.len()].grow_by(1 << 20);
        }
        assert_eq!(budget.peers.theirs.used_bytes(), 42 << 20, "two thirds");
        let other = budget.of_peer(peer(2));
        assert!(other.theirs.is_shared() && other.theirs.reservation().grow_by(LISTS / 6));
        drop((held, syncs));
        assert!(!other.theirs.is_shared());
        assert_eq!(budget.peers.theirs.used_bytes(), 0, "all is given back");
        assert_eq!(budget.peers.held.lock().unwrap().len(), 2);
        drop(other);
        drop(budget.of_peer(peer(3)));
        assert_eq!(budget.peers.held.lock().unwrap().len(), 1, "nothing is kept of peers that are gone");
    }

    #[test]
    fn the_journal_of_a_peer_that_is_alone_finds_all_that_is_kept_of_one_and_a_crowd_each_a_little() {
        let budget = MemoryBudget::default();
        let peer = |number| budget.of_peer(PeerId::from_bytes([number; 32]));
        let alone = peer(0);
        let peer = |number| peer(number).journals;
        assert!(alone.journals.take(32 << 20, 0) && !alone.journals.take(1, 0));
        let crowd: Vec<_> = (1..=56).map(peer).collect();
        assert!(crowd.iter().all(|journals| journals.take(LEAST_JOURNAL_BYTES, 0)));
        assert!(!crowd[55].take(2 << 20, 0));
        alone.journals.give_back(32 << 20);
        assert!(crowd[55].take(2 << 20, 0));
    }

    #[test]
    fn every_peer_has_memory_for_a_short_list_and_one_that_is_alone_for_its_own_dataset() {
        const LISTS: u64 = 8 << 20;
        let budget = MemoryBudget::default().with_list_bytes(LISTS);
        let [one, two] = [1, 2].map(|number| budget.of_peer(PeerId::from_bytes([number; 32])));
        let (mut large, mut second) = (one.ours.reservation(), two.ours.reservation());
        assert!(large.grow_alone_by(100 * LISTS), "a dataset that is here is here");
        assert!(!second.grow_alone_by(LEAST_LIST_BYTES + 1));
        assert!(second.grow_alone_by(LEAST_LIST_BYTES));
        assert!(!second.grow_alone_by(1));
        drop(large);
        assert!(second.grow_alone_by(1));
    }

    proptest! {
        #[test]
        fn never_more_than_the_budget_is_given(
            steps in prop::collection::vec((0usize..8, 0u64..20 << 20, any::<bool>()), 0..200),
        ) {
            let budget = MemoryBudget::default();
            let quotas: Vec<_> = (0..8).map(|_| Quota::of(Some(&budget))).collect();
            let mut held = Vec::new();
            for (who, len_bytes, gives_back) in steps {
                if gives_back && !held.is_empty() {
                    held.remove(who % held.len());
                    quotas[who].moved();
                } else if let Some(chunk) = quotas[who].reserve(len_bytes, 1) {
                    prop_assert!(chunk.is_whole());
                    held.push(chunk);
                }
                prop_assert!(budget.chunks.used_bytes() <= CHUNK_MEMORY_BYTES);
            }
            drop(held);
            prop_assert_eq!(budget.chunks.used_bytes(), 0);
        }
    }
}
