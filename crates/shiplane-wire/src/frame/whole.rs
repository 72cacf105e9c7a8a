//! A chunk that is gathered whole before it is verified, so that it can be hashed beside others.

use alloc::vec::Vec;
use core::{cmp::Ordering, fmt};

use bytes::Bytes;

use super::{RecvError, SendError, Verified};
use crate::Digest;

/// A chunk to send that is in memory whole, so that others can be hashed beside it: its frame is the
/// [`size`](Self::size), the [`data`](Self::data), and the digest of that, however it was computed.
#[derive(Clone, Debug)]
pub struct WholeFrame {
    data: Bytes,
}

impl WholeFrame {
    /// Takes what the source gave for a chunk of `len_bytes`.
    ///
    /// # Errors
    ///
    /// [`SendError::SourceShort`] or [`SendError::SourceLong`] if that is not its size.
    pub fn new(data: Bytes, len_bytes: u64) -> Result<Self, SendError> {
        let supplied_bytes = data.len() as u64;
        match supplied_bytes.cmp(&len_bytes) {
            Ordering::Less => Err(SendError::SourceShort { supplied_bytes, len_bytes }),
            Ordering::Equal => Ok(Self { data }),
            Ordering::Greater => Err(SendError::SourceLong { supplied_bytes, len_bytes }),
        }
    }

    /// The size field.
    pub fn size(&self) -> Bytes {
        Bytes::copy_from_slice(&(self.data.len() as u64).to_le_bytes())
    }

    /// The data.
    pub const fn data(&self) -> &Bytes {
        &self.data
    }
}

/// Receives one chunk into a buffer: the alternative to [`ChunkReceiver`](crate::ChunkReceiver) for chunks
/// that are small enough to be held.
///
/// The caller's loop:
///
/// 1. [`push`](Self::push) what comes until [`is_complete`](Self::is_complete); say [`end`](Self::end) if the
///    stream ends before that.
/// 2. [`verify_each`](Self::verify_each), alone or together with others.
/// 3. Let the sink take the [`payload`](VerifiedChunk::payload) and commit.
///
/// Its answers are those of `ChunkReceiver`, whichever way the stream is cut (SPEC 3.3). It grows with what
/// was pushed and never with what was announced.
pub struct WholeChunk<B = Vec<u8>> {
    len_bytes: u64,
    /// Payload and digest, as far as they were pushed.
    frame: B,
    trailing: bool,
}

/// What a chunk is gathered in: grows as bytes are added.
pub trait ChunkBuffer: AsRef<[u8]> {
    /// Forgets what is in it.
    fn clear(&mut self);

    /// Adds bytes at the end.
    fn extend_from_slice(&mut self, bytes: &[u8]);

    /// Forgets all but the first `len_bytes`.
    fn truncate(&mut self, len_bytes: usize);
}

impl ChunkBuffer for Vec<u8> {
    fn clear(&mut self) {
        self.clear();
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn truncate(&mut self, len_bytes: usize) {
        self.truncate(len_bytes);
    }
}

impl<B: ChunkBuffer> WholeChunk<B> {
    pub(super) fn new(len_bytes: u64, mut buffer: B) -> Self {
        buffer.clear();
        Self { len_bytes, frame: buffer, trailing: false }
    }

    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Copies the next bytes of the stream.
    pub fn push(&mut self, input: &[u8]) {
        let room_bytes = self.missing_bytes();
        if input.len() as u64 > room_bytes {
            self.trailing = true;
            self.frame.extend_from_slice(&input[..room_bytes as usize]);
        } else {
            self.frame.extend_from_slice(input);
        }
    }

    /// How much of the frame has not been pushed.
    pub fn missing_bytes(&self) -> u64 {
        self.frame_len_bytes() - self.frame.as_ref().len() as u64
    }

    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        self.missing_bytes() == 0
    }

    /// Says that the stream ended.
    ///
    /// # Errors
    ///
    /// [`RecvError::Truncated`] if that was too early.
    pub fn end(&self) -> Result<(), RecvError> {
        if self.is_complete() {
            return Ok(());
        }
        let (received_bytes, expected_bytes) = (self.frame.as_ref().len() as u64, self.frame_len_bytes());
        Err(RecvError::Truncated { received_bytes, expected_bytes })
    }

    /// Computes the digest of each, side by side where that is faster, and compares it with the sender's.
    /// Blocks the thread for as long as that takes.
    ///
    /// # Errors
    ///
    /// Of each chunk by itself: [`RecvError::ChecksumMismatch`], [`RecvError::TrailingBytes`], or
    /// [`RecvError::Truncated`] for one that is not complete.
    pub fn verify_each(chunks: Vec<Self>) -> Vec<Result<VerifiedChunk<B>, RecvError>> {
        let payloads: Vec<&[u8]> = chunks.iter().map(Self::payload).collect();
        let digests = Digest::of_each(&payloads);
        chunks.into_iter().zip(digests).map(|(chunk, actual)| chunk.verify(actual)).collect()
    }

