//! Decides which chunks to compress. Pure.

use std::collections::BTreeMap;

use crate::Compression;

/// What is known of large files: whether their chunks shrank.
#[derive(Debug)]
pub(super) struct Shrinking {
    compression: Compression,
    /// Files whose last chunk did not shrink, and how many have gone unattempted since.
    dense: BTreeMap<u64, u32>,
}

impl Shrinking {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, dense: BTreeMap::new() }
    }

    /// Decides on a chunk of one entry, or of several.
    pub(super) fn is_worth_trying(&mut self, only_entry: Option<u64>) -> bool {
        match self.compression {
            Compression::Never => false,
            Compression::Always => true,
            Compression::Auto => {
                let Some(left_out) = only_entry.and_then(|entry| self.dense.get_mut(&entry)) else {
                    return true;
                };
                *left_out += 1;
                // A file may change its nature, as an archive does.
                *left_out % LEFT_OUT == 0
            }
        }
    }

    /// The result of an attempt, or that there was none.
    pub(super) fn sent(&mut self, only_entry: Option<u64>, shrank: bool) {
        let Some(entry) = only_entry else { return };
        if shrank {
            self.dense.remove(&entry);
        } else {
            self.dense.entry(entry).or_default();
        }
    }

    /// Nothing below this entry will be wanted again.
    pub(super) fn release(&mut self, below: u64) {
        self.dense = self.dense.split_off(&below);
    }
}

/// One chunk in sixteen of a file that does not shrink is looked at all the same: its sample costs as much
/// as hashing half a chunk.
const LEFT_OUT: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_that_does_not_shrink_one_chunk_in_sixteen_is_looked_at() {
        let mut shrinking = Shrinking::new(Compression::Auto);
        assert!(shrinking.is_worth_trying(Some(7)));
        shrinking.sent(Some(7), false);
        let mut attempts = || (0..32).filter(|_| shrinking.is_worth_trying(Some(7))).count();
        assert_eq!(attempts(), 2);
        assert!(shrinking.is_worth_trying(Some(8)) && shrinking.is_worth_trying(None));
        shrinking.sent(Some(7), true);
        assert!(shrinking.is_worth_trying(Some(7)), "it has begun to shrink");
    }

    #[test]
    fn a_released_entry_is_forgotten() {
        let mut shrinking = Shrinking::new(Compression::Auto);
        (0..10).for_each(|entry| shrinking.sent(Some(entry), false));
        shrinking.release(9);
        assert_eq!(shrinking.dense.len(), 1);
    }

    #[test]
    fn always_tries_every_chunk_and_never_tries_none() {
        for (compression, tries) in [(Compression::Always, true), (Compression::Never, false)] {
            let mut shrinking = Shrinking::new(compression);
            shrinking.sent(Some(1), false);
            assert_eq!(shrinking.is_worth_trying(Some(1)), tries);
        }
    }
}
