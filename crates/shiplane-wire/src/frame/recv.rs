//! The receiving side of a chunk.

use alloc::collections::VecDeque;
use core::fmt;

use bytes::Bytes;

use super::{RecvError, Refusal, status::STORED};
use crate::limits::MAX_STEP_LEN_BYTES;
use crate::{Digest, Hasher, fuzz};

/// Receives one chunk: returns its data as it arrives, and a [`Verified`] once the digest matches.
///
/// The caller's loop:
///
/// 1. Call [`poll`](Self::poll). Write each [`RecvStep::Payload`] to the sink, where it is not visible yet.
/// 2. On [`RecvStep::NeedInput`] read from the stream, and give [`push`](Self::push) the bytes or call
///    [`end`](Self::end) at its end.
/// 3. On [`RecvStep::Verified`] let the sink commit, which makes a [`Stored`] of it, and answer
///    [`Reply::stored`](crate::Reply::stored) at once: the sender's FIN need not have come (SPEC 3.3).
/// 4. Poll on until [`RecvStep::Ended`]; the chunk stays good, but a byte more would be an error.
///
/// On an error discard what was written, answer with its [`refusal`](RecvError::refusal) and stop the
/// stream. The machine copies no payload and holds only what was pushed and not yet polled, so a caller
/// that polls until `NeedInput` before it reads again holds one buffer.
///
/// Payload is hashed when it is given out: on the thread that polls, in pieces of at most
/// [`MAX_STEP_LEN_BYTES`].
pub struct ChunkReceiver {
    len_bytes: u64,
    /// What was pushed and belongs to the frame. No error comes before it was all given out.
    input: VecDeque<Bytes>,
    /// How much of the frame, size field excluded, was pushed.
    pushed_bytes: u64,
    trailing: bool,
    ended: bool,
    /// Until the digest is compared.
    hasher: Option<Hasher>,
    given_bytes: u64,
    digest: [u8; Digest::LEN_BYTES],
    digest_filled: usize,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Receiving,
    Verified,
    Ended,
    Failed(RecvError),
}

impl ChunkReceiver {
    pub(super) fn new(len_bytes: u64, hasher: Hasher) -> Self {
        Self {
            len_bytes,
            input: VecDeque::new(),
            pushed_bytes: 0,
            trailing: false,
            ended: false,
            hasher: Some(hasher),
            given_bytes: 0,
            digest: [0; Digest::LEN_BYTES],
            digest_filled: 0,
            state: State::Receiving,
        }
    }

    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Takes the next bytes of the stream, without a copy. Ignored after the end and after an error.
    pub fn push(&mut self, mut input: Bytes) {
        if self.ended || matches!(self.state, State::Ended | State::Failed(_)) {
            return;
        }
        let room_bytes = self.frame_len_bytes() - self.pushed_bytes;
        if input.len() as u64 > room_bytes {
            // What follows the digest is never looked at, so there is no reason to hold it.
            self.trailing = true;
            input.truncate(room_bytes as usize);
        }
        self.pushed_bytes += input.len() as u64;
        if !input.is_empty() {
            self.input.push_back(input);
        }
    }

    /// Says that the stream ended.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next step.
    ///
    /// # Errors
    ///
    /// The chunk is not delivered, and every later call gives the same error. A
    /// [`RecvError::TrailingBytes`] may come after [`RecvStep::Verified`], if the byte came after it.
    pub fn poll(&mut self) -> Result<RecvStep, RecvError> {
        match self.state {
            State::Receiving => self.receive(),
            State::Verified if self.trailing => Err(self.fail(self.trailing_bytes())),
            State::Verified if !self.ended => Ok(RecvStep::NeedInput),
            State::Verified | State::Ended => {
                self.state = State::Ended;
                Ok(RecvStep::Ended)
            }
            State::Failed(error) => Err(error),
        }
    }

