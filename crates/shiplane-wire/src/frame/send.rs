//! The sending side of a chunk.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, mem};

use bytes::Bytes;

use super::SendError;
use crate::limits::{MAX_HASHED_LEN_BYTES, MAX_STEP_LEN_BYTES};
use crate::{Digest, Hasher, fuzz};

/// Sends one chunk: its size, the data from its source, and the digest of exactly that data.
///
/// The caller's loop:
///
/// 1. Call [`poll`](Self::poll). Write each [`SendStep::Transmit`] to the stream.
/// 2. On [`SendStep::NeedPayload`] read from the source, and give [`supply`](Self::supply) the bytes or call
///    [`source_ended`](Self::source_ended) at its end.
/// 3. On [`SendStep::Finish`] finish the stream, then read the answer with a
///    [`StatusReader`](crate::StatusReader).
///
/// On an error reset the stream. If a write was stopped by the peer, read the answer before reporting it
/// (SPEC 3.6).
///
/// The machine copies no payload and holds only what was supplied and not yet polled. Payload is hashed
/// when it is given out: on the thread that polls, in pieces of at most [`MAX_STEP_LEN_BYTES`].
pub struct ChunkSender {
    len_bytes: u64,
    input: VecDeque<Bytes>,
    supplied_bytes: u64,
    /// How much of the payload was given out.
    sent_bytes: u64,
    digest: SentDigest,
    state: State,
}

/// The source of the digest, and in the end the digest.
enum SentDigest {
    Computing(Hasher),
    /// It was known before, or is now; of a piece with its cells.
    Known(Digest, Vec<Digest>),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size,
    Payload,
    Finished,
    Failed(SendError),
}

impl ChunkSender {
    /// Starts a chunk of `len_bytes`. `hasher` is a new one of the digest that was agreed on; of a bare chunk
    /// [`Hasher::sha256`].
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`].
    pub fn new(len_bytes: u64, hasher: Hasher) -> Result<Self, SendError> {
        Self::start(len_bytes, SentDigest::Computing(hasher))
    }

    /// Starts a chunk whose digest was computed before: nothing is hashed. If it is not the digest of what the source
    /// gives now, the receiver refuses the chunk with [`Status::ChecksumFailed`](crate::Status).
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`].
    pub fn with_known_digest(len_bytes: u64, digest: Digest) -> Result<Self, SendError> {
        Self::start(len_bytes, SentDigest::Known(digest, Vec::new()))
    }

    fn start(len_bytes: u64, digest: SentDigest) -> Result<Self, SendError> {
        if len_bytes > MAX_HASHED_LEN_BYTES {
            return Err(SendError::TooLarge { len_bytes, max_bytes: MAX_HASHED_LEN_BYTES });
        }
        Ok(Self {
            len_bytes,
            input: VecDeque::new(),
            supplied_bytes: 0,
            sent_bytes: 0,
            digest,
            state: State::Size,
        })
    }

    /// The next step.
    ///
    /// # Errors
    ///
    /// The error that [`supply`](Self::supply) or [`source_ended`](Self::source_ended) gave, from then on.
    pub fn poll(&mut self) -> Result<SendStep, SendError> {
        match self.state {
            State::Size => {
                self.state = State::Payload;
                Ok(SendStep::Transmit(Bytes::copy_from_slice(&self.len_bytes.to_le_bytes())))
            }
            State::Payload => Ok(self.next_payload()),
            State::Finished => Ok(SendStep::Finish),
            State::Failed(error) => Err(error),
        }
    }

    /// Takes the next bytes of the source, without a copy.
    ///
    /// # Errors
    ///
    /// [`SendError::SourceLong`] if that is more than was announced. Nothing more is sent then: the frame
    /// never carries a part of something longer.
    pub fn supply(&mut self, data: Bytes) -> Result<(), SendError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        self.supplied_bytes = self.supplied_bytes.saturating_add(data.len() as u64);
        let (supplied_bytes, len_bytes) = (self.supplied_bytes, self.len_bytes);
        if supplied_bytes > len_bytes {
            return Err(self.fail(SendError::SourceLong { supplied_bytes, len_bytes }));
        }
        if !data.is_empty() {
            self.input.push_back(data);
        }
        Ok(())
    }

    /// Says that the source has no more. Need not be called once the whole size was supplied, but then it
    /// is not known that the source was no longer.
    ///
    /// # Errors
    ///
    /// [`SendError::SourceShort`] if it gave less than was announced.
    pub fn source_ended(&mut self) -> Result<(), SendError> {
        let (supplied_bytes, len_bytes) = (self.supplied_bytes, self.len_bytes);
        match self.state {
            State::Failed(error) => Err(error),
            State::Size | State::Payload | State::Finished if supplied_bytes < len_bytes => {
                Err(self.fail(SendError::SourceShort { supplied_bytes, len_bytes }))
            }
            State::Size | State::Payload | State::Finished => Ok(()),
        }
    }

    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Digest of the chunk's data; `None` before it was sent.
    pub const fn digest(&self) -> Option<Digest> {
        match (self.state, &self.digest) {
            (State::Finished, SentDigest::Known(digest, _)) => Some(*digest),
            (State::Size | State::Payload | State::Finished | State::Failed(_), _) => None,
        }
    }

    /// Once all was sent, the digests of the cells of a piece that was hashed for
    /// this; none of any other chunk.
    pub fn into_cells(self) -> Vec<Digest> {
        match self.digest {
            SentDigest::Known(_, cells) => cells,
            SentDigest::Computing(_) => Vec::new(),
        }
    }

    fn next_payload(&mut self) -> SendStep {
        if let Some(data) = self.take() {
            if let SentDigest::Computing(hasher) = &mut self.digest {
                hasher.update(&data);
            }
            self.sent_bytes += data.len() as u64;
            return SendStep::Transmit(data);
        }
        if self.sent_bytes < self.len_bytes {
            return SendStep::NeedPayload { remaining_bytes: self.len_bytes - self.sent_bytes };
        }
        self.state = State::Finished;
        let digest = self.digest.know();
        SendStep::Transmit(Bytes::copy_from_slice(digest.as_bytes()))
    }

    fn take(&mut self) -> Option<Bytes> {
        let front = self.input.front_mut()?;
        if front.len() <= MAX_STEP_LEN_BYTES {
            return self.input.pop_front();
        }
        Some(front.split_to(MAX_STEP_LEN_BYTES))
    }

    fn fail(&mut self, error: SendError) -> SendError {
        self.state = State::Failed(error);
        self.input = VecDeque::new();
        error
    }
}

