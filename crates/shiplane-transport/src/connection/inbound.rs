//! Queues of incoming streams and chunks until the application takes them.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use shiplane_wire::{Code, Digest, Offer, Stored, TransferId, Verified, limits};
use tokio::sync::mpsc;

use super::transfers::{Tagged, Transfers};
use crate::{
    blocking,
    config::TransportConfig,
    error::{RecvChunkError, SinkError},
    lane::{LaneOptions, recv::recv_chunk, recv::refuse_chunk},
    meter::{ProgressMeter, watched},
    sink::{ChunkSink, FileSink, MemorySink},
    stream::BiStream,
    traffic::Traffic,
};

/// What was agreed about a chunk before it arrives. By default, any chunk within the transport's limit is accepted.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ChunkExpectation {
    len_bytes: Option<u64>,
    digest: Option<Digest>,
    max_len_bytes: Option<u64>,
}

impl ChunkExpectation {
    /// Its exact size.
    pub fn len_bytes(mut self, len_bytes: u64) -> Self {
        self.len_bytes = Some(len_bytes);
        self
    }

    /// Its digest.
    pub fn digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// A limit other than the transport's.
    pub fn max_len_bytes(mut self, max_len_bytes: u64) -> Self {
        self.max_len_bytes = Some(max_len_bytes);
        self
    }

    /// Anything that a frame can carry: for sinks that do not keep it in memory.
    pub(super) fn any_size() -> Self {
        Self::default().max_len_bytes(limits::MAX_FRAME_LEN_BYTES)
    }
}

/// A claimed transfer id: its streams are delivered here. Further streams are refused once it is dropped.
#[derive(Debug)]
pub struct Claim {
    transfer: TransferId,
    inbox: mpsc::Receiver<Tagged>,
    /// Chunks that came before the records.
    early: VecDeque<Tagged>,
    transfers: Arc<Transfers>,
    config: Arc<TransportConfig>,
    meter: Option<ProgressMeter>,
    connection: quinn::Connection,
    traffic: Traffic,
}

impl Claim {
    pub(super) fn new(
        transfer: TransferId,
        transfers: &Arc<Transfers>,
        config: &Arc<TransportConfig>,
        connection: quinn::Connection,
        traffic: &Traffic,
    ) -> Result<Self, AlreadyClaimed> {
        let inbox = transfers.claim(transfer).ok_or(AlreadyClaimed)?;
        Ok(Self {
            transfer,
            inbox,
            early: VecDeque::new(),
            transfers: Arc::clone(transfers),
            config: Arc::clone(config),
            meter: None,
            connection,
            traffic: traffic.clone(),
        })
    }

    /// The round trip of the path that the transfer's streams take, as it is now.
    #[doc(hidden)]
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// What the connection carries.
    #[doc(hidden)]
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Counts what the streams of chunks that are still to come carry, and lets each wait for its turn without a
    /// deadline of its own: the owner of the meter watches the transfer as a whole.
    #[doc(hidden)]
    pub fn watch(&mut self, meter: ProgressMeter) {
        self.config = Arc::new(watched(&self.config));
        self.meter = Some(meter);
    }

    /// The transfer's id.
    #[must_use]
    pub fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// The stream of the transfer's records, which the peer opens; chunks that overtake it come from
    /// [`next`](Self::next) later. `None` once the connection has ended. Cancel-safe.
    #[doc(hidden)]
    pub async fn records(&mut self) -> Option<BiStream> {
        loop {
            match self.inbox.recv().await? {
                Tagged::Records(stream) => return Some(stream),
                // Dropped, it is refused.
                chunk if self.early.len() < limits::MAX_PARKED_STREAMS => self.early.push_back(chunk),
                Tagged::Chunk { .. } => {}
            }
        }
    }

