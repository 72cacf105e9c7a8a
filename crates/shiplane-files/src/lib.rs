//! The disk operations of both sides of a transfer.
//!
//! A provider opens a `SourceRoot`, resolves what a peer asks for, sends what `Source::scan` lists and reads spans from
//! `Source::open`.
//!
//! A receiver opens a `Destination`, which says what to do for each entry, takes chunks into temporary
//! files, and gives them their names once they are whole and, if that was promised, durable. The journal
//! records what an interrupted run has kept; it counts again after it was verified again.
//!
//! `sync` is one side of a two-way synchronisation on its disk.
//!
//! All of it is part of the engine of shiplane-protocols, and public with the feature `internals` alone: a program fetches,
//! pushes and syncs by the crate `shiplane`.
//!
//! Not here: the network, tokio, async. Every call may block on the disk.

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

mod blocks;
mod buffers;
mod comparison;
mod deletion;
mod delta;
mod destination;
mod digest_cache;
mod error;
mod existing;
mod filters;
mod finish;
mod hard_links;
mod hash;
mod in_parts;
mod journal;
mod journal_state;
mod lay_hard_links;
mod left_out;
mod leftovers;
mod plan;
mod policy;
mod publish;
mod rearrange;
mod record;
mod resolve;
mod resume;
mod scan;
mod shape;
mod site;
mod source;
mod sparse;
mod state;
mod store;
mod surplus;
mod sync;

use std::sync::{Mutex, MutexGuard, PoisonError};

use shiplane_platform::internals::{
    self as platform, attributes, dirs, handles, made_up, names, own_file, parallel, path_list,
};

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use shiplane_platform::internals::{Input, Kind, disk_rates, identity_of, retry};
    /// Where a simulation comes between us and the disk.
    #[cfg(unix)]
    pub mod disk {
        pub use shiplane_platform::internals::disk::Change;
        #[cfg(feature = "simulation")]
        pub use shiplane_platform::internals::disk::{Disk, simulate};
    }
    pub use crate::{
        attributes::{AttributeKind, HAS_OWNERS},
        blocks::{Block, bounds_of, split_buffer},
        buffers::{Buffers, CountedMemory, Scratch, SharedMemory},
        comparison::{Comparison, Difference, Different},
        destination::Destination,
        digest_cache::DigestCache,
        error::{DestinationError, FaultClass, Operation, SourceError},
        existing::{Existing, Suffix, SuffixRefused},
        filters::{FilterRules, Filters, FiltersError, MAX_IGNORE_FILES_BYTES},
        hash::{READ_LEN_BYTES, hash_parts},
        left_out::LeftOut,
        leftovers::{CleanReport, Leftover, clean},
        names::{JobKey, NameRefused},
        own_file::{EditLock, OwnFile, read_file, replace_file},
        plan::Plan,
        policy::{Admission, FileEvent, LinkPolicy, Policy, RenameMode},
        resolve::check_name,
        scan::{Scan, Scanned, TopDirectory},
        shape::Shape,
        site::ReceiveOptions,
        source::{Source, SourceFile, SourceRoot},
        state::Summary,
        store::ChunkWriter,
        surplus::is_mass_deletion,
    };
    /// One side of a two-way synchronisation on its disk.
    pub mod sync {
        pub use crate::sync::*;
    }
}

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::journal::fuzz_journal;
    pub use crate::sync::fuzz::{fuzz_base, fuzz_changes, fuzz_manifest, fuzz_stat_cache};
}

/// Every lock here guards plain values that are whole between any two statements, so that a panic of
/// another thread leaves nothing half-done behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
