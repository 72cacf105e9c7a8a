//! What a transfer leaves out, on either side.

use std::error::Error as _;

use shiplane_files::internals::LeftOut;
use shiplane_wire::{EscapedPath, LeftOutReason, ReceiverRecord};

use super::{
    super::{error::TransferError, event::TransferEvent},
    Receiver,
};

impl Receiver {
    /// Takes notice of what cannot be written here, and tells the provider.
    pub(super) fn leave_out(&mut self) -> Result<(), TransferError> {
        let (left_out, unnamed) = self.target.take_left_out()?;
        self.totals.left_out_here += unnamed;
        if unnamed > 0 {
            self.target.is_left_out(LeftOutReason::Failed, None);
        }
        for left_out in left_out {
            let path = left_out.shown();
            let LeftOut { entry, reason, error, .. } = left_out;
            if let Some(entry) = entry {
                self.ledger.entry_left_out(entry);
                self.paths.remove(&entry);
                self.publisher.discard_left_out(entry);
            }
            self.totals.left_out_here += 1;
            self.target.is_left_out(reason, None);
            let (shown, why) = (path.as_str().to_owned(), Some(error.to_string()));
            (self.events)(TransferEvent::LeftOut { reason, path: shown, why, at_source: false });
            // The end record has the number of all, for a provider that does not read these.
            if self.records.backlog_bytes() < MAX_BACKLOG_BYTES {
                // As in a sync, what the system says, and nothing of how this side calls things.
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                let cause = EscapedPath::new(cause.as_bytes());
                self.records.push(&ReceiverRecord::LeftOut { reason, path, cause })?;
            }
        }
        Ok(())
    }

    /// The provider leaves out `path`, which is escaped.
    pub(super) fn left_out_there(&mut self, reason: LeftOutReason, path: String) {
        self.totals.left_out_there += 1;
        self.target.is_left_out(reason, Some(&path));
        (self.events)(TransferEvent::LeftOut { reason, path, why: None, at_source: true });
    }
}

/// 256 KiB: of usual paths some thousands.
const MAX_BACKLOG_BYTES: usize = 256 << 10;