impl SentDigest {
    fn know(&mut self) -> Digest {
        let none = Self::Known(Digest::from_bytes([0; Digest::LEN_BYTES]), Vec::new());
        let (digest, cells) = match mem::replace(self, none) {
            Self::Computing(hasher) => hasher.finish_with_cells(),
            Self::Known(digest, cells) => (digest, cells),
        };
        *self = Self::Known(digest, cells);
        digest
    }
}

impl fmt::Debug for ChunkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkSender")
            .field("len_bytes", &self.len_bytes)
            .field("sent_bytes", &self.sent_bytes)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a [`ChunkSender`] wants of its caller. Match it without a wildcard.
#[derive(Debug)]
pub enum SendStep {
    /// Write all of this to the stream.
    Transmit(Bytes),
    /// Read from the source, then supply the bytes or report its end.
    NeedPayload {
        /// How much is missing; do not supply more.
        remaining_bytes: u64,
    },
    /// All was given out: finish the stream, then read the answer.
    Finish,
}

/// Fuzz entry: a cut of a source, then the source, of which 7 bytes are announced.
pub fn fuzz_send(data: &[u8]) {
    fuzz::any_split(data, |pieces| fuzz::send(7, pieces).ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_has_the_golden_bytes() {
        let mut sender = ChunkSender::new(5, Hasher::sha256()).unwrap();
        sender.supply(Bytes::from_static(b"hello")).unwrap();
        assert_eq!(sender.digest(), None);
        let frame =
            b"\x05\0\0\0\0\0\0\0hello\x2c\xf2\x4d\xba\x5f\xb0\xa3\x0e\x26\xe8\x3b\x2a\xc5\xb9\xe2\x9e\
                      \x1b\x16\x1e\x5c\x1f\xa7\x42\x5e\x73\x04\x33\x62\x93\x8b\x98\x24";
        assert_eq!(drain(&mut sender), frame);
        assert_eq!(sender.digest(), Some(Digest::sha256(b"hello")));
    }

    #[test]
    fn the_empty_chunk_has_40_bytes() {
        let mut sender = ChunkSender::new(0, Hasher::sha256()).unwrap();
        sender.source_ended().unwrap();
        let frame = drain(&mut sender);
        assert_eq!(frame.len(), 40);
        assert_eq!(frame[..8], [0; 8]);
        assert_eq!(frame[8..], *Digest::sha256(b"").as_bytes());
    }

    #[test]
    fn a_source_that_grew_fails_before_the_digest_is_out() {
        let mut sender = ChunkSender::new(5, Hasher::sha256()).unwrap();
        let error = SendError::SourceLong { supplied_bytes: 6, len_bytes: 5 };
        let good = Bytes::from(Vec::from(b"hello"));
        sender.supply(good.clone()).unwrap();
        assert_eq!(sender.supply(Bytes::from_static(b"!")), Err(error));
        assert!(good.is_unique(), "what will not be sent is not held");
        assert_eq!(sender.poll().unwrap_err(), error);
        assert_eq!(sender.source_ended(), Err(error));
        assert_eq!(error.code(), crate::Code::SourceChanged);
    }

    #[test]
    fn a_known_digest_is_sent_as_it_is_and_nothing_is_hashed() {
        let known = Digest::blake3(b"another");
        let mut sender = ChunkSender::with_known_digest(5, known).unwrap();
        sender.supply(Bytes::from_static(b"hello")).unwrap();
        let frame = drain(&mut sender);
        assert_eq!((&frame[8..13], &frame[13..]), (&b"hello"[..], &known.as_bytes()[..]));
        assert_eq!(sender.digest(), Some(known));
        assert_eq!(sender.into_cells(), []);
    }

    #[test]
    fn the_cells_of_a_piece_come_with_its_digest() {
        let content = alloc::vec![7; 192 << 10];
        let piece = crate::Piece::of_file(0, content.len() as u64, content.len() as u64).unwrap();
        let hasher = crate::DigestAlgorithm::Blake3.chunk_hasher(Some(piece));
        let mut sender = ChunkSender::new(content.len() as u64, hasher).unwrap();
        sender.supply(content.clone().into()).unwrap();
        drain(&mut sender);
        assert_eq!(sender.digest(), Some(Digest::blake3(&content)));
        assert_eq!(piece.combine(&sender.into_cells()), Some(Digest::blake3(&content)));
    }

    #[test]
    fn it_can_run_on_another_thread() {
        fn assert_send<T: Send + 'static>() {}
        assert_send::<ChunkSender>();
        assert_send::<SendStep>();
    }

    fn drain(sender: &mut ChunkSender) -> Vec<u8> {
        let mut frame = Vec::new();
        loop {
            match sender.poll().unwrap() {
                SendStep::Transmit(bytes) => frame.extend_from_slice(&bytes),
                SendStep::NeedPayload { .. } => panic!("the source has given all"),
                SendStep::Finish => return frame,
            }
        }
    }
}
