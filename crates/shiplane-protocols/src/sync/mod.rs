//! Bringing two versions of a dataset together: what is to be done on which side, and what was last common.
//!
//! [`plan`] is pure. It takes what both sides last had in common, and what each has now, and says what each
//! must do so that both have the same, with nothing lost that anybody wrote. Both sides come to the same
//! plan by themselves. [`scan`] says what one side has now, and reads only what its [`StatCache`] does not
//! know; [`SeenFiles`] tells whether it is still so. [`BaseStore`] remembers what was last common.

mod base;
mod codec;
mod conflict;
mod manifest;
mod plan;
mod scan;
mod sealed;
mod stat_cache;

pub use base::{BaseError, BaseKey, BaseStore};
pub use codec::{MAX_ENTRIES, MAX_MANIFEST_LEN_BYTES, ManifestError};
pub use manifest::{FileState, Manifest, Node};
pub use plan::{Action, Change, Consent, Outcome, PlanError, Side, Why, plan};
pub use scan::{ScanError, ScanOptions, Scanned, SeenFiles, scan};
pub use stat_cache::StatCache;

/// The fuzzer's entries.
pub(crate) mod fuzz {
    pub use super::base::fuzz_base;
    pub use super::codec::fuzz_manifest;
    pub use super::stat_cache::fuzz_stat_cache;
}
