//! The errors that end a command.

#[cfg(feature = "octopii")]
pub(crate) mod octopii;

use std::io;
use std::path::PathBuf;

use crate::settings::SettingsError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A job of the library failed.
    #[error(transparent)]
    Job(#[from] shiplane::Error),
    #[error("there is no command {name}")]
    NoSuchCommand { name: String },
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
    #[error("cannot write the ticket to {}: {source}", .path.display())]
    TicketFile { path: PathBuf, source: io::Error },
    #[error("cannot start threads, timers or signal handling: {0}")]
    Runtime(io::Error),
    #[error("cannot open standard input: {0}")]
    Stdin(io::Error),
    #[cfg(feature = "octopii")]
    #[error(transparent)]
    Octopii(#[from] octopii::OctopiiFailure),
    #[error("{findings} found something bad")]
    Unhealthy { findings: String },
    #[error("nothing was received: the answer was not yes")]
    Declined,
    #[error("interrupted")]
    Interrupted,
}
