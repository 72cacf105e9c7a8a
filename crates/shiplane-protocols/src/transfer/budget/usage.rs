//! How much of the budget is in use, for the status page.

use shiplane_transport::internals::receive_buffers;

use super::{MemoryBudget, Peers};

impl MemoryBudget {
    /// Gives back to the system what is kept for the next transfer, also by the lanes of this process.
    pub(crate) fn free_buffers(&self) {
        self.buffers.free();
        self.splitters.buffers.free();
        receive_buffers().free();
    }

    /// How many buffers are kept for the next transfer, without those of the lanes.
    pub(crate) fn kept_buffers(&self) -> usize {
        self.buffers.kept() + self.splitters.buffers.kept()
    }

    /// Of each part: its name, what is held, and what may be.
    pub(crate) fn in_use(&self) -> [(&'static str, u64, u64); 7] {
        let Peers { ours, theirs, journals, .. } = &*self.peers;
        [
            ("chunks", &self.chunks),
            ("compressed_chunks", &self.compressed),
            ("entries", &self.entries),
            ("block_signatures", &self.signatures),
            ("lists_of_datasets", ours),
            ("lists_of_peers", theirs),
            ("journals", journals),
        ]
        .map(|(name, pool)| (name, pool.used_bytes(), pool.total_bytes()))
    }
}
