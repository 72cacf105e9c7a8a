//! The disk operations of both sides of a transfer.
//!
//! A provider opens a [`SourceRoot`], [resolves](SourceRoot::resolve) what a peer asks for, sends what
//! [`Source::scan`] lists and reads spans from [`Source::open`].
//!
//! A receiver opens a [`Destination`], which says what to do for each entry, takes chunks into temporary
//! files, and gives them their names once they are whole and, if that was promised, durable. The journal
//! records what an interrupted run has kept; it counts again after it was verified again.
//!
//! Not here: the network, tokio, async. Every call may block on the disk.

#![forbid(unsafe_code)]

mod announced;
mod beneath;
mod buffers;
mod cuts;
mod delta;
mod destination;
mod dirs;
#[cfg(unix)]
#[doc(hidden)]
pub mod disk;
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
mod source;
mod state;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use cuts::PlacedCut;
pub use destination::{Destination, ReceiveOptions};
pub use error::{DestinationError, FaultClass, Operation, SourceError};
pub use names::{JobKey, NameRefused};
pub use plan::Plan;
pub use platform::Kind;
pub use scan::{Scan, Scanned};
pub use source::{Source, SourceFile, SourceRoot};
pub use state::Summary;
pub use writer::ChunkWriter;

/// For `shiplane-protocols` only; not part of the public API.
#[doc(hidden)]
pub mod internals {
    pub use crate::buffers::{Buffers, Scratch};
    pub use crate::cuts::{bounds_of, cut_some};
    /// Work on a few threads.
    pub mod parallel {
        pub use crate::parallel::{join, map};
    }
    pub use crate::platform::retry;
    pub use crate::publish::Place;
    pub use crate::rearrange::check_name;
    pub use crate::replace::replace_file;
    pub use crate::source::Current;
}

/// The fuzzer's entries. Each takes any bytes and panics if a law of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::journal::fuzz_journal;
}

/// What a transfer consists of, which decides where it lands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file.
    File {
        /// Its name at the provider.
        name: Vec<u8>,
    },
    /// The content of a directory that was asked for by its path.
    Directory {
        /// Its name at the provider.
        name: Vec<u8>,
    },
    /// The content of the whole directory that is served, which has no name.
    Root,
}

/// Every lock here guards plain values that are whole between any two statements, so that a panic of
/// another thread leaves nothing half-done behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
