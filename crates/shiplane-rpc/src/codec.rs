//! Encodes and decodes envelopes (SPEC 5.2) and the bodies of methods.
//!
//! The encoding is bincode 1.3's legacy one: integers of fixed width, little-endian; lengths as u64;
//! variants as u32; nothing else. bincode is no longer maintained, so this is the only file that knows
//! it, and the golden bytes in its tests say what a successor must produce.
//!
//! Everything is at most 1 MiB, bytes after a value are refused, and a length that a peer claims costs
//! nothing before that many elements can be there: byte strings are cut from the input before they are
//! copied, and [`guard`](crate::guard) stands in front of sequences.

use std::collections::BTreeMap;

use bincode::{DefaultOptions, Options};
use bytes::Bytes;
use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed, Deserializer},
};
use shiplane_wire::{StreamHeader, StreamKind, limits::MAX_RPC_FRAME_LEN_BYTES};
use thiserror::Error;

use crate::{
    calls::CallId,
    fault::{Fault, FaultCode, MAX_FAULT_MESSAGE_LEN_BYTES},
    guard::{Budget, MAX_DEPTH, Refusal},
};

/// Encodes a value as a method's body.
///
/// ```
/// let body = shiplane_rpc::internals::encode(&(7_u16, "seven"))?;
/// assert_eq!(&body[..], b"\x07\0\x05\0\0\0\0\0\0\0seven");
/// # Ok::<(), shiplane_rpc::internals::EncodeError>(())
/// ```
///
/// # Errors
/// [`EncodeError::TooLarge`] when the value does not fit a frame: send it down the lane instead.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, EncodeError> {
    encoded_len(value)?;
    Ok(options().serialize(value)?.into())
}

/// Decodes a method's body.
///
/// A sequence of elements that take no bytes, such as `Vec<()>`, may have at most as many elements as
/// the whole body has bytes.
///
/// # Errors
/// [`DecodeError`]: the bytes are not exactly one `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_borrowed(bytes)
}

/// A value could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Over what a frame may hold.
    #[error("{len_bytes} bytes do not fit a call (at most {max_bytes}): send them as a chunk, on a lane")]
    TooLarge {
        /// The length of the encoded value.
        len_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The caller's misuse: this encoding has no form for the type, or its own `Serialize` failed.
    #[error("a value of this type has no encoding")]
    Unsupported,
}

/// Bytes that are not exactly one value of the type asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Over what a frame may hold; not looked at.
    #[error("{len_bytes} bytes are over the limit of {max_bytes}")]
    TooLarge {
        /// The length of the input.
        len_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The value, or a string that it claims to hold, is longer than the input.
    #[error("the value ends early")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the value")]
    TrailingBytes,
    /// A sequence claims more elements than the input can hold.
    #[error("a sequence claims {claimed} elements, at most {possible} are possible")]
    TooManyElements {
        /// What the length prefix says.
        claimed: u64,
        /// What the rest of the input could hold at most.
        possible: u64,
    },
    /// The values are nested deeper than any honest one.
    #[error("values are nested more than {max_depth} deep")]
    TooDeep {
        /// The limit.
        max_depth: u32,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    InvalidText,
    /// A byte that says which of two things follows says neither.
    #[error("{tag} is neither 0 nor 1")]
    InvalidTag {
        /// The byte.
        tag: u64,
    },
    /// The type refused a value, such as an unknown variant.
    #[error("a value is invalid for its type")]
    InvalidValue,
}

/// What a caller asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) call_id: CallId,
    pub(crate) method: String,
    /// What is left of the caller's budget.
    pub(crate) remaining_ms: u64,
    pub(crate) body: Bytes,
}

impl Request {
    /// The stream header and the envelope.
    pub(crate) fn encode(&self, kind: StreamKind) -> Result<Bytes, EncodeError> {
        frame(kind, &self.raw())
    }

