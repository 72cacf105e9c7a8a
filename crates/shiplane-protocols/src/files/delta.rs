//! Taking what a new version of a file has in common with the old one from the disk, not from the peer.
//!
//! In two rounds, so that the lists stay short: the peer first tells the digests of large pieces of the
//! whole file, then those of small pieces within the large ones that are not here. Every piece is found by
//! its whole SHA-256 and hashed again while it is copied, so that what is kept is as good as a chunk that
//! was received and verified.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use shiplane_wire::{Digest, Entry};

use super::cuts::{PlacedCut, cut};
use super::destination::{Destination, Inner};
use super::error::{DestinationError, Operation};
use super::journal::{Batch, KeptSpan};
use super::plan::Plan;
use super::platform::{self, Kind};
use super::ranges::RangeSet;
use super::state::{ActiveFile, Stage};
use super::{lock, parallel};

/// A file that is being put together from its old version.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    round: Round,
    /// Opened when its turn comes: a thousand of them may be waiting.
    old: Option<Arc<File>>,
    /// Where in the old version pieces may be.
    regions: Vec<Range<u64>>,
    average_bytes: u32,
    /// The old version's pieces there, once they are known.
    ours: Option<Arc<Vec<PlacedCut>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Large pieces of the whole file.
    Coarse,
    /// Small pieces of what is not found yet.
    Fine,
}

/// Bytes of the old version that are also in the new one.
#[derive(Clone, Copy, Debug)]
struct Copied {
    from_bytes: u64,
    to: PlacedCut,
}

impl Destination {
    /// Turns a plan that wants much of a file into [`Plan::Delta`], if there is an old version of it.
    pub(crate) fn offer_delta(
        &self,
        index: u64,
        entry: &Entry,
        plan: Plan,
    ) -> Result<Plan, DestinationError> {
        self.inner.offer_delta(index, entry, plan)
    }

    /// Reads the old version of a file, while the peer reads the new one.
    pub(crate) fn survey_old(&self, index: u64) {
        self.inner.survey(index);
    }

    /// Goes on with the peer's cuts of the ranges that [`Plan::Delta`] named.
    pub(crate) fn take_from_old(
        &self,
        index: u64,
        entry: &Entry,
        theirs: &[PlacedCut],
    ) -> Result<Plan, DestinationError> {
        self.inner.delta(index, entry, theirs)
    }
}

impl Inner {
    fn offer_delta(&self, index: u64, entry: &Entry, plan: Plan) -> Result<Plan, DestinationError> {
        if !(MIN_MISSING_BYTES..=MAX_SIZE_BYTES).contains(&entry.size_bytes) {
            return Ok(plan);
        }
        let target = match &plan {
            Plan::Want { missing, .. } if sum_of(missing) >= MIN_MISSING_BYTES => {
                lock(&self.state).files.get(&index).map(|file| file.target.clone())
            }
            // To tell by the pieces whether it is the same costs no more than by one digest, and if it is
            // not, most of the work is done.
            Plan::Compare { is_likely_same: false } if self.options.overwrite => Some(self.target_of(entry)),
            Plan::Want { .. } | Plan::Compare { .. } | Plan::Done | Plan::Delta { .. } => None,
        };
        let Some(target) = target else { return Ok(plan) };
        let parent = self.parent_of(&target)?;
        // Whatever is wrong with the old version: the new one can still come whole.
        let Ok(stat) = platform::stat(&parent.dir, target.file_name()) else { return Ok(plan) };
        if stat.kind != Kind::File || !(MIN_OLD_BYTES..=MAX_SIZE_BYTES).contains(&stat.size_bytes) {
            return Ok(plan);
        }
        if let Plan::Compare { .. } = plan
            && let wanted = self.want(index, entry, target)?
            && let Plan::Want { missing, .. } = &wanted
            && sum_of(missing) < MIN_MISSING_BYTES
        {
            return Ok(wanted); // An earlier run has kept nearly all of it.
        }
        let average_bytes = coarse_average(entry.size_bytes);
        let regions = sections(stat.size_bytes);
        let delta = Delta { round: Round::Coarse, old: None, regions, average_bytes, ours: None };
        lock(&self.state).deltas.insert(index, delta);
        Ok(Plan::Delta { ranges: sections(entry.size_bytes), average_bytes })
    }

