//! Halves of a bidirectional stream that reset when dropped.
//!
//! quinn *finishes* a send stream that is dropped, which a peer cannot tell from an orderly end. Here a
//! dropped half resets (or stops) with [`Code::Cancelled`] instead; only [`SendHalf::finish`] ends in order.

mod in_use;
mod write_scheduler;

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use shiplane_wire::Code;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub(crate) use self::in_use::InUse;
use self::write_scheduler::{QueuedWriter, SHORT_BYTES};
use crate::{
    close::varint, error::StreamError, meter::ProgressMeter, until::until, window::ConnectionWindows,
};

/// Both halves of a stream. Take them apart to use them in different tasks.
#[derive(Debug)]
pub struct BiStream {
    /// What we send.
    pub send: SendHalf,
    /// What the peer sends.
    pub recv: RecvHalf,
}

impl BiStream {
    /// `in_use` counts the halves: one that is dropped counts until the peer has what it was sent.
    pub(crate) fn new((send, recv): (quinn::SendStream, quinn::RecvStream), in_use: &InUse) -> Self {
        let (in_use, held) = (in_use.clone(), in_use.token());
        let ahead = Bytes::new();
        Self {
            recv: RecvHalf {
                stream: recv,
                ahead,
                ended: false,
                wanted_bytes: None,
                windows: in_use.windows().cloned(),
                meter: None,
                _held: in_use.token(),
            },
            send: SendHalf {
                stream: send,
                state: SendState::Open,
                priority: 0,
                has_priority: true,
                in_use,
                meter: None,
                _held: held,
            },
        }
    }

    /// Counts what both halves carry from now on.
    pub(crate) fn count(&mut self, meter: &ProgressMeter) {
        self.send.meter = Some(meter.clone());
        self.recv.meter = Some(meter.clone());
    }

    /// Abandons both halves.
    pub(crate) fn reject(self, code: Code) {
        self.send.reset(code);
        self.recv.stop(code);
    }
}

/// The half that we send on. Dropped unfinished, it resets with [`Code::Cancelled`]; dropped after
/// [`finish`](Self::finish), it still holds up a drain of the connection until the peer has all of it.
#[derive(Debug)]
pub struct SendHalf {
    stream: quinn::SendStream,
    state: SendState,
    priority: i32,
    /// Whether quinn knows that.
    has_priority: bool,
    in_use: InUse,
    meter: Option<ProgressMeter>,
    _held: TaskTrackerToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendState {
    Open,
    Finished,
    Abandoned,
}

impl SendHalf {
    /// Queues all of `data`, waiting for flow control where it must.
    ///
    /// Not cancel-safe: dropped midway, part of `data` is queued; drop the half as well.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] when the peer wants no more.
    pub async fn write(&mut self, data: Bytes) -> Result<(), StreamError> {
        let len_bytes = data.len();
        self.tell_priority();
        self.stream.write_chunk(data).await.map_err(StreamError::of_write)?;
        self.note_written(len_bytes);
        Ok(())
    }

    /// As [`write`](Self::write), but gives up with [`StreamError::TimedOut`] when flow control opens
    /// for no byte within `timeout`. A long buffer may take longer, as long as it moves.
    ///
    /// Not cancel-safe: a part of `data` may have been queued; reset the stream then.
    pub async fn write_within(&mut self, data: Bytes, timeout: Duration) -> Result<(), StreamError> {
        let is_short = data.len() <= SHORT_BYTES;
        let priority = if is_short { i32::MAX } else { self.priority };
        let mut place = (self.priority < 0).then(|| self.in_use.write_scheduler().enqueue(priority));
        let mut rest = [data];
        while !rest[0].is_empty() {
            let written = within(timeout, self.write_some(&mut rest, place.as_mut())).await??;
            self.note_written(written.bytes);
            if !is_short {
                self.tell_priority();
            }
            if let Some(place) = &mut place {
                place.end_long_turn();
            }
        }
        Ok(())
    }

    /// Queues as much of `rest` as fits, at least a byte, and removes it from `rest`. Cancel-safe.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_part(&mut self, rest: &mut Bytes) -> Result<(), StreamError> {
        self.tell_priority();
        let written = self.stream.write_chunks(std::slice::from_mut(rest)).await;
        let written = written.map_err(StreamError::of_write)?;
        self.note_written(written.bytes);
        Ok(())
    }

