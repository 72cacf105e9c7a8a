//! Orderly shutdown: refuses new transfers, finishes running ones, then tells peers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use shiplane_transport::{
    ChunkExpectation, ChunkSource, ConnectError, LaneOptions, PeerConnection, QuicTransport, RecvChunkError,
    SendChunkError, StreamError,
};
use shiplane_wire::Code;
use thiserror::Error;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{Direction, PeerTarget, TransferMetrics, lock, metrics::Counting};

/// Tracks the running transfers of a transport in both directions, so that a shutdown can wait for them.
///
/// [`send`](Self::send) and [`receive`](Self::receive) are tracked. For any other transfer, hold a
/// [`TransferAdmission`] while it runs.
#[derive(Debug)]
pub struct TransferManager {
    transport: Arc<QuicTransport>,
    metrics: Arc<TransferMetrics>,
    lane: LaneOptions,
    tracker: TaskTracker,
    closing: CancellationToken,
    /// Makes admission and the start of a shutdown exclusive.
    admitting: Mutex<()>,
}

/// Permission for one transfer. A shutdown waits until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, the transfer is no longer waited for"]
pub struct TransferAdmission {
    _under_way: TaskTrackerToken,
}

/// A shutdown has begun, so no new transfer is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shutting down; no new transfers are accepted")]
pub struct ShuttingDown;

/// The result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Transfers that had not ended at the deadline and were stopped.
    pub cut_off: usize,
}

/// Why a tracked transfer failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManagedError {
    /// The transfer was not started.
    #[error(transparent)]
    ShuttingDown(#[from] ShuttingDown),
    /// Connecting to the peer failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Sending the chunk failed.
    #[error(transparent)]
    Send(#[from] SendChunkError),
    /// Receiving the chunk failed.
    #[error(transparent)]
    Receive(#[from] RecvChunkError),
    /// The connection ended while no chunk was arriving.
    #[error(transparent)]
    Connection(StreamError),
}

impl TransferManager {
    /// Creates a manager for `transport` that counts transfers in `metrics`, and sends and receives with the options
    /// `lane`.
    #[must_use]
    pub fn new(transport: Arc<QuicTransport>, metrics: Arc<TransferMetrics>, lane: LaneOptions) -> Self {
        Self {
            transport,
            metrics,
            lane,
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            admitting: Mutex::new(()),
        }
    }

    /// Admits a transfer.
    ///
    /// # Errors
    /// [`ShuttingDown`], once [`shutdown`](Self::shutdown) has been called.
    pub fn admit(&self) -> Result<TransferAdmission, ShuttingDown> {
        let _exclusive = lock(&self.admitting);
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
        let target = peer.into();
        let sent = async {
            let connection = target.connect(&self.transport).await?;
            Ok::<_, ManagedError>(connection.send_chunk_with(chunk, &self.lane).await?)
        };
        Counting::of(Some(&self.metrics), Direction::Sent, target.addr(), sent, |bytes| *bytes).await
    }

    /// Receives the peer's next bare chunk, if it is as expected. `None` after the connection was closed in order.
    /// Waiting does not count as a transfer; an arriving chunk does.
    ///
    /// Cancel-safe until then; dropping later rejects the chunk.
    ///
    /// # Errors
    /// [`ManagedError::ShuttingDown`] when a shutdown begins while no chunk is arriving. A later chunk is refused. Other
    /// variants say why the chunk was not received.
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
        let (metrics, peer) = (Some(&self.metrics), connection.remote_addr());
        let received = chunk.receive_to_memory(expected, &self.lane);
        let bytes = |data: &Bytes| data.len() as u64;
        Ok(Some(Counting::of(metrics, Direction::Received, peer, received, bytes).await?))
    }

    /// The number of running transfers.
    #[must_use]
    pub fn active(&self) -> usize {
        self.tracker.len()
    }

    /// Returns when a shutdown begins, for loops that accept connections. Cancel-safe.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// The metrics of all transfers so far.
    #[must_use]
    pub fn metrics(&self) -> &Arc<TransferMetrics> {
        &self.metrics
    }

    /// Stops admitting transfers, waits for the running ones for at most `deadline`, then closes the transport and tells
    /// the peers. Returns early when all transfers have ended.
    ///
    /// Not cancel-safe: after it is dropped, still no transfer is admitted. Call it again.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        {
            let _exclusive = lock(&self.admitting);
            self.closing.cancel();
            self.tracker.close();
        }
        let all_ended = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        let cut_off = self.tracker.len();
        // The last statuses may still be in flight. Transfers past the deadline get no more time.
        let grace = if all_ended { CLOSE_GRACE } else { Duration::ZERO };
        self.transport.shutdown(grace).await;
        ShutdownReport { cut_off }
    }
}

/// 2 s: several round trips for the last acknowledgement.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