    fn receive(&mut self) -> Result<RecvStep, RecvError> {
        if let Some(data) = self.take(self.len_bytes - self.given_bytes) {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&data);
            }
            let offset = self.given_bytes;
            self.given_bytes += data.len() as u64;
            return Ok(RecvStep::Payload { offset, data });
        }
        if self.given_bytes == self.len_bytes {
            self.fill_digest();
        }
        if self.digest_filled == Digest::LEN_BYTES
            && let Some(hasher) = self.hasher.take()
        {
            return self.verify(hasher).map(RecvStep::Verified).map_err(|error| self.fail(error));
        }
        if self.ended {
            let received_bytes = self.given_bytes + self.digest_filled as u64;
            let expected_bytes = self.frame_len_bytes();
            return Err(self.fail(RecvError::Truncated { received_bytes, expected_bytes }));
        }
        Ok(RecvStep::NeedInput)
    }

    fn fill_digest(&mut self) {
        while let Some(part) = self.take((Digest::LEN_BYTES - self.digest_filled) as u64) {
            self.digest[self.digest_filled..][..part.len()].copy_from_slice(&part);
            self.digest_filled += part.len();
        }
    }

    /// The end of the frame. A wrong digest is reported before bytes behind it, so that the answer does
    /// not depend on how the stream was cut into pieces.
    fn verify(&mut self, hasher: Hasher) -> Result<Verified, RecvError> {
        let expected = Digest::from_bytes(self.digest);
        let actual = hasher.finish();
        if actual != expected {
            return Err(RecvError::ChecksumMismatch { expected, actual });
        }
        if self.trailing {
            return Err(self.trailing_bytes());
        }
        self.state = State::Verified;
        Ok(Verified { len_bytes: self.len_bytes, digest: actual })
    }

    /// Up to `max_bytes` from the front of the input; `None` if it is empty or `max_bytes` is 0.
    fn take(&mut self, max_bytes: u64) -> Option<Bytes> {
        let front = self.input.front_mut().filter(|_| max_bytes > 0)?;
        // No more than `MAX_STEP_LEN_BYTES`, so it fits.
        let max_len = max_bytes.min(MAX_STEP_LEN_BYTES as u64) as usize;
        if front.len() <= max_len {
            return self.input.pop_front();
        }
        Some(front.split_to(max_len))
    }

    fn fail(&mut self, error: RecvError) -> RecvError {
        self.state = State::Failed(error);
        error
    }

    /// Length of data and digest; offers are so limited that it cannot overflow.
    const fn frame_len_bytes(&self) -> u64 {
        self.len_bytes + Digest::LEN_BYTES as u64
    }

    const fn trailing_bytes(&self) -> RecvError {
        RecvError::TrailingBytes { len_bytes: self.len_bytes }
    }
}

impl fmt::Debug for ChunkReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkReceiver")
            .field("len_bytes", &self.len_bytes)
            .field("given_bytes", &self.given_bytes)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a [`ChunkReceiver`] wants of its caller. Match it without a wildcard.
#[derive(Debug)]
pub enum RecvStep {
    /// Read from the stream, then push the bytes or report its end.
    NeedInput,
    /// Write this, unverified as it is, where it can still be discarded.
    Payload {
        /// Where in the chunk it belongs; pieces come in order and without gaps.
        offset: u64,
        /// A slice of what was pushed; never empty.
        data: Bytes,
    },
    /// All data was given out, and it has the sender's digest. Comes at most once.
    Verified(Verified),
    /// The sender ended the stream right after the digest, as it should. Nothing more will come.
    Ended,
}

/// Proof that a chunk arrived whole and with the sender's digest.
///
/// There is no way to one but a matching digest, and it can be spent once.
#[derive(Debug)]
#[must_use = "the sender waits for the answer; commit, then reply"]
pub struct Verified {
    len_bytes: u64,
    digest: Digest,
}

impl Verified {
    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Digest of the chunk's data.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Says that the chunk is stored with `durability`.
    ///
    /// Only the commit of a sink calls this, after it has done so: the success status is sent on its word.
    pub fn stored(self, durability: Durability) -> Stored {
        Stored { durability, verified: self }
    }
}

/// Proof that a sink committed a verified chunk; the only way to the success status.
#[derive(Debug)]
#[must_use = "the sender waits for the answer"]
pub struct Stored {
    durability: Durability,
    verified: Verified,
}

impl Stored {
    /// The durability with which it is stored.
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.verified.len_bytes
    }

    /// Digest of the chunk's data.
    pub const fn digest(&self) -> Digest {
        self.verified.digest
    }
}

