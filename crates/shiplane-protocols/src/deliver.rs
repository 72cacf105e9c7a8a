//! Delivers to a peer's [`Inbox`](crate::Inbox): small data in a call, large data as a chunk.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::{
    ChunkSource, ConnectError, LaneOptions, QuicTransport, SendChunkError, StreamError,
    internals::{ChunkRead, ProgressFn, SourceError, blocking},
};
use shiplane_wire::{Digest, TaggedChunk, TransferId};
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    PeerTarget,
    compress::{Compression, EncodedSource, MAX_ENCODED_CONTENT_BYTES},
    content::{read_whole, sha256_of},
    inbox::{OFFER, Offer, Offered, PUT, Put},
    methods::{CALL_BUDGET, random_transfer_id},
    progress::HighWater,
    result::{Delivery, Direction, TransferReport},
    retry::RetryPolicy,
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

    /// The time for the call that announces it, or that carries it.
    #[must_use]
    pub fn call_budget(mut self, call_budget: Duration) -> Self {
        self.call_budget = call_budget;
        self
    }

    /// Content of at most this length is sent in a call, which holds less than 1 MiB whatever this says. Default [`CALL_THRESHOLD_BYTES`].
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

    /// Whether the same, tried again, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Call(error) | Self::Put(error) => may_pass(error),
            // The inbox had agreed to this chunk, so what refused it without a word came later: most of
            // all its patience with a path that stalled, which ended before ours.
            Self::Send(SendChunkError::Rejected { code: None }) => true,
            Self::Send(error) => error.is_retryable(),
            Self::Conflict | Self::NoRandomness => false,
        }
    }
}

fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::DeadlineExceeded { .. } | CallError::Busy { .. } => true,
        CallError::ConnectionLost(end) => end.is_retryable(),
        CallError::Refused { code } => StreamError::Reset(*code).is_retryable(),
        CallError::Fault(fault) => {
            matches!(fault.code, FaultCode::Busy | FaultCode::DeadlineExceeded | FaultCode::ShuttingDown)
        }
        CallError::TooLarge { .. } | CallError::Unencodable | CallError::PeerProtocol(_) => false,
    }
}

/// Delivers `source` to the [`Inbox`](crate::Inbox) of the peer, by call or by lane as its size asks, in one attempt.
/// Both end in the same inbox.
///
/// Not cancel-safe: dropped, whether it was delivered is unknown.
///
/// # Errors
/// See [`DeliverError`].
pub async fn transfer_auto(
    client: &RpcClient,
    source: &ChunkSource,
    options: &SendOptions,
) -> Result<TransferReport, DeliverError> {
    let start = Instant::now();
    let transfer = random_transfer_id().ok_or(DeliverError::NoRandomness)?;
    let arrived = deliver(client, transfer, source.opened().await?, options).await?;
    Ok(arrived.report(client.connection().remote_addr(), start.elapsed()))
}

/// A delivery that failed for good.
#[derive(Debug, Error)]
#[error("{error} (attempts: {})", report.attempts)]
#[non_exhaustive]
pub struct SendFailed {
    /// The result of all attempts together. If the delivery is [`Delivery::Unknown`], only sending
    /// it again under the same id ([`send_again`]) can tell.
    pub report: TransferReport,
    /// The id, for [`send_again`].
    pub transfer: TransferId,
    /// Why the last attempt failed.
    #[source]
    pub error: DeliverError,
}

/// Delivers `source` to the [`Inbox`](crate::Inbox) of `peer`, dialling and trying again as `policy`
/// says. The application there gets it once, whichever answers are lost.
///
/// Each attempt opens the source anew and dials if the connection is gone. A progress hook in `options`
/// hears of the furthest attempt only.
///
/// Not cancel-safe: dropped, whether it was delivered is unknown.
///
/// # Errors
/// [`SendFailed`] when the failure is none that time mends, as a missing file, or the attempts are used
/// up.
pub async fn send_with_retry(
    transport: &QuicTransport,
    peer: impl Into<PeerTarget>,
    source: &ChunkSource,
    policy: &RetryPolicy,
    options: &SendOptions,
) -> Result<TransferReport, SendFailed> {
    let target = peer.into();
    let Some(transfer) = random_transfer_id() else {
        let (error, rejected) = (DeliverError::NoRandomness, Delivery::Rejected);
        let report = TransferReport::failed(Direction::Sent, target.addr(), rejected, &error, Duration::ZERO);
        return Err(SendFailed { report, transfer: TransferId::from_bytes([0; 16]), error });
    };
    send_again(transport, target, transfer, source, policy, options).await
}

/// As [`send_with_retry`], under an id that was used before, by this process or an earlier one.
///
/// Not cancel-safe: dropped, whether it was delivered is unknown; the same call settles it.
///
/// # Errors
/// As there; [`DeliverError::Conflict`] if the source is not what was delivered under the id.
pub async fn send_again(
    transport: &QuicTransport,
    peer: impl Into<PeerTarget>,
    transfer: TransferId,
    source: &ChunkSource,
    policy: &RetryPolicy,
    options: &SendOptions,
) -> Result<TransferReport, SendFailed> {
    let (target, start) = (peer.into(), Instant::now());
    let unknown = AtomicBool::new(false);
    let furthest = options.lane.progress_fn().map(furthest);
    let sending = Sending { transport, target, transfer, source, options, furthest, unknown };
    let (outcome, attempts) = policy.run(|| sending.attempt(), DeliverError::is_retryable).await;
    let duration = start.elapsed();
    let peer = target.addr();
    match outcome {
        Ok(arrived) => Ok(TransferReport { attempts, ..arrived.report(peer, duration) }),
        Err(error) => {
            let unknown = sending.unknown.load(Ordering::Relaxed);
            let delivery = if unknown { Delivery::Unknown } else { Delivery::Rejected };
            let report = TransferReport::failed(Direction::Sent, peer, delivery, &error, duration);
            Err(SendFailed { report: TransferReport { attempts, ..report }, transfer, error })
        }
    }
}

