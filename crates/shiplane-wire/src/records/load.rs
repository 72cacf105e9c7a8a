//! What a side of a transfer spends its time on (SPEC 4.30).

use bytes::{BufMut, BytesMut};

use super::RecordError;
use super::fields::Fields;

/// What the last second of a side was spent on. The first four are shares of the time that its chunks took; all are
/// percentages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Reading from its disk, or writing to it.
    pub disk: u8,
    /// Computing digests.
    pub digest: u8,
    /// Waiting for a rate limit.
    pub limit: u8,
    /// Waiting for the network: to take more, or to bring something.
    pub network: u8,
    /// Of the time of the thread that drives the connection, what it worked or waited for a processor.
    pub processor: u8,
    /// Of what the peer has acknowledged, the part that was sent when the path had room for more.
    pub unfilled: u8,
    /// Of all that this side's transfers have moved, the part of the others.
    pub others: u8,
}

impl Load {
    pub(super) fn put(self, out: &mut BytesMut) {
        out.put_slice(&self.bytes());
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let [disk, digest, limit, network, processor, unfilled, others] = fields.array()?;
        Ok(Self { disk, digest, limit, network, processor, unfilled, others })
    }

    pub(super) fn check(self) -> Result<(), RecordError> {
        match self.bytes().into_iter().find(|share| *share > 100) {
            Some(value) => Err(RecordError::UnknownValue { field: "share of a load", value }),
            None => Ok(()),
        }
    }

    fn bytes(self) -> [u8; 7] {
        let Self { disk, digest, limit, network, processor, unfilled, others } = self;
        [disk, digest, limit, network, processor, unfilled, others]
    }
}
