//! Sending a chunk: source → hash → stream, then the receiver's status.

use std::time::Duration;

use bytes::Bytes;
use shiplane_wire::{ChunkSender, Digest, SendError, SendStep, Status, StatusError, StatusReader};
use tokio::sync::oneshot;

use super::{
    LaneOptions, placement,
    steps::{InStep, LaneStep, StepClock},
};
use crate::{
    config::{LaneThreads, TransportConfig},
    error::{SendChunkError, SourceError, StreamError},
    rate::RateLimiter,
    source::ChunkRead,
    stream::{BiStream, RecvHalf, SendHalf},
};

/// A chunk that the receiver has acknowledged with status 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentChunk {
    /// Payload bytes.
    pub len_bytes: u64,
    /// The digest that was sent with it.
    pub digest: Digest,
    /// Of a piece of a file that was hashed for this, the digests of its [cells](shiplane_wire::Piece).
    #[doc(hidden)]
    pub cells: Vec<Digest>,
}

/// Sends one chunk frame on a stream whose header, if any, has been written.
///
/// Not cancel-safe; dropping resets the stream with `Cancelled`.
pub(crate) async fn send_chunk<R: ChunkRead>(
    stream: BiStream,
    source: R,
    config: &TransportConfig,
    options: &LaneOptions,
) -> Result<SentChunk, SendChunkError> {
    let progress_timeout = config.progress_timeout;
    let BiStream { mut send, mut recv } = stream;
    let reader =
        Reader::new(source, options, options.buffer_len_for(config)).map_err(SendChunkError::Frame)?;
    let len_bytes = reader.sender.len_bytes();
    let mut status = StatusReader::while_sending();
    let written = {
        let forward = forward(reader, &mut send, config.lane_threads, progress_timeout, options);
        let mut forward = std::pin::pin!(forward);
        loop {
            tokio::select! {
                biased;
                written = &mut forward => break written.map_err(Unsent::Failed),
                piece = recv.read() => if let Some(answer) = take_status(piece, &mut status) {
                    break Err(answer.map_or_else(Unsent::Failed, Unsent::Answered));
                },
            }
        }
    };
    let mut sent = match written {
        Ok(sender) => {
            send.finish()?;
            status.all_sent();
            if let Some((on_sent, digest)) = options.on_sent.as_ref().zip(sender.digest()) {
                on_sent(digest);
            }
            match last_status(&send, &mut recv, &mut status, progress_timeout).await {
                Ok(Status::Stored) => sent_chunk(sender, len_bytes),
                Ok(refused) => Err(refusal(refused)),
                Err(error) => Err(error),
            }
        }
        Err(Unsent::Answered(status)) => Err(refusal(status)),
        // SPEC 3.6: a sender whose write was stopped reads the status before it reports.
        Err(Unsent::Failed(SendChunkError::Stream(StreamError::Stopped(code)))) => {
            match read_status(&mut recv, &mut status, progress_timeout).await {
                Ok(status) => Err(refusal(status)),
                Err(_) => Err(StreamError::Stopped(code).into()),
            }
        }
        Err(Unsent::Failed(error)) => Err(error),
    };
    if let Err(SendChunkError::Rejected { code }) = &mut sent {
        *code = send.stop_code(STOP_TIMEOUT).await;
    }
    if let Err(error) = &sent {
        send.reset(error.code());
        recv.stop(error.code());
    }
    sent
}

fn sent_chunk(sender: ChunkSender, len_bytes: u64) -> Result<SentChunk, SendChunkError> {
    let digest = sender.digest().ok_or(SourceError::Abandoned)?;
    Ok(SentChunk { len_bytes, digest, cells: sender.into_cells() })
}

/// Why the frame was not written whole.
enum Unsent {
    /// The receiver has given up early and said how.
    Answered(Status),
    Failed(SendChunkError),
}

/// What goes on the stream next, and how much of it is payload.
struct Part {
    bytes: Bytes,
    payload_len_bytes: usize,
}

