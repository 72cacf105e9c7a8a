//! The state of a destination during a transfer.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use shiplane_wire::{Entry, Mtime, RelPath, Version};

use crate::{announced::Announced, delta::Delta, ranges::RangeSet};

/// Files that are not published yet, and of the rest only what later steps need.
#[derive(Debug, Default)]
pub(super) struct State {
    /// By number of the entry.
    pub(super) files: HashMap<u64, ActiveFile>,
    /// Those of them that are being put together from an old version.
    pub(super) deltas: HashMap<u64, Delta>,
    /// The entries below this one were planned. Those that are in `files` no more were published or given up; chunks
    /// with bytes of the latter may still be on their way.
    pub(super) planned: u64,
    pub(super) seen: SeenPaths,
    /// The same in lower case, on a file system that folds names.
    pub(super) seen_folded: SeenPaths,
    /// Directories that the peer announced, and which they were.
    pub(super) directories: Announced,
    pub(super) announced: SeenPaths,
    /// Directories with names that are not durable yet.
    pub(super) unsynced: Unsynced,
    /// The first directories that this run has created in the root.
    pub(super) new_tops: HashSet<RelPath>,
    /// On a file system that folds names: device and inode of what this run has created.
    pub(super) own_inodes: SeenPaths,
    /// Temporary files that this run has made or taken up, by number, with the path that each is for: until they
    /// have that name, or are removed.
    pub(super) temps: HashMap<u64, RelPath>,
    /// Temporary files of earlier runs that somebody has come across.
    pub(super) strays: Vec<RelPath>,
    /// The next run of this job finds what this one leaves, whatever becomes of the names in the root.
    pub(super) is_findable: bool,
    /// Space that files resumed by this run occupy already and have no content in.
    pub(super) preallocated_bytes: u64,
    pub(super) summary: Summary,
    /// Whether this run changed anything beneath the root.
    pub(super) has_changes: bool,
    /// Whether there may be temporary files of this job that its journal does not know.
    pub(super) has_strays: bool,
    /// Whether what this run finds here, and has not written, must be durable at its end too.
    pub(super) relies_on_others: bool,
    /// The system failed to make something durable: this run cannot end well any more.
    pub(super) is_poisoned: bool,
    pub(super) is_finished: bool,
}

/// Directories with names that are not durable yet, `None` being the root, and their file systems.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    directories: HashMap<Option<RelPath>, u64>,
    len_bytes: usize,
}

impl Unsynced {
    pub(super) fn insert(&mut self, path: Option<RelPath>, device: u64) {
        let len_bytes = path.as_ref().map_or(0, |path| path.as_bytes().len()) + UNSYNCED_COST_BYTES;
        if self.directories.insert(path, device).is_none() {
            self.len_bytes += len_bytes;
        }
    }

    pub(super) fn remove(&mut self, path: &RelPath) {
        if self.directories.remove(&Some(path.clone())).is_some() {
            self.len_bytes -= path.as_bytes().len() + UNSYNCED_COST_BYTES;
        }
    }

    /// Whether they take so much memory that they are to be made durable now.
    pub(super) fn are_many(&self) -> bool {
        self.len_bytes >= MAX_UNSYNCED_BYTES
    }

    pub(super) fn take(&mut self) -> HashMap<Option<RelPath>, u64> {
        std::mem::take(self).directories
    }
}

/// A file on its way to its final name.
#[derive(Clone, Debug)]
pub(super) struct ActiveFile {
    /// Its number in the journal, and in its temporary name.
    pub(super) id: u64,
    /// What the peer calls it, and where it lands.
    pub(super) path: RelPath,
    pub(super) target: RelPath,
    pub(super) size_bytes: u64,
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
    pub(super) version: Version,
    pub(super) kept: RangeSet,
    /// The journal knows of it.
    pub(super) is_begun: bool,
    /// The temporary file has kept bytes in it, so that it must be opened, not created.
    pub(super) is_created: bool,
    /// Mode and time are set.
    pub(super) is_sealed: bool,
    pub(super) stage: Stage,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Bytes are missing, or nobody was told yet that none are.
    Filling,
    /// All bytes are there.
    Complete,
    /// Somebody is publishing it.
    Publishing,
    /// It could not be made durable.
    Poisoned,
}

/// A directory that the peer announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
    /// This run created it, so that its mode is ours to set.
    pub(super) is_new: bool,
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that were published.
    pub published_files: u64,
    /// Their size.
    pub published_bytes: u64,
    /// Of that, what earlier runs had kept.
    pub resumed_bytes: u64,
    /// Of that, what was copied from the versions that were here before.
    pub copied_bytes: u64,
    /// Files that were there already, with the same content.
    pub identical_files: u64,
    /// Directories of the transfer, new or not.
    pub directories: u64,
}

/// Remembers which paths (or inodes) there were, 8 bytes each, and of many the last ones: what comes twice is told as the peer's
/// fault, and does no harm where it is not noticed.
///
/// The hash is keyed afresh by every run, so that a peer cannot make two paths meet; a million honest
/// ones meet by chance once in thirty million transfers, and then the next run has another key.
#[derive(Debug, Default)]
pub(super) struct SeenPaths {
    hashes: HashSet<u64>,
    has_forgotten: bool,
    key: RandomState,
}

impl SeenPaths {
    /// Whether `path` is new.
    pub(super) fn insert(&mut self, path: &[u8]) -> bool {
        if self.hashes.len() >= MAX_SEEN_PATHS {
            self.hashes.clear();
            self.has_forgotten = true;
        }
        self.hashes.insert(self.key.hash_one(path))
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.hashes.contains(&self.key.hash_one(path))
    }

    /// Whether there were more than it remembers.
    pub(super) fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// 16,384: 300 KiB of them.
const MAX_SEEN_PATHS: usize = 1 << 14;

/// 256 KiB: some two thousand directories with usual paths.
const MAX_UNSYNCED_BYTES: usize = 256 << 10;

/// What a directory takes beside its path.
const UNSYNCED_COST_BYTES: usize = 64;

impl ActiveFile {
    pub(super) fn new(entry: &Entry, target: RelPath, id: u64) -> Self {
        Self {
            id,
            path: entry.path.clone(),
            target,
            size_bytes: entry.size_bytes,
            mode: entry.mode & 0o777,
            mtime: entry.mtime,
            version: entry.version,
            kept: RangeSet::default(),
            is_begun: false,
            is_created: false,
            is_sealed: false,
            stage: Stage::Filling,
        }
    }

    /// Whether the mode to create it with is also the one to leave it with.
    pub(super) fn keeps_creation_mode(&self) -> bool {
        self.mode & OWNER_MODE == OWNER_MODE
    }

    /// What it is created with: whatever its final mode, we must be able to write it.
    pub(super) fn creation_mode(&self) -> u32 {
        self.mode | OWNER_MODE
    }
}

/// Reading and writing for the owner.
const OWNER_MODE: u32 = 0o600;
