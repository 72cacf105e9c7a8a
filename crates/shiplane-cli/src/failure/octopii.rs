//! The errors of commands with `--insecure-octopii`.

use std::io;
use std::path::PathBuf;

use shiplane::escape;
use shiplane_octopii::{OctopiiBindError, OctopiiConnectError, RecvChunkError, SendChunkError};

/// Why a command with `--insecure-octopii` failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OctopiiFailure {
    #[error(transparent)]
    Bind(#[from] OctopiiBindError),
    #[error(transparent)]
    Connect(#[from] OctopiiConnectError),
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
