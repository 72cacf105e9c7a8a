//! Records of the side that has the files (SPEC 4.3).

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};
use core::fmt;

use super::fields::{Fields, put_record};
use super::receiver::{check_spans, put_spans, read_spans};
use super::{BlockSignatures, LeftOutReason, RecordError, Span, sealed};
use crate::limits::{ENTRY_COST_BYTES, MAX_FRAME_LEN_BYTES};
use crate::{Digest, EscapedPath, Holes, LinkTarget, RelPath, fuzz, hex};

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
            Self::TopDirectory { mode, mtime } => put_record(out, TOP_DIRECTORY, |out| {
                out.put_u32_le(*mode);
                mtime.put(out);
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
            TOP_DIRECTORY => Self::TopDirectory { mode: fields.u32()?, mtime: Mtime::read(fields)? },
            _ => return Err(RecordError::UnknownType { tag }),
        })
    }

    fn check(&self) -> Result<(), RecordError> {
        match self {
            Self::Entry(entry) => entry.check(),
            Self::Signatures(signatures) => signatures.check(),
            Self::Offer { spans } => check_spans(spans),
            Self::TopDirectory { mtime, .. } => mtime.check(),
            Self::LeftOut { .. }
            | Self::End { .. }
            | Self::Digest { .. }
            | Self::Failed { .. }
            | Self::ChunkVoid { .. }
            | Self::Alive { .. }
            | Self::OffersEnd => Ok(()),
        }
    }
}

impl sealed::Decode for ProviderRecord {
    fn knows(tag: u8) -> bool {
        matches!(tag, ENTRY..=TOP_DIRECTORY)
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
}

impl Entry {
    /// What it counts as against what the receiver admits (SPEC 4.10).
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        let target = self.target.as_ref().map_or(0, |target| target.as_bytes().len());
        let holes = HOLE_LEN_BYTES * self.holes.ranges().len();
        ENTRY_COST_BYTES + (self.path.as_bytes().len() + target + holes) as u64
    }

    fn put(&self, out: &mut BytesMut) {
        let has_first = if self.first.is_some() { HAS_FIRST } else { 0 };
        let has_holes = if self.holes.is_empty() { 0 } else { HAS_HOLES };
        out.put_u8(self.kind as u8 | has_first | has_holes);
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
        self.mtime.check()
    }
}

/// What an entry is. Nothing else is ever created from a peer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link, which is never followed.
    Symlink = 2,
}

