//! The disk operations of both sides of a transfer.
//!
//! A provider opens a `SourceRoot`, resolves what a peer asks for, sends what `Source::scan` lists and reads spans from
//! `Source::open`.
//!
//! A receiver opens a `Destination`, which says what to do for each entry, takes chunks into temporary
//! files, and gives them their names once they are whole and, if that was promised, durable. The journal
//! records what an interrupted run has kept; it counts again after it was verified again.
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

mod announced;
mod beneath;
mod buffers;
mod cuts;
mod delta;
mod destination;
mod dirs;
#[cfg(unix)]
mod disk;
mod error;
mod finish;
mod handles;
mod journal;
mod landing;
mod leftovers;
mod names;
mod parallel;
mod plan;
mod platform;
mod publish;
mod ranges;
mod rearrange;
mod replace;
mod resume;
mod scan;
mod shape;
mod source;
mod state;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        buffers::{Buffers, Scratch},
        cuts::{PlacedCut, bounds_of, cut_some},
        destination::{Destination, ReceiveOptions},
        error::{DestinationError, FaultClass, Operation, SourceError},
        names::{JobKey, NameRefused},
        plan::Plan,
        platform::{Kind, retry},
        publish::Place,
        rearrange::check_name,
        replace::replace_file,
        scan::{Scan, Scanned},
        shape::Shape,
        source::{Current, Source, SourceFile, SourceRoot},
        state::Summary,
        writer::ChunkWriter,
    };
    /// Where a simulation comes between us and the disk.
    #[cfg(unix)]
    pub mod disk {
        pub use crate::disk::{Change, Disk, simulate};
    }
    /// Work on a few threads.
    pub mod parallel {
        pub use crate::parallel::{join, map};
    }
}

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::journal::fuzz_journal;
}

/// Every lock here guards plain values that are whole between any two statements, so that a panic of
/// another thread leaves nothing half-done behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