    fn survey(&self, index: u64) {
        let (delta, file) = {
            let state = lock(&self.state);
            (state.deltas.get(&index).cloned(), state.files.get(&index).cloned())
        };
        let (Some(delta), Some(file)) = (delta, file) else { return };
        let surveyed = self.surveyed(delta, &file);
        // It may have been discarded meanwhile.
        if let Some(delta) = lock(&self.state).deltas.get_mut(&index) {
            *delta = surveyed;
        }
    }

    /// The same with the old version's pieces: none if it cannot be read.
    fn surveyed(&self, mut delta: Delta, file: &ActiveFile) -> Delta {
        if delta.old.is_none()
            && let Ok(parent) = self.parent_of(&file.target)
            && let Ok(old) = platform::open_file(&parent.dir, file.target.file_name())
        {
            delta.old = Some(Arc::new(old));
        }
        if let (None, Some(old)) = (&delta.ours, &delta.old) {
            let cuts = parallel::map(&delta.regions, |region| cuts_of(old, region, delta.average_bytes));
            delta.ours = Some(Arc::new(cuts.into_iter().flatten().collect()));
        }
        delta
    }

    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        let unknown = || DestinationError::NotWanted { entry: index };
        let (delta, file) = {
            let mut state = lock(&self.state);
            let delta = state.deltas.remove(&index).ok_or_else(unknown)?;
            (delta, state.files.get(&index).cloned().ok_or_else(unknown)?)
        };
        let delta = self.surveyed(delta, &file);
        let (Some(old), Some(ours)) = (delta.old.clone(), delta.ours.clone()) else {
            return self.settle_delta(index);
        };
        if delta.round == Round::Coarse && !file.is_begun && covers(&ours, entry) && theirs == &ours[..] {
            lock(&self.state).files.remove(&index);
            self.touch(entry, &file.target, &old)?;
            return Ok(self.identical());
        }
        let known: HashSet<_> = theirs.iter().map(|piece| piece.cut.digest).collect();
        let missing = |piece: &&PlacedCut| !file.kept.contains(&(piece.offset_bytes..piece.end_bytes()));
        let theirs: Vec<_> = theirs.iter().filter(missing).copied().collect();
        let unmatched = self.copy_matching(index, &file, &old, &theirs, &ours)?;
        let left = ours.iter().filter(|piece| !known.contains(&piece.cut.digest));
        let left = union(left.map(|piece| piece.offset_bytes..piece.end_bytes()));
        if delta.round == Round::Fine || !pays_to_refine(&unmatched, &left) {
            return self.settle_delta(index);
        }
        let (regions, average_bytes) = (left.ranges().to_vec(), FINE_AVERAGE_BYTES);
        let fine = Delta { round: Round::Fine, regions, average_bytes, ours: None, ..delta };
        lock(&self.state).deltas.insert(index, fine);
        Ok(Plan::Delta { ranges: unmatched.ranges().to_vec(), average_bytes })
    }

    /// Copies every piece of theirs that is among ours; gives what could not be.
    fn copy_matching(
        &self,
        index: u64,
        file: &ActiveFile,
        old: &File,
        theirs: &[PlacedCut],
        ours: &[PlacedCut],
    ) -> Result<RangeSet, DestinationError> {
        let by_content: HashMap<_, _> = ours.iter().map(|piece| (piece.cut, piece.offset_bytes)).collect();
        let find = |to: &PlacedCut| by_content.get(&to.cut).map(|&from_bytes| Copied { from_bytes, to: *to });
        let copies: Vec<_> = theirs.iter().filter_map(find).collect();
        let copied = self.copy(index, file, old, &copies)?;
        let is_missing = |piece: &&PlacedCut| !copied.contains(&piece.offset_bytes);
        let missing = theirs.iter().filter(is_missing);
        Ok(union(missing.map(|piece| piece.offset_bytes..piece.end_bytes())))
    }

    /// Puts pieces of the old version into the temporary file and notes them as kept. Gives the offsets of
    /// those that were still what they had been.
    fn copy(
        &self,
        index: u64,
        file: &ActiveFile,
        old: &File,
        copies: &[Copied],
    ) -> Result<HashSet<u64>, DestinationError> {
        if copies.is_empty() {
            return Ok(HashSet::new());
        }
        self.begin([index])?;
        let temp = self.open_filling(index, file)?;
        let groups: Vec<_> = copies.chunks(COPIES_PER_GROUP).collect();
        let written = parallel::map(&groups, |group| {
            let mut buffer = Vec::new();
            let mut written = Vec::new();
            for copied in *group {
                // What cannot be read any more, or has changed, is asked for.
                if !is_unchanged(old, copied, &mut buffer) {
                    continue;
                }
                temp.write_all_at(copied.to.offset_bytes, &buffer).map_err(|error| {
                    let len_bytes = buffer.len() as u64;
                    self.failed_writing(Operation::Write, &file.target, len_bytes, error)
                })?;
                written.push(copied.to);
            }
            Ok::<_, DestinationError>(written)
        });
        let mut kept = Vec::new();
        for group in written {
            kept.extend(group?);
        }
        self.note_copied(index, file, &kept)?;
        Ok(kept.iter().map(|piece| piece.offset_bytes).collect())
    }

    fn note_copied(&self, index: u64, file: &ActiveFile, kept: &[PlacedCut]) -> Result<(), DestinationError> {
        for pieces in kept.chunks(RECORDS_PER_WRITE) {
            let mut batch = Batch::default();
            for PlacedCut { offset_bytes, cut } in pieces {
                let len_bytes = u64::from(cut.len_bytes);
                let span = KeptSpan { id: file.id, offset_bytes: *offset_bytes, len_bytes };
                batch.kept(cut.digest, [span]);
            }
            self.record(&batch)?;
        }
        let mut state = lock(&self.state);
        let mut copied_bytes = 0;
        // It may have been discarded meanwhile.
        if let Some(file) = state.files.get_mut(&index).filter(|now| now.id == file.id) {
            let before = file.kept.len_bytes();
            kept.iter().for_each(|piece| file.kept.insert(piece.offset_bytes..piece.end_bytes()));
            copied_bytes = file.kept.len_bytes() - before;
            if file.kept.is_empty() {
                // It will be created again, by whoever writes to it first.
                file.is_created = false;
                self.handles.forget(file.id);
            }
        }
        state.summary.copied_bytes += copied_bytes;
        Ok(())
    }

    /// Wants what is still missing.
    fn settle_delta(&self, index: u64) -> Result<Plan, DestinationError> {
        let mut state = lock(&self.state);
        let file = state.files.get_mut(&index).ok_or(DestinationError::NotWanted { entry: index })?;
        let missing = file.kept.missing(file.size_bytes);
        if missing.is_empty() {
            file.stage = Stage::Complete;
        }
        Ok(Plan::Want { missing, resumed_bytes: file.kept.len_bytes() })
    }
}

