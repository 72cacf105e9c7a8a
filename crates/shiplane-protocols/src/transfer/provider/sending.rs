//! Sends one chunk, plain or compressed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use shiplane_files::internals::{DigestCache, Source, SourceError};
use shiplane_transport::{
    LaneOptions, PeerConnection, RateLimiter, SendChunkError,
    internals::{
        BufferPool, ChunkRead as _, ProgressFn, ProgressMeter, SourceError as LaneError, StepClock, blocking,
    },
};
use shiplane_wire::{Digest, DigestAlgorithm, Entry, Piece, TaggedChunk, TransferId};
use tokio::sync::{Notify, Semaphore};

use super::{
    super::{
        MAX_CHUNK_ATTEMPTS, TransferOptions,
        budget::{Account, Reservation},
    },
    spans::{FailedSpan, FileSpan, Reading, SpanSource, piece_of},
    written::Written,
};
use crate::{Compression, compress::EncodedSource};

/// What the lanes of a transfer share.
pub(super) struct Outlet {
    connection: Arc<PeerConnection>,
    transfer: TransferId,
    source: Arc<Source>,
    /// Its files are opened without waiting for a disk.
    is_immediate: bool,
    buffers: BufferPool,
    /// For chunks in small pieces: none is kept for later.
    small_buffers: BufferPool,
    rate: Option<RateLimiter>,
    meter: ProgressMeter,
    steps: StepClock,
    written: Written,
    /// Content for which something was handed to the connection.
    queued_content: Arc<AtomicU64>,
    reading: Reading,
    unsent: Unsent,
    digest: DigestAlgorithm,
    digest_cache: Option<DigestCache>,
    compression: Compression,
    /// Chunks that are being compressed.
    compressors: Semaphore,
    /// For chunks that are held compressed.
    compressed: Account,
}

/// How much of what a transfer has sent is acknowledged. quinn counts that for the whole connection alone, so what else
/// it carries may count, but never more than the transfer has sent.
#[derive(Debug)]
pub(super) struct Arrival {
    bytes: u64,
    /// What the connection counted last.
    acknowledged: u64,
}

impl Arrival {
    /// By now the connection counts `acknowledged`, and the transfer has sent `sent` bytes in all.
    fn update(&mut self, acknowledged: u64, sent: u64) {
        let more = acknowledged.saturating_sub(std::mem::replace(&mut self.acknowledged, acknowledged));
        self.bytes = (self.bytes + more).min(sent).max(self.bytes);
    }
}

/// How much of the chunks that were begun has not been handed to the connection. A handle: clones share it.
#[derive(Clone, Debug, Default)]
struct Unsent {
    bytes: Arc<AtomicU64>,
    is_less: Arc<Notify>,
}

/// A chunk that is begun: its memory, and how much of it has not been handed on. What is left of that when it ends is not
/// sent any more.
pub(super) struct Begun {
    memory: Reservation,
    unsent: Arc<UnsentPart>,
}

struct UnsentPart {
    all: Unsent,
    bytes: AtomicU64,
}

impl UnsentPart {
    fn sent(&self, bytes: u64) {
        // One task moves a chunk.
        let left = self.bytes.load(Ordering::Relaxed);
        let bytes = bytes.min(left);
        self.bytes.store(left - bytes, Ordering::Relaxed);
        self.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.all.is_less.notify_one();
    }
}

impl Drop for UnsentPart {
    fn drop(&mut self) {
        self.sent(u64::MAX);
    }
}

/// A chunk that the receiver has.
pub(super) struct Delivered {
    /// Of the content.
    pub(super) digest: Digest,
    pub(super) content_bytes: u64,
    /// What its frame carried.
    pub(super) wire_bytes: u64,
}

/// Why a chunk was not sent.
pub(super) enum ChunkFailure {
    /// A file of it failed; the receiver asks for the rest again.
    Entry { entry: u64, error: SourceError },
    /// The stream or the receiver failed: so does the transfer.
    Lane(SendChunkError),
}

