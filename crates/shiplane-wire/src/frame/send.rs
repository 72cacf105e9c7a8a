//! The sending side of a chunk.

use alloc::collections::VecDeque;
use core::{fmt, mem};

use bytes::Bytes;

use super::SendError;
use crate::limits::{MAX_HASHED_LEN_BYTES, MAX_STEP_LEN_BYTES};
use crate::{Digest, Hasher, fuzz};

/// Sends one chunk: its size, its data as the source gives it, and the digest of exactly that data.
///
/// The caller's loop:
///
/// 1. Call [`poll`](Self::poll). Write each [`SendStep::Transmit`] to the stream.
/// 2. On [`SendStep::NeedPayload`] read from the source, and give [`supply`](Self::supply) what came or call
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
    hasher: Hasher,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size,
    Payload,
    Finished(Digest),
    Failed(SendError),
}

impl ChunkSender {
    /// Starts a chunk of `len_bytes`.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`].
    pub fn new(len_bytes: u64) -> Result<Self, SendError> {
        if len_bytes > MAX_HASHED_LEN_BYTES {
            return Err(SendError::TooLarge { len_bytes, max_bytes: MAX_HASHED_LEN_BYTES });
        }
        Ok(Self {
            len_bytes,
            input: VecDeque::new(),
            supplied_bytes: 0,
            sent_bytes: 0,
            hasher: Hasher::new(),
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
            State::Finished(_) => Ok(SendStep::Finish),
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
            State::Size | State::Payload | State::Finished(_) if supplied_bytes < len_bytes => {
                Err(self.fail(SendError::SourceShort { supplied_bytes, len_bytes }))
            }
            State::Size | State::Payload | State::Finished(_) => Ok(()),
        }
    }

    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Digest of the chunk's data; `None` before it was sent.
    pub const fn digest(&self) -> Option<Digest> {
        match self.state {
            State::Finished(digest) => Some(digest),
            State::Size | State::Payload | State::Failed(_) => None,
        }
    }

    fn next_payload(&mut self) -> SendStep {
        if let Some(data) = self.take() {
            self.hasher.update(&data);
            self.sent_bytes += data.len() as u64;
            return SendStep::Transmit(data);
        }
        if self.sent_bytes < self.len_bytes {
            return SendStep::NeedPayload { remaining_bytes: self.len_bytes - self.sent_bytes };
        }
        let digest = mem::take(&mut self.hasher).finish();
        self.state = State::Finished(digest);
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
    /// Read from the source, then supply what came or say that it ended.
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
    use std::vec::Vec;

    use super::*;

    #[test]
    fn hello_has_the_golden_bytes() {
        let mut sender = ChunkSender::new(5).unwrap();
        sender.supply(Bytes::from_static(b"hello")).unwrap();
        assert_eq!(sender.digest(), None);
        let frame =
            b"\x05\0\0\0\0\0\0\0hello\x2c\xf2\x4d\xba\x5f\xb0\xa3\x0e\x26\xe8\x3b\x2a\xc5\xb9\xe2\x9e\
                      \x1b\x16\x1e\x5c\x1f\xa7\x42\x5e\x73\x04\x33\x62\x93\x8b\x98\x24";
        assert_eq!(drain(&mut sender), frame);
        assert_eq!(sender.digest(), Some(Digest::of(b"hello")));
    }

    #[test]
    fn the_empty_chunk_has_40_bytes() {
        let mut sender = ChunkSender::new(0).unwrap();
        sender.source_ended().unwrap();
        let frame = drain(&mut sender);
        assert_eq!(frame.len(), 40);
        assert_eq!(frame[..8], [0; 8]);
        assert_eq!(frame[8..], *Digest::of(b"").as_bytes());
    }

    #[test]
    fn a_source_that_grew_fails_before_the_digest_is_out() {
        let mut sender = ChunkSender::new(5).unwrap();
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
