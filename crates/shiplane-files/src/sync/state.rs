//! The state that a machine keeps between syncs.

use std::path::PathBuf;

use shiplane_wire::{Digest, DigestAlgorithm};

use super::base::{BaseKey, BaseStore};
use crate::filters::Filters;

/// A directory for what was last common with each peer, and for the digests of files by their identity.
/// Nothing in it is lost for good: without it, the next sync reads all files and deletes none.
#[derive(Clone, Debug)]
pub struct SyncState {
    directory: PathBuf,
}

impl SyncState {
    /// Keeps everything in `directory`, which is created when it is needed.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(super) fn bases(&self) -> BaseStore {
        BaseStore::new(self.directory.clone())
    }

    /// Of the dataset that this machine calls `local`.
    pub(super) fn stat_cache(&self, local: &[u8], digest: DigestAlgorithm) -> PathBuf {
        self.directory.join(format!("{}.stat", Digest::blake3(&[&[digest.bit()], local].concat())))
    }

    /// Of the dataset `local` and any of the peer's: whatever both of two datasets have once been is common to
    /// them, so that it does not matter which of the two sides began that sync, or what it called the other.
    /// With another digest or other filters there are other bases.
    pub(super) fn base_key(
        peer: &[u8; 32],
        local: &[u8],
        digest: DigestAlgorithm,
        filters: &Filters,
    ) -> BaseKey {
        let filters = (!filters.is_none()).then(|| filters.digest());
        BaseKey::new(peer, b"", local, digest, filters)
    }
}
