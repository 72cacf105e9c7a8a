//! The disk's side of a sync: what a dataset consists of, what it had in common with a peer's, and what is to be done
//! so that both are the same. The other side and what travels between them is known elsewhere.
//!
//! In reading order:
//!
//! 1. [`scan`](fn@scan) lists what is here, and reads only what its [`StatCache`] does not know; [`SeenFiles`] tells
//!    whether it is still so. [`Manifest`] is that list, [`Changes`] what has changed of it.
//! 2. [`plan`](fn@plan) is pure: what is to be done on both sides, and why; [`plan_one_way`] is the same in one direction. [`SyncState`] remembers what was common.
//! 3. [`Dataset`]: a directory with its list, its base and its lock. [`Prepared`]: one side's part of the plan, step by step.
//! 4. [`watch`](fn@watch) tells when there may be something to sync again, and where: [`Relisting`] looks only there.

mod base;
mod changes;
mod codec;
mod conflict;
mod dataset;
mod error;
mod left;
mod manifest;
mod plan;
mod policy;
mod scan;
mod spelling;
mod stat_cache;
mod watch;
mod work;

pub use base::{BaseError, SyncState};
pub use changes::{Changes, ChangesError};
pub use codec::{MAX_ENTRIES, MAX_MANIFEST_LEN_BYTES, ManifestError};
pub use dataset::{Agreed, Dataset, KeepAlive, Site, SiteOptions, View};
pub use error::DatasetError;
pub use left::UnresolvedReason;
pub use manifest::{FileState, LinkState, Manifest, Node, Stamp};
pub use plan::{Action, Change, Consent, OneWay, Outcome, PlanError, Side, Why, plan, plan_one_way};
pub use scan::{GoOn, ScanError, ScanOptions, Scanned, SeenFiles, scan};
pub use shiplane_platform::internals::{Unwatched, WatchLimit};
pub use stat_cache::StatCache;
pub use watch::{DatasetWatch, Relisting, watch};
pub use work::Prepared;

/// The fuzzer's entries.
pub(crate) mod fuzz {
    pub use super::base::fuzz_base;
    pub use super::changes::fuzz_changes;
    pub use super::codec::fuzz_manifest;
    pub use super::stat_cache::fuzz_stat_cache;
}
