//! One transfer of files: the engine under fetch, push and sync (SPEC 4).
//!
//! One side *provides* and the other *receives*; either may have asked for it:
//!
//! ```text
//!  provider                                    receiver
//!     ├── entry, entry, … end ────────────────►│  plans each entry: there already, compare, want
//!     │◄──────────── want chunk [spans], … ────┤  packs what is wanted into chunks
//!     ├══ tagged chunk (lane stream) ═════════►│  writes, verifies, answers status 0
//!     ├══ tagged chunk (lane stream) ═════════►│  makes durable and publishes, in groups
//!     │◄──────────── release, … done ──────────┤
//! ```
//!
//! The receiver's wants *are* the payload's layout. So resuming, skipping present files and sending only differences are one
//! mechanism. In reading order:
//!
//! 1. `packer`: wants → chunks; `ledger`: what is wanted, under way and done. Both pure.
//! 2. `provider`: scans, sends records, reads spans into lanes.
//! 3. `receiver`: plans, wants, receives, publishes.
//! 4. `delta`: finds the parts of a new version that an old one has too, so that they are not sent. Pure.
//! 5. `target`: writes to a directory tree, or to one stream.
//! 6. `progress`: checks that the peer makes progress. Pure.
//! 7. `limit`: names what limits the rate.
//! 8. `budget`: limits the memory of all this.

mod budget;
mod delta;
pub(crate) mod error;
pub(crate) mod event;
mod ledger;
mod limit;
mod pace;
mod packer;
pub(crate) mod progress;
pub(crate) mod provider;
pub(crate) mod receiver;
mod records;
pub(crate) mod target;

pub use budget::{
    CHUNK_MEMORY_BYTES, COMPRESSED_MEMORY_BYTES, ENTRY_MEMORY_BYTES, JOURNAL_MEMORY_BYTES, LIST_MEMORY_BYTES,
    MemoryBudget, SIGNATURE_MEMORY_BYTES,
};
pub(crate) use budget::{PeerAccounts, Reservation};
pub use error::{ProtocolFault, TransferError};
pub use event::{EventFn, TransferEvent};
pub use limit::{Awaited, Limit};
pub use target::{ListFn, OutputStream, Target};

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use shiplane_files::internals::{DigestCache, LinkPolicy, Summary};
use shiplane_transport::{
    ConnectionEnd, PeerConnection, RateLimit, RateLimiter, StreamError,
    internals::{BiStream, Claim},
};
use shiplane_wire::{Digest, DigestAlgorithm, Durability, TransferId};

use crate::{Compression, TransferMetrics};

/// How often a side that is busy with its disk sends a sign of life: six times within the peer's deadline, which is assumed
/// to be the same as this side's.
const fn alive_interval(progress_timeout: Duration) -> Duration {
    Duration::from_nanos((progress_timeout.as_nanos() / 6) as u64 + 1)
}

/// How often a side reports moved bytes, in addition to each written buffer: a quarter of a second, as often as a bar is drawn.
const SHOWN_INTERVAL: Duration = Duration::from_millis(250);

/// A chunk is sent at most three times.
const MAX_CHUNK_ATTEMPTS: u32 = 3;

/// The records stream of a transfer that the peer has opened.
pub(crate) async fn next_records(
    claim: &mut Claim,
    connection: &PeerConnection,
    timeout: Duration,
) -> Result<BiStream, TransferError> {
    match tokio::time::timeout(timeout, claim.records()).await {
        Ok(Some(records)) => Ok(records),
        Ok(None) => {
            let end = connection.end().unwrap_or(ConnectionEnd::ClosedHere);
            Err(StreamError::ConnectionLost(end).into())
        }
        Err(_) => Err(TransferError::Silent { timeout }),
    }
}

/// Opens the records stream of a transfer.
pub(crate) async fn open_records(
    transfer: TransferId,
    connection: &PeerConnection,
    timeout: Duration,
) -> Result<BiStream, TransferError> {
    let opened = tokio::time::timeout(timeout, connection.open_records(transfer)).await;
    Ok(opened.map_err(|_| TransferError::Silent { timeout })??)
}

