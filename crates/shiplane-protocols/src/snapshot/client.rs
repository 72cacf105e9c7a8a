//! The client side of snapshots.

use std::path::Path;

use bytes::Bytes;
use shiplane_rpc::{CallError, RpcClient};
use shiplane_transport::{ChunkExpectation, LaneOptions, RecvChunkError, internals::InboundChunk};
use shiplane_wire::{Digest, limits};
use thiserror::Error;

use super::{OPEN, Open, SnapshotInfo};
use crate::{
    methods::CALL_BUDGET,
    single::{NoChunk, claim_new, only_chunk},
};

/// Options for receiving a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    max_len_bytes: u64,
    lane: LaneOptions,
}

impl SnapshotOptions {
    /// Sets the size limit. A larger snapshot is refused before its first byte. Default 1 GiB.
    #[must_use]
    pub fn max_len_bytes(mut self, max_len_bytes: u64) -> Self {
        self.max_len_bytes = max_len_bytes;
        self
    }

    /// Sets progress and rate limit of the chunk.
    #[must_use]
    pub fn lane(mut self, lane: LaneOptions) -> Self {
        self.lane = lane;
        self
    }
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { max_len_bytes: limits::MAX_CHUNK_LEN_BYTES, lane: LaneOptions::default() }
    }
}

/// Why a snapshot was not received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The peer refused the request; the fault says why.
    #[error(transparent)]
    Open(#[from] CallError),
    /// The snapshot is larger than the options allow.
    #[error("the snapshot has {len_bytes} bytes; the limit is {max_bytes}")]
    TooLarge {
        /// The announced size.
        len_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The peer accepted the request, but the chunk did not arrive.
    #[error(transparent)]
    NoChunk(#[from] NoChunk),
    /// The content does not match the announcement, or did not arrive. The status tells the peer.
    #[error(transparent)]
    Receive(#[from] RecvChunkError),
}

/// Asks the peer for the snapshot `id` and receives it into memory.
///
/// Not cancel-safe: dropping refuses the snapshot; ask again.
///
/// # Errors
/// See [`SnapshotError`].
pub async fn request_snapshot(
    client: &RpcClient,
    id: &str,
    options: &SnapshotOptions,
) -> Result<Bytes, SnapshotError> {
    let (chunk, info) = open(client, id, options).await?;
    Ok(chunk.receive_to_memory(&expectation(info), &options.lane).await?)
}

/// Asks the peer for the snapshot `id` and receives it into a new file at `path`, in bounded memory.
/// The file appears whole, verified and synced, or not at all.
///
/// Not cancel-safe: dropping refuses the snapshot, and nothing appears; ask again.
///
/// # Errors
/// See [`SnapshotError`]; [`SinkError::Exists`](shiplane_transport::internals::SinkError) inside if the name is
/// taken.
pub async fn request_snapshot_to_path(
    client: &RpcClient,
    id: &str,
    path: &Path,
    options: &SnapshotOptions,
) -> Result<SnapshotInfo, SnapshotError> {
    let (chunk, info) = open(client, id, options).await?;
    chunk.receive_to_path(path, &expectation(info), &options.lane).await?;
    Ok(info)
}

async fn open(
    client: &RpcClient,
    id: &str,
    options: &SnapshotOptions,
) -> Result<(InboundChunk, SnapshotInfo), SnapshotError> {
    let mut claim = claim_new(client.connection())?;
    let request = Open { transfer: *claim.transfer().as_bytes(), id: id.to_owned() };
    let opened = client.call_typed(OPEN, &request, CALL_BUDGET).await?;
    let info = SnapshotInfo { len_bytes: opened.len_bytes, digest: Digest::from_bytes(opened.digest) };
    let (len_bytes, max_bytes) = (info.len_bytes, options.max_len_bytes);
    if len_bytes > max_bytes {
        return Err(SnapshotError::TooLarge { len_bytes, max_bytes });
    }
    let timeout = client.connection().config().timeouts().progress;
    Ok((only_chunk(&mut claim, timeout).await?, info))
}

/// Compared before the status is sent.
fn expectation(info: SnapshotInfo) -> ChunkExpectation {
    ChunkExpectation::default().len_bytes(info.len_bytes).digest(info.digest).max_len_bytes(info.len_bytes)
}
