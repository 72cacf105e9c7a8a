//! A file of unknown length, which comes in parts (SPEC 4.32).

use std::io;

use shiplane_wire::{Digest, Entry, Version};

use crate::{
    destination::{Destination, Parts},
    error::{DestinationError, Operation},
    existing::Existing,
    hash::digest_of,
    lock,
    plan::Plan,
    platform::{self, Kind},
    policy::FileEvent,
    state::{Fate, UNKNOWN_SIZE},
};

/// The number of the file that the parts become, for chunks and in what is left out.
const WHOLE: u64 = 0;

impl Destination {
    /// Decides what is to be done for the next part of a file of unknown length, the only one of the transfer. Chunks are
    /// written by their offsets in the file, as entry 0.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NotResumable`] if the parts before the first one are not here,
    /// [`DestinationError::NotRequested`] for a part that does not follow the one before, else as for
    /// [`plan`](Self::plan).
    pub fn plan_part(&self, part: &Entry) -> Result<Plan, DestinationError> {
        let Parts { site, store, parted, .. } = &*self.parts;
        let not_requested = || DestinationError::NotRequested { path: part.path.to_string() };
        let (id, offset_bytes) = part.version.part();
        let version = Version::of_part(id, 0);
        let whole = Entry { size_bytes: UNKNOWN_SIZE, version, ..part.clone() };
        let end_bytes = offset_bytes.checked_add(part.size_bytes).filter(|end| *end < UNKNOWN_SIZE);
        let end_bytes = end_bytes.filter(|_| part.first.is_none() && part.holes.ranges().is_empty());
        let end_bytes = end_bytes.ok_or_else(not_requested)?;
        self.policy().admit(part)?;
        let mut parted = lock(parted);
        let fate = match parted.fate {
            Some(fate) if parted.last.is_some_and(|(last, _)| last == version) => fate,
            Some(_) => return Err(not_requested()),
            None => {
                parted.end_bytes = offset_bytes;
                *parted.fate.insert(self.begin_parts(&whole, offset_bytes)?)
            }
        };
        let is_it = site.file.as_ref().is_some_and(|(_, requested)| part.path.as_bytes() == requested);
        if !is_it || offset_bytes != parted.end_bytes {
            return Err(not_requested());
        }
        (parted.last, parted.end_bytes) = (Some((version, part.mtime)), end_bytes);
        Ok(match fate {
            Fate::Kept => Plan::Kept,
            Fate::LeftOut => Plan::LeftOut,
            Fate::Compared if part.size_bytes == 0 => Plan::Done,
            Fate::Compared => Plan::Compare { is_likely_same: false },
            Fate::Wanted => {
                let Some(file) = store.file(WHOLE) else { return Ok(Plan::LeftOut) };
                let missing =
                    file.kept.missing(end_bytes).into_iter().filter(|range| range.end > offset_bytes);
                let missing: Vec<_> = missing
                    .map(|range| range.start.max(offset_bytes) - offset_bytes..range.end - offset_bytes)
                    .collect();
                let missing_bytes: u64 = missing.iter().map(|range| range.end - range.start).sum();
                Plan::Want { missing, resumed_bytes: part.size_bytes - missing_bytes }
            }
        })
    }

    /// Decides about the file, the first part of which begins at `offset_bytes`.
    fn begin_parts(&self, whole: &Entry, offset_bytes: u64) -> Result<Fate, DestinationError> {
        let Parts { site, store, planner, .. } = &*self.parts;
        let target = site.target_of(&whole.path);
        if let Some(deletion) = self.deletion() {
            deletion.sent(&whole.path, site.folds);
        }
        let is_compared = site.options.existing == Existing::Refuse
            && site.examine(&target)?.is_some_and(|found| found.kind == Kind::File);
        let fate = if is_compared {
            Fate::Compared
        } else {
            match self.planned(WHOLE, whole, planner.plan(WHOLE, whole))? {
                Plan::Want { .. } => Fate::Wanted,
                Plan::LeftOut => Fate::LeftOut,
                Plan::Done | Plan::Kept | Plan::Linked | Plan::Compare { .. } | Plan::Delta { .. } => {
                    Fate::Kept
                }
            }
        };
        let is_here = match fate {
            Fate::Wanted => store.file(WHOLE).is_some_and(|file| file.kept.covers(offset_bytes)),
            // Whether the content before was the same is not known.
            Fate::Compared => offset_bytes == 0,
            Fate::Kept | Fate::LeftOut => true,
        };
        if is_here { Ok(fate) } else { Err(DestinationError::NotResumable { path: site.show(&target) }) }
    }

    /// Goes on after [`Plan::Compare`], now that the peer's digest of the part is known.
    ///
    /// # Errors
    ///
    /// [`DestinationError::Exists`] if the file that is there is another one, or what the system says.
    pub fn compare_part(&self, part: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        let Parts { site, .. } = &*self.parts;
        let target = site.target_of(&part.path);
        let failed = |error: io::Error| site.failed(Operation::Read, &target, error);
        let file = platform::open_file(&site.parent_of(&target)?.dir, target.file_name()).map_err(failed)?;
        let (_, offset_bytes) = part.version.part();
        let range = offset_bytes..offset_bytes + part.size_bytes;
        let ours = digest_of(site.options.digest, [range], |at, buffer| platform::read_at(&file, at, buffer));
        if ours.map_err(failed)? == theirs { Ok(Plan::Done) } else { Err(site.exists(&target)) }
    }

    /// All parts have come: gives the file its name, or says that it was there.
    ///
    /// # Errors
    ///
    /// [`DestinationError::Exists`] if the file that is there is longer, [`DestinationError::Unfinished`] if there was no
    /// part, else as for [`publish`](Self::publish).
    pub fn end_parts(&self) -> Result<(), DestinationError> {
        let Parts { site, store, planner, parted, .. } = &*self.parts;
        let parted = lock(parted);
        let (Some(fate), Some((_, mtime)), Some((target, _))) = (parted.fate, parted.last, &site.file) else {
            return Err(DestinationError::Unfinished { files: 1 });
        };
        match fate {
            Fate::Wanted if store.end(WHOLE, parted.end_bytes, mtime)? => self.publish(&[WHOLE]).map(drop),
            Fate::Wanted | Fate::Kept | Fate::LeftOut => Ok(()),
            Fate::Compared => {
                let found = site.examine(target)?;
                if found.is_none_or(|found| found.size_bytes != parted.end_bytes) {
                    return Err(site.exists(target));
                }
                planner.identical();
                self.on_file(target, parted.end_bytes, FileEvent::Identical)
            }
        }
    }
}
