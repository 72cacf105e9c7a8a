//! Tracks wanted, running and finished chunks of a receiver. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use shiplane_wire::{Span, limits};

use super::{budget::chunk_cost_bytes, error::ProtocolFault, packer::Packer};

/// Chunks by state, and which entries the provider must still keep.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Wanted chunks at a time, and how far their indices may spread.
    lanes: usize,
    packer: Packer,
    wanted: BTreeMap<u64, Wanted>,
    next_index: u64,
    /// Entries received so far.
    entries: u64,
    /// What the newest of them count as, which are still needed, and all of them together.
    costs: VecDeque<u64>,
    came_bytes: u64,
    /// How much of them the provider may send in all.
    admitted_bytes: u64,
    /// Entries of which bytes are still to come, and how many.
    open: BTreeMap<u64, u64>,
    /// Entries that are not planned yet.
    unplanned: BTreeSet<u64>,
    /// Entries that are wanted and have not got their names.
    unpublished: BTreeSet<u64>,
    released: u64,
    release_step: u64,
    /// What has been freed and the provider was not told of.
    unreleased_bytes: u64,
    /// Failed at the source: their spans are not wanted again.
    failed: BTreeSet<u64>,
}

/// What to do with a chunk's stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opens {
    /// Receive it into these spans.
    Next(Vec<Span>),
    /// An attempt at it has not ended here yet, though the provider may have heard of its end: wait for that.
    Again,
    /// It is stored, or void: a repetition that changes nothing.
    Stale,
}

/// A chunk that the provider has been asked for.
#[derive(Debug)]
struct Wanted {
    spans: Vec<Span>,
    attempts: u32,
    receiving: bool,
}

impl Wanted {
    fn files(&self) -> usize {
        // Those of one file stand together.
        self.spans.chunk_by(|one, other| one.entry == other.entry).count()
    }
}

impl Ledger {
    /// `releases_each`: the provider holds what entries contain until it learns that they are not needed any more.
    pub(super) fn new(lanes: usize, chunk_len_bytes: u64, releases_each: bool) -> Self {
        Self {
            lanes: lanes.max(1),
            packer: Packer::new(chunk_len_bytes),
            wanted: BTreeMap::new(),
            next_index: 0,
            entries: 0,
            costs: VecDeque::new(),
            came_bytes: 0,
            admitted_bytes: limits::FIRST_ENTRY_BYTES,
            open: BTreeMap::new(),
            unplanned: BTreeSet::new(),
            unpublished: BTreeSet::new(),
            released: 0,
            release_step: if releases_each { 1 } else { RELEASE_STEP },
            unreleased_bytes: 0,
            failed: BTreeSet::new(),
        }
    }

    /// From now on chunks are so long.
    pub(super) fn set_chunk_len(&mut self, chunk_len_bytes: u64) {
        self.packer.set_chunk_len(chunk_len_bytes);
    }

    /// An entry with this cost has arrived; returns its index.
    pub(super) fn entry_came(&mut self, cost_bytes: u64) -> Result<u64, ProtocolFault> {
        self.came_bytes += cost_bytes;
        if self.came_bytes > self.admitted_bytes {
            return Err(ProtocolFault::TooManyEntries);
        }
        self.costs.push_back(cost_bytes);
        let index = self.entries;
        self.entries += 1;
        self.unplanned.insert(index);
        Ok(index)
    }

    /// Admits entries of another `bytes` of cost; returns the sum.
    pub(super) fn admit(&mut self, bytes: u64) -> u64 {
        self.admitted_bytes += bytes;
        self.admitted_bytes
    }

    /// Whether the provider may send another entry, however long it is.
    pub(super) fn may_expect_entries(&self) -> bool {
        self.admitted_bytes - self.came_bytes >= limits::FIRST_ENTRY_BYTES
    }

    /// Forgets entries that are not needed any more; returns what they counted as.
    pub(super) fn free(&mut self) -> u64 {
        let kept = usize::try_from(self.entries - self.lowest_needed()).unwrap_or(usize::MAX);
        let count = self.costs.len().saturating_sub(kept);
        let freed_bytes = self.costs.drain(..count).sum();
        self.unreleased_bytes += freed_bytes;
        freed_bytes
    }

    /// How many entries have come.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// It is decided what is wanted of the entry, and [`want`](Self::want) knows it.
    pub(super) fn planned(&mut self, entry: u64) {
        self.unplanned.remove(&entry);
    }

    /// Wants these ranges of an entry of `size_bytes`.
    pub(super) fn want(&mut self, entry: u64, size_bytes: u64, missing: Vec<Range<u64>>) {
        let len_bytes: u64 = missing.iter().map(|range| range.end - range.start).sum();
        if len_bytes > 0 {
            *self.open.entry(entry).or_default() += len_bytes;
        }
        self.unpublished.insert(entry);
        self.packer.add(entry, size_bytes, missing);
    }

