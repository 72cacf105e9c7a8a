//! The errors of commands with `--insecure-octopii`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use shiplane::escape;
use shiplane_octopii::{BindError, ConnectError, RecvChunkError, SendChunkError};

/// Why a command with `--insecure-octopii` failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OctopiiFailure {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("{addr} does not speak the octopii dialect")]
    WrongProtocol { addr: SocketAddr },
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the file was not sent: {0}")]
    Send(#[from] SendChunkError),
    #[error("nothing was received: {0}")]
    Receive(#[from] RecvChunkError),
    #[error("the node ended the connection without sending anything")]
    Nothing,
    #[error("{} exists already", escape(.path.as_os_str().as_encoded_bytes()))]
    Exists { path: PathBuf },
    #[error("{node} has no address: {source}")]
    Resolve { node: String, source: io::Error },
}

impl From<ConnectError> for OctopiiFailure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::WrongProtocol { addr } => Self::WrongProtocol { addr },
            error => Self::Connect(error),
        }
    }
}
