//! The state between syncs: what was last common with each peer.

use std::io;
use std::path::PathBuf;

use shiplane_wire::{Digest, DigestAlgorithm, Hasher};
use thiserror::Error;

use super::codec::{MAX_ENTRIES, MAX_MANIFEST_LEN_BYTES};
use super::manifest::Manifest;
use crate::{
    filters::Filters,
    own_file::{read_file, replace_file},
    platform::sealed::{self, Magic},
};

/// Which two sides, and which dataset of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BaseKey(Digest);

impl BaseKey {
    /// Of the dataset `local`, as this machine calls it, and any of the peer's: whatever both of two datasets have once
    /// been is common to them, so that it does not matter which of the two sides began that sync, or what it called the
    /// other. With another digest or other filters there are other bases.
    pub(super) fn new(peer: &[u8; 32], local: &[u8], digest: DigestAlgorithm, filters: &Filters) -> Self {
        let mut hasher = Hasher::blake3();
        hasher.update(&[digest.bit()]);
        hasher.update(peer);
        // The length of a path of the peer's, which is none.
        hasher.update(&0_u64.to_le_bytes());
        hasher.update(&(local.len() as u64).to_le_bytes());
        hasher.update(local);
        if !filters.is_none() {
            hasher.update(&filters.digest());
        }
        Self(hasher.finish())
    }

    pub(super) fn as_bytes(&self) -> &[u8; Digest::LEN_BYTES] {
        self.0.as_bytes()
    }

    /// The key of what was common before.
    fn previous(self) -> Self {
        let mut hasher = Hasher::blake3();
        hasher.update(self.0.as_bytes());
        hasher.update(b"previous");
        Self(hasher.finish())
    }
}

/// The state that a machine keeps between syncs: a directory for what was last common with each peer, and for the digests
/// of files by their identity. All of it blocks.
///
/// Nothing in it is lost for good. A base that is lost or harmed is as if both had never met: the next sync reads all
/// files, deletes nothing, and takes files that differ for edited on both sides.
#[derive(Clone, Debug)]
pub struct SyncState {
    directory: PathBuf,
}

/// What is remembered of two sides.
#[derive(Debug)]
pub(super) struct Generations {
    newest: Option<Manifest>,
    before: Option<Manifest>,
}

impl Generations {
    /// The newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Manifest> {
        self.newest.iter().chain(&self.before)
    }

    /// The same without owners and attributes.
    pub(super) fn undescribed(self) -> Self {
        let Self { newest, before } = self;
        Self { newest: newest.map(Manifest::undescribed), before: before.map(Manifest::undescribed) }
    }

    /// Whether it is what was last common.
    pub(super) fn is_newest(&self, base: &Manifest) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.digest() == base.digest())
    }
}

/// Why a base cannot be read or kept.
#[derive(Debug, Error)]
pub enum BaseError {
    /// The file is not what was written, or is of another version of this program. Remove it.
    #[error("{} is damaged; remove it, and the next sync starts without a base", path.display())]
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

impl SyncState {
    /// Keeps everything in `directory`, which is created when it is needed.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where digests of files are kept of the dataset that this machine calls `local`.
    pub(super) fn stat_cache(&self, local: &[u8], digest: DigestAlgorithm) -> PathBuf {
        self.directory.join(format!("{}.stat", Digest::blake3(&[&[digest.bit()], local].concat())))
    }

    /// What was last common; nothing if the two have never met.
    ///
    /// # Errors
    /// [`BaseError::Damaged`], [`BaseError::Io`].
    fn load(&self, key: BaseKey) -> Result<Manifest, BaseError> {
        let path = self.path_of(key);
        let failed = |source| BaseError::Io { path: path.clone(), source };
        let file = match read_file(&path, MAX_FILE_LEN_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Manifest::new()),
            read => read.map_err(failed)?,
        };
        decode(&file.bytes, key).ok_or_else(|| BaseError::Damaged { path: path.clone() })
    }

    /// Remembers what is common from now on. A reader sees the old base or the new one, whole; when this
    /// returns, the new one is durable.
    ///
    /// # Errors
    /// [`BaseError::TooLarge`], [`BaseError::Io`]. The old base stays then.
    fn save(&self, key: BaseKey, base: &Manifest) -> Result<(), BaseError> {
        if base.len() > MAX_ENTRIES {
            return Err(BaseError::TooLarge { entries: base.len(), max_entries: MAX_ENTRIES });
        }
        let path = self.path_of(key);
        replace_file(&path, &encode(base, key)).map_err(|source| BaseError::Io { path, source })
    }

