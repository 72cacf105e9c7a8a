//! One attempt to deliver to a peer's [`Inbox`](crate::Inbox).

use std::time::Duration;

use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::{
    ChunkSource, ConnectError, LaneOptions, SendChunkError, StreamError,
    internals::{ChunkRead, SourceError, blocking},
};
use shiplane_wire::{Digest, TaggedChunk, TransferId};
use thiserror::Error;

use crate::{
    compress::{Compression, EncodeSourceError, EncodedSource, MAX_ENCODED_CONTENT_BYTES},
    content::{read_whole, sha256_of},
    inbox::{OFFER, Offer, Offered, PUT, Put},
    methods::CALL_BUDGET,
    result::Delivery,
    retry::Retryable,
};

/// How a delivery is sent.
#[derive(Debug, Clone)]
pub struct SendOptions {
    pub(crate) lane: LaneOptions,
    pub(crate) compression: Compression,
    pub(crate) call_budget: Duration,
    pub(crate) call_threshold_bytes: u64,
}

impl SendOptions {
    /// Progress and rate of the chunk, in bytes as they are sent: compressed, they are fewer.
    #[must_use]
    pub fn lane(mut self, lane: LaneOptions) -> Self {
        self.lane = lane;
        self
    }

    /// Whether to compress, if the receiver agrees. What is over 16 MiB is sent as it is.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The time for the call that announces it, or that carries it. .
    #[must_use]
    pub fn call_budget(mut self, call_budget: Duration) -> Self {
        self.call_budget = call_budget;
        self
    }

    /// Up to so many bytes, [`transfer_auto`](crate::transfer_auto) sends it in a call; a call holds less than 1 MiB,
    /// whatever this says. Default [`CALL_THRESHOLD_BYTES`].
    #[must_use]
    pub fn call_threshold_bytes(mut self, call_threshold_bytes: u64) -> Self {
        self.call_threshold_bytes = call_threshold_bytes;
        self
    }
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            lane: LaneOptions::default(),
            compression: Compression::default(),
            call_budget: CALL_BUDGET,
            call_threshold_bytes: CALL_THRESHOLD_BYTES,
        }
    }
}

/// Why a delivery failed.
#[derive(Debug, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum DeliverError {
    /// The peer cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer does not take it, or cannot be asked. A fault says why.
    #[error("the inbox: {0}")]
    Call(#[source] CallError),
    /// A delivery in the call itself has no answer: it may have arrived.
    #[error("the inbox: {0}")]
    Put(#[source] CallError),
    /// The chunk was not sent, not taken, or not answered.
    #[error(transparent)]
    Send(#[from] SendChunkError),
    /// The peer has something else under this id from an earlier attempt: the source has changed
    /// since. Deliver it under a new id.
    #[error("an earlier attempt has delivered other content")]
    Conflict,
    /// The system has no randomness to make an id of.
    #[error("the system's random source failed")]
    NoRandomness,
}

impl DeliverError {
    /// What this failure alone says of the receiver.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Send(error) if error.is_unknown() => Delivery::Unknown,
            Self::Put(
                CallError::DeadlineExceeded { .. }
                | CallError::ConnectionLost(_)
                | CallError::Refused { .. }
                | CallError::PeerProtocol(_),
            ) => Delivery::Unknown,
            Self::Connect(_)
            | Self::Call(_)
            | Self::Put(_)
            | Self::Send(_)
            | Self::Conflict
            | Self::NoRandomness => Delivery::Rejected,
        }
    }
}

impl Retryable for DeliverError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Call(error) | Self::Put(error) => error.is_retryable(),
            // The inbox had agreed to this chunk, so what refused it without a word came later: most of
            // all its patience with a path that stalled, which ended before ours.
            Self::Send(SendChunkError::Rejected { code: None }) => true,
            Self::Send(error) => error.is_retryable(),
            Self::Conflict | Self::NoRandomness => false,
        }
    }
}

