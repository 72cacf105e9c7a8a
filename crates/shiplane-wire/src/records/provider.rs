//! Records of the side that has the files (SPEC 4.3).

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};
use core::fmt;

use super::fields::{Fields, put_record, put_text, read_text};
use super::left_out::{put_left_out, read_left_out};
use super::receiver::{check_spans, put_spans, read_spans};
use super::{BlockSignatures, LeftOutReason, Load, Record, RecordError, Span, sealed};
use crate::limits::{ENTRY_COST_BYTES, FIRST_ENTRY_BYTES, MAX_FRAME_LEN_BYTES};
use crate::{Attributes, Digest, EntryKind, EscapedPath, Holes, LinkTarget, RelPath, fuzz, hex};

/// What the provider of a transfer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderRecord {
    /// A file, directory or link there is. Entries are numbered from 0 in the order sent.
    Entry(Entry),
    /// A path that is not offered.
    LeftOut {
        /// Why.
        reason: LeftOutReason,
        /// Which, in a form to print.
        path: EscapedPath,
    },
    /// The last entry was sent.
    End {
        /// How many there were.
        entries: u64,
        /// The sum of their sizes.
        total_bytes: u64,
    },
    /// The digest of a whole file, as asked for.
    Digest {
        /// Index of the entry.
        entry: u64,
        /// Of its content, by the transfer's function (SPEC 4.21).
        digest: Digest,
    },
    /// A file that was offered cannot be sent; ask again for what shared its chunks.
    Failed {
        /// Index of the entry.
        entry: u64,
        /// Why.
        reason: LeftOutReason,
    },
    /// A chunk that was asked for will not be sent, because of a failed entry.
    ChunkVoid {
        /// Index of the chunk.
        index: u64,
    },
    /// Still working.
    Alive {
        /// How many files and directories it has looked at so far, those that it does not offer included.
        scanned_entries: u64,
        /// The most bytes that it sends in a second; 0 is no limit.
        bytes_per_second: u64,
    },
    /// Signatures of requested blocks of a file.
    Signatures(BlockSignatures),
    /// A chunk that is sent without having been asked for, as the receiver has invited the provider to do. The first
    /// has index 0.
    Offer {
        /// What it is made of, as in [`ReceiverRecord::WantChunk`](crate::ReceiverRecord::WantChunk).
        spans: Vec<Span>,
    },
    /// There is no further offer: from here on the receiver asks.
    OffersEnd,
    /// The directory whose content is sent, if it is one. Comes before all entries, once.
    TopDirectory {
        /// Its permission bits, as in [`Entry`].
        mode: u32,
        /// When it was modified.
        mtime: Mtime,
        /// Its owners and attributes, if they are carried.
        attributes: Option<Attributes>,
    },
    /// What its last second was spent on.
    Load(Load),
    /// All that was wanted or offered is on its way.
    Sent {
        /// How many chunks that is.
        chunks: u64,
        /// The transfer's digest over them (SPEC 4.11).
        transfer_digest: Digest,
    },
}

