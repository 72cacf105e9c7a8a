//! Tracks requested block signatures (SPEC 4.13). Pure.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
};

use shiplane_files::internals::{Block, bounds_of};
use shiplane_wire::{BlockSignatures, Entry, ReceiverRecord, Span};

use super::{
    budget::{Account, Reservation},
    error::{ProtocolFault, TransferError},
};

/// Files of which an old version is here, and the lists that are on their way for them.
///
/// The lists are paid for from the transfer's quota as they grow. A file whose list finds no memory any more is
/// fetched whole; its list is still checked, but not kept.
#[derive(Debug)]
pub(super) struct Deltas {
    memory: Account,
    /// Files under way, those at the planner included.
    begun: HashSet<u64>,
    /// Files that wait for one of these to be settled.
    waiting: VecDeque<(u64, Entry, SignatureRequest)>,
    lists: HashMap<u64, List>,
    unsent: VecDeque<Pending>,
    /// Requests that are not answered whole; the answers come in this order.
    pending: VecDeque<Pending>,
}

/// What [`Plan::Delta`](shiplane_files::internals::Plan::Delta) asks for.
#[derive(Debug)]
pub(super) struct SignatureRequest {
    pub(super) ranges: Vec<Range<u64>>,
    pub(super) average_bytes: u32,
}

#[derive(Debug)]
struct List {
    entry: Entry,
    blocks: Vec<Block>,
    /// `None` once there is no memory for the list.
    memory: Option<Reservation>,
    /// Requests that are not answered whole.
    open: usize,
}

#[derive(Debug)]
struct Pending {
    span: Span,
    average_bytes: u32,
    /// Where the next block starts.
    next_bytes: u64,
}

/// A part of an answer, checked.
#[derive(Debug)]
pub(super) struct SignaturePart {
    /// Its blocks; none if the list is not kept.
    pub(super) part: Vec<Block>,
    /// How much of the file it is about.
    pub(super) len_bytes: u64,
    /// All of the file's, once that is there.
    pub(super) complete: Option<SignatureComplete>,
}

/// All requested signatures of one file; no blocks if the list was not kept.
#[derive(Debug)]
pub(super) struct SignatureComplete {
    pub(super) index: u64,
    pub(super) entry: Entry,
    pub(super) blocks: Vec<Block>,
    /// Memory of the blocks.
    _memory: Option<Reservation>,
}

impl Deltas {
    /// No files yet. Lists are paid for from `memory`.
    pub(super) fn new(memory: Account) -> Self {
        Self {
            memory,
            begun: HashSet::new(),
            waiting: VecDeque::new(),
            lists: HashMap::new(),
            unsent: VecDeque::new(),
            pending: VecDeque::new(),
        }
    }

    /// Queues a request for the block signatures of an entry.
    pub(super) fn request(&mut self, index: u64, entry: Entry, request: SignatureRequest) {
        if self.begun.contains(&index) {
            let memory = self.memory_for(&request).unwrap_or_else(|| self.memory.reservation());
            self.open(index, entry, request, memory);
        } else {
            self.waiting.push_back((index, entry, request));
            self.begin();
        }
    }

    /// Nothing more is needed for an entry: others begin in its place.
    pub(super) fn settled(&mut self, index: u64) {
        if self.begun.remove(&index) {
            self.begin();
        }
    }

    /// Begins the files whose turn it is. One may always begin; a second one, if there is memory for its list.
    fn begin(&mut self) {
        while self.begun.len() < MAX_BEGUN
            && let Some((.., request)) = self.waiting.front()
            && let memory = self.memory_for(request)
            && (memory.is_some() || self.begun.is_empty())
            && let Some((index, entry, request)) = self.waiting.pop_front()
        {
            self.begun.insert(index);
            self.open(index, entry, request, memory.unwrap_or_else(|| self.memory.reservation()));
        }
    }

