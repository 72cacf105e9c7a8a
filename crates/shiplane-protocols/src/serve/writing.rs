//! What a server that may be written to keeps.

use std::hash::RandomState;

use shiplane_files::internals::LinkPolicy;
use tokio_util::sync::CancellationToken;

use super::{
    concurrency::{ConcurrencyLimit, MAX_PUSHES},
    registry::{Answer, Registry, Remembered, Session, gone},
    targets::{Space, Targets},
};
use crate::methods::PushDone;

/// How much peers may push.
#[derive(Debug, Clone)]
pub struct WriteLimits {
    /// The sum of the sizes of one push; `None` is as much as the disk takes.
    pub max_transfer_bytes: Option<u64>,
    /// Which symbolic links of a peer are created: by default only those that stay inside the pushed tree.
    pub links: LinkPolicy,
    /// Whether owners, access lists and extended attributes of a peer's files are taken: by default not.
    pub attributes: bool,
    /// Pushes of one peer at a time. Further ones are refused as `Busy`.
    pub max_pushes_per_peer: usize,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self {
            max_transfer_bytes: None,
            links: LinkPolicy::Inside,
            attributes: false,
            max_pushes_per_peer: MAX_PUSHES_PER_PEER,
        }
    }
}

/// What a server that may be written to keeps.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) limits: WriteLimits,
    pub(super) pushes: Registry<PushSession>,
    /// Hashes requests, to tell them apart without keeping them. A peer cannot find two with the same hash.
    pub(super) key: RandomState,
    pub(super) targets: Targets,
    pub(super) space: Space,
}

/// Shared by the calls and the task that receives a push.
#[derive(Debug)]
pub(super) struct PushSession {
    pub(super) request: u64,
    pub(super) outcome: Answer<PushDone>,
    /// The peer knows the outcome.
    pub(super) confirmed: CancellationToken,
}

impl Session for PushSession {
    fn ended(&self) {
        self.outcome.give(Err(gone("the transfer was cancelled")));
    }
}

impl Writing {
    pub(super) fn new(limits: WriteLimits) -> Self {
        let pushes =
            Registry::new(ConcurrencyLimit::new(MAX_PUSHES, limits.max_pushes_per_peer), MAX_REMEMBERED);
        let (targets, space) = (Targets::default(), Space::default());
        Self { limits, pushes, key: RandomState::new(), targets, space }
    }
}

/// 32: one machine that pushes many things side by side, and half of what the server runs in all.
const MAX_PUSHES_PER_PEER: usize = 32;

/// Pushes that can still be asked for: a peer does so right after the end, or after it has connected again. 4,096, at
/// some 300 bytes each: a crowd of peers that come once and never again keeps no more than that.
const MAX_REMEMBERED: Remembered = Remembered { per_peer: 256, in_all: 4096 };