    /// Whether the request fits a frame; found out without encoding it.
    pub(crate) fn check_len(&self) -> Result<(), EncodeError> {
        encoded_len(&self.raw()).map(|_| ())
    }

    fn raw(&self) -> RawRequest<'_> {
        RawRequest {
            call_id: self.call_id.as_u64(),
            method: &self.method,
            remaining_ms: self.remaining_ms,
            body: Octets(&self.body),
        }
    }

    pub(crate) fn decode(envelope: &Bytes) -> Result<Self, DecodeError> {
        let raw: RawRequest<'_> = decode_borrowed(envelope)?;
        Ok(Self {
            call_id: CallId::from_u64(raw.call_id),
            method: raw.method.to_owned(),
            remaining_ms: raw.remaining_ms,
            body: envelope.slice_ref(raw.body.0),
        })
    }
}

/// What the callee answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) call_id: CallId,
    pub(crate) outcome: Result<Bytes, Fault>,
}

impl Answer {
    /// The stream header and the envelope.
    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        let outcome = match &self.outcome {
            Ok(body) => RawOutcome::Body(Octets(body)),
            Err(fault) => RawOutcome::Fault(fault.code.as_u32(), fault.message()),
        };
        frame(StreamKind::RpcCall, &RawAnswer { call_id: self.call_id.as_u64(), outcome })
    }

    /// Cuts a fault's message that is too long to be kept.
    pub(crate) fn decode(envelope: &Bytes) -> Result<Self, DecodeError> {
        let raw: RawAnswer<'_> = decode_borrowed(envelope)?;
        let outcome = match raw.outcome {
            RawOutcome::Body(body) => Ok(envelope.slice_ref(body.0)),
            RawOutcome::Fault(code, message) => Err(Fault::new(FaultCode::from_u32(code), message)),
        };
        Ok(Self { call_id: CallId::from_u64(raw.call_id), outcome })
    }
}

/// For the fuzzer: whatever the bytes are, nothing panics, and what decodes encodes to the same again.
#[doc(hidden)]
pub fn fuzz_envelopes(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let is_same = |framed: Result<Bytes, EncodeError>| {
        framed.is_ok_and(|framed| framed.get(shiplane_wire::OPENING_LEN_BYTES..) == Some(&data[..]))
    };
    if let Ok(request) = Request::decode(&data) {
        assert!(is_same(request.encode(StreamKind::RpcCall)));
    }
    if let Ok(answer) = Answer::decode(&data) {
        // A long message was cut.
        let is_cut = |fault: &Fault| fault.message().len() + 4 > MAX_FAULT_MESSAGE_LEN_BYTES;
        assert!(is_same(answer.encode()) || answer.outcome.as_ref().is_err_and(is_cut));
    }
}

/// For the fuzzer: a body with a bit of everything.
#[doc(hidden)]
pub fn fuzz_body(data: &[u8]) {
    type Body = (Vec<Option<Result<String, i128>>>, BTreeMap<u16, Vec<()>>, (char, bool, f32), [u8; 3]);
    if let Ok(body) = decode::<Body>(data) {
        let Ok(encoded) = encode(&body) else { panic!("what was decoded has no encoding") };
        // A map may have come in another order, which is then lost, or with a key twice, which makes it shorter.
        let again = || decode::<Body>(&encoded).ok().and_then(|again| encode(&again).ok());
        assert!(encoded.len() < data.len() || again().is_some_and(|again| again == encoded));
    }
}

#[derive(Serialize, Deserialize)]
struct RawRequest<'a> {
    call_id: u64,
    method: &'a str,
    remaining_ms: u64,
    #[serde(borrow)]
    body: Octets<'a>,
}

#[derive(Serialize, Deserialize)]
struct RawAnswer<'a> {
    call_id: u64,
    #[serde(borrow)]
    outcome: RawOutcome<'a>,
}

