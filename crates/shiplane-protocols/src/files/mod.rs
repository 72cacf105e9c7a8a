//! The local disk of a transfer, on both sides. All of it blocks: call it from blocking threads.
//!
//! A provider opens a [`SourceRoot`], [resolves](SourceRoot::resolve) what a peer asks for, sends what
//! [`Source::scan`] lists and reads spans from [`Source::open`].
//!
//! A receiver opens a [`Destination`], which says what to do for each entry, takes chunks into temporary
//! files, and gives them their names once they are whole and, if that was promised, durable. What a run
//! that was cut off has kept is in a journal, and counts again after it was verified again.

mod announced;
mod beneath;
mod buffers;
mod cuts;
mod delta;
mod destination;
mod dirs;
mod error;
mod finish;
mod handles;
mod journal;
mod landing;
mod leftovers;
mod names;
pub(crate) mod parallel;
mod plan;
mod platform;
mod publish;
mod ranges;
mod rearrange;
mod resume;
mod scan;
mod source;
mod state;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use buffers::Buffers;
pub use cuts::PlacedCut;
pub(crate) use cuts::{bounds_of, cut};
pub use destination::{Destination, ReceiveOptions};
pub use error::{DestinationError, FaultClass, Operation, SourceError};
#[doc(hidden)]
pub use journal::fuzz_journal;
pub use names::{JobKey, NameRefused};
pub use plan::Plan;
pub use platform::Kind;
pub(crate) use platform::retry;
pub(crate) use publish::Place;
pub(crate) use rearrange::check_name;
pub use scan::{Scan, Scanned};
pub(crate) use source::Current;
pub use source::{Source, SourceFile, SourceRoot};
pub use state::Summary;
pub use writer::ChunkWriter;

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
