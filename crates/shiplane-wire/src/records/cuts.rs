//! Lists of block signatures (SPEC 4.13).

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use super::RecordError;
use super::fields::Fields;
use crate::Digest;
use crate::limits::{MAX_CUTS_PER_RECORD, MAX_FRAME_LEN_BYTES};

/// A piece of a file whose ends its content decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// How long it is; never 0.
    pub len_bytes: u32,
    /// Of its bytes, by the transfer's function (SPEC 4.21).
    pub digest: Digest,
}

/// Cuts that follow one another: all of a list, or the next part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Index of the entry.
    pub entry: u64,
    /// Where the first of them starts.
    pub offset_bytes: u64,
    /// At least one and at most [`MAX_CUTS_PER_RECORD`]; they end below 2^62.
    pub cuts: Vec<Cut>,
}

impl Cuts {
    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.entry);
        out.put_u64_le(self.offset_bytes);
        out.put_u16_le(self.cuts.len() as u16);
        for cut in &self.cuts {
            out.put_u32_le(cut.len_bytes);
            out.put_slice(cut.digest.as_bytes());
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let (entry, offset_bytes, count) = (fields.u64()?, fields.u64()?, usize::from(fields.u16()?));
        check_count(entry, count)?;
        // The bytes are there before room for the cuts is made, so a large count costs nothing.
        let mut bytes = fields.part(count * CUT_LEN_ON_WIRE_BYTES)?;
        let mut cut = || {
            let len_bytes = bytes.u32()?;
            Ok(Cut { len_bytes, digest: Digest::from_bytes(bytes.array()?) })
        };
        let cuts = (0..count).map(|_| cut()).collect::<Result<_, RecordError>>()?;
        Ok(Self { entry, offset_bytes, cuts })
    }

    pub(super) fn check(&self) -> Result<(), RecordError> {
        let &Self { entry, offset_bytes, ref cuts } = self;
        check_count(entry, cuts.len())?;
        if cuts.iter().any(|cut| cut.len_bytes == 0) {
            return Err(RecordError::EmptyCut { entry });
        }
        // At most 900 of 32 bits each.
        let len_bytes = cuts.iter().map(|cut| u64::from(cut.len_bytes)).sum();
        match offset_bytes.checked_add(len_bytes) {
            Some(end) if end <= MAX_FRAME_LEN_BYTES => Ok(()),
            Some(_) | None => Err(RecordError::SpanOverflow { entry, offset_bytes, len_bytes }),
        }
    }
}

fn check_count(entry: u64, cuts: usize) -> Result<(), RecordError> {
    match cuts {
        0 => Err(RecordError::NoCuts { entry }),
        1..=MAX_CUTS_PER_RECORD => Ok(()),
        _ => Err(RecordError::TooManyCuts { cuts, max_cuts: MAX_CUTS_PER_RECORD }),
    }
}

const CUT_LEN_ON_WIRE_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::limits::MAX_RECORD_LEN_BYTES;
    use crate::{Code, ProviderRecord, RecordReader};

    #[test]
    fn a_record_of_the_most_cuts_is_within_its_limit() {
        let bytes = unchecked(0, &vec![cut(1); MAX_CUTS_PER_RECORD]);
        assert!(bytes.len() - 5 <= MAX_RECORD_LEN_BYTES as usize);
        assert!(decode(&bytes).unwrap().is_some());
    }

    #[test]
    fn cuts_that_break_a_rule_are_neither_sent_nor_taken() {
        let len_bytes = u64::from(u32::MAX);
        let offset_bytes = MAX_FRAME_LEN_BYTES - 7;
        let overflow = RecordError::SpanOverflow { entry: 6, offset_bytes, len_bytes };
        let too_many = RecordError::TooManyCuts { cuts: 901, max_cuts: MAX_CUTS_PER_RECORD };
        let bad = [
            (0, vec![], RecordError::NoCuts { entry: 6 }, Code::Protocol),
            (0, vec![cut(1), cut(0)], RecordError::EmptyCut { entry: 6 }, Code::Protocol),
            (offset_bytes, vec![cut(u32::MAX)], overflow, Code::Protocol),
            (0, vec![cut(1); 901], too_many, Code::TooLarge),
        ];
        for (offset_bytes, cuts, error, code) in bad {
            let bytes = unchecked(offset_bytes, &cuts);
            let mut out = BytesMut::new();
            let record = ProviderRecord::Cuts(Cuts { entry: 6, offset_bytes, cuts });
            assert_eq!(record.encode(&mut out), Err(error));
            assert!(out.is_empty());
            assert_eq!(decode(&bytes), Err(error));
            assert_eq!(error.code(), code);
        }
    }

    #[test]
    fn a_list_shorter_or_longer_than_its_count_is_refused() {
        let good = unchecked(0, &[cut(1), cut(2)]);
        let wrong = RecordError::WrongBodyLen { tag: 8, len_bytes: 90 };
        for count in [1, 3] {
            let mut bytes = good.clone();
            bytes[5 + 16] = count;
            assert_eq!(decode(&bytes), Err(wrong));
        }
    }

    fn cut(len_bytes: u32) -> Cut {
        Cut { len_bytes, digest: Digest::from_bytes([0xcc; 32]) }
    }

    fn unchecked(offset_bytes: u64, cuts: &[Cut]) -> Vec<u8> {
        let mut out = BytesMut::new();
        super::super::fields::put_record(&mut out, 8, |out| {
            Cuts { entry: 6, offset_bytes, cuts: cuts.to_vec() }.put(out);
        });
        out.to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Option<ProviderRecord>, RecordError> {
        let mut reader = RecordReader::new();
        reader.push(bytes.to_vec().into());
        reader.poll()
    }
}
