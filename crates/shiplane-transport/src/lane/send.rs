//! Sending a chunk: source → hash → stream, then the receiver's status.

use std::time::Duration;

use bytes::Bytes;
use shiplane_wire::{
    ChunkSender, Digest, OPENING_LEN_BYTES, SendError, SendStep, Status, StatusError, StatusReader,
};
use tokio::sync::mpsc;

use super::{LaneOptions, PIPELINE_DEPTH};
use crate::{
    error::{SendChunkError, SourceError, StreamError},
    source::ChunkRead,
    stream::{BiStream, RecvHalf, SendHalf},
};

/// A chunk that the receiver has acknowledged with status 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentChunk {
    /// Payload bytes.
    pub len_bytes: u64,
    /// SHA-256 of the payload.
    pub digest: Digest,
}

/// Sends one chunk frame on a stream whose header, if any, has been written.
///
/// Not cancel-safe; dropping resets the stream with `Cancelled`.
pub(crate) async fn send_chunk<R: ChunkRead>(
    stream: BiStream,
    source: R,
    buffer_len_bytes: usize,
    progress_timeout: Duration,
    options: &LaneOptions,
) -> Result<SentChunk, SendChunkError> {
    let BiStream { mut send, mut recv } = stream;
    let len_bytes = source.len_bytes();
    let (frames, pipeline) = mpsc::channel(PIPELINE_DEPTH);
    let reader = tokio::task::spawn_blocking(move || pump(source, buffer_len_bytes, &frames));

    let mut status = StatusReader::while_sending();
    let written = {
        let forward = forward(pipeline, len_bytes, &mut send, progress_timeout, options);
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
    let read = reader.await.unwrap_or(Err(PumpError::Source(SourceError::Abandoned)));
    let mut sent = match (written, read) {
        (Ok(()), Ok(digest)) => {
            send.finish()?;
            status.all_sent();
            match last_status(&send, &mut recv, &mut status, progress_timeout).await {
                Ok(Status::Stored) => Ok(SentChunk { len_bytes, digest }),
                Ok(refused) => Err(refusal(refused)),
                Err(error) => Err(error),
            }
        }
        // The source's own failure outranks what it did to the stream.
        (_, Err(PumpError::Source(error))) => Err(error.into()),
        (_, Err(PumpError::Frame(error))) => Err(SendChunkError::Frame(error)),
        (Err(Unsent::Answered(status)), _) => Err(refusal(status)),
        // SPEC 3.6: a sender whose write was stopped reads the status before it reports.
        (Err(Unsent::Failed(SendChunkError::Stream(StreamError::Stopped(code)))), _) => {
            match read_status(&mut recv, &mut status, progress_timeout).await {
                Ok(status) => Err(refusal(status)),
                Err(_) => Err(StreamError::Stopped(code).into()),
            }
        }
        (Err(Unsent::Failed(error)), _) => Err(error),
        // The reader only ends early without an error of its own when the writer failed first.
        (Ok(()), Err(PumpError::WriterGone)) => Err(SourceError::Abandoned.into()),
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

/// Why the frame was not written whole.
enum Unsent {
    /// The receiver has given up early and said how.
    Answered(Status),
    Failed(SendChunkError),
}

/// What goes on the stream next, and how much of it is payload.
struct Frame {
    bytes: Bytes,
    payload_len_bytes: usize,
}

/// Why the reading thread ended early.
enum PumpError {
    Source(SourceError),
    Frame(SendError),
    /// The async side failed first and says why.
    WriterGone,
}

/// Reads and hashes on a blocking thread; what is to be transmitted goes into `frames`.
fn pump<R: ChunkRead>(
    mut source: R,
    buffer_len_bytes: usize,
    frames: &mpsc::Sender<Frame>,
) -> Result<Digest, PumpError> {
    let mut sender = ChunkSender::new(source.len_bytes()).map_err(PumpError::Frame)?;
    if source.len_bytes() == 0 {
        source.check_unchanged().map_err(PumpError::Source)?;
    }
    let mut supplied_bytes = 0;
    loop {
        match sender.poll().map_err(PumpError::Frame)? {
            SendStep::Transmit(bytes) => {
                let payload_len_bytes = std::mem::take(&mut supplied_bytes);
                frames
                    .blocking_send(Frame { bytes, payload_len_bytes })
                    .map_err(|_| PumpError::WriterGone)?;
            }
            SendStep::NeedPayload { remaining_bytes } => {
                let max = usize::try_from(remaining_bytes)
                    .map_or(buffer_len_bytes, |remaining| remaining.min(buffer_len_bytes));
                let data = source.read(max).map_err(PumpError::Source)?;
                if data.is_empty() {
                    return Err(PumpError::Source(SourceError::Changed));
                }
                let last = data.len() as u64 >= remaining_bytes;
                if last {
                    // Before the digest can leave: a receiver must never verify a torn read.
                    source.check_unchanged().map_err(PumpError::Source)?;
                }
                supplied_bytes = data.len();
                sender.supply(data).map_err(PumpError::Frame)?;
            }
            SendStep::Finish => {
                return sender.digest().ok_or(PumpError::Source(SourceError::Abandoned));
            }
        }
    }
}

/// Moves frames from the reading thread to the stream. Ending, it unblocks that thread.
///
/// It ends with the digest's last byte, not with the thread: from that byte on a status is not early.
async fn forward(
    mut pipeline: mpsc::Receiver<Frame>,
    len_bytes: u64,
    send: &mut SendHalf,
    progress_timeout: Duration,
    options: &LaneOptions,
) -> Result<(), SendChunkError> {
    let mut left_bytes = OPENING_LEN_BYTES as u64 + len_bytes + Digest::LEN_BYTES as u64;
    while left_bytes > 0
        && let Some(mut frame) = pipeline.recv().await
    {
        left_bytes -= frame.bytes.len() as u64;
        if let Some(rate) = &options.rate {
            // A buffer may be longer than a burst: what must wait waits here, not in the path.
            while frame.bytes.len() > rate.burst_bytes() {
                let piece = frame.bytes.split_to(rate.burst_bytes());
                rate.take(piece.len()).await;
                send.write_within(piece, progress_timeout).await?;
            }
            rate.take(frame.bytes.len()).await;
        }
        send.write_within(frame.bytes, progress_timeout).await?;
        options.advance(frame.payload_len_bytes);
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
