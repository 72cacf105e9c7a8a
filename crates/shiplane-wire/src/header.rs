//! The first bytes of a stream, which decide its type (SPEC 2).

use core::fmt;

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::limits::{MAX_FRAME_LEN_BYTES, MAX_MESSAGE_LEN_BYTES, MAX_RPC_FRAME_LEN_BYTES};
use crate::{Code, fuzz, hex};

/// Every stream opens with this many bytes, which tell the kinds of stream apart.
pub const OPENING_LEN_BYTES: usize = 8;

/// Reads the opening of a stream, and the header's body where it is needed to know whom the stream is
/// for, from pieces of any size.
///
/// Give [`push`](Self::push) what arrived until it returns an [`Opened`]; what it left of the input is the
/// first part of what follows on the stream. If the stream ends before that, [`end`](Self::end) has the
/// error. It holds at most 32 bytes.
///
/// ```
/// # use shiplane_wire::{Opened, OpeningReader, TaggedChunk, TransferId};
/// # use bytes::Bytes;
/// let tagged = TaggedChunk { transfer: TransferId::from_bytes([7; 16]), index: 3 };
/// let mut reader = OpeningReader::new();
/// let mut input = Bytes::from([&tagged.encode()[..], b"and the frame"].concat());
/// assert_eq!(reader.push(&mut input)?, Some(Opened::Tagged(tagged)));
/// assert_eq!(&input[..], b"and the frame");
/// # Ok::<(), shiplane_wire::OpeningError>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpeningReader {
    held: [u8; TaggedChunk::LEN_BYTES],
    filled: usize,
    /// Bytes needed before the next decision.
    due: usize,
    outcome: Option<Result<Opened, OpeningError>>,
}

impl OpeningReader {
    /// Waits for the first byte.
    pub fn new() -> Self {
        Self { held: [0; TaggedChunk::LEN_BYTES], filled: 0, due: OPENING_LEN_BYTES, outcome: None }
    }

    /// Takes from `input` what belongs to the opening; `None` asks for more input.
    ///
    /// Once the opening is complete or refused, it takes nothing and gives the same answer again.
    ///
    /// # Errors
    ///
    /// The stream cannot be understood: reset it with [`OpeningError::code`]. Other streams of the
    /// connection are unharmed (SPEC 2.3).
    pub fn push(&mut self, input: &mut Bytes) -> Result<Option<Opened>, OpeningError> {
        loop {
            if let Some(outcome) = self.outcome {
                return outcome.map(Some);
            }
            let part = input.len().min(self.due - self.filled);
            input.copy_to_slice(&mut self.held[self.filled..self.filled + part]);
            self.filled += part;
            if self.filled < self.due {
                return Ok(None);
            }
            self.decide();
        }
    }

    /// Says that the stream ended.
    ///
    /// # Errors
    ///
    /// [`OpeningError::Truncated`] if the opening was not complete, or the error that refused it.
    pub fn end(&mut self) -> Result<(), OpeningError> {
        let (received_bytes, expected_bytes) = (self.filled, self.due);
        let truncated = OpeningError::Truncated { received_bytes, expected_bytes };
        self.outcome.get_or_insert(Err(truncated)).map(|_| ())
    }

    fn decide(&mut self) {
        let opening = match Opening::decode(array_at(&self.held, 0)) {
            Ok(opening) => opening,
            Err(error) => {
                self.outcome = Some(Err(error));
                return;
            }
        };
        self.due = OPENING_LEN_BYTES + opening.inline_body_len();
        if self.filled == self.due {
            self.outcome = Some(Ok(opening.with_body(&self.held)));
        }
    }
}

impl Default for OpeningReader {
    fn default() -> Self {
        Self::new()
    }
}