/// The source and the machine, which go together from thread to thread.
struct Reader<R> {
    source: R,
    sender: ChunkSender,
    buffer_len_bytes: usize,
    /// Payload that was read and not given out.
    supplied_bytes: usize,
    /// Nothing is read of an empty source, so nothing else asks whether it changed.
    is_checked: bool,
    steps: Option<StepClock>,
}

/// What a reader has next.
enum Next {
    Part(Part),
    /// All of the frame was given out.
    Finished,
    /// Only a thread that may block can tell.
    WouldWait,
}

/// A batch that another thread has read, and the reader.
type Batch<R> = Result<(Box<Reader<R>>, Vec<Part>), SendChunkError>;

impl<R: ChunkRead> Reader<R> {
    fn new(source: R, options: &LaneOptions, buffer_len_bytes: usize) -> Result<Box<Self>, SendError> {
        let len_bytes = source.len_bytes();
        let sender = match options.known_digest {
            Some(digest) => ChunkSender::with_known_digest(len_bytes, digest)?,
            None => ChunkSender::new(len_bytes, options.hasher())?,
        };
        let is_checked = len_bytes > 0;
        let steps = options.steps.clone();
        Ok(Box::new(Self { source, sender, buffer_len_bytes, supplied_bytes: 0, is_checked, steps }))
    }

    fn next(&mut self, may_wait: bool) -> Result<Next, SendChunkError> {
        if !self.is_checked {
            if !may_wait && self.source.try_read(0)?.is_none() {
                return Ok(Next::WouldWait);
            }
            self.source.check_unchanged()?;
            self.is_checked = true;
        }
        loop {
            let step = {
                let _step = InStep::begin(self.steps.as_ref(), LaneStep::Digest);
                self.sender.poll().map_err(SendChunkError::Frame)?
            };
            match step {
                SendStep::Transmit(bytes) => {
                    let payload_len_bytes = bytes.len().min(self.supplied_bytes);
                    self.supplied_bytes -= payload_len_bytes;
                    return Ok(Next::Part(Part { bytes, payload_len_bytes }));
                }
                SendStep::NeedPayload { remaining_bytes } => {
                    let max =
                        usize::try_from(remaining_bytes).unwrap_or(usize::MAX).min(self.buffer_len_bytes);
                    let data = match may_wait {
                        true => {
                            let _step = InStep::begin(self.steps.as_ref(), LaneStep::Disk);
                            self.source.read(max)?
                        }
                        false => match self.source.try_read(max)? {
                            Some(data) => data,
                            None => return Ok(Next::WouldWait),
                        },
                    };
                    self.supply(data, remaining_bytes)?;
                }
                SendStep::Finish => return Ok(Next::Finished),
            }
        }
    }

    /// Whether all of the frame was given out.
    fn is_finished(&self) -> bool {
        self.sender.digest().is_some()
    }

    fn supply(&mut self, data: Bytes, remaining_bytes: u64) -> Result<(), SendChunkError> {
        if data.is_empty() {
            return Err(SourceError::Changed.into());
        }
        if data.len() as u64 >= remaining_bytes {
            // Before the digest can leave: a receiver must never verify a torn read.
            self.source.check_unchanged()?;
        }
        self.supplied_bytes = data.len();
        self.sender.supply(data).map_err(SendChunkError::Frame)
    }

    /// A buffer's worth, hashed, or what is left. On a thread that may block.
    fn batch(mut self: Box<Self>) -> Batch<R> {
        let (mut parts, mut payload_len_bytes) = (Vec::new(), 0);
        while payload_len_bytes < self.buffer_len_bytes
            && let Next::Part(part) = self.next(true)?
        {
            payload_len_bytes += part.payload_len_bytes;
            parts.push(part);
        }
        Ok((self, parts))
    }
}

/// Where the reader is.
enum Running<R> {
    Inline(Box<Reader<R>>),
    OnThread(oneshot::Receiver<Batch<R>>),
}