    /// Memory for as long a list as is to be expected.
    fn memory_for(&self, request: &SignatureRequest) -> Option<Reservation> {
        let requested_bytes: u64 = request.ranges.iter().map(|range| range.end - range.start).sum();
        let blocks = requested_bytes / u64::from(request.average_bytes.max(1)) + request.ranges.len() as u64;
        let mut memory = self.memory.reservation();
        memory.grow_to(blocks * BLOCK_COST_BYTES).then_some(memory)
    }

    /// The next request that may be sent.
    pub(super) fn next_want(&mut self) -> Option<ReceiverRecord> {
        if self.pending.len() >= MAX_SIGNATURE_REQUESTS / 2 {
            return None;
        }
        let pending = self.unsent.pop_front()?;
        let want =
            ReceiverRecord::WantSignatures { span: pending.span, average_bytes: pending.average_bytes };
        self.pending.push_back(pending);
        Some(want)
    }

    /// Takes the next part of the pending answer.
    pub(super) fn receive(&mut self, part: BlockSignatures) -> Result<SignaturePart, TransferError> {
        let index = part.entry;
        let wrong = ProtocolFault::WrongSignatures { entry: index };
        let pending = self.pending.front_mut().filter(|pending| pending.span.entry == index);
        let (Some(pending), Some(list)) = (pending, self.lists.get_mut(&index)) else {
            return Err(wrong.into());
        };
        if pending.next_bytes != part.offset_bytes {
            return Err(wrong.into());
        }
        let end_bytes = pending.span.offset_bytes + pending.span.len_bytes;
        let (min, max) = bounds_of(pending.average_bytes);
        list.make_room_for(part.signatures.len());
        let from = list.blocks.len();
        for signature in part.signatures {
            let block = Block { offset_bytes: pending.next_bytes, signature };
            let len_bytes = u64::from(signature.len_bytes);
            let is_last = block.end_bytes() == end_bytes;
            if len_bytes == 0
                || len_bytes > max
                || (len_bytes < min && !is_last)
                || block.end_bytes() > end_bytes
            {
                return Err(wrong.into());
            }
            pending.next_bytes = block.end_bytes();
            if list.memory.is_some() {
                list.blocks.push(block);
            }
        }
        let len_bytes = pending.next_bytes - part.offset_bytes;
        let part = list.blocks[from..].to_vec();
        let mut complete = None;
        if pending.next_bytes == end_bytes {
            self.pending.pop_front();
            list.open -= 1;
            if list.open == 0
                && let Some(List { entry, blocks, memory, .. }) = self.lists.remove(&index)
            {
                if has_two_contents(&blocks) {
                    return Err(ProtocolFault::TwoContents { entry: index }.into());
                }
                complete = Some(SignatureComplete { index, entry, blocks, _memory: memory });
            }
        }
        Ok(SignaturePart { part, len_bytes, complete })
    }

    /// The provider cannot send an entry. Returns it if it was waiting for signatures: then only the delta has it.
    pub(super) fn failed(&mut self, index: u64) -> Option<Entry> {
        if let Some(at) = self.waiting.iter().position(|(waiting, ..)| *waiting == index) {
            return self.waiting.remove(at).map(|(_, entry, _)| entry);
        }
        let list = self.lists.remove(&index)?;
        // SPEC 4.14: no request for it will be answered.
        self.pending.retain(|pending| pending.span.entry != index);
        self.unsent.retain(|pending| pending.span.entry != index);
        Some(list.entry)
    }

