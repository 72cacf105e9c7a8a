//! Compression of chunks: negotiated per transfer, verified after decoding.
//!
//! An encoded payload is what the chunk frame then carries and hashes as it would any other:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | encoding of the body: 0 stored, 1 zstd |
//! | 32 | digest of the content |
//! | the rest | the content so encoded |
//!
//! The two sides agree by RPC that a transfer's chunks are encoded, and on the *decoded* size of each.
//! Whether a chunk shrinks is the sender's to see: what does not is stored. [`EncodedSource`] goes where
//! the plain source would, [`DecodingSink`] wraps the plain sink. The receiver's sink commits with the
//! proof that the *content* has its digest: the decoded bytes pass through a chunk receiver of their own.

use std::{
    fmt,
    io::{self, Write as _},
};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use shiplane_transport::{
    ChunkSource, LaneOptions, RecvChunkError,
    internals::{ChunkRead, ChunkSink, InboundChunk, SourceError},
};
use shiplane_wire::{
    ChunkReceiver, Code, Digest, FrameError, Hasher, Offer, RecvError, RecvStep, Stored, Verified, limits,
};
use thiserror::Error;
use zstd::{stream::write::Decoder, zstd_safe::CParameter};

use crate::content::{hash_source, read_whole};

/// Whether to compress what is sent, if the receiver agrees.
///
/// Ordered by how much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Compression {
    /// All of it is sent as it is.
    #[default]
    Never,
    /// Where a sample of the content shrinks: costs little for media and archives.
    Auto,
    /// Try all of it; what does not shrink is stored.
    Always,
}

/// A source, read and encoded; send it in place of the plain one.
#[derive(Debug)]
pub struct EncodedSource {
    rest: Bytes,
    digest: Digest,
}

impl EncodedSource {
    /// Reads and encodes all of `source`; the digest of its content is SHA-256. Blocking, and busy: for a blocking
    /// thread.
    ///
    /// # Errors
    /// The source failed, or has more than [`MAX_ENCODED_CONTENT_BYTES`] (`FileTooLarge`): it is encoded in memory.
    pub fn encode<R: ChunkRead>(mut source: R, compression: Compression) -> Result<Self, SourceError> {
        let len_bytes = source.len_bytes();
        if len_bytes > MAX_ENCODED_CONTENT_BYTES {
            return Err(SourceError::Io(io::ErrorKind::FileTooLarge.into()));
        }
        let content = read_whole(&mut source)?.freeze();
        let compressed = match compression {
            Compression::Auto if !sample_shrinks(&content)? => None,
            Compression::Never => None,
            Compression::Auto | Compression::Always => {
                let content = ChunkSource::Memory(content.clone()).open()?;
                Self::compress(content, Compression::Always, Hasher::sha256())?
            }
        };
        let stored = || Self::new(STORED, Digest::sha256(&content), &content, len_bytes);
        Ok(compressed.unwrap_or_else(stored))
    }

    /// Compresses `source` as it is read, so that only what comes of it is held. `None` once it is plain
    /// that it does not shrink: send it as it is. Blocking, and busy.
    pub(crate) fn compress<R: ChunkRead>(
        mut source: R,
        compression: Compression,
        mut hasher: Hasher,
    ) -> Result<Option<Self>, SourceError> {
        let len_bytes = source.len_bytes();
        let most_bytes = worthwhile_len(usize::try_from(len_bytes).unwrap_or(usize::MAX));
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(SourceError::Io)?;
        let window = CParameter::WindowLog(WINDOW_LOG_MAX);
        encoder.set_parameter(window).map_err(SourceError::Io)?;
        let mut is_first = true;
        let read = hash_source(&mut source, &mut hasher, SAMPLE_LEN, |part| {
            let is_sample = std::mem::take(&mut is_first) && compression == Compression::Auto;
            if is_sample && !sample_shrinks(part)? {
                return Err(None);
            }
            encoder.write_all(part).map_err(SourceError::Io)?;
            if encoder.get_ref().len() < most_bytes { Ok(()) } else { Err(None) }
        });
        // Without an error it would not be shorter.
        if let Err(error) = read {
            return error.map_or(Ok(None), Err);
        }
        let compressed = encoder.finish().map_err(SourceError::Io)?;
        if compressed.len() >= most_bytes {
            return Ok(None);
        }
        Ok(Some(Self::new(ZSTD, hasher.finish(), &compressed, len_bytes)))
    }

