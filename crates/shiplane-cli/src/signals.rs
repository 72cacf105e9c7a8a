//! Handles SIGINT and SIGTERM: the first signal cancels the job, the second ends the program.

use std::io;
use std::process;
use std::thread;

use tokio_util::sync::CancellationToken;

use crate::exit::INTERRUPTED;
use crate::logging::print_line;

/// Watches from here on: the first signal prints `at_first` and cancels the token, the second ends
/// the program with exit code 130.
///
/// On a thread of its own: the second signal must work even while the other one hangs in a disk
/// that does not answer. Not to be called from within a runtime.
pub(crate) fn watch(at_first: &'static str) -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(signals.next());
        print_line(at_first);
        cancelled.cancel();
        runtime.block_on(signals.next());
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
