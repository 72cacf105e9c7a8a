//! Predicts where the old version has a block of the new one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;

use super::super::blocks::Block;
use super::super::buffers::Buffers;
use super::super::error::DestinationError;
use super::super::state::ActiveFile;
use super::{Copied, Delta, DeltaMatcher, OffsetPredictor, blocks_of, not_kept};

impl OffsetPredictor {
    /// Where a block should be, if that lies within the old version.
    fn predict(&self, to: &Block, old_len_bytes: u64) -> Option<Copied> {
        let from_bytes = to.offset_bytes.checked_add_signed(self.shift_bytes)?;
        let copied = Copied { from_bytes, to: *to };
        (copied.from().end <= old_len_bytes).then_some(copied)
    }
}

impl DeltaMatcher {
    /// Copies what is where it should be; where several blocks in a row are not, looks whether they are nearby,
    /// and goes on with that.
    pub(super) fn follow_prediction(
        &self,
        index: u64,
        file: &ActiveFile,
        delta: &mut Delta,
        old: &File,
        theirs: &[Block],
    ) -> Result<(), DestinationError> {
        let mut blocks = not_kept(&file.kept, theirs);
        loop {
            let found = self.copy_predicted(index, file, delta, old, &blocks)?;
            let lost = first_lost(&blocks, &found);
            if lost.is_empty() {
                delta.predictor.misses = 0;
                return Ok(());
            }
            blocks.drain(lost.end..);
            blocks.drain(..lost.start);
            match delta.resync(old, &blocks, &self.buffers) {
                Some(shift_bytes) if shift_bytes != delta.predictor.shift_bytes => {
                    delta.predictor.shift_bytes = shift_bytes;
                }
                _ => break,
            }
        }
        delta.predictor.misses += 1;
        if delta.predictor.misses < MAX_MISSES {
            return Ok(());
        }
        // It has too little in common, or in another order: from now on by content, wherever it is.
        self.copy_what_was_same(index, file, delta, old)?;
        self.copy_matching(index, file, delta, old, &blocks)
    }

    /// Copies what is where it should be. Gives the offsets of that.
    fn copy_predicted(
        &self,
        index: u64,
        file: &ActiveFile,
        delta: &mut Delta,
        old: &File,
        blocks: &[Block],
    ) -> Result<HashSet<u64>, DestinationError> {
        let predictions =
            blocks.iter().filter_map(|block| delta.predictor.predict(block, delta.old_len_bytes));
        let predictions: Vec<_> = predictions.collect();
        if delta.is_same_so_far {
            let same = self.check(old, &predictions)?;
            if same.len() == blocks.len() {
                delta.found.extend(&same);
                return Ok(offsets(&same));
            }
            self.copy_what_was_same(index, file, delta, old)?;
        }
        let copied = self.copy(index, file, old, &predictions)?;
        delta.found.extend(&copied);
        Ok(offsets(&copied))
    }

    /// The new version is not the old one after all: copies what was only compared.
    pub(super) fn copy_what_was_same(
        &self,
        index: u64,
        file: &ActiveFile,
        delta: &mut Delta,
        old: &File,
    ) -> Result<(), DestinationError> {
        if std::mem::take(&mut delta.is_same_so_far) {
            delta.found = self.copy(index, file, old, &delta.found)?;
        }
        Ok(())
    }
}

impl Delta {
    /// By how much one of these blocks has moved, if it stands near where it should.
    fn resync(&self, old: &File, blocks: &[Block], buffers: &Buffers) -> Option<i64> {
        let first = blocks.first()?.offset_bytes.saturating_add_signed(self.predictor.shift_bytes);
        let reach_bytes = u64::from(self.average_bytes) * REACH_BLOCKS;
        let region = first.saturating_sub(reach_bytes)..(first + 2 * reach_bytes).min(self.old_len_bytes);
        if region.is_empty() {
            return None;
        }
        let sought: HashMap<_, _> =
            blocks.iter().map(|block| (block.signature, block.offset_bytes)).collect();
        blocks_of(old, &region, self.average_bytes, self.algorithm, buffers).iter().find_map(|ours| {
            let new_bytes = sought.get(&ours.signature)?;
            // Neither is larger than a file may be that is taken apart.
            Some(ours.offset_bytes as i64 - *new_bytes as i64)
        })
    }
}

/// The first blocks in a row that were not found, if they are too many for an edit in place.
fn first_lost(blocks: &[Block], found: &HashSet<u64>) -> Range<usize> {
    let mut from = 0;
    for (at, block) in blocks.iter().enumerate() {
        if found.contains(&block.offset_bytes) {
            if at - from >= LOST_BLOCKS {
                return from..at;
            }
            from = at + 1;
        }
    }
    if blocks.len() - from >= LOST_BLOCKS { from..blocks.len() } else { 0..0 }
}

fn offsets(blocks: &[Copied]) -> HashSet<u64> {
    blocks.iter().map(|copied| copied.to.offset_bytes).collect()
}

/// Four: to look around costs as much as a hundred blocks. Those that an edit touches are fewer; what is lost
/// in so short a row is found by its content later.
const LOST_BLOCKS: usize = 4;

/// 4 MiB to the front and 8 MiB on, at the usual average.
const REACH_BLOCKS: u64 = 32;

/// Four times in a row, mostly 8 MiB each: then what the predictor costs is a small part of what splitting all of the
/// old version does.
const MAX_MISSES: u32 = 4;

#[cfg(test)]
mod tests {
    use shiplane_wire::{BlockSignature, Digest};

    use super::*;

    #[test]
    fn the_offset_is_lost_where_several_blocks_in_a_row_are_not_found() {
        let block = |at: u64| Block {
            offset_bytes: at * 10,
            signature: BlockSignature { len_bytes: 10, digest: Digest::blake3(&at.to_le_bytes()) },
        };
        let blocks: Vec<_> = (0..12).map(block).collect();
        let lost = |missing: &[u64]| {
            let found = (0..12).filter(|at| !missing.contains(at)).map(|at| at * 10).collect();
            first_lost(&blocks, &found)
        };
        assert_eq!(lost(&[]), 0..0);
        assert_eq!(lost(&[1, 2, 3, 5, 6, 9, 10, 11]), 0..0);
        assert_eq!(lost(&[1, 4, 5, 6, 7, 9]), 4..8);
        assert_eq!(lost(&[0, 1, 2, 3, 8, 9, 10, 11]), 0..4);
        assert_eq!(lost(&[8, 9, 10, 11]), 8..12);
    }

    #[test]
    fn a_prediction_lies_within_the_old_version() {
        let block = Block {
            offset_bytes: 5,
            signature: BlockSignature { len_bytes: 10, digest: Digest::blake3(b"") },
        };
        let predict = |shift_bytes, old_len_bytes| {
            let prediction = OffsetPredictor { shift_bytes, misses: 0 }.predict(&block, old_len_bytes);
            prediction.map(|prediction| prediction.from())
        };
        assert_eq!(predict(-5, 10), Some(0..10));
        assert_eq!(predict(-6, 10), None);
        assert_eq!(predict(3, 18), Some(8..18));
        assert_eq!(predict(3, 17), None);
    }
}
