//! The result of a transfer at its provider.

use std::sync::Arc;

use shiplane_files::internals::SourceError;
use shiplane_wire::{Digest, ReceiverRecord, RelPath};

use super::{
    super::{error::TransferError, event::EventFn, records::RecordStream},
    Provider,
    events::left_out_there,
};

/// What a provider has delivered, and its receiver has confirmed.
#[derive(Debug)]
pub(crate) struct Provided {
    /// Chunks asked for, void ones included.
    pub(crate) chunks: u64,
    /// Payload bytes delivered.
    pub(crate) sent_bytes: u64,
    /// The same as they were sent.
    pub(crate) wire_bytes: u64,
    /// The first of the files that could not be sent, and why.
    pub(crate) unsent: Vec<(RelPath, Arc<SourceError>)>,
    /// Paths that this side has left out, the failed ones among them.
    pub(crate) left_out: u64,
    /// Where the receiver says that it has published everything: by its end.
    receiver: RecordStream<ReceiverRecord>,
}

impl Provided {
    /// Waits until the receiver has published everything, and tells what it leaves out at the end.
    ///
    /// # Errors
    /// If the connection fails first, or if the receiver says anything else.
    pub(crate) async fn published(&mut self, events: &EventFn) -> Result<(), TransferError> {
        while let Some(record) = self.receiver.next().await? {
            if let ReceiverRecord::LeftOut { reason, path, cause } = record {
                events(left_out_there(reason, &path, &cause));
            }
        }
        Ok(())
    }
}

/// What a receiver says that it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) transfer_digest: Digest,
    pub(super) failed: u64,
}

impl Provider {
    /// Whether the receiver has what was sent (SPEC 4.11).
    pub(super) fn check_done(&self) -> Result<(), TransferError> {
        let digest = self.transfer_hasher.clone().finish(self.next_chunk);
        let transfer_digest = digest.map_err(|_| TransferError::Abandoned)?;
        let ours = Done { transfer_digest, failed: self.failed.len() as u64 };
        if self.done.as_ref() == Some(&ours) { Ok(()) } else { Err(TransferError::TransferDigestMismatch) }
    }

    pub(super) fn provided(self, receiver: RecordStream<ReceiverRecord>) -> Provided {
        Provided {
            chunks: self.next_chunk,
            sent_bytes: self.sent_bytes,
            wire_bytes: self.wire_bytes,
            unsent: self.unsent,
            left_out: self.left_out,
            receiver,
        }
    }
}
