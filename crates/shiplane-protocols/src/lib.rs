//! Fetch, push and sync of files.
//!
//! For programs that send single chunks and messages:
//!
//! 1. [`transfer_batch`]: sends many chunks with bounded concurrency. [`TransferResult`], [`TransferReport`]: results.
//! 2. [`Inbox`]: exactly-once delivery. [`transfer_auto`] chooses a call or a chunk, [`send_with_retry`] dials and
//!    retries, [`Compression`] compresses.
//! 3. [`TransferMetrics`] counts transfers and bytes. [`progress`] reports the progress of a chunk.
//! 4. [`TransferManager`]: refuses new transfers at shutdown and waits for running ones.
//! 5. [`SnapshotStore`], [`SnapshotServer`], [`request_snapshot`]: immutable content by id.
//! 6. [`claim_new`], [`only_chunk`]: one chunk per request, for protocols of your own.
//!
//! The rest is the engine of the crate `shiplane`, public only with the feature `internals`:
//!
//! 7. `fetch`: the caller receives files from the peer.
//! 8. `push`: the caller sends files to the peer.
//! 9. `serve`: the other side of both.
//! 10. `transfer`: the engine of fetch, push and sync: one side provides, one receives.
//! 11. `sync`: two-way sync of two directories.
//!
//! ```text
//! client                                         server
//!   ├── call fetch.open {transfer, path} ───────────►│ permission? exists?
//!   │◄────────────────── file | directory | content ─┤
//!   │◄──────────────── records stream: the manifest ─┤
//!   ├── records stream: wants ──────────────────────►│
//!   │◄═══════════ tagged chunks, concurrently ═══════┤
//!   ├── records stream: done {digest} ──────────────►│ compares with its own
//!   │◄────────────────────────── records stream ends ┤
//!   ├── records stream ends: all is durable ────────►│
//!   │                                                │
//!   ├── call push.open {transfer, path, size} ──────►│ permission? space? locked?
//!   │◄─────────────────────────────────────── ready ─┤
//!   │◄─────────────────────── records stream: wants ─┤
//!   ├── records stream: the manifest ───────────────►│
//!   ├══ tagged chunks, concurrently ════════════════►│
//!   │◄─────────────── records stream: done {digest} ─┤ the client compares with its own
//!   ├── call push.settle ───────────────────────────►│ makes it durable
//!   │◄───────────────────── working ... done | fault ─┤
//! ```
//!
//! Not here: quinn, the terminal, bincode.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "the engine's parts are public with the feature `internals` alone"
    )
)]

mod batch;
mod compress;
mod content;
mod deliver;
mod fetch;
mod filters;
mod inbox;
mod methods;
mod metrics;
mod peer_target;
mod probe;
mod progress;
mod push;
mod result;
mod retry;
mod serve;
mod shutdown;
mod single;
mod snapshot;
mod sync;
mod transfer;

use std::sync::{Mutex, MutexGuard, PoisonError};

use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::internals::blocking;

/// Does blocking work for a call. Dropped, the work goes on.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    blocking::spawn(work).await.map_err(|_| Fault::new(FaultCode::Internal, ""))
}

/// What each lock here guards is whole whenever its holder could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::compress::fuzz_encoded;

    /// A body of any method.
    pub fn fuzz_methods(data: &[u8]) {
        crate::methods::fuzz_bodies(data);
        crate::sync::messages::fuzz_bodies(data);
        crate::probe::fuzz_bodies(data);
    }
}

pub use batch::{BatchOptions, BatchSource, transfer_batch};
pub use compress::Compression;
pub use deliver::{
    CALL_THRESHOLD_BYTES, DeliverError, SendFailed, SendOptions, send_again, send_with_retry, transfer_auto,
};
pub use inbox::{Delivered, Deliveries, Inbox, InboxOptions, MAX_REMEMBERED};
pub use metrics::{DirectionMetrics, MetricsSnapshot, TransferMetrics};
pub use peer_target::PeerTarget;
pub use progress::{Progress, progress};
pub use result::{Delivery, Direction, TransferReport, TransferResult};
pub use retry::RetryPolicy;
pub use shutdown::{ManagedError, ShutdownReport, ShuttingDown, TransferAdmission, TransferManager};
pub use single::{NoChunk, claim_new, only_chunk};
pub use snapshot::{
    AddSnapshotError, MAX_ID_LEN_BYTES, SnapshotError, SnapshotInfo, SnapshotOptions, SnapshotServer,
    SnapshotStore, request_snapshot, request_snapshot_to_path,
};

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        fetch::{Fetch, FetchError, FetchRequest, ping, redeem, with_ticket},
        filters::OpenFilters,
        metrics::{DurationHistogram, SharedRecorder},
        probe::measure_rate,
        push::{Push, PushError, PushReceipt, PushRequest},
        retry::Jitter,
        serve::{FailureFn, FileServer, ReloadOn, ServedJob, UnderWay, WriteLimits},
    };
    /// Chunks that are compressed on their way.
    pub mod compress {
        pub use crate::compress::{
            DecodeSinkError, DecodingSink, EncodedSource, MAX_ENCODED_CONTENT_BYTES, MAX_RATIO,
        };
    }
    /// Two directories become one.
    pub mod sync {
        pub use crate::sync::*;
    }
    /// One side provides, one receives.
    pub mod transfer {
        pub use crate::transfer::*;
    }
}
