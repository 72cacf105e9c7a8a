//! The buffers with which transfers split files into blocks.

use shiplane_files::internals::Buffers;
use tokio::sync::Semaphore;

/// Buffers and a limit for splitting files into blocks. A permit is held for one buffer, never while waiting for a
/// peer.
#[derive(Debug)]
pub(in crate::transfer) struct BlockSplitters {
    pub(in crate::transfer) turns: Semaphore,
    pub(in crate::transfer) buffers: Buffers,
}

impl Default for BlockSplitters {
    fn default() -> Self {
        Self { turns: Semaphore::new(MAX_SPLITTERS), buffers: Buffers::default() }
    }
}

/// 4, each with a buffer of at most 6 MiB: more threads are not faster than a disk, and others take turns.
const MAX_SPLITTERS: usize = 4;