impl Retryable for CallError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::DeadlineExceeded { .. } | Self::Busy { .. } => true,
            Self::ConnectionLost(end) => end.is_retryable(),
            Self::Refused { code } => StreamError::Reset(*code).is_retryable(),
            Self::Fault(fault) => {
                matches!(fault.code, FaultCode::Busy | FaultCode::DeadlineExceeded | FaultCode::ShuttingDown)
            }
            Self::TooLarge { .. } | Self::Unencodable | Self::PeerProtocol(_) => false,
        }
    }
}

/// A delivery that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) content_bytes: u64,
    /// None if an earlier attempt had arrived.
    pub(crate) wire_bytes: u64,
}

/// Opens a source on a blocking thread.
pub(crate) async fn open(source: &ChunkSource) -> Result<Box<dyn ChunkRead>, SendChunkError> {
    let source = source.clone();
    let opened = blocking::spawn(move || source.open()).await;
    Ok(opened.map_err(|_| SourceError::Abandoned)??)
}

/// Delivers by the lane: announce, then send the chunk, if that is still needed.
pub(crate) async fn deliver_by_lane(
    client: &RpcClient,
    transfer: TransferId,
    mut source: Box<dyn ChunkRead>,
    options: &SendOptions,
) -> Result<Arrived, DeliverError> {
    let content_bytes = source.len_bytes();
    let zstd = options.compression != Compression::Never && content_bytes <= MAX_ENCODED_CONTENT_BYTES;
    let offer = Offer { transfer: *transfer.as_bytes(), len_bytes: content_bytes, zstd };
    let offered = client.call_typed(OFFER, &offer, options.call_budget).await;
    let tag = TaggedChunk { transfer, index: 0 };
    let connection = client.connection();
    let sent = match offered.map_err(DeliverError::Call)? {
        Offered::Delivered { digest } => {
            let here = blocking(move || sha256_of(&mut source)).await?;
            let same = here == Digest::from_bytes(digest);
            let arrived = Arrived { content_bytes, wire_bytes: 0 };
            return if same { Ok(arrived) } else { Err(DeliverError::Conflict) };
        }
        Offered::Send { zstd: false } => connection.send_tagged_chunk(tag, source, &options.lane).await?,
        Offered::Send { zstd: true } => {
            let compression = options.compression;
            let encoded = blocking(move || {
                EncodedSource::encode(source, compression).map_err(|error| match error {
                    EncodeSourceError::Source(error) => error,
                    // The size was checked before zstd was offered; only a broken peer comes here.
                    EncodeSourceError::TooLarge { .. } => SourceError::Abandoned,
                })
            });
            connection.send_tagged_chunk(tag, encoded.await?, &options.lane).await?
        }
    };
    Ok(Arrived { content_bytes, wire_bytes: sent.len_bytes })
}

/// Delivers in a call.
pub(crate) async fn deliver_by_call(
    client: &RpcClient,
    transfer: TransferId,
    mut source: Box<dyn ChunkRead>,
    options: &SendOptions,
) -> Result<Arrived, DeliverError> {
    let data = blocking(move || read_whole(&mut source)).await?;
    let content_bytes = data.len() as u64;
    let put = Put { transfer: *transfer.as_bytes(), data: data.into() };
    match client.call_typed(PUT, &put, options.call_budget).await {
        Ok(()) => Ok(Arrived { content_bytes, wire_bytes: content_bytes }),
        Err(CallError::Fault(fault)) if fault.code == FaultCode::Integrity => Err(DeliverError::Conflict),
        Err(error) => Err(DeliverError::Put(error)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SendChunkError> {
    Ok(blocking::spawn(work).await.map_err(|_| SourceError::Abandoned)??)
}

/// 64 KiB: up to there a call's one round trip is worth more than the lane's
/// streaming.
pub const CALL_THRESHOLD_BYTES: u64 = 64 * 1024;
