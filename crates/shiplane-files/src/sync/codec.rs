//! Encodes manifests for the wire and for a [`SyncState`](super::SyncState) (SPEC 4.18).

use std::collections::HashSet;

use bytes::Bytes;
use shiplane_wire::{
    Attributes, Digest, EntryKind, LinkTarget, LinkTargetRefused, Mtime, PathRefused, RelPath,
};
use thiserror::Error;

use super::manifest::{
    FileState, HAS_ATTRIBUTES, LinkState, Manifest, Node, Stamp, attributes_cost_bytes, node_cost_bytes,
};
use crate::record;

/// Why bytes are no manifest. Their sender has broken SPEC 4.18: nothing of it may be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// It is of another version of the format. Update the older side.
    #[error(
        "the manifest has version {found}, but this program reads version {FORMAT}; update the older program"
    )]
    Version {
        /// What it says.
        found: u8,
    },
    /// It ends too early.
    #[error("the manifest is truncated")]
    Truncated,
    /// Something follows its last entry.
    #[error("{len_bytes} bytes follow the manifest")]
    Trailing {
        /// How many.
        len_bytes: usize,
    },
    /// A kind that is neither file, directory nor link.
    #[error("an entry has the unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// A path breaks a rule of SPEC 4.5.
    #[error("invalid path: {0}")]
    Path(#[from] PathRefused),
    /// The target of a link breaks a rule of SPEC 4.27.
    #[error(transparent)]
    LinkTarget(#[from] LinkTargetRefused),
    /// Owners and attributes break a rule of SPEC 4.31.
    #[error("the attributes of {path} break a rule, or name what is never taken from a peer")]
    Attributes {
        /// Whose they are.
        path: RelPath,
    },
    /// A path is there twice, or after one that it should be before.
    #[error("{path} is out of order in the manifest")]
    Order {
        /// The later of the two.
        path: RelPath,
    },
    /// The directory that the path is in is missing, or is a file.
    #[error("the manifest has no parent directory for {path}")]
    NoParent {
        /// The path.
        path: RelPath,
    },
    /// A time has a second or more of nanoseconds.
    #[error("a modification time has {nanos} nanoseconds; the limit is 999999999")]
    NanosOutOfRange {
        /// The nanoseconds.
        nanos: u32,
    },

    /// There is no memory for more of it.
    #[error("no memory for more of the manifest")]
    NoMemory,
    /// It is over our limit. Sync parts of the dataset.
    #[error("a manifest of {len_bytes} bytes is over the limit of {max_bytes}")]
    TooLarge {
        /// Its length.
        len_bytes: usize,
        /// [`MAX_MANIFEST_LEN_BYTES`].
        max_bytes: usize,
    },
    /// It is over our limit. Sync parts of the dataset.
    #[error("{entries} files and directories are over the limit of {max_entries}")]
    TooManyEntries {
        /// How many it says there are.
        entries: u64,
        /// [`MAX_ENTRIES`].
        max_entries: usize,
    },
}

/// 1,048,576: a manifest is held whole, at some 200 bytes an entry.
pub const MAX_ENTRIES: usize = 1 << 20;

/// 512 MiB: [`MAX_ENTRIES`] with paths of 450 bytes.
pub const MAX_MANIFEST_LEN_BYTES: usize = 512 << 20;

impl Manifest {
    /// The one encoding of this manifest. One with more than [`MAX_ENTRIES`] cannot be decoded.
    pub fn encode(&self) -> Bytes {
        let paths: usize = self.iter().map(|(path, _)| path.as_bytes().len()).sum();
        let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + paths + self.len() * FILE_LEN_BYTES);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&(self.len() as u64).to_le_bytes());
        for (path, node) in self.iter() {
            // A path has at most 32 KiB.
            bytes.extend_from_slice(&(path.as_bytes().len() as u16).to_le_bytes());
            bytes.extend_from_slice(path.as_bytes());
            let attributes = self.attributes(path);
            bytes.push(node.kind() as u8 | if attributes.is_some() { HAS_ATTRIBUTES } else { 0 });
            let Stamp { mode, mtime } = node.stamp();
            if node.kind() != EntryKind::Symlink {
                bytes.extend_from_slice(&mode.to_le_bytes());
            }
            bytes.extend_from_slice(&mtime.secs.to_le_bytes());
            bytes.extend_from_slice(&mtime.nanos.to_le_bytes());
            if let Node::File(FileState { size_bytes, digest, .. }) = node {
                bytes.extend_from_slice(&size_bytes.to_le_bytes());
                bytes.extend_from_slice(digest.as_bytes());
            }
            if let Node::Link(LinkState { target, .. }) = node {
                // At most 4,095 bytes.
                bytes.extend_from_slice(&(target.as_bytes().len() as u16).to_le_bytes());
                bytes.extend_from_slice(target.as_bytes());
            }
            if let Some(attributes) = attributes {
                // At most 60 KiB.
                bytes.extend_from_slice(&(attributes.as_bytes().len() as u16).to_le_bytes());
                bytes.extend_from_slice(attributes.as_bytes());
            }
        }
        bytes.into()
    }

    /// Takes what [`encode`](Self::encode) made, and nothing else: whatever is accepted encodes to the same
    /// bytes again. Holds no more than a small multiple of what it is given.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::decode_paid(bytes, &mut |_| true)
    }

    /// The same, where each entry is paid for before it is kept.
    ///
    /// # Errors
    /// [`ManifestError`]; [`ManifestError::NoMemory`] once `pay` declines.
    pub(super) fn decode_paid(bytes: &[u8], pay: &mut dyn FnMut(u64) -> bool) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_LEN_BYTES {
            let len_bytes = bytes.len();
            return Err(ManifestError::TooLarge { len_bytes, max_bytes: MAX_MANIFEST_LEN_BYTES });
        }
        let mut rest = bytes;
        let [found] = take(&mut rest)?;
        if found != FORMAT {
            return Err(ManifestError::Version { found });
        }
        let entries = u64::from_le_bytes(take(&mut rest)?);
        if entries > MAX_ENTRIES as u64 {
            return Err(ManifestError::TooManyEntries { entries, max_entries: MAX_ENTRIES });
        }
        let (mut nodes, mut described) = (Vec::new(), Vec::new());
        let (mut last, mut directories) = (&b""[..], HashSet::from([&b""[..]]));
        for _ in 0..entries {
            let (path, node, attributes) = entry(&mut rest)?;
            let checked = RelPath::parse(path)?;
            if path <= last {
                return Err(ManifestError::Order { path: checked });
            }
            let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &path[..at]);
            if !directories.contains(parent) {
                return Err(ManifestError::NoParent { path: checked });
            }
            if !pay(node_cost_bytes(path, &node)) {
                return Err(ManifestError::NoMemory);
            }
            if let Some(bytes) = attributes {
                if !pay(attributes_cost_bytes(path, bytes)) {
                    return Err(ManifestError::NoMemory);
                }
                let attributes = Attributes::parse(bytes).ok();
                let attributes = attributes.filter(|attributes| attributes.may_be_of(node.kind()));
                let refused = || ManifestError::Attributes { path: checked.clone() };
                described.push((checked.clone(), attributes.ok_or_else(refused)?));
            }
            if node.is_directory() {
                directories.insert(path);
            }
            last = path;
            nodes.push((checked, node));
        }
        if !rest.is_empty() {
            return Err(ManifestError::Trailing { len_bytes: rest.len() });
        }
        Ok(Self::of_nodes(nodes, described))
    }
}

