//! Ctrl-C, SIGTERM and a closed terminal become an error that unwinds, so that every guard on the way removes its
//! directory and kills its child.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result, ensure};
use signal_hook::{consts, flag};

/// Starts listening. From here on a long loop must call [`check`] or Ctrl-C goes unheard.
pub fn install() -> Result<()> {
    let mut listening = SIGNALS.iter().map(|signal| flag::register(*signal, Arc::clone(&FLAG)).map(drop));
    listening.try_for_each(|listens| listens).context("cannot listen for Ctrl-C")
}

/// Fails once the user has asked us to stop.
pub fn check() -> Result<()> {
    ensure!(!FLAG.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Prints a failure and gives the code to exit with.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {failure:#}");
    // Not told by the failure itself: a child that died of the same Ctrl-C may report first.
    ExitCode::from(if check().is_err() { 130 } else { 1 })
}

const SIGNALS: &[i32] = &[
    consts::SIGINT,
    consts::SIGTERM,
    #[cfg(unix)]
    consts::SIGHUP,
];

static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
