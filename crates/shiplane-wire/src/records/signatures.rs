//! Lists of block signatures (SPEC 4.13).

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use super::RecordError;
use super::fields::Fields;
use crate::Digest;
use crate::limits::{MAX_FRAME_LEN_BYTES, MAX_SIGNATURES_PER_RECORD};

/// The length and digest of a content-defined block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSignature {
    /// Length of the block; never 0.
    pub len_bytes: u32,
    /// Digest of its bytes, with the transfer's algorithm (SPEC 4.21).
    pub digest: Digest,
}

/// Signatures of consecutive blocks: a whole list, or its next part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSignatures {
    /// Index of the entry.
    pub entry: u64,
    /// Where the first block starts.
    pub offset_bytes: u64,
    /// At least one and at most [`MAX_SIGNATURES_PER_RECORD`]; they end below 2^62.
    pub signatures: Vec<BlockSignature>,
}

impl BlockSignatures {
    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.entry);
        out.put_u64_le(self.offset_bytes);
        out.put_u16_le(self.signatures.len() as u16);
        for signature in &self.signatures {
            out.put_u32_le(signature.len_bytes);
            out.put_slice(signature.digest.as_bytes());
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let (entry, offset_bytes, count) = (fields.u64()?, fields.u64()?, usize::from(fields.u16()?));
        check_count(entry, count)?;
        // The bytes are checked before memory is allocated, so a large count costs nothing.
        let mut bytes = fields.part(count * SIGNATURE_LEN_ON_WIRE_BYTES)?;
        let mut signature = || {
            let len_bytes = bytes.u32()?;
            Ok(BlockSignature { len_bytes, digest: Digest::from_bytes(bytes.array()?) })
        };
        let signatures = (0..count).map(|_| signature()).collect::<Result<_, RecordError>>()?;
        Ok(Self { entry, offset_bytes, signatures })
    }

    pub(super) fn check(&self) -> Result<(), RecordError> {
        let &Self { entry, offset_bytes, ref signatures } = self;
        check_count(entry, signatures.len())?;
        if signatures.iter().any(|signature| signature.len_bytes == 0) {
            return Err(RecordError::EmptyBlock { entry });
        }
        // At most 900 of 32 bits each.
        let len_bytes = signatures.iter().map(|signature| u64::from(signature.len_bytes)).sum();
        match offset_bytes.checked_add(len_bytes) {
            Some(end) if end <= MAX_FRAME_LEN_BYTES => Ok(()),
            Some(_) | None => Err(RecordError::SpanOverflow { entry, offset_bytes, len_bytes }),
        }
    }
}

fn check_count(entry: u64, signatures: usize) -> Result<(), RecordError> {
    match signatures {
        0 => Err(RecordError::NoSignatures { entry }),
        1..=MAX_SIGNATURES_PER_RECORD => Ok(()),
        _ => Err(RecordError::TooManySignatures { signatures, max_signatures: MAX_SIGNATURES_PER_RECORD }),
    }
}

const SIGNATURE_LEN_ON_WIRE_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::limits::MAX_RECORD_LEN_BYTES;
    use crate::{Code, ProviderRecord, RecordReader};

    #[test]
    fn a_full_record_is_within_its_limit() {
        let bytes = unchecked(0, &vec![signature(1); MAX_SIGNATURES_PER_RECORD]);
        assert!(bytes.len() - 5 <= MAX_RECORD_LEN_BYTES as usize);
        assert!(decode(&bytes).unwrap().is_some());
    }

    #[test]
    fn invalid_signatures_are_neither_sent_nor_taken() {
        let len_bytes = u64::from(u32::MAX);
        let offset_bytes = MAX_FRAME_LEN_BYTES - 7;
        let overflow = RecordError::SpanOverflow { entry: 6, offset_bytes, len_bytes };
        let too_many =
            RecordError::TooManySignatures { signatures: 901, max_signatures: MAX_SIGNATURES_PER_RECORD };
        let bad = [
            (0, vec![], RecordError::NoSignatures { entry: 6 }, Code::Protocol),
            (0, vec![signature(1), signature(0)], RecordError::EmptyBlock { entry: 6 }, Code::Protocol),
            (offset_bytes, vec![signature(u32::MAX)], overflow, Code::Protocol),
            (0, vec![signature(1); 901], too_many, Code::TooLarge),
        ];
        for (offset_bytes, signatures, error, code) in bad {
            let bytes = unchecked(offset_bytes, &signatures);
            let mut out = BytesMut::new();
            let record = ProviderRecord::Signatures(BlockSignatures { entry: 6, offset_bytes, signatures });
            assert_eq!(record.encode(&mut out), Err(error));
            assert!(out.is_empty());
            assert_eq!(decode(&bytes), Err(error));
            assert_eq!(error.code(), code);
        }
    }

    #[test]
    fn a_list_shorter_or_longer_than_its_count_is_refused() {
        let good = unchecked(0, &[signature(1), signature(2)]);
        let wrong = RecordError::WrongBodyLen { tag: 8, len_bytes: 90 };
        for count in [1, 3] {
            let mut bytes = good.clone();
            bytes[5 + 16] = count;
            assert_eq!(decode(&bytes), Err(wrong));
        }
    }

    fn signature(len_bytes: u32) -> BlockSignature {
        BlockSignature { len_bytes, digest: Digest::from_bytes([0xcc; 32]) }
    }

    fn unchecked(offset_bytes: u64, signatures: &[BlockSignature]) -> Vec<u8> {
        let mut out = BytesMut::new();
        super::super::fields::put_record(&mut out, 8, |out| {
            BlockSignatures { entry: 6, offset_bytes, signatures: signatures.to_vec() }.put(out);
        });
        out.to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Option<ProviderRecord>, RecordError> {
        let mut reader = RecordReader::new();
        reader.push(bytes.to_vec().into());
        reader.poll()
    }
}
