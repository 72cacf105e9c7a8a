//! The status byte that answers a chunk.

use thiserror::Error;

use crate::{Code, fuzz};

/// The ways for a receiver to refuse a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Status 1: the digest did not match.
    ChecksumFailed,
    /// Status 2: any other failure at the receiver.
    Error,
}

impl Refusal {
    /// The status byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::ChecksumFailed => CHECKSUM_FAILED,
            Self::Error => ERROR,
        }
    }
}

/// What the receiver of a chunk answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The chunk is stored as was promised at negotiation.
    Stored,
    /// It arrived with another digest. Send it again, at most a few times.
    ChecksumFailed,
    /// The receiver failed; it has nothing of the chunk.
    Error,
}

/// Why the answer to a chunk tells nothing about its fate (SPEC 3.5). It is never success; whether the
/// peer has the chunk is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum StatusError {
    /// The peer ended its half without a status.
    #[error("the peer ended the stream without a status")]
    Missing,
    /// The peer sent a byte after its status.
    #[error("the peer sent more than one byte of status")]
    Extra,
    /// The peer confirmed a chunk it cannot have seen whole.
    #[error("the peer confirmed the chunk before all of it was sent")]
    Early,
    /// The peer is newer than we are, or broken.
    #[error("the status {byte} is unknown")]
    Unknown {
        /// The status.
        byte: u8,
    },
}

impl StatusError {
    /// The code to stop the stream with.
    pub const fn code(&self) -> Code {
        match self {
            Self::Missing | Self::Extra | Self::Early | Self::Unknown { .. } => Code::Protocol,
        }
    }
}

/// Reads the receiver's answer, from pieces of any size, and insists on exactly one byte.
///
/// If the answer is read while the chunk is still being sent (it should be: a receiver may give up early),
/// start with [`while_sending`](Self::while_sending) and call [`all_sent`](Self::all_sent) at
/// [`SendStep::Finish`](crate::SendStep::Finish). If it is read afterwards only, start with
/// [`new`](Self::new). The answer is [`end`](Self::end)'s; there is none before the peer's FIN.
#[derive(Clone, Debug)]
pub struct StatusReader {
    all_sent: bool,
    outcome: Result<Status, StatusError>,
}

impl StatusReader {
    /// Waits for the status of a chunk that was sent whole.
    pub const fn new() -> Self {
        Self { all_sent: true, outcome: Err(StatusError::Missing) }
    }

    /// Waits for the status of a chunk that is being sent. Until [`all_sent`](Self::all_sent), success is
    /// an error (SPEC 3.5).
    pub const fn while_sending() -> Self {
        Self { all_sent: false, outcome: Err(StatusError::Missing) }
    }

    /// Says that the digest was sent, before what arrives from now on is pushed.
    pub const fn all_sent(&mut self) {
        self.all_sent = true;
    }

    /// Takes the next bytes of the answer.
    ///
    /// # Errors
    ///
    /// As soon as the answer cannot be right, without waiting for its end; every later call gives the same
    /// error.
    pub fn push(&mut self, input: &[u8]) -> Result<(), StatusError> {
        for &byte in input {
            self.outcome = match self.outcome {
                Err(StatusError::Missing) => self.read(byte),
                Ok(_) => Err(StatusError::Extra),
                Err(error) => Err(error),
            };
        }
        match self.outcome {
            Ok(_) | Err(StatusError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The status that has arrived, before the peer's FIN has confirmed it: a refusal is reason enough to
    /// stop sending. Success counts at the [`end`](Self::end) only.
    pub fn arrived(&self) -> Option<Status> {
        self.outcome.ok()
    }

    /// Says that the peer finished its half, and gives the answer.
    ///
    /// # Errors
    ///
    /// [`StatusError::Missing`] if there was no status, or the error that [`push`](Self::push) gave.
    pub const fn end(&self) -> Result<Status, StatusError> {
        self.outcome
    }

    const fn read(&self, byte: u8) -> Result<Status, StatusError> {
        match byte {
            STORED if self.all_sent => Ok(Status::Stored),
            STORED => Err(StatusError::Early),
            CHECKSUM_FAILED => Ok(Status::ChecksumFailed),
            ERROR => Ok(Status::Error),
            byte => Err(StatusError::Unknown { byte }),
        }
    }
}

impl Default for StatusReader {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) const STORED: u8 = 0;
const CHECKSUM_FAILED: u8 = 1;
const ERROR: u8 = 2;

/// Fuzz entry: a cut of an answer, then the answer.
pub fn fuzz_status(data: &[u8]) {
    fuzz::any_split(data, fuzz::answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;
    use bytes::Bytes;

    #[test]
    fn refusals_have_these_bytes() {
        assert_eq!([Refusal::ChecksumFailed, Refusal::Error].map(Refusal::byte), [1, 2]);
    }

    #[test]
    fn anything_but_one_known_byte_is_no_answer() {
        let answer = |bytes: &'static [u8]| fuzz::answer([Bytes::from_static(bytes)].into());
        assert_eq!(answer(&[]), Err(StatusError::Missing));
        assert_eq!(answer(&[7]), Err(StatusError::Unknown { byte: 7 }));
        assert_eq!(answer(&[0, 0]), Err(StatusError::Extra));
        assert_eq!(answer(&[1, 0]), Err(StatusError::Extra));
        assert_eq!(answer(&[0]), Ok(Status::Stored));
    }

    #[test]
    fn two_bytes_are_refused_before_the_end() {
        let mut reader = StatusReader::new();
        assert_eq!(reader.push(&[0]), Ok(()));
        assert_eq!(reader.push(&[0]), Err(StatusError::Extra));
    }
}
