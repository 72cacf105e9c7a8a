//! Changes between a base and a manifest, and unknown paths (SPEC 4.19).

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut};
use shiplane_wire::{EscapedPath, LeftOutReason, PathRefused, RelPath};
use thiserror::Error;

use super::codec::{MAX_ENTRIES, ManifestError};
use super::manifest::{Manifest, Node, Stamp, entry_cost_bytes, side_by_side};

/// The difference between a manifest and the base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Which entries of the base are no more, or are of the other kind now; ascending.
    removed: Vec<u32>,
    /// Everything that is new or different, with the directories above it.
    changed: Manifest,
    /// What is there and cannot be synced, with all beneath it, and why: it is neither in the manifest nor deleted.
    pub unknown: BTreeMap<RelPath, LeftOutReason>,
    /// What is there and excluded by an ignore file or as another file system, with all beneath it.
    pub excluded: BTreeSet<RelPath>,
    /// What is there besides, under paths that cannot be sent.
    pub unsendable: Vec<EscapedPath>,
}

/// Why bytes are no changes, or not of this base. The peer has broken SPEC 4.19: nothing of it may be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangesError {
    /// They end too early.
    #[error("the list of changes is truncated")]
    Truncated,
    /// A number of an entry that the base does not have, or out of order.
    #[error("entry {entry} of the base is out of order or does not exist")]
    Entry {
        /// The number.
        entry: u32,
    },
    /// More than a manifest may have.
    #[error("{count} changes are over the limit of {max_count}")]
    TooMany {
        /// How many it says there are.
        count: u32,
        /// The limit.
        max_count: usize,
    },
    /// A reason that is not known here.
    #[error("the reason {value} is not known")]
    Reason {
        /// Its value.
        value: u8,
    },
    /// A path that is to be escaped is not.
    #[error("a path is not escaped")]
    NotEscaped,
    /// A path breaks a rule of SPEC 4.5.
    #[error("invalid path: {0}")]
    Path(#[from] PathRefused),
    /// A path would be in a file, or of both kinds.
    #[error("the change of {path} contradicts the base")]
    Contradiction {
        /// The path.
        path: RelPath,
    },
    /// What is changed is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Changes {
    /// What turns `base` into `now`.
    pub fn between(base: &Manifest, now: &Manifest, unknown: BTreeMap<RelPath, LeftOutReason>) -> Self {
        let (mut changes, mut entry) = (Self { unknown, ..Self::default() }, 0);
        for (path, [was, node]) in side_by_side([base, now]) {
            if let Some(was) = was {
                let is_gone = node.is_none_or(|node| node.kind() != was.kind());
                changes.removed.extend(is_gone.then_some(entry));
                entry += 1;
            }
            let Some(node) = node else { continue };
            if was == Some(node) && base.attributes(path) == now.attributes(path) {
                continue;
            }
            let above = std::iter::successors(path.parent(), RelPath::parent);
            let missing: Vec<_> = above.take_while(|above| changes.changed.get(above).is_none()).collect();
            for above in missing.into_iter().rev() {
                if let Some(directory) = now.get(&above) {
                    changes.changed.insert(above.clone(), directory.clone());
                    changes.changed.describe(&above, now.attributes(&above).cloned());
                }
            }
            changes.changed.insert(path.clone(), node.clone());
            changes.changed.describe(path, now.attributes(path).cloned());
        }
        changes
    }

    /// Paths that are not listed, with everything beneath them.
    pub fn unlisted(&self) -> impl Iterator<Item = &RelPath> {
        self.unknown.keys().chain(&self.excluded)
    }

    /// What `base` has turned into.
    ///
    /// # Errors
    /// [`ChangesError::Entry`], [`ChangesError::Contradiction`].
    pub fn apply(&self, base: &Manifest) -> Result<Manifest, ChangesError> {
        let mut removed = self.removed.iter().copied().peekable();
        let kept = (0..).zip(base.iter()).filter(|(entry, _)| removed.next_if_eq(entry).is_none());
        let (mut now, mut nodes) = (Manifest::new(), Vec::new());
        if self.removed.is_empty() {
            now = base.clone();
        } else {
            nodes = kept.map(|(_, node)| node).collect();
        }
        if let Some(entry) = removed.next() {
            return Err(ChangesError::Entry { entry });
        }
        let nodes = nodes.into_iter().map(|node| (base, node));
        for (manifest, (path, node)) in nodes.chain(self.changed.iter().map(|node| (&self.changed, node))) {
            if !now.insert(path.clone(), node.clone()) {
                return Err(ChangesError::Contradiction { path: path.clone() });
            }
            now.describe(path, manifest.attributes(path).cloned());
        }
        Ok(now)
    }

    /// As they travel.
    pub fn encode(&self) -> Vec<u8> {
        let manifest = self.changed.encode();
        let mut bytes = Vec::with_capacity(8 + self.removed.len() * 4 + manifest.len());
        // Both are bounded by the size of a manifest.
        bytes.put_u32_le(self.removed.len() as u32);
        self.removed.iter().for_each(|entry| bytes.put_u32_le(*entry));
        bytes.put_u32_le(self.unknown.len() as u32);
        for (path, why) in &self.unknown {
            bytes.put_u8(*why as u8);
            // A path has at most 32 KiB.
            bytes.put_u16_le(path.as_bytes().len() as u16);
            bytes.put_slice(path.as_bytes());
        }
        bytes.put_u32_le(self.excluded.len() as u32);
        for path in &self.excluded {
            bytes.put_u16_le(path.as_bytes().len() as u16);
            bytes.put_slice(path.as_bytes());
        }
        bytes.put_u32_le(self.unsendable.len() as u32);
        for path in &self.unsendable {
            // An escaped path has at most 16 KiB.
            bytes.put_u16_le(path.as_str().len() as u16);
            bytes.put_slice(path.as_str().as_bytes());
        }
        bytes.put_slice(&manifest);
        bytes
    }

    /// Takes what [`encode`](Self::encode) made. Holds no more than a small multiple of what it is given.
    ///
    /// # Errors
    /// [`ChangesError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ChangesError> {
        Self::decode_paid(bytes, &mut |_| true)
    }

    /// The same, where each entry is paid for before it is kept.
    ///
    /// # Errors
    /// [`ChangesError`]; [`ManifestError::NoMemory`] once `pay` declines.
    pub fn decode_paid(mut bytes: &[u8], pay: &mut dyn FnMut(u64) -> bool) -> Result<Self, ChangesError> {
        let bytes = &mut bytes;
        let mut removed: Vec<u32> = Vec::new();
        for _ in 0..count(bytes)? {
            if !pay(REMOVED_COST_BYTES) {
                return Err(ManifestError::NoMemory.into());
            }
            let entry = bytes.try_get_u32_le().map_err(|_| ChangesError::Truncated)?;
            if removed.last().is_some_and(|last| *last >= entry) {
                return Err(ChangesError::Entry { entry });
            }
            removed.push(entry);
        }
        let mut unknown = BTreeMap::new();
        for _ in 0..count(bytes)? {
            let value = bytes.try_get_u8().map_err(|_| ChangesError::Truncated)?;
            let why = LeftOutReason::from_wire(value).ok_or(ChangesError::Reason { value })?;
            unknown.insert(RelPath::parse(paid_path(bytes, pay)?)?, why);
        }
        let mut excluded = BTreeSet::new();
        for _ in 0..count(bytes)? {
            excluded.insert(RelPath::parse(paid_path(bytes, pay)?)?);
        }
        let mut unsendable = Vec::new();
        for _ in 0..count(bytes)? {
            let path = EscapedPath::from_wire(paid_path(bytes, pay)?);
            unsendable.push(path.ok_or(ChangesError::NotEscaped)?);
        }
        Ok(Self { removed, unknown, excluded, unsendable, changed: Manifest::decode_paid(bytes, pay)? })
    }
}