/// The pieces of a region of the old version, as far as it can be read.
fn cuts_of(old: &File, region: &Range<u64>, average_bytes: u32) -> Vec<PlacedCut> {
    let mut cuts = Vec::new();
    let mut at = region.start;
    let read = |offset: u64, buffer: &mut [u8]| read_exact(old, region.start + offset, buffer);
    let tell = |cut: shiplane_wire::Cut| {
        cuts.push(PlacedCut { offset_bytes: at, cut });
        at += u64::from(cut.len_bytes);
        Ok(())
    };
    // What was not read is simply not there to be copied.
    let _ = cut(region.end - region.start, average_bytes, read, tell);
    cuts
}

/// Parts of a whole file that are cut side by side, at the same places in both versions.
fn sections(len_bytes: u64) -> Vec<Range<u64>> {
    let starts = (0..len_bytes).step_by(SECTION_LEN_BYTES);
    starts.map(|start| start..len_bytes.min(start + SECTION_LEN_BYTES as u64)).collect()
}

/// Whether the pieces are all of a file that is as long as the entry's.
fn covers(pieces: &[PlacedCut], entry: &Entry) -> bool {
    union(pieces.iter().map(|piece| piece.offset_bytes..piece.end_bytes())).covers(entry.size_bytes)
        && pieces.last().is_some_and(|last| last.end_bytes() == entry.size_bytes)
}