    /// What there is room for, at least a byte. Cancel-safe.
    async fn write_some(
        &mut self,
        rest: &mut [Bytes],
        place: Option<&mut QueuedWriter>,
    ) -> Result<quinn::Written, StreamError> {
        let written = match place {
            None => self.stream.write_chunks(rest).await,
            // A write that is given up has written nothing.
            Some(place) => {
                poll_fn(|cx| place.poll(cx, |cx| pin!(self.stream.write_chunks(rest)).poll(cx))).await
            }
        };
        written.map_err(StreamError::of_write)
    }

    /// Ends this half in order: the peer reads to the end.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when it was finished before.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.state = SendState::Finished;
        self.stream.finish().map_err(|_| StreamError::Closed)
    }

    /// Abandons this half; what the peer has not read yet is lost.
    pub fn reset(mut self, code: Code) {
        self.abandon(code);
    }

    /// Waits until the peer has stopped this half, or until it has acknowledged all of a finished one
    /// (then [`Code::NoError`]), or the connection ends (then [`Code::Cancelled`]). Cancel-safe.
    pub async fn stopped(&mut self) -> Code {
        match self.stream.stopped().await {
            Ok(Some(code)) => Code::from_u64(code.into_inner()),
            Ok(None) => Code::NoError,
            Err(_) => Code::Cancelled,
        }
    }

    /// The code with which the peer has stopped this half, or does within `timeout`; `None` when it has
    /// not, or has acknowledged all of it instead.
    pub(crate) async fn stop_code(&self, timeout: Duration) -> Option<Code> {
        match tokio::time::timeout(timeout, self.stream.stopped()).await {
            Ok(Ok(Some(code))) => Some(Code::from_u64(code.into_inner())),
            Ok(Ok(None) | Err(_)) | Err(_) => None,
        }
    }

    /// Data of streams with a higher priority goes first; the default is 0. Below that,
    /// [`write_within`](Self::write_within) waits for room behind higher priorities and in turn with its like on the same
    /// connection, so that each moves: once begun it must be polled on, or be dropped. What `write_within` has begun the
    /// stream with, a header and a size, goes ahead of all that waits, so that the peer knows what the stream is.
    pub fn set_priority(&mut self, priority: i32) {
        self.priority = priority;
        self.has_priority = false;
        if priority >= 0 {
            self.tell_priority();
        }
    }

    fn tell_priority(&mut self) {
        if !self.has_priority {
            self.has_priority = true;
            // A closed stream has nothing left to order.
            let _ = self.stream.set_priority(self.priority);
        }
    }

    /// Waits until the peer has acknowledged all of a finished half, or has stopped it, or the
    /// connection ends. Cancel-safe.
    ///
    /// Progress is what leaves for the peer, on this or another stream: on a slow path a megabyte that
    /// has been queued takes its time.
    ///
    /// # Errors
    /// [`StreamError::TimedOut`] when nothing left for `timeout`.
    pub(crate) async fn delivered(&self, timeout: Duration) -> Result<(), StreamError> {
        let mut acknowledged = std::pin::pin!(self.stream.stopped());
        loop {
            let connection = self.in_use.connection();
            let frames = connection.stats().frame_tx.stream;
            match tokio::time::timeout(timeout, &mut acknowledged).await {
                Ok(_) => return Ok(()),
                Err(_) if connection.stats().frame_tx.stream == frames => {
                    return Err(StreamError::TimedOut { timeout });
                }
                Err(_) => {}
            }
        }
    }

    fn note_written(&self, len_bytes: usize) {
        if let Some(windows) = self.in_use.windows() {
            windows.wrote(len_bytes);
        }
        if let Some(meter) = &self.meter {
            meter.add(len_bytes);
        }
    }

    fn abandon(&mut self, code: Code) {
        if self.state == SendState::Open {
            self.state = SendState::Abandoned;
            // Already closed by the peer's stop or the connection's end: nothing left to say.
            let _ = self.stream.reset(varint(code));
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.abandon(Code::Cancelled);
        // A close discards what is still under way.
        if self.state == SendState::Finished {
            self.in_use.finish(&self.stream);
        }
    }
}

/// The half that the peer sends on. Dropped before its end, it stops the peer with [`Code::Cancelled`].
#[derive(Debug)]
pub struct RecvHalf {
    stream: quinn::RecvStream,
    /// Bytes pushed back; read before the rest of the stream.
    ahead: Bytes,
    ended: bool,
    /// None: all there are.
    wanted_bytes: Option<usize>,
    /// Grow as is read; None: those of the connection stay as they are.
    windows: Option<Arc<ConnectionWindows>>,
    meter: Option<ProgressMeter>,
    _held: TaskTrackerToken,
}

