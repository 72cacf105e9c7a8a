//! The state of a destination during a transfer.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use shiplane_wire::{Attributes, Entry, LinkTarget, Mtime, RelPath, Version};

use crate::{
    path_list::{Item, decode_bytes, encode_bytes},
    platform::RangeSet,
    record::take,
};

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
    pub(super) attributes: Option<Attributes>,
    pub(super) version: Version,
    pub(super) kept: RangeSet,
    /// Of that, holes, which are nowhere.
    pub(super) hole_bytes: u64,
    /// The journal knows of it.
    pub(super) is_begun: bool,
    /// The temporary file has kept bytes in it, so that it must be opened, not created.
    pub(super) is_created: bool,
    /// Mode and time are set.
    pub(super) is_sealed: bool,
    pub(super) state: FileState,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// Bytes are missing, or their completion has not been reported yet.
    Filling,
    /// All bytes are there.
    Complete,
    /// Somebody is publishing it.
    Publishing,
    /// It could not be made durable.
    Poisoned,
    /// It could not be written, and will be discarded.
    LeftOut,
}

/// How far a file is that comes in parts.
#[derive(Debug, Default)]
pub(super) struct PartedFile {
    pub(super) fate: Option<Fate>,
    /// The last part, but for its offset; and where the next begins.
    pub(super) last: Option<(Version, Mtime)>,
    pub(super) end_bytes: u64,
}

/// What becomes of the parts of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Wanted,
    /// Another file is there, and stays.
    Kept,
    /// A file is there that may not be replaced: each part must be the same as what it has in that place.
    Compared,
    LeftOut,
}

/// The mode, time and attributes that a file or directory is to have. Without a mode or attributes it keeps its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) mode: Option<u32>,
    pub(super) mtime: Mtime,
    pub(super) attributes: Option<Attributes>,
}

impl From<&Entry> for Metadata {
    fn from(entry: &Entry) -> Self {
        Self { mode: Some(entry.mode), mtime: entry.mtime, attributes: entry.attributes.clone() }
    }
}

/// A symbolic link that the peer announced, and that is laid at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) target: LinkTarget,
    pub(super) mtime: Mtime,
    pub(super) attributes: Option<Attributes>,
}

/// A further name of a file, which is laid at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HardLink {
    /// The number of its entry, and of that with the file's first name.
    pub(super) entry: u64,
    pub(super) first: u64,
    pub(super) size_bytes: u64,
    /// What has the name is another copy of the same content.
    pub(super) replaces_same: bool,
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
    /// Files that were there with other content, and stay.
    pub kept_files: u64,
    /// Files that were removed because the peer does not have them.
    pub deleted_files: u64,
    /// Such files stay, because something of the transfer is left out.
    pub is_deletion_withheld: bool,
    /// Directories of the transfer, new or not.
    pub directories: u64,
    /// Symbolic links of the transfer, new or not.
    pub links: u64,
    /// Of the published files, those that are further names of others.
    pub hard_links: u64,
}

/// Remembers which paths (or inodes) there were, 8 bytes each, and of many the last ones: a repeated one is reported as the peer's
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

impl ActiveFile {
    pub(super) fn new(entry: &Entry, target: RelPath, id: u64) -> Self {
        Self {
            id,
            path: entry.path.clone(),
            target,
            size_bytes: entry.size_bytes,
            mode: entry.mode & FILE_MODES,
            mtime: entry.mtime,
            attributes: entry.attributes.clone(),
            version: entry.version,
            kept: RangeSet::default(),
            hole_bytes: entry.holes.len_bytes(),
            is_begun: false,
            is_created: false,
            is_sealed: false,
            state: FileState::Filling,
        }
    }

    /// Its size, as far as that is known.
    pub(super) fn known_bytes(&self) -> u64 {
        if self.size_bytes == UNKNOWN_SIZE { 0 } else { self.size_bytes }
    }

    /// Whether nothing of it is to come though it is neither empty nor a copy of what is here.
    pub(super) fn is_all_hole(&self) -> bool {
        self.size_bytes > 0 && self.hole_bytes == self.size_bytes && !self.is_sealed
    }

    /// Whether it can be opened again once it has its final mode.
    pub(super) fn is_accessible(&self) -> bool {
        self.mode & OWNER_MODE == OWNER_MODE
    }

    /// What it is created with: whatever its final mode, we must be able to write it.
    pub(super) fn creation_mode(&self) -> u32 {
        self.mode | OWNER_MODE
    }
}

