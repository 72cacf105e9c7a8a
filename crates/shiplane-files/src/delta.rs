//! Reuses blocks of the old version of a file instead of receiving them.
//!
//! There are two rounds, so that the lists stay short. The peer first sends signatures of large blocks of the whole file,
//! then of small blocks within the large ones that were not found here. Most of what two versions have in common is at
//! the same offset, or all shifted by the same amount. So while the list arrives, each block is first looked up where
//! the [`predictor`] expects it; it is read, hashed, compared and written in one pass. Only for blocks that are not found
//! there, the old version is split too, and they are looked up by content. Every copied block is hashed (SPEC 4.14), so
//! it is as reliable as a received chunk.

mod copying;
mod predictor;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use shiplane_wire::{BlockSignature, DigestAlgorithm, Entry};

use crate::{
    blocks::{Block, split},
    buffers::Buffers,
    error::DestinationError,
    lock, parallel,
    plan::{Plan, Planner},
    platform::{self, Kind, RangeSet},
    site::Site,
    state::ActiveFile,
    store::ChunkStore,
};

/// A file that is being put together from its old version.
#[derive(Debug)]
pub(super) struct Delta {
    round: Round,
    /// Opened when its turn comes: a thousand of them may be waiting.
    old: Option<Arc<File>>,
    old_len_bytes: u64,
    average_bytes: u32,
    /// Of the blocks.
    algorithm: DigestAlgorithm,
    predictor: OffsetPredictor,
    /// Nothing of what was found is copied: so far the new version may be the old one.
    is_same_so_far: bool,
    /// What of the new version was found on the predictor, and where.
    found: Vec<Copied>,
    /// Where in the old version small blocks may be.
    regions: Vec<Range<u64>>,
    /// The old version's own blocks, of what was not found on the predictor, once they are needed.
    ours: Option<Arc<OldBlocks>>,
}

/// By how much the old version's bytes have moved, as far as it has been followed.
#[derive(Debug, Default)]
struct OffsetPredictor {
    /// What is at an offset of the new version is at that plus this in the old one.
    shift_bytes: i64,
    /// How many times in a row the predictor was lost and not found again nearby.
    misses: u32,
}

/// Bytes of the old version that are also in the new one.
#[derive(Clone, Copy, Debug)]
struct Copied {
    from_bytes: u64,
    to: Block,
}