impl ProviderRecord {
    /// Appends the record to `out`.
    ///
    /// # Errors
    ///
    /// If the record breaks a rule; nothing is appended then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        self.check()?;
        match self {
            Self::Entry(entry) => put_record(out, ENTRY, |out| entry.put(out)),
            Self::LeftOut { reason, path } => {
                put_record(out, LEFT_OUT, |out| put_left_out(*reason, path, out))
            }
            Self::End { entries, total_bytes } => put_record(out, END, |out| {
                out.put_u64_le(*entries);
                out.put_u64_le(*total_bytes);
            }),
            Self::Digest { entry, digest } => put_record(out, DIGEST, |out| {
                out.put_u64_le(*entry);
                out.put_slice(digest.as_bytes());
            }),
            Self::Failed { entry, reason } => put_record(out, FAILED, |out| {
                out.put_u64_le(*entry);
                out.put_u8(*reason as u8);
            }),
            Self::ChunkVoid { index } => put_record(out, CHUNK_VOID, |out| out.put_u64_le(*index)),
            Self::Alive { scanned_entries, bytes_per_second } => put_record(out, ALIVE, |out| {
                out.put_u64_le(*scanned_entries);
                out.put_u64_le(*bytes_per_second);
            }),
            Self::Signatures(signatures) => put_record(out, SIGNATURES, |out| signatures.put(out)),
            Self::Offer { spans } => put_record(out, OFFER, |out| put_spans(spans, out)),
            Self::OffersEnd => put_record(out, OFFERS_END, |_| ()),
            Self::TopDirectory { mode, mtime, attributes } => put_record(out, TOP_DIRECTORY, |out| {
                out.put_u32_le(*mode);
                mtime.put(out);
                attributes.iter().for_each(|attributes| put_text(out, attributes.as_bytes()));
            }),
            Self::Load(load) => put_record(out, LOAD, |out| load.put(out)),
            Self::Sent { chunks, transfer_digest } => put_record(out, SENT, |out| {
                out.put_u64_le(*chunks);
                out.put_slice(transfer_digest.as_bytes());
            }),
        }
        Ok(())
    }

    fn read(tag: u8, fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        Ok(match tag {
            ENTRY => Self::Entry(Entry::read(fields)?),
            LEFT_OUT => {
                let (reason, path) = read_left_out(fields)?;
                Self::LeftOut { reason, path }
            }
            END => Self::End { entries: fields.u64()?, total_bytes: fields.u64()? },
            DIGEST => Self::Digest { entry: fields.u64()?, digest: Digest::from_bytes(fields.array()?) },
            FAILED => Self::Failed { entry: fields.u64()?, reason: LeftOutReason::read(fields)? },
            CHUNK_VOID => Self::ChunkVoid { index: fields.u64()? },
            ALIVE => Self::Alive { scanned_entries: fields.u64()?, bytes_per_second: fields.u64()? },
            SIGNATURES => Self::Signatures(BlockSignatures::read(fields)?),
            OFFER => Self::Offer { spans: read_spans(fields)? },
            OFFERS_END => Self::OffersEnd,
            TOP_DIRECTORY => Self::TopDirectory {
                mode: fields.u32()?,
                mtime: Mtime::read(fields)?,
                attributes: if fields.len() == 0 { None } else { Some(read_attributes(fields)?) },
            },
            LOAD => Self::Load(Load::read(fields)?),
            SENT => {
                Self::Sent { chunks: fields.u64()?, transfer_digest: Digest::from_bytes(fields.array()?) }
            }
            _ => return Err(RecordError::UnknownType { tag }),
        })
    }

    fn check(&self) -> Result<(), RecordError> {
        match self {
            Self::Entry(entry) => entry.check(),
            Self::Signatures(signatures) => signatures.check(),
            Self::Offer { spans } => check_spans(spans),
            Self::TopDirectory { mtime, .. } => mtime.check(),
            Self::Load(load) => load.check(),
            Self::LeftOut { .. }
            | Self::End { .. }
            | Self::Digest { .. }
            | Self::Failed { .. }
            | Self::ChunkVoid { .. }
            | Self::Alive { .. }
            | Self::OffersEnd
            | Self::Sent { .. } => Ok(()),
        }
    }
}

impl Record for ProviderRecord {
    fn append_to(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        self.encode(out)
    }
}

impl sealed::Decode for ProviderRecord {
    fn knows(tag: u8) -> bool {
        matches!(tag, ENTRY..=SENT)
    }

    fn decode(tag: u8, body: &[u8]) -> Result<Self, RecordError> {
        let record = Fields::read_whole(tag, body, |fields| Self::read(tag, fields))?;
        record.check()?;
        Ok(record)
    }
}

/// A file, directory or symbolic link of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which of them.
    pub kind: EntryKind,
    /// The permission bits at the provider; the receiver masks them.
    pub mode: u32,
    /// Size of the file, below 2^62.
    pub size_bytes: u64,
    /// When the file was modified. Any value of a peer is possible; the receiver clamps it.
    pub mtime: Mtime,
    /// The state of the file.
    pub version: Version,
    /// Its path below the root of the transfer.
    pub path: RelPath,
    /// What it points to, if it is a link.
    pub target: Option<LinkTarget>,
    /// Of a file with several names: the number of the entry that has the first of them, which may be this one.
    pub first: Option<u64>,
    /// Where a file has no content of its own.
    pub holes: Holes,
    /// Its owners and attributes, if they are carried.
    pub attributes: Option<Attributes>,
}

