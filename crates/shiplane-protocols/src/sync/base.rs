//! What two sides last had in common, remembered from one sync to the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use shiplane_wire::{Digest, EntryKind, Hasher, Mtime, RelPath};
use thiserror::Error;

use super::manifest::{FileState, Manifest, Node};

/// Which two sides, and which dataset of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BaseKey(Digest);

impl BaseKey {
    /// Of the peer with the key `peer`, its dataset at `remote_path` and the local one at `local_root`.
    pub fn new(peer: &[u8; 32], remote_path: &[u8], local_root: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(peer);
        for path in [remote_path, local_root] {
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
        }
        Self(hasher.finish())
    }
}

/// A directory with one file for each [`BaseKey`]. All of it blocks.
///
/// A base that is lost or harmed is as if both had never met: the next sync deletes nothing, and takes files
/// that differ for edited on both sides.
#[derive(Clone, Debug)]
pub struct BaseStore {
    directory: PathBuf,
}

/// Why a base cannot be read or kept.
#[derive(Debug, Error)]
pub enum BaseError {
    /// The file is not what was written, or is of another version of this program. Remove it.
    #[error("{} is damaged: remove it, and the next sync begins anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The dataset is too large to be remembered. Sync parts of it.
    #[error("{entries} files and directories are over the limit of {max_entries}")]
    TooLarge {
        /// How many there are.
        entries: usize,
        /// How many there may be.
        max_entries: usize,
    },
    /// The system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl BaseStore {
    /// Keeps the files in `directory`, which is created when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What was last common; nothing if the two have never met.
    ///
    /// # Errors
    /// [`BaseError::Damaged`], [`BaseError::Io`].
    pub fn load(&self, key: BaseKey) -> Result<Manifest, BaseError> {
        let path = self.path_of(key);
        let failed = |source| BaseError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Manifest::new()),
            opened => opened.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_LEN_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        decode(&bytes, key).ok_or_else(|| BaseError::Damaged { path: path.clone() })
    }

    /// Remembers what is common from now on. Whoever reads sees the old base or the new one, whole; when this
    /// returns, the new one is durable.
    ///
    /// # Errors
    /// [`BaseError::TooLarge`], [`BaseError::Io`]. The old base stays then.
    pub fn save(&self, key: BaseKey, base: &Manifest) -> Result<(), BaseError> {
        if base.len() > MAX_ENTRIES {
            return Err(BaseError::TooLarge { entries: base.len(), max_entries: MAX_ENTRIES });
        }
        let path = self.path_of(key);
        // Of this process: another may be saving the base of another sync of the same dataset.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let saved = replace(&self.directory, &temporary, &path, &encode(base, key));
        saved.map_err(|source| {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
            BaseError::Io { path, source }
        })
    }

    fn path_of(&self, key: BaseKey) -> PathBuf {
        self.directory.join(format!("{}.base", key.0))
    }
}

fn replace(directory: &Path, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_private(directory)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    sync_directory(directory)
}

/// Names and digests of files are nobody else's business.
#[cfg(unix)]
fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_private(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

// Directories cannot be synced there.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Magic, key, number of entries u64, the entries, SHA-256 of all that; little-endian.
fn encode(base: &Manifest, key: BaseKey) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], key.0.as_bytes(), &(base.len() as u64).to_le_bytes()].concat();
    for (path, node) in base.iter() {
        // A path has at most 4,096 bytes.
        bytes.extend_from_slice(&(path.as_bytes().len() as u16).to_le_bytes());
        bytes.extend_from_slice(path.as_bytes());
        match node {
            Node::Directory => bytes.push(EntryKind::Directory as u8),
            Node::File(FileState { size_bytes, digest, mtime }) => {
                bytes.push(EntryKind::File as u8);
                bytes.extend_from_slice(&size_bytes.to_le_bytes());
                bytes.extend_from_slice(digest.as_bytes());
                bytes.extend_from_slice(&mtime.secs.to_le_bytes());
                bytes.extend_from_slice(&mtime.nanos.to_le_bytes());
            }
        }
    }
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

