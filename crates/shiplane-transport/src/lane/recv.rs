//! Receiving a chunk: stream → hash → sink, then our status.

use std::time::Duration;

use bytes::Bytes;
use shiplane_wire::{
    ChunkReceiver, Code, Digest, Offer, RecvError, RecvStep, Refusal, Reply, Stored, VerifiedChunk,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    LaneOptions, PIPELINE_DEPTH,
    hashing::{RecvJob, SideBySide},
};
use crate::{
    blocking,
    buffer::Buffer,
    config::TransportConfig,
    error::{RecvChunkError, StreamError},
    rate::RateLimiter,
    sink::ChunkSink,
    stream::{BiStream, RecvHalf, SendHalf},
};

/// Receives one chunk whose size has passed the limits, answers with a status, and yields what the
/// sink's commit yielded.
///
/// Not cancel-safe; dropping stops the stream with `Cancelled`.
pub(crate) async fn recv_chunk<S: ChunkSink>(
    stream: BiStream,
    offer: Offer,
    sink: S,
    config: &TransportConfig,
    options: &LaneOptions,
) -> Result<S::Output, RecvChunkError<S::Error>> {
    let progress_timeout = config.progress_timeout;
    let BiStream { mut send, mut recv } = stream;
    let len_bytes = offer.len_bytes();
    let result = match options.hashes_whole(len_bytes) {
        Some(hashing) => store_whole(offer, sink, &mut recv, hashing, config, options).await,
        None => store_flowing(offer, sink, &mut recv, config, options).await,
    };
    match result {
        Ok((stored, output)) => {
            accept(&mut send, &stored, progress_timeout).await;
            drop(send); // Not before it has arrived: see its drop.
            expect_end(recv, len_bytes, progress_timeout).await?;
            Ok(output)
        }
        Err(error) => {
            refuse(send, recv, &error, progress_timeout).await;
            Err(error)
        }
    }
}

/// Hashes and stores the chunk as it comes.
async fn store_flowing<S: ChunkSink>(
    offer: Offer,
    sink: S,
    recv: &mut RecvHalf,
    config: &TransportConfig,
    options: &LaneOptions,
) -> Result<(Stored, S::Output), RecvChunkError<S::Error>> {
    let TransportConfig { progress_timeout, lane_threads, .. } = *config;
    let buffer_len_bytes = options.buffer_len_bytes(config);
    let frame_len_bytes = offer.len_bytes() + Digest::LEN_BYTES as u64;
    let (batches, pipeline) = mpsc::channel(PIPELINE_DEPTH);
    let writer_options = options.clone();
    let writer = lane_threads
        .spawn_waiting(move || drain(offer.accept(), sink, pipeline, buffer_len_bytes, &writer_options));
    let rate = options.rate.as_ref();
    let fed = feed(recv, batches, frame_len_bytes, buffer_len_bytes, progress_timeout, rate).await;
    let written = writer.await.unwrap_or(Err(RecvChunkError::Abandoned));
    match (fed, written) {
        // A failing stream ends the writer early as well; the stream says why.
        (Err(error), Err(RecvChunkError::Recv(RecvError::Truncated { .. }))) | (Err(error), Ok(_)) => {
            Err(error.into())
        }
        (_, written) => written,
    }
}

/// Waits for all of the chunk, and has it verified beside others and stored.
async fn store_whole<S: ChunkSink>(
    offer: Offer,
    mut sink: S,
    recv: &mut RecvHalf,
    hashing: &SideBySide,
    config: &TransportConfig,
    options: &LaneOptions,
) -> Result<(Stored, S::Output), RecvChunkError<S::Error>> {
    let TransportConfig { progress_timeout, lane_threads, .. } = *config;
    let present = hashing.receives(lane_threads);
    let frame_len_bytes = offer.len_bytes() + Digest::LEN_BYTES as u64;
    let mut chunk =
        offer.gather(hashing.buffers().take(usize::try_from(frame_len_bytes).unwrap_or_default()));
    let mut pieces: [Bytes; PIECES_PER_READ] = std::array::from_fn(|_| Bytes::new());
    while !chunk.is_complete() {
        let read = tokio::time::timeout(progress_timeout, recv.read_many(&mut pieces)).await;
        let read = read.map_err(|_| StreamError::TimedOut { timeout: progress_timeout })?;
        let Some(count) = read? else { break };
        if let Some(rate) = &options.rate {
            // What is not read yet fills the stream's window, which slows the sender.
            rate.take(pieces[..count].iter().map(Bytes::len).sum()).await;
        }
        // Copied at once: a piece keeps all of the datagram that it came in.
        pieces[..count].iter_mut().for_each(|piece| chunk.push(&std::mem::take(piece)));
    }
    chunk.end().map_err(RecvChunkError::Recv)?;
    let (done, stored) = oneshot::channel();
    let (progress, buffers) = (options.clone(), hashing.buffers().clone());
    let store = move |chunk: Result<VerifiedChunk<Buffer>, RecvError>| {
        let chunk = chunk.map_err(RecvChunkError::Recv)?;
        sink.write(chunk.payload()).map_err(RecvChunkError::Sink)?;
        progress.advance(chunk.payload().len());
        let (verified, buffer) = chunk.into_parts();
        buffers.put(buffer);
        sink.commit(verified).map_err(RecvChunkError::Sink)
    };
    let store = Box::new(move |verified| {
        // Whoever is not there any more wants neither the chunk nor an answer.
        if !done.is_closed() {
            let _ = done.send(store(verified));
        }
    });
    present.submit(RecvJob { chunk, owner: hashing.owner(), store });
    stored.await.unwrap_or(Err(RecvChunkError::Abandoned))
}

