//! The records stream as typed records, both ways.

use std::time::Duration;

use bytes::BytesMut;
use shiplane_transport::{RecvHalf, SendHalf};
use shiplane_wire::{Code, ProviderRecord, ReceiverRecord, Record, RecordError, RecordReader};

use super::error::TransferError;

/// A record that can be written.
pub(super) trait Encode {
    fn encode_into(&self, out: &mut BytesMut) -> Result<(), RecordError>;
}

impl Encode for ProviderRecord {
    fn encode_into(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        self.encode(out)
    }
}

impl Encode for ReceiverRecord {
    fn encode_into(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        self.encode(out)
    }
}

/// Our half. Records are collected and leave together.
#[derive(Debug)]
pub(super) struct RecordSender {
    stream: SendHalf,
    pending: BytesMut,
    timeout: Duration,
}

impl RecordSender {
    pub(super) fn new(stream: SendHalf, timeout: Duration) -> Self {
        Self { stream, pending: BytesMut::new(), timeout }
    }

    /// Queues a record; [`flush`](Self::flush) sends it.
    pub(super) fn push(&mut self, record: &impl Encode) -> Result<(), TransferError> {
        Ok(record.encode_into(&mut self.pending)?)
    }

    /// Sends what is queued. Not cancel-safe.
    pub(super) async fn flush(&mut self) -> Result<(), TransferError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let bytes = self.pending.split().freeze();
        Ok(self.stream.write_within(bytes, self.timeout).await?)
    }

    pub(super) fn finish(&mut self) -> Result<(), TransferError> {
        Ok(self.stream.finish()?)
    }

    pub(super) fn reset(self, code: Code) {
        self.stream.reset(code);
    }
}

/// The peer's half.
pub(super) struct RecordStream<R> {
    stream: RecvHalf,
    reader: RecordReader<R>,
}

impl<R: Record> RecordStream<R> {
    pub(super) fn new(stream: RecvHalf) -> Self {
        Self { stream, reader: RecordReader::new() }
    }

    /// The next record; `None` at the end of the peer's half. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<R>, TransferError> {
        loop {
            if let Some(record) = self.reader.poll()? {
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

    pub(super) fn stop(self, code: Code) {
        self.stream.stop(code);
    }
}
