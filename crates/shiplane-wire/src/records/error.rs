//! Errors of records, when reading and before sending.

use thiserror::Error;

use crate::{Code, LinkTargetRefused, PathRefused};

/// What is wrong with a record.
///
/// From a [`RecordReader`](crate::RecordReader) it is the peer's fault and ends the transfer: reset the
/// stream with [`code`](Self::code). From `encode` it is the caller's: the record was not written, and the
/// peer would have refused it for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum RecordError {
    /// The stream ended within a record.
    #[error("the stream ended {received_bytes} bytes into a record")]
    Truncated {
        /// What arrived of the record, its header included.
        received_bytes: usize,
    },
    /// No record of this direction has the type: the peer is newer than we are, or broken.
    #[error("the record type {tag} is unknown")]
    UnknownType {
        /// The type byte.
        tag: u8,
    },
    /// The fields and the length of the body contradict each other.
    #[error("the body of a record of type {tag} cannot be {len_bytes} bytes long")]
    WrongBodyLen {
        /// The type byte.
        tag: u8,
        /// The length in the record's header.
        len_bytes: u32,
    },
    /// An enumerated field has a value that means nothing.
    #[error("the {field} {value} is unknown")]
    UnknownValue {
        /// The name of the field in SPEC 4.3.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// A time has a second or more of nanoseconds.
    #[error("a modification time has {nanos} nanoseconds, a second has 1000000000")]
    NanosOutOfRange {
        /// The nanoseconds.
        nanos: u32,
    },
    /// The target of a link breaks a rule of SPEC 4.27.
    #[error(transparent)]
    LinkTarget(#[from] LinkTargetRefused),
    /// A link has a size, or is sent without a target; or something else has a target.
    #[error("an entry that is no link has a target, or a link has none or a size")]
    WrongTarget,
    /// Holes of an entry overlap, are out of order or empty, are too many, or reach beyond the file.
    #[error("the holes of an entry are not in order, apart from each other and within the file")]
    WrongHoles,
    /// Something that is no file has holes or another name.
    #[error("an entry that is no file has holes or is a hard link")]
    NotOfAFile,
    /// Attributes break a rule of SPEC 4.31, or are not of this kind of entry.
    #[error("the attributes of an entry break a rule, or name what is never taken from a peer")]
    WrongAttributes,
    /// A path that is there to be printed has characters that must not be.
    #[error("the path of a skipped file is not escaped")]
    NotEscaped,
    /// A chunk without spans.
    #[error("a chunk has no spans")]
    NoSpans,
    /// A span without bytes.
    #[error("a span of entry {entry} is empty")]
    EmptySpan {
        /// The entry.
        entry: u64,
    },
    /// A span ends where no file can reach.
    #[error("a span of entry {entry}, {len_bytes} bytes from {offset_bytes} on, reaches beyond 2^62 bytes")]
    SpanOverflow {
        /// The entry.
        entry: u64,
        /// Where it starts.
        offset_bytes: u64,
        /// How long it is.
        len_bytes: u64,
    },
    /// A list of block signatures is empty.
    #[error("the list of block signatures of entry {entry} is empty")]
    NoSignatures {
        /// The entry.
        entry: u64,
    },
    /// A block has no bytes.
    #[error("a block of entry {entry} is empty")]
    EmptyBlock {
        /// The entry.
        entry: u64,
    },
    /// The average block length is not allowed.
    #[error("an average block length of {average_bytes} bytes is not a power of two from 1 KiB to 1 MiB")]
    BlockAverage {
        /// The average length asked for.
        average_bytes: u32,
    },
    /// A record is too long; checked on its header.
    #[error("a record of {len_bytes} bytes is over the limit of {max_bytes}")]
    TooLarge {
        /// The length in the record's header.
        len_bytes: u32,
        /// [`MAX_RECORD_LEN_BYTES`](crate::limits::MAX_RECORD_LEN_BYTES).
        max_bytes: u32,
    },
    /// An entry is too long with its attributes.
    #[error("an entry that counts as {len_bytes} bytes is over the limit of {max_bytes}")]
    EntryTooLarge {
        /// What it counts as.
        len_bytes: u64,
        /// [`FIRST_ENTRY_BYTES`](crate::limits::FIRST_ENTRY_BYTES).
        max_bytes: u64,
    },
    /// A file is larger than a stream can carry.
    #[error("a file of {size_bytes} bytes is over the limit of {max_bytes}")]
    FileTooLarge {
        /// The size in the entry.
        size_bytes: u64,
        /// [`MAX_FRAME_LEN_BYTES`](crate::limits::MAX_FRAME_LEN_BYTES).
        max_bytes: u64,
    },
    /// A chunk has too many spans.
    #[error("a chunk of {spans} spans is over the limit of {max_spans}")]
    TooManySpans {
        /// How many it has.
        spans: usize,
        /// [`MAX_SPANS_PER_CHUNK`](crate::limits::MAX_SPANS_PER_CHUNK).
        max_spans: usize,
    },
    /// A list of block signatures is too long for one record.
    #[error("a list of {signatures} block signatures is over the limit of {max_signatures}")]
    TooManySignatures {
        /// How many it has.
        signatures: usize,
        /// [`MAX_SIGNATURES_PER_RECORD`](crate::limits::MAX_SIGNATURES_PER_RECORD).
        max_signatures: usize,
    },
    /// The spans of a chunk are too long together.
    #[error("a chunk of {len_bytes} bytes is over the limit of {max_bytes}")]
    ChunkTooLarge {
        /// The sum of the spans; `u64::MAX` if it is larger still.
        len_bytes: u64,
        /// [`MAX_PAYLOAD_CHUNK_LEN_BYTES`](crate::limits::MAX_PAYLOAD_CHUNK_LEN_BYTES).
        max_bytes: u64,
    },
    /// An entry has a path that breaks the rules.
    #[error("the path of an entry is refused")]
    Path(#[from] PathRefused),
}

impl RecordError {
    /// The code to reset the stream with.
    pub const fn code(&self) -> Code {
        match self {
            Self::Truncated { .. }
            | Self::UnknownType { .. }
            | Self::WrongBodyLen { .. }
            | Self::UnknownValue { .. }
            | Self::NanosOutOfRange { .. }
            | Self::WrongTarget
            | Self::WrongHoles
            | Self::NotOfAFile
            | Self::WrongAttributes
            | Self::LinkTarget(LinkTargetRefused::Empty | LinkTargetRefused::Nul)
            | Self::NotEscaped
            | Self::NoSpans
            | Self::EmptySpan { .. }
            | Self::NoSignatures { .. }
            | Self::EmptyBlock { .. }
            | Self::BlockAverage { .. }
            | Self::SpanOverflow { .. } => Code::Protocol,
            Self::TooLarge { .. }
            | Self::FileTooLarge { .. }
            | Self::EntryTooLarge { .. }
            | Self::TooManySpans { .. }
            | Self::TooManySignatures { .. }
            | Self::ChunkTooLarge { .. }
            | Self::LinkTarget(LinkTargetRefused::TooLong { .. }) => Code::TooLarge,
            Self::Path(_) => Code::PathRefused,
        }
    }
}
