//! Errors of the octopii dialect that differ from those of `shiplane/1`.

use std::net::SocketAddr;

use shiplane_transport::{BindError, ConnectError, StreamError};
use thiserror::Error;

/// Why an insecure transport could not be made.
#[derive(Debug, Error)]
pub enum OctopiiBindError {
    /// No certificate could be made, as when the system has no randomness.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The socket could not be bound, or the TLS set-up failed.
    #[error(transparent)]
    Transport(#[from] BindError),
}

/// Why there is no connection to an octopii node.
#[derive(Debug, Error)]
pub enum OctopiiConnectError {
    /// What answers there does not speak the dialect. A shiplane peer is dialled by its id instead.
    #[error("{addr} does not speak the octopii dialect")]
    WrongProtocol {
        /// Where we dialled.
        addr: SocketAddr,
    },
    /// No answer, a handshake that failed, or an address that cannot be dialled from here.
    #[error(transparent)]
    Transport(ConnectError),
}

impl From<ConnectError> for OctopiiConnectError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::WrongProtocol { addr } => Self::WrongProtocol { addr },
            error => Self::Transport(error),
        }
    }
}

/// Why a message was not sent or received.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OctopiiMessageError {
    /// Over the limit for messages, ours or the peer's: send it as a chunk. Nothing was allocated.
    #[error("a message of {len_bytes} bytes is over the limit of {max_bytes}: send it as a chunk")]
    TooLarge {
        /// The message's length.
        len_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The peer ended its message early. The next one is unharmed.
    #[error("the peer's message ended after {received_bytes} of {expected_bytes} bytes")]
    Truncated {
        /// What arrived.
        received_bytes: u64,
        /// What was announced.
        expected_bytes: u64,
    },
    /// The stream failed, the peer sent more than it announced ([`StreamError::TooLong`]), or the
    /// connection is lost. Whether the peer took what we sent is unknown.
    #[error(transparent)]
    Stream(#[from] StreamError),
}
