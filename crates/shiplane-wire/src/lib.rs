//! The wire format of shiplane's QUIC streams, as state machines without IO.
//!
//! Two peers share one connection. Calls and bulk data have streams of their own. Bulk data is sent in *chunks*: a
//! size, the data, its digest, and one byte of answer. SPEC.md in the root of the repository has the rules; comments
//! cite it by number. In reading order:
//!
//! 1. [`limits`]: every bound, with its reason. What a peer announces is checked before anything is allocated.
//! 2. [`OpeningReader`]: the first bytes of a stream say what the stream is: a bare chunk, a
//!    [`TaggedChunk`] of a transfer, the records of a transfer, an RPC call or a message.
//! 3. [`ChunkSender`] and [`ChunkReceiver`]: the frame. Types enforce the protocol: an
//!    [`Offer`] is a size that passed the limit, [`Verified`] exists only for a matching digest,
//!    a sink's commit turns it into [`Stored`], and only [`Stored`] makes the success status of a [`Reply`].
//!    The sender's [`StatusReader`] accepts nothing else as success.
//! 4. [`Digest`], [`Hasher`], [`Code`], [`escape`]: the building blocks.
//!
//! The records of a file transfer are public only with the feature `internals`. The crate `shiplane-protocols` sends them.
//!
//! # Both loops
//!
//! A caller owns the stream and asks the machine what to do next. This sends a chunk and receives it,
//! with a `Vec` for each direction of the stream:
//!
//! ```
//! use bytes::Bytes;
//! use shiplane_wire::{
//!     ChunkSender, Hasher, Offer, Opened, OpeningReader, Durability, RecvStep, Reply, SendStep, Status, StatusReader,
//!     limits,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The sender: reads the source when asked to, and writes what it is given.
//! let mut source = [Bytes::from("hel"), Bytes::from("lo")].into_iter();
//! let mut stream = Vec::new();
//! let mut sender = ChunkSender::new(5, Hasher::sha256())?;
//! loop {
//!     match sender.poll()? {
//!         SendStep::Transmit(bytes) => stream.extend_from_slice(&bytes),
//!         SendStep::NeedPayload { .. } => match source.next() {
//!             Some(data) => sender.supply(data)?,
//!             None => sender.source_ended()?,
//!         },
//!         SendStep::Finish => break, // finish the stream, then read the answer
//!     }
//! }
//! assert_eq!(stream.len(), 8 + 5 + 32);
//!
//! // The receiver: the opening says that it is a bare chunk, and of what size.
//! let mut input = Bytes::from(stream);
//! let Some(Opened::Bare { len_bytes }) = OpeningReader::new().push(&mut input)? else { unreachable!() };
//! let mut receiver = Offer::new(len_bytes, limits::MAX_CHUNK_LEN_BYTES)?.accept(Hasher::sha256());
//! let (mut pieces, mut sink, mut answer) = (input.chunks(7), Vec::new(), Vec::new());
//! loop {
//!     match receiver.poll() {
//!         Ok(RecvStep::NeedInput) => match pieces.next() {
//!             Some(piece) => receiver.push(Bytes::copy_from_slice(piece)),
//!             None => receiver.end(),
//!         },
//!         Ok(RecvStep::Payload { data, .. }) => sink.extend_from_slice(&data),
//!         Ok(RecvStep::Verified(verified)) => {
//!             let stored = verified.stored(Durability::Verified); // the sink's commit says so
//!             answer.push(Reply::stored(&stored).byte());
//!         }
//!         Ok(RecvStep::Ended) => break,
//!         Err(error) => {
//!             answer.push(Reply::refused(error.refusal()).byte()); // and discard the sink
//!             break;
//!         }
//!     }
//! }
//! assert_eq!(sink, b"hello");
//!
//! // The sender again: exactly one byte, and then the end, is an answer.
//! let mut status = StatusReader::new();
//! status.push(&answer)?;
//! assert_eq!(status.end()?, Status::Stored);
//! # Ok(())
//! # }
//! ```
//!
//! # Not in this crate
//!
//! No clock, so no deadline: the reader of the stream has one. No window and no retransmission: QUIC has
//! them. No IO, no async, no logging, no serde, no `unsafe`, no `std`. Nothing holds back more than one
//! partial header or record, besides what the caller pushed and has not polled yet.
//!
//! Any split of the input gives the same events, an error is final and comes again from every later
//! call, and no input makes a decoder panic.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "the records of a transfer are public with the feature `internals` alone"
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod attributes;
mod code;
mod digest;
mod entry_kind;
mod escape;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod hex;
mod holes;
pub mod limits;
mod link_target;
mod path;
mod records;

pub use code::Code;
pub use digest::{Digest, DigestAlgorithm, Hasher};
pub use escape::{EscapedPath, escape, escape_truncated};
pub use frame::{
    ChunkReceiver, ChunkSender, Durability, FrameError, Offer, RecvError, RecvStep, Refusal, Reply,
    SendError, SendStep, SizeReader, Status, StatusError, StatusReader, Stored, Verified,
};
pub use header::{
    OPENING_LEN_BYTES, Opened, OpeningError, OpeningReader, StreamHeader, StreamKind, TaggedChunk, TransferId,
};

/// The records of a file transfer, their paths and digests. They may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use engine::*;
#[cfg(not(feature = "internals"))]
use engine::*;

mod engine {
    pub use crate::{
        attributes::{AccessEntry, AccessTag, Attributes, AttributesRefused, Principal},
        digest::{Piece, TransferDigestError, TransferHasher},
        entry_kind::EntryKind,
        header::records_opening,
        holes::Holes,
        link_target::{LinkTarget, LinkTargetRefused},
        path::{PathRefused, RelPath},
        records::{
            BlockSignature, BlockSignatures, Entry, LeftOutReason, Load, Mtime, ProviderRecord,
            ReceiverRecord, RecordError, RecordReader, Span, Version,
        },
    };
}

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{header::Opening, records::Record};
}
