//! Records of the side that wants the files (SPEC 4.4).

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use super::fields::{Fields, put_record};
use super::left_out::{put_left_out, read_left_out};
use super::{LeftOutReason, Load, Record, RecordError, sealed};
use crate::limits::{
    MAX_BLOCK_AVERAGE_BYTES, MAX_FRAME_LEN_BYTES, MAX_PAYLOAD_CHUNK_LEN_BYTES, MAX_SPANS_PER_CHUNK,
    MIN_BLOCK_AVERAGE_BYTES,
};
use crate::{Digest, EscapedPath, fuzz};

/// What the receiver of a transfer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverRecord {
    /// Send this chunk. Chunks are numbered from 0 without gaps.
    WantChunk {
        /// Index of the chunk.
        index: u64,
        /// What it is made of: at least one span and at most
        /// [`MAX_SPANS_PER_CHUNK`], together at most [`MAX_PAYLOAD_CHUNK_LEN_BYTES`].
        spans: Vec<Span>,
    },
    /// Compute the digest of a whole file.
    WantDigest {
        /// Index of the entry.
        entry: u64,
    },
    /// No entry below this one will be wanted again.
    Release {
        /// Index of the first entry to keep.
        below: u64,
    },
    /// Everything wanted has arrived.
    Done {
        /// How many chunks that is.
        chunks: u64,
        /// The transfer's digest over them (SPEC 4.11).
        transfer_digest: Digest,
        /// How many entries have failed at the provider.
        failed: u64,
    },
    /// Still working.
    Alive,
    /// Requests the block signatures of this span.
    WantSignatures {
        /// The span; it may be longer than a chunk.
        span: Span,
        /// Average length of the blocks: a power of two within
        /// [`MIN_BLOCK_AVERAGE_BYTES`] and [`MAX_BLOCK_AVERAGE_BYTES`].
        average_bytes: u32,
    },
    /// The provider may send more entries.
    Admit {
        /// How many bytes of them in all, counted by [`Entry::cost_bytes`](crate::Entry::cost_bytes).
        bytes: u64,
    },
    /// A path of the manifest that the receiver does not have in the end.
    LeftOut {
        /// Why.
        reason: LeftOutReason,
        /// Which, in a form to print.
        path: EscapedPath,
        /// What the receiver's system says, if that is the cause, in a form to print. Only 255 bytes of it are sent.
        cause: EscapedPath,
    },
    /// What its last second was spent on.
    Load(Load),
}

impl ReceiverRecord {
    /// Appends the record to `out`.
    ///
    /// # Errors
    ///
    /// If the record breaks a rule; nothing is appended then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        self.check()?;
        match self {
            Self::WantChunk { index, spans } => put_record(out, WANT_CHUNK, |out| {
                out.put_u64_le(*index);
                put_spans(spans, out);
            }),
            Self::WantDigest { entry } => put_record(out, WANT_DIGEST, |out| out.put_u64_le(*entry)),
            Self::Release { below } => put_record(out, RELEASE, |out| out.put_u64_le(*below)),
            Self::Done { chunks, transfer_digest, failed } => put_record(out, DONE, |out| {
                out.put_u64_le(*chunks);
                out.put_slice(transfer_digest.as_bytes());
                out.put_u64_le(*failed);
            }),
            Self::Alive => put_record(out, ALIVE, |_| ()),
            Self::WantSignatures { span, average_bytes } => put_record(out, WANT_SIGNATURES, |out| {
                span.put(out);
                out.put_u32_le(*average_bytes);
            }),
            Self::Admit { bytes } => put_record(out, ADMIT, |out| out.put_u64_le(*bytes)),
            Self::LeftOut { reason, path, cause } => put_record(out, LEFT_OUT, |out| {
                put_left_out(*reason, path, out);
                put_cause(cause, out);
            }),
            Self::Load(load) => put_record(out, LOAD, |out| load.put(out)),
        }
        Ok(())
    }

    fn read(tag: u8, fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        Ok(match tag {
            WANT_CHUNK => Self::WantChunk { index: fields.u64()?, spans: read_spans(fields)? },
            WANT_DIGEST => Self::WantDigest { entry: fields.u64()? },
            RELEASE => Self::Release { below: fields.u64()? },
            DONE => Self::Done {
                chunks: fields.u64()?,
                transfer_digest: Digest::from_bytes(fields.array()?),
                failed: fields.u64()?,
            },
            ALIVE => Self::Alive,
            WANT_SIGNATURES => {
                Self::WantSignatures { span: Span::read(fields)?, average_bytes: fields.u32()? }
            }
            ADMIT => Self::Admit { bytes: fields.u64()? },
            LEFT_OUT => {
                let (reason, path) = read_left_out(fields)?;
                let len_bytes = fields.u8()?;
                let cause = EscapedPath::from_wire(fields.bytes(usize::from(len_bytes))?);
                Self::LeftOut { reason, path, cause: cause.ok_or(RecordError::NotEscaped)? }
            }
            LOAD => Self::Load(Load::read(fields)?),
            _ => return Err(RecordError::UnknownType { tag }),
        })
    }

    fn check(&self) -> Result<(), RecordError> {
        match self {
            Self::WantChunk { spans, .. } => check_spans(spans),
            &Self::WantSignatures { span, average_bytes } => {
                span.check()?;
                let is_known = (MIN_BLOCK_AVERAGE_BYTES..=MAX_BLOCK_AVERAGE_BYTES).contains(&average_bytes);
                match is_known && average_bytes.is_power_of_two() {
                    true => Ok(()),
                    false => Err(RecordError::BlockAverage { average_bytes }),
                }
            }
            Self::Load(load) => load.check(),
            Self::WantDigest { .. }
            | Self::Release { .. }
            | Self::Done { .. }
            | Self::Alive
            | Self::Admit { .. }
            | Self::LeftOut { .. } => Ok(()),
        }
    }
}

