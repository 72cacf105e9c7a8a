//! Handles SIGINT and SIGTERM: the first signal cancels the job, the second ends the program.

use std::io;
use std::process;
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::exit::INTERRUPTED;
use crate::logging::print_line;

/// Watches from here on: the first signal prints `at_first` and cancels the token. The second, or `limit` after the
/// first, ends the program with exit code 130.
///
/// On a thread of its own: that must work even while the other one hangs in a disk that does not answer, or in
/// standard error that is not read. Not to be called from within a runtime.
pub(crate) fn watch(at_first: &'static str, limit: Duration) -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(signals.next());
        cancelled.cancel();
        // It may never end.
        let _ = thread::Builder::new().spawn(move || print_line(at_first));
        let _ = runtime.block_on(async { tokio::time::timeout(limit, signals.next()).await });
        process::exit(INTERRUPTED.into());
    })?;
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // An error means that no handler can be set: then the system's own ends the program.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a client's job may take to end: it closes files and its connection within half of it.
pub(crate) const JOB_LIMIT: Duration = Duration::from_secs(2);

/// A server has its own limit for the transfers that it finishes.
pub(crate) const DRAIN_LIMIT: Duration = Duration::MAX;
