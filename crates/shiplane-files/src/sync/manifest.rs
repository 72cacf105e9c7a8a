//! Manifests of datasets.

use std::collections::{BTreeMap, btree_map::Iter};
use std::iter::Peekable;
use std::sync::OnceLock;

use shiplane_wire::{Attributes, Digest, Entry, EntryKind, Hasher, LinkTarget, Mtime, Principal, RelPath};

use crate::state::Metadata;

/// A dataset: its files and directories by path. Parents are there and are directories.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    nodes: BTreeMap<RelPath, Node>,
    /// Owners and attributes of those, as far as they are carried and known.
    attributes: BTreeMap<RelPath, Attributes>,
    /// Once it was asked for, until something changes.
    digest: OnceLock<Digest>,
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes && self.attributes == other.attributes
    }
}

impl Eq for Manifest {}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File(FileState),
    /// A directory.
    Directory(Stamp),
    /// A symbolic link.
    Link(LinkState),
}

/// A symbolic link, as far as sync goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// What it points to.
    pub target: LinkTarget,
    /// When it was made.
    pub mtime: Mtime,
}

/// Mode and time of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The permission bits, or [`UNKNOWN_MODE`](Self::UNKNOWN_MODE).
    pub mode: u32,
    /// When it was modified.
    pub mtime: Mtime,
}

impl Stamp {
    /// The mode on a file system that keeps none.
    pub const UNKNOWN_MODE: u32 = u32::MAX;

    /// Of a directory of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { mode: Self::UNKNOWN_MODE, mtime: Mtime { secs: 0, nanos: 0 } };

    /// Adds it to what is sent or written.
    pub(crate) fn apply(self, entry: &mut Entry) {
        let Metadata { mode, mtime, .. } = self.into();
        entry.mode = mode.unwrap_or(entry.mode);
        entry.mtime = mtime;
    }

    /// Whether one who has this is to be given `wanted`.
    pub(super) fn has_other_mode(self, wanted: Self) -> bool {
        self.mode != wanted.mode && self.mode != Self::UNKNOWN_MODE
    }
}

impl From<Stamp> for Metadata {
    fn from(stamp: Stamp) -> Self {
        let mode = Some(stamp.mode).filter(|mode| *mode != Stamp::UNKNOWN_MODE);
        Self { mode, mtime: stamp.mtime, attributes: None }
    }
}

/// A file, as far as sync goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Length of the content.
    pub size_bytes: u64,
    /// Of the content, by the digest of its sync.
    pub digest: Digest,
    /// Its mode and time.
    pub stamp: Stamp,
}

impl Node {
    /// Whether both stand for the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.digest == other.digest,
            (Self::Directory(_), Self::Directory(_)) => true,
            (Self::Link(one), Self::Link(other)) => one.target == other.target,
            (Self::File(_) | Self::Directory(_) | Self::Link(_), _) => false,
        }
    }

    pub(super) fn file(&self) -> Option<&FileState> {
        match self {
            Self::File(file) => Some(file),
            Self::Directory(_) | Self::Link(_) => None,
        }
    }

    pub(super) fn kind(&self) -> EntryKind {
        match self {
            Self::File(_) => EntryKind::File,
            Self::Directory(_) => EntryKind::Directory,
            Self::Link(_) => EntryKind::Symlink,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == EntryKind::Directory
    }

    pub(super) fn directory(&self) -> Option<Stamp> {
        match self {
            Self::Directory(stamp) => Some(*stamp),
            Self::File(_) | Self::Link(_) => None,
        }
    }

    /// Of what a file contains or a link points to.
    pub(super) fn content_digest(&self) -> Digest {
        match self {
            Self::File(file) => file.digest,
            Self::Link(link) => Digest::blake3(link.target.as_bytes()),
            Self::Directory(_) => Digest::blake3(b""),
        }
    }

    fn target_len_bytes(&self) -> usize {
        match self {
            Self::Link(link) => link.target.as_bytes().len(),
            Self::File(_) | Self::Directory(_) => 0,
        }
    }

    /// Mode and time.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::File(file) => file.stamp,
            Self::Directory(stamp) => *stamp,
            Self::Link(link) => Stamp { mode: Stamp::UNKNOWN_MODE, mtime: link.mtime },
        }
    }

    /// The same with another mode and time.
    pub(super) fn with_stamp(&self, stamp: Stamp) -> Self {
        match self {
            Self::File(file) => Self::File(FileState { stamp, ..*file }),
            Self::Directory(_) => Self::Directory(stamp),
            Self::Link(link) => Self::Link(LinkState { mtime: stamp.mtime, ..link.clone() }),
        }
    }
}

