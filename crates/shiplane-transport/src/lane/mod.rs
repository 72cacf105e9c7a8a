//! Lanes: streams that carry one verified and acknowledged chunk each.
//!
//! Both directions have the same shape. The wire's state machine and the source or sink are one value, which takes
//! a buffer's worth at a time: it is read and hashed, or hashed and written. Where that need not wait for a disk
//! ([`ChunkRead::try_read`](crate::source::ChunkRead::try_read), [`ChunkSink::is_immediate`](crate::sink::ChunkSink::is_immediate))
//! it is done on the connection's own thread, without a hand-over; else, and where that thread is busy while cores
//! are idle ([`placement`]), on a thread that may block ([`threads`], [`pool`]).

mod placement;
mod pool;
pub(crate) mod recv;
pub(crate) mod send;
mod threads;

use shiplane_wire::{Digest, DigestAlgorithm, Hasher, Piece};

use crate::{config::TransportConfig, meter::ProgressMeter, rate::RateLimiter};

/// Tells a caller how a chunk moves.
pub type ProgressFn = std::sync::Arc<dyn Fn(u64) + Send + Sync>;

/// How a chunk is moved, beyond the transport's configuration.
#[derive(Clone)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub struct LaneOptions {
    /// What the chunk's digest is computed with, as both sides have agreed. Default SHA-256, that of the documented
    /// frame (SPEC 3.1).
    pub digest: DigestAlgorithm,
    /// With BLAKE3, the piece of a file that the chunk is, as both sides know it (SPEC 4.22).
    #[doc(hidden)]
    pub piece: Option<Piece>,
    /// For a sender that has the digest from before: it is sent, and nothing is hashed. The receiver refuses the chunk
    /// if it has another digest.
    #[doc(hidden)]
    pub known_digest: Option<Digest>,
    /// Whether the source of a transfer's chunk is an encoded payload, for a receiver that has agreed to decode it.
    #[doc(hidden)]
    pub is_encoded: bool,
    /// Called with the number of payload bytes since the last call, as they are sent or arrive; on
    /// whatever thread moves them, so it must be quick. Bytes that arrive are not verified yet.
    pub progress: Option<ProgressFn>,
    /// Counts what the chunk's stream carries when it is sent, and then waits for it without a deadline of its own:
    /// the owner of the meter watches the transfer as a whole.
    #[doc(hidden)]
    pub meter: Option<ProgressMeter>,
    /// How fast the bytes of the frame may move. Shared by as many chunks, in either direction, as
    /// there are clones of the limiter; debited per buffer. None: as fast as the path allows.
    pub rate: Option<RateLimiter>,
    /// Bytes that are read, hashed and written at a time, if not those of the transport's configuration: fewer
    /// where many lanes may stall.
    pub buffer_len_bytes: Option<usize>,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            digest: DigestAlgorithm::Sha256,
            piece: None,
            known_digest: None,
            is_encoded: false,
            progress: None,
            rate: None,
            buffer_len_bytes: None,
            meter: None,
        }
    }
}

impl std::fmt::Debug for LaneOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneOptions")
            .field("digest", &self.digest)
            .field("piece", &self.piece)
            .field("known_digest", &self.known_digest)
            .field("is_encoded", &self.is_encoded)
            .field("progress", &self.progress.is_some())
            .field("meter", &self.meter)
            .field("rate", &self.rate)
            .field("buffer_len_bytes", &self.buffer_len_bytes)
            .finish()
    }
}

impl LaneOptions {
    /// Of these options, or else the transport's.
    fn buffer_len_bytes(&self, config: &TransportConfig) -> usize {
        self.buffer_len_bytes.unwrap_or(config.buffer_len_bytes).max(1)
    }

    fn hasher(&self) -> Hasher {
        self.digest.chunk_hasher(self.piece)
    }

    fn advance(&self, len_bytes: usize) {
        if let Some(progress) = &self.progress {
            progress(len_bytes as u64);
        }
    }
}
