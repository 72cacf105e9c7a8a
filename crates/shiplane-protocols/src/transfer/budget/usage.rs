//! How much of the budget is in use, for those who watch a server.

use super::{MemoryBudget, Peers};

impl MemoryBudget {
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
