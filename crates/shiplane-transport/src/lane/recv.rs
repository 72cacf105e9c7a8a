//! Receiving a chunk: stream → hash → sink, then our status.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use shiplane_wire::{ChunkReceiver, Code, Digest, Offer, RecvError, RecvStep, Refusal, Reply, Stored};
use tokio::sync::oneshot;

use super::{
    LaneOptions, placement,
    steps::{InStep, LaneStep, StepClock},
};
use crate::{
    buffer::BufferPool,
    config::TransportConfig,
    error::{RecvChunkError, StreamError},
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
    let steps = options.steps.clone();
    let storing = Storing { receiver: offer.accept(options.hasher()), sink, steps };
    match store(storing, &mut recv, config, options).await {
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

/// Hashes and stores the chunk as it comes, a buffer at a time.
async fn store<S: ChunkSink>(
    storing: Storing<S>,
    recv: &mut RecvHalf,
    config: &TransportConfig,
    options: &LaneOptions,
) -> Result<(Stored, S::Output), RecvChunkError<S::Error>> {
    let mut frame = FrameInput {
        missing_bytes: storing.receiver.len_bytes() + Digest::LEN_BYTES as u64,
        buffer_len_bytes: options.buffer_len_for(config),
        progress_timeout: config.progress_timeout,
        options,
    };
    let mut running = Running::Inline(storing);
    loop {
        let input = frame.next(recv).await;
        // The sink is at rest before an error is reported.
        let storing = match running {
            Running::Inline(storing) => storing,
            Running::OnThread(taking) => match taking.await.unwrap_or(Err(RecvChunkError::Abandoned))? {
                Taken::More(storing) => storing,
                Taken::Stored(stored, output) => return Ok((stored, output)),
            },
        };
        let input = input?;
        let is_last = input.is_none() || frame.missing_bytes == 0;
        let taken = if storing.sink.is_immediate() && placement::is_here(config.lane_threads) {
            storing.take(input, false)?
        } else {
            let taking = config.lane_threads.spawn(move || storing.take(input, true));
            if !is_last {
                running = Running::OnThread(taking);
                continue;
            }
            taking.await.unwrap_or(Err(RecvChunkError::Abandoned))?
        };
        match taken {
            Taken::More(storing) => running = Running::Inline(storing),
            Taken::Stored(stored, output) => return Ok((stored, output)),
        }
        // The connection is driven by the same thread.
        tokio::task::yield_now().await;
    }
}

/// The machine and the sink, which go together from thread to thread.
struct Storing<S: ChunkSink> {
    receiver: ChunkReceiver,
    sink: S,
    steps: Option<StepClock>,
}

/// Where they are.
enum Running<S: ChunkSink> {
    Inline(Storing<S>),
    OnThread(oneshot::Receiver<TakenResult<S>>),
}

/// The result of taking a buffer.
enum Taken<S: ChunkSink> {
    More(Storing<S>),
    Stored(Stored, S::Output),
}

type TakenResult<S> = Result<Taken<S>, RecvChunkError<<S as ChunkSink>::Error>>;

impl<S: ChunkSink> Storing<S> {
    /// Hashes and writes received data; `None` means that the stream has ended. Hashed data is still in the
    /// cache when it is written. `may_wait`: on a thread that may wait for a disk.
    fn take(mut self, input: Option<Bytes>, may_wait: bool) -> TakenResult<S> {
        match input {
            Some(input) => self.receiver.push(input),
            None => self.receiver.end(),
        }
        loop {
            let step = {
                let _step = InStep::begin(self.steps.as_ref(), LaneStep::Digest);
                self.receiver.poll()?
            };
            let steps = self.steps.as_ref().filter(|_| may_wait);
            match step {
                RecvStep::NeedInput => return Ok(Taken::More(self)),
                RecvStep::Payload { offset: _, data } => {
                    let _step = InStep::begin(steps, LaneStep::Disk);
                    self.sink.write(&data).map_err(RecvChunkError::Sink)?;
                }
                RecvStep::Verified(verified) => {
                    let _step = InStep::begin(steps, LaneStep::Disk);
                    let (stored, output) = self.sink.commit(verified).map_err(RecvChunkError::Sink)?;
                    return Ok(Taken::Stored(stored, output));
                }
                // The receiver ends in `Verified` or in an error; nothing else can follow.
                RecvStep::Ended => return Err(RecvChunkError::Abandoned),
            }
        }
    }
}

/// What is left of a frame on its stream.
struct FrameInput<'a> {
    missing_bytes: u64,
    buffer_len_bytes: usize,
    progress_timeout: Duration,
    options: &'a LaneOptions,
}

impl FrameInput<'_> {
    /// The next buffer, full or to the frame's end; `None` if the stream ended before that and nothing is left.
    ///
    /// Copied out of the packets: a sender of single bytes must not make us hold a thousand times as much, and
    /// what lies together is hashed several times as fast.
    async fn next(&mut self, recv: &mut RecvHalf) -> Result<Option<Bytes>, StreamError> {
        let rate = self.options.rate.as_ref();
        // A long wait for credit must not look like a receiver that has died.
        let max_len =
            rate.map_or(self.buffer_len_bytes, |rate| rate.burst_bytes().min(self.buffer_len_bytes));
        let missing = usize::try_from(self.missing_bytes).unwrap_or(usize::MAX);
        let len = missing.min(max_len.max(1));
        // One byte more at the end: a byte after the digest must be found before the answer.
        let capacity = len + usize::from(len == missing);
        let mut buffer = BUFFERS.take(capacity);
        while buffer.len() < len {
            let spare = buffer.spare(capacity);
            let read = {
                let _step = self.options.step(LaneStep::Network);
                tokio::time::timeout(self.progress_timeout, recv.read_into(spare)).await
            };
            let read = read.map_err(|_| StreamError::TimedOut { timeout: self.progress_timeout })??;
            let Some(read) = read else { break };
            buffer.fill(read);
            let payload_before = self.missing_bytes.saturating_sub(Digest::LEN_BYTES as u64);
            self.missing_bytes = self.missing_bytes.saturating_sub(read as u64);
            let payload_after = self.missing_bytes.saturating_sub(Digest::LEN_BYTES as u64);
            self.options.advance((payload_before - payload_after) as usize);
        }
        // Unread data fills the stream's window, which slows the sender.
        self.options.take_of_rate(buffer.len()).await;
        Ok((buffer.len() > 0).then(|| buffer.freeze()))
    }
}

/// Answers a chunk that will not be received at all.
pub(crate) async fn refuse_chunk(stream: BiStream, code: Code, progress_timeout: Duration) {
    let BiStream { mut send, recv } = stream;
    answer(&mut send, Refusal::Error.into(), progress_timeout).await.ok();
    recv.stop(code);
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

/// Shared by all lanes of the process: a buffer is in use only while it is filled, hashed and written.
static BUFFERS: LazyLock<BufferPool> = LazyLock::new(|| BufferPool::keeping(MAX_FREE_BUFFERS));

/// The buffers of all lanes of the process.
pub fn receive_buffers() -> &'static BufferPool {
    &BUFFERS
}

/// 8: as many as chunks arrive side by side where one alone does not fill the path.
const MAX_FREE_BUFFERS: usize = 8;