/// Answers a chunk that will not be received at all.
pub(crate) async fn refuse_chunk(stream: BiStream, code: Code, progress_timeout: Duration) {
    let BiStream { mut send, recv } = stream;
    answer(&mut send, Refusal::Error.into(), progress_timeout).await.ok();
    recv.stop(code);
}

/// Gathers what arrives into batches of about `buffer_len_bytes` for the writing thread, up to the
/// frame's end. A thread hand-over for every packet would cost more than hashing it.
async fn feed(
    recv: &mut RecvHalf,
    batches: mpsc::Sender<Batch>,
    frame_len_bytes: u64,
    buffer_len_bytes: usize,
    progress_timeout: Duration,
    rate: Option<&RateLimiter>,
) -> Result<(), StreamError> {
    // A long wait for credit must not look like a receiver that has died.
    let batch_max_bytes = rate.map_or(buffer_len_bytes, |rate| rate.burst_bytes().min(buffer_len_bytes));
    let mut missing_bytes = frame_len_bytes;
    let mut batch = Vec::new();
    let mut batch_len_bytes = 0;
    let mut pieces: [Bytes; PIECES_PER_READ] = std::array::from_fn(|_| Bytes::new());
    while missing_bytes > 0 {
        let count = tokio::time::timeout(progress_timeout, recv.read_many(&mut pieces))
            .await
            .map_err(|_| StreamError::TimedOut { timeout: progress_timeout })??;
        let Some(count) = count else { break };
        for piece in &mut pieces[..count] {
            batch_len_bytes += piece.len();
            missing_bytes = missing_bytes.saturating_sub(piece.len() as u64);
            batch.push(std::mem::take(piece));
        }
        if batch_len_bytes >= batch_max_bytes || batch.len() >= MAX_PIECES || missing_bytes == 0 {
            if let Some(rate) = rate {
                // What is not read yet fills the stream's window, which slows the sender.
                rate.take(batch_len_bytes).await;
            }
            batch_len_bytes = 0;
            if batches.send(std::mem::take(&mut batch)).await.is_err() {
                return Ok(()); // The writer has ended and says why.
            }
        }
    }
    // A short batch is the writer's to judge: the stream has ended early.
    batches.send(batch).await.ok();
    Ok(())
}

/// Verifies and writes on a blocking thread.
fn drain<S: ChunkSink>(
    mut receiver: ChunkReceiver,
    mut sink: S,
    mut pipeline: mpsc::Receiver<Batch>,
    buffer_len_bytes: usize,
    options: &LaneOptions,
) -> Result<(Stored, S::Output), RecvChunkError<S::Error>> {
    loop {
        match receiver.poll()? {
            RecvStep::NeedInput => match blocking::recv(&mut pipeline) {
                Some(batch) => batch.into_iter().for_each(|piece| receiver.push(piece)),
                None => receiver.end(),
            },
            // Hashed just now, so still in cache.
            RecvStep::Payload { offset: _, data } => {
                for step in data.chunks(buffer_len_bytes.max(1)) {
                    sink.write(step).map_err(RecvChunkError::Sink)?;
                    options.advance(step.len());
                }
            }
            RecvStep::Verified(verified) => return sink.commit(verified).map_err(RecvChunkError::Sink),
            // The receiver ends in `Verified` or in an error; nothing else can follow.
            RecvStep::Ended => return Err(RecvChunkError::Abandoned),
        }
    }
}

/// SPEC 3.4: the success byte can only be made from what a sink has stored.
///
/// Best effort: the chunk is kept by now, whether its sender still listens or not.
async fn accept(send: &mut SendHalf, stored: &Stored, progress_timeout: Duration) {
    answer(send, Reply::stored(stored), progress_timeout).await.ok();
}

/// SPEC 3.3: nothing follows the digest.
///
/// The status is out. A sender that dies now, or never ends its half, takes nothing back: to call that
/// an error would make the two sides disagree.
async fn expect_end<E: std::error::Error + 'static>(
    mut recv: RecvHalf,
    len_bytes: u64,
    progress_timeout: Duration,
) -> Result<(), RecvChunkError<E>> {
    match recv.read_within(progress_timeout).await {
        Ok(None) | Err(_) => Ok(()),
        Ok(Some(_)) => {
            let error = RecvError::TrailingBytes { len_bytes };
            recv.stop(error.code());
            Err(RecvChunkError::Recv(error))
        }
    }
}

/// SPEC 3.6: status first, then stop. Best effort: the original error wins.
async fn refuse<E: std::error::Error + 'static>(
    mut send: SendHalf,
    recv: RecvHalf,
    error: &RecvChunkError<E>,
    progress_timeout: Duration,
) {
    answer(&mut send, error.refusal().into(), progress_timeout).await.ok();
    recv.stop(error.code());
}

async fn answer(send: &mut SendHalf, reply: Reply, progress_timeout: Duration) -> Result<(), StreamError> {
    send.write_within(Bytes::copy_from_slice(&[reply.byte()]), progress_timeout).await?;
    send.finish()
}

/// Pieces of the stream, in order.
type Batch = Vec<Bytes>;

/// Pieces taken from quinn at a time: about a buffer's worth of ordinary packets.
const PIECES_PER_READ: usize = 32;

/// A piece keeps the datagram that it came in: a sender of single bytes must not make us hold a
/// thousand times as much.
const MAX_PIECES: usize = 256;