/// How a transfer is run.
#[derive(Debug, Clone)]
pub struct TransferOptions {
    /// The most chunks under way at a time. Each has a stream of its own.
    pub lanes: usize,
    /// The longest payload of a chunk, at most 16 MiB; a receiver asks for shorter ones on a slow path. A file that has
    /// too many of that size is cut into larger ones.
    pub chunk_len_bytes: u64,
    /// The most bytes of chunks per second, counted as they are sent, after compression; shared with every other holder of
    /// a clone. A receiver tells its limit to the provider, which keeps to it.
    pub rate: Option<RateLimiter>,
    /// Whether chunks are compressed if both sides agree. The receiver of a fetch says how hard the
    /// provider should try, and a server does no more than this; a push is compressed as the pusher says,
    /// by this, if the server's is not `Never`.
    pub compression: Compression,
    /// What digests are computed with, if the peer offers it too; of a transfer that was agreed on, what it uses.
    pub digest: DigestAlgorithm,
    /// What a provider knows of the digests of files, shared with whatever else was given a clone. Without one
    /// everything is hashed as it is sent; a [`FileServer`](crate::serve::FileServer) makes one for all of its own.
    pub digest_cache: Option<DigestCache>,
    /// Which symbolic links a provider offers; it names the others.
    pub links: LinkPolicy,
    /// Counts how transfers end.
    pub metrics: Option<Arc<TransferMetrics>>,
    /// The memory of chunks that are under way, of entries that wait and of the lists of syncs, shared with whatever else was given a
    /// clone. Without one a transfer holds as many chunks as it has lanes; a [`FileServer`](crate::serve::FileServer) makes
    /// one for all of its own.
    pub memory: Option<MemoryBudget>,
}

impl TransferOptions {
    /// The same with what the peer asks for: it may lower the rate and the effort, and raise neither.
    pub(crate) fn agreed(&self, compression: Compression, bytes_per_second: Option<NonZeroU64>) -> Self {
        let theirs = bytes_per_second.map(|rate| RateLimiter::new(RateLimit::per_second(rate)));
        let rate = match (self.rate.clone(), theirs) {
            (Some(ours), Some(theirs)) => Some(ours.and(&theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        Self { rate, compression: self.compression.min(compression), ..self.clone() }
    }

    /// The rate that is announced to the peer.
    pub(crate) fn bytes_per_second(&self) -> Option<NonZeroU64> {
        self.rate.as_ref().map(|rate| rate.limit().bytes_per_second)
    }
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            lanes: DEFAULT_LANES,
            chunk_len_bytes: shiplane_wire::limits::DEFAULT_PAYLOAD_CHUNK_LEN_BYTES,
            rate: None,
            digest: DigestAlgorithm::Blake3,
            digest_cache: None,
            compression: Compression::Never,
            links: LinkPolicy::All,
            metrics: None,
            memory: None,
        }
    }
}

/// The result of a fetch or a push. The receiver has everything, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesReport {
    /// Names it at both ends.
    pub transfer: TransferId,
    /// Files and directories.
    pub entries: u64,
    /// The sum of the files' sizes.
    pub total_bytes: u64,
    /// Payload bytes that were sent for it; 0 of a fetch.
    pub sent_bytes: u64,
    /// Payload bytes that were received for it; 0 of a push.
    pub received_bytes: u64,
    /// The same as they were sent: fewer if they were compressed.
    pub wire_bytes: u64,
    /// The results of the files; of a push, as far as the peer reports them.
    pub summary: Summary,
    /// Paths that this side has left out. The events name them.
    pub left_out_here: u64,
    /// Paths that the peer has left out. The events name them, unless the connection was lost at the end.
    pub left_out_there: u64,
    /// What the receiver has done: at least what it was asked for.
    pub durability: Durability,
    /// The function that the digests of this transfer were computed with.
    pub digest_algorithm: DigestAlgorithm,
    /// Digest of the content, when a fetch has got it in one chunk.
    pub digest: Option<Digest>,
}

impl FilesReport {
    /// Paths that either side has left out.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out_here + self.left_out_there
    }
}

/// 32 chunks: of 64 KiB, as a transfer begins, what 160 Mbit/s carry in 100 ms.
pub const DEFAULT_LANES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_lower_the_rate_and_the_effort_and_raise_neither() {
        let rate = NonZeroU64::new;
        let limited = |bytes| rate(bytes).map(|rate| RateLimiter::new(RateLimit::per_second(rate)));
        for (ours, theirs, both) in
            [(0, 0, 0), (500, 0, 500), (0, 700, 700), (500, 700, 500), (700, 500, 500)]
        {
            let options = TransferOptions { rate: limited(ours), ..TransferOptions::default() };
            assert_eq!(options.agreed(Compression::Never, rate(theirs)).bytes_per_second(), rate(both));
        }
        for (ours, theirs, both) in [
            (Compression::Never, Compression::Always, Compression::Never),
            (Compression::Auto, Compression::Always, Compression::Auto),
            (Compression::Always, Compression::Auto, Compression::Auto),
        ] {
            let options = TransferOptions { compression: ours, ..TransferOptions::default() };
            assert_eq!(options.agreed(theirs, None).compression, both);
        }
    }
}