impl Manifest {
    /// Nothing: what two sides have in common that never met.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a node at a path, and directories of which nothing is known at those above it where there is nothing. Returns `false`, and
    /// changes nothing, if something else is in the way: a file or link above the path, or what the path already is
    /// if that is of the other kind.
    pub fn insert(&mut self, path: RelPath, node: Node) -> bool {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(parent) = above {
            match self.nodes.get(&parent) {
                Some(Node::Directory(_)) => break,
                Some(Node::File(_) | Node::Link(_)) => return false,
                None => {}
            }
            above = parent.parent();
            missing.push(parent);
        }
        if self.nodes.get(&path).is_some_and(|there| there.kind() != node.kind()) {
            return false;
        }
        self.digest.take();
        self.nodes.extend(missing.into_iter().map(|parent| (parent, Node::Directory(Stamp::UNKNOWN))));
        self.nodes.insert(path, node);
        true
    }

    /// Takes out what stands at `path` and everything beneath it, as if it had never existed. A
    /// `plan` of three manifests that have all forgotten a path does nothing there. Gives what was beneath it.
    pub fn forget(&mut self, path: &RelPath) -> Vec<RelPath> {
        self.digest.take();
        self.nodes.remove(path);
        self.attributes.remove(path);
        // The names beneath it stand together, those of `a-b` between `a` and `a/b`.
        let from = [path.as_bytes(), b"/"].concat();
        let beneath = self.nodes.range(path.clone()..).map(|(found, _)| found);
        let beneath = beneath.skip_while(|found| found.as_bytes() < &from[..]);
        let beneath: Vec<_> =
            beneath.take_while(|found| found.as_bytes().starts_with(&from)).cloned().collect();
        for path in &beneath {
            self.nodes.remove(path);
            self.attributes.remove(path);
        }
        beneath
    }

    /// Says which owners and attributes what is at a path has.
    pub(super) fn describe(&mut self, path: &RelPath, attributes: Option<Attributes>) {
        self.digest.take();
        match attributes.filter(|_| self.nodes.contains_key(path)) {
            Some(attributes) => drop(self.attributes.insert(path.clone(), attributes)),
            None => drop(self.attributes.remove(path)),
        }
    }

    /// Owners and attributes of what is at a path, if they are carried.
    pub fn attributes(&self, path: &RelPath) -> Option<&Attributes> {
        self.attributes.get(path)
    }

    /// Whether nothing is known of owners, or all of them are known.
    pub fn knows_owners(&self) -> Option<bool> {
        let is_known = |attributes: &Attributes| attributes.owners().iter().all(Principal::is_known);
        (!self.attributes.is_empty()).then(|| self.attributes.values().all(is_known))
    }

    /// The same without owners and attributes.
    pub(super) fn undescribed(self) -> Self {
        let digest = if self.attributes.is_empty() { self.digest } else { OnceLock::new() };
        Self { nodes: self.nodes, attributes: BTreeMap::new(), digest }
    }

    /// On a side that may not change owners: takes the owners of `known` for what is of the same kind there, and no
    /// others.
    pub(super) fn take_owners_of(&mut self, known: Option<&Self>) {
        if self.attributes.is_empty() {
            return;
        }
        self.digest.take();
        for (path, attributes) in &mut self.attributes {
            let kind = |manifest: &BTreeMap<RelPath, Node>| manifest.get(path).map(Node::kind);
            let known = known.filter(|known| kind(&known.nodes) == kind(&self.nodes));
            let known = known.and_then(|known| known.attributes(path));
            *attributes = attributes.with_owners(known.map_or([Principal::UNKNOWN; 2], Attributes::owners));
        }
    }

