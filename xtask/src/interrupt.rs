//! Ctrl-C and SIGTERM become an error that unwinds, so that every guard on the way removes its
//! directory and kills its child.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};

/// Starts listening. From here on a long loop must call [`check`] or Ctrl-C goes unheard.
pub(crate) fn install() -> Result<()> {
    let flag = FLAG.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot listen for Ctrl-C")?;
    }
    Ok(())
}

/// Fails once the user has asked us to stop.
pub(crate) fn check() -> Result<()> {
    match FLAG.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => bail!("interrupted"),
        Some(_) | None => Ok(()),
    }
}

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
