//! Predicts where the old version has a block of the new one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;

use super::super::buffers::Buffers;
use super::super::cuts::PlacedCut;
use super::super::error::DestinationError;
use super::super::state::ActiveFile;
use super::copying::Copied;
use super::{Delta, DeltaMatcher, cuts_of, not_kept};

/// By how much the old version's bytes have moved, as far as it has been followed.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// What is at an offset of the new version is at that plus this in the old one.
    shift_bytes: i64,
    /// How many times in a row the trail was lost and not found again nearby.
    misses: u32,
}

impl Trail {
    /// Where a piece should be, if that lies within the old version.
    fn lead(&self, to: &PlacedCut, old_len_bytes: u64) -> Option<Copied> {
        let from_bytes = to.offset_bytes.checked_add_signed(self.shift_bytes)?;
        let copied = Copied { from_bytes, to: *to };
        (copied.from().end <= old_len_bytes).then_some(copied)
    }
}

impl DeltaMatcher {
    /// Copies what is where it should be; where several pieces in a row are not, looks whether they are nearby,
    /// and goes on with that.
    pub(super) fn follow_trail(
        &self,
        index: u64,
        file: &ActiveFile,
        delta: &mut Delta,
        old: &File,
        theirs: &[PlacedCut],
    ) -> Result<(), DestinationError> {
        let mut pieces = not_kept(&file.kept, theirs);
        loop {
            let found = self.take_from_trail(index, file, delta, old, &pieces)?;
            let lost = first_lost(&pieces, &found);
            if lost.is_empty() {
                delta.trail.misses = 0;
                return Ok(());
            }
            pieces.drain(lost.end..);
            pieces.drain(..lost.start);
            match delta.look_around(old, &pieces, &self.buffers) {
                Some(shift_bytes) if shift_bytes != delta.trail.shift_bytes => {
                    delta.trail.shift_bytes = shift_bytes;
                }
                _ => break,
            }
        }
        delta.trail.misses += 1;
        if delta.trail.misses < MAX_MISSES {
            return Ok(());
        }
        // It has too little in common, or in another order: from now on by content, wherever it is.
        self.copy_what_was_same(index, file, delta, old)?;
        self.copy_matching(index, file, delta, old, &pieces)
    }

    /// Copies what is where it should be. Gives the offsets of that.
    fn take_from_trail(
        &self,
        index: u64,
        file: &ActiveFile,
        delta: &mut Delta,
        old: &File,
        pieces: &[PlacedCut],
    ) -> Result<HashSet<u64>, DestinationError> {
        let leads = pieces.iter().filter_map(|piece| delta.trail.lead(piece, delta.old_len_bytes));
        let leads: Vec<_> = leads.collect();
        if delta.is_same_so_far {
            let same = self.check(old, &leads)?;
            if same.len() == pieces.len() {
                delta.found.extend(&same);
                return Ok(offsets(&same));
            }
            self.copy_what_was_same(index, file, delta, old)?;
        }
        let copied = self.copy(index, file, old, &leads)?;
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
    /// By how much one of these pieces has moved, if it stands near where it should.
    fn look_around(&self, old: &File, pieces: &[PlacedCut], buffers: &Buffers) -> Option<i64> {
        let first = pieces.first()?.offset_bytes.saturating_add_signed(self.trail.shift_bytes);
        let reach_bytes = u64::from(self.average_bytes) * REACH_PIECES;
        let region = first.saturating_sub(reach_bytes)..(first + 2 * reach_bytes).min(self.old_len_bytes);
        if region.is_empty() {
            return None;
        }
        let sought: HashMap<_, _> = pieces.iter().map(|piece| (piece.cut, piece.offset_bytes)).collect();
        cuts_of(old, &region, self.average_bytes, self.algorithm, buffers).iter().find_map(|ours| {
            let new_bytes = sought.get(&ours.cut)?;
            // Neither is larger than a file may be that is taken apart.
            Some(ours.offset_bytes as i64 - *new_bytes as i64)
        })
    }
}

/// The first pieces in a row that were not found, if they are so many that an edit in place is no reason.
fn first_lost(pieces: &[PlacedCut], found: &HashSet<u64>) -> Range<usize> {
    let mut from = 0;
    for (at, piece) in pieces.iter().enumerate() {
        if found.contains(&piece.offset_bytes) {
            if at - from >= LOST_PIECES {
                return from..at;
            }
            from = at + 1;
        }
    }
    if pieces.len() - from >= LOST_PIECES { from..pieces.len() } else { 0..0 }
}

fn offsets(pieces: &[Copied]) -> HashSet<u64> {
    pieces.iter().map(|copied| copied.to.offset_bytes).collect()
}

/// Four: to look around costs as much as a hundred pieces. Those that an edit touches are fewer; what is lost
/// in so short a row is found by its content later.
const LOST_PIECES: usize = 4;

/// 4 MiB to the front and 8 MiB on, at the usual average.
const REACH_PIECES: u64 = 32;

/// Four times in a row, mostly 8 MiB each: then what the trail costs is a small part of what cutting all of the
/// old version does.
const MAX_MISSES: u32 = 4;

#[cfg(test)]
mod tests {
    use shiplane_wire::{Cut, Digest};

    use super::*;

    #[test]
    fn the_trail_is_lost_where_several_in_a_row_are_not_found() {
        let piece = |at: u64| PlacedCut {
            offset_bytes: at * 10,
            cut: Cut { len_bytes: 10, digest: Digest::blake3(&at.to_le_bytes()) },
        };
        let pieces: Vec<_> = (0..12).map(piece).collect();
        let lost = |missing: &[u64]| {
            let found = (0..12).filter(|at| !missing.contains(at)).map(|at| at * 10).collect();
            first_lost(&pieces, &found)
        };
        assert_eq!(lost(&[]), 0..0);
        assert_eq!(lost(&[1, 2, 3, 5, 6, 9, 10, 11]), 0..0);
        assert_eq!(lost(&[1, 4, 5, 6, 7, 9]), 4..8);
        assert_eq!(lost(&[0, 1, 2, 3, 8, 9, 10, 11]), 0..4);
        assert_eq!(lost(&[8, 9, 10, 11]), 8..12);
    }

    #[test]
    fn a_lead_lies_within_the_old_version() {
        let piece = PlacedCut { offset_bytes: 5, cut: Cut { len_bytes: 10, digest: Digest::blake3(b"") } };
        let lead = |shift_bytes, old_len_bytes| {
            let lead = Trail { shift_bytes, misses: 0 }.lead(&piece, old_len_bytes);
            lead.map(|lead| lead.from())
        };
        assert_eq!(lead(-5, 10), Some(0..10));
        assert_eq!(lead(-6, 10), None);
        assert_eq!(lead(3, 18), Some(8..18));
        assert_eq!(lead(3, 17), None);
    }
}
