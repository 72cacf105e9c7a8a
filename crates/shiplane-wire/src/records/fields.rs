//! Reads the fields of a record's body and checks that nothing follows.

use bytes::{BufMut, BytesMut};

use super::RecordError;

/// A body that is being read. Reading beyond its end, or not to its end, is the same error: the length in
/// the record's header was wrong.
pub(super) struct Fields<'a> {
    tag: u8,
    len_bytes: u32,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads all of `body` by `read`.
    pub(super) fn read_whole<T>(
        tag: u8,
        body: &'a [u8],
        read: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        // A body is at most 64 KiB long.
        let mut fields = Self { tag, len_bytes: body.len() as u32, rest: body };
        let value = read(&mut fields)?;
        if fields.rest.is_empty() { Ok(value) } else { Err(fields.wrong_len()) }
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.wrong_len())?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `len` bytes, to be read as fields of their own.
    pub(super) fn part(&mut self, len: usize) -> Result<Self, RecordError> {
        let rest = self.bytes(len)?;
        Ok(Self { rest, ..*self })
    }

    /// How much is left to be read.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.wrong_len())?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_le_bytes)
    }

    fn wrong_len(&self) -> RecordError {
        RecordError::WrongBodyLen { tag: self.tag, len_bytes: self.len_bytes }
    }
}

/// Appends a record whose body `write` appends; the length is filled in afterwards.
pub(super) fn put_record(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let len_at = out.len();
    out.put_u32_le(0);
    let body_at = out.len();
    write(out);
    // Records are checked before they are written, which keeps them within 64 KiB.
    let len_bytes = (out.len() - body_at) as u32;
    out[len_at..body_at].copy_from_slice(&len_bytes.to_le_bytes());
}

/// Paths have at most 32 KiB, escaped ones at most 16 KiB, attributes at most 60 KiB.
pub(super) fn put_text(out: &mut BytesMut, text: &[u8]) {
    out.put_u16_le(text.len() as u16);
    out.put_slice(text);
}

pub(super) fn read_text<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], RecordError> {
    let len_bytes = fields.u16()?;
    fields.bytes(usize::from(len_bytes))
}
