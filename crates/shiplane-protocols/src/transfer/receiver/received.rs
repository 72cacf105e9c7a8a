//! What comes of a transfer at its receiver.

use shiplane_wire::Digest;

use super::super::error::FailedEntry;
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