/// What all attempts share.
struct Sending<'a> {
    transport: &'a QuicTransport,
    target: PeerTarget,
    transfer: TransferId,
    source: &'a ChunkSource,
    options: &'a SendOptions,
    furthest: Option<Arc<HighWater>>,
    /// Whether an attempt may have arrived without our knowing.
    unknown: AtomicBool,
}

impl Sending<'_> {
    async fn attempt(&self) -> Result<Arrived, DeliverError> {
        let outcome = self.try_once().await;
        if let Err(error) = &outcome {
            tracing::debug!(peer = %self.target.addr(), transfer = %self.transfer, %error, "attempt failed");
            self.learn(error);
        }
        outcome
    }

    async fn try_once(&self) -> Result<Arrived, DeliverError> {
        let source = self.source.opened().await?;
        let connection = self.target.connect(self.transport).await?;
        let lane = self.options.lane.clone().maybe_progress(self.furthest.as_ref().map(HighWater::attempt));
        let options = self.options.clone().lane(lane);
        deliver(&RpcClient::new(connection), self.transfer, source, &options).await
    }

    fn learn(&self, error: &DeliverError) {
        match error {
            // Failed before the peer could say anything about the earlier attempts.
            DeliverError::Send(SendChunkError::Source(_))
            | DeliverError::Connect(_)
            | DeliverError::Call(_)
            | DeliverError::NoRandomness => {}
            DeliverError::Put(_) => {
                self.unknown.fetch_or(error.delivery() == Delivery::Unknown, Ordering::Relaxed);
            }
            // The peer asked for the chunk, so no earlier one had arrived.
            DeliverError::Send(_) | DeliverError::Conflict => {
                self.unknown.store(error.delivery() == Delivery::Unknown, Ordering::Relaxed);
            }
        }
    }
}

/// Passes on what goes beyond the furthest attempt so far.
fn furthest(progress: &ProgressFn) -> Arc<HighWater> {
    let (progress, mut reported_bytes) = (Arc::clone(progress), 0);
    HighWater::new(0, move |at| {
        progress(at.moved_bytes - std::mem::replace(&mut reported_bytes, at.moved_bytes))
    })
}

/// A delivery that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrived {
    by_call: bool,
    content_bytes: u64,
    /// None if an earlier attempt had arrived.
    wire_bytes: u64,
}

impl Arrived {
    fn report(self, peer: SocketAddr, duration: Duration) -> TransferReport {
        let Self { by_call, content_bytes, wire_bytes } = self;
        let report = TransferReport::verified(Direction::Sent, peer, content_bytes, duration);
        TransferReport { by_call, wire_bytes, ..report }
    }
}

/// One attempt, by call or by lane as its size asks.
async fn deliver(
    client: &RpcClient,
    transfer: TransferId,
    source: Box<dyn ChunkRead>,
    options: &SendOptions,
) -> Result<Arrived, DeliverError> {
    if source.len_bytes() > options.call_threshold_bytes.min(MAX_CALL_BYTES) {
        return deliver_by_lane(client, transfer, source, options).await;
    }
    let arrived = deliver_by_call(client, transfer, source, options).await?;
    if let Some(progress) = options.lane.progress_fn() {
        progress(arrived.content_bytes);
    }
    Ok(arrived)
}

/// Delivers by the lane: announce, then send the chunk, if that is still needed.
async fn deliver_by_lane(
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
            let arrived = Arrived { by_call: false, content_bytes, wire_bytes: 0 };
            return if same { Ok(arrived) } else { Err(DeliverError::Conflict) };
        }
        Offered::Send { zstd: false } => connection.send_tagged_chunk(tag, source, &options.lane).await?,
        Offered::Send { zstd: true } => {
            let compression = options.compression;
            let encoded = blocking(move || EncodedSource::encode(source, compression));
            connection.send_tagged_chunk(tag, encoded.await?, &options.lane).await?
        }
    };
    Ok(Arrived { by_call: false, content_bytes, wire_bytes: sent.len_bytes })
}

/// Delivers in a call.
async fn deliver_by_call(
    client: &RpcClient,
    transfer: TransferId,
    mut source: Box<dyn ChunkRead>,
    options: &SendOptions,
) -> Result<Arrived, DeliverError> {
    let data = blocking(move || read_whole(&mut source)).await?;
    let content_bytes = data.len() as u64;
    let put = Put { transfer: *transfer.as_bytes(), data: data.into() };
    match client.call_typed(PUT, &put, options.call_budget).await {
        Ok(()) => Ok(Arrived { by_call: true, content_bytes, wire_bytes: content_bytes }),
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

/// 1 MiB less the envelope: what a call can hold at all.
const MAX_CALL_BYTES: u64 = shiplane_wire::limits::MAX_RPC_FRAME_LEN_BYTES as u64 - 1024;
