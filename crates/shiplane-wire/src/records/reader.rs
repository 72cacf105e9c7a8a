//! Splits a stream into records.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};

use super::RecordError;
use crate::limits::MAX_RECORD_LEN_BYTES;

/// Reads the records of one direction from pieces of any size.
///
/// Give [`push`](Self::push) what arrived, then call [`poll`](Self::poll) until it returns `None`, and
/// again. Between the two it holds less than one record. Call [`end`](Self::end) at the end of the stream.
///
/// ```
/// # use bytes::BytesMut;
/// # use shiplane_wire::{RecordReader, ReceiverRecord};
/// let mut stream = BytesMut::new();
/// ReceiverRecord::WantDigest { entry: 7 }.encode(&mut stream)?;
/// ReceiverRecord::Alive.encode(&mut stream)?;
///
/// let mut reader = RecordReader::<ReceiverRecord>::new();
/// let mut records = Vec::new();
/// for piece in stream.chunks(3) {
///     reader.push(piece.to_vec().into());
///     while let Some(record) = reader.poll()? {
///         records.push(record);
///     }
/// }
/// reader.end()?;
/// assert_eq!(records, [ReceiverRecord::WantDigest { entry: 7 }, ReceiverRecord::Alive]);
/// # Ok::<(), shiplane_wire::RecordError>(())
/// ```
pub struct RecordReader<R> {
    input: VecDeque<Bytes>,
    /// The record that is not complete yet, its header included.
    partial: Vec<u8>,
    ended: bool,
    failed: Option<RecordError>,
    record: PhantomData<fn() -> R>,
}

impl<R: Record> RecordReader<R> {
    /// Waits for the first record.
    pub fn new() -> Self {
        Self { input: VecDeque::new(), partial: Vec::new(), ended: false, failed: None, record: PhantomData }
    }

    /// Takes the next bytes of the stream. They are held, not copied, until [`poll`](Self::poll) has used
    /// them. Ignored after the end and after an error.
    pub fn push(&mut self, input: Bytes) {
        if !input.is_empty() && !self.ended && self.failed.is_none() {
            self.input.push_back(input);
        }
    }

    /// The next record; `None` asks for more input.
    ///
    /// # Errors
    ///
    /// The stream cannot be understood from here on, and every later call gives the same error: reset it
    /// with [`RecordError::code`].
    pub fn poll(&mut self) -> Result<Option<R>, RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.step().map_err(|error| self.fail(error))
    }

    /// Says that the stream ended. Call it when [`poll`](Self::poll) has returned `None`; records that
    /// were pushed but not polled are still to be polled, and a cut one is then reported there.
    ///
    /// # Errors
    ///
    /// [`RecordError::Truncated`] if the stream ended within a record, or the error before.
    pub fn end(&mut self) -> Result<(), RecordError> {
        self.ended = true;
        match self.failed {
            Some(error) => Err(error),
            None if self.input.is_empty() => self.check_end().map_err(|error| self.fail(error)),
            None => Ok(()),
        }
    }

    fn step(&mut self) -> Result<Option<R>, RecordError> {
        // A record that arrived in one piece is read where it lies.
        if self.partial.is_empty()
            && let Some(front) = self.input.front_mut()
            && let Some(len) = complete::<R>(front)?
        {
            let record = decode(&front[..len])?;
            front.advance(len);
            self.drop_used();
            return Ok(Some(record));
        }
        self.gather()
    }

    /// Puts the next record together from several pieces.
    fn gather(&mut self) -> Result<Option<R>, RecordError> {
        while let Some(front) = self.input.front_mut() {
            let due = match self.partial.first_chunk() {
                Some(header) => HEADER_LEN_BYTES + body_len::<R>(header)?,
                None => HEADER_LEN_BYTES,
            };
            let part = front.split_to(front.len().min(due - self.partial.len()));
            self.partial.extend_from_slice(&part);
            self.drop_used();
            if complete::<R>(&self.partial)?.is_some() {
                let record = decode(&self.partial)?;
                self.partial.clear();
                return Ok(Some(record));
            }
        }
        if self.ended { self.check_end().map(|()| None) } else { Ok(None) }
    }

    fn drop_used(&mut self) {
        if self.input.front().is_some_and(Bytes::is_empty) {
            self.input.pop_front();
        }
    }

    fn check_end(&self) -> Result<(), RecordError> {
        match self.partial.len() {
            0 => Ok(()),
            received_bytes => Err(RecordError::Truncated { received_bytes }),
        }
    }

    fn fail(&mut self, error: RecordError) -> RecordError {
        self.failed = Some(error);
        self.input = VecDeque::new();
        self.partial = Vec::new();
        error
    }
}