/// A path, what is there, and its attributes if it has any.
type EncodedEntry<'a> = (&'a [u8], Node, Option<&'a [u8]>);

fn entry<'a>(rest: &mut &'a [u8]) -> Result<EncodedEntry<'a>, ManifestError> {
    let path = text(rest)?;
    let [kind] = take(rest)?;
    let node = match kind & !HAS_ATTRIBUTES {
        FILE => Node::File(file(rest)?),
        DIRECTORY => Node::Directory(stamp(rest)?),
        LINK => Node::Link(link(rest)?),
        _ => return Err(ManifestError::UnknownKind { kind }),
    };
    let attributes = if kind & HAS_ATTRIBUTES == 0 { None } else { Some(text(rest)?) };
    Ok((path, node, attributes))
}

/// A length, and as many bytes.
fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ManifestError> {
    let len = u16::from_le_bytes(take(rest)?);
    let (text, after) = rest.split_at_checked(len.into()).ok_or(ManifestError::Truncated)?;
    *rest = after;
    Ok(text)
}

fn file(rest: &mut &[u8]) -> Result<FileState, ManifestError> {
    let stamp = stamp(rest)?;
    let size_bytes = u64::from_le_bytes(take(rest)?);
    Ok(FileState { size_bytes, digest: Digest::from_bytes(take(rest)?), stamp })
}

fn link(rest: &mut &[u8]) -> Result<LinkState, ManifestError> {
    let mtime = mtime(rest)?;
    Ok(LinkState { target: LinkTarget::parse(text(rest)?)?, mtime })
}

fn stamp(rest: &mut &[u8]) -> Result<Stamp, ManifestError> {
    Ok(Stamp { mode: u32::from_le_bytes(take(rest)?), mtime: mtime(rest)? })
}

fn mtime(rest: &mut &[u8]) -> Result<Mtime, ManifestError> {
    let secs = i64::from_le_bytes(take(rest)?);
    let nanos = u32::from_le_bytes(take(rest)?);
    if nanos >= NANOS_PER_SEC {
        return Err(ManifestError::NanosOutOfRange { nanos });
    }
    Ok(Mtime { secs, nanos })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ManifestError> {
    record::take(rest).ok_or(ManifestError::Truncated)
}

const FORMAT: u8 = 2;

// The kinds are those of a transfer's entries.
const FILE: u8 = EntryKind::File as u8;
const DIRECTORY: u8 = EntryKind::Directory as u8;
const LINK: u8 = EntryKind::Symlink as u8;

/// Version and number of entries.
const HEADER_LEN_BYTES: usize = 9;

/// What a file takes beside its path.
const FILE_LEN_BYTES: usize = 59;

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// Fuzz entry: a manifest.
pub fn fuzz_manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        assert_eq!(manifest.encode(), data, "one encoding only");
    }
}

#[cfg(test)]
mod tests;