    /// Whether the provider owes us an answer.
    pub(super) fn awaits_provider(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How much the provider reads to answer the pending requests.
    pub(super) fn requested_bytes(&self) -> u64 {
        self.pending.iter().map(|pending| pending.span.len_bytes).fold(0, u64::saturating_add)
    }

    fn open(&mut self, index: u64, entry: Entry, request: SignatureRequest, memory: Reservation) {
        let SignatureRequest { ranges, average_bytes } = request;
        let list = List { entry, blocks: Vec::new(), open: ranges.len(), memory: Some(memory) };
        self.lists.insert(index, list);
        self.unsent.extend(ranges.into_iter().map(|range| Pending {
            span: Span { entry: index, offset_bytes: range.start, len_bytes: range.end - range.start },
            average_bytes,
            next_bytes: range.start,
        }));
    }
}

impl List {
    /// Pays for more blocks, or drops those that are here.
    fn make_room_for(&mut self, more: usize) {
        let cost_bytes = (self.blocks.len() + more) as u64 * BLOCK_COST_BYTES;
        if self.memory.as_mut().is_some_and(|memory| !memory.grow_to(cost_bytes)) {
            self.memory = None;
            self.blocks = Vec::new();
        }
    }
}

/// Whether one digest stands for pieces of two lengths.
fn has_two_contents(blocks: &[Block]) -> bool {
    let mut signatures: Vec<_> = blocks.iter().map(|block| &block.signature).collect();
    signatures.sort_unstable_by_key(|signature| signature.digest);
    signatures.windows(2).any(|two| two[0].digest == two[1].digest && two[0].len_bytes != two[1].len_bytes)
}

/// What a block counts as: it is held here and, until it has been followed, at the planner; and a vector that grows has
/// room for as much again.
const BLOCK_COST_BYTES: u64 = 3 * size_of::<Block>() as u64;

/// Two: one is read while what the other has in common is copied.
const MAX_BEGUN: usize = 2;

/// Requests that may be unanswered (SPEC 4.13); the receiver keeps to half of it.
pub(super) const MAX_SIGNATURE_REQUESTS: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shiplane_wire::{BlockSignature, Code, Digest, EntryKind, Holes, Mtime, RelPath, Version};

    use super::super::budget::{MemoryBudget, Quota, SIGNATURE_MEMORY_BYTES};
    use super::*;

    fn entry() -> Entry {
        Entry {
            kind: EntryKind::File,
            mode: 0o644,
            size_bytes: 1 << 30,
            mtime: Mtime { secs: 0, nanos: 0 },
            version: Version::from_bytes([0; 16]),
            path: RelPath::parse(b"f").unwrap(),
            target: None,
            first: None,
            holes: Holes::default(),
            attributes: None,
        }
    }

    /// Of a transfer with a memory budget of its own.
    fn alone() -> Deltas {
        Deltas::new(Quota::of(None).signatures.clone())
    }

    fn signature(seed: u8, len_bytes: u32) -> BlockSignature {
        BlockSignature { len_bytes, digest: Digest::blake3(&[seed]) }
    }

    fn part(entry: u64, offset_bytes: u64, lens: &[u32]) -> BlockSignatures {
        let signatures = lens.iter().enumerate();
        let signatures =
            signatures.map(|(i, &len)| signature((offset_bytes as usize + i) as u8, len)).collect();
        BlockSignatures { entry, offset_bytes, signatures }
    }

    /// One file whose ranges have all been requested, with blocks of 1 KiB on average.
    fn deltas_for(len_bytes: u64) -> Deltas {
        let whole = 0..len_bytes;
        requested(&[whole])
    }

    fn requested(ranges: &[Range<u64>]) -> Deltas {
        let mut deltas = alone();
        deltas.request(7, entry(), SignatureRequest { ranges: ranges.to_vec(), average_bytes: 1 << 10 });
        for _ in ranges {
            deltas.next_want().unwrap();
        }
        assert_eq!(deltas.next_want(), None);
        deltas
    }

    #[test]
    fn a_list_comes_in_parts_and_range_after_range() {
        let mut deltas = requested(&[0..1500, 4000..4100]);
        let ends = |blocks: &[Block]| blocks.iter().map(Block::end_bytes).collect::<Vec<_>>();
        let received = deltas.receive(part(7, 0, &[700])).unwrap();
        assert_eq!(
            (ends(&received.part), received.len_bytes, received.complete.is_some()),
            (vec![700], 700, false)
        );
        let received = deltas.receive(part(7, 700, &[400, 400])).unwrap();
        assert_eq!(
            (ends(&received.part), received.len_bytes, received.complete.is_some()),
            (vec![1100, 1500], 800, false)
        );
        assert!(deltas.awaits_provider());
        let received = deltas.receive(part(7, 4000, &[100])).unwrap();
        assert_eq!(ends(&received.part), [4100]);
        let complete = received.complete.unwrap();
        assert_eq!((complete.index, ends(&complete.blocks)), (7, vec![700, 1100, 1500, 4100]));
        assert!(!deltas.awaits_provider());
    }