    /// The provider sends a chunk unasked, of spans that are wanted, or `None` if it is declined; returns its index.
    pub(super) fn offered(&mut self, spans: Option<Vec<Span>>) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        if let Some(spans) = spans {
            for span in &spans {
                *self.open.entry(span.entry).or_default() += span.len_bytes;
                self.unpublished.insert(span.entry);
            }
            self.wanted.insert(index, Wanted { spans, attempts: 0, receiving: false });
        }
        index
    }

    /// An entry has its name.
    pub(super) fn published(&mut self, entry: u64) {
        self.unpublished.remove(&entry);
    }

    /// Nothing will be wanted for a while: small files need not wait for others to share a chunk with.
    pub(super) fn flush(&mut self) {
        self.packer.flush();
    }

    /// How much memory the next chunk to ask for takes, while lanes are free.
    pub(super) fn next_cost_bytes(&mut self) -> Option<u64> {
        self.skip_given_up();
        let lowest = self.wanted.keys().next().copied().unwrap_or(self.next_index);
        let spread = self.next_index - lowest;
        if self.wanted.len() >= self.lanes || spread >= 2 * self.lanes as u64 {
            return None;
        }
        Some(chunk_cost_bytes(self.packer.peek()?))
    }

    /// Chunks that have been asked for and are not here yet.
    pub(super) fn under_way(&self) -> usize {
        self.wanted.len()
    }

    /// The next chunk to ask for, while lanes are free.
    pub(super) fn next_want(&mut self) -> Option<(u64, Vec<Span>)> {
        self.next_cost_bytes()?;
        let spans = self.packer.next()?;
        let index = self.next_index;
        self.next_index += 1;
        self.wanted.insert(index, Wanted { spans: spans.clone(), attempts: 0, receiving: false });
        Some((index, spans))
    }

    /// The provider opens the stream of a chunk.
    pub(super) fn chunk_opens(&mut self, index: u64) -> Result<Opens, ProtocolFault> {
        let Some(wanted) = self.wanted.get_mut(&index) else {
            let was_wanted = index < self.next_index;
            return if was_wanted { Ok(Opens::Stale) } else { Err(ProtocolFault::UnwantedChunk { index }) };
        };
        if wanted.receiving {
            return Ok(Opens::Again);
        }
        wanted.receiving = true;
        wanted.attempts += 1;
        Ok(Opens::Next(wanted.spans.clone()))
    }

    /// An attempt has failed; the provider may send the chunk again. Returns the attempts so far.
    pub(super) fn chunk_failed(&mut self, index: u64) -> u32 {
        let Some(wanted) = self.wanted.get_mut(&index) else { return 0 };
        wanted.receiving = false;
        wanted.attempts
    }

    /// The chunk is stored.
    pub(super) fn chunk_stored(&mut self, index: u64) {
        if let Some(wanted) = self.wanted.remove(&index) {
            self.close(&wanted.spans);
        }
    }

    /// The source failed for an entry. `false` if that was released before the provider could know: nothing is wanted of it.
    pub(super) fn entry_failed(&mut self, entry: u64) -> Result<bool, ProtocolFault> {
        if entry >= self.entries {
            return Err(ProtocolFault::UnknownEntry { entry });
        }
        let is_known = entry >= self.released;
        if is_known {
            self.give_up(entry);
        }
        Ok(is_known)
    }

    /// This side cannot write an entry: nothing more of it is wanted.
    pub(super) fn entry_left_out(&mut self, entry: u64) {
        if entry >= self.released && entry < self.entries {
            self.give_up(entry);
        }
    }

    /// Of an entry that is given up, only what was asked for may still come.
    fn give_up(&mut self, entry: u64) {
        self.failed.insert(entry);
        self.unpublished.remove(&entry);
        self.packer.forget_large(entry);
        if self.open.contains_key(&entry) {
            let spans = self.wanted.values().flat_map(|wanted| &wanted.spans);
            let asked_bytes = spans.filter(|span| span.entry == entry).map(|span| span.len_bytes).sum();
            match asked_bytes {
                0 => _ = self.open.remove(&entry),
                bytes => _ = self.open.insert(entry, bytes),
            }
        }
    }

    /// Takes out of the next chunk what was given up.
    fn skip_given_up(&mut self) {
        while !self.failed.is_empty()
            && let Some(next) = self.packer.peek()
            && next.iter().any(|span| self.failed.contains(&span.entry))
            && let Some(mut spans) = self.packer.next()
        {
            spans.retain(|span| !self.failed.contains(&span.entry));
            if !spans.is_empty() {
                self.packer.set_next(spans);
            }
        }
    }

    /// The chunk will not come (SPEC 4.9): what it shared with failed entries is queued again.
    pub(super) fn chunk_void(&mut self, index: u64) -> Result<(), ProtocolFault> {
        let wanted = self.wanted.remove(&index).ok_or(ProtocolFault::UnwantedChunk { index })?;
        let (dead, alive): (Vec<_>, Vec<_>) =
            wanted.spans.into_iter().partition(|span| self.failed.contains(&span.entry));
        if dead.is_empty() {
            // Without a failed entry the same chunk would be void for ever.
            return Err(ProtocolFault::VoidWithoutFailure { index });
        }
        self.close(&dead);
        if !alive.is_empty() {
            self.packer.put_back(alive);
        }
        Ok(())
    }

    /// The lowest entry that is still needed, if that has moved far enough to be worth a record.
    pub(super) fn release(&mut self) -> Option<u64> {
        let below = self.lowest_needed();
        if below < self.released + self.release_step && self.unreleased_bytes < RELEASE_STEP_BYTES {
            return None;
        }
        self.released = below;
        self.unreleased_bytes = 0;
        self.failed = self.failed.split_off(&below);
        Some(below)
    }

    /// Whether every entry is planned and every chunk stored.
    pub(super) fn is_settled(&self) -> bool {
        self.packer.is_empty() && self.wanted.is_empty() && self.unplanned.is_empty()
    }

    /// Whether nothing more will be wanted of the entries that have come.
    pub(super) fn all_planned(&self) -> bool {
        self.unplanned.is_empty()
    }

    /// The most files of any chunk that has not come.
    pub(super) fn most_files_wanted(&self) -> usize {
        self.wanted.values().map(Wanted::files).max().unwrap_or_default()
    }

    /// How many chunks have been asked for in all.
    pub(super) fn chunks(&self) -> u64 {
        self.next_index
    }

    fn lowest_needed(&self) -> u64 {
        let open = self.open.keys().next();
        let lowest = [open, self.unplanned.first(), self.unpublished.first()];
        lowest.into_iter().flatten().copied().min().unwrap_or(self.entries)
    }

    fn close(&mut self, spans: &[Span]) {
        for span in spans {
            if let Some(open_bytes) = self.open.get_mut(&span.entry) {
                *open_bytes = open_bytes.saturating_sub(span.len_bytes);
                if *open_bytes == 0 {
                    self.open.remove(&span.entry);
                }
            }
        }
    }
}