/// The order of the variants is their number on the wire.
#[derive(Serialize, Deserialize)]
enum RawOutcome<'a> {
    #[serde(borrow)]
    Body(Octets<'a>),
    Fault(u32, &'a str),
}

/// Bytes that are written and cut out at once; serde would take a slice byte by byte.
struct Octets<'a>(&'a [u8]);

impl Serialize for Octets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Octets<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(deserializer).map(Self)
    }
}

fn frame<T: Serialize>(kind: StreamKind, envelope: &T) -> Result<Bytes, EncodeError> {
    let len_bytes = encoded_len(envelope)?;
    let header = StreamHeader::new(kind, len_bytes as u64).map_err(|_| too_large(len_bytes as u64))?;
    let mut framed = Vec::with_capacity(shiplane_wire::OPENING_LEN_BYTES + len_bytes);
    framed.extend_from_slice(&header.encode());
    options().serialize_into(&mut framed, envelope)?;
    Ok(framed.into())
}

fn encoded_len<T: Serialize + ?Sized>(value: &T) -> Result<usize, EncodeError> {
    let len_bytes = options().with_no_limit().serialized_size(value)?;
    match usize::try_from(len_bytes) {
        Ok(len) if len_bytes <= MAX_LEN_BYTES => Ok(len),
        _ => Err(too_large(len_bytes)),
    }
}

fn too_large(len_bytes: u64) -> EncodeError {
    EncodeError::TooLarge { len_bytes, max_bytes: MAX_LEN_BYTES }
}

fn decode_borrowed<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, DecodeError> {
    let len_bytes = input.len() as u64;
    if len_bytes > MAX_LEN_BYTES {
        return Err(DecodeError::TooLarge { len_bytes, max_bytes: MAX_LEN_BYTES });
    }
    let budget = Budget::new(input.len());
    let mut is_value_read = false;
    let seed = Noted { inner: budget.fence(std::marker::PhantomData), done: &mut is_value_read };
    options().deserialize_seed(seed, input).map_err(|error| match budget.refusal() {
        Some(Refusal::TooMany { claimed, possible }) => DecodeError::TooManyElements { claimed, possible },
        Some(Refusal::TooDeep) => DecodeError::TooDeep { max_depth: MAX_DEPTH },
        // bincode has no error of its own for this; after the value nothing else can fail.
        None if is_value_read => DecodeError::TrailingBytes,
        None => DecodeError::from(*error),
    })
}

/// A seed that notes whether it got its value.
struct Noted<'a, S> {
    inner: S,
    done: &'a mut bool,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Noted<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let value = self.inner.deserialize(deserializer)?;
        *self.done = true;
        Ok(value)
    }
}

fn options() -> impl Options + Copy {
    DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .reject_trailing_bytes()
        .with_limit(MAX_LEN_BYTES)
}

impl From<bincode::Error> for EncodeError {
    fn from(_: bincode::Error) -> Self {
        // The size was checked, and a Vec takes everything: only the type is left to blame.
        Self::Unsupported
    }
}

impl From<bincode::ErrorKind> for DecodeError {
    fn from(kind: bincode::ErrorKind) -> Self {
        use bincode::ErrorKind;
        match kind {
            // The limit is at least the input's length, so over it is over the input, too.
            ErrorKind::Io(_) | ErrorKind::SizeLimit => Self::Truncated,
            ErrorKind::InvalidUtf8Encoding(_) => Self::InvalidText,
            ErrorKind::InvalidBoolEncoding(tag) => Self::InvalidTag { tag: tag.into() },
            ErrorKind::InvalidTagEncoding(tag) => Self::InvalidTag { tag: tag as u64 },
            ErrorKind::InvalidCharEncoding
            | ErrorKind::DeserializeAnyNotSupported
            | ErrorKind::SequenceMustHaveLength
            | ErrorKind::Custom(_) => Self::InvalidValue,
        }
    }
}

const MAX_LEN_BYTES: u64 = MAX_RPC_FRAME_LEN_BYTES as u64;

#[cfg(test)]
mod tests;
