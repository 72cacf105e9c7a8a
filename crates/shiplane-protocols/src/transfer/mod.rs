//! One transfer of files: the engine under fetch, push and sync (SPEC 4).
//!
//! Whoever asked, one side *provides* and the other *receives*:
//!
//! ```text
//!  provider                                    receiver
//!     ├── entry, entry, … end ────────────────►│  plans each entry: there already, compare, want
//!     │◄──────────── want chunk [spans], … ────┤  packs what is wanted into chunks
//!     ├══ tagged chunk (lane stream) ═════════►│  writes, verifies, answers status 0
//!     ├══ tagged chunk (lane stream) ═════════►│  makes durable and publishes, in groups
//!     │◄──────────── release, … done ──────────┤
//! ```
//!
//! The receiver's wants *are* the payload's layout, so that resuming, skipping what is there, and sending
//! only what differs are one mechanism. In reading order:
//!
//! 1. `packer`: wants → chunks; `ledger`: what is wanted, under way and done. Both pure.
//! 2. `provider`: scans, sends records, reads spans into lanes.
//! 3. `receiver`: plans, wants, receives, publishes.
//! 4. `delta`: what an old version has in common with the new one is not sent. Pure.
//! 5. `target`: where it all lands: a directory tree, or one stream.

mod delta;
pub(crate) mod error;
pub(crate) mod event;
mod ledger;
mod packer;
pub(crate) mod provider;
pub(crate) mod receiver;
mod records;
pub(crate) mod target;

pub use error::{FailedEntry, ProtocolFault, TransferError};
pub use event::{EventFn, TransferEvent};
pub use target::{StreamTarget, Target};

use std::time::Duration;

/// How often a side that is busy with its disk says that it lives: six times within the peer's deadline,
/// which is taken to be our own.
const fn alive_interval(progress_timeout: Duration) -> Duration {
    Duration::from_nanos((progress_timeout.as_nanos() / 6) as u64 + 1)
}

/// How a transfer is run.
#[derive(Debug, Clone)]
pub struct TransferOptions {
    /// Chunks under way at a time. Each has a stream of its own.
    pub lanes: usize,
    /// Payload of a chunk, at most 16 MiB.
    pub chunk_len_bytes: u64,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self { lanes: DEFAULT_LANES, chunk_len_bytes: shiplane_wire::limits::DEFAULT_PAYLOAD_CHUNK_LEN_BYTES }
    }
}

/// 16 streams of a 2 MiB window carry 32 MiB: 1 Gbit/s at 250 ms.
pub const DEFAULT_LANES: usize = 16;
