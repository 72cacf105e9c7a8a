//! Sans-IO codec and state machines of the shiplane protocol.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

mod code;
mod digest;
mod escape;
mod frame;
mod header;
mod hex;
pub mod limits;
mod path;
mod records;

pub use code::Code;
pub use digest::{Digest, Hasher, RootError, RootHasher};
pub use escape::{EscapedPath, escape, escape_truncated};
pub use frame::{
    ChunkReceiver, ChunkSender, FrameError, Offer, Promise, RecvError, RecvStep, Refusal, Reply,
    SendError, SendStep, SizeReader, Status, StatusError, StatusReader, Stored, Verified,
};
pub use header::{
    OPENING_LEN_BYTES, Opened, Opening, OpeningError, OpeningReader, StreamHeader, StreamKind,
    TaggedChunk, TransferId, records_opening,
};
pub use path::{PathRefused, RelPath};
pub use records::{
    Entry, EntryKind, FailReason, Mtime, ProviderRecord, ReceiverRecord, Record, RecordError,
    RecordReader, SkipReason, Span, Version,
};
