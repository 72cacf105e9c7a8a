//! System calls on files and directories: one module for each platform, and the hook by which a simulation fails them.
//!
//! All of it is part of the engine of shiplane-files, and public with the feature `internals` alone.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "its parts are public with the feature `internals` alone"
    )
)]

mod calls;
#[cfg(unix)]
mod disk;
mod measure;
mod watch;

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::calls::*;
    pub use crate::measure::{DiskRates, disk_rates};
    pub use crate::watch::{Excludes, TreeWatch, Unwatched, WatchLimit, WatchRules};
    /// Where a simulation comes between us and the disk.
    #[cfg(unix)]
    pub mod disk {
        pub use crate::disk::*;
    }
}