/// The type of a stream, as far as needed to route it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A bare chunk: `len_bytes` is the size field of its frame, the data follows. Make an
    /// [`Offer`](crate::Offer) of it.
    Bare {
        /// Size of the chunk.
        len_bytes: u64,
    },
    /// A chunk of a transfer; a whole frame follows, its size field first
    /// ([`SizeReader`](crate::SizeReader)).
    Tagged(TaggedChunk),
    /// The same, and the frame carries an encoded payload, as was agreed on for the transfer (SPEC 4.15).
    Compressed(TaggedChunk),
    /// The records of this transfer follow (`RecordReader`).
    Records(TransferId),
    /// An RPC request follows, or on the other half of a call its answer.
    Rpc {
        /// Length of the envelope, within [`MAX_RPC_FRAME_LEN_BYTES`].
        body_len_bytes: u32,
    },
    /// An RPC request that wants no answer follows.
    OneWay {
        /// Length of the envelope, within [`MAX_RPC_FRAME_LEN_BYTES`].
        body_len_bytes: u32,
    },
    /// A message follows.
    Message {
        /// Length of the message, within [`MAX_MESSAGE_LEN_BYTES`].
        body_len_bytes: u32,
    },
}

/// The first 8 bytes of a stream, understood and within the limits (SPEC 2.1, 2.2).
///
/// [`OpeningReader`] does this for a stream; this is for those who have the 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The size field of a bare chunk frame.
    BareChunk {
        /// Size of the chunk, at most [`MAX_FRAME_LEN_BYTES`].
        len_bytes: u64,
    },
    /// A stream header; its body follows.
    Header(StreamHeader),
}

impl Opening {
    /// Decides what the stream is.
    ///
    /// # Errors
    ///
    /// Any of [`OpeningError`] but `Truncated`; reset the stream with its [`code`](OpeningError::code).
    pub fn decode(bytes: [u8; OPENING_LEN_BYTES]) -> Result<Self, OpeningError> {
        let word = u64::from_le_bytes(bytes);
        match word >> TOP_BITS_SHIFT {
            0b00 => Ok(Self::BareChunk { len_bytes: word }),
            0b11 => StreamHeader::decode(word).map(Self::Header),
            _ => Err(OpeningError::ReservedTopBits { word }),
        }
    }

    /// How much of the header's body an [`OpeningReader`] reads.
    const fn inline_body_len(self) -> usize {
        match self {
            Self::BareChunk { .. } => 0,
            Self::Header(header) => match header.kind {
                StreamKind::TaggedChunk | StreamKind::CompressedChunk => TaggedChunk::BODY_LEN_BYTES,
                StreamKind::Records => TransferId::LEN_BYTES,
                StreamKind::RpcCall | StreamKind::OneWay | StreamKind::Message => 0,
            },
        }
    }

    fn with_body(self, held: &[u8; TaggedChunk::LEN_BYTES]) -> Opened {
        let StreamHeader { kind, body_len_bytes } = match self {
            Self::BareChunk { len_bytes } => return Opened::Bare { len_bytes },
            Self::Header(header) => header,
        };
        match kind {
            StreamKind::RpcCall => Opened::Rpc { body_len_bytes },
            StreamKind::OneWay => Opened::OneWay { body_len_bytes },
            StreamKind::Message => Opened::Message { body_len_bytes },
            StreamKind::TaggedChunk => {
                Opened::Tagged(TaggedChunk::decode_body(array_at(held, OPENING_LEN_BYTES)))
            }
            StreamKind::CompressedChunk => {
                Opened::Compressed(TaggedChunk::decode_body(array_at(held, OPENING_LEN_BYTES)))
            }
            StreamKind::Records => Opened::Records(TransferId(array_at(held, OPENING_LEN_BYTES))),
        }
    }
}

/// A stream header whose body length its kind allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    kind: StreamKind,
    body_len_bytes: u32,
}

impl StreamHeader {
    /// The header of a stream of `kind` whose body is `body_len_bytes` long.
    ///
    /// # Errors
    ///
    /// [`OpeningError::TooLarge`] if the body is too long for the kind (send it as a chunk instead),
    /// [`OpeningError::WrongBodyLen`] if the kind has a fixed length and this is not it.
    pub fn new(kind: StreamKind, body_len_bytes: u64) -> Result<Self, OpeningError> {
        let (min_bytes, max_bytes) = kind.body_bounds();
        match u32::try_from(body_len_bytes) {
            Ok(len_bytes) if (min_bytes..=max_bytes).contains(&len_bytes) => {
                Ok(Self { kind, body_len_bytes: len_bytes })
            }
            Ok(_) | Err(_) if min_bytes == max_bytes => {
                Err(OpeningError::WrongBodyLen { kind, len_bytes: body_len_bytes, expected_bytes: max_bytes })
            }
            Ok(_) | Err(_) => Err(OpeningError::TooLarge { kind, len_bytes: body_len_bytes, max_bytes }),
        }
    }

