//! Everything that can end a command before it is done, with the words for it.

#[cfg(feature = "octopii")]
pub(crate) mod octopii;

use std::io;
use std::path::PathBuf;

use crate::settings::SettingsError;

/// Everything that ends a command before it is done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What the library says of what it was asked for.
    #[error(transparent)]
    Job(#[from] shiplane::Error),
    #[error("there is no command {name}")]
    NoSuchCommand { name: String },
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    #[error("cannot write the ticket to {}: {source}", .path.display())]
    TicketFile { path: PathBuf, source: io::Error },
    #[error("the system gives no threads, timers or signals: {0}")]
    Runtime(io::Error),
    #[error("cannot read standard input into a temporary file: {0}")]
    Spool(io::Error),
    #[cfg(feature = "octopii")]
    #[error(transparent)]
    Octopii(#[from] octopii::OctopiiFailure),
    #[error("interrupted")]
    Interrupted,
}