    /// Moves what stands at `from`, with all beneath it, to `to`, where nothing stands.
    pub(super) fn respell(&mut self, from: &RelPath, to: &RelPath) {
        self.digest.take();
        self.nodes = moved(std::mem::take(&mut self.nodes), from, to);
        self.attributes = moved(std::mem::take(&mut self.attributes), from, to);
    }

    /// What stands at a path.
    pub fn get(&self, path: &RelPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Everything, in the order of the paths: parents before their children.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&RelPath, &Node)> {
        self.nodes.iter()
    }

    /// How many files and directories there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What it counts as, with all that a sync makes of it.
    pub fn cost_bytes(&self) -> u64 {
        let nodes = self.nodes.iter().map(|(path, node)| node_cost_bytes(path.as_bytes(), node));
        let attributes = |(path, attributes): (&RelPath, &Attributes)| {
            attributes_cost_bytes(path.as_bytes(), attributes.as_bytes())
        };
        nodes.sum::<u64>() + self.attributes.iter().map(attributes).sum::<u64>()
    }

    /// On a file system that keeps no modes: takes those of `known` for what is of the same kind there, and no others.
    pub(super) fn take_modes_of(&mut self, known: Option<&Self>) {
        self.digest.take();
        for (path, node) in &mut self.nodes {
            let known = known.and_then(|known| known.get(path));
            let known = known.filter(|known| known.kind() == node.kind());
            let mode = known.map_or(Stamp::UNKNOWN_MODE, |known| known.stamp().mode);
            *node = node.with_stamp(Stamp { mode, ..node.stamp() });
        }
    }

    /// The directory at a path.
    pub fn directory(&self, path: &RelPath) -> Option<Stamp> {
        self.nodes.get(path).and_then(Node::directory)
    }

    /// The file or link at a path.
    pub(super) fn leaf(&self, path: &RelPath) -> Option<&Node> {
        self.nodes.get(path).filter(|node| !node.is_directory())
    }

    /// BLAKE3 of the paths, modes and times and the digests of contents (SPEC 4.19): equal for two datasets that need no sync. Computed once for each state.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| self.compute_digest())
    }

    /// Of nodes with the directories above them.
    pub(super) fn of_nodes(
        nodes: impl IntoIterator<Item = (RelPath, Node)>,
        attributes: Vec<(RelPath, Attributes)>,
    ) -> Self {
        let (nodes, attributes) = (nodes.into_iter().collect(), attributes.into_iter().collect());
        Self { nodes, attributes, digest: OnceLock::new() }
    }

    /// The file at a path.
    pub fn file(&self, path: &RelPath) -> Option<&FileState> {
        self.nodes.get(path).and_then(Node::file)
    }

    /// Whether there is a directory at a path.
    pub fn is_directory(&self, path: &RelPath) -> bool {
        matches!(self.nodes.get(path), Some(Node::Directory(_)))
    }

    /// The files, in the order of the paths.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, &FileState)> {
        self.nodes.iter().filter_map(|(path, node)| Some((path, node.file()?)))
    }
}

/// What each of some manifests has at every path that one of them has, in the order of the paths. Looking each of a hundred
/// thousand paths up takes several times as long.
pub(super) fn side_by_side<'a, const N: usize>(
    sides: [&'a Manifest; N],
) -> impl Iterator<Item = (&'a RelPath, [Option<&'a Node>; N])> {
    let mut sides = sides.map(|side| side.nodes.iter().peekable());
    std::iter::from_fn(move || {
        let path = sides.iter_mut().filter_map(|side| Some(side.peek()?.0)).min()?;
        let node = |side: &mut Peekable<Iter<'a, RelPath, Node>>| {
            side.next_if(|(found, _)| *found == path).map(|(_, node)| node)
        };
        Some((path, sides.each_mut().map(node)))
    })
}

/// By paths, of which those at or beneath `from` are at or beneath `to` then.
fn moved<T>(map: BTreeMap<RelPath, T>, from: &RelPath, to: &RelPath) -> BTreeMap<RelPath, T> {
    map.into_iter().map(|(path, value)| (path.moved(from, to).unwrap_or(path), value)).collect()
}

/// What an entry counts as.
pub(super) fn node_cost_bytes(path: &[u8], node: &Node) -> u64 {
    entry_cost_bytes(path.len() + node.target_len_bytes())
}