    /// The kind of the stream.
    pub const fn kind(self) -> StreamKind {
        self.kind
    }

    /// Length of the body that follows the header.
    pub const fn body_len_bytes(self) -> u32 {
        self.body_len_bytes
    }

    /// The header in wire format.
    pub const fn encode(self) -> [u8; OPENING_LEN_BYTES] {
        let top = 0b11 << TOP_BITS_SHIFT;
        let kind = (self.kind as u64) << KIND_SHIFT;
        (top | kind | self.body_len_bytes as u64).to_le_bytes()
    }

    fn decode(word: u64) -> Result<Self, OpeningError> {
        // An unknown kind comes first: a newer peer may have found a use for the reserved bits in it.
        let kind = StreamKind::from_bits((word >> KIND_SHIFT & KIND_MASK) as u8)?;
        match word >> RESERVED_SHIFT & RESERVED_MASK {
            0 => Self::new(kind, word & BODY_LEN_MASK),
            bits => Err(OpeningError::ReservedBits { bits }),
        }
    }
}

/// The kinds of stream that have a header (SPEC 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// An RPC request; its answer comes back on the same stream.
    RpcCall = 1,
    /// An RPC request that is answered by FIN only.
    OneWay = 2,
    /// Opaque bytes, answered by FIN once the receiver has taken them.
    Message = 3,
    /// A chunk of a transfer.
    TaggedChunk = 4,
    /// The records of a transfer.
    Records = 5,
    /// A chunk of a transfer, in an encoded payload.
    CompressedChunk = 6,
}

impl StreamKind {
    fn from_bits(kind: u8) -> Result<Self, OpeningError> {
        match kind {
            1 => Ok(Self::RpcCall),
            2 => Ok(Self::OneWay),
            3 => Ok(Self::Message),
            4 => Ok(Self::TaggedChunk),
            5 => Ok(Self::Records),
            6 => Ok(Self::CompressedChunk),
            _ => Err(OpeningError::UnknownKind { kind }),
        }
    }

    /// Shortest and longest body.
    const fn body_bounds(self) -> (u32, u32) {
        match self {
            Self::RpcCall | Self::OneWay => (0, MAX_RPC_FRAME_LEN_BYTES),
            Self::Message => (0, MAX_MESSAGE_LEN_BYTES),
            Self::TaggedChunk | Self::CompressedChunk => {
                (TaggedChunk::BODY_LEN_BYTES as u32, TaggedChunk::BODY_LEN_BYTES as u32)
            }
            Self::Records => (TransferId::LEN_BYTES as u32, TransferId::LEN_BYTES as u32),
        }
    }
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RpcCall => "RPC call",
            Self::OneWay => "one-way",
            Self::Message => "message",
            Self::TaggedChunk => "tagged chunk",
            Self::Records => "records",
            Self::CompressedChunk => "compressed chunk",
        })
    }
}

/// The random name of one transfer; its text form is 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId([u8; Self::LEN_BYTES]);

impl TransferId {
    /// Length of an id on the wire.
    pub const LEN_BYTES: usize = 16;

    /// Takes 16 bytes, random when the transfer is new.
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// The id in wire format.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

/// The transfer and the index of the chunk that a stream carries; a chunk frame follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaggedChunk {
    /// The transfer.
    pub transfer: TransferId,
    /// Index of the chunk, as its receiver numbered it.
    pub index: u64,
}

impl TaggedChunk {
    /// Length of the body of the header.
    pub const BODY_LEN_BYTES: usize = TransferId::LEN_BYTES + 8;
    /// Length of the header with its body.
    pub const LEN_BYTES: usize = OPENING_LEN_BYTES + Self::BODY_LEN_BYTES;

    /// Everything that comes before the chunk frame.
    pub fn encode(&self) -> [u8; Self::LEN_BYTES] {
        self.encode_as(StreamKind::TaggedChunk)
    }

    /// The same for a frame with an encoded payload.
    pub fn encode_compressed(&self) -> [u8; Self::LEN_BYTES] {
        self.encode_as(StreamKind::CompressedChunk)
    }