    #[test]
    fn signatures_that_do_not_cover_the_request_are_a_fault() {
        let wrong = [
            part(7, 0, &[700, 801]),  // longer than the range
            part(7, 0, &[255, 1000]), // shorter than any but the last may be
            part(7, 0, &[0]),         // nothing
            part(7, 1, &[700]),       // a gap
            part(7, 0, &[4097]),      // longer than any may be
            part(8, 0, &[700]),       // another file's
            part(7, 4000, &[100]),    // the next before this one is complete
        ];
        for part in wrong {
            let mut deltas = requested(&[0..1500, 4000..9000]);
            let entry = part.entry;
            let error = deltas.receive(part).unwrap_err();
            assert!(
                matches!(error, TransferError::Protocol(ProtocolFault::WrongSignatures { entry: e }) if e == entry)
            );
        }
        // One after the last.
        let mut deltas = deltas_for(1500);
        deltas.receive(part(7, 0, &[700, 800])).unwrap().complete.unwrap();
        assert!(deltas.receive(part(7, 1500, &[300])).is_err());
    }

    #[test]
    fn one_digest_of_two_contents_is_an_integrity_error() {
        let mut deltas = deltas_for(1500);
        let signatures = vec![signature(1, 700), signature(1, 800)];
        let error = deltas.receive(BlockSignatures { entry: 7, offset_bytes: 0, signatures }).unwrap_err();
        assert!(matches!(error, TransferError::Protocol(ProtocolFault::TwoContents { entry: 7 })));
        assert_eq!(error.code(), Code::Integrity);
    }

    #[test]
    fn a_failed_file_is_forgotten_with_its_pending_requests() {
        let mut deltas = requested(&[0..1500, 4000..9000]);
        assert_eq!(deltas.failed(7), Some(entry()));
        assert!(!deltas.awaits_provider());
        assert_eq!(deltas.failed(7), None);
    }

    #[test]
    fn two_files_are_under_way_at_a_time() {
        let some = 0..10;
        let request = || SignatureRequest { ranges: vec![some.clone()], average_bytes: 1 << 10 };
        let mut deltas = alone();
        (0..5).for_each(|index| deltas.request(index, entry(), request()));
        fn requested(deltas: &mut Deltas) -> Vec<u64> {
            std::iter::from_fn(|| deltas.next_want())
                .map(|want| match want {
                    ReceiverRecord::WantSignatures { span, .. } => span.entry,
                    other => panic!("{other:?}"),
                })
                .collect()
        }
        assert_eq!(requested(&mut deltas), [0, 1]);
        assert_eq!(deltas.failed(2), Some(entry()), "one that waits");
        deltas.settled(0);
        assert_eq!(requested(&mut deltas), [3]);
        deltas.settled(0);
        assert_eq!(requested(&mut deltas), [0; 0], "it was not under way any more");
        deltas.settled(1);
        assert_eq!(requested(&mut deltas), [4]);
        deltas.settled(3);
        assert_eq!(requested(&mut deltas), [0; 0], "nobody waits");
    }

    /// The shortest blocks that the wire lets through, up to the end.
    fn shortest_blocks(deltas: &mut Deltas, index: u64, len_bytes: u64) -> SignatureComplete {
        let mut at = 0;
        loop {
            let lens = vec![256; 900.min(((len_bytes - at) / 256) as usize)];
            let signatures = lens.iter().enumerate().map(|(i, &len_bytes)| BlockSignature {
                len_bytes,
                digest: Digest::blake3(&(at + i as u64).to_le_bytes()),
            });
            let signatures = signatures.collect();
            let received =
                deltas.receive(BlockSignatures { entry: index, offset_bytes: at, signatures }).unwrap();
            at += lens.len() as u64 * 256;
            if let Some(complete) = received.complete {
                return complete;
            }
        }
    }