/// Moves the frame from the source to the stream; gives the machine that has its digest.
async fn forward<R: ChunkRead>(
    reader: Box<Reader<R>>,
    send: &mut SendHalf,
    threads: LaneThreads,
    progress_timeout: Duration,
    options: &LaneOptions,
) -> Result<ChunkSender, SendChunkError> {
    let away = |reader: Box<Reader<R>>| Running::OnThread(threads.spawn(move || reader.batch()));
    let mut running = Running::Inline(reader);
    loop {
        running = match running {
            Running::Inline(reader) if reader.is_finished() => return Ok(reader.sender),
            Running::Inline(reader) if !placement::is_here(threads) => away(reader),
            Running::Inline(mut reader) => match reader.next(false)? {
                Next::Part(part) => {
                    write(part, send, progress_timeout, options).await?;
                    // The connection is driven by the same thread.
                    tokio::task::yield_now().await;
                    Running::Inline(reader)
                }
                Next::Finished => return Ok(reader.sender),
                Next::WouldWait => away(reader),
            },
            Running::OnThread(reading) => {
                let (reader, parts) = reading.await.map_err(|_| SourceError::Abandoned)??;
                // The next one is read while this one is written, unless that is quick.
                let is_last = reader.is_finished();
                let next = if is_last || placement::is_here(threads) {
                    Running::Inline(reader)
                } else {
                    away(reader)
                };
                for part in parts {
                    write(part, send, progress_timeout, options).await?;
                }
                next
            }
        };
    }
}

/// Writes a part in pieces of no more than the rate's burst.
async fn write(
    part: Part,
    send: &mut SendHalf,
    progress_timeout: Duration,
    options: &LaneOptions,
) -> Result<(), SendChunkError> {
    // A buffer may be longer than a burst: what must wait waits here, not in the path.
    let max_piece_bytes = options.rate.as_ref().map_or(usize::MAX, RateLimiter::burst_bytes).max(1);
    let Part { mut bytes, payload_len_bytes } = part;
    while !bytes.is_empty() {
        let piece = bytes.split_to(max_piece_bytes.min(bytes.len()));
        let piece_len_bytes = piece.len();
        options.take_of_rate(piece_len_bytes).await;
        {
            let _step = options.step(LaneStep::Network);
            send.write_within(piece, progress_timeout).await?;
        }
        if payload_len_bytes > 0 {
            options.advance(piece_len_bytes);
        }
    }
    Ok(())
}
/// The status once the frame has been written. It may still be on its way through a slow path; from its
/// arrival on the receiver has `timeout`.
async fn last_status(
    send: &SendHalf,
    recv: &mut RecvHalf,
    status: &mut StatusReader,
    timeout: Duration,
) -> Result<Status, SendChunkError> {
    {
        let mut delivered = std::pin::pin!(send.delivered(timeout));
        loop {
            tokio::select! {
                biased;
                piece = recv.read() => if let Some(answer) = take_status(piece, status) {
                    return answer;
                },
                delivered = &mut delivered => break delivered?,
            }
        }
    }
    read_status(recv, status, timeout).await
}

/// The receiver's status, which must come within `timeout`.
async fn read_status(
    recv: &mut RecvHalf,
    status: &mut StatusReader,
    timeout: Duration,
) -> Result<Status, SendChunkError> {
    loop {
        if let Some(answer) = take_status(recv.read_within(timeout).await, status) {
            return answer;
        }
    }
}

/// One piece of the receiver's half; `Some` once that decides.
fn take_status(
    piece: Result<Option<Bytes>, StreamError>,
    status: &mut StatusReader,
) -> Option<Result<Status, SendChunkError>> {
    match piece {
        Ok(Some(bytes)) => status.push(&bytes).err().map(|error| Err(error.into())),
        Ok(None) => Some(status.end().map_err(SendChunkError::from)),
        Err(error) => Some(Err(error.into())),
    }
}

fn refusal(status: Status) -> SendChunkError {
    match status {
        Status::ChecksumFailed => SendChunkError::ChecksumFailed,
        Status::Error => SendChunkError::Rejected { code: None },
        // `while_sending` refuses an early success by itself.
        Status::Stored => SendChunkError::Status(StatusError::Early),
    }
}

/// 250 ms: the stop that says why leaves right behind the status (SPEC 3.6), mostly in one packet with it.
/// A receiver that sends none costs no more than that.
const STOP_TIMEOUT: Duration = Duration::from_millis(250);
