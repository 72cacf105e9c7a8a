//! Log lines and messages go to standard error, and never across a progress bar.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;

/// Starts logging: warnings always, more with each `-v`. `RUST_LOG`, if set, has the last word.
pub(crate) fn init(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "warn,shiplane=info",
        2 => "info,shiplane=debug",
        _ => "debug,shiplane=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| AroundTheBar)
        .init();
}

/// Makes log lines and messages step around this bar from now on.
pub(crate) fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Writes a line to standard error, with the bar out of the way. That standard error is closed is
/// no reason to stop working.
pub(crate) fn print_line(line: &str) {
    let _ = AroundTheBar.write_all(format!("{line}\n").as_bytes());
}

struct AroundTheBar;

impl Write for AroundTheBar {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || io::stderr().write_all(text).map(|()| text.len());
        bar.map_or_else(write, |bar| bar.suspend(write))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