    #[test]
    fn a_list_that_finds_no_memory_is_checked_but_not_kept() {
        let len_bytes = 2 * SIGNATURE_MEMORY_BYTES / BLOCK_COST_BYTES * 256;
        let whole = 0..len_bytes;
        let mut deltas = deltas_for(len_bytes);
        let complete = shortest_blocks(&mut deltas, 7, len_bytes);
        assert_eq!((complete.index, complete.blocks), (7, Vec::new()));
        deltas.settled(7);
        // It has given back what it had.
        let half = len_bytes / 4;
        let quarter = 0..half;
        deltas.request(8, entry(), SignatureRequest { ranges: vec![quarter], average_bytes: 1 << 10 });
        deltas.next_want().unwrap();
        let complete = shortest_blocks(&mut deltas, 8, half);
        assert_eq!(complete.blocks.len() as u64, half / 256);
        drop(complete);
        deltas.settled(8);
        // What is wrong is a fault all the same.
        deltas.request(9, entry(), SignatureRequest { ranges: vec![whole], average_bytes: 1 << 10 });
        deltas.next_want().unwrap();
        assert!(deltas.receive(part(9, 1, &[700])).is_err());
    }

    #[test]
    fn a_second_list_waits_for_memory_and_a_first_one_does_not() {
        let budget = MemoryBudget::default();
        let quota = Quota::of(Some(&budget));
        let mut deltas = Deltas::new(quota.signatures.clone());
        // More than the quarter that a transfer has before it has moved anything.
        let len_bytes = SIGNATURE_MEMORY_BYTES / BLOCK_COST_BYTES * 1024;
        let request = |len_bytes: u64| {
            let whole = 0..len_bytes;
            SignatureRequest { ranges: vec![whole], average_bytes: 1 << 10 }
        };
        deltas.request(0, entry(), request(len_bytes));
        deltas.request(1, entry(), request(len_bytes));
        let requested = |deltas: &mut Deltas| std::iter::from_fn(|| deltas.next_want()).count();
        assert_eq!(requested(&mut deltas), 1);
        quota.moved();
        deltas.settled(0);
        assert_eq!(requested(&mut deltas), 1);
        deltas.request(2, entry(), request(1 << 20));
        assert_eq!(requested(&mut deltas), 1, "this one is short");
    }

    #[test]
    fn no_more_requests_are_sent_than_the_provider_takes() {
        let mut deltas = alone();
        let ranges = (0..3000).map(|i| i * 10..i * 10 + 5).collect();
        deltas.request(0, entry(), SignatureRequest { ranges, average_bytes: 1 << 10 });
        let sent = std::iter::from_fn(|| deltas.next_want()).count();
        assert_eq!(sent, MAX_SIGNATURE_REQUESTS / 2);
        deltas.receive(part(0, 0, &[5])).unwrap();
        assert!(deltas.next_want().is_some() && deltas.next_want().is_none());
    }

    proptest! {
        /// However a right list is split into records, it is complete exactly at its end.
        #[test]
        fn any_split_gives_the_same_list(
            lens in prop::collection::vec(256u32..4096, 1..60),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let total = lens.iter().copied().map(u64::from).sum::<u64>();
            let mut deltas = deltas_for(total);
            let mut ends: Vec<_> = at.iter().map(|at| at.index(lens.len()) + 1).collect();
            ends.extend([lens.len()]);
            ends.sort_unstable();
            ends.dedup();
            let (mut from, mut offset_bytes, mut complete) = (0, 0, None::<SignatureComplete>);
            for end in ends {
                prop_assert!(complete.is_none());
                let signatures = lens[from..end].iter().enumerate().map(|(i, &len_bytes)| {
                    BlockSignature { len_bytes, digest: Digest::blake3(&((from + i) as u64).to_le_bytes()) }
                });
                complete = deltas.receive(BlockSignatures { entry: 7, offset_bytes, signatures: signatures.collect() }).unwrap().complete;
                offset_bytes += lens[from..end].iter().copied().map(u64::from).sum::<u64>();
                from = end;
            }
            let complete = complete.unwrap();
            prop_assert!(complete.blocks.iter().map(|block| block.signature.len_bytes).eq(lens));
        }
    }
}
