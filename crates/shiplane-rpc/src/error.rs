//! Errors of calls, sorted by whose fault they are.

use std::time::Duration;

use shiplane_transport::{ConnectionEnd, StreamError};
use shiplane_wire::Code;
use thiserror::Error;

use crate::{
    calls::{BeginError, CallId},
    codec::{DecodeError, EncodeError},
    fault::Fault,
    frame::EnvelopeError,
};

/// Why a call failed.
///
/// Unless said otherwise it is not known whether the peer did what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum CallError {
    /// Our request does not fit a frame; nothing was sent. Send the data down the lane, as a chunk.
    #[error(
        "a request of {len_bytes} bytes does not fit a call (at most {max_bytes}): send it down the lane"
    )]
    TooLarge {
        /// The length of the request.
        len_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The caller's misuse: the request's type has no encoding. Nothing was sent.
    #[error("the request cannot be encoded")]
    Unencodable,
    /// Too many calls wait on this side already; nothing was sent. Try again when some have ended.
    #[error("{max_in_flight} calls to this peer are already in flight")]
    Busy {
        /// The limit.
        max_in_flight: usize,
    },
    /// The deadline passed before the answer came. The call was cancelled at the peer.
    #[error("no answer within {budget:?}")]
    DeadlineExceeded {
        /// The whole time of the call.
        budget: Duration,
    },
    /// The peer took the request and answered that it failed. See the code.
    #[error("the peer answered: {0}")]
    Fault(#[from] Fault),
    /// The peer gave the call up without an answer. The code says why.
    #[error("the peer refused the call ({code})")]
    Refused {
        /// The peer's reason.
        code: Code,
    },
    /// The connection ended. Dial again.
    #[error("connection lost during the call: {0}")]
    ConnectionLost(ConnectionEnd),
    /// The peer's answer is invalid. Retrying does not help.
    #[error("the peer broke the protocol: {0}")]
    PeerProtocol(#[from] AnswerFault),
}

/// The reasons why an answer is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerFault {
    /// It is not one whole envelope, or one over the limit.
    #[error(transparent)]
    Frame(#[from] EnvelopeError),
    /// The envelope cannot be decoded.
    #[error("its answer cannot be read: {0}")]
    Envelope(DecodeError),
    /// It answers another call.
    #[error("it answered call {actual} instead of {expected}")]
    WrongId {
        /// The call that was made.
        expected: CallId,
        /// The call that was answered.
        actual: CallId,
    },
    /// The body is not what the method returns.
    #[error("its answer has the wrong type: {0}")]
    Body(DecodeError),
}

impl AnswerFault {
    /// The code with which the answer's stream is stopped.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Frame(EnvelopeError::Opening(refused)) => refused.code(),
            Self::Frame(_) | Self::Envelope(_) | Self::WrongId { .. } | Self::Body(_) => Code::Protocol,
        }
    }
}

impl CallError {
    /// The error of a call whose stream failed; its whole budget was `budget`.
    pub(crate) fn from_stream(error: StreamError, budget: Duration) -> Self {
        match error {
            StreamError::Reset(code) | StreamError::Stopped(code) => Self::Refused { code },
            StreamError::ConnectionLost(end) => Self::ConnectionLost(end),
            StreamError::TimedOut { .. } => Self::DeadlineExceeded { budget },
            // Both come from reading on after an end, which the client does not do.
            StreamError::TooLong { .. } => Self::Refused { code: Code::TooLarge },
            StreamError::Closed => Self::Refused { code: Code::Cancelled },
        }
    }

    pub(crate) fn from_begin(error: BeginError, budget: Duration) -> Self {
        match error {
            BeginError::Busy { max_in_flight } => Self::Busy { max_in_flight },
            BeginError::DeadlinePassed => Self::DeadlineExceeded { budget },
        }
    }
}

impl From<EncodeError> for CallError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge { len_bytes, max_bytes } => Self::TooLarge { len_bytes, max_bytes },
            EncodeError::Unsupported => Self::Unencodable,
        }
    }
}
