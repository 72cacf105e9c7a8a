//! A store of immutable content by id.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use shiplane_transport::{
    ChunkSource,
    internals::{ChunkRead, SourceError, blocking},
};
use shiplane_wire::Digest;
use thiserror::Error;

use crate::content::sha256_of;

/// Stores snapshots by id. Share it in an [`Arc`](std::sync::Arc).
///
/// A snapshot is hashed when it is added. Its file must not change afterwards: a receiver would notice by size or digest
/// and keep nothing.
#[derive(Debug, Default)]
pub struct SnapshotStore {
    snapshots: RwLock<HashMap<String, Snapshot>>,
}

/// Size and digest of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Size in bytes.
    pub len_bytes: u64,
    /// SHA-256 of the content.
    pub digest: Digest,
}

/// Why a snapshot was not added.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddSnapshotError {
    /// The id is empty or longer than [`MAX_ID_LEN_BYTES`].
    #[error("the id has {len_bytes} bytes; use 1 to {MAX_ID_LEN_BYTES}")]
    BadId {
        /// The id's length.
        len_bytes: usize,
    },
    /// Other content has this id. Remove it first, or choose another id.
    #[error("another snapshot has this id; use a new id")]
    Exists,
    /// The content cannot be read, or changed while it was read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) source: ChunkSource,
    pub(super) info: SnapshotInfo,
}

impl SnapshotStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads and hashes `source` on a blocking thread and offers it as `id`. Adding the same content again is no error.
    ///
    /// Cancel-safe: if dropped, nothing is added.
    ///
    /// # Errors
    /// See [`AddSnapshotError`].
    pub async fn add(&self, id: &str, source: ChunkSource) -> Result<SnapshotInfo, AddSnapshotError> {
        if id.is_empty() || id.len() > MAX_ID_LEN_BYTES {
            return Err(AddSnapshotError::BadId { len_bytes: id.len() });
        }
        let read = source.clone();
        let hashed = blocking::spawn(move || hash(read.open()?)).await;
        let info = hashed.map_err(|_| SourceError::Abandoned)??;
        let mut snapshots = self.snapshots.write().unwrap_or_else(PoisonError::into_inner);
        match snapshots.get(id) {
            Some(present) if present.info != info => Err(AddSnapshotError::Exists),
            Some(_) => Ok(info),
            None => {
                snapshots.insert(id.to_owned(), Snapshot { source, info });
                Ok(info)
            }
        }
    }

    /// Offers `id` no more; transfers under way go on. A file is left where it is. `false` if there was
    /// none.
    pub fn remove(&self, id: &str) -> bool {
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner).remove(id).is_some()
    }

    /// What there is under `id`.
    #[must_use]
    pub fn info(&self, id: &str) -> Option<SnapshotInfo> {
        self.get(id).map(|snapshot| snapshot.info)
    }

    pub(super) fn get(&self, id: &str) -> Option<Snapshot> {
        self.snapshots.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

fn hash(mut source: Box<dyn ChunkRead>) -> Result<SnapshotInfo, SourceError> {
    Ok(SnapshotInfo { len_bytes: source.len_bytes(), digest: sha256_of(&mut source)? })
}

/// 255 bytes, a file name's length.
pub const MAX_ID_LEN_BYTES: usize = 255;
