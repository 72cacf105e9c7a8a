//! The size field of a frame, and the [`Offer`] made from it.

use bytes::{Buf, Bytes};

use super::{ChunkReceiver, FrameError};
use crate::{Hasher, limits::MAX_HASHED_LEN_BYTES};

/// Reads the 8 bytes of a chunk's size, from pieces of any size.
///
/// Only for the frame inside a tagged chunk: that of a bare one is the stream's opening, which an
/// [`OpeningReader`](crate::OpeningReader) has read already.
#[derive(Clone, Debug, Default)]
pub struct SizeReader {
    held: [u8; Self::LEN_BYTES],
    filled: usize,
}

impl SizeReader {
    /// Length of the size field.
    pub const LEN_BYTES: usize = 8;

    /// Waits for the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes from `input` what belongs to the size, and leaves the rest; `None` asks for more input. Make
    /// an [`Offer`] of the size, which checks it.
    pub fn push(&mut self, input: &mut Bytes) -> Option<u64> {
        let part = input.len().min(Self::LEN_BYTES - self.filled);
        input.copy_to_slice(&mut self.held[self.filled..self.filled + part]);
        self.filled += part;
        (self.filled == Self::LEN_BYTES).then_some(u64::from_le_bytes(self.held))
    }

    /// Says that the stream ended.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] if the size was not complete.
    pub fn end(&self) -> Result<(), FrameError> {
        match self.filled {
            Self::LEN_BYTES => Ok(()),
            received_bytes => Err(FrameError::Truncated { received_bytes }),
        }
    }
}

/// A chunk whose size is within the limit: what the peer wants to send, before any of it is taken.
#[derive(Debug)]
#[must_use = "a chunk is received by accepting the offer"]
pub struct Offer {
    len_bytes: u64,
}

impl Offer {
    /// Checks the size field of a frame against our limit (SPEC 3.2).
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`]. A size that no digest is defined for is too large whatever the limit.
    pub fn new(len_bytes: u64, max_len_bytes: u64) -> Result<Self, FrameError> {
        let max_bytes = max_len_bytes.min(MAX_HASHED_LEN_BYTES);
        if len_bytes > max_bytes {
            return Err(FrameError::TooLarge { len_bytes, max_bytes });
        }
        Ok(Self { len_bytes })
    }

    /// Checks the size field against the size that was agreed, which is that of the chunk's spans
    /// (SPEC 4.8).
    ///
    /// # Errors
    ///
    /// [`FrameError::WrongLen`], or [`FrameError::TooLarge`] if what was agreed is itself impossible.
    pub fn exactly(len_bytes: u64, agreed_bytes: u64) -> Result<Self, FrameError> {
        if len_bytes != agreed_bytes {
            return Err(FrameError::WrongLen { len_bytes, agreed_bytes });
        }
        Self::new(len_bytes, agreed_bytes)
    }

    /// Size of the chunk's data.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Takes the chunk: what follows on the stream goes into the receiver. `hasher` is a new one of the digest that
    /// was agreed on; of a bare chunk [`Hasher::sha256`].
    pub fn accept(self, hasher: Hasher) -> ChunkReceiver {
        ChunkReceiver::new(self.len_bytes, hasher)
    }
}