impl<R: Record> Default for RecordReader<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> fmt::Debug for RecordReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordReader")
            .field("partial_bytes", &self.partial.len())
            .field("ended", &self.ended)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// The records of one direction: [`ProviderRecord`](crate::ProviderRecord) or [`ReceiverRecord`](crate::ReceiverRecord).
pub trait Record: sealed::Decode {
    /// Appends the record to `out`.
    ///
    /// # Errors
    ///
    /// If the record breaks a rule; nothing is appended then.
    fn append_to(&self, out: &mut BytesMut) -> Result<(), RecordError>;
}

pub(crate) mod sealed {
    use super::RecordError;

    /// What a reader needs of the records of one direction.
    pub trait Decode: Sized {
        /// Whether a record of this direction has the type `tag`.
        fn knows(tag: u8) -> bool;

        /// Reads a body to its end and checks the rules for the record.
        fn decode(tag: u8, body: &[u8]) -> Result<Self, RecordError>;
    }
}

const HEADER_LEN_BYTES: usize = 5;

/// Length of the record at the front of `bytes`, if all of it is there.
fn complete<R: Record>(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(header) = bytes.first_chunk() else {
        return Ok(None);
    };
    let len = HEADER_LEN_BYTES + body_len::<R>(header)?;
    Ok((bytes.len() >= len).then_some(len))
}

/// Checks what can be checked on the header, before anything is held back for the body (SPEC 4.2).
fn body_len<R: Record>(header: &[u8; HEADER_LEN_BYTES]) -> Result<usize, RecordError> {
    let [tag, len @ ..] = *header;
    let len_bytes = u32::from_le_bytes(len);
    if !R::knows(tag) {
        return Err(RecordError::UnknownType { tag });
    }
    if len_bytes > MAX_RECORD_LEN_BYTES {
        return Err(RecordError::TooLarge { len_bytes, max_bytes: MAX_RECORD_LEN_BYTES });
    }
    Ok(len_bytes as usize)
}

/// Reads one whole record.
fn decode<R: Record>(record: &[u8]) -> Result<R, RecordError> {
    R::decode(record[0], &record[HEADER_LEN_BYTES..])
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::ReceiverRecord;

    #[test]
    fn it_holds_no_more_than_one_record() {
        let most = HEADER_LEN_BYTES + MAX_RECORD_LEN_BYTES as usize;
        let mut header = vec![17];
        header.extend_from_slice(&MAX_RECORD_LEN_BYTES.to_le_bytes());
        let mut reader = RecordReader::<ReceiverRecord>::new();
        reader.push(header.into());
        assert_eq!(reader.poll(), Ok(None));
        assert!(reader.partial.capacity() <= 64, "nothing is set aside for what was announced");
        for _ in 1..MAX_RECORD_LEN_BYTES {
            reader.push(Bytes::from_static(b"!"));
            assert_eq!(reader.poll(), Ok(None));
            assert!(reader.partial.len() < most && reader.input.is_empty());
        }
        reader.push(Bytes::from(vec![b'!'; 1 << 20]));
        assert!(reader.poll().is_err());
        assert!(reader.partial.capacity() == 0 && reader.input.is_empty());
    }
}