/// What an entry with a path, and perhaps a target, of this length counts as: in a list, in the copies of it that are compared and planned
/// with, and in what is to be done.
pub(super) fn entry_cost_bytes(len_bytes: usize) -> u64 {
    ENTRY_COST_BYTES + len_bytes as u64
}

/// 512: a name has some 30 bytes of its own, and each of four maps some 110 for it.
const ENTRY_COST_BYTES: u64 = 512;

/// What attributes count as, with a path of their own.
pub(super) fn attributes_cost_bytes(path: &[u8], attributes: &[u8]) -> u64 {
    ATTRIBUTES_COST_BYTES + (path.len() + attributes.len()) as u64
}

/// 256: an entry of each of three maps.
const ATTRIBUTES_COST_BYTES: u64 = 256;

/// Added to the kind of an entry that has owners and attributes.
pub(super) const HAS_ATTRIBUTES: u8 = 0x40;

impl Manifest {
    /// SPEC 4.19.
    fn compute_digest(&self) -> Digest {
        let mut hasher = Hasher::blake3();
        for (path, node) in &self.nodes {
            hasher.update(&(path.as_bytes().len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            let Stamp { mode, mtime: Mtime { secs, nanos } } = node.stamp();
            let attributes = self.attributes(path);
            hasher.update(&[node.kind() as u8 | if attributes.is_some() { HAS_ATTRIBUTES } else { 0 }]);
            hasher.update(&mode.to_le_bytes());
            hasher.update(&secs.to_le_bytes());
            hasher.update(&nanos.to_le_bytes());
            if !node.is_directory() {
                hasher.update(node.content_digest().as_bytes());
            }
            if let Some(attributes) = attributes {
                hasher.update(&(attributes.as_bytes().len() as u64).to_le_bytes());
                hasher.update(attributes.as_bytes());
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_current_entries() {
        let path = |path: &str| RelPath::parse(path.as_bytes()).unwrap();
        let mut manifest = Manifest::new();
        let empty = manifest.digest();
        assert!(manifest.insert(path("a/b"), Node::Directory(Stamp::UNKNOWN)));
        let two = manifest.digest();
        assert_ne!(two, empty);
        let copy = manifest.clone();
        assert!(manifest.insert(path("c"), Node::Directory(Stamp::UNKNOWN)));
        assert_ne!(manifest.digest(), two);
        assert_eq!(copy.digest(), two);
        manifest.forget(&path("c"));
        assert_eq!((manifest.digest(), &manifest), (two, &copy));
        for stamp in [
            Stamp { mode: 0o755, ..Stamp::UNKNOWN },
            Stamp { mtime: Mtime { secs: 0, nanos: 1 }, ..Stamp::UNKNOWN },
        ] {
            assert!(manifest.insert(path("a/b"), Node::Directory(stamp)));
            assert_ne!(manifest.digest(), two);
        }
        let owners = [Principal { id: 1, name: b"" }, Principal::UNKNOWN];
        let attributes = Attributes::new(owners, [&[], &[]], std::iter::empty());
        let (described, cost_bytes) = (manifest.digest(), manifest.cost_bytes());
        manifest.describe(&path("a/b"), attributes.clone());
        assert!(manifest.digest() != described && manifest.cost_bytes() > cost_bytes);
        assert_eq!(manifest.clone().undescribed().digest(), described);
        manifest.describe(&path("nowhere"), attributes);
        manifest.forget(&path("a"));
        assert_eq!((manifest.digest(), manifest.cost_bytes()), (empty, 0));
    }

    #[test]
    fn what_is_forgotten_takes_along_what_is_in_it_and_nothing_else() {
        let path = |path: &str| RelPath::parse(path.as_bytes()).unwrap();
        let mut manifest = Manifest::new();
        for leaf in ["a/b/c", "a/b-/c", "a/b.", "a/b/d/e", "a/b0", "a/c"] {
            assert!(manifest.insert(path(leaf), Node::Directory(Stamp::UNKNOWN)));
        }
        manifest.forget(&path("a/b"));
        manifest.forget(&path("not/there"));
        let left: Vec<_> = manifest.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(left, ["a", "a/b-", "a/b-/c", "a/b.", "a/b0", "a/c"]);
    }
}