    fn encode_as(&self, kind: StreamKind) -> [u8; Self::LEN_BYTES] {
        let header = StreamHeader { kind, body_len_bytes: Self::BODY_LEN_BYTES as u32 };
        let mut bytes = [0; Self::LEN_BYTES];
        bytes[..OPENING_LEN_BYTES].copy_from_slice(&header.encode());
        bytes[OPENING_LEN_BYTES..][..TransferId::LEN_BYTES].copy_from_slice(&self.transfer.0);
        bytes[OPENING_LEN_BYTES + TransferId::LEN_BYTES..].copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    /// Reads the body; every 24 bytes are a tag.
    pub fn decode_body(body: [u8; Self::BODY_LEN_BYTES]) -> Self {
        let index = u64::from_le_bytes(array_at(&body, TransferId::LEN_BYTES));
        Self { transfer: TransferId(array_at(&body, 0)), index }
    }
}

/// What the stream with the records of `transfer` opens with.
pub fn records_opening(transfer: TransferId) -> [u8; OPENING_LEN_BYTES + TransferId::LEN_BYTES] {
    let header = StreamHeader { kind: StreamKind::Records, body_len_bytes: TransferId::LEN_BYTES as u32 };
    let mut bytes = [0; OPENING_LEN_BYTES + TransferId::LEN_BYTES];
    bytes[..OPENING_LEN_BYTES].copy_from_slice(&header.encode());
    bytes[OPENING_LEN_BYTES..].copy_from_slice(&transfer.0);
    bytes
}

/// Why a stream's opening was refused. All but [`Truncated`](Self::Truncated) are decided on 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum OpeningError {
    /// The peer ended the stream too early.
    #[error("the stream ended after {received_bytes} bytes of an opening of {expected_bytes}")]
    Truncated {
        /// What arrived.
        received_bytes: usize,
        /// What the stream's kind needs, as far as it was known.
        expected_bytes: usize,
    },
    /// The peer sent neither a size nor a header: the top bits are `01` or `10`.
    #[error("the stream opens with the reserved top bits of {word:#018x}")]
    ReservedTopBits {
        /// The opening, read as a little-endian number.
        word: u64,
    },
    /// The peer set bits of a stream header that must be zero.
    #[error("the stream header has the reserved bits {bits:#08x} set")]
    ReservedBits {
        /// The 24 reserved bits.
        bits: u64,
    },
    /// The body of the header must have one length, and the peer gave another.
    #[error("the body of a {kind} stream header is {len_bytes} bytes long instead of {expected_bytes}")]
    WrongBodyLen {
        /// What the stream would be.
        kind: StreamKind,
        /// The length in the header.
        len_bytes: u64,
        /// The only right one.
        expected_bytes: u32,
    },
    /// The peer is newer than we are, or broken.
    #[error("the stream kind {kind} is unknown")]
    UnknownKind {
        /// The 6 bits of kind.
        kind: u8,
    },
    /// The body is over our limit. Send it as a chunk.
    #[error(
        "the body of a {kind} stream is {len_bytes} bytes long, the limit is {max_bytes}; send it as a chunk"
    )]
    TooLarge {
        /// What the stream would be.
        kind: StreamKind,
        /// The length in the header.
        len_bytes: u64,
        /// The limit of the kind.
        max_bytes: u32,
    },
}

impl OpeningError {
    /// The code to reset the stream with.
    pub const fn code(&self) -> Code {
        match self {
            Self::Truncated { .. }
            | Self::ReservedTopBits { .. }
            | Self::ReservedBits { .. }
            | Self::WrongBodyLen { .. } => Code::Protocol,
            Self::UnknownKind { .. } => Code::UnknownKind,
            Self::TooLarge { .. } => Code::TooLarge,
        }
    }
}

// From the top: 2 bits `11`, 6 bits kind, 24 bits reserved, 32 bits body length (SPEC 2.2).
const TOP_BITS_SHIFT: u32 = 62;
const KIND_SHIFT: u32 = 56;
const KIND_MASK: u64 = 0x3f;
const RESERVED_SHIFT: u32 = 32;
const RESERVED_MASK: u64 = 0xff_ffff;
const BODY_LEN_MASK: u64 = 0xffff_ffff;

// A size with its top bits clear is within the limit of a frame, so telling the two apart checks it.
const _: () =
    assert!(MAX_FRAME_LEN_BYTES >> TOP_BITS_SHIFT == 0 && (MAX_FRAME_LEN_BYTES + 1) >> TOP_BITS_SHIFT == 1);

