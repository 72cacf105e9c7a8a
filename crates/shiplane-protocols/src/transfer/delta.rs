//! Tracks requested block signatures (SPEC 4.13). Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use shiplane_files::internals::{PlacedCut, bounds_of};
use shiplane_wire::{Cuts, Entry, ReceiverRecord, Span};

use super::budget::{Account, Reservation};
use super::error::{ProtocolFault, TransferError};

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
    unsent: VecDeque<Due>,
    /// Requests that are not answered whole; the answers come in this order.
    due: VecDeque<Due>,
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
    cuts: Vec<PlacedCut>,
    /// `None` once there is no memory for the list.
    memory: Option<Reservation>,
    /// Requests that are not answered whole.
    open: usize,
}

#[derive(Debug)]
struct Due {
    span: Span,
    average_bytes: u32,
    /// Where the next cut starts.
    next_bytes: u64,
}

/// A part of an answer, checked.
#[derive(Debug)]
pub(super) struct SignaturePart {
    /// The cuts in it; none if the list is not kept.
    pub(super) part: Vec<PlacedCut>,
    /// How much of the file it is about.
    pub(super) len_bytes: u64,
    /// All of the file's, once that is there.
    pub(super) complete: Option<SignatureComplete>,
}

/// All that was asked for of one file; no cuts if the list was not kept.
#[derive(Debug)]
pub(super) struct SignatureComplete {
    pub(super) index: u64,
    pub(super) entry: Entry,
    pub(super) cuts: Vec<PlacedCut>,
    /// Of the cuts, given back when they are done with.
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
            due: VecDeque::new(),
        }
    }

    /// Cuts of an entry are needed. They are asked for once its turn has come.
    pub(super) fn ask(&mut self, index: u64, entry: Entry, ask: SignatureRequest) {
        if self.begun.contains(&index) {
            let memory = self.memory_for(&ask).unwrap_or_else(|| self.memory.reservation());
            self.open(index, entry, ask, memory);
        } else {
            self.waiting.push_back((index, entry, ask));
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
            && let Some((.., ask)) = self.waiting.front()
            && let memory = self.memory_for(ask)
            && (memory.is_some() || self.begun.is_empty())
            && let Some((index, entry, ask)) = self.waiting.pop_front()
        {
            self.begun.insert(index);
            self.open(index, entry, ask, memory.unwrap_or_else(|| self.memory.reservation()));
        }
    }

    /// Memory for as long a list as is to be expected.
    fn memory_for(&self, ask: &SignatureRequest) -> Option<Reservation> {
        let asked_bytes: u64 = ask.ranges.iter().map(|range| range.end - range.start).sum();
        let cuts = asked_bytes / u64::from(ask.average_bytes.max(1)) + ask.ranges.len() as u64;
        let mut memory = self.memory.reservation();
        memory.grow_to(cuts * CUT_COST_BYTES).then_some(memory)
    }

    /// The next request that may be sent.
    pub(super) fn next_want(&mut self) -> Option<ReceiverRecord> {
        if self.due.len() >= MAX_CUTTINGS_UNDER_WAY / 2 {
            return None;
        }
        let due = self.unsent.pop_front()?;
        let want = ReceiverRecord::WantCuts { span: due.span, average_bytes: due.average_bytes };
        self.due.push_back(due);
        Some(want)
    }

    /// Takes a part of the answer that is due.
    pub(super) fn came(&mut self, part: Cuts) -> Result<SignaturePart, TransferError> {
        let index = part.entry;
        let wrong = ProtocolFault::WrongCuts { entry: index };
        let due = self.due.front_mut().filter(|due| due.span.entry == index);
        let (Some(due), Some(list)) = (due, self.lists.get_mut(&index)) else {
            return Err(wrong.into());
        };
        if due.next_bytes != part.offset_bytes {
            return Err(wrong.into());
        }
        let end_bytes = due.span.offset_bytes + due.span.len_bytes;
        let (min, max) = bounds_of(due.average_bytes);
        list.make_room_for(part.cuts.len());
        let from = list.cuts.len();
        for cut in part.cuts {
            let piece = PlacedCut { offset_bytes: due.next_bytes, cut };
            let len_bytes = u64::from(cut.len_bytes);
            let is_last = piece.end_bytes() == end_bytes;
            if len_bytes == 0
                || len_bytes > max
                || (len_bytes < min && !is_last)
                || piece.end_bytes() > end_bytes
            {
                return Err(wrong.into());
            }
            due.next_bytes = piece.end_bytes();
            if list.memory.is_some() {
                list.cuts.push(piece);
            }
        }
        let len_bytes = due.next_bytes - part.offset_bytes;
        let part = list.cuts[from..].to_vec();
        let mut complete = None;
        if due.next_bytes == end_bytes {
            self.due.pop_front();
            list.open -= 1;
            if list.open == 0
                && let Some(List { entry, cuts, memory, .. }) = self.lists.remove(&index)
            {
                if has_two_contents(&cuts) {
                    return Err(ProtocolFault::TwoContents { entry: index }.into());
                }
                complete = Some(SignatureComplete { index, entry, cuts, _memory: memory });
            }
        }
        Ok(SignaturePart { part, len_bytes, complete })
    }

    /// The provider cannot send an entry. Returns it if it was waiting for cuts: then nobody else has it.
    pub(super) fn failed(&mut self, index: u64) -> Option<Entry> {
        if let Some(at) = self.waiting.iter().position(|(waiting, ..)| *waiting == index) {
            return self.waiting.remove(at).map(|(_, entry, _)| entry);
        }
        let list = self.lists.remove(&index)?;
        // SPEC 4.14: no request for it will be answered.
        self.due.retain(|due| due.span.entry != index);
        self.unsent.retain(|due| due.span.entry != index);
        Some(list.entry)
    }

    /// Whether the provider owes us an answer.
    pub(super) fn awaits_provider(&self) -> bool {
        !self.due.is_empty()
    }

    /// How much the provider reads to answer what it has been asked.
    pub(super) fn asked_bytes(&self) -> u64 {
        self.due.iter().map(|due| due.span.len_bytes).fold(0, u64::saturating_add)
    }

    fn open(&mut self, index: u64, entry: Entry, ask: SignatureRequest, memory: Reservation) {
        let SignatureRequest { ranges, average_bytes } = ask;
        let list = List { entry, cuts: Vec::new(), open: ranges.len(), memory: Some(memory) };
        self.lists.insert(index, list);
        self.unsent.extend(ranges.into_iter().map(|range| Due {
            span: Span { entry: index, offset_bytes: range.start, len_bytes: range.end - range.start },
            average_bytes,
            next_bytes: range.start,
        }));
    }
}

