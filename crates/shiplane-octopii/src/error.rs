//! Errors of the octopii dialect that differ from those of `shiplane/1`.

use shiplane_transport::StreamError;
use thiserror::Error;

/// Why a message was not sent or received.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
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