/// What the number of a removed entry counts as, in a vector that grows.
const REMOVED_COST_BYTES: u64 = 8;

/// A length and as many bytes, which are paid for.
fn paid_path<'a>(bytes: &mut &'a [u8], pay: &mut dyn FnMut(u64) -> bool) -> Result<&'a [u8], ChangesError> {
    let len = bytes.try_get_u16_le().map_err(|_| ChangesError::Truncated)?;
    let (path, rest) = bytes.split_at_checked(len.into()).ok_or(ChangesError::Truncated)?;
    *bytes = rest;
    if pay(entry_cost_bytes(path.len())) { Ok(path) } else { Err(ManifestError::NoMemory.into()) }
}

fn count(bytes: &mut &[u8]) -> Result<u32, ChangesError> {
    let count = bytes.try_get_u32_le().map_err(|_| ChangesError::Truncated)?;
    if count as usize > MAX_ENTRIES {
        return Err(ChangesError::TooMany { count, max_count: MAX_ENTRIES });
    }
    Ok(count)
}

/// Fuzz entry: what a peer says has changed.
pub fn fuzz_changes(data: &[u8]) {
    if let Ok(changes) = Changes::decode(data) {
        assert_eq!(Changes::decode(&changes.encode()), Ok(changes.clone()));
        let mut base = Manifest::new();
        for name in ["a", "a/b", "c"] {
            if let Ok(path) = RelPath::parse(name.as_bytes()) {
                base.insert(path, Node::Directory(Stamp::UNKNOWN));
            }
        }
        if let Ok(now) = changes.apply(&base) {
            assert_eq!(Manifest::decode(&now.encode()), Ok(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shiplane_wire::{Digest, Mtime};

    use super::super::manifest::FileState;
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn any_manifest() -> impl Strategy<Value = Manifest> {
        prop::collection::vec(("[ab](/[ab]){0,2}", 0u8..4, 0u8..3), 0..10).prop_map(|items| {
            let mut manifest = Manifest::new();
            for (name, content, at) in items {
                let digest = Digest::blake3(&[content]);
                let stamp = Stamp { mode: 0o600 + u32::from(at), mtime: Mtime { secs: at.into(), nanos: 0 } };
                let file = Node::File(FileState { size_bytes: content.into(), digest, stamp });
                manifest.insert(path(&name), if content == 0 { Node::Directory(stamp) } else { file });
            }
            manifest
        })
    }

    proptest! {
        #[test]
        fn any_manifest_comes_back_from_its_changes(
            base in any_manifest(),
            now in any_manifest(),
            unknown in prop::collection::btree_map("[a-z]{1,3}(/x){0,2}", 0u8..11, 0..4),
        ) {
            let reason = |value: &u8| LeftOutReason::from_wire(*value).unwrap();
            let unknown: BTreeMap<_, _> =
                unknown.iter().map(|(name, value)| (path(name), reason(value))).collect();
            let unsendable = unknown.keys().map(|path| EscapedPath::new(path.as_bytes())).collect();
            let changes = Changes { unsendable, ..Changes::between(&base, &now, unknown) };
            let decoded = Changes::decode(&changes.encode()).unwrap();
            prop_assert_eq!(&decoded, &changes);
            prop_assert_eq!(decoded.apply(&base).unwrap(), now.clone());
            let same = Changes::between(&now, &now, BTreeMap::new());
            prop_assert_eq!(&same, &Changes::default());
        }

        #[test]
        fn soup_is_refused_or_encodes_alike(data in prop::collection::vec(0u8..4, 0..40)) {
            fuzz_changes(&data);
        }

        #[test]
        fn what_is_cut_off_is_refused(now in any_manifest(), cut in 1usize..20) {
            let bytes = Changes::between(&Manifest::new(), &now, BTreeMap::from([(path("x"), LeftOutReason::Symlink)])).encode();
            prop_assert!(Changes::decode(&bytes[..bytes.len().saturating_sub(cut)]).is_err());
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let mut base = Manifest::new();
        base.insert(path("a/b"), Node::Directory(Stamp::UNKNOWN));
        let unknown = BTreeMap::from([(path("c"), LeftOutReason::SpecialFile)]);
        let unsendable = vec![EscapedPath::new(b"\n")];
        let excluded = BTreeSet::from([path("d")]);
        let changes = Changes { excluded, unsendable, ..Changes::between(&base, &Manifest::new(), unknown) };
        let bytes = [
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, b'c'][..],
            &[1, 0, 0, 0, 1, 0, b'd'],
            &[1, 0, 0, 0, 4, 0, b'\\', b'x', b'0', b'a'],
            &Manifest::new().encode(),
        ];
        assert_eq!(changes.encode(), bytes.concat());
    }

    #[test]
    fn changes_that_do_not_fit_the_base_are_refused() {
        let mut base = Manifest::new();
        base.insert(path("a"), Node::Directory(Stamp::UNKNOWN));
        let removed = |removed: &[u32]| Changes { removed: removed.into(), ..Changes::default() };
        assert_eq!(removed(&[1]).apply(&base), Err(ChangesError::Entry { entry: 1 }));
        assert_eq!(Changes::decode(&removed(&[1, 1]).encode()), Err(ChangesError::Entry { entry: 1 }));
        let count = u32::try_from(MAX_ENTRIES + 1).unwrap();
        let refused = ChangesError::TooMany { count, max_count: MAX_ENTRIES };
        assert_eq!(Changes::decode(&count.to_le_bytes()), Err(refused));
        let file = FileState { size_bytes: 0, digest: Digest::blake3(b""), stamp: Stamp::UNKNOWN };
        let mut changed = Manifest::new();
        changed.insert(path("a"), Node::File(file));
        let both = Changes { changed, ..Changes::default() };
        assert_eq!(both.apply(&base), Err(ChangesError::Contradiction { path: path("a") }));
    }
}
