//! Events of a transfer.

use std::sync::Arc;

use shiplane_wire::{EscapedPath, LeftOutReason};

use super::limit::{Awaited, Limit};

/// Called from any thread of the transfer, so it must be quick.
pub type EventFn = Arc<dyn Fn(TransferEvent) + Send + Sync>;

/// One step of a transfer. Paths are escaped: safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferEvent {
    /// This many entries and bytes have been listed so far.
    Scanned {
        /// Files and directories.
        entries: u64,
        /// The sum of the files' sizes.
        total_bytes: u64,
    },
    /// The whole list is known.
    ScanComplete {
        /// Files and directories.
        entries: u64,
        /// The sum of the files' sizes.
        total_bytes: u64,
    },
    /// Bytes in all, as far as is known, that the receiver has already.
    Present {
        /// Bytes of files that are there already. A provider cannot tell them from the others.
        identical_bytes: u64,
        /// Bytes kept from an interrupted run.
        resumed_bytes: u64,
    },
    /// This many payload bytes have arrived at the receiver since the last such event; not verified yet. The rate is
    /// counted by these.
    Moved {
        /// Payload bytes.
        len_bytes: u64,
    },
    /// This many payload bytes are at the receiver, verified and written, since the last such event: no run after this
    /// one moves them again, whichever program dies.
    Kept {
        /// Payload bytes.
        len_bytes: u64,
    },
    /// Files are whole, durable if that was asked for, and under their final names.
    Published {
        /// How many since the last such event.
        files: u64,
    },
    /// A path is left out.
    LeftOut {
        /// Why.
        reason: LeftOutReason,
        /// Escaped.
        path: String,
        /// What has failed; of the other side its reason and what its system says. Safe to print.
        why: Option<String>,
        /// Whether it is the provider that leaves it out, and not the receiver.
        at_source: bool,
    },
    /// What is waited for has changed.
    Awaits(Awaited),
    /// What limited the transfer in the last second.
    LimitedBy(Limit),
    /// All bytes have come; the rest is the disk's.
    Finishing,
}

impl TransferEvent {
    /// The receiver leaves out a path, as it says to the provider.
    pub(super) fn left_out_there(reason: LeftOutReason, path: &EscapedPath, cause: &EscapedPath) -> Self {
        let why = (!cause.as_str().is_empty()).then(|| format!("{reason}: {cause}"));
        Self::LeftOut { reason, path: path.to_string(), why, at_source: false }
    }
}