    /// The next stream; `None` once the connection has ended. Cancel-safe.
    #[doc(hidden)]
    pub async fn next(&mut self) -> Option<TransferStream> {
        let next = match self.early.pop_front() {
            Some(early) => early,
            None => self.inbox.recv().await?,
        };
        Some(match next {
            Tagged::Records(stream) => TransferStream::Records(stream),
            Tagged::Chunk { index, len_bytes, is_compressed, mut stream } => {
                if let Some(meter) = &self.meter {
                    stream.count(meter);
                }
                let chunk = InboundChunk { index, len_bytes, stream, config: Arc::clone(&self.config) };
                if is_compressed { TransferStream::Compressed(chunk) } else { TransferStream::Chunk(chunk) }
            }
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.transfers.release(self.transfer);
    }
}

/// Another claim of the same transfer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer is already claimed on this connection")]
pub struct AlreadyClaimed;

/// A stream of a claimed transfer.
#[derive(Debug)]
pub enum TransferStream {
    /// The records, both ways.
    Records(BiStream),
    /// A chunk.
    Chunk(InboundChunk),
    /// A chunk whose frame carries an encoded payload: refuse it unless that was agreed on.
    Compressed(InboundChunk),
}

/// A chunk of known size whose data has not been read. It is refused if this is dropped.
#[derive(Debug)]
pub struct InboundChunk {
    index: u64,
    len_bytes: u64,
    stream: BiStream,
    config: Arc<TransportConfig>,
}

impl InboundChunk {
    pub(super) fn bare(len_bytes: u64, stream: BiStream, config: Arc<TransportConfig>) -> Self {
        Self { index: 0, len_bytes, stream, config }
    }

    /// Takes the whole frame, looks at none of it and answers with any byte: a hostile peer's part in a test. Dropped, it
    /// resets the stream.
    ///
    /// # Errors
    /// [`StreamError`](crate::StreamError).
    #[cfg(feature = "test-support")]
    #[doc(hidden)]
    pub async fn answer_with(mut self, status: u8) -> Result<(), crate::StreamError> {
        let max_bytes =
            usize::try_from(self.len_bytes).unwrap_or(usize::MAX).saturating_add(Digest::LEN_BYTES);
        self.stream.recv.read_to_end(max_bytes).await?;
        self.stream.send.write(Bytes::copy_from_slice(&[status])).await?;
        self.stream.send.finish()
    }

    /// Its index in the transfer, as claimed by the sender. A bare chunk has index 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Its size in bytes, as claimed by the sender and not checked against a limit yet.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Receives it into `sink`. The size must be exactly `expected_bytes` (SPEC 4.8).
    ///
    /// Not cancel-safe: dropping refuses the chunk.
    ///
    /// # Errors
    /// See [`RecvChunkError`]. The sender has then been told, with status 1 or 2.
    #[doc(hidden)]
    pub async fn receive<S: ChunkSink>(
        self,
        expected_bytes: u64,
        sink: S,
        options: &LaneOptions,
    ) -> Result<S::Output, RecvChunkError<S::Error>> {
        match Offer::exactly(self.len_bytes, expected_bytes) {
            Ok(offer) => recv_chunk(self.stream, offer, sink, &self.config, options).await,
            Err(error) => {
                self.refuse(error.code()).await;
                Err(RecvChunkError::Frame(error))
            }
        }
    }

    /// Receives it into memory, if it is as expected; that is known before the sender sees success.
    ///
    /// Not cancel-safe: dropping refuses the chunk.
    ///
    /// # Errors
    /// [`RecvChunkError::Frame`] for another size, `SinkError::WrongDigest` inside
    /// [`RecvChunkError::Sink`] for another digest.
    pub async fn receive_to_memory(
        self,
        expected: &ChunkExpectation,
        options: &LaneOptions,
    ) -> Result<Bytes, RecvChunkError> {
        self.receive_made(expected, || Ok(MemorySink::default()), options).await
    }

    /// Receives it into a new file at `path`, in bounded memory, if it is as expected. The file
    /// appears whole, verified and synced, or not at all. Without a size or limit in `expected`, any
    /// size will do.
    ///
    /// Not cancel-safe: dropping refuses the chunk, and nothing appears.
    ///
    /// # Errors
    /// `SinkError::Exists` inside [`RecvChunkError::Sink`] when the name is taken, and as
    /// [`receive_to_memory`](Self::receive_to_memory).
    pub async fn receive_to_path(
        self,
        path: &Path,
        expected: &ChunkExpectation,
        options: &LaneOptions,
    ) -> Result<(), RecvChunkError> {
        let path = path.to_owned();
        let mut expected = expected.clone();
        expected.max_len_bytes.get_or_insert(limits::MAX_FRAME_LEN_BYTES);
        self.receive_made(&expected, move || FileSink::create(&path), options).await
    }

    /// Refuses it with status 2 and `code`. Dropped, it resets the stream, which refuses the chunk too.
    #[doc(hidden)]
    pub async fn refuse(self, code: Code) {
        // A byte, for which there is room.
        refuse_chunk(self.stream, code, self.config.header_timeout).await;
    }

    /// Receives into the sink that `make_sink` makes on a blocking thread.
    pub(super) async fn receive_made<S: ChunkSink<Error = SinkError>>(
        self,
        expected: &ChunkExpectation,
        make_sink: impl FnOnce() -> Result<S, SinkError> + Send + 'static,
        options: &LaneOptions,
    ) -> Result<S::Output, RecvChunkError> {
        let max_bytes = expected.max_len_bytes.unwrap_or(self.config.max_chunk_len_bytes);
        let admitted = match expected.len_bytes {
            Some(agreed_bytes) => Offer::exactly(self.len_bytes, agreed_bytes)
                .and_then(|offer| Offer::new(offer.len_bytes(), max_bytes)),
            None => Offer::new(self.len_bytes, max_bytes),
        };
        let sink = match &admitted {
            Ok(_) => blocking::spawn(make_sink)
                .await
                .map_err(|_| RecvChunkError::Abandoned)
                .and_then(|sink| sink.map_err(RecvChunkError::Sink)),
            Err(error) => Err(RecvChunkError::Frame(*error)),
        };
        match (admitted, sink) {
            (Ok(offer), Ok(inner)) => {
                let sink = ExpectDigest { inner, expected: expected.digest };
                recv_chunk(self.stream, offer, sink, &self.config, options).await
            }
            (Err(error), _) => {
                self.refuse(error.code()).await;
                Err(RecvChunkError::Frame(error))
            }
            (Ok(_), Err(error)) => {
                self.refuse(error.code()).await;
                Err(error)
            }
        }
    }
}

/// Checks the agreed digest between verification and commit.
#[derive(Debug)]
struct ExpectDigest<S> {
    inner: S,
    expected: Option<Digest>,
}

impl<S: ChunkSink<Error = SinkError>> ChunkSink for ExpectDigest<S> {
    type Output = S::Output;
    type Error = SinkError;

    fn is_immediate(&self) -> bool {
        self.inner.is_immediate()
    }

    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        self.inner.write(data)
    }

    fn commit(self, verified: Verified) -> Result<(Stored, S::Output), SinkError> {
        match self.expected {
            Some(expected) if expected != verified.digest() => Err(SinkError::WrongDigest),
            _ => self.inner.commit(verified),
        }
    }
}
