//! Ctrl-C, SIGTERM and a closed terminal become an error that unwinds, so that every guard on the way removes its
//! directory and kills its child.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts;

/// Starts listening. From here on a long loop must call [`check`] or Ctrl-C goes unheard.
pub fn install() -> Result<()> {
    let flag = FLAG.get_or_init(Arc::default);
    for signal in SIGNALS {
        signal_hook::flag::register(*signal, Arc::clone(flag)).context("cannot listen for Ctrl-C")?;
    }
    Ok(())
}

/// Fails once the user has asked us to stop.
pub fn check() -> Result<()> {
    match FLAG.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => bail!("interrupted"),
        Some(_) | None => Ok(()),
    }
}

/// Prints a failure and gives the code to exit with.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {failure:#}");
    // Not told by the failure itself: a child that died of the same Ctrl-C may report first.
    ExitCode::from(if check().is_err() { 130 } else { 1 })
}

#[cfg(unix)]
const SIGNALS: &[i32] = &[consts::SIGINT, consts::SIGTERM, consts::SIGHUP];

#[cfg(not(unix))]
const SIGNALS: &[i32] = &[consts::SIGINT, consts::SIGTERM];

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
