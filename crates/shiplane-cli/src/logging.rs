//! Writes log lines and messages to standard error without disturbing the progress bar.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogFormat;

/// Starts logging: our warnings unless `is_quiet`, more with each `-v`. `RUST_LOG`, as in `info,shiplane=debug`, replaces
/// both.
///
/// As JSON, messages are log lines too, with the target [`MESSAGES`].
pub(crate) fn init(verbose: u8, is_quiet: bool, format: LogFormat) {
    let (others, ours) = match verbose {
        0 if is_quiet => (Level::ERROR, Level::ERROR),
        0 => (Level::ERROR, Level::WARN),
        1 => (Level::WARN, Level::INFO),
        2 => (Level::INFO, Level::DEBUG),
        _ => (Level::DEBUG, Level::TRACE),
    };
    let asked = env::var("RUST_LOG").ok().and_then(|filter| filter.parse().ok());
    let filter: Targets =
        asked.unwrap_or_else(|| Targets::new().with_default(others).with_target("shiplane", ours));
    let lines = tracing_subscriber::fmt::layer().with_writer(|| AroundTheBar);
    match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(has_colors());
            tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        }
        LogFormat::Json => {
            let filter = filter.with_target(MESSAGES, Level::INFO);
            let lines = lines.json().with_ansi(false);
            tracing_subscriber::registry().with(lines.with_filter(filter)).init();
            IS_JSON.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether standard error is a terminal that takes colours, and whose user wants them (`NO_COLOR`, no-color.org).
pub(crate) fn has_colors() -> bool {
    is_capable() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard error is a terminal on which a line can be drawn again.
pub(crate) fn is_capable() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Makes log lines and messages step around this bar from now on.
pub(crate) fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Writes a line to standard error, with the bar out of the way. That standard error is closed is
/// no reason to stop working.
pub(crate) fn print_line(line: &str) {
    if IS_JSON.load(Ordering::Relaxed) {
        return match line.split_once(": ") {
            Some(("error", message)) => tracing::error!(target: MESSAGES, "{message}"),
            Some(("warning", message)) => tracing::warn!(target: MESSAGES, "{message}"),
            _ => tracing::info!(target: MESSAGES, "{line}"),
        };
    }
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

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The target of what is a message to the user in text.
const MESSAGES: &str = "shiplane::message";

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);
