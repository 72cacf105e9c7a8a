//! Fetch, push and sync of files.
//!
//! For programs that send single chunks and messages:
//!
//! 1. [`transfer_batch`]: many chunks, so many at a time. [`TransferResult`], [`TransferReport`]: what a transfer came to.
//! 2. [`Inbox`]: exactly-once delivery. [`transfer_auto`] chooses call or lane, [`send_with_retry`] dials and tries again,
//!    [`Compression`] makes it less to send.
//! 3. [`TransferMetrics`]: what there was.
//!
//! The rest is the engine of the crate `shiplane`, and public with the feature `internals` alone:
//!
//! 4. `fetch`: request, transfer, confirm. The caller gets what the peer has.
//! 5. `push`: notify, transfer, acknowledge. The peer gets what the caller has.
//! 6. `serve`: the other side of both.
//! 7. `transfer`: the engine under all, which any pattern drives: one side provides, one receives.
//! 8. `access`: tickets and standing peers: who may do what.
//! 9. `sync`: two directories become one.
//! 10. `snapshot`: immutable content by id. `single`: the step that custom protocols share. `shutdown`: ending in order.
//!     `progress`: how far a chunk is.
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
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "the engine's parts are public with the feature `internals` alone"
    )
)]

mod access;
mod auto;
mod batch;
mod compress;
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
mod single;
mod snapshot;
mod sync;
mod transfer;

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::access::fuzz::{fuzz_address, fuzz_peers, fuzz_ticket};
    pub use crate::compress::fuzz_encoded;
    pub use crate::methods::fuzz_methods;
    pub use crate::sync::fuzz::{fuzz_base, fuzz_changes, fuzz_manifest, fuzz_stat_cache};
}

pub use access::Ticket;
pub use auto::{DeliveryReport, transfer_auto};
pub use batch::{BatchOptions, transfer_batch};
pub use compress::Compression;
pub use deliver::{CALL_THRESHOLD_BYTES, DeliverError, SendOptions};
pub use inbox::{Delivered, Deliveries, Inbox, InboxOptions, MAX_REMEMBERED};
pub use metrics::{DirectionMetrics, MetricsSnapshot, TransferMetrics};
pub use peer_target::PeerTarget;
pub use result::{Delivery, Direction, TransferReport, TransferResult};
pub use retry::{RetryPolicy, SendFailed, send_again, send_with_retry};

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        batch::{BatchSource, InFlight},
        fetch::{Fetch, FetchError, FetchReport, FetchRequest, redeem, with_ticket},
        metrics::DurationHistogram,
        progress::{Progress, progress},
        push::{Push, PushError, PushReceipt, PushReport, PushRequest},
        retry::{Jitter, RetryError, Retryable, Succeeded},
        serve::{FileServer, WriteLimits},
        shutdown::{ManagedError, ShutdownReport, ShuttingDown, TransferAdmission, TransferManager},
    };
    /// Who may connect, and what they may do there.
    pub mod access {
        pub use crate::access::*;
    }
    /// Chunks that are compressed on their way.
    pub mod compress {
        pub use crate::compress::{
            DecodeSinkError, DecodingSink, EncodeSourceError, EncodedSizes, EncodedSource,
            MAX_ENCODED_CONTENT_BYTES, MAX_RATIO,
        };
    }
    /// The step that custom protocols share.
    pub mod single {
        pub use crate::single::{NoChunk, claim_new, only_chunk, send_only_chunk};
    }
    /// Immutable content by id.
    pub mod snapshot {
        pub use crate::snapshot::*;
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
