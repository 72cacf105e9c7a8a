//! The tokio runtime of commands that use the network.

use std::future::Future;
use std::io;

/// Runs `work` to its end on one thread.
///
/// A QUIC connection is driven by one task at a time, and on few cores handing it from thread to
/// thread costs more than a second thread brings: measured, one thread moves about three times as
/// much. Work that waits for a disk has threads of its own, and so has hashing where cores are idle.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A thread that hangs in a disk must not keep a program that is done.
    runtime.shutdown_background();
    Ok(result)
}
