//! Sets of byte ranges of a file.

use std::ops::Range;

/// A set of byte offsets, kept as sorted ranges that neither touch nor overlap.
///
/// Chunks arrive nearly in order, so there are few ranges whatever the file's size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Adds `range`; an empty one changes nothing.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Those that end before the new one starts, and those that start after its end, stay.
        let from = self.0.partition_point(|kept| kept.end < range.start);
        let to = self.0.partition_point(|kept| kept.start <= range.end);
        let merged = match self.0.get(from..to) {
            Some([first, .., last]) => first.start.min(range.start)..last.end.max(range.end),
            Some([only]) => only.start.min(range.start)..only.end.max(range.end),
            Some([]) | None => range,
        };
        self.0.splice(from..to, [merged]);
    }

    /// Number of offsets in the set.
    pub fn len_bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Its ranges, in order.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// Whether all of `range` is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        let at = self.0.partition_point(|kept| kept.end < range.end);
        range.is_empty() || self.0.get(at).is_some_and(|kept| kept.start <= range.start)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of `0..size_bytes` is not in the set, in order.
    pub fn missing(&self, size_bytes: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = 0;
        for kept in &self.0 {
            if kept.start >= size_bytes {
                break;
            }
            if at < kept.start {
                missing.push(at..kept.start);
            }
            at = kept.end;
        }
        if at < size_bytes {
            missing.push(at..size_bytes);
        }
        missing
    }

    /// Whether all of `0..size_bytes` is in the set.
    pub fn covers(&self, size_bytes: u64) -> bool {
        size_bytes == 0 || self.0.first().is_some_and(|first| first.start == 0 && first.end >= size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(ranges in prop::collection::vec((0_u64..64, 0_u64..20), 0..12), size in 0_u64..80) {
            let mut set = RangeSet::default();
            let mut bitmap = [false; 100];
            for (start, len) in ranges {
                set.insert(start..start + len);
                bitmap[start as usize..(start + len) as usize].fill(true);
            }
            let missing = set.missing(size);
            for at in 0..size {
                let is_missing = missing.iter().any(|range| range.contains(&at));
                prop_assert_eq!(is_missing, !bitmap[at as usize]);
            }
            prop_assert!(missing.iter().all(|range| range.start < range.end && range.end <= size));
            prop_assert_eq!(set.covers(size), missing.is_empty());
            let inside = |at: u64| set.contains(&(at..size));
            prop_assert!((0..size).all(|at| inside(at) == bitmap[at as usize..size as usize].iter().all(|kept| *kept)));
            prop_assert_eq!(set.len_bytes(), bitmap.iter().filter(|kept| **kept).count() as u64);
            prop_assert!(set.0.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