impl Item for Metadata {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.mode.unwrap_or(NO_MODE).to_le_bytes());
        encode_mtime(self.mtime, out);
        encode_attributes(self.attributes.as_ref(), out);
    }

    fn decode(block: &mut &[u8]) -> Option<Self> {
        let mode = Some(u32::from_le_bytes(take(block)?)).filter(|mode| *mode != NO_MODE);
        Some(Self { mode, mtime: decode_mtime(block)?, attributes: decode_attributes(block)? })
    }
}

impl Item for Link {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_mtime(self.mtime, out);
        // At most 4,095.
        encode_bytes(self.target.as_bytes(), out);
        encode_attributes(self.attributes.as_ref(), out);
    }

    fn decode(block: &mut &[u8]) -> Option<Self> {
        let mtime = decode_mtime(block)?;
        let target = LinkTarget::parse(decode_bytes(block)?).ok()?;
        Some(Self { mtime, target, attributes: decode_attributes(block)? })
    }
}

impl Item for HardLink {
    fn encode(&self, out: &mut Vec<u8>) {
        for field in [self.entry, self.first, self.size_bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.push(self.replaces_same.into());
    }

    fn decode(block: &mut &[u8]) -> Option<Self> {
        let mut field = || Some(u64::from_le_bytes(take(block)?));
        let (entry, first, size_bytes) = (field()?, field()?, field()?);
        let [replaces_same] = take(block)?;
        Some(Self { entry, first, size_bytes, replaces_same: replaces_same != 0 })
    }
}

fn encode_attributes(attributes: Option<&Attributes>, out: &mut Vec<u8>) {
    // At most 60 KiB.
    encode_bytes(attributes.map(Attributes::as_bytes).unwrap_or_default(), out);
}

/// What is empty are none.
fn decode_attributes(block: &mut &[u8]) -> Option<Option<Attributes>> {
    match decode_bytes(block)? {
        b"" => Some(None),
        bytes => Attributes::parse(bytes).ok().map(Some),
    }
}

fn encode_mtime(mtime: Mtime, out: &mut Vec<u8>) {
    out.extend_from_slice(&mtime.secs.to_le_bytes());
    out.extend_from_slice(&mtime.nanos.to_le_bytes());
}

fn decode_mtime(block: &mut &[u8]) -> Option<Mtime> {
    Some(Mtime { secs: i64::from_le_bytes(take(block)?), nanos: u32::from_le_bytes(take(block)?) })
}

/// The size of a file that comes in parts, until the last is here. No file is so long.
pub(super) const UNKNOWN_SIZE: u64 = u64::MAX;

/// Of what cannot be resumed.
pub(super) const NO_VERSION: Version = Version::from_bytes([0; Version::LEN_BYTES]);

/// What is taken of a peer's mode of a file: no setuid, setgid or sticky bit.
pub(super) const FILE_MODES: u32 = 0o777;

/// What is taken of a peer's mode of a directory. Its setgid bit gives new files its group, and no process a right.
pub(super) const DIRECTORY_MODES: u32 = 0o3777;

/// What we need to fill a directory, whatever its final mode.
pub(super) const OWNER_DIRECTORY_MODE: u32 = 0o700;

/// Reading and writing for the owner.
const OWNER_MODE: u32 = 0o600;

/// No mode is this one, once it is masked.
const NO_MODE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use cap_std::{ambient_authority, fs::Dir};
    use shiplane_wire::Principal;
    use tempfile::TempDir;

    use super::*;
    use crate::path_list::PathList;

    fn come_back<T: Item + Clone + PartialEq + std::fmt::Debug>(items: &[T]) {
        let temp = TempDir::new().unwrap();
        let root = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let (mut list, path) = (PathList::default(), RelPath::parse(b"a/b").unwrap());
        items.iter().for_each(|item| list.push(&path, item, &root, b"spilled").unwrap());
        let mut found = Vec::new();
        let visit = |_: &RelPath, item: &T| {
            found.push(item.clone());
            Ok::<_, std::io::Error>(())
        };
        list.newest_first(|error| error, visit).unwrap();
        assert!(found.iter().rev().eq(items), "{found:?}");
    }

    #[test]
    fn what_is_kept_of_a_path_comes_back() {
        let owners = [Principal { id: 5, name: b"five" }, Principal::UNKNOWN];
        let attributes = Attributes::new(owners, [&[], &[]], std::iter::empty()).unwrap();
        let mtime = Mtime { secs: -1, nanos: 5 };
        let metadata = |mode, attributes| Metadata { mode, mtime, attributes };
        come_back(&[metadata(Some(0o750), Some(attributes.clone())), metadata(None, None)]);
        let target = LinkTarget::parse(b"../\xff").unwrap();
        come_back(&[Link { target, mtime, attributes: Some(attributes) }]);
        come_back(&[HardLink { entry: 1, first: 2, size_bytes: 3, replaces_same: true }]);
    }
}
