//! The holes of a sparse file (SPEC 4.29).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::limits::MAX_HOLES;

/// Ranges of a file that have no content of their own and read as zeros: in order, apart from each other, within the
/// file. Usually there are none, which allocates nothing. Clones share the ranges.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Holes(Option<Arc<[Range<u64>]>>);

impl Holes {
    /// Checks ranges against the rules; `None` if they break one. The ranges are to lie within `size_bytes`.
    #[must_use]
    pub fn parse(ranges: &[Range<u64>], size_bytes: u64) -> Option<Self> {
        let mut end = None;
        let mut in_order = ranges.iter().all(|range| {
            // Those that touch are one.
            let is_next = end.is_none_or(|end| range.start > end);
            end = Some(range.end);
            is_next && range.start < range.end
        });
        in_order &= ranges.len() <= MAX_HOLES && end.is_none_or(|end| end <= size_bytes);
        in_order.then(|| Self((!ranges.is_empty()).then(|| ranges.into())))
    }

    /// The longest of these ranges, which keep the rules but may be too many.
    #[must_use]
    pub fn longest_of(mut ranges: Vec<Range<u64>>) -> Self {
        if ranges.len() > MAX_HOLES {
            ranges.sort_unstable_by_key(|range| core::cmp::Reverse(range.end - range.start));
            ranges.truncate(MAX_HOLES);
            ranges.sort_unstable_by_key(|range| range.start);
        }
        Self((!ranges.is_empty()).then(|| ranges.into()))
    }

    /// The ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The total length of the holes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.ranges().iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges between the holes, in a file of `size_bytes`.
    pub fn data(&self, size_bytes: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let starts = core::iter::once(0).chain(self.ranges().iter().map(|range| range.end));
        let ends = self.ranges().iter().map(|range| range.start).chain(core::iter::once(size_bytes));
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty())
    }
}

impl fmt::Debug for Holes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one hole is a list of one range")]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn holes_are_in_order_apart_and_within_the_file() {
        for fine in [&[][..], &[0..1], &[0..10], &[0..1, 2..3, 9..10]] {
            assert!(Holes::parse(fine, 10).is_some(), "{fine:?}");
        }
        let backwards = Range { start: 5, end: 4 };
        for wrong in [
            &[1..1][..],
            &[9..11],
            &[0..u64::MAX],
            &[2..3, 0..1],
            &[0..2, 1..3],
            &[0..1, 1..2],
            &[0..1, 0..1],
            &[backwards],
        ] {
            assert_eq!(Holes::parse(wrong, 10), None, "{wrong:?}");
        }
        let many: Vec<_> = (0..1025).map(|at| 2 * at..2 * at + 1).collect();
        assert!(Holes::parse(&many[1..], 1 << 20).is_some());
        assert_eq!(Holes::parse(&many, 1 << 20), None);
    }

    #[test]
    fn of_too_many_holes_the_longest_are_kept_in_order() {
        let mut many: Vec<_> = (0..1030).map(|at| 10 * at..10 * at + 1).collect();
        (many[3].end, many[1029].end) = (35, 10_299);
        let holes = Holes::longest_of(many);
        assert_eq!(Holes::parse(holes.ranges(), 10_300).as_ref(), Some(&holes));
        assert_eq!(holes.ranges().len(), MAX_HOLES);
        assert!(holes.ranges().contains(&(30..35)) && holes.ranges().contains(&(10_290..10_299)));
    }

    #[test]
    fn data_is_what_lies_between() {
        let data = |holes: &[Range<u64>]| Holes::parse(holes, 10).unwrap().data(10).collect::<Vec<_>>();
        assert_eq!(data(&[]), [Range { start: 0, end: 10 }]);
        assert_eq!(data(&[0..10]), []);
        assert_eq!(data(&[0..2, 5..7]), [2..5, 7..10]);
        assert_eq!(data(&[2..5, 7..10]), [0..2, 5..7]);
        assert_eq!(Holes::default().data(0).count(), 0);
        assert_eq!(Holes::parse(&[0..2, 5..7], 10).unwrap().len_bytes(), 4);
        assert_eq!(Holes::default(), Holes::longest_of(vec![]));
    }
}
