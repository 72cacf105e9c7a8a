//! Receives one chunk, plain or compressed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use shiplane_files::internals::DestinationError;
use shiplane_transport::{
    LaneOptions, RecvChunkError, StreamError,
    internals::{ChunkSink, InboundChunk, ProgressFn},
};
use shiplane_wire::{Digest, Span, Stored, Verified};

use super::super::{
    event::{EventFn, TransferEvent},
    target::{Target, Writer},
};
use crate::compress::{DecodeSinkError, receive_encoded};

/// A chunk whose stream has opened.
pub(super) struct Opened {
    pub(super) chunk: InboundChunk,
    pub(super) is_compressed: bool,
}

/// A chunk that is in the target.
pub(super) struct StoredChunk {
    /// Of the content.
    pub(super) digest: Digest,
    pub(super) content_bytes: u64,
    /// What its frame carried.
    pub(super) wire_bytes: u64,
    /// The entries that it completed.
    pub(super) complete: Vec<u64>,
}

/// Why it is not.
pub(super) enum ChunkError {
    /// This side's disk.
    Target(DestinationError),
    /// The connection is gone.
    Lost(StreamError),
    /// The peer compressed what it should not have.
    Encoding(Box<DecodeSinkError<DestinationError>>),
    /// A chance for another attempt.
    Attempt(RecvChunkError<DestinationError>),
}

pub(super) type ChunkResult = Result<StoredChunk, ChunkError>;

/// Payload bytes that have arrived and are not reported yet. A handle: clones share it.
///
/// Chunks are written a buffer at a time, which on a slow path is the whole chunk: what arrives is counted before that.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived(Arc<AtomicU64>);

impl Arrived {
    /// Counts what a lane reads.
    pub(super) fn counter(&self) -> ProgressFn {
        let arrived = self.clone();
        Arc::new(move |len_bytes| arrived.add(len_bytes))
    }

    fn add(&self, len_bytes: u64) {
        self.0.fetch_add(len_bytes, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, events: &EventFn) {
        let len_bytes = self.0.swap(0, Ordering::Relaxed);
        if len_bytes > 0 {
            events(TransferEvent::Moved { len_bytes });
        }
    }
}

/// Receives a chunk that was wanted of these spans. `options` count what arrives.
pub(super) async fn receive_chunk(
    opened: Opened,
    target: Target,
    spans: Vec<Span>,
    options: LaneOptions,
    (arrived, events): (Arrived, EventFn),
) -> ChunkResult {
    let Opened { chunk, is_compressed } = opened;
    let (index, wire_bytes) = (chunk.index(), chunk.len_bytes());
    let content_bytes = spans.iter().map(|span| span.len_bytes).sum();
    let counts = is_compressed;
    let sink = LazySink { writer: None, target, index, spans, counts, arrived, events };
    let (digest, complete) = if is_compressed {
        // The frame's own digest is of its payload, which is no piece of a file.
        let frame = options.clone().piece(None).maybe_progress(None);
        receive_encoded(chunk, content_bytes, sink, options.hasher(), &frame).await?
    } else {
        chunk.receive(content_bytes, sink, &options).await?
    };
    Ok(StoredChunk { digest, content_bytes, wire_bytes, complete })
}

impl From<RecvChunkError<DestinationError>> for ChunkError {
    fn from(error: RecvChunkError<DestinationError>) -> Self {
        match error {
            RecvChunkError::Sink(error) => Self::Target(error),
            RecvChunkError::Stream(error @ StreamError::ConnectionLost(_)) => Self::Lost(error),
            other => Self::Attempt(other),
        }
    }
}

impl From<RecvChunkError<DecodeSinkError<DestinationError>>> for ChunkError {
    fn from(error: RecvChunkError<DecodeSinkError<DestinationError>>) -> Self {
        let plain = match error {
            RecvChunkError::Sink(DecodeSinkError::Sink(error)) => RecvChunkError::Sink(error),
            RecvChunkError::Sink(encoding) => return Self::Encoding(Box::new(encoding)),
            RecvChunkError::Frame(error) => RecvChunkError::Frame(error),
            RecvChunkError::Recv(error) => RecvChunkError::Recv(error),
            RecvChunkError::Stream(error) => RecvChunkError::Stream(error),
            RecvChunkError::Abandoned => RecvChunkError::Abandoned,
        };
        plain.into()
    }
}

/// Opens the target's writer when the first byte is there, and notes the digest.
struct LazySink {
    // Dropped before the target that counts who holds it.
    writer: Option<Writer>,
    target: Target,
    index: u64,
    spans: Vec<Span>,
    /// What arrives is less than its content, which is counted here.
    counts: bool,
    arrived: Arrived,
    events: EventFn,
}

impl ChunkSink for LazySink {
    type Output = (Digest, Vec<u64>);
    type Error = DestinationError;

    fn is_immediate(&self) -> bool {
        self.target.is_immediate()
    }

    fn write(&mut self, data: &[u8]) -> Result<(), DestinationError> {
        let Self { writer, target, index, spans, .. } = self;
        target.writes().count(|| match writer {
            Some(writer) => writer.write(data),
            None => writer.insert(target.writer(*index, spans)?).write(data),
        })?;
        if self.counts {
            self.arrived.add(data.len() as u64);
        }
        self.arrived.tell(&self.events);
        Ok(())
    }

    fn commit(mut self, verified: Verified) -> Result<(Stored, (Digest, Vec<u64>)), DestinationError> {
        let digest = verified.digest();
        let Self { writer, target, index, spans, .. } = &mut self;
        let (stored, complete) = target.writes().count(|| {
            let writer = writer.take().map_or_else(|| target.writer(*index, spans), Ok)?;
            writer.commit(verified)
        })?;
        Ok((stored, (digest, complete)))
    }
}
