//! Orderly shutdown: refuses new transfers, finishes running ones, then tells peers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use shiplane_transport::{
    ChunkExpectation, ChunkSource, ConnectError, LaneOptions, PeerConnection, QuicTransport, RecvChunkError,
    SendChunkError, StreamError,
};
use shiplane_wire::Code;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{Delivery, Direction, PeerTarget, TransferMetrics, TransferReport};

/// Knows every transfer of a transport that is under way, in both directions, so that it can be closed
/// without cutting one off.
///
/// [`send`](Self::send) and [`receive`](Self::receive) are tracked; whatever else is a transfer to the
/// program holds an [`Admission`](TransferAdmission) while it runs.
#[derive(Debug)]
pub struct TransferManager {
    transport: Arc<QuicTransport>,
    metrics: Arc<TransferMetrics>,
    lane: LaneOptions,
    tracker: TaskTracker,
    closing: CancellationToken,
    /// Held while a transfer is admitted and while the doors are closed, so that none slips between.
    door: Mutex<()>,
}

/// Permission for one transfer. The shutdown waits until it is dropped, however that comes about.
#[derive(Debug)]
#[must_use = "dropped, the transfer is no longer waited for"]
pub struct TransferAdmission {
    _under_way: TaskTrackerToken,
}

/// No more transfers are begun here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shutting down; no new transfers are accepted")]
pub struct ShuttingDown;

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Transfers that had not ended at the deadline and were cut off.
    pub cut_off: usize,
}

/// Why a tracked transfer failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManagedError {
    /// It was not begun.
    #[error(transparent)]
    ShuttingDown(#[from] ShuttingDown),
    /// The peer cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The chunk was not sent.
    #[error(transparent)]
    Send(#[from] SendChunkError),
    /// The chunk was not received.
    #[error(transparent)]
    Receive(#[from] RecvChunkError),
    /// The connection ended while no chunk was under way.
    #[error(transparent)]
    Connection(StreamError),
}

impl TransferManager {
    /// Manages the transfers of `transport`, counts them in `metrics`, and sends and receives with
    /// `lane`.
    #[must_use]
    pub fn new(transport: Arc<QuicTransport>, metrics: Arc<TransferMetrics>, lane: LaneOptions) -> Self {
        Self {
            transport,
            metrics,
            lane,
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            door: Mutex::new(()),
        }
    }

    /// Begins a transfer.
    ///
    /// # Errors
    /// [`ShuttingDown`]. Once [`shutdown`](Self::shutdown) has been called, there is never another one.
    pub fn admit(&self) -> Result<TransferAdmission, ShuttingDown> {
        let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.is_cancelled() {
            return Err(ShuttingDown);
        }
        Ok(TransferAdmission { _under_way: self.tracker.token() })
    }

    /// Sends a bare chunk to `peer`. Returns its size.
    ///
    /// Not cancel-safe: dropping resets the stream, and the receiver keeps nothing.
    ///
    /// # Errors
    /// [`ManagedError::ShuttingDown`], or why it failed.
    pub async fn send(&self, peer: impl Into<PeerTarget>, chunk: &ChunkSource) -> Result<u64, ManagedError> {
        let _admitted = self.admit()?;
        let (target, start) = (peer.into(), Instant::now());
        let sent = async {
            let connection = target.connect(&self.transport).await?;
            Ok::<_, ManagedError>(connection.send_chunk_with(chunk, &self.lane).await?)
        };
        let sent = sent.await;
        let report = match &sent {
            Ok(bytes) => TransferReport::verified(Direction::Sent, target.addr(), *bytes, start.elapsed()),
            Err(error) => {
                let delivery = match error {
                    ManagedError::Send(error) if error.is_unknown() => Delivery::Unknown,
                    _ => Delivery::Rejected,
                };
                TransferReport::failed(Direction::Sent, target.addr(), delivery, error, start.elapsed())
            }
        };
        self.metrics.record(&report);
        sent
    }

    /// The peer's next bare chunk, if it is as expected; `None` after the connection's orderly end.
    /// Waiting for one is no transfer; it becomes one when it begins to arrive.
    ///
    /// Cancel-safe until then; dropping later rejects the chunk.
    ///
    /// # Errors
    /// [`ManagedError::ShuttingDown`] as soon as a shutdown begins, if no chunk is arriving; a chunk
    /// that comes later is refused. Else why it failed.
    pub async fn receive(
        &self,
        connection: &PeerConnection,
        expected: &ChunkExpectation,
    ) -> Result<Option<Bytes>, ManagedError> {
        let next = tokio::select! {
            biased;
            () = self.closing.cancelled() => return Err(ShuttingDown.into()),
            next = connection.next_chunk() => next.map_err(ManagedError::Connection)?,
        };
        let Some(chunk) = next else { return Ok(None) };
        let _admitted = match self.admit() {
            Ok(admitted) => admitted,
            Err(shutting_down) => {
                chunk.refuse(Code::ShuttingDown).await;
                return Err(shutting_down.into());
            }
        };
        let (peer, start) = (connection.remote_addr(), Instant::now());
        let received = chunk.receive_to_memory(expected, &self.lane).await;
        let report = match &received {
            Ok(data) => {
                let bytes = data.len() as u64;
                TransferReport::verified(Direction::Received, peer, bytes, start.elapsed())
            }
            Err(error) => {
                let rejected = Delivery::Rejected;
                TransferReport::failed(Direction::Received, peer, rejected, error, start.elapsed())
            }
        };
        self.metrics.record(&report);
        Ok(Some(received?))
    }

    /// How many transfers are under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.tracker.len()
    }

    /// Comes when a shutdown begins: for loops that accept. Cancel-safe.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// The transfers so far.
    #[must_use]
    pub fn metrics(&self) -> &Arc<TransferMetrics> {
        &self.metrics
    }

    /// Admits no more transfers, waits for those under way, at most until `deadline` has passed, then
    /// closes the transport and waits until peers have been told. Returns early once all have ended.
    ///
    /// Not cancel-safe: dropped, nothing new is admitted all the same; call it again.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        {
            let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            self.closing.cancel();
            self.tracker.close();
        }
        let all_ended = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        let cut_off = self.tracker.len();
        // The last statuses are still on their way; who has not ended is waited for no longer.
        let grace = if all_ended { CLOSE_GRACE } else { Duration::ZERO };
        self.transport.shutdown(grace).await;
        ShutdownReport { cut_off }
    }
}

/// 2 s: several round trips for the last acknowledgement.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
