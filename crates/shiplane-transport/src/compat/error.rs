//! Errors of the octopii dialect where they differ from those of `shiplane/1`.

use std::{io, net::SocketAddr, time::Duration};

use thiserror::Error;

use crate::{ConnectionEnd, StreamError, TlsError};

/// Why an insecure transport could not be made.
#[derive(Debug, Error)]
pub enum OctopiiBindError {
    /// The socket could not be bound: the address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Socket {
        /// What was asked for.
        addr: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// No certificate could be made, as when the system has no randomness.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS set-up failed.
    #[error("the TLS set-up failed: {0}")]
    Tls(#[from] TlsError),
}

/// Why there is no connection to an octopii node.
#[derive(Debug, Error)]
pub enum OctopiiConnectError {
    /// No answer within the handshake timeout: nobody listens there, or a firewall drops UDP.
    #[error("no answer from {addr} within {timeout:?}")]
    TimedOut {
        /// Where we dialled.
        addr: SocketAddr,
        /// How long we waited.
        timeout: Duration,
    },
    /// What answers there does not speak the dialect. A shiplane peer is dialled by its id instead.
    #[error("{addr} does not speak the octopii dialect")]
    WrongProtocol {
        /// Where we dialled.
        addr: SocketAddr,
    },
    /// The connection ended during the handshake.
    #[error("the handshake with {addr} failed: {end}")]
    Failed {
        /// Where we dialled.
        addr: SocketAddr,
        /// What ended it.
        end: ConnectionEnd,
    },
    /// This address cannot be dialled from here, or this transport is closed.
    #[error("cannot dial {addr} from here: {reason}")]
    CannotDial {
        /// Where we should have dialled.
        addr: SocketAddr,
        /// quinn's word.
        reason: quinn::ConnectError,
    },
    /// The TLS set-up failed.
    #[error("the TLS set-up failed: {0}")]
    Tls(#[from] TlsError),
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