impl Record for ReceiverRecord {
    fn append_to(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        self.encode(out)
    }
}

impl sealed::Decode for ReceiverRecord {
    fn knows(tag: u8) -> bool {
        matches!(tag, WANT_CHUNK..=LOAD)
    }

    fn decode(tag: u8, body: &[u8]) -> Result<Self, RecordError> {
        let record = Fields::read_whole(tag, body, |fields| Self::read(tag, fields))?;
        record.check()?;
        Ok(record)
    }
}

/// A piece of a file: never empty, and it ends below 2^62. Whether it lies within its file, the provider
/// checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Index of the entry.
    pub entry: u64,
    /// Where in the file it starts.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
}

impl Span {
    const LEN_ON_WIRE_BYTES: usize = 24;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.entry);
        out.put_u64_le(self.offset_bytes);
        out.put_u64_le(self.len_bytes);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        Ok(Self { entry: fields.u64()?, offset_bytes: fields.u64()?, len_bytes: fields.u64()? })
    }

    fn check(&self) -> Result<(), RecordError> {
        let &Self { entry, offset_bytes, len_bytes } = self;
        if len_bytes == 0 {
            return Err(RecordError::EmptySpan { entry });
        }
        match offset_bytes.checked_add(len_bytes) {
            Some(end) if end <= MAX_FRAME_LEN_BYTES => Ok(()),
            Some(_) | None => Err(RecordError::SpanOverflow { entry, offset_bytes, len_bytes }),
        }
    }
}

pub(super) fn put_spans(spans: &[Span], out: &mut BytesMut) {
    out.put_u16_le(spans.len() as u16);
    spans.iter().for_each(|span| span.put(out));
}

pub(super) fn check_spans(spans: &[Span]) -> Result<(), RecordError> {
    check_count(spans.len())?;
    spans.iter().try_for_each(Span::check)?;
    let len_bytes = spans.iter().fold(0, |sum: u64, span| sum.saturating_add(span.len_bytes));
    if len_bytes > MAX_PAYLOAD_CHUNK_LEN_BYTES {
        return Err(RecordError::ChunkTooLarge { len_bytes, max_bytes: MAX_PAYLOAD_CHUNK_LEN_BYTES });
    }
    Ok(())
}

fn check_count(spans: usize) -> Result<(), RecordError> {
    match spans {
        0 => Err(RecordError::NoSpans),
        1..=MAX_SPANS_PER_CHUNK => Ok(()),
        _ => Err(RecordError::TooManySpans { spans, max_spans: MAX_SPANS_PER_CHUNK }),
    }
}

pub(super) fn read_spans(fields: &mut Fields<'_>) -> Result<Vec<Span>, RecordError> {
    let count = usize::from(fields.u16()?);
    check_count(count)?;
    // The bytes are there before room for the spans is made, so a large count costs nothing.
    let mut bytes = fields.part(count * Span::LEN_ON_WIRE_BYTES)?;
    (0..count).map(|_| Span::read(&mut bytes)).collect()
}

