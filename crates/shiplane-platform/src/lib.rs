//! System calls on files and directories, one module for each platform, and what stands right above them: names,
//! attributes, open directories and files, small files of our own, inputs that can be read once, files that the kernel makes
//! up, work on several threads, patterns of names, small collections, long lists, and the hook by which a simulation fails the calls.
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

mod attributes;
mod calls;
mod dirs;
#[cfg(unix)]
mod disk;
mod handles;
mod input;
mod made_up;
mod measure;
mod names;
mod own_file;
mod parallel;
mod path_list;
mod patterns;
mod ranges;
mod recent;
mod sealed;
mod space;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What each lock here guards is whole whenever its holder could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::calls::*;
    /// Owners, access lists and extended attributes.
    pub mod attributes {
        pub use crate::attributes::*;
    }
    /// File names.
    pub mod names {
        pub use crate::names::*;
    }
    /// Open directories.
    pub mod dirs {
        pub use crate::dirs::*;
    }
    /// Open files.
    pub mod handles {
        pub use crate::handles::*;
    }
    /// Files that the kernel makes up.
    pub mod made_up {
        pub use crate::made_up::*;
    }
    /// Small files of our own.
    pub mod own_file {
        pub use crate::own_file::*;
    }
    /// Work on a few threads.
    pub mod parallel {
        pub use crate::parallel::*;
    }
    /// Lists of paths.
    pub mod path_list {
        pub use crate::path_list::*;
    }
    /// Files of our own that are sealed by a digest.
    pub mod sealed {
        pub use crate::sealed::*;
    }
    pub use crate::input::{Input, InputParts, Part};
    pub use crate::measure::{DiskRates, disk_rates, forget_cached};
    pub use crate::watch::{
        ChangedPaths, Excludes, Governs, TreeWatch, Unwatched, WatchLimit, WatchRules, join,
    };
    pub use crate::{
        patterns::Patterns,
        ranges::RangeSet,
        recent::Recent,
        space::{Need, Needs},
    };
    /// Where a simulation comes between us and the disk.
    #[cfg(unix)]
    pub mod disk {
        pub use crate::disk::*;
    }
}
