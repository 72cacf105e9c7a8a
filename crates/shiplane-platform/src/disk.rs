//! The hook by which a simulation fails disk calls.
//!
//! Every call of the receiving side that changes a file or a directory, or makes it durable, says so here first.
//! In a simulation it may then fail as disks do; and who knows what was synced knows what a power cut leaves.

#[cfg(feature = "simulation")]
use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
#[cfg(feature = "simulation")]
use std::os::fd::BorrowedFd;
#[cfg(feature = "simulation")]
use std::sync::Arc;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// To a directory: a name appears, or stands for something else.
    Name,
    /// To a directory: a name vanishes.
    Unname,
    /// To a file: these bytes are written at that offset.
    Write {
        /// From there on.
        offset_bytes: u64,
        /// All of them.
        data: &'a [u8],
    },
    /// To a file: it gets another size.
    Resize,
    /// To a file or a directory: its mode or its time.
    Metadata,
    /// A file or a directory is made durable.
    Sync,
    /// So is everything on its file system.
    SyncAll,
}

/// A disk that fails.
#[cfg(feature = "simulation")]
pub trait Disk: Send + Sync {
    /// Before a change to the open file or directory `at`.
    ///
    /// # Errors
    /// What the call fails with; nothing is done then but what this has done itself.
    fn before(&self, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()>;

    /// A sync has succeeded.
    fn synced(&self, change: Change<'_>, at: BorrowedFd<'_>);
}

/// From now on what this thread does asks `disk` first; `None` ends that. Work that would be done on several threads is
/// done on this one.
#[cfg(feature = "simulation")]
pub fn simulate(disk: Option<Arc<dyn Disk>>) {
    DISK.set(disk);
}

/// Whether this thread asks a simulated disk.
pub fn is_simulated() -> bool {
    #[cfg(feature = "simulation")]
    return DISK.with_borrow(Option::is_some);
    #[cfg(not(feature = "simulation"))]
    false
}

/// Says what is about to be done.
pub fn before(change: Change<'_>, at: &impl AsFd) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    if let Some(disk) = simulated() {
        return disk.before(change, at.as_fd());
    }
    let _ = (change, at);
    Ok(())
}

/// Makes durable what `sync` makes durable, between the two calls of the simulation.
pub fn synced(change: Change<'_>, at: &impl AsFd, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    before(change, at)?;
    sync()?;
    #[cfg(feature = "simulation")]
    if let Some(disk) = simulated() {
        disk.synced(change, at.as_fd());
    }
    Ok(())
}

#[cfg(feature = "simulation")]
fn simulated() -> Option<Arc<dyn Disk>> {
    DISK.with_borrow(Clone::clone)
}

#[cfg(feature = "simulation")]
thread_local! {
    static DISK: RefCell<Option<Arc<dyn Disk>>> = const { RefCell::new(None) };
}
