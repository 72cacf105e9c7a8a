//! Handles offered chunks (SPEC 4.24).

use std::{collections::HashMap, ops::Range};

use shiplane_transport::internals::ReceiveReservation;
use shiplane_wire::{ProviderRecord, Span};

use super::chunks::Opened;

/// What the provider has offered, until its entries are planned: nothing of it is read before that.
#[derive(Default)]
pub(super) struct Offers {
    _room: Option<ReceiveReservation>,
    /// By index.
    pub(super) chunks: Vec<Vec<Span>>,
    pub(super) len_bytes: u64,
    /// Entry and offset that the last one has reached.
    reached: (u64, u64),
    pub(super) is_ended: bool,
}

/// The streams of chunks that are only offered.
#[derive(Default)]
pub(super) struct Early {
    pub(super) records: Vec<ProviderRecord>,
    pub(super) opened: Vec<Opened>,
}

impl Offers {
    pub(super) fn new(room: ReceiveReservation) -> Self {
        Self { _room: Some(room), ..Self::default() }
    }

    /// Whether more of them are to come.
    pub(super) fn may_expect_more(&self) -> bool {
        !self.is_ended
    }

    /// Whether these spans go on in the order of the manifest, each of another file.
    pub(super) fn go_on(&mut self, spans: &[Span]) -> bool {
        let is_ascending = spans.windows(2).all(|two| two[0].entry < two[1].entry);
        let mut starts = spans.iter().map(|span| (span.entry, span.offset_bytes));
        // Where the last one has ended, or at the start of a file behind that.
        let is_next = starts.next().is_some_and(|(entry, offset_bytes)| {
            (entry, offset_bytes) == self.reached || (entry > self.reached.0 && offset_bytes == 0)
        });
        let is_ascending = is_ascending && starts.all(|(_, offset_bytes)| offset_bytes == 0);
        if let Some(last) = spans.last() {
            self.reached = (last.entry, last.offset_bytes + last.len_bytes);
        }
        is_ascending && is_next
    }

    /// How many entries must be planned before it is known what is taken.
    pub(super) fn entries(&self) -> u64 {
        self.chunks.iter().flatten().map(|span| span.entry + 1).max().unwrap_or_default()
    }
}

/// Takes these spans out of what is wanted, all of them or none.
pub(super) fn take_all(spans: &[Span], wanted: &mut HashMap<u64, &mut Vec<Range<u64>>>) -> bool {
    let mut left: HashMap<u64, Vec<Range<u64>>> = HashMap::new();
    for span in spans {
        let Some(before) = wanted.get(&span.entry) else { return false };
        if !take(span, left.entry(span.entry).or_insert_with(|| before.to_vec())) {
            return false;
        }
    }
    for (entry, ranges) in wanted {
        if let Some(left) = left.remove(entry) {
            **ranges = left;
        }
    }
    true
}

/// Takes a span out of ranges, if one of them contains it.
fn take(span: &Span, ranges: &mut Vec<Range<u64>>) -> bool {
    let (start, end) = (span.offset_bytes, span.offset_bytes + span.len_bytes);
    let Some(at) = ranges.iter().position(|range| range.start <= start && end <= range.end) else {
        return false;
    };
    let around = ranges[at].clone();
    let rest = [around.start..start, end..around.end];
    ranges.splice(at..=at, rest.into_iter().filter(|range| !range.is_empty()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(entry: u64, offset_bytes: u64, len_bytes: u64) -> Span {
        Span { entry, offset_bytes, len_bytes }
    }

    #[test]
    fn offers_go_on_in_the_order_of_the_manifest() {
        let mut offers = Offers::default();
        assert!(offers.go_on(&[span(0, 0, 10), span(2, 0, 10)]));
        assert!(offers.go_on(&[span(2, 10, 1), span(3, 0, 1)]));
        for wrong in [
            vec![span(3, 0, 1)],
            vec![span(2, 50, 1)],
            vec![span(3, 2, 1)],
            vec![span(4, 1, 1)],
            vec![span(4, 0, 1), span(5, 1, 1)],
            vec![span(4, 0, 1), span(4, 1, 1)],
            vec![span(5, 0, 1), span(4, 0, 1)],
        ] {
            let mut offers = Offers { reached: (3, 1), ..Offers::default() };
            assert!(!offers.go_on(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_offer_takes_all_its_spans_out_of_the_wants_or_none() {
        let short = 0..10;
        let (mut one, mut two) = (vec![0..100, 200..300], vec![short]);
        let mut wanted = HashMap::from([(1, &mut one), (2, &mut two)]);
        assert!(take_all(&[span(1, 20, 30), span(2, 0, 10)], &mut wanted));
        assert!(!take_all(&[span(1, 200, 100), span(1, 40, 20)], &mut wanted), "a part was taken before");
        assert!(!take_all(&[span(1, 200, 100), span(1, 200, 100)], &mut wanted), "twice the same");
        assert!(!take_all(&[span(2, 0, 1)], &mut wanted));
        assert!(!take_all(&[span(3, 0, 1)], &mut wanted));
        assert!(!take_all(&[span(1, 90, 20)], &mut wanted), "beyond the file");
        assert_eq!((one, two), (vec![0..20, 50..100, 200..300], vec![]));
    }
}