    fn new(encoding: u8, digest: Digest, body: &[u8], content_bytes: u64) -> Self {
        let mut payload = BytesMut::with_capacity(HEAD_LEN + body.len());
        payload.put_u8(encoding);
        payload.put_slice(digest.as_bytes());
        payload.put_slice(body);
        pad(&mut payload, content_bytes);
        Self { rest: payload.freeze(), digest }
    }

    /// Digest of the content.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl ChunkRead for EncodedSource {
    fn len_bytes(&self) -> u64 {
        self.rest.len() as u64
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        Ok(self.rest.split_to(max_len_bytes.min(self.rest.len())))
    }

    /// The content was checked when it was read.
    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Receives an encoded chunk into a sink that knows nothing of it. Its content is agreed to be `content_bytes`, of which
/// no more is ever decoded (SPEC 4.16), and `hasher` is a new one of the digest that was agreed on for that.
pub(crate) async fn receive_encoded<S: ChunkSink>(
    chunk: InboundChunk,
    content_bytes: u64,
    sink: S,
    hasher: Hasher,
    options: &LaneOptions,
) -> Result<S::Output, RecvChunkError<DecodeSinkError<S::Error>>> {
    let (wire_bytes, max_bytes) = (chunk.len_bytes(), content_bytes.saturating_add(HEAD_LEN as u64));
    let sink = if wire_bytes > max_bytes {
        Err(FrameError::TooLarge { len_bytes: wire_bytes, max_bytes }.into())
    } else {
        DecodingSink::new(sink, hasher, content_bytes, wire_bytes)
    };
    match sink {
        Ok(sink) => chunk.receive(wire_bytes, sink, options).await,
        Err(refused) => {
            chunk.refuse(Code::TooLarge).await;
            Err(RecvChunkError::Sink(refused))
        }
    }
}

/// Decodes an encoded chunk into a sink that knows nothing of it.
pub struct DecodingSink<S: ChunkSink> {
    head: BytesMut,
    body: Body<S>,
}

/// Why an encoded chunk was refused. `E` is the inner sink's error.
#[derive(Debug, Error)]
pub enum DecodeSinkError<E: std::error::Error + 'static> {
    /// The content would be more than [`MAX_RATIO`] times what was sent, or more than may be encoded at
    /// all: a decompression bomb. Nothing was decoded.
    #[error("{wire_bytes} encoded bytes cannot hold {content_bytes} bytes of content")]
    Bomb {
        /// The size of the content.
        content_bytes: u64,
        /// The size of the frame's payload.
        wire_bytes: u64,
    },
    /// The body holds more than was agreed on; decoding stopped there.
    #[error("the content is longer than the announced {content_bytes} bytes")]
    TooLong {
        /// What was agreed on.
        content_bytes: u64,
    },
    /// The peer is newer than we are, or broken.
    #[error("unknown encoding {byte}")]
    UnknownEncoding {
        /// What it said.
        byte: u8,
    },
    /// The body is no zstd data.
    #[error("cannot decompress: {0}")]
    Undecodable(io::Error),
    /// The decoded content is short or has another digest than the sender's.
    #[error("cannot store the decompressed content: {0}")]
    Content(#[from] RecvError),
    /// The size that was agreed on is impossible.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The inner sink failed.
    #[error(transparent)]
    Sink(E),
}

impl<S: ChunkSink> DecodingSink<S> {
    /// For a chunk of `wire_bytes` whose content is agreed to be `content_bytes`. `hasher` is a new one of the digest
    /// that was agreed on for the content.
    ///
    /// # Errors
    /// [`DecodeSinkError::Bomb`], before anything is read; refuse the chunk.
    pub fn new(
        inner: S,
        hasher: Hasher,
        content_bytes: u64,
        wire_bytes: u64,
    ) -> Result<Self, DecodeSinkError<S::Error>> {
        let too_dense = content_bytes > wire_bytes.saturating_mul(MAX_RATIO);
        if too_dense || content_bytes > MAX_ENCODED_CONTENT_BYTES {
            return Err(DecodeSinkError::Bomb { content_bytes, wire_bytes });
        }
        let receiver = Offer::new(content_bytes, MAX_ENCODED_CONTENT_BYTES)?.accept(hasher);
        let content = Content { receiver, sink: inner, verified: None, written_bytes: 0, error: None };
        Ok(Self { head: BytesMut::with_capacity(HEAD_LEN), body: Body::Undecided(content) })
    }