/// Releases are told in steps: a record for every entry would be as long as the manifest.
const RELEASE_STEP: u64 = 1024;

/// 16 KiB: where paths are long the provider must not keep many, and where memory is short it may have no more than
/// twice that.
const RELEASE_STEP_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const COST: u64 = 530;

    fn span(entry: u64) -> Span {
        Span { entry, offset_bytes: 0, len_bytes: 1 }
    }

    fn with_entries(lanes: usize, entries: u64) -> Ledger {
        let mut ledger = Ledger::new(lanes, 1, false);
        for _ in 0..entries {
            ledger.admit(COST);
            let entry = ledger.entry_came(COST).unwrap();
            ledger.planned(entry);
        }
        ledger
    }

    /// A chunk of its own for each.
    fn want(ledger: &mut Ledger, entries: Range<u64>) {
        entries.for_each(|entry| ledger.want(entry, 1, std::iter::once(0..1).collect()));
    }

    #[test]
    fn no_more_chunks_are_wanted_than_there_are_lanes() {
        let mut ledger = with_entries(2, 3);
        want(&mut ledger, 0..3);
        assert_eq!(ledger.next_want(), Some((0, vec![span(0)])));
        assert_eq!(ledger.next_want(), Some((1, vec![span(1)])));
        assert_eq!(ledger.next_want(), None);
        ledger.chunk_stored(1);
        assert_eq!(ledger.next_want(), Some((2, vec![span(2)])));
    }

    #[test]
    fn a_stuck_chunk_limits_how_far_wants_run_ahead() {
        let mut ledger = with_entries(2, 10);
        want(&mut ledger, 0..10);
        ledger.next_want().unwrap();
        let mut ahead = 0;
        while let Some((index, _)) = ledger.next_want() {
            ahead = index;
            ledger.chunk_stored(index);
        }
        assert_eq!(ahead, 3, "twice the lanes, the stuck one included");
    }

    #[test]
    fn a_chunk_is_received_once_at_a_time_and_only_if_wanted() {
        let mut ledger = with_entries(1, 1);
        want(&mut ledger, 0..1);
        ledger.next_want().unwrap();
        assert_eq!(ledger.chunk_opens(7), Err(ProtocolFault::UnwantedChunk { index: 7 }));
        assert_eq!(ledger.chunk_opens(0), Ok(Opens::Next(vec![span(0)])));
        assert_eq!(ledger.chunk_opens(0), Ok(Opens::Again));
        assert_eq!(ledger.chunk_failed(0), 1);
        assert_eq!(ledger.chunk_opens(0), Ok(Opens::Next(vec![span(0)])), "a failed attempt may be repeated");
        ledger.chunk_stored(0);
        assert_eq!(ledger.chunk_opens(0), Ok(Opens::Stale));
    }

    #[test]
    fn the_rest_of_a_void_pack_is_wanted_again() {
        let mut ledger = with_entries(4, 3);
        ledger.packer = Packer::new(10);
        want(&mut ledger, 0..3);
        ledger.flush();
        ledger.next_want().unwrap();
        ledger.entry_failed(1).unwrap();
        ledger.chunk_void(0).unwrap();
        assert_eq!(ledger.next_want(), Some((1, vec![span(0), span(2)])));
        assert!(!ledger.is_settled());
        ledger.chunk_stored(1);
        assert!(ledger.is_settled());
    }

    #[test]
    fn a_void_chunk_without_a_failed_entry_is_the_peers_fault() {
        let mut ledger = with_entries(4, 1);
        want(&mut ledger, 0..1);
        ledger.next_want().unwrap();
        assert_eq!(ledger.chunk_void(0), Err(ProtocolFault::VoidWithoutFailure { index: 0 }));
    }

    #[test]
    fn entries_are_released_once_nothing_below_is_needed() {
        let mut ledger = with_entries(4, 5000);
        want(&mut ledger, 3000..3001);
        assert_eq!(ledger.release(), Some(3000));
        assert_eq!(ledger.release(), None, "told already");
        ledger.next_want().unwrap();
        ledger.chunk_stored(0);
        ledger.published(3000);
        assert_eq!(ledger.release(), Some(5000));
        assert_eq!(ledger.entry_failed(10), Ok(false), "the provider said so before it knew");
        assert_eq!(ledger.entry_failed(5000), Err(ProtocolFault::UnknownEntry { entry: 5000 }));
    }

    #[test]
    fn a_provider_that_sends_more_entries_than_were_admitted_is_stopped() {
        let mut ledger = Ledger::new(1, 1, false);
        let mut sent = || (0..200_000).take_while(|_| ledger.entry_came(4608).is_ok()).count() as u64;
        assert_eq!(sent(), limits::FIRST_ENTRY_BYTES / 4608);
        let mut ledger = Ledger::new(1, 1, false);
        ledger.admit(limits::FIRST_ENTRY_BYTES);
        assert!(ledger.may_expect_entries());
        let mut sent = || (0..200_000).take_while(|_| ledger.entry_came(4608).is_ok()).count() as u64;
        assert_eq!(sent(), 2 * limits::FIRST_ENTRY_BYTES / 4608);
        assert!(!Ledger { came_bytes: 61 << 10, ..Ledger::new(1, 1, false) }.may_expect_entries());
    }

    #[test]
    fn parts_are_released_one_by_one() {
        let mut ledger = Ledger::new(4, 1, true);
        for entry in 0..2 {
            assert_eq!(ledger.entry_came(COST), Ok(entry));
            ledger.planned(entry);
            want(&mut ledger, entry..entry + 1);
        }
        assert_eq!(ledger.release(), None);
        (0..2).for_each(|_| _ = ledger.next_want().unwrap());
        for entry in 0..2 {
            ledger.chunk_stored(entry);
            ledger.published(entry);
            assert_eq!(ledger.release(), Some(entry + 1));
        }
        assert_eq!(ledger.release(), None);
    }

    #[test]
    fn memory_of_entries_is_freed_in_order_once_they_have_their_names() {
        let mut ledger = with_entries(4, 3);
        want(&mut ledger, 1..2);
        assert_eq!(ledger.free(), COST);
        ledger.next_want().unwrap();
        ledger.chunk_stored(0);
        assert_eq!(ledger.free(), 0, "stored, but not published");
        ledger.published(1);
        assert_eq!((ledger.free(), ledger.free()), (2 * COST, 0));
        assert_eq!(ledger.release(), None, "too little to tell");
    }

    #[test]
    fn where_paths_are_long_few_entries_are_released_together() {
        let mut ledger = with_entries(4, RELEASE_STEP_BYTES / COST);
        ledger.free();
        assert_eq!(ledger.release(), None);
        ledger.admit(COST);
        let last = ledger.entry_came(COST).unwrap();
        ledger.planned(last);
        ledger.free();
        assert_eq!(ledger.release(), Some(last + 1));
    }
}