fn sum_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Whether small pieces are worth their list: it is long if much is unknown, and of no use if little of the
/// old version is left to be found.
fn pays_to_refine(unmatched: &RangeSet, left: &RangeSet) -> bool {
    let (unmatched_bytes, left_bytes) = (unmatched.len_bytes(), left.len_bytes());
    unmatched_bytes > 0
        && unmatched_bytes.max(left_bytes) <= MAX_REFINED_BYTES
        && unmatched_bytes / MAX_GROWTH <= left_bytes
}

fn union(ranges: impl Iterator<Item = Range<u64>>) -> RangeSet {
    let mut set = RangeSet::default();
    ranges.for_each(|range| set.insert(range));
    set
}

fn is_unchanged(old: &File, copied: &Copied, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(copied.to.cut.len_bytes as usize, 0);
    read_exact(old, copied.from_bytes, buffer).is_ok() && Digest::of(buffer) == copied.to.cut.digest
}

fn read_exact(file: &File, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match platform::read_at(file, offset_bytes + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

/// Doubled with the file's size, so that no list of large pieces has more than some hundred thousand.
fn coarse_average(size_bytes: u64) -> u32 {
    let mut average_bytes = COARSE_AVERAGE_BYTES;
    while u64::from(average_bytes) * COARSE_PIECES < size_bytes {
        average_bytes *= 2;
    }
    average_bytes
}

/// 1 MiB: below it, to send the bytes takes no longer than to find out which.
const MIN_MISSING_BYTES: u64 = 1 << 20;

/// 64 KiB: less has hardly a large piece in it.
const MIN_OLD_BYTES: u64 = 64 << 10;

/// 64 GiB: the largest file whose list stays within some 10 MiB of memory, at the largest average there is.
const MAX_SIZE_BYTES: u64 = 64 << 30;

/// 128 KiB: of 1 GiB with a hundred edits of 4 KiB, the lists of both rounds are then about equally long, and
/// with [`FINE_AVERAGE_BYTES`] no other pair sends less: 1.3 MiB in all (`delta_sweep` counts it). Larger
/// pieces make the second list longer, smaller ones the first.
const COARSE_AVERAGE_BYTES: u32 = 128 << 10;

/// Up to 8 GiB at the smallest average.
const COARSE_PIECES: u64 = 64 << 10;

/// 2 KiB: counted likewise, an edit of 4 KiB costs 8 KiB of pieces it touches, and a list of 3 KiB.
const FINE_AVERAGE_BYTES: u32 = 2 << 10;

/// 256 MiB: a list of 4.5 MiB, and three times that in memory.
const MAX_REFINED_BYTES: u64 = 256 << 20;

/// Where the new version has grown by more than eight times of what is left of the old one, seven eighths of
/// the list could match nothing.
const MAX_GROWTH: u64 = 8;

/// 64 MiB: some pieces of an older file are not found where a section begins, so that they be few; enough
/// of them for every thread from some hundred MiB on.
const SECTION_LEN_BYTES: usize = 64 << 20;

/// 8 MiB of large pieces: enough groups for every thread.
const COPIES_PER_GROUP: usize = 64;

/// Some 300 KiB of journal at a time.
const RECORDS_PER_WRITE: usize = 4096;