impl Entry {
    /// What it counts as against what the receiver admits (SPEC 4.10).
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        let target = self.target.as_ref().map_or(0, |target| target.as_bytes().len());
        let holes = HOLE_LEN_BYTES * self.holes.ranges().len();
        let attributes = self.attributes.as_ref().map_or(0, |attributes| attributes.as_bytes().len());
        ENTRY_COST_BYTES + (self.path.as_bytes().len() + target + holes + attributes) as u64
    }

    fn put(&self, out: &mut BytesMut) {
        let has_first = if self.first.is_some() { HAS_FIRST } else { 0 };
        let has_holes = if self.holes.is_empty() { 0 } else { HAS_HOLES };
        let has_attributes = if self.attributes.is_some() { HAS_ATTRIBUTES } else { 0 };
        out.put_u8(self.kind as u8 | has_first | has_holes | has_attributes);
        out.put_u32_le(self.mode);
        out.put_u64_le(self.size_bytes);
        self.mtime.put(out);
        out.put_slice(&self.version.0);
        put_text(out, self.path.as_bytes());
        if let Some(target) = &self.target {
            put_text(out, target.as_bytes());
        }
        if let Some(first) = self.first {
            out.put_u64_le(first);
        }
        if !self.holes.is_empty() {
            // At most 1,024.
            out.put_u16_le(self.holes.ranges().len() as u16);
            for hole in self.holes.ranges() {
                out.put_u64_le(hole.start);
                out.put_u64_le(hole.end - hole.start);
            }
        }
        self.attributes.iter().for_each(|attributes| put_text(out, attributes.as_bytes()));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let tag = fields.u8()?;
        let kind = EntryKind::of_wire(tag)?;
        let (mode, size_bytes, mtime) = (fields.u32()?, fields.u64()?, Mtime::read(fields)?);
        Ok(Self {
            kind,
            mode,
            size_bytes,
            mtime,
            version: Version(fields.array()?),
            path: RelPath::parse(read_text(fields)?)?,
            target: match kind {
                EntryKind::Symlink => Some(LinkTarget::parse(read_text(fields)?)?),
                EntryKind::File | EntryKind::Directory => None,
            },
            first: if tag & HAS_FIRST == 0 { None } else { Some(fields.u64()?) },
            holes: if tag & HAS_HOLES == 0 { Holes::default() } else { read_holes(fields, size_bytes)? },
            attributes: if tag & HAS_ATTRIBUTES == 0 { None } else { Some(read_attributes(fields)?) },
        })
    }

    fn check(&self) -> Result<(), RecordError> {
        let size_bytes = self.size_bytes;
        if size_bytes > MAX_FRAME_LEN_BYTES {
            return Err(RecordError::FileTooLarge { size_bytes, max_bytes: MAX_FRAME_LEN_BYTES });
        }
        let is_link = self.kind == EntryKind::Symlink;
        if is_link != self.target.is_some() || is_link && size_bytes > 0 {
            return Err(RecordError::WrongTarget);
        }
        if self.holes.ranges().last().is_some_and(|last| last.end > size_bytes) {
            return Err(RecordError::WrongHoles);
        }
        if self.kind != EntryKind::File && (self.first.is_some() || !self.holes.is_empty()) {
            return Err(RecordError::NotOfAFile);
        }
        if let Some(attributes) = &self.attributes {
            if !attributes.may_be_of(self.kind) {
                return Err(RecordError::WrongAttributes);
            }
            let len_bytes = self.cost_bytes();
            if len_bytes > FIRST_ENTRY_BYTES {
                return Err(RecordError::EntryTooLarge { len_bytes, max_bytes: FIRST_ENTRY_BYTES });
            }
        }
        self.mtime.check()
    }
}

