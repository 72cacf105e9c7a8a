//! The errors that end a command.

#[cfg(feature = "octopii")]
pub(crate) mod octopii;

use std::io;
use std::path::{Path, PathBuf};

use shiplane::escape;

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
    /// `send` was interrupted: its code is void.
    #[error("interrupted")]
    SendingInterrupted,
    /// A local path of a push or a sync, found before anything is dialled.
    #[error("{}", no_source(.path, .source))]
    NoSource { path: PathBuf, source: io::Error },
}

impl Failure {
    /// Whether the program that read standard output has ended.
    pub(crate) fn is_closed_output(&self) -> bool {
        match self {
            Self::Stdout(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Job(error) if error.kind() == shiplane::ErrorKind::LocalIo => {
                let cause =
                    std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
                cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }
}

fn no_source(path: &Path, error: &io::Error) -> String {
    let path = escape(path.as_os_str().as_encoded_bytes());
    match error.kind() {
        io::ErrorKind::NotFound => format!("{path} does not exist"),
        _ => format!("cannot read {path}: {error}"),
    }
}

/// Fails if a local path is missing, before the server is dialled.
pub(crate) fn check_source(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::NoSource { path: path.to_owned(), source }),
    }
}
