//! Fetch, push and sync of files over shiplane lanes.
//!
//! Small things are negotiated by RPC; big ones travel down the lane beside it. In reading order:
//!
//! 1. [`fetch`](Fetch): request, transfer, confirm. The caller gets what the peer has.
//! 2. [`serve`](FileServer): the other side of it.
//! 3. [`transfer`]: the engine under both, which any pattern drives: one side provides, one receives.
//! 4. [`files`]: the disk of either side: scanning and reading, or planning, writing, publishing, resuming.
//! 5. [`access`]: tickets and standing peers: who may do what.
//!
//! ```text
//! client                                         server
//!   ├── call fetch.open {transfer, path} ───────────►│ may it read that? does it exist?
//!   │◄───────────────────── file | directory | root ─┤
//!   ├── records stream: wants ──────────────────────►│
//!   │◄──────────────── records stream: the manifest ─┤
//!   │◄═══════════ tagged chunks, many at a time ═════┤
//!   ├── call transfer.confirm {root, durable} ──────►│ compares with its own
//!   │◄────────────────────────────────── confirmed ──┤
//! ```
//!
//! Not here: quinn, the terminal, bincode.

#![forbid(unsafe_code)]

pub mod access;
mod fetch;
pub mod files;
mod methods;
mod serve;
pub mod transfer;

pub use fetch::{Fetch, FetchError, FetchReport, redeem};
pub use serve::FileServer;
