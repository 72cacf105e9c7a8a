//! Sending a chunk: source → hash → stream, then the receiver's status.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use shiplane_wire::{
    ChunkSender, Digest, OPENING_LEN_BYTES, SendError, SendStep, Status, StatusError, StatusReader,
    WholeFrame,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    LaneOptions, PIPELINE_DEPTH,
    hashing::{Present, SendJob},
};
use crate::{
    blocking,
    config::{LaneThreads, TransportConfig},
    error::{SendChunkError, SourceError, StreamError},
    rate::RateLimiter,
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
    config: &TransportConfig,
    options: &LaneOptions,
) -> Result<SentChunk, SendChunkError> {
    let TransportConfig { progress_timeout, lane_threads, .. } = *config;
    let buffer_len_bytes = options.buffer_len_bytes(config);
    let BiStream { mut send, mut recv } = stream;
    let len_bytes = source.len_bytes();
    // Present until the chunk is acknowledged: the next one on this lane comes right after it.
    let present = options.hashes_whole(len_bytes).map(|hashing| Arc::new(hashing.sends(lane_threads)));
    let (reader, pipeline) = Reader::start(source, buffer_len_bytes, lane_threads, present.clone());

    let mut status = StatusReader::while_sending();
    let written = {
        let forward = forward(pipeline, len_bytes, &mut send, buffer_len_bytes, progress_timeout, options);
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
    let read = reader.digest().await;
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

/// What reads the source on a blocking thread.
enum Reader {
    /// It hashes as it reads.
    Flowing(oneshot::Receiver<Result<Digest, PumpError>>),
    /// It reads all, which is hashed with others.
    Whole(oneshot::Receiver<Result<oneshot::Receiver<Digest>, PumpError>>),
}

impl Reader {
    fn start<R: ChunkRead>(
        source: R,
        buffer_len_bytes: usize,
        threads: LaneThreads,
        present: Option<Arc<Present<SendJob>>>,
    ) -> (Self, mpsc::Receiver<Frame>) {
        let Some(present) = present else {
            let (frames, pipeline) = mpsc::channel(PIPELINE_DEPTH);
            let pumping = threads.spawn_waiting(move || pump(source, buffer_len_bytes, &frames));
            return (Self::Flowing(pumping), pipeline);
        };
        // Room for the whole frame: size, data and digest.
        let (frames, pipeline) = mpsc::channel(3);
        let reading = threads.spawn(move || pump_whole(source, frames, &present));
        (Self::Whole(reading), pipeline)
    }

    /// What was read. To be asked for once the pipeline has ended.
    async fn digest(self) -> Result<Digest, PumpError> {
        let abandoned = || PumpError::Source(SourceError::Abandoned);
        match self {
            Self::Flowing(pumping) => pumping.await.map_err(|_| abandoned())?,
            Self::Whole(reading) => {
                let hashed = reading.await.map_err(|_| abandoned())??;
                hashed.await.map_err(|_| abandoned())
            }
        }
    }
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
                let payload_len_bytes = bytes.len().min(supplied_bytes);
                supplied_bytes -= payload_len_bytes;
                blocking::send(frames, Frame { bytes, payload_len_bytes })
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

/// Reads all of it, and lets it be hashed while it is on its way.
fn pump_whole<R: ChunkRead>(
    mut source: R,
    frames: mpsc::Sender<Frame>,
    present: &Present<SendJob>,
) -> Result<oneshot::Receiver<Digest>, PumpError> {
    let len_bytes = source.len_bytes();
    let frame = WholeFrame::new(read_whole(&mut source)?, len_bytes).map_err(PumpError::Frame)?;
    // Before the digest can leave: a receiver must never verify a torn read.
    source.check_unchanged().map_err(PumpError::Source)?;
    let data = frame.data().clone();
    let payload_len_bytes = data.len();
    // There is room for all of them; if nobody takes them, the async side has failed and says why.
    let _ = frames.try_send(Frame { bytes: frame.size(), payload_len_bytes: 0 });
    let _ = frames.try_send(Frame { bytes: data.clone(), payload_len_bytes });
    let (done, hashed) = oneshot::channel();
    let tell = move |digest: Digest| {
        let bytes = Bytes::copy_from_slice(digest.as_bytes());
        let _ = frames.try_send(Frame { bytes, payload_len_bytes: 0 });
        let _ = done.send(digest);
    };
    present.submit((data, Box::new(tell)));
    Ok(hashed)
}

/// In one piece if the source gives it so.
fn read_whole<R: ChunkRead>(source: &mut R) -> Result<Bytes, PumpError> {
    let len = usize::try_from(source.len_bytes()).unwrap_or(usize::MAX);
    let first = source.read(len).map_err(PumpError::Source)?;
    if first.len() >= len {
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    while all.len() < len {
        let more = source.read(len - all.len()).map_err(PumpError::Source)?;
        if more.is_empty() {
            return Err(PumpError::Source(SourceError::Changed));
        }
        all.extend_from_slice(&more);
    }
    Ok(all.freeze())
}

/// Moves frames from the reading thread to the stream, in pieces of a buffer. Ending, it unblocks that
/// thread.
///
/// It ends with the digest's last byte, not with the thread: from that byte on a status is not early.
async fn forward(
    mut pipeline: mpsc::Receiver<Frame>,
    len_bytes: u64,
    send: &mut SendHalf,
    buffer_len_bytes: usize,
    progress_timeout: Duration,
    options: &LaneOptions,
) -> Result<(), SendChunkError> {
    // A buffer may be longer than a burst: what must wait waits here, not in the path.
    let burst_bytes = options.rate.as_ref().map_or(usize::MAX, RateLimiter::burst_bytes);
    let max_piece_bytes = buffer_len_bytes.min(burst_bytes).max(1);
    let mut left_bytes = OPENING_LEN_BYTES as u64 + len_bytes + Digest::LEN_BYTES as u64;
    while left_bytes > 0
        && let Some(Frame { mut bytes, payload_len_bytes }) = pipeline.recv().await
    {
        left_bytes -= bytes.len() as u64;
        while !bytes.is_empty() {
            let piece = bytes.split_to(max_piece_bytes.min(bytes.len()));
            let piece_len_bytes = piece.len();
            if let Some(rate) = &options.rate {
                rate.take(piece_len_bytes).await;
            }
            send.write_within(piece, progress_timeout).await?;
            if payload_len_bytes > 0 {
                options.advance(piece_len_bytes);
            }
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