impl List {
    /// Pays for more cuts, or lets go of those that are here.
    fn make_room_for(&mut self, more: usize) {
        let cost_bytes = (self.cuts.len() + more) as u64 * CUT_COST_BYTES;
        if self.memory.as_mut().is_some_and(|memory| !memory.grow_to(cost_bytes)) {
            self.memory = None;
            self.cuts = Vec::new();
        }
    }
}

/// Whether one digest stands for pieces of two lengths.
fn has_two_contents(cuts: &[PlacedCut]) -> bool {
    let mut cuts: Vec<_> = cuts.iter().map(|piece| &piece.cut).collect();
    cuts.sort_unstable_by_key(|cut| cut.digest);
    cuts.windows(2).any(|two| two[0].digest == two[1].digest && two[0].len_bytes != two[1].len_bytes)
}

/// What a cut counts as: it is held here and, until it has been followed, at the planner; and a vector that grows has
/// room for as much again.
const CUT_COST_BYTES: u64 = 3 * size_of::<PlacedCut>() as u64;

/// Two: one is read while what the other has in common is copied.
const MAX_BEGUN: usize = 2;

/// Requests that may be unanswered (SPEC 4.13); the receiver keeps to half of it.
pub(super) const MAX_CUTTINGS_UNDER_WAY: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shiplane_wire::{Code, Cut, Digest, EntryKind, Mtime, RelPath, Version};

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
        }
    }

    /// Of a transfer with a memory budget of its own.
    fn alone() -> Deltas {
        Deltas::new(Quota::of(None).signatures())
    }

    fn cut(seed: u8, len_bytes: u32) -> Cut {
        Cut { len_bytes, digest: Digest::blake3(&[seed]) }
    }

    fn part(entry: u64, offset_bytes: u64, lens: &[u32]) -> Cuts {
        let cuts = lens.iter().enumerate();
        let cuts = cuts.map(|(i, &len)| cut((offset_bytes as usize + i) as u8, len)).collect();
        Cuts { entry, offset_bytes, cuts }
    }

    /// One file whose ranges have all been asked for, cut at 1 KiB on average.
    fn asked_for(len_bytes: u64) -> Deltas {
        let whole = 0..len_bytes;
        asked(&[whole])
    }

    fn asked(ranges: &[Range<u64>]) -> Deltas {
        let mut deltas = alone();
        deltas.ask(7, entry(), SignatureRequest { ranges: ranges.to_vec(), average_bytes: 1 << 10 });
        for _ in ranges {
            deltas.next_want().unwrap();
        }
        assert_eq!(deltas.next_want(), None);
        deltas
    }

    #[test]
    fn a_list_comes_in_parts_and_range_after_range() {
        let mut deltas = asked(&[0..1500, 4000..4100]);
        let ends = |cuts: &[PlacedCut]| cuts.iter().map(PlacedCut::end_bytes).collect::<Vec<_>>();
        let came = deltas.came(part(7, 0, &[700])).unwrap();
        assert_eq!((ends(&came.part), came.len_bytes, came.complete.is_some()), (vec![700], 700, false));
        let came = deltas.came(part(7, 700, &[400, 400])).unwrap();
        assert_eq!(
            (ends(&came.part), came.len_bytes, came.complete.is_some()),
            (vec![1100, 1500], 800, false)
        );
        assert!(deltas.awaits_provider());
        let came = deltas.came(part(7, 4000, &[100])).unwrap();
        assert_eq!(ends(&came.part), [4100]);
        let complete = came.complete.unwrap();
        assert_eq!((complete.index, ends(&complete.cuts)), (7, vec![700, 1100, 1500, 4100]));
        assert!(!deltas.awaits_provider());
    }

    #[test]
    fn a_list_that_does_not_cover_what_was_asked_for_is_a_fault() {
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
            let mut deltas = asked(&[0..1500, 4000..9000]);
            let entry = part.entry;
            let error = deltas.came(part).unwrap_err();
            assert!(
                matches!(error, TransferError::Protocol(ProtocolFault::WrongCuts { entry: e }) if e == entry)
            );
        }
        // One after the last.
        let mut deltas = asked_for(1500);
        deltas.came(part(7, 0, &[700, 800])).unwrap().complete.unwrap();
        assert!(deltas.came(part(7, 1500, &[300])).is_err());
    }

    #[test]
    fn one_digest_of_two_contents_is_an_integrity_error() {
        let mut deltas = asked_for(1500);
        let cuts = vec![cut(1, 700), cut(1, 800)];
        let error = deltas.came(Cuts { entry: 7, offset_bytes: 0, cuts }).unwrap_err();
        assert!(matches!(error, TransferError::Protocol(ProtocolFault::TwoContents { entry: 7 })));
        assert_eq!(error.code(), Code::Integrity);
    }

    #[test]
    fn a_failed_file_is_forgotten_with_what_was_due_for_it() {
        let mut deltas = asked(&[0..1500, 4000..9000]);
        assert_eq!(deltas.failed(7), Some(entry()));
        assert!(!deltas.awaits_provider());
        assert_eq!(deltas.failed(7), None);
    }

    #[test]
    fn two_files_are_under_way_at_a_time() {
        let some = 0..10;
        let ask = || SignatureRequest { ranges: vec![some.clone()], average_bytes: 1 << 10 };
        let mut deltas = alone();
        (0..5).for_each(|index| deltas.ask(index, entry(), ask()));
        fn asked(deltas: &mut Deltas) -> Vec<u64> {
            std::iter::from_fn(|| deltas.next_want())
                .map(|want| match want {
                    ReceiverRecord::WantCuts { span, .. } => span.entry,
                    other => panic!("{other:?}"),
                })
                .collect()
        }
        assert_eq!(asked(&mut deltas), [0, 1]);
        assert_eq!(deltas.failed(2), Some(entry()), "one that waits");
        deltas.settled(0);
        assert_eq!(asked(&mut deltas), [3]);
        deltas.settled(0);
        assert_eq!(asked(&mut deltas), [0; 0], "it was not under way any more");
        deltas.settled(1);
        assert_eq!(asked(&mut deltas), [4]);
        deltas.settled(3);
        assert_eq!(asked(&mut deltas), [0; 0], "nobody waits");
    }

    /// The shortest cuts that the wire lets through, up to the end.
    fn shortest_cuts(deltas: &mut Deltas, index: u64, len_bytes: u64) -> SignatureComplete {
        let mut at = 0;
        loop {
            let lens = vec![256; 900.min(((len_bytes - at) / 256) as usize)];
            let cuts = lens.iter().enumerate().map(|(i, &len_bytes)| Cut {
                len_bytes,
                digest: Digest::blake3(&(at + i as u64).to_le_bytes()),
            });
            let cuts = cuts.collect();
            let came = deltas.came(Cuts { entry: index, offset_bytes: at, cuts }).unwrap();
            at += lens.len() as u64 * 256;
            if let Some(complete) = came.complete {
                return complete;
            }
        }
    }

    #[test]
    fn a_list_that_finds_no_memory_is_checked_but_not_kept() {
        let len_bytes = 2 * SIGNATURE_MEMORY_BYTES / CUT_COST_BYTES * 256;
        let whole = 0..len_bytes;
        let mut deltas = asked_for(len_bytes);
        let complete = shortest_cuts(&mut deltas, 7, len_bytes);
        assert_eq!((complete.index, complete.cuts), (7, Vec::new()));
        deltas.settled(7);
        // It has given back what it had.
        let half = len_bytes / 4;
        let quarter = 0..half;
        deltas.ask(8, entry(), SignatureRequest { ranges: vec![quarter], average_bytes: 1 << 10 });
        deltas.next_want().unwrap();
        let complete = shortest_cuts(&mut deltas, 8, half);
        assert_eq!(complete.cuts.len() as u64, half / 256);
        drop(complete);
        deltas.settled(8);
        // What is wrong is a fault all the same.
        deltas.ask(9, entry(), SignatureRequest { ranges: vec![whole], average_bytes: 1 << 10 });
        deltas.next_want().unwrap();
        assert!(deltas.came(part(9, 1, &[700])).is_err());
    }

    #[test]
    fn a_second_list_waits_for_memory_and_a_first_one_does_not() {
        let budget = MemoryBudget::default();
        let quota = Quota::of(Some(&budget));
        let mut deltas = Deltas::new(quota.signatures());
        // More than the quarter that a transfer has before it has moved anything.
        let len_bytes = SIGNATURE_MEMORY_BYTES / CUT_COST_BYTES * 1024;
        let ask = |len_bytes: u64| {
            let whole = 0..len_bytes;
            SignatureRequest { ranges: vec![whole], average_bytes: 1 << 10 }
        };
        deltas.ask(0, entry(), ask(len_bytes));
        deltas.ask(1, entry(), ask(len_bytes));
        let asked = |deltas: &mut Deltas| std::iter::from_fn(|| deltas.next_want()).count();
        assert_eq!(asked(&mut deltas), 1);
        quota.moved();
        deltas.settled(0);
        assert_eq!(asked(&mut deltas), 1);
        deltas.ask(2, entry(), ask(1 << 20));
        assert_eq!(asked(&mut deltas), 1, "this one is short");
    }

    #[test]
    fn no_more_requests_are_sent_than_the_provider_takes() {
        let mut deltas = alone();
        let ranges = (0..3000).map(|i| i * 10..i * 10 + 5).collect();
        deltas.ask(0, entry(), SignatureRequest { ranges, average_bytes: 1 << 10 });
        let sent = std::iter::from_fn(|| deltas.next_want()).count();
        assert_eq!(sent, MAX_CUTTINGS_UNDER_WAY / 2);
        deltas.came(part(0, 0, &[5])).unwrap();
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
            let mut deltas = asked_for(total);
            let mut ends: Vec<_> = at.iter().map(|at| at.index(lens.len()) + 1).collect();
            ends.extend([lens.len()]);
            ends.sort_unstable();
            ends.dedup();
            let (mut from, mut offset_bytes, mut complete) = (0, 0, None::<SignatureComplete>);
            for end in ends {
                prop_assert!(complete.is_none());
                let cuts = lens[from..end].iter().enumerate().map(|(i, &len_bytes)| {
                    Cut { len_bytes, digest: Digest::blake3(&((from + i) as u64).to_le_bytes()) }
                });
                complete = deltas.came(Cuts { entry: 7, offset_bytes, cuts: cuts.collect() }).unwrap().complete;
                offset_bytes += lens[from..end].iter().copied().map(u64::from).sum::<u64>();
                from = end;
            }
            let complete = complete.unwrap();
            prop_assert!(complete.cuts.iter().map(|piece| piece.cut.len_bytes).eq(lens));
        }
    }
}
