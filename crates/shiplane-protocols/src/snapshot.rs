//! Snapshots by id: a store of immutable content, its server, and the client.
//!
//! ```text
//! client                                          server
//!   ├── call snapshot.open {transfer, id} ───────────►│ is it in the store?
//!   │◄──────────────────────────── {size, digest} ────┤
//!   │◄══ tagged chunk (transfer, 0) ══════════════════┤ the stored content
//!   ├── status 0: has that size and that digest ─────►│
//! ```
//!
//! The client's status is the confirmation: it is sent after size and digest have been compared with what
//! the server had announced. The id of the transfer is the client's, claimed before it asks, so that any
//! number of requests on one connection each get their own.

mod client;
mod server;
mod store;

pub use client::{SnapshotError, SnapshotOptions, request_snapshot, request_snapshot_to_path};
pub use server::SnapshotServer;
pub use store::{AddSnapshotError, MAX_ID_LEN_BYTES, SnapshotInfo, SnapshotStore};

use serde::{Deserialize, Serialize};
use shiplane_rpc::Method;

/// Asks for a snapshot.
const OPEN: Method<Open, Opened> = Method::new("snapshot.open");

/// The body of [`OPEN`].
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    /// The caller's, who has claimed it.
    transfer: [u8; 16],
    id: String,
}

/// The chunk comes, and will be this.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    len_bytes: u64,
    digest: [u8; 32],
}