    /// The head is whole.
    fn decide(&mut self) -> Result<(), DecodeSinkError<S::Error>> {
        self.body = match (std::mem::replace(&mut self.body, Body::Broken), self.head[0]) {
            (Body::Undecided(content), STORED) => Body::Stored(content),
            (Body::Undecided(content), ZSTD) => Body::Zstd(decoder(content)?),
            (Body::Undecided(_), byte) => return Err(DecodeSinkError::UnknownEncoding { byte }),
            (decided @ (Body::Stored(_) | Body::Zstd(_) | Body::Broken), _) => decided,
        };
        Ok(())
    }
}

impl<S: ChunkSink> ChunkSink for DecodingSink<S> {
    type Output = S::Output;
    type Error = DecodeSinkError<S::Error>;

    // To decode takes many times as long as to hash: not on the connection's thread.

    fn write(&mut self, mut data: &[u8]) -> Result<(), Self::Error> {
        if self.head.len() < HEAD_LEN {
            let part = data.len().min(HEAD_LEN - self.head.len());
            self.head.extend_from_slice(&data[..part]);
            data = &data[part..];
            if self.head.len() == HEAD_LEN {
                self.decide()?;
            }
        }
        match &mut self.body {
            _ if data.is_empty() => Ok(()),
            Body::Stored(content) => content.write_decoded(data),
            Body::Zstd(decoder) => match decoder.write_all(data) {
                Ok(()) => Ok(()),
                Err(error) => Err(decoder.get_mut().explain(error)),
            },
            // Data only comes after the head, and none after an error.
            Body::Undecided(_) | Body::Broken => Err(undecodable("data out of turn")),
        }
    }

    fn commit(self, _of_the_payload: Verified) -> Result<(Stored, Self::Output), Self::Error> {
        let content = match self.body {
            Body::Stored(content) => content,
            Body::Zstd(mut decoder) => {
                if let Err(error) = decoder.flush() {
                    return Err(decoder.get_mut().explain(error));
                }
                decoder.into_inner()
            }
            Body::Undecided(_) | Body::Broken => return Err(undecodable("there is no whole head")),
        };
        let mut digest = [0; Digest::LEN_BYTES];
        digest.copy_from_slice(&self.head[1..HEAD_LEN]);
        content.commit(Digest::from_bytes(digest))
    }
}

impl<S: ChunkSink> fmt::Debug for DecodingSink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodingSink").finish_non_exhaustive()
    }
}

enum Body<S: ChunkSink> {
    /// The head has not come whole.
    Undecided(Content<S>),
    Stored(Content<S>),
    Zstd(Decoder<'static, Content<S>>),
    Broken,
}

/// The decoded content on its way into the sink, verified like any chunk.
struct Content<S: ChunkSink> {
    receiver: ChunkReceiver,
    sink: S,
    verified: Option<Verified>,
    written_bytes: u64,
    /// What went wrong behind zstd's back.
    error: Option<DecodeSinkError<S::Error>>,
}

impl<S: ChunkSink> Content<S> {
    fn write_decoded(&mut self, data: &[u8]) -> Result<(), DecodeSinkError<S::Error>> {
        self.written_bytes += data.len() as u64;
        let content_bytes = self.receiver.len_bytes();
        if self.written_bytes > content_bytes {
            return Err(DecodeSinkError::TooLong { content_bytes });
        }
        self.receiver.push(Bytes::copy_from_slice(data));
        self.poll()
    }

    fn commit(mut self, digest: Digest) -> Result<(Stored, S::Output), DecodeSinkError<S::Error>> {
        if self.written_bytes == self.receiver.len_bytes() {
            self.receiver.push(Bytes::copy_from_slice(digest.as_bytes()));
        }
        self.receiver.end();
        self.poll()?;
        match self.verified {
            Some(verified) => self.sink.commit(verified).map_err(DecodeSinkError::Sink),
            // `poll` gives the proof or an error once the end is known.
            None => Err(undecodable("the content did not end")),
        }
    }

    fn poll(&mut self) -> Result<(), DecodeSinkError<S::Error>> {
        loop {
            match self.receiver.poll()? {
                RecvStep::Payload { offset: _, data } => {
                    self.sink.write(&data).map_err(DecodeSinkError::Sink)?;
                }
                RecvStep::Verified(verified) => self.verified = Some(verified),
                RecvStep::NeedInput | RecvStep::Ended => return Ok(()),
            }
        }
    }