/// What a success status means, as agreed at negotiation (SPEC 3.4). The two are never mixed; the later
/// one is the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The data had the right digest and is in memory or under a temporary name.
    Verified,
    /// Besides, it is fsynced and published under its name.
    Durable,
}

/// The answer to a chunk, for its receiver to write before FIN.
///
/// Success needs a [`Stored`], which needs a [`Verified`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the sender waits for the answer"]
pub struct Reply(u8);

impl Reply {
    /// Status 0: the receiver has done what was agreed.
    ///
    /// If a durable store was agreed, check [`Stored::durability`] first.
    pub const fn stored(_proof: &Stored) -> Self {
        Self(STORED)
    }

    /// Status 1 or 2.
    pub const fn refused(refusal: Refusal) -> Self {
        Self(refusal.byte())
    }

    /// The status byte.
    pub const fn byte(self) -> u8 {
        self.0
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal)
    }
}

/// Fuzz entry: a cut of a frame of at most 64 KiB, then the frame.
pub fn fuzz_recv(data: &[u8]) {
    fuzz::any_split(data, |pieces| {
        let received = fuzz::receive(pieces, 64 << 10);
        (received.payload, received.error)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offer;
    use crate::limits::MAX_HASHED_LEN_BYTES;

    #[test]
    fn hello_has_the_golden_bytes() {
        let frame = b"hello\x2c\xf2\x4d\xba\x5f\xb0\xa3\x0e\x26\xe8\x3b\x2a\xc5\xb9\xe2\x9e\
                      \x1b\x16\x1e\x5c\x1f\xa7\x42\x5e\x73\x04\x33\x62\x93\x8b\x98\x24";
        let mut receiver = ChunkReceiver::new(5, Hasher::sha256());
        receiver.push(Bytes::from_static(frame));
        let Ok(RecvStep::Payload { offset: 0, data }) = receiver.poll() else {
            panic!("{receiver:?}");
        };
        assert_eq!(data, "hello");
        let Ok(RecvStep::Verified(verified)) = receiver.poll() else {
            panic!("{receiver:?}");
        };
        let stored = verified.stored(Durability::Durable);
        assert_eq!(stored.durability(), Durability::Durable);
        assert_eq!(stored.len_bytes(), 5);
        assert_eq!(stored.digest(), Digest::sha256(b"hello"));
    }

    #[test]
    fn a_size_of_exabytes_costs_nothing() {
        let mut receiver = Offer::new(MAX_HASHED_LEN_BYTES, u64::MAX).unwrap().accept(Hasher::sha256());
        assert_eq!(receiver.input.capacity(), 0);
        assert!(matches!(receiver.poll(), Ok(RecvStep::NeedInput)));
        receiver.end();
        let expected_bytes = MAX_HASHED_LEN_BYTES + 32;
        let truncated = RecvError::Truncated { received_bytes: 0, expected_bytes };
        assert_eq!(receiver.poll().unwrap_err(), truncated);
    }

    #[test]
    fn only_a_wrong_digest_is_answered_by_its_own_status() {
        let digest = Digest::sha256(b"");
        let mismatch = RecvError::ChecksumMismatch { expected: digest, actual: digest };
        assert_eq!(mismatch.refusal(), Refusal::ChecksumFailed);
        let truncated = RecvError::Truncated { received_bytes: 0, expected_bytes: 32 };
        assert_eq!(truncated.refusal(), Refusal::Error);
        assert_eq!(RecvError::TrailingBytes { len_bytes: 0 }.refusal(), Refusal::Error);
    }

    #[test]
    fn it_can_run_on_another_thread() {
        fn assert_send<T: Send + 'static>() {}
        assert_send::<ChunkReceiver>();
        assert_send::<RecvStep>();
        assert_send::<Stored>();
    }

    #[test]
    fn success_comes_from_a_stored_chunk() {
        let mut receiver = Offer::new(0, 0).unwrap().accept(Hasher::sha256());
        receiver.push(Bytes::copy_from_slice(Digest::sha256(b"").as_bytes()));
        let Ok(RecvStep::Verified(verified)) = receiver.poll() else {
            panic!("{receiver:?}");
        };
        let stored = verified.stored(Durability::Verified);
        assert_eq!(Reply::stored(&stored).byte(), 0);
    }
}