impl Copied {
    /// Where in the old version.
    fn from(&self) -> Range<u64> {
        self.from_bytes..self.from_bytes + u64::from(self.to.signature.len_bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Large blocks of the whole file.
    Coarse,
    /// Small blocks of the ranges that are not found yet.
    Fine,
}

/// OldBlocks of the old version.
#[derive(Debug)]
struct OldBlocks {
    placed: Vec<Block>,
    /// Where one stands of each content, those found on the predictor included.
    by_content: HashMap<BlockSignature, u64>,
}

/// Takes from old versions of files what new ones have in common with them.
#[derive(Debug)]
pub(super) struct DeltaMatcher {
    site: Arc<Site>,
    store: Arc<ChunkStore>,
    /// By number of the entry.
    deltas: Mutex<HashMap<u64, Delta>>,
    /// Of files of which no piece could be written.
    failed: Mutex<HashMap<u64, DestinationError>>,
    buffers: Buffers,
}

impl DeltaMatcher {
    pub(super) fn new(site: &Arc<Site>, store: &Arc<ChunkStore>, buffers: Buffers) -> Self {
        let (site, store) = (Arc::clone(site), Arc::clone(store));
        Self { site, store, deltas: Mutex::default(), failed: Mutex::default(), buffers }
    }

    /// The file is given up.
    pub(super) fn forget(&self, index: u64) {
        lock(&self.deltas).remove(&index);
        lock(&self.failed).remove(&index);
    }

    /// Turns a plan that wants much of a file into [`Plan::Delta`], if there is an old version of it.
    pub(super) fn offer(
        &self,
        planner: &Planner,
        index: u64,
        entry: &Entry,
        plan: Plan,
    ) -> Result<Plan, DestinationError> {
        if !(MIN_MISSING_BYTES..=MAX_SIZE_BYTES).contains(&entry.size_bytes) {
            return Ok(plan);
        }
        let target = match &plan {
            Plan::Want { missing, .. } if sum_of(missing) >= MIN_MISSING_BYTES => {
                self.store.file(index).map(|file| file.target)
            }
            // To tell by the blocks whether it is the same costs no more than by one digest, and if it is
            // not, most of the work is done.
            Plan::Compare { is_likely_same: false }
                if self.site.options.existing.replaces() && is_plain(index, entry) =>
            {
                Some(self.site.target_of(&entry.path))
            }
            Plan::Want { .. }
            | Plan::Compare { .. }
            | Plan::Done
            | Plan::Kept
            | Plan::Linked
            | Plan::LeftOut
            | Plan::Delta { .. } => None,
        };
        let Some(target) = target else { return Ok(plan) };
        let parent = self.site.parent_of(&target)?;
        // Whatever is wrong with the old version: the new one can still come whole.
        let Ok(stat) = platform::stat(&parent.dir, target.file_name()) else { return Ok(plan) };
        if stat.kind != Kind::File || !(MIN_OLD_BYTES..=MAX_SIZE_BYTES).contains(&stat.size_bytes) {
            return Ok(plan);
        }
        if let Plan::Compare { .. } = plan
            && let wanted = planner.want(index, entry, target)?
            && let Plan::Want { missing, .. } = &wanted
            && sum_of(missing) < MIN_MISSING_BYTES
        {
            return Ok(wanted); // An earlier run has kept nearly all of it.
        }
        let is_same_so_far = stat.size_bytes == entry.size_bytes
            && entry.holes.is_empty()
            && self.store.file(index).is_some_and(|file| !file.is_begun);
        // For the longer version: both are split.
        let average_bytes = coarse_average(entry.size_bytes.max(stat.size_bytes));
        let delta = Delta {
            round: Round::Coarse,
            old: None,
            old_len_bytes: stat.size_bytes,
            average_bytes,
            algorithm: self.site.options.digest,
            predictor: OffsetPredictor::default(),
            is_same_so_far,
            found: Vec::new(),
            regions: Vec::new(),
            ours: None,
        };
        lock(&self.deltas).insert(index, delta);
        let data: Vec<_> = entry.holes.data(entry.size_bytes).collect();
        Ok(Plan::Delta { ranges: sections(&data), average_bytes })
    }

    /// A failure is kept until [`delta`](Self::delta) tells it, for the sake of the files that have none.
    pub(super) fn follow(&self, index: u64, theirs: &[Block]) {
        if let Err(error) = self.try_to_follow(index, theirs) {
            lock(&self.failed).insert(index, error);
        }
    }

    fn try_to_follow(&self, index: u64, theirs: &[Block]) -> Result<(), DestinationError> {
        let (delta, file) = (lock(&self.deltas).remove(&index), self.store.file(index));
        // It may have been discarded meanwhile.
        let (Some(mut delta), Some(file)) = (delta, file) else { return Ok(()) };
        let Some(old) = self.old_version(&mut delta, &file) else { return Ok(()) };
        if delta.round == Round::Coarse && delta.ours.is_none() {
            self.follow_prediction(index, &file, &mut delta, &old, theirs)?;
        } else {
            self.copy_matching(index, &file, &mut delta, &old, theirs)?;
        }
        self.wait_for_more(index, &file, delta);
        Ok(())
    }

    /// Whether it is the same as the old version: then `None`.
    pub(super) fn delta(
        &self,
        index: u64,
        entry: &Entry,
        theirs: &[Block],
    ) -> Result<Option<Plan>, DestinationError> {
        if let Some(error) = lock(&self.failed).remove(&index) {
            return Err(error);
        }
        let file = self.store.file(index).ok_or(DestinationError::NotWanted { entry: index })?;
        let delta = lock(&self.deltas).remove(&index);
        // It is gone if the old version could not be read.
        let Some(mut delta) = delta else { return self.settle(index) };
        let Some(old) = self.old_version(&mut delta, &file) else { return self.settle(index) };
        if delta.is_same_so_far && covers(&delta.found, entry) {
            self.store.forget(index);
            self.site.mend(&entry.into(), &file.target, &old)?;
            return Ok(None);
        }
        self.copy_what_was_same(index, &file, &mut delta, &old)?;
        let mut unmatched = self.still_missing(index, theirs)?;
        if !unmatched.is_empty() {
            self.copy_matching(index, &file, &mut delta, &old, &unmatched)?;
            unmatched = self.still_missing(index, &unmatched)?;
        }
        let unmatched = union(unmatched.iter().map(Block::range));
        let known: HashSet<_> = theirs.iter().map(|block| block.signature.digest).collect();
        let ours = delta.ours.iter().flat_map(|ours| &ours.placed);
        let left = union(ours.filter(|block| !known.contains(&block.signature.digest)).map(Block::range));
        if delta.round == Round::Fine || !pays_to_refine(&unmatched, &left) {
            return self.settle(index);
        }
        let (regions, average_bytes) = (left.ranges().to_vec(), FINE_AVERAGE_BYTES);
        let fine =
            Delta { round: Round::Fine, regions, average_bytes, ours: None, found: Vec::new(), ..delta };
        self.wait_for_more(index, &file, fine);
        Ok(Some(Plan::Delta { ranges: unmatched.ranges().to_vec(), average_bytes }))
    }

    /// Unless it is given up meanwhile, which is looked at after it would be forgotten.
    fn wait_for_more(&self, index: u64, file: &ActiveFile, delta: Delta) {
        lock(&self.deltas).insert(index, delta);
        if !self.store.has(index, file) {
            self.forget(index);
        }
    }

    fn old_version(&self, delta: &mut Delta, file: &ActiveFile) -> Option<Arc<File>> {
        if delta.old.is_none()
            && let Ok(parent) = self.site.parent_of(&file.target)
            && let Ok(old) = platform::open_file(&parent.dir, file.target.file_name())
        {
            if self.store.has_failed_sync() {
                platform::forget_cached(&old);
            }
            delta.old = Some(Arc::new(old));
        }
        delta.old.clone()
    }

    /// Copies every block of theirs that stands anywhere in the old version.
    fn copy_matching(
        &self,
        index: u64,
        file: &ActiveFile,
        delta: &mut Delta,
        old: &File,
        theirs: &[Block],
    ) -> Result<(), DestinationError> {
        let ours = delta.ours.get_or_insert_with(|| {
            let regions = match delta.round {
                Round::Coarse => &not_found(&delta.found, delta.old_len_bytes),
                Round::Fine => &delta.regions,
            };
            Arc::new(OldBlocks::of(
                old,
                regions,
                delta.average_bytes,
                self.site.options.digest,
                &delta.found,
                &self.buffers,
            ))
        });
        let find = |to: &Block| {
            let from_bytes = *ours.by_content.get(&to.signature)?;
            Some(Copied { from_bytes, to: *to })
        };
        let copies: Vec<_> = not_kept(&file.kept, theirs).iter().filter_map(find).collect();
        self.copy(index, file, old, &copies).map(|_| ())
    }

    /// Those of the blocks that are not in the temporary file by now.
    fn still_missing(&self, index: u64, theirs: &[Block]) -> Result<Vec<Block>, DestinationError> {
        let file = self.store.file(index).ok_or(DestinationError::NotWanted { entry: index })?;
        Ok(not_kept(&file.kept, theirs))
    }

    /// Wants what is still missing.
    fn settle(&self, index: u64) -> Result<Option<Plan>, DestinationError> {
        let (missing, resumed_bytes) = self.store.settle(index)?;
        if lock(&self.deltas).is_empty() {
            self.buffers.free();
        }
        Ok(Some(Plan::Want { missing, resumed_bytes }))
    }
}

impl OldBlocks {
    /// The blocks of these regions, as far as they can be read.
    fn of(
        old: &File,
        regions: &[Range<u64>],
        average_bytes: u32,
        algorithm: DigestAlgorithm,
        found: &[Copied],
        buffers: &Buffers,
    ) -> Self {
        let blocks = parallel::map(&sections(regions), |region| {
            blocks_of(old, region, average_bytes, algorithm, buffers)
        });
        let placed: Vec<_> = blocks.into_iter().flatten().collect();
        let by_content = placed.iter().map(|block| (block.signature, block.offset_bytes));
        let found = found.iter().map(|copied| (copied.to.signature, copied.from_bytes));
        let by_content = by_content.chain(found).collect();
        Self { placed, by_content }
    }
}

/// The blocks of a region of the old version, as far as it can be read.
fn blocks_of(
    old: &File,
    region: &Range<u64>,
    average_bytes: u32,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut at = region.start;
    let read = |offset: u64, buffer: &mut [u8]| platform::read_exact_at(old, region.start + offset, buffer);
    let tell = |more: Vec<BlockSignature>| {
        for signature in more {
            blocks.push(Block { offset_bytes: at, signature });
            at += u64::from(signature.len_bytes);
        }
        Ok(())
    };
    // What was not read is simply not there to be copied.
    let _ = split(region.end - region.start, average_bytes, algorithm, buffers, read, tell);
    blocks
}

/// Those of the blocks of which not all is kept.
fn not_kept(kept: &RangeSet, theirs: &[Block]) -> Vec<Block> {
    theirs.iter().filter(|block| !kept.contains(&block.range())).copied().collect()
}

/// What of the old version is not among these blocks.
fn not_found(found: &[Copied], old_len_bytes: u64) -> Vec<Range<u64>> {
    union(found.iter().map(Copied::from)).missing(old_len_bytes)
}

/// Parts of ranges that are split in parallel. For a whole file, all its versions have the same parts.
fn sections(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let section = |start: u64, end: u64| start..end.min(start + SECTION_LEN_BYTES as u64);
    let sections = |range: &Range<u64>| {
        let end = range.end;
        range.clone().step_by(SECTION_LEN_BYTES).map(move |start| section(start, end))
    };
    ranges.iter().flat_map(sections).collect()
}

/// Whether an entry is a file of its own, without holes: then its blocks tell all of it.
fn is_plain(index: u64, entry: &Entry) -> bool {
    entry.holes.is_empty() && entry.first.is_none_or(|first| first == index)
}

/// Whether the blocks are all of a file.
fn covers(found: &[Copied], entry: &Entry) -> bool {
    union(found.iter().map(|copied| copied.to.range())).covers(entry.size_bytes)
}

fn sum_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Whether small blocks are worth their list: it is long if much is unknown, and of no use if little of the
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

/// Doubled with the file's size, so that no list of large blocks has more than some hundred thousand.
fn coarse_average(size_bytes: u64) -> u32 {
    let mut average_bytes = COARSE_AVERAGE_BYTES;
    while u64::from(average_bytes) * COARSE_BLOCKS < size_bytes {
        average_bytes *= 2;
    }
    average_bytes
}

/// 1 MiB: below it, to send the bytes takes no longer than to find out which.
const MIN_MISSING_BYTES: u64 = 1 << 20;

/// 64 KiB: less has hardly a large block in it.
const MIN_OLD_BYTES: u64 = 64 << 10;

/// 64 GiB: the largest file whose list stays within some 10 MiB of memory, at the largest average there is.
const MAX_SIZE_BYTES: u64 = 64 << 30;

/// 128 KiB: of 1 GiB with a hundred edits of 4 KiB, the lists of both rounds are then about equally long, and
/// with [`FINE_AVERAGE_BYTES`] no other pair sends less: 1.3 MiB in all (`delta_sweep` counts it). Larger
/// blocks make the second list longer, smaller ones the first.
const COARSE_AVERAGE_BYTES: u32 = 128 << 10;

/// Up to 8 GiB at the smallest average.
const COARSE_BLOCKS: u64 = 64 << 10;

/// 2 KiB: counted likewise, an edit of 4 KiB costs 8 KiB of blocks it touches, and a list of 3 KiB.
const FINE_AVERAGE_BYTES: u32 = 2 << 10;

/// 256 MiB: a list of 4.5 MiB, and three times that in memory.
const MAX_REFINED_BYTES: u64 = 256 << 20;

/// Where the new version has grown by more than eight times of what is left of the old one, seven eighths of
/// the list could match nothing.
const MAX_GROWTH: u64 = 8;

/// 64 MiB: some blocks of an older file are not found where a section begins, so that they be few; enough
/// of them for every thread from some hundred MiB on.
const SECTION_LEN_BYTES: usize = 64 << 20;