    fn explain(&mut self, error: io::Error) -> DecodeSinkError<S::Error> {
        self.error.take().unwrap_or(DecodeSinkError::Undecodable(error))
    }
}

/// What zstd writes its output to.
impl<S: ChunkSink> io::Write for Content<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_decoded(data).map(|()| data.len()).map_err(|error| {
            self.error = Some(error);
            io::Error::other("refused")
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn decoder<S: ChunkSink>(
    content: Content<S>,
) -> Result<Decoder<'static, Content<S>>, DecodeSinkError<S::Error>> {
    let mut decoder = Decoder::new(content).map_err(DecodeSinkError::Undecodable)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(DecodeSinkError::Undecodable)?;
    Ok(decoder)
}

fn undecodable<E: std::error::Error>(what: &'static str) -> DecodeSinkError<E> {
    DecodeSinkError::Undecodable(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// From the middle: beginnings are headers, which compress even where the rest does not.
fn sample_shrinks(content: &[u8]) -> Result<bool, SourceError> {
    let from = content.len().saturating_sub(SAMPLE_LEN) / 2;
    let sample = &content[from..content.len().min(from + SAMPLE_LEN)];
    let compressed = zstd::bulk::compress(sample, LEVEL).map_err(SourceError::Io)?;
    Ok(compressed.len() < worthwhile_len(sample.len()))
}

/// What compresses to less than this is worth decoding.
const fn worthwhile_len(content_len: usize) -> usize {
    content_len - content_len / 20
}

/// Adds a frame that decoders skip, so that honest content of mere zeros is not taken for a bomb.
fn pad(payload: &mut BytesMut, content_bytes: u64) {
    let least_bytes = content_bytes.div_ceil(MAX_RATIO) as usize; // At most 16 KiB.
    if payload.len() < least_bytes {
        let fill = least_bytes - payload.len();
        payload.put_u32_le(SKIPPABLE_MAGIC);
        payload.put_u32_le(fill as u32);
        payload.put_bytes(0, fill);
    }
}

/// 16 MiB, the most that a chunk of a transfer holds: it is encoded in memory.
pub const MAX_ENCODED_CONTENT_BYTES: u64 = limits::MAX_PAYLOAD_CHUNK_LEN_BYTES;

/// 1,024: text and logs reach 3 to 30, and padding keeps content of only zeros below the limit.
pub const MAX_RATIO: u64 = 1024;

const HEAD_LEN: usize = 1 + Digest::LEN_BYTES;

const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// zstd's own default: about as fast as a gigabit link, for text at a third of the size.
const LEVEL: i32 = 3;

/// 1 MiB, a usual chunk: what each of a transfer's lanes may have to hold. A frame that asks for more is
/// refused unseen (SPEC 4.16).
const WINDOW_LOG_MAX: u32 = 20;

/// RFC 8878 section 3.1.2.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// 64 KiB of 16 MiB cost nothing and tell media from text.
const SAMPLE_LEN: usize = 64 * 1024;

/// For the fuzzer: the agreed size (u16), then a payload. Nothing but content of that size and of the
/// digest it came with is ever committed, and no more than that is written.
#[doc(hidden)]
pub fn fuzz_encoded(data: &[u8]) {
    let Some((size, payload)) = data.split_first_chunk() else { return };
    let content_bytes = u64::from(u16::from_le_bytes(*size));
    let Ok(offer) = Offer::new(payload.len() as u64, u64::MAX) else { return };
    let Ok(mut sink) =
        DecodingSink::new(Written(Vec::new()), Hasher::sha256(), content_bytes, payload.len() as u64)
    else {
        return;
    };
    let mut receiver = offer.accept(Hasher::sha256());
    for piece in payload.chunks(1 + payload.len() / 3).chain([&Digest::sha256(payload).as_bytes()[..]]) {
        receiver.push(Bytes::copy_from_slice(piece));
    }
    while let Ok(step) = receiver.poll() {
        match step {
            RecvStep::Payload { data, .. } if sink.write(&data).is_err() => return,
            RecvStep::Payload { .. } => {}
            RecvStep::Verified(verified) => {
                if let Ok((_, content)) = sink.commit(verified) {
                    assert_eq!(content.len() as u64, content_bytes);
                    assert!(payload.get(1..HEAD_LEN) == Some(Digest::sha256(&content).as_bytes()));
                }
                return;
            }
            RecvStep::NeedInput | RecvStep::Ended => return,
        }
    }
}

struct Written(Vec<u8>);

impl ChunkSink for Written {
    type Output = Vec<u8>;
    type Error = io::Error;

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(data);
        assert!(self.0.len() <= usize::from(u16::MAX), "no more than was agreed on");
        Ok(())
    }

    fn commit(self, verified: Verified) -> io::Result<(Stored, Vec<u8>)> {
        Ok((verified.stored(shiplane_wire::Durability::Verified), self.0))
    }
}

#[cfg(test)]
mod tests;
