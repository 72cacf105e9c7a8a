//! Fetch, push and sync of files.
//!
//! Small things are negotiated by RPC; big ones travel down the lane beside it. In reading order:
//!
//! 1. [`fetch`](Fetch): request, transfer, confirm. The caller gets what the peer has.
//! 2. [`push`](Push): notify, transfer, acknowledge. The peer gets what the caller has.
//! 3. [`serve`](FileServer): the other side of both.
//! 4. [`transfer`]: the engine under all, which any pattern drives: one side provides, one receives.
//! 5. [`access`]: tickets and standing peers: who may do what.
//!
//! Beside the files, for programs that embed the library:
//!
//! 6. [`transfer_batch`]: many chunks, so many at a time. [`TransferResult`], [`TransferReport`]: what a
//!    transfer came to.
//! 7. [`Inbox`]: exactly-once delivery. [`transfer_auto`] chooses call or lane, [`send_with_retry`] dials
//!    and tries again, [`Compression`] makes it less to send; [`progress`] tells how far it is.
//! 8. [`snapshot`]: immutable content by id. [`single`]: the step that custom protocols share.
//! 9. [`sync`]: two directories become one. [`synchronise`](sync::synchronise) asks, a
//!    [`FileServer::syncing`] takes part.
//! 10. [`TransferManager`]: ending in order. [`TransferMetrics`]: what there was.
//!
//! ```text
//! client                                         server
//!   ├── call fetch.open {transfer, path} ───────────►│ may it read that? does it exist?
//!   │◄───────────────────── file | directory | root ─┤
//!   │◄──────────────── records stream: the manifest ─┤
//!   ├── records stream: wants ──────────────────────►│
//!   │◄═══════════ tagged chunks, many at a time ═════┤
//!   ├── records stream: done {root} ────────────────►│ compares with its own
//!   │◄────────────────────────── records stream ends ┤
//!   ├── records stream ends: all is durable ────────►│
//!   │                                                │
//!   ├── call push.open {transfer, path, size} ──────►│ may it write that? is there room? is it free?
//!   │◄─────────────────────────────────────── ready ─┤
//!   │◄─────────────────────── records stream: wants ─┤
//!   ├── records stream: the manifest ───────────────►│
//!   ├══ tagged chunks, many at a time ══════════════►│
//!   ├── call push.settle {root} ────────────────────►│ compares with its own, makes it durable
//!   │◄───────────────────── working ... done | fault ─┤
//! ```
//!
//! Not here: quinn, the terminal, bincode.

#![forbid(unsafe_code)]

pub mod access;
mod auto;
mod batch;
pub mod compress;
mod deliver;
mod fetch;
mod inbox;
mod methods;
mod metrics;
mod peer_target;
mod progress;
mod push;
mod result;
mod retry;
mod serve;
mod shutdown;
pub mod single;
pub mod snapshot;
pub mod sync;
pub mod transfer;

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::access::fuzz::{fuzz_address, fuzz_peers, fuzz_ticket};
    pub use crate::compress::fuzz_encoded;
    pub use crate::methods::fuzz_methods;
    pub use crate::sync::fuzz::{fuzz_base, fuzz_changes, fuzz_manifest, fuzz_stat_cache};
}

pub use auto::{AutoOptions, CALL_THRESHOLD_BYTES, DeliveryReport, Route, transfer_auto};
pub use batch::{BatchOptions, BatchSource, InFlight, transfer_batch};
pub use compress::Compression;
pub use deliver::{DeliverError, SendOptions};
pub use fetch::{Fetch, FetchError, FetchReport, FetchRequest, redeem, with_ticket};
pub use inbox::{Delivered, Deliveries, Inbox, InboxOptions, MAX_REMEMBERED};
pub use metrics::{DirectionMetrics, DurationHistogram, MetricsSnapshot, TransferMetrics};
pub use peer_target::PeerTarget;
pub use progress::{Progress, progress};
pub use push::{Push, PushError, PushReceipt, PushReport, PushRequest};
pub use result::{Delivery, Direction, TransferReport, TransferResult};
pub use retry::{
    Jitter, RetryError, RetryPolicy, Retryable, SendFailed, Succeeded, send_again, send_with_retry,
};
pub use serve::{FileServer, WriteLimits};
pub use shutdown::{ManagedError, ShutdownReport, ShuttingDown, TransferAdmission, TransferManager};
