//! What comes of a transfer at its receiver.

use shiplane_wire::Digest;

use super::{
    super::{
        error::{FailedEntry, TransferError},
        target::Target,
    },
    Receiver,
};
use crate::files::Summary;

/// What a receiver has got; to be confirmed with the provider.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// SPEC 4.11.
    pub(crate) root: Digest,
    /// Chunks asked for, void ones included.
    pub(crate) chunks: u64,
    /// Payload bytes of the chunks that were stored.
    pub(crate) received_bytes: u64,
    /// The same as it travelled.
    pub(crate) wire_bytes: u64,
    /// The manifest's files and directories, and the sum of sizes.
    pub(crate) entries: u64,
    pub(crate) total_bytes: u64,
    /// What has become of them here.
    pub(crate) summary: Summary,
    /// The first files that could not be sent, and how many in all.
    pub(crate) failed: Vec<FailedEntry>,
    pub(crate) failed_count: u64,
    /// Digest of the one chunk, when there was exactly one.
    pub(crate) only_chunk: Option<Digest>,
}

/// What has been counted so far.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) entry_bytes: u64,
    pub(super) missing_bytes: u64,
    pub(super) identical_bytes: u64,
    pub(super) resumed_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) wire_bytes: u64,
    pub(super) failed: u64,
    pub(super) only_chunk: Option<Digest>,
}

impl Totals {
    /// What is wanted, as far as that is known, and is not here yet.
    pub(super) fn to_come_bytes(&self) -> u64 {
        self.missing_bytes.saturating_sub(self.received_bytes)
    }
}

impl<T: Target> Receiver<T> {
    /// Ends it.
    pub(super) fn received(self, summary: Summary) -> Result<Received, TransferError> {
        let chunks = self.ledger.chunks();
        let root = self.root.finish(chunks).map_err(|_| TransferError::Abandoned)?;
        Ok(Received {
            root,
            chunks,
            received_bytes: self.totals.received_bytes,
            wire_bytes: self.totals.wire_bytes,
            entries: self.ledger.entries(),
            total_bytes: self.totals.entry_bytes,
            summary,
            failed: self.failed,
            failed_count: self.totals.failed,
            only_chunk: self.totals.only_chunk.filter(|_| chunks == 1),
        })
    }
}
