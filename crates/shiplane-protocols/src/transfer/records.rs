//! Reads and writes typed records on the records stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use shiplane_transport::internals::{RecvHalf, SendHalf};
use shiplane_wire::{Code, RecordReader, internals::Record};

use super::error::TransferError;

/// Our half. Records are collected and leave together.
#[derive(Debug)]
pub(super) struct RecordSender {
    stream: SendHalf,
    pending: BytesMut,
    /// Taken from `pending`, and not written yet.
    writing: Bytes,
    /// Of what was queued: all but signs of life.
    content_bytes: u64,
    timeout: Duration,
}

impl RecordSender {
    pub(super) fn new(stream: SendHalf, timeout: Duration) -> Self {
        Self { stream, pending: BytesMut::new(), writing: Bytes::new(), content_bytes: 0, timeout }
    }

    /// Queues a record; [`write_now`](Self::write_now) and [`write_on`](Self::write_on) send it.
    pub(super) fn push(&mut self, record: &impl Record) -> Result<(), TransferError> {
        let before = self.pending.len();
        record.append_to(&mut self.pending)?;
        self.content_bytes += (self.pending.len() - before) as u64;
        Ok(())
    }

    /// Queues a sign of life, which is sent again and again and so is no progress.
    pub(super) fn push_sign(&mut self, record: &impl Record) -> Result<(), TransferError> {
        Ok(record.append_to(&mut self.pending)?)
    }

    /// Whether everything that was queued is written.
    pub(super) fn is_written(&self) -> bool {
        self.backlog_bytes() == 0
    }

    /// How much waits to be written, as the peer reads slowly.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.pending.len() + self.writing.len()
    }

    /// How much was queued without signs of life.
    pub(super) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Writes what there is room for at once.
    pub(super) fn write_now(&mut self) -> Result<(), TransferError> {
        while !self.is_written()
            && let Some(written) = self.write_on().now_or_never()
        {
            written?;
        }
        Ok(())
    }

    /// Waits until there is room, and writes. Cancel-safe.
    pub(super) async fn write_on(&mut self) -> Result<(), TransferError> {
        if self.writing.is_empty() {
            self.writing = self.pending.split().freeze();
        }
        if !self.writing.is_empty() {
            self.stream.write_part(&mut self.writing).await?;
        }
        Ok(())
    }

    /// Writes all that is queued, which is little, within the timeout.
    pub(super) async fn flush(&mut self) -> Result<(), TransferError> {
        let timeout = self.timeout;
        let flushed = async {
            while !self.is_written() {
                self.write_on().await?;
            }
            Ok(())
        };
        tokio::time::timeout(timeout, flushed).await.map_err(|_| TransferError::Silent { timeout })?
    }

    pub(super) fn finish(&mut self) -> Result<(), TransferError> {
        Ok(self.stream.finish()?)
    }

    pub(super) fn reset(self, code: Code) {
        self.stream.reset(code);
    }
}

/// The peer's half.
#[derive(Debug)]
pub(crate) struct RecordStream<R> {
    stream: RecvHalf,
    reader: RecordReader<R>,
}

impl<R: Record> RecordStream<R> {
    pub(super) fn new(stream: RecvHalf) -> Self {
        Self { stream, reader: RecordReader::new() }
    }

    /// The next record; `None` at the end of the peer's half. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<R>, TransferError> {
        loop {
            if let Some(record) = self.next_buffered()? {
                return Ok(Some(record));
            }
            match self.stream.read().await {
                Ok(Some(bytes)) => self.reader.push(bytes),
                Ok(None) => {
                    self.reader.end()?;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next record, if it has arrived with the last one.
    pub(super) fn next_buffered(&mut self) -> Result<Option<R>, TransferError> {
        Ok(self.reader.poll()?)
    }

    pub(super) fn stop(self, code: Code) {
        self.stream.stop(code);
    }
}