/// A compressed chunk, and its memory.
type Compressed = (EncodedSource, Reservation);

impl Outlet {
    pub(super) fn new(
        connection: Arc<PeerConnection>,
        transfer: TransferId,
        source: Arc<Source>,
        (options, steps, written): (&TransferOptions, StepClock, Written),
        compressed: Account,
    ) -> Self {
        let cores = blocking::cores();
        Self {
            connection,
            transfer,
            is_immediate: source.is_immediate(),
            source,
            buffers: options.memory.as_ref().map(|memory| memory.buffers.clone()).unwrap_or_default(),
            small_buffers: BufferPool::keeping(0),
            rate: options.rate.as_ref().map(RateLimiter::for_user),
            meter: ProgressMeter::default(),
            steps,
            written,
            queued_content: Arc::default(),
            reading: Reading::default(),
            unsent: Unsent::default(),
            digest: options.digest,
            digest_cache: options.digest_cache.clone().filter(|_| options.digest == DigestAlgorithm::Blake3),
            compression: options.compression,
            compressors: Semaphore::new(cores.min(MAX_COMPRESSORS)),
            compressed,
        }
    }

    /// Whether this side's own disk or limit holds chunks up right now.
    pub(super) fn is_held_up(&self) -> bool {
        self.reading.is_under_way() || self.rate.as_ref().is_some_and(RateLimiter::is_waited_for)
    }

    /// Begins a chunk of `content_bytes`.
    pub(super) fn begin(&self, content_bytes: u64, memory: Reservation) -> Begun {
        self.unsent.bytes.fetch_add(content_bytes, Ordering::Relaxed);
        let part = UnsentPart { all: self.unsent.clone(), bytes: AtomicU64::new(content_bytes) };
        Begun { memory, unsent: Arc::new(part) }
    }