impl EntryKind {
    fn of_wire(value: u8) -> Result<Self, RecordError> {
        match value & !(HAS_FIRST | HAS_HOLES) {
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

/// Paths have at most 32 KiB, escaped ones at most 16 KiB.
fn put_text(out: &mut BytesMut, text: &[u8]) {
    out.put_u16_le(text.len() as u16);
    out.put_slice(text);
}

fn read_text<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], RecordError> {
    let len_bytes = fields.u16()?;
    fields.bytes(usize::from(len_bytes))
}

pub(super) fn put_left_out(reason: LeftOutReason, path: &EscapedPath, out: &mut BytesMut) {
    out.put_u8(reason as u8);
    put_text(out, path.as_str().as_bytes());
}

pub(super) fn read_left_out(fields: &mut Fields<'_>) -> Result<(LeftOutReason, EscapedPath), RecordError> {
    let reason = LeftOutReason::read(fields)?;
    let path = EscapedPath::from_wire(read_text(fields)?).ok_or(RecordError::NotEscaped)?;
    Ok((reason, path))
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

/// Added to the kind of an entry: the number of the entry with the file's first name follows.
const HAS_FIRST: u8 = 0x10;
/// Added to the kind of an entry: holes follow.
const HAS_HOLES: u8 = 0x20;

/// Start and length of a hole.
const HOLE_LEN_BYTES: usize = 16;

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// Fuzz entry: part of a stream, then the stream.
pub fn fuzz_records_provider(data: &[u8]) {
    fuzz::any_split(data, |pieces| fuzz::records(pieces, ProviderRecord::encode));
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::{BlockSignature, LinkTargetRefused, PathRefused, RecordReader};

    #[test]
    fn records_have_these_bytes() {
        let digest = Digest::from_bytes([0xdd; 32]);
        let path = EscapedPath::new(b"x\x1b");
        let signature = |len_bytes| BlockSignature { len_bytes, digest };
        let signatures = BlockSignatures {
            entry: 6,
            offset_bytes: 0x0201,
            signatures: [signature(9), signature(0x0100)].into(),
        };
        let span = Span { entry: 1, offset_bytes: 2, len_bytes: 3 };
        let cases: [(ProviderRecord, &[u8]); 13] = [
            (
                ProviderRecord::Entry(entry()),
                b"\x01\x2e\0\0\0\0\xa4\x81\0\0\x05\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
                  \x01\0\0\0vvvvvvvvvvvvvvvv\x03\0a/b",
            ),
            (
                ProviderRecord::Entry(link()),
                b"\x01\x32\0\0\0\x02\xa4\x81\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
                  \x01\0\0\0vvvvvvvvvvvvvvvv\x03\0a/b\x02\0..",
            ),
            (
                ProviderRecord::Entry(Entry {
                    first: Some(7),
                    holes: Holes::parse(&[0..1, 3..5], 5).unwrap(),
                    ..entry()
                }),
                b"\x01\x58\0\0\0\x30\xa4\x81\0\0\x05\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
                  \x01\0\0\0vvvvvvvvvvvvvvvv\x03\0a/b\x07\0\0\0\0\0\0\0\
                  \x02\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
            ),
            (
                ProviderRecord::LeftOut { reason: LeftOutReason::Name, path },
                b"\x02\x08\0\0\0\x02\x05\0x\\x1b",
            ),
            (
                ProviderRecord::End { entries: 2, total_bytes: 0x0102 },
                b"\x03\x10\0\0\0\x02\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0",
            ),
            (
                ProviderRecord::Digest { entry: 3, digest },
                &[&b"\x04\x28\0\0\0\x03\0\0\0\0\0\0\0"[..], &[0xdd; 32]].concat(),
            ),
            (
                ProviderRecord::Failed { entry: 4, reason: LeftOutReason::Vanished },
                b"\x05\x09\0\0\0\x04\0\0\0\0\0\0\0\x05",
            ),
            (ProviderRecord::ChunkVoid { index: 5 }, b"\x06\x08\0\0\0\x05\0\0\0\0\0\0\0"),
            (
                ProviderRecord::Alive { scanned_entries: 3, bytes_per_second: 500 },
                b"\x07\x10\0\0\0\x03\0\0\0\0\0\0\0\xf4\x01\0\0\0\0\0\0",
            ),
            (
                ProviderRecord::Signatures(signatures),
                &[
                    &b"\x08\x5a\0\0\0\x06\0\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x02\0"[..],
                    b"\x09\0\0\0",
                    &[0xdd; 32],
                    b"\0\x01\0\0",
                    &[0xdd; 32],
                ]
                .concat(),
            ),
            (
                ProviderRecord::Offer { spans: [span].into() },
                b"\x09\x1a\0\0\0\x01\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
            ),
            (ProviderRecord::OffersEnd, b"\x0a\0\0\0\0"),
            (
                ProviderRecord::TopDirectory { mode: 0o700, mtime: Mtime { secs: -2, nanos: 3 } },
                b"\x0b\x10\0\0\0\xc0\x01\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\x03\0\0\0",
            ),
        ];
        for (record, bytes) in cases {
            assert_eq!(encode(&record).unwrap(), bytes, "{record:?}");
            assert_eq!(decode(bytes), Ok(Some(record)));
        }
    }

    #[test]
    fn an_entry_that_breaks_a_rule_is_neither_sent_nor_taken() {
        let nanos = 1_000_000_000;
        let mtime = Mtime { secs: 0, nanos };
        let size_bytes = MAX_FRAME_LEN_BYTES + 1;
        let too_large = RecordError::FileTooLarge { size_bytes, max_bytes: MAX_FRAME_LEN_BYTES };
        let bad = [
            (
                Entry { mtime, ..entry() },
                26,
                &nanos.to_le_bytes()[..],
                RecordError::NanosOutOfRange { nanos },
            ),
            (Entry { size_bytes, ..entry() }, 10, &size_bytes.to_le_bytes()[..], too_large),
        ];
        for (entry, at, field, error) in bad {
            assert_eq!(encode(&ProviderRecord::Entry(entry)), Err(error));
            assert_eq!(decode(&patched(at, field)), Err(error));
        }
    }

    #[test]
    fn an_entry_with_a_refused_path_has_that_code() {
        // The last three bytes of the record are the path.
        let error = decode(&patched(48, b"../")).unwrap_err();
        assert_eq!(error, RecordError::Path(PathRefused::DotComponent));
        assert_eq!(error.code(), crate::Code::PathRefused);
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        // The path's length is at 46, the body's at 1.
        let wrong = RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 46 };
        assert_eq!(decode(&patched(46, &[1, 0])), Err(wrong));
        assert_eq!(decode(&patched(46, &[4, 0])), Err(wrong));
        assert_eq!(decode(&patched(46, &[0xff, 0xff])), Err(wrong));
        let wrong = RecordError::WrongBodyLen { tag: ALIVE, len_bytes: 1 };
        assert_eq!(decode(b"\x07\x01\0\0\0!"), Err(wrong));
        let wrong = RecordError::WrongBodyLen { tag: END, len_bytes: 15 };
        assert_eq!(decode(b"\x03\x0f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), Err(wrong));
    }

    #[test]
    fn unknown_values_are_refused() {
        let unknown = |field, value| Err(RecordError::UnknownValue { field, value });
        assert_eq!(decode(&patched(5, &[3])), unknown("entry kind", 3));
        assert_eq!(decode(b"\x02\x03\0\0\0\x0d\0\0"), unknown("reason", 13));
        assert_eq!(decode(b"\x05\x09\0\0\0\0\0\0\0\0\0\0\0\x0d"), unknown("reason", 13));
        let nanos = 1_000_000_000;
        let top = ProviderRecord::TopDirectory { mode: 0, mtime: Mtime { secs: 0, nanos } };
        assert_eq!(encode(&top), Err(RecordError::NanosOutOfRange { nanos }));
        assert_eq!(decode(b"\x0c\0\0\0\0"), Err(RecordError::UnknownType { tag: 12 }));
        assert_eq!(decode(b"\x09\x02\0\0\0\0\0"), Err(RecordError::NoSpans));
        assert_eq!(decode(b"\0\0\0\0\0"), Err(RecordError::UnknownType { tag: 0 }));
        assert_eq!(decode(b"\x02\x04\0\0\0\0\x01\0\x1b"), Err(RecordError::NotEscaped));
    }

    #[test]
    fn a_link_has_a_target_and_no_size_and_nothing_else_has_one() {
        let target = link().target;
        for wrong in [
            Entry { target: None, ..link() },
            Entry { size_bytes: 1, ..link() },
            Entry { target: target.clone(), ..entry() },
            Entry { kind: EntryKind::Directory, size_bytes: 0, target, ..entry() },
        ] {
            assert_eq!(encode(&ProviderRecord::Entry(wrong)), Err(RecordError::WrongTarget));
        }
        let record = encode(&ProviderRecord::Entry(link())).unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut record = record.clone();
            record[at..at + bytes.len()].copy_from_slice(bytes);
            decode(&record)
        };
        assert_eq!(with(10, &[1]), Err(RecordError::WrongTarget));
        assert_eq!(with(53, b"\0"), Err(RecordError::LinkTarget(LinkTargetRefused::Nul)));
        let wrong = RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 50 };
        for len in [[1, 0], [3, 0], [0xff, 0xff]] {
            assert_eq!(with(51, &len), Err(wrong));
        }
        // What is called a link ends before its target; what is called a file goes on after its path.
        assert_eq!(decode(&patched(5, &[2])), Err(RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 46 }));
        assert_eq!(with(5, &[0]), Err(wrong));
        let mut empty = record[..53].to_vec();
        (empty[1], empty[51]) = (48, 0);
        assert_eq!(decode(&empty), Err(RecordError::LinkTarget(LinkTargetRefused::Empty)));
    }

    #[test]
    fn only_a_file_has_other_names_or_holes_and_holes_keep_their_rules() {
        let holes = Holes::parse(&[0..1, 3..5], 5).unwrap();
        for wrong in [
            Entry { first: Some(0), ..link() },
            Entry { first: Some(0), kind: EntryKind::Directory, ..entry() },
            Entry { holes: holes.clone(), kind: EntryKind::Directory, ..entry() },
        ] {
            assert_eq!(encode(&ProviderRecord::Entry(wrong)), Err(RecordError::NotOfAFile));
        }
        let short = Entry { holes: holes.clone(), size_bytes: 4, ..entry() };
        assert_eq!(encode(&ProviderRecord::Entry(short)), Err(RecordError::WrongHoles));
        let record = encode(&ProviderRecord::Entry(Entry { holes, ..entry() })).unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut record = record.clone();
            record[at..at + bytes.len()].copy_from_slice(bytes);
            decode(&record)
        };
        // The count is at 51, then start and length of each.
        for (at, wrong) in
            [(53, 2_u64), (53, u64::MAX), (61, 0), (61, 3), (61, 1 << 62), (69, 0), (69, 1), (77, 3)]
        {
            assert_eq!(with(at, &wrong.to_le_bytes()), Err(RecordError::WrongHoles), "{at} {wrong}");
        }
        let wrong = RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 80 };
        for count in [[1, 0], [3, 0], [0xff, 0xff]] {
            assert_eq!(with(51, &count), Err(wrong));
        }
        let mut none = record[..53].to_vec();
        (none[1], none[51]) = (48, 0);
        assert_eq!(decode(&none), Err(RecordError::WrongHoles));
        assert_eq!(with(5, &[0x21]), Err(RecordError::NotOfAFile));
        assert_eq!(with(5, &[0x60]), Err(RecordError::UnknownValue { field: "entry kind", value: 0x60 }));
    }

    #[test]
    fn the_longest_entry_fits_its_record_and_what_may_come_at_first() {
        let path = RelPath::parse(&[b"bb", &b"/a".repeat((16 << 10) - 1)[..]].concat()).unwrap();
        assert_eq!(path.as_bytes().len(), crate::limits::MAX_PATH_LEN_BYTES);
        let holes: Vec<_> = (0..1024).map(|at| 2 * at..2 * at + 1).collect();
        let holes = Holes::parse(&holes, 4096).unwrap();
        let entry = Entry { size_bytes: 4096, first: Some(0), holes, path, ..entry() };
        assert!(entry.cost_bytes() <= crate::limits::FIRST_ENTRY_BYTES);
        let record = encode(&ProviderRecord::Entry(entry.clone())).unwrap();
        assert_eq!(record.len() - 5, 49_205);
        assert_eq!(decode(&record), Ok(Some(ProviderRecord::Entry(entry))));
    }

    #[test]
    fn a_record_that_is_refused_leaves_no_bytes_behind() {
        let mut out = BytesMut::new();
        let too_large = Entry { size_bytes: u64::MAX, ..entry() };
        assert!(ProviderRecord::Entry(too_large).encode(&mut out).is_err());
        assert!(out.is_empty());
    }

    fn entry() -> Entry {
        Entry {
            kind: EntryKind::File,
            mode: 0o100_644,
            size_bytes: 5,
            mtime: Mtime { secs: -1, nanos: 1 },
            version: Version::from_bytes([b'v'; 16]),
            path: RelPath::parse(b"a/b").unwrap(),
            target: None,
            first: None,
            holes: Holes::default(),
        }
    }

    fn link() -> Entry {
        let target = Some(LinkTarget::parse(b"..").unwrap());
        Entry { kind: EntryKind::Symlink, size_bytes: 0, target, ..entry() }
    }

    fn encode(record: &ProviderRecord) -> Result<Vec<u8>, RecordError> {
        let mut out = BytesMut::new();
        record.encode(&mut out)?;
        Ok(out.to_vec())
    }

    fn decode(bytes: &[u8]) -> Result<Option<ProviderRecord>, RecordError> {
        let mut reader = RecordReader::new();
        reader.push(bytes.to_vec().into());
        reader.poll()
    }

    /// The record of `entry` with other bytes in one place.
    fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut record = encode(&ProviderRecord::Entry(entry())).unwrap();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        record
    }
}
