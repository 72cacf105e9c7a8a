//! The receiver's books of cuts asked for and told (SPEC 4.13). Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use shiplane_wire::{Cuts, Digest, Entry, ReceiverRecord, Span};

use super::error::{ProtocolFault, TransferError};
use crate::files::{PlacedCut, bounds_of};

/// Files of which an old version is here, and the lists that are on their way for them.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// Files under way, those at the planner included.
    begun: HashSet<u64>,
    /// Files that wait for one of these to be settled.
    waiting: VecDeque<(u64, Entry, Ask)>,
    lists: HashMap<u64, List>,
    unsent: VecDeque<Due>,
    /// Requests that are not answered whole; the answers come in this order.
    due: VecDeque<Due>,
}

/// What [`Plan::Delta`](crate::files::Plan::Delta) asks for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) ranges: Vec<Range<u64>>,
    pub(super) average_bytes: u32,
}

#[derive(Debug)]
struct List {
    entry: Entry,
    cuts: Vec<PlacedCut>,
    /// Requests that are not answered whole.
    open: usize,
    /// How long what has this digest is.
    lens: HashMap<Digest, u32>,
}

#[derive(Debug)]
struct Due {
    span: Span,
    average_bytes: u32,
    /// Where the next cut starts.
    next_bytes: u64,
}

/// What a part of an answer brings.
#[derive(Debug, PartialEq)]
pub(super) struct Came {
    /// The cuts in it.
    pub(super) part: Vec<PlacedCut>,
    /// All of the file's, once that is there.
    pub(super) told: Option<Told>,
}

/// All that was asked for of one file.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) index: u64,
    pub(super) entry: Entry,
    pub(super) cuts: Vec<PlacedCut>,
}

impl Deltas {
    /// Cuts of an entry are needed. They are asked for once its turn has come.
    pub(super) fn ask(&mut self, index: u64, entry: Entry, ask: Ask) {
        if self.begun.contains(&index) {
            self.open(index, entry, ask);
        } else if self.begun.len() >= MAX_BEGUN {
            self.waiting.push_back((index, entry, ask));
        } else {
            self.begun.insert(index);
            self.open(index, entry, ask);
        }
    }

    /// Nothing more is needed for an entry: another begins in its place.
    pub(super) fn settled(&mut self, index: u64) {
        if self.begun.remove(&index)
            && let Some((index, entry, ask)) = self.waiting.pop_front()
        {
            self.ask(index, entry, ask);
        }
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
    pub(super) fn came(&mut self, part: Cuts) -> Result<Came, TransferError> {
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
            if *list.lens.entry(cut.digest).or_insert(cut.len_bytes) != cut.len_bytes {
                return Err(ProtocolFault::TwoContents { entry: index }.into());
            }
            due.next_bytes = piece.end_bytes();
            list.cuts.push(piece);
        }
        let part = list.cuts[from..].to_vec();
        if due.next_bytes < end_bytes {
            return Ok(Came { part, told: None });
        }
        self.due.pop_front();
        list.open -= 1;
        if list.open > 0 {
            return Ok(Came { part, told: None });
        }
        let told = self.lists.remove(&index);
        let told = told.map(|List { entry, cuts, .. }| Told { index, entry, cuts });
        Ok(Came { part, told })
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

    fn open(&mut self, index: u64, entry: Entry, ask: Ask) {
        let Ask { ranges, average_bytes } = ask;
        let list = List { entry, cuts: Vec::new(), open: ranges.len(), lens: HashMap::new() };
        self.lists.insert(index, list);
        self.unsent.extend(ranges.into_iter().map(|range| Due {
            span: Span { entry: index, offset_bytes: range.start, len_bytes: range.end - range.start },
            average_bytes,
            next_bytes: range.start,
        }));
    }
}

/// Each has its lists of both sides in memory, up to some 20 MiB of them. Two: one is read while what the
/// other has in common is copied.
const MAX_BEGUN: usize = 2;

/// Requests that may be unanswered (SPEC 4.13); the receiver keeps to half of it.
pub(super) const MAX_CUTTINGS_UNDER_WAY: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shiplane_wire::{Code, Cut, EntryKind, Mtime, RelPath, Version};

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
        let mut deltas = Deltas::default();
        deltas.ask(7, entry(), Ask { ranges: ranges.to_vec(), average_bytes: 1 << 10 });
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
        assert_eq!((ends(&came.part), came.told), (vec![700], None));
        let came = deltas.came(part(7, 700, &[400, 400])).unwrap();
        assert_eq!((ends(&came.part), came.told), (vec![1100, 1500], None));
        assert!(deltas.awaits_provider());
        let came = deltas.came(part(7, 4000, &[100])).unwrap();
        assert_eq!(ends(&came.part), [4100]);
        let told = came.told.unwrap();
        assert_eq!((told.index, ends(&told.cuts)), (7, vec![700, 1100, 1500, 4100]));
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
        deltas.came(part(7, 0, &[700, 800])).unwrap().told.unwrap();
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
        let ask = || Ask { ranges: vec![some.clone()], average_bytes: 1 << 10 };
        let mut deltas = Deltas::default();
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

    #[test]
    fn no_more_requests_are_sent_than_the_provider_takes() {
        let mut deltas = Deltas::default();
        let ranges = (0..3000).map(|i| i * 10..i * 10 + 5).collect();
        deltas.ask(0, entry(), Ask { ranges, average_bytes: 1 << 10 });
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
            let (mut from, mut offset_bytes, mut told) = (0, 0, None);
            for end in ends {
                prop_assert_eq!(&told, &None);
                let cuts = lens[from..end].iter().enumerate().map(|(i, &len_bytes)| {
                    Cut { len_bytes, digest: Digest::blake3(&((from + i) as u64).to_le_bytes()) }
                });
                told = deltas.came(Cuts { entry: 7, offset_bytes, cuts: cuts.collect() }).unwrap().told;
                offset_bytes += lens[from..end].iter().copied().map(u64::from).sum::<u64>();
                from = end;
            }
            let told = told.unwrap();
            prop_assert!(told.cuts.iter().map(|piece| piece.cut.len_bytes).eq(lens));
        }
    }
}