fn decode(bytes: &[u8], key: BaseKey) -> Option<Manifest> {
    if bytes.len() as u64 > MAX_FILE_LEN_BYTES {
        return None;
    }
    let (content, check) = bytes.split_last_chunk::<32>()?;
    if Digest::of(content).as_bytes() != check {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?.strip_prefix(key.0.as_bytes())?;
    let entries = u64::from_le_bytes(take(&mut rest)?);
    let mut base = Manifest::new();
    for _ in 0..entries {
        let len = u16::from_le_bytes(take(&mut rest)?);
        let (path, after) = rest.split_at_checked(usize::from(len))?;
        rest = after;
        let node = match take::<1>(&mut rest)? {
            [1] => Node::Directory,
            [0] => Node::File(FileState {
                size_bytes: u64::from_le_bytes(take(&mut rest)?),
                digest: Digest::from_bytes(take(&mut rest)?),
                mtime: Mtime {
                    secs: i64::from_le_bytes(take(&mut rest)?),
                    nanos: u32::from_le_bytes(take(&mut rest)?),
                },
            }),
            _ => return None,
        };
        if !base.insert(RelPath::parse(path).ok()?, node) {
            return None;
        }
    }
    (rest.is_empty() && base.len() as u64 == entries).then_some(base)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

const MAGIC: &[u8; 16] = b"shiplane-base 1\n";

/// 1,048,576: the base is read whole, at some 200 bytes an entry.
const MAX_ENTRIES: usize = 1 << 20;

/// 512 MiB: a million entries with paths of 450 bytes.
const MAX_FILE_LEN_BYTES: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(peer: u8) -> BaseKey {
        BaseKey::new(&[peer; 32], b"data", b"/home/me/data")
    }

    fn small() -> Manifest {
        let file =
            FileState { size_bytes: 5, digest: Digest::of(b"hello"), mtime: Mtime { secs: -1, nanos: 7 } };
        let mut base = Manifest::new();
        assert!(base.insert(RelPath::parse(b"a/b/hello").unwrap(), Node::File(file)));
        assert!(base.insert(RelPath::parse(b"c").unwrap(), Node::Directory));
        base
    }

    #[test]
    fn what_is_saved_is_loaded_by_its_key_alone() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = BaseStore::new(dir.path().join("deep/state"));
        assert!(store.load(key(1)).unwrap().is_empty());
        store.save(key(1), &small()).unwrap();
        assert_eq!(store.load(key(1)).unwrap(), small());
        assert!(store.load(key(2)).unwrap().is_empty());
        store.save(key(1), &Manifest::new()).unwrap();
        assert!(store.load(key(1)).unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("deep/state")).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_base_of_another_key_is_not_taken() {
        let bytes = encode(&small(), key(1));
        assert_eq!(decode(&bytes, key(1)), Some(small()));
        assert_eq!(decode(&bytes, key(2)), None);
        let other_root = BaseKey::new(&[1; 32], b"data/home", b"/me/data");
        assert_ne!(other_root, key(1));
    }

    #[test]
    fn a_damaged_file_is_told_and_never_half_believed() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = BaseStore::new(dir.path().into());
        store.save(key(1), &small()).unwrap();
        let path = store.path_of(key(1));
        let bytes = fs::read(&path).unwrap();
        for at in [0, 20, 50, 60, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(matches!(store.load(key(1)), Err(BaseError::Damaged { .. })), "byte {at}");
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(store.load(key(1)), Err(BaseError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn any_base_comes_back(items in prop::collection::vec(("[a-c](/[a-c]){0,3}", any::<Option<(u64, [u8; 32], i64, u32)>>()), 0..20)) {
            let mut base = Manifest::new();
            for (path, file) in items {
                let node = match file {
                    None => Node::Directory,
                    Some((size_bytes, digest, secs, nanos)) => {
                        let digest = Digest::from_bytes(digest);
                        Node::File(FileState { size_bytes, digest, mtime: Mtime { secs, nanos } })
                    }
                };
                base.insert(RelPath::parse(path.as_bytes()).unwrap(), node);
            }
            prop_assert_eq!(decode(&encode(&base, key(3)), key(3)), Some(base));
        }
    }
}
