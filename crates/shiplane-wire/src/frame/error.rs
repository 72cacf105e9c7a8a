//! Errors of chunk frames, one enum per operation.

use thiserror::Error;

use super::Refusal;
use crate::{Code, Digest};

/// Why a chunk was refused on its size field, before any of its data.
///
/// Answer with [`Refusal::Error`], then stop the stream with [`code`](Self::code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum FrameError {
    /// The peer ended the stream within the size field.
    #[error("the stream ended after {received_bytes} of the 8 bytes of a chunk's size")]
    Truncated {
        /// What arrived.
        received_bytes: usize,
    },
    /// The peer sends a chunk of another size than was agreed.
    #[error("the chunk is {len_bytes} bytes long, agreed were {agreed_bytes}")]
    WrongLen {
        /// The size field.
        len_bytes: u64,
        /// What the chunk was asked to be.
        agreed_bytes: u64,
    },
    /// The chunk is over our limit. Retrying does not help; raise the limit or send smaller chunks.
    #[error("the chunk is {len_bytes} bytes long, the limit is {max_bytes}")]
    TooLarge {
        /// The size field.
        len_bytes: u64,
        /// The limit it was checked against.
        max_bytes: u64,
    },
}

impl FrameError {
    /// The code to stop the stream with.
    pub const fn code(&self) -> Code {
        match self {
            Self::Truncated { .. } | Self::WrongLen { .. } => Code::Protocol,
            Self::TooLarge { .. } => Code::TooLarge,
        }
    }

    /// The status to answer with.
    pub const fn refusal(&self) -> Refusal {
        Refusal::Error
    }
}

/// Why a chunk that was accepted is not delivered. Nothing of it may appear under a final name.
///
/// Answer with [`refusal`](Self::refusal), then stop the stream with [`code`](Self::code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum RecvError {
    /// The peer ended the stream too early. The chunk may be asked for again.
    #[error("the stream ended after {received_bytes} of {expected_bytes} bytes")]
    Truncated {
        /// Data and digest that arrived.
        received_bytes: u64,
        /// The length of the data and the digest.
        expected_bytes: u64,
    },
    /// The peer sent more after the digest. It lies about the size or does not speak this protocol.
    #[error("there are bytes after the digest of a chunk of {len_bytes} bytes")]
    TrailingBytes {
        /// Size of the chunk.
        len_bytes: u64,
    },
    /// The data is not what the peer hashed. The chunk may be asked for again, a few times.
    #[error("the chunk's checksum is {actual}, the sender's is {expected}")]
    ChecksumMismatch {
        /// The digest the peer sent.
        expected: Digest,
        /// The digest of what arrived.
        actual: Digest,
    },
}

impl RecvError {
    /// The code to stop the stream with.
    pub const fn code(&self) -> Code {
        match self {
            Self::Truncated { .. } | Self::TrailingBytes { .. } => Code::Protocol,
            Self::ChecksumMismatch { .. } => Code::Integrity,
        }
    }

    /// The status to answer with.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Truncated { .. } | Self::TrailingBytes { .. } => Refusal::Error,
            Self::ChecksumMismatch { .. } => Refusal::ChecksumFailed,
        }
    }
}

/// Why a chunk cannot be sent. Reset the stream with [`code`](Self::code): finishing it would pass off
/// what was sent as the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum SendError {
    /// The source ended before the size that was announced: it changed meanwhile.
    #[error("the source ended after {supplied_bytes} of {len_bytes} bytes")]
    SourceShort {
        /// What the source gave.
        supplied_bytes: u64,
        /// The size that was announced.
        len_bytes: u64,
    },
    /// The source has more than the size that was announced: it changed meanwhile.
    #[error("the source gave {supplied_bytes} bytes, announced were {len_bytes}")]
    SourceLong {
        /// What the source gave up to now.
        supplied_bytes: u64,
        /// The size that was announced.
        len_bytes: u64,
    },
    /// No frame can carry so much. Cut it into chunks.
    #[error("a chunk of {len_bytes} bytes is over the limit of {max_bytes}")]
    TooLarge {
        /// The size asked for.
        len_bytes: u64,
        /// [`MAX_HASHED_LEN_BYTES`](crate::limits::MAX_HASHED_LEN_BYTES).
        max_bytes: u64,
    },
}

impl SendError {
    /// The code to reset the stream with.
    pub const fn code(&self) -> Code {
        match self {
            Self::SourceShort { .. } | Self::SourceLong { .. } => Code::SourceChanged,
            Self::TooLarge { .. } => Code::TooLarge,
        }
    }
}