    /// How much of the chunks under way is not on its way.
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.unsent.bytes.load(Ordering::Relaxed)
    }

    /// How much content was handed to the connection.
    pub(super) fn queued_content(&self) -> u64 {
        self.queued_content.load(Ordering::Relaxed)
    }

    /// Waits until that is less. Cancel-safe.
    pub(super) async fn has_sent(&self) {
        self.unsent.is_less.notified().await;
    }

    /// How much of the chunks was queued for the receiver, plus how much of that and of `records` bytes has arrived.
    pub(super) fn moved(&self, arrival: &mut Arrival, records: u64) -> u64 {
        let queued = self.meter.moved_bytes();
        arrival.update(self.connection.acknowledged_bytes(), queued + records);
        queued + arrival.bytes
    }

    /// How much content is at the receiver by now, as far as it can be told from what it has acknowledged of all that was
    /// sent, `records` bytes of records among it.
    pub(super) fn arrived_content(&self, arrival: &mut Arrival, records: u64) -> u64 {
        let content = self.queued_content();
        let queued = self.moved(arrival, records) - arrival.bytes;
        let arrived = arrival.bytes.saturating_sub(records).min(queued);
        let part = u128::from(content) * u128::from(arrived) / u128::from(queued.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// To be made before anything is sent.
    pub(super) fn arrival(&self) -> Arrival {
        Arrival { bytes: 0, acknowledged: self.connection.acknowledged_bytes() }
    }

    /// Sends a chunk, compressed if it may be and shrinks.
    ///
    /// A digest mismatch past TLS is a fault of memory or disk on either side: worth a few more tries.
    pub(super) async fn send(
        self: &Arc<Self>,
        index: u64,
        spans: Vec<FileSpan>,
        may_shrink: bool,
        begun: Begun,
    ) -> Result<Delivered, ChunkFailure> {
        let tag = TaggedChunk { transfer: self.transfer, index };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut known = None;
            let result = self.attempt(tag, &spans, may_shrink, &begun, &mut known).await;
            match (result, known) {
                (Err(ChunkFailure::Lane(SendChunkError::ChecksumFailed)), Some(stale)) => {
                    tracing::info!(index, "a file was changed behind its times: hashing it again");
                    self.refute_digest(&spans, stale);
                    attempts -= 1;
                }
                (Err(ChunkFailure::Lane(SendChunkError::ChecksumFailed)), None)
                    if attempts < MAX_CHUNK_ATTEMPTS =>
                {
                    tracing::warn!(index, attempts, "the receiver found another digest: sending again");
                }
                (result, _) => return result,
            }
        }
    }

    /// Tells in `known` which digest it has sent from the cache.
    async fn attempt(
        self: &Arc<Self>,
        tag: TaggedChunk,
        spans: &[FileSpan],
        may_shrink: bool,
        begun: &Begun,
        known: &mut Option<Digest>,
    ) -> Result<Delivered, ChunkFailure> {
        let content_bytes = spans.iter().map(|file| file.span.len_bytes).sum();
        if may_shrink
            && begun.memory.is_whole()
            && let Some((encoded, _held)) = self.compress(spans).await?
        {
            let (wire_bytes, digest) = (encoded.len_bytes(), encoded.digest());
            let progress = self.progress(begun, content_bytes, wire_bytes);
            // The frame's own digest is of its payload, which is no piece of a file.
            let told = self.written.of(tag.index, Some(digest));
            let options = self.lane(progress, &begun.memory).encoded().on_sent(told);
            let sent = self.connection.send_tagged_chunk(tag, encoded, &options).await;
            sent.map_err(ChunkFailure::Lane)?;
            return Ok(Delivered { digest, content_bytes, wire_bytes });
        }
        let (reader, failed) = self.reader(spans, &begun.memory);
        let progress = self.progress(begun, content_bytes, content_bytes);
        let piece = self.piece_of(spans);
        *known = self.known_digest(piece);
        let piece = piece.map(|(_, piece)| piece);
        let told = self.written.of(tag.index, None);
        let options = self.lane(progress, &begun.memory).piece(piece).known_digest(*known).on_sent(told);
        match self.connection.send_tagged_chunk(tag, reader, &options).await {
            Ok(sent) => {
                self.learn_digest(spans, &sent.cells);
                Ok(Delivered { digest: sent.digest, content_bytes, wire_bytes: sent.len_bytes })
            }
            Err(SendChunkError::Source(error)) => Err(unread(&failed, error)),
            Err(error) => Err(ChunkFailure::Lane(error)),
        }
    }

    /// `None` if it does not shrink, or there is no memory for it.
    async fn compress(self: &Arc<Self>, spans: &[FileSpan]) -> Result<Option<Compressed>, ChunkFailure> {
        let content_bytes: u64 = spans.iter().map(|file| file.span.len_bytes).sum();
        let given_up = || ChunkFailure::Lane(LaneError::Abandoned.into());
        // In this order: who compresses never waits for another.
        let Some(held) = self.compressed.wait(content_bytes).await else { return Ok(None) };
        let _turn = self.compressors.acquire().await.map_err(|_| given_up())?;
        let (reader, failed) = self.reader(spans, &Reservation::UNCOUNTED);
        let compression = self.compression;
        let reading = self.reading.clone();
        let hasher = self.digest.chunk_hasher(self.piece_of(spans).map(|(_, piece)| piece));
        let compress = move || reading.count(|| EncodedSource::compress(reader, compression, hasher));
        let compressed = blocking::spawn(compress).await;
        let compressed = compressed.map_err(|_| given_up())?.map_err(|error| unread(&failed, error))?;
        Ok(compressed.map(|encoded| (encoded, held)))
    }

    fn lane(&self, progress: ProgressFn, memory: &Reservation) -> LaneOptions {
        LaneOptions::default()
            .digest(self.digest)
            .progress(progress)
            .meter(Some(self.meter.clone()))
            .steps(self.steps.clone())
            .rate(self.rate.clone())
            .buffer_len_bytes(memory.buffer_len_bytes())
    }

    /// Of an input there are none: it is unknown how long their file is.
    fn piece_of<'a>(&self, spans: &'a [FileSpan]) -> Option<(&'a Entry, Piece)> {
        piece_of(spans).filter(|_| self.source.input().is_none())
    }

    fn known_digest(&self, piece: Option<(&Entry, Piece)>) -> Option<Digest> {
        let (cache, (entry, piece)) = self.digest_cache.as_ref().zip(piece)?;
        cache.find(entry, &piece)
    }

    /// What the path holds.
    pub(super) fn path_bytes(&self) -> u64 {
        self.connection.stats().path.congestion_window_bytes
    }

    fn learn_digest(&self, spans: &[FileSpan], cells: &[Digest]) {
        if let Some((cache, (entry, piece))) = self.digest_cache.as_ref().zip(self.piece_of(spans)) {
            cache.learn(entry, &piece, cells);
        }
    }

    fn refute_digest(&self, spans: &[FileSpan], stale: Digest) {
        if let Some((cache, (entry, piece))) = self.digest_cache.as_ref().zip(self.piece_of(spans)) {
            cache.refute(entry, &piece, stale);
        }
    }

    fn reader(&self, spans: &[FileSpan], memory: &Reservation) -> (SpanSource, FailedSpan) {
        let buffers = if memory.is_whole() { &self.buffers } else { &self.small_buffers };
        let (source, reading) = (Arc::clone(&self.source), self.reading.clone());
        SpanSource::new(source, spans.to_vec(), buffers.clone(), reading, self.is_immediate)
    }

    /// Counts content as what stands for it is handed to the connection.
    fn progress(&self, begun: &Begun, content_bytes: u64, wire_bytes: u64) -> ProgressFn {
        let (queued, moved_bytes) = (Arc::clone(&self.queued_content), AtomicU64::new(0));
        let unsent = Arc::clone(&begun.unsent);
        Arc::new(move |len_bytes| {
            // One task moves a chunk.
            let before = moved_bytes.fetch_add(len_bytes, Ordering::Relaxed);
            let content_of = |moved: u64| {
                let part = u128::from(moved) * u128::from(content_bytes) / u128::from(wire_bytes.max(1));
                u64::try_from(part).unwrap_or(u64::MAX)
            };
            let len_bytes = content_of(before + len_bytes) - content_of(before);
            queued.fetch_add(len_bytes, Ordering::Relaxed);
            unsent.sent(len_bytes);
        })
    }
}

fn unread(failed: &FailedSpan, error: LaneError) -> ChunkFailure {
    match failed.take() {
        Some((entry, error)) => ChunkFailure::Entry { entry, error },
        None => ChunkFailure::Lane(error.into()),
    }
}

/// Each works in some 3 MiB; more than four keep any path busy.
const MAX_COMPRESSORS: usize = 4;

#[cfg(test)]
mod tests {
    use super::Arrival;

    #[test]
    fn acknowledgements_of_other_traffic_count_no_more_than_the_transfer_has_sent() {
        let mut arrival = Arrival { bytes: 0, acknowledged: 5000 };
        arrival.update(9000, 0);
        assert_eq!(arrival.bytes, 0, "nothing was sent");
        arrival.update(9000, 1000);
        assert_eq!(arrival.bytes, 0, "what was acknowledged before was something else");
        arrival.update(9600, 1000);
        assert_eq!(arrival.bytes, 600);
        arrival.update(90_000, 1000);
        assert_eq!(arrival.bytes, 1000);
        // The connection has got another path.
        arrival.update(100, 2000);
        arrival.update(400, 2000);
        assert_eq!(arrival.bytes, 1300);
    }
}
