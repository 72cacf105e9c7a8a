//! The result of a transfer at its receiver.

use shiplane_files::internals::Summary;
use shiplane_wire::Digest;

use super::super::error::TransferError;

/// What a receiver has got.
#[derive(Debug)]
pub(crate) struct Received {
    /// Chunks asked for, void ones included.
    pub(crate) chunks: u64,
    /// The manifest's files and directories.
    pub(crate) entries: u64,
    pub(crate) totals: Totals,
    /// The results of the files.
    pub(crate) summary: Summary,
    /// Whether the provider has confirmed that it has sent exactly this.
    pub(crate) confirmed: Result<(), TransferError>,
}

/// What has been counted so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// The sum of the entries' sizes.
    pub(crate) entry_bytes: u64,
    pub(super) missing_bytes: u64,
    pub(super) identical_bytes: u64,
    pub(super) resumed_bytes: u64,
    /// Payload bytes of the chunks that were stored.
    pub(crate) received_bytes: u64,
    /// The same as they were sent.
    pub(crate) wire_bytes: u64,
    /// Entries that could not be sent.
    pub(crate) failed: u64,
    /// Paths that this side leaves out, and those that the provider leaves out, with the failed ones.
    pub(crate) left_out_here: u64,
    pub(crate) left_out_there: u64,
    /// Digest of the one chunk, when there was exactly one.
    pub(crate) only_chunk: Option<Digest>,
}

impl Totals {
    /// What is wanted, as far as that is known, and is not here yet.
    pub(super) fn to_come_bytes(&self) -> u64 {
        self.missing_bytes.saturating_sub(self.received_bytes)
    }
}

/// The steps at the end of a transfer (SPEC 4.11).
#[derive(Debug, Default)]
pub(super) struct End {
    /// The digest over all chunks, once the provider was told that they are here.
    pub(super) sent_digest: Option<Digest>,
    /// The chunks and the digest that the provider has announced (*sent*).
    pub(super) announced: Option<(u64, Digest)>,
    /// The provider's answer.
    pub(super) confirmed: Option<Result<(), TransferError>>,
    /// The connection has failed since.
    pub(super) is_cut: bool,
}

impl End {
    pub(super) fn is_done_sent(&self) -> bool {
        self.sent_digest.is_some()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The provider has said what it has sent.
    pub(super) fn announced(&mut self, chunks: u64, transfer_digest: Digest) {
        self.announced = Some((chunks, transfer_digest));
    }

    /// Whether the provider may say more.
    pub(super) fn is_open(&self) -> bool {
        self.confirmed.is_none()
    }
}
