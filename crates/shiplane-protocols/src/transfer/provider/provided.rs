//! The result of a transfer at its provider.

use std::sync::Arc;

use shiplane_files::internals::SourceError;
use shiplane_wire::{Digest, ReceiverRecord, RelPath};

use super::super::{
    error::TransferError,
    event::{EventFn, TransferEvent},
    records::RecordStream,
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
    pub(super) receiver: RecordStream<ReceiverRecord>,
}

impl Provided {
    /// Waits until the receiver has published everything, and tells what it leaves out at the end.
    ///
    /// # Errors
    /// If the connection fails first, or if the receiver says anything else.
    pub(crate) async fn published(&mut self, events: &EventFn) -> Result<(), TransferError> {
        while let Some(record) = self.receiver.next().await? {
            if let ReceiverRecord::LeftOut { reason, path, cause } = record {
                events(TransferEvent::left_out_there(reason, &path, &cause));
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
