//! Everything that can end a command before it is done, with the words for it.

use std::io;
use std::path::PathBuf;

use shiplane::escape;
use shiplane_transport::compat::{OctopiiBindError, OctopiiConnectError};
use shiplane_transport::{RecvChunkError, SendChunkError};

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
    #[error("{host} has no address: {source}")]
    Resolve { host: String, source: io::Error },
    #[error(transparent)]
    OctopiiBind(OctopiiBindError),
    #[error(transparent)]
    OctopiiConnect(OctopiiConnectError),
    #[error("the file was not sent: {0}")]
    OctopiiSend(SendChunkError),
    #[error("nothing was received: {0}")]
    OctopiiReceive(#[from] RecvChunkError),
    #[error("the node ended the connection without sending anything")]
    OctopiiNothing,
    #[error("{} exists already", escape(.path.as_os_str().as_encoded_bytes()))]
    OctopiiExists { path: PathBuf },
    #[error("interrupted")]
    Interrupted,
}
