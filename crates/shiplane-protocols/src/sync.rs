//! Two-way sync of a local directory with one of a peer. No edit is lost.
//!
//! [`synchronise`] does it; a [`FileServer::syncing`](crate::serve::FileServer::syncing) is the other side. Each side
//! remembers what both had after the last sync, the *base*, so that what is missing on one side is known to be
//! deleted there and not created here.
//!
//! ```text
//! asking                                          asked
//!   ├── call sync.open ───────────────────────────►│ locks its dataset, lists it
//!   │ lists its own meanwhile; a short list goes    │
//!   │ with the first call instead                   │
//!   ├── call sync.compare {digest, bases} ────────►│ compares
//!   │◄─────────────────── same | differs {changes} ─┤ the same: that was all
//!   │ plans, and does what needs nothing from there │
//!   ├── call sync.start {changes} ────────────────►│ makes the same plan, does the same
//!   │◄───────────────────────────── ready {merged} ─┤ if both mean the same result
//!   ├══ what differs ══════════════════════════════►│ both ways at once, by the engine of
//!   │◄══════════════════════════════ what differs ══┤ fetch and push
//!   │ removes what was deleted there                │ removes what was deleted here
//!   ├── call sync.alive, every ten seconds ───────►│ a caller that is silent has left it
//!   ├── call sync.settle {left alone} ────────────►│ remembers the new base
//!   │◄─────────────────── {left alone, base} ───────┤
//!   │ remembers it, too                             │
//! ```
//!
//! Neither side obeys the other. Both compute the plan from the base and the two lists, and each executes its own part. So
//! a lying peer can only cause what its list says, within the limits of the user's consent and the base. Immediately before
//! a side replaces or removes a file, it checks the file again: a file that was edited meanwhile stays, and the next sync decides about it. In reading order:
//!
//! 1. `shiplane_files::internals::sync`: what one side lists, remembers, plans and does on its disk.
//! 2. `exchange`: sends the lists and the files.
//! 3. `watch`: waits until there may be something to sync.
//! 4. `job`: what a caller asks for and gets. `run`: the side that asks; `serve::sync` is the other one. `messages`: what they say to each other.

mod error;
pub(crate) mod exchange;
mod job;
pub(crate) mod memory;
pub(crate) mod messages;
mod run;
pub(crate) mod watch;

pub use crate::methods::Step;
pub use error::SyncError;
pub use job::{LeftPath, SyncEvent, SyncEventFn, SyncJob, SyncReport};
pub use messages::{SyncBody, SyncCompare, SyncDirection, SyncList, SyncRequest, SyncResponse};
pub use run::synchronise;
pub use watch::{Noticed, PeerWatch};