    /// As `ChunkReceiver` has it: a wrong digest is reported before bytes behind it.
    fn verify(self, actual: Digest) -> Result<VerifiedChunk<B>, RecvError> {
        self.end()?;
        let mut expected = [0; Digest::LEN_BYTES];
        expected.copy_from_slice(&self.frame.as_ref()[self.len_bytes as usize..]);
        let expected = Digest::from_bytes(expected);
        if actual != expected {
            return Err(RecvError::ChecksumMismatch { expected, actual });
        }
        if self.trailing {
            return Err(RecvError::TrailingBytes { len_bytes: self.len_bytes });
        }
        let mut payload = self.frame;
        payload.truncate(self.len_bytes as usize);
        Ok(VerifiedChunk { payload, verified: Verified::new(self.len_bytes, actual) })
    }

    /// The data, as far as it is there. A frame that can be pushed fits into memory.
    fn payload(&self) -> &[u8] {
        let frame = self.frame.as_ref();
        &frame[..frame.len().min(usize::try_from(self.len_bytes).unwrap_or(usize::MAX))]
    }

    const fn frame_len_bytes(&self) -> u64 {
        self.len_bytes + Digest::LEN_BYTES as u64
    }
}

impl<B: ChunkBuffer> fmt::Debug for WholeChunk<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WholeChunk")
            .field("len_bytes", &self.len_bytes)
            .field("missing_bytes", &self.missing_bytes())
            .finish_non_exhaustive()
    }
}

/// A chunk's data together with the proof that it has the sender's digest.
#[derive(Debug)]
#[must_use = "the sender waits for the answer; commit, then reply"]
pub struct VerifiedChunk<B = Vec<u8>> {
    payload: B,
    verified: Verified,
}

impl<B: ChunkBuffer> VerifiedChunk<B> {
    /// The data.
    pub fn payload(&self) -> &[u8] {
        self.payload.as_ref()
    }

    /// The proof, and the buffer to be used again.
    pub fn into_parts(self) -> (Verified, B) {
        (self.verified, self.payload)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec;

    use super::*;
    use crate::{Offer, fuzz};

    fn gather(len_bytes: u64, pieces: &[&[u8]]) -> Result<Vec<u8>, RecvError> {
        let mut chunk = Offer::new(len_bytes, u64::MAX).unwrap().gather(Vec::new());
        for piece in pieces {
            chunk.push(piece);
        }
        let verified = WholeChunk::verify_each(vec![chunk]).pop().unwrap()?;
        Ok(verified.payload().to_vec())
    }

    #[test]
    fn hello_has_the_golden_bytes() {
        let frame = WholeFrame::new(Bytes::from_static(b"hello"), 5).unwrap();
        assert_eq!((&frame.size()[..], &frame.data()[..]), (&b"\x05\0\0\0\0\0\0\0"[..], &b"hello"[..]));
        let short = WholeFrame::new(Bytes::from_static(b"hell"), 5).unwrap_err();
        assert_eq!(short, SendError::SourceShort { supplied_bytes: 4, len_bytes: 5 });
        let long = WholeFrame::new(Bytes::from_static(b"hello!"), 5).unwrap_err();
        assert_eq!(long, SendError::SourceLong { supplied_bytes: 6, len_bytes: 5 });
    }

    #[test]
    fn exabytes_that_are_announced_cost_nothing() {
        let chunk = Offer::new(crate::limits::MAX_HASHED_LEN_BYTES, u64::MAX).unwrap().gather(Vec::new());
        assert_eq!(chunk.frame.capacity(), 0);
        assert!(matches!(chunk.end(), Err(RecvError::Truncated { received_bytes: 0, .. })));
    }

    #[test]
    fn one_wrong_chunk_spoils_none_beside_it() {
        let good = |content: u8| {
            let mut chunk = Offer::new(100, 100).unwrap().gather(Vec::new());
            chunk.push(&[content; 100]);
            chunk.push(Digest::of(&[content; 100]).as_bytes());
            chunk
        };
        let mut chunks: Vec<_> = (0..20).map(good).collect();
        chunks[7].frame[3] ^= 1;
        for (at, verified) in WholeChunk::verify_each(chunks).into_iter().enumerate() {
            match verified {
                Ok(chunk) => assert_eq!(chunk.payload(), [at as u8; 100]),
                Err(error) => {
                    assert!(matches!(error, RecvError::ChecksumMismatch { .. }), "{error}");
                    assert_eq!(at, 7);
                }
            }
        }
    }

    proptest! {
        /// Any frame, good or not, in any pieces.
        #[test]
        fn it_answers_as_the_receiver_that_hashes_as_it_goes(
            len_bytes in 0_u64..300,
            data in prop::collection::vec(any::<u8>(), 0..400),
            has_digest: bool,
            cut in 0_usize..400,
        ) {
            let mut frame = data;
            if has_digest && frame.len() as u64 >= len_bytes {
                let digest = Digest::of(&frame[..len_bytes as usize]);
                frame.truncate(len_bytes as usize);
                frame.extend_from_slice(digest.as_bytes());
                frame.truncate(cut.max(frame.len() / 2));
            }
            let (front, back) = frame.split_at(cut.min(frame.len()));
            let mut framed = len_bytes.to_le_bytes().to_vec();
            framed.extend_from_slice(&frame);
            let expected = fuzz::receive(vec![Bytes::from(framed)], u64::MAX);
            match gather(len_bytes, &[front, back]) {
                Ok(payload) => {
                    prop_assert_eq!(payload, expected.payload);
                    prop_assert_eq!(None, expected.error);
                }
                Err(error) => prop_assert_eq!(Some(fuzz::ReceiveError::Recv(error)), expected.error),
            }
        }
    }
}