    /// What was common after the last sync and after the one before. One that is damaged is as if it had never
    /// been.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    pub(super) fn generations(&self, key: BaseKey) -> Result<Generations, BaseError> {
        let load = |key| match self.load(key) {
            Ok(base) => Ok(Some(base).filter(|base| !base.is_empty())),
            Err(error @ BaseError::Damaged { .. }) => {
                tracing::warn!(%error, "the sync begins anew");
                Ok(None)
            }
            Err(error) => Err(error),
        };
        Ok(Generations { newest: load(key)?, before: load(key.previous())? })
    }

    /// As [`save`](Self::save), but keeps what was common before as well: the other side may not come as far.
    ///
    /// `common` is the digest of what this sync began with, if that is known. A base that only this side has got to
    /// does not take the place of one that both have: else after two syncs of which the other side missed the
    /// end nothing would be common any more, and what one side has removed would come back.
    pub(super) fn advance(
        &self,
        key: BaseKey,
        base: &Manifest,
        common: Option<Digest>,
    ) -> Result<(), BaseError> {
        let is_common = |current: &Manifest| common.is_none_or(|common| common == current.digest());
        match self.load(key) {
            Ok(current) if current.digest() == base.digest() && !base.is_empty() => return Ok(()),
            Ok(current) if !current.is_empty() && is_common(&current) => {
                self.save(key.previous(), &current)?
            }
            Ok(_) | Err(BaseError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        self.save(key, base)
    }

    fn path_of(&self, key: BaseKey) -> PathBuf {
        self.directory.join(format!("{}.base", key.0))
    }
}

/// The key, then the manifest (SPEC 4.18), sealed.
fn encode(base: &Manifest, key: BaseKey) -> Vec<u8> {
    sealed::seal(MAGIC, &[key.0.as_bytes(), &base.encode()])
}

fn decode(bytes: &[u8], key: BaseKey) -> Option<Manifest> {
    let content = sealed::unseal(MAGIC, bytes)?;
    Manifest::decode(content.strip_prefix(key.0.as_bytes())?).ok()
}

const MAGIC: &Magic = b"shiplane-base 3\n";

/// The largest manifest, and what is around it.
const MAX_FILE_LEN_BYTES: u64 = MAX_MANIFEST_LEN_BYTES as u64 + 80;

/// Fuzz entry: a file of a base, as it is and sealed. The fuzzer rarely finds a seal of its own.
pub fn fuzz_base(data: &[u8]) {
    let key = BaseKey(Digest::from_bytes([0; Digest::LEN_BYTES]));
    for bytes in [data, &sealed::seal(MAGIC, &[data])] {
        if let Some(base) = decode(bytes, key) {
            assert_eq!(encode(&base, key), bytes, "one encoding only");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use shiplane_wire::{Mtime, RelPath};

    use super::super::manifest::{FileState, Node, Stamp};
    use super::*;
    use crate::filters::FilterRules;

    fn key(peer: u8) -> BaseKey {
        BaseKey::new(&[peer; 32], b"/home/me/data", DigestAlgorithm::Blake3, &Filters::default())
    }

    fn small() -> Manifest {
        let file = FileState {
            size_bytes: 5,
            digest: Digest::blake3(b"hello"),
            stamp: Stamp { mode: 0o644, mtime: Mtime { secs: -1, nanos: 7 } },
        };
        let mut base = Manifest::new();
        assert!(base.insert(RelPath::parse(b"a/b/hello").unwrap(), Node::File(file)));
        assert!(base.insert(RelPath::parse(b"c").unwrap(), Node::Directory(Stamp::UNKNOWN)));
        base
    }

    #[test]
    fn a_base_that_the_fuzzer_sealed_itself_is_one() {
        let key = BaseKey(Digest::from_bytes([0; Digest::LEN_BYTES]));
        fuzz_base(&encode(&small(), key));
    }

    #[test]
    fn what_is_saved_is_loaded_by_its_key_alone() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = SyncState::at(dir.path().join("deep/state"));
        assert!(store.load(key(1)).unwrap().is_empty());
        store.save(key(1), &small()).unwrap();
        assert_eq!(store.load(key(1)).unwrap(), small());
        assert!(store.load(key(2)).unwrap().is_empty());
        store.save(key(1), &Manifest::new()).unwrap();
        assert!(store.load(key(1)).unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("deep/state")).unwrap().count(), 1, "nothing is left behind");
    }

    fn found(store: &SyncState) -> Vec<Manifest> {
        store.generations(key(1)).unwrap().iter().cloned().collect()
    }

    #[test]
    fn the_generation_before_is_kept_and_no_other() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = SyncState::at(dir.path().into());
        let bases = ["a", "b", "c"].map(|name| {
            let mut base = small();
            base.insert(RelPath::parse(name.as_bytes()).unwrap(), Node::Directory(Stamp::UNKNOWN));
            base
        });
        assert_eq!(found(&store), []);
        for base in bases.iter().chain(&bases[2..]) {
            store.advance(key(1), base, None).unwrap();
        }
        assert_eq!(found(&store), [bases[2].clone(), bases[1].clone()]);
        let path = store.path_of(key(1));
        assert!(store.generations(key(1)).unwrap().is_newest(&bases[2]));
        assert!(!store.generations(key(1)).unwrap().is_newest(&bases[1]));
        fs::write(&path, b"damaged").unwrap();
        assert!(!store.generations(key(1)).unwrap().is_newest(&bases[1]), "it is written anew then");
        assert_eq!(found(&store), [bases[1].clone()]);
        store.advance(key(1), &bases[0], None).unwrap();
        assert_eq!(found(&store), [bases[0].clone(), bases[1].clone()]);
    }

    #[test]
    fn what_both_have_is_kept_however_often_the_other_side_misses_the_end() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = SyncState::at(dir.path().into());
        let [common, missed, newest] = ["a", "b", "c"].map(|name| {
            let mut base = small();
            base.insert(RelPath::parse(name.as_bytes()).unwrap(), Node::Directory(Stamp::UNKNOWN));
            base
        });
        store.advance(key(1), &common, None).unwrap();
        for base in [&missed, &newest] {
            store.advance(key(1), base, Some(common.digest())).unwrap();
            assert_eq!(found(&store), [base.clone(), common.clone()]);
        }
        // Now the other side has come as far.
        store.advance(key(1), &missed, Some(newest.digest())).unwrap();
        assert_eq!(found(&store), [missed, newest]);
    }

    #[test]
    fn a_base_of_another_key_is_not_taken() {
        let bytes = encode(&small(), key(1));
        assert_eq!(decode(&bytes, key(1)), Some(small()));
        assert_eq!(decode(&bytes, key(2)), None);
        let (none, blake3) = (Filters::default(), DigestAlgorithm::Blake3);
        assert_ne!(BaseKey::new(&[1; 32], b"/me/data", blake3, &none), key(1));
        assert_ne!(BaseKey::new(&[1; 32], b"/home/me/data", DigestAlgorithm::Sha256, &none), key(1));
        let rules = FilterRules { one_file_system: true, ..FilterRules::default() };
        let filters = Filters::new(rules).unwrap();
        assert_ne!(BaseKey::new(&[1; 32], b"/home/me/data", blake3, &filters), key(1));
    }

    #[test]
    fn a_key_stays_what_earlier_versions_made() {
        let local = b"/home/me/data";
        let parts = [&[2][..], &[1; 32], &0_u64.to_le_bytes(), &(local.len() as u64).to_le_bytes(), local];
        assert_eq!(DigestAlgorithm::Blake3.bit(), 2);
        assert_eq!(key(1).0, Digest::blake3(&parts.concat()));
    }

    #[test]
    fn a_damaged_file_is_an_error_as_a_whole() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = SyncState::at(dir.path().into());
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
        fn any_base_comes_back(items in prop::collection::vec(("[a-c](/[a-c]){0,3}", prop::option::of(any::<(u64, [u8; 32], i64)>())), 0..20)) {
            let mut base = Manifest::new();
            for (path, file) in items {
                let node = match file {
                    None => Node::Directory(Stamp::UNKNOWN),
                    Some((size_bytes, digest, secs)) => {
                        let digest = Digest::from_bytes(digest);
                        let mtime = Mtime { secs, nanos: 999_999_999 };
                        Node::File(FileState { size_bytes, digest, stamp: Stamp { mode: 0, mtime } })
                    }
                };
                base.insert(RelPath::parse(path.as_bytes()).unwrap(), node);
            }
            prop_assert_eq!(decode(&encode(&base, key(3)), key(3)), Some(base));
        }
    }
}