impl EntryKind {
    fn of_wire(value: u8) -> Result<Self, RecordError> {
        match value & !(HAS_FIRST | HAS_HOLES | HAS_ATTRIBUTES) {
            0 => Ok(Self::File),
            1 => Ok(Self::Directory),
            2 => Ok(Self::Symlink),
            _ => Err(RecordError::UnknownValue { field: "entry kind", value }),
        }
    }
}

/// A modification time, since the beginning of 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Whole seconds, rounded towards the past.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

impl Mtime {
    fn put(self, out: &mut BytesMut) {
        out.put_i64_le(self.secs);
        out.put_u32_le(self.nanos);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        Ok(Self { secs: fields.i64()?, nanos: fields.u32()? })
    }

    fn check(self) -> Result<(), RecordError> {
        let nanos = self.nanos;
        if nanos >= NANOS_PER_SEC { Err(RecordError::NanosOutOfRange { nanos }) } else { Ok(()) }
    }
}

/// Identifies one state of a source file: a receiver resumes a file only under the same version
/// (SPEC 4.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; Self::LEN_BYTES]);

impl Version {
    /// Length of a version on the wire.
    pub const LEN_BYTES: usize = 16;

    /// Takes 16 bytes that change whenever the file does.
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// That of a part of a file of unknown length (SPEC 4.32): `id` tells the file from all others.
    pub fn of_part(id: [u8; 8], offset_bytes: u64) -> Self {
        let mut bytes = [0; Self::LEN_BYTES];
        bytes[..8].copy_from_slice(&id);
        bytes[8..].copy_from_slice(&offset_bytes.to_le_bytes());
        Self(bytes)
    }

    /// Which file the part is of, and where it begins.
    pub fn part(&self) -> ([u8; 8], u64) {
        let (mut id, mut offset_bytes) = ([0; 8], [0; 8]);
        id.copy_from_slice(&self.0[..8]);
        offset_bytes.copy_from_slice(&self.0[8..]);
        (id, u64::from_le_bytes(offset_bytes))
    }

    /// The version in wire format.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

fn read_holes(fields: &mut Fields<'_>, size_bytes: u64) -> Result<Holes, RecordError> {
    let mut body = {
        let len = usize::from(fields.u16()?) * HOLE_LEN_BYTES;
        fields.part(len)?
    };
    let mut holes = Vec::with_capacity(body.len() / HOLE_LEN_BYTES);
    while body.len() > 0 {
        let (start, len_bytes) = (body.u64()?, body.u64()?);
        holes.push(start..start.checked_add(len_bytes).ok_or(RecordError::WrongHoles)?);
    }
    if holes.is_empty() {
        return Err(RecordError::WrongHoles);
    }
    Holes::parse(&holes, size_bytes).ok_or(RecordError::WrongHoles)
}

fn read_attributes(fields: &mut Fields<'_>) -> Result<Attributes, RecordError> {
    Attributes::parse(read_text(fields)?).map_err(|_| RecordError::WrongAttributes)
}

const ENTRY: u8 = 1;
const LEFT_OUT: u8 = 2;
const END: u8 = 3;
const DIGEST: u8 = 4;
const FAILED: u8 = 5;
const CHUNK_VOID: u8 = 6;
const ALIVE: u8 = 7;
const SIGNATURES: u8 = 8;
const OFFER: u8 = 9;
const OFFERS_END: u8 = 10;
const TOP_DIRECTORY: u8 = 11;
const LOAD: u8 = 12;
const SENT: u8 = 13;

/// Added to the kind of an entry: the number of the entry with the file's first name follows.
const HAS_FIRST: u8 = 0x10;
/// Added to the kind of an entry: holes follow.
const HAS_HOLES: u8 = 0x20;

/// Added to the kind of an entry: owners and attributes follow.
const HAS_ATTRIBUTES: u8 = 0x40;

/// Start and length of a hole.
const HOLE_LEN_BYTES: usize = 16;

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// Fuzz entry: part of a stream, then the stream.
pub fn fuzz_records_provider(data: &[u8]) {
    fuzz::any_split(data, |pieces| fuzz::records(pieces, ProviderRecord::encode));
}

#[cfg(test)]
mod tests;
