//! Everything that can end a command in the octopii dialect.

use std::io;
use std::path::PathBuf;

use shiplane::escape;
use shiplane_octopii::{OctopiiBindError, OctopiiConnectError, RecvChunkError, SendChunkError};

/// Everything that ends a command with `--insecure-octopii` before it is done, but for what can end any command.
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