impl RecvHalf {
    /// The next bytes, at least one; `None` at the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamError::Reset`] when the peer gave up.
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        let max_len_bytes = self.wanted_bytes.unwrap_or(usize::MAX);
        if max_len_bytes == 0 {
            return Ok(None);
        }
        let piece = if self.ahead.is_empty() {
            let piece = self.stream.read_chunk(max_len_bytes, true).await.map_err(StreamError::of_read)?;
            let piece = piece.map(|chunk| chunk.bytes);
            self.note_read(piece.as_ref().map_or(0, Bytes::len));
            piece
        } else {
            Some(self.ahead.split_to(max_len_bytes.min(self.ahead.len())))
        };
        self.ended |= piece.is_none();
        if let (Some(wanted), Some(piece)) = (&mut self.wanted_bytes, &piece) {
            *wanted -= piece.len();
        }
        Ok(piece)
    }

    /// Gives back the end of a piece that [`read`](Self::read) gave: it comes next. Before the next read
    /// only, and not with a limit by `end_after`.
    pub(crate) fn unread(&mut self, rest: Bytes) {
        self.ahead = rest;
    }

    /// From here on [`read`](Self::read) gives `len_bytes` more bytes and then the end, whatever the
    /// peer sends after them or leaves out. For dialects in which that end is not promised.
    #[cfg(feature = "dialect")]
    pub(crate) fn end_after(&mut self, len_bytes: usize) {
        self.wanted_bytes = Some(len_bytes);
    }

    /// As [`read`](Self::read), with [`StreamError::TimedOut`] when nothing comes within `timeout`. Cancel-safe.
    ///
    /// # Errors
    /// As `read`.
    pub async fn read_within(&mut self, timeout: Duration) -> Result<Option<Bytes>, StreamError> {
        within(timeout, self.read()).await?
    }

    /// Reads at least a byte into the buffer; returns the length, `None` at the end. Cancel-safe.
    pub(crate) async fn read_into(&mut self, buf: &mut [u8]) -> Result<Option<usize>, StreamError> {
        if !self.ahead.is_empty() {
            let len = buf.len().min(self.ahead.len());
            buf[..len].copy_from_slice(&self.ahead.split_to(len));
            return Ok(Some(len));
        }
        let count = self.stream.read(buf).await.map_err(StreamError::of_read)?;
        self.ended |= count.is_none();
        self.note_read(count.unwrap_or(0));
        Ok(count)
    }

    /// Reads exactly `buf.len()` bytes; `false` when the stream ends before. Not cancel-safe.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<bool, StreamError> {
        let mut filled = buf.len().min(self.ahead.len());
        buf[..filled].copy_from_slice(&self.ahead.split_to(filled));
        while filled < buf.len() {
            match self.stream.read(&mut buf[filled..]).await.map_err(StreamError::of_read)? {
                Some(count) => {
                    filled += count;
                    self.note_read(count);
                }
                None => {
                    self.ended = true;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// All the bytes up to the end. Not cancel-safe.
    ///
    /// # Errors
    /// [`StreamError::TooLong`] as soon as there are more than `max_bytes`; no more than that is kept.
    pub async fn read_to_end(&mut self, max_bytes: usize) -> Result<Bytes, StreamError> {
        let mut whole = bytes::BytesMut::new();
        while let Some(piece) = self.read().await? {
            if whole.len() + piece.len() > max_bytes {
                return Err(StreamError::TooLong { max_bytes });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    fn note_read(&self, len_bytes: usize) {
        if let Some(windows) = &self.windows {
            windows.read(len_bytes);
        }
        if let Some(meter) = &self.meter {
            meter.add(len_bytes);
        }
    }

    /// Tells the peer that we read no further.
    pub fn stop(mut self, code: Code) {
        self.abandon(code);
    }

    fn abandon(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            // Already ended: nothing left to stop.
            let _ = self.stream.stop(varint(code));
        }
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.abandon(Code::Cancelled);
    }
}

/// What `work` gives, unless it takes longer than `timeout`.
async fn within<F: Future>(timeout: Duration, work: F) -> Result<F::Output, StreamError> {
    until(|| Instant::now() + timeout, work).await.ok_or(StreamError::TimedOut { timeout })
}
