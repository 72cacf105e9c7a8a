//! Errors of transfers, sorted by whose fault they are.

use std::time::Duration;

use shiplane_files::internals::{DestinationError, SourceError};
use shiplane_rpc::CallError;
use shiplane_transport::{PeerConnection, RecvChunkError, SendChunkError, StreamError};
use shiplane_wire::{Code, RecordError};
use thiserror::Error;

use crate::compress::DecodeSinkError;

/// Why a transfer failed. What was published stays; what was kept is resumed by the next run.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] ProtocolFault),
    /// The peer's records cannot be understood.
    #[error("the peer sent an invalid record: {0}")]
    Records(#[from] RecordError),
    /// The peer made no progress.
    #[error("the peer made no progress for {timeout:?}")]
    Silent {
        /// How long we waited.
        timeout: Duration,
    },
    /// A stream or the connection failed. Run it again: what is verified is kept.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A chunk came wrong again and again.
    #[error("chunk {index} failed verification {attempts} times: {last}")]
    Corrupt {
        /// Which.
        index: u64,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        last: Box<RecvChunkError<DestinationError>>,
    },
    /// A compressed chunk was not what was agreed on.
    #[error("cannot decompress chunk {index}: {source}")]
    Undecodable {
        /// Which.
        index: u64,
        /// Why.
        source: Box<DecodeSinkError<DestinationError>>,
    },
    /// Both sides are done, but not with the same bytes.
    #[error("the two sides computed different transfer digests")]
    TransferDigestMismatch,
    /// This side's disk.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// This side's files.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A chunk could not be delivered.
    #[error("chunk {index} was not delivered: {source}")]
    Undelivered {
        /// Which.
        index: u64,
        /// Why.
        source: SendChunkError,
    },
    /// Another push of the same to the same place has taken over.
    #[error("a newer push of the same files replaced this one")]
    TakenOver,
    /// A worker thread died, as when the runtime shuts down.
    #[error("the transfer was cancelled")]
    Abandoned,
}

/// What the peer did that a peer must not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolFault {
    /// It chose a digest that was not offered to it.
    #[error(
        "the peer chose the digest {bits:#04x}, which was not offered; update the older of the two programs"
    )]
    UnofferedDigest {
        /// What it chose.
        bits: u8,
    },
    /// It answered a fetch with a file of unknown length.
    #[error("a file of unknown length cannot be fetched")]
    UnwantedParts,
    /// It sent a chunk that was not wanted, or one twice.
    #[error("chunk {index} was not requested")]
    UnwantedChunk {
        /// Its index.
        index: u64,
    },
    /// It will not send a chunk, and names no file as the reason.
    #[error("chunk {index} was declared void for no valid reason")]
    VoidWithoutFailure {
        /// Its index.
        index: u64,
    },
    /// It named an entry that it has not sent, that is no file, or that was released.
    #[error("unknown entry {entry}")]
    UnknownEntry {
        /// Its index.
        entry: u64,
    },
    /// It wants bytes beyond a file's end, or the digest of a directory.
    #[error("the span is outside entry {entry}")]
    OutsideEntry {
        /// Its index.
        entry: u64,
    },
    /// It numbered its chunks with gaps.
    #[error("chunk {index} was requested instead of chunk {expected}")]
    ChunkOutOfOrder {
        /// Its index.
        index: u64,
        /// The next index.
        expected: u64,
    },
    /// It sent more entries than may be unreleased.
    #[error("more entries than were admitted")]
    TooManyEntries,
    /// It wants more chunks at a time than any transfer needs.
    #[error("too many requests at a time")]
    TooManyWants,
    /// Its totals are not those of its entries.
    #[error("the totals do not match the entries")]
    WrongTotals,
    /// It said something of the top directory after the entries in it.
    #[error("the top directory came after entries")]
    LateTopDirectory,
    /// It sent a digest that was not asked for.
    #[error("a digest of entry {entry} that was not requested")]
    UnwantedDigest {
        /// The entry's index.
        entry: u64,
    },
    /// It says of one digest that it is of two contents: its memory or disk is at fault.
    #[error("two blocks of entry {entry} have the same digest but different lengths")]
    TwoContents {
        /// The entry's index.
        entry: u64,
    },
    /// Its block signatures do not match the request: too many, too few, or of something else.
    #[error("the block signatures of entry {entry} do not match the request")]
    WrongSignatures {
        /// The entry's index.
        entry: u64,
    },
    /// It went on after the end, or ended in the middle.
    #[error("the records stream ended too early")]
    WrongEnd,
    /// It compressed a chunk, which was not agreed.
    #[error("chunk {index} is compressed, but compression was not agreed")]
    UnwantedCompression {
        /// Its index.
        index: u64,
    },
    /// It opened a second stream of records.
    #[error("a second records stream")]
    SecondRecords,
}

impl TransferError {
    /// A stream that failed because the connection did is better told as that.
    pub(crate) fn explained(self, connection: &PeerConnection) -> Self {
        match (self, connection.end()) {
            (Self::Stream(_), Some(end)) => StreamError::ConnectionLost(end).into(),
            (error, _) => error,
        }
    }

    /// Whether it says no more than that the peer does not go on: why, the peer may know.
    pub(crate) fn is_hang_up(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Undelivered { .. } | Self::Silent { .. })
    }

    /// What to reset the transfer's streams with.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Protocol(ProtocolFault::TwoContents { .. }) => Code::Integrity,
            Self::Protocol(_) => Code::Protocol,
            Self::Records(error) => error.code(),
            Self::Silent { .. } => Code::Timeout,
            Self::Corrupt { .. } | Self::TransferDigestMismatch => Code::Integrity,
            Self::Undecodable { source, .. } => match **source {
                DecodeSinkError::Bomb { .. } | DecodeSinkError::TooLong { .. } => Code::TooLarge,
                _ => Code::Protocol,
            },
            Self::Destination(DestinationError::NameRefused { .. }) => Code::PathRefused,
            Self::Destination(_) => Code::SinkFailed,
            Self::Source(SourceError::Changed { .. }) => Code::SourceChanged,
            Self::Source(_) => Code::SourceFailed,
            Self::Stream(_)
            | Self::Call(_)
            | Self::Undelivered { .. }
            | Self::TakenOver
            | Self::Abandoned => Code::Cancelled,
        }
    }
}
