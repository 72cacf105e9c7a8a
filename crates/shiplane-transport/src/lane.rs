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
pub(crate) mod steps;
mod threads;

use shiplane_wire::{Digest, DigestAlgorithm, Hasher, Piece};

use self::steps::{InStep, LaneStep, StepClock};
use crate::{config::TransportConfig, meter::ProgressMeter, rate::RateLimiter};

/// Tells a caller how a chunk moves.
pub type ProgressFn = std::sync::Arc<dyn Fn(u64) + Send + Sync>;

/// Called with the digest of a chunk that was sent.
pub type DigestFn = std::sync::Arc<dyn Fn(Digest) + Send + Sync>;

/// Options for sending or receiving one chunk.
#[derive(Clone)]
pub struct LaneOptions {
    pub(crate) digest: DigestAlgorithm,
    pub(crate) piece: Option<Piece>,
    pub(crate) known_digest: Option<Digest>,
    pub(crate) is_encoded: bool,
    pub(crate) progress: Option<ProgressFn>,
    pub(crate) on_sent: Option<DigestFn>,
    pub(crate) meter: Option<ProgressMeter>,
    pub(crate) steps: Option<StepClock>,
    pub(crate) rate: Option<RateLimiter>,
    pub(crate) buffer_len_bytes: Option<usize>,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            digest: DigestAlgorithm::Sha256,
            piece: None,
            known_digest: None,
            is_encoded: false,
            progress: None,
            on_sent: None,
            rate: None,
            buffer_len_bytes: None,
            meter: None,
            steps: None,
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
            .field("on_sent", &self.on_sent.is_some())
            .field("meter", &self.meter)
            .field("steps", &self.steps)
            .field("rate", &self.rate)
            .field("buffer_len_bytes", &self.buffer_len_bytes)
            .finish()
    }
}

impl LaneOptions {
    /// Sets the algorithm of the chunk's digest, as both sides have agreed. Default SHA-256, that of a bare chunk
    /// (SPEC 3.1).
    #[must_use]
    pub fn digest(mut self, digest: DigestAlgorithm) -> Self {
        self.digest = digest;
        self
    }

    /// Sets the piece of a file that the chunk is. With BLAKE3 it decides the digest (SPEC 4.22).
    #[doc(hidden)]
    #[must_use]
    pub fn piece(mut self, piece: impl Into<Option<Piece>>) -> Self {
        self.piece = piece.into();
        self
    }

    /// Sets a digest that the sender knows already. It is sent, and nothing is hashed. The receiver refuses the chunk if
    /// it computes another digest.
    #[doc(hidden)]
    #[must_use]
    pub fn known_digest(mut self, known_digest: impl Into<Option<Digest>>) -> Self {
        self.known_digest = known_digest.into();
        self
    }

    /// Marks the source as an encoded payload, for a receiver that has agreed to decode it.
    #[doc(hidden)]
    #[must_use]
    pub fn encoded(mut self) -> Self {
        self.is_encoded = true;
        self
    }

    /// Sets a function that is called with the number of payload bytes since its last call, as they are sent or arrive.
    /// It runs on the thread that moves them, so it must be quick. Received bytes are not verified yet.
    #[must_use]
    pub fn progress(self, progress: ProgressFn) -> Self {
        self.maybe_progress(Some(progress))
    }

    /// Sets or removes the progress function.
    #[doc(hidden)]
    #[must_use]
    pub fn maybe_progress(mut self, progress: Option<ProgressFn>) -> Self {
        self.progress = progress;
        self
    }

    /// Sets the meter that counts what the chunk's stream carries. The chunk then has no deadline of its own: the owner
    /// of the meter watches the whole transfer.
    #[doc(hidden)]
    #[must_use]
    pub fn meter(mut self, meter: impl Into<Option<ProgressMeter>>) -> Self {
        self.meter = meter.into();
        self
    }

    /// Sets a function that is given the digest as soon as all of the chunk is on its way, before the receiver has answered.
    #[doc(hidden)]
    #[must_use]
    pub fn on_sent(mut self, on_sent: DigestFn) -> Self {
        self.on_sent = Some(on_sent);
        self
    }

    /// Sets the clock that measures what the chunk waits for.
    #[doc(hidden)]
    #[must_use]
    pub fn steps(mut self, steps: impl Into<Option<StepClock>>) -> Self {
        self.steps = steps.into();
        self
    }

    /// Sets the rate limiter. Clones of it share the rate, across chunks and directions. Default `None`: no limit.
    #[must_use]
    pub fn rate(mut self, rate: impl Into<Option<RateLimiter>>) -> Self {
        self.rate = rate.into();
        self
    }

    /// Sets how many bytes are read, hashed and written at a time. Default `None`: as in the transport's configuration.
    #[must_use]
    pub fn buffer_len_bytes(mut self, buffer_len_bytes: impl Into<Option<usize>>) -> Self {
        self.buffer_len_bytes = buffer_len_bytes.into();
        self
    }

    /// The rate limiter.
    #[doc(hidden)]
    #[must_use]
    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.rate.as_ref()
    }

    /// The progress function.
    #[doc(hidden)]
    #[must_use]
    pub fn progress_fn(&self) -> Option<&ProgressFn> {
        self.progress.as_ref()
    }

    /// A hasher for the chunk.
    #[doc(hidden)]
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        self.digest.chunk_hasher(self.piece)
    }

    /// The buffer length of these options, or else the transport's.
    fn buffer_len_for(&self, config: &TransportConfig) -> usize {
        self.buffer_len_bytes.unwrap_or(config.buffer_len_bytes).max(1)
    }

    fn step(&self, step: LaneStep) -> InStep<'_> {
        InStep::begin(self.steps.as_ref(), step)
    }

    /// Waits for the rate limit, if there is one.
    async fn take_of_rate(&self, len_bytes: usize) {
        if let Some(rate) = &self.rate {
            let _step = self.step(LaneStep::Limit);
            rate.take(len_bytes).await;
        }
    }

    fn advance(&self, len_bytes: usize) {
        if let Some(progress) = &self.progress {
            progress(len_bytes as u64);
        }
    }
}