const WANT_CHUNK: u8 = 17;
const WANT_DIGEST: u8 = 18;
const RELEASE: u8 = 19;
const DONE: u8 = 20;
const ALIVE: u8 = 21;
const WANT_SIGNATURES: u8 = 22;
const ADMIT: u8 = 23;
const LEFT_OUT: u8 = 24;
const LOAD: u8 = 25;

/// Fuzz entry: part of a stream, then the stream.
pub fn fuzz_records_receiver(data: &[u8]) {
    fuzz::any_split(data, |pieces| fuzz::records(pieces, ReceiverRecord::encode));
}

/// As much as has a length of one byte, in whole characters.
fn put_cause(cause: &EscapedPath, out: &mut BytesMut) {
    let text = cause.as_str();
    let mut len_bytes = text.len().min(usize::from(u8::MAX));
    while !text.is_char_boundary(len_bytes) {
        len_bytes -= 1;
    }
    out.put_u8(len_bytes as u8);
    out.put_slice(&text.as_bytes()[..len_bytes]);
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::limits::MAX_RECORD_LEN_BYTES;
    use crate::{Code, RecordReader};

    #[test]
    fn records_have_these_bytes() {
        let spans = vec![span(1, 2, 3), span(4, 0x0102, 5)];
        let signatures = ReceiverRecord::WantSignatures { span: span(3, 4, 0x0201), average_bytes: 2048 };
        let cases: [(ReceiverRecord, &[u8]); 9] = [
            (
                ReceiverRecord::WantChunk { index: 9, spans },
                b"\x11\x3a\0\0\0\x09\0\0\0\0\0\0\0\x02\0\
                  \x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\
                  \x04\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\x05\0\0\0\0\0\0\0",
            ),
            (ReceiverRecord::WantDigest { entry: 7 }, b"\x12\x08\0\0\0\x07\0\0\0\0\0\0\0"),
            (ReceiverRecord::Release { below: 8 }, b"\x13\x08\0\0\0\x08\0\0\0\0\0\0\0"),
            (
                ReceiverRecord::Done {
                    chunks: 9,
                    transfer_digest: Digest::from_bytes([0xdd; 32]),
                    failed: 2,
                },
                &[&b"\x14\x30\0\0\0\x09\0\0\0\0\0\0\0"[..], &[0xdd; 32], b"\x02\0\0\0\0\0\0\0"].concat(),
            ),
            (ReceiverRecord::Alive, b"\x15\0\0\0\0"),
            (
                ReceiverRecord::Load(Load { disk: 90, network: 10, ..Load::default() }),
                b"\x19\x07\0\0\0\x5a\0\0\x0a\0\0\0",
            ),
            (
                ReceiverRecord::LeftOut {
                    reason: LeftOutReason::InTheWay,
                    path: EscapedPath::new(b"x\x1b"),
                    cause: EscapedPath::new(b"no"),
                },
                b"\x18\x0b\0\0\0\x08\x05\0x\\x1b\x02no",
            ),
            (ReceiverRecord::Admit { bytes: 0x0102 }, b"\x17\x08\0\0\0\x02\x01\0\0\0\0\0\0"),
            (signatures, b"\x16\x1c\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x08\0\0"),
        ];
        for (record, bytes) in cases {
            let mut out = BytesMut::new();
            record.encode(&mut out).unwrap();
            assert_eq!(out, bytes, "{record:?}");
            assert_eq!(decode(out), Ok(Some(record)));
        }
    }

    #[test]
    fn of_a_long_cause_the_beginning_is_sent_and_what_drives_a_terminal_is_refused() {
        let (reason, path) = (LeftOutReason::Failed, EscapedPath::new(b"x"));
        let cause = EscapedPath::new("é".repeat(200).as_bytes());
        let mut out = BytesMut::new();
        ReceiverRecord::LeftOut { reason, path: path.clone(), cause }.encode(&mut out).unwrap();
        let cause = EscapedPath::new("é".repeat(127).as_bytes());
        assert_eq!(decode(out.clone()), Ok(Some(ReceiverRecord::LeftOut { reason, path, cause })));
        let last = out.len() - 1;
        for ending in [0x1b, 0xff] {
            out[last] = ending;
            assert_eq!(decode(out.clone()), Err(RecordError::NotEscaped));
        }
    }

    #[test]
    fn the_largest_want_fits_in_a_record() {
        let len_bytes = MAX_PAYLOAD_CHUNK_LEN_BYTES / 1024;
        let spans = vec![span(u64::MAX, 1 << 61, len_bytes); 1024];
        let want = ReceiverRecord::WantChunk { index: u64::MAX, spans };
        let mut out = BytesMut::new();
        want.encode(&mut out).unwrap();
        assert!(out.len() - 5 <= MAX_RECORD_LEN_BYTES as usize);
        assert_eq!(decode(out), Ok(Some(want)));
    }

    #[test]
    fn a_want_that_breaks_a_rule_is_neither_sent_nor_taken() {
        let most = MAX_PAYLOAD_CHUNK_LEN_BYTES;
        let beyond = span(7, MAX_FRAME_LEN_BYTES, 1);
        let overflow = span(7, u64::MAX, 1);
        let overflow_of = |Span { entry, offset_bytes, len_bytes }| RecordError::SpanOverflow {
            entry,
            offset_bytes,
            len_bytes,
        };
        let too_large = |len_bytes| RecordError::ChunkTooLarge { len_bytes, max_bytes: most };
        let too_many = RecordError::TooManySpans { spans: 1025, max_spans: 1024 };
        let bad = [
            (vec![], RecordError::NoSpans, Code::Protocol),
            (vec![span(0, 0, 1), span(7, 5, 0)], RecordError::EmptySpan { entry: 7 }, Code::Protocol),
            (vec![beyond], overflow_of(beyond), Code::Protocol),
            (vec![overflow], overflow_of(overflow), Code::Protocol),
            (vec![span(0, 0, most), span(1, 0, 1)], too_large(most + 1), Code::TooLarge),
            (vec![span(0, 0, 1 << 61); 9], too_large(u64::MAX), Code::TooLarge),
            (vec![span(0, 0, 1); 1025], too_many, Code::TooLarge),
        ];
        for (spans, error, code) in bad {
            let want = ReceiverRecord::WantChunk { index: 0, spans: spans.clone() };
            let mut out = BytesMut::new();
            assert_eq!(want.encode(&mut out), Err(error));
            assert!(out.is_empty());
            assert_eq!(decode(unchecked(&spans)), Err(error));
            assert_eq!(error.code(), code);
        }
        assert!(span(0, MAX_FRAME_LEN_BYTES - 1, 1).check().is_ok());
    }

    #[test]
    fn the_average_block_length_and_the_span_are_checked() {
        let want = |span, average_bytes| ReceiverRecord::WantSignatures { span, average_bytes };
        let mut good = BytesMut::new();
        want(span(0, 0, 1), 1 << 10).encode(&mut good).unwrap();
        for average_bytes in [0, 512, 1000, 3 << 10, 2 << 20, u32::MAX] {
            let error = RecordError::BlockAverage { average_bytes };
            assert_eq!(want(span(0, 0, 1), average_bytes).encode(&mut BytesMut::new()), Err(error));
            let mut bytes = good.clone();
            bytes[29..].copy_from_slice(&average_bytes.to_le_bytes());
            assert_eq!(decode(bytes), Err(error));
            assert_eq!(error.code(), Code::Protocol);
        }
        good[21] = 0;
        assert_eq!(decode(good), Err(RecordError::EmptySpan { entry: 0 }));
    }

    #[test]
    fn a_count_that_contradicts_the_length_is_refused() {
        let mut want = unchecked(&[span(0, 0, 1), span(0, 1, 1)]);
        let wrong = RecordError::WrongBodyLen { tag: WANT_CHUNK, len_bytes: 58 };
        for count in [1, 3, 4] {
            want[13] = count;
            assert_eq!(decode(want.clone()), Err(wrong));
        }
    }

    fn span(entry: u64, offset_bytes: u64, len_bytes: u64) -> Span {
        Span { entry, offset_bytes, len_bytes }
    }

    fn unchecked(spans: &[Span]) -> BytesMut {
        let mut out = BytesMut::new();
        put_record(&mut out, WANT_CHUNK, |out| {
            out.put_u64_le(0);
            out.put_u16_le(spans.len() as u16);
            spans.iter().for_each(|span| span.put(out));
        });
        out
    }

    fn decode(bytes: BytesMut) -> Result<Option<ReceiverRecord>, RecordError> {
        let mut reader = RecordReader::new();
        reader.push(bytes.freeze());
        reader.poll()
    }
}
