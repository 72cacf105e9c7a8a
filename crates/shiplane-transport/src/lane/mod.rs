//! The lane: chunks, verified and acknowledged, each on a stream of its own.
//!
//! Both directions have the same shape. A blocking thread owns the wire's state machine together with
//! the source or the sink, so that reading, hashing and writing never delay the connection; an async
//! task moves bytes between that thread and the stream, and applies the deadlines. Where
//! [`hashing::SideBySide`] says so, chunks are held whole, hashed together with others, and stored by the thread
//! that hashed them ([`chores`]). [`threads`] says which threads those are, and [`pool`] how many.

mod chores;
pub(crate) mod hashing;
mod pool;
pub(crate) mod recv;
pub(crate) mod send;
mod threads;

use self::hashing::SideBySide;
use crate::{config::TransportConfig, meter::ProgressMeter, rate::RateLimiter};

/// How many buffers may lie between the disk thread and the stream, beside the one that either works on.
const PIPELINE_DEPTH: usize = 1;

/// Tells a caller how a chunk moves.
pub type ProgressFn = std::sync::Arc<dyn Fn(u64) + Send + Sync>;

/// How a chunk is moved, beyond the transport's configuration.
#[derive(Clone, Default)]
pub struct LaneOptions {
    /// Called with the number of payload bytes since the last call, as they are sent or written; on
    /// whatever thread moves them, so it must be quick.
    pub progress: Option<ProgressFn>,
    /// Counts what the chunk's stream carries when it is sent, and then waits for it without a deadline of its own:
    /// whoever has the meter watches all of the transfer.
    pub meter: Option<ProgressMeter>,
    /// How fast the bytes of the frame may move. Shared by as many chunks, in either direction, as
    /// there are clones of the limiter; debited per buffer. None: as fast as the path allows.
    pub rate: Option<RateLimiter>,
    /// Where the chunk is hashed together with others, if it is small enough to be held
    /// whole. None: as it moves.
    pub hashing: Option<SideBySide>,
    /// Bytes that are read, hashed and written at a time, if not those of the transport's configuration: fewer
    /// where many lanes may stall.
    pub buffer_len_bytes: Option<usize>,
}

impl std::fmt::Debug for LaneOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneOptions")
            .field("progress", &self.progress.is_some())
            .field("meter", &self.meter)
            .field("rate", &self.rate)
            .field("hashing", &self.hashing.is_some())
            .field("buffer_len_bytes", &self.buffer_len_bytes)
            .finish()
    }
}

impl LaneOptions {
    /// Of these options, or else the transport's.
    fn buffer_len_bytes(&self, config: &TransportConfig) -> usize {
        self.buffer_len_bytes.unwrap_or(config.buffer_len_bytes)
    }

    /// Whom to hash a chunk of that size with.
    fn hashes_whole(&self, len_bytes: u64) -> Option<&SideBySide> {
        self.hashing.as_ref().filter(|_| len_bytes <= SideBySide::MAX_LEN_BYTES)
    }

    fn advance(&self, len_bytes: usize) {
        if let Some(progress) = &self.progress {
            progress(len_bytes as u64);
        }
    }
}