/// `bytes` from `at` on, where the caller knows that there are `N`.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Fuzz entry: a cut of a stream, then the stream.
pub fn fuzz_opening(data: &[u8]) {
    fuzz::any_split(data, fuzz::open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_these_bytes() {
        let header = |kind, len| StreamHeader::new(kind, len).map(StreamHeader::encode);
        assert_eq!(header(StreamKind::RpcCall, 0x0102), Ok([2, 1, 0, 0, 0, 0, 0, 0xc1]));
        assert_eq!(header(StreamKind::OneWay, 0), Ok([0, 0, 0, 0, 0, 0, 0, 0xc2]));
        assert_eq!(header(StreamKind::Message, 1 << 20), Ok([0, 0, 16, 0, 0, 0, 0, 0xc3]));
        assert_eq!(header(StreamKind::TaggedChunk, 24), Ok([24, 0, 0, 0, 0, 0, 0, 0xc4]));
        assert_eq!(header(StreamKind::Records, 16), Ok([16, 0, 0, 0, 0, 0, 0, 0xc5]));
    }

    #[test]
    fn a_tag_has_these_bytes() {
        let transfer = TransferId::from_bytes(*b"0123456789abcdef");
        let bytes = TaggedChunk { transfer, index: 0x0102 }.encode();
        let expected = b"\x18\0\0\0\0\0\0\xc40123456789abcdef\x02\x01\0\0\0\0\0\0";
        assert_eq!(&bytes, expected);
        assert_eq!(&records_opening(transfer), b"\x10\0\0\0\0\0\0\xc50123456789abcdef");
    }

    #[test]
    fn the_top_bits_tell_streams_apart() {
        let decode = |word: u64| Opening::decode(word.to_le_bytes());
        assert_eq!(decode(5), Ok(Opening::BareChunk { len_bytes: 5 }));
        let most = MAX_FRAME_LEN_BYTES;
        assert_eq!(decode(most), Ok(Opening::BareChunk { len_bytes: most }));
        for word in [1 << 62, 1 << 63, (1 << 63) | 5] {
            assert_eq!(decode(word), Err(OpeningError::ReservedTopBits { word }));
        }
        assert_eq!(decode(u64::MAX), Err(OpeningError::UnknownKind { kind: 63 }));
    }

    #[test]
    fn a_header_that_breaks_a_rule_is_refused_with_its_code() {
        let refused = |bytes, error: OpeningError, code| {
            assert_eq!(Opening::decode(bytes), Err(error));
            assert_eq!(error.code(), code);
        };
        let unknown = OpeningError::UnknownKind { kind: 7 };
        refused([0, 0, 0, 0, 0, 0, 0, 0xc7], unknown, Code::UnknownKind);
        let reserved = OpeningError::ReservedBits { bits: 0x80_0000 };
        refused([0, 0, 0, 0, 0, 0, 0x80, 0xc1], reserved, Code::Protocol);
        let kind = StreamKind::RpcCall;
        let (len_bytes, max_bytes) = (u64::from(u32::MAX), 1 << 20);
        let too_large = OpeningError::TooLarge { kind, len_bytes, max_bytes };
        refused([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xc1], too_large, Code::TooLarge);
        let kind = StreamKind::TaggedChunk;
        let wrong = OpeningError::WrongBodyLen { kind, len_bytes: 25, expected_bytes: 24 };
        refused([25, 0, 0, 0, 0, 0, 0, 0xc4], wrong, Code::Protocol);
    }

    #[test]
    fn a_body_of_a_wrong_length_is_not_sent() {
        let (kind, len_bytes) = (StreamKind::Message, (1 << 20) + 1);
        let error = OpeningError::TooLarge { kind, len_bytes, max_bytes: 1 << 20 };
        assert_eq!(StreamHeader::new(kind, len_bytes), Err(error));
        let (kind, expected_bytes) = (StreamKind::Records, 16);
        for len_bytes in [0, 15, 17, u64::MAX] {
            let error = OpeningError::WrongBodyLen { kind, len_bytes, expected_bytes };
            assert_eq!(StreamHeader::new(kind, len_bytes), Err(error));
        }
        assert!(StreamHeader::new(kind, u64::MAX).is_err());
    }
}
