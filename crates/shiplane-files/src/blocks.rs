//! Content-defined chunking of a file (SPEC 4.13).

use std::ops::Range;

use fastcdc::v2020::FastCDC;
use shiplane_wire::{BlockSignature, DigestAlgorithm, limits};

use crate::buffers::Buffers;

/// A [`BlockSignature`] and where in its file it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it starts.
    pub offset_bytes: u64,
    /// How long it is, and its digest.
    pub signature: BlockSignature,
}

impl Block {
    /// Where it ends.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + u64::from(self.signature.len_bytes)
    }

    /// From where to where it goes.
    pub fn range(&self) -> Range<u64> {
        self.offset_bytes..self.end_bytes()
    }
}

/// Splits a span of `len_bytes` into blocks. Calls `tell` with their signatures in order, one buffer at a time.
/// `read` fills a buffer from an offset within the span; every byte is read once.
///
/// Only the content decides where a block ends. So the same content has the same blocks at any offset, except for the
/// first block and those that an edit touches, and a block that moved is found by its digest.
pub(crate) fn split<E>(
    len_bytes: u64,
    average_bytes: u32,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    mut tell: impl FnMut(Vec<BlockSignature>) -> Result<(), E>,
) -> Result<(), E> {
    let splitter = BlockSplitter::new(average_bytes, algorithm);
    buffers.with(splitter.buffer_len_bytes(len_bytes), |buffer| {
        let (mut at, mut filled) = (0, 0);
        while at < len_bytes || filled > 0 {
            let room = buffer.len() - filled;
            let len = usize::try_from(len_bytes - at).map_or(room, |left| left.min(room));
            read(at, &mut buffer[filled..filled + len])?;
            at += len as u64;
            filled += len;
            let (signatures, used) = splitter.split(&buffer[..filled], at == len_bytes);
            tell(signatures)?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
        Ok(())
    })
}

/// Splits the start of a span of `len_bytes`, as much as a buffer holds, and returns the signatures. Continuing after
/// the last block gives the same result as splitting the whole span at once.
pub fn split_buffer<E>(
    len_bytes: u64,
    average_bytes: u32,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
    read: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Vec<BlockSignature>, E> {
    let splitter = BlockSplitter::new(average_bytes, algorithm);
    buffers.with(splitter.buffer_len_bytes(len_bytes), |buffer| {
        read(buffer)?;
        Ok(splitter.split(buffer, buffer.len() as u64 == len_bytes).0)
    })
}

/// Splits a buffer into blocks.
struct BlockSplitter {
    average_bytes: usize,
    algorithm: DigestAlgorithm,
}

impl BlockSplitter {
    fn new(average_bytes: u32, algorithm: DigestAlgorithm) -> Self {
        // At most 1 MiB by what the wire lets through, so that a block is at most 4 MiB.
        let average_bytes =
            average_bytes.clamp(limits::MIN_BLOCK_AVERAGE_BYTES, limits::MAX_BLOCK_AVERAGE_BYTES) as usize;
        Self { average_bytes, algorithm }
    }

    /// How long a buffer is for so much.
    fn buffer_len_bytes(&self, len_bytes: u64) -> usize {
        let wanted = (self.average_bytes * BLOCKS_AT_A_TIME).clamp(MIN_READ_LEN_BYTES, MAX_READ_LEN_BYTES);
        usize::try_from(len_bytes).map_or(wanted, |len| len.min(wanted))
    }

    /// The blocks of `content`, and how much of it they are: all of it, if it `is_last`.
    fn split(&self, content: &[u8], is_last: bool) -> (Vec<BlockSignature>, usize) {
        let (min, max) = (self.average_bytes / SPREAD, self.average_bytes * SPREAD);
        let mut used = 0;
        let mut signatures = Vec::new();
        for block in FastCDC::new(content, min, self.average_bytes, max) {
            let end = block.offset + block.length;
            if end == content.len() && !is_last && block.length < max {
                break; // The buffer ended it, not the content.
            }
            let digest = self.algorithm.digest(&content[block.offset..end]);
            signatures.push(BlockSignature { len_bytes: block.length as u32, digest });
            used = end;
        }
        (signatures, used)
    }
}

/// The shortest and the longest that blocks of this average may be; only the last may be shorter.
pub fn bounds_of(average_bytes: u32) -> (u64, u64) {
    (u64::from(average_bytes) / SPREAD as u64, u64::from(average_bytes) * SPREAD as u64)
}

/// OldBlocks are from a quarter to four times the average: what FastCDC's authors measured with.
const SPREAD: usize = 4;

/// Enough blocks that few of them cross the end of a buffer.
const BLOCKS_AT_A_TIME: usize = 64;

/// 1 MiB: reads of this size keep a disk busy, and what was read is still in the processor's cache when it is
/// hashed.
const MIN_READ_LEN_BYTES: usize = 1 << 20;

/// 6 MiB: more than the longest block there is. A few threads have one each.
const MAX_READ_LEN_BYTES: usize = 6 << 20;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn signatures(data: &[u8], average_bytes: u32) -> Vec<BlockSignature> {
        let mut signatures = Vec::new();
        let read = |offset: u64, buffer: &mut [u8]| {
            let from = offset as usize;
            buffer.copy_from_slice(&data[from..from + buffer.len()]);
            Ok::<_, Infallible>(())
        };
        let tell = |more| {
            signatures.extend(more);
            Ok(())
        };
        split(data.len() as u64, average_bytes, DigestAlgorithm::Blake3, &Buffers::default(), read, tell)
            .unwrap();
        signatures
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        testlink::Rng::new(seed).bytes(len)
    }

    #[test]
    fn block_lengths_never_change() {
        // Other versions of this program must split alike, or nothing matches.
        let lens: Vec<_> =
            signatures(&noise(1, 30_000), 1 << 12).iter().map(|signature| signature.len_bytes).collect();
        assert_eq!(lens, GOLDEN_LENS);
    }

    const GOLDEN_LENS: &[u32] = &[4823, 4305, 5706, 1760, 4854, 6138, 2414];

    #[test]
    fn content_longer_than_the_buffer_is_split_as_if_it_were_whole() {
        let data = noise(2, 2 * MAX_READ_LEN_BYTES + 12_345);
        for log in [12, 16, 20] {
            let whole = FastCDC::new(&data, 1 << (log - 2), 1 << log, 1 << (log + 2));
            let whole = whole.map(|block| block.length as u32);
            assert!(
                signatures(&data, 1 << log).iter().map(|signature| signature.len_bytes).eq(whole),
                "{log}"
            );
        }
        // All the same bytes: nothing but the longest blocks.
        let zeros = vec![0; MAX_READ_LEN_BYTES + 5];
        let whole = FastCDC::new(&zeros, 1 << 14, 1 << 16, 1 << 18).map(|block| block.length as u32);
        assert!(signatures(&zeros, 1 << 16).iter().map(|signature| signature.len_bytes).eq(whole));
    }

    #[test]
    fn content_split_step_by_step_is_split_as_if_it_were_whole() {
        let data = noise(4, 2 * MAX_READ_LEN_BYTES + 12_345);
        let (buffers, mut stepwise, mut at) = (Buffers::default(), Vec::new(), 0);
        while at < data.len() {
            let read = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&data[at..at + buffer.len()]);
                Ok::<_, Infallible>(())
            };
            let left = (data.len() - at) as u64;
            let step = split_buffer(left, 1 << 16, DigestAlgorithm::Blake3, &buffers, read).unwrap();
            at += step.iter().map(|signature| signature.len_bytes as usize).sum::<usize>();
            stepwise.extend(step);
        }
        assert_eq!(stepwise, signatures(&data, 1 << 16));
    }

    #[test]
    fn an_insertion_at_the_front_changes_the_first_pieces_only() {
        let old = noise(3, 1 << 20);
        let new = [b"xy", &old[..]].concat();
        let known: HashSet<_> = signatures(&old, 1 << 12).into_iter().collect();
        let changed =
            signatures(&new, 1 << 12).into_iter().filter(|signature| !known.contains(signature)).count();
        assert!((1..=3).contains(&changed), "{changed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn blocks_cover_everything_within_their_bounds(seed: u64, len in 0usize..200_000, log in 10u32..14) {
            let data = noise(seed, len);
            let signatures = signatures(&data, 1 << log);
            let (min, max) = bounds_of(1 << log);
            let mut at = 0;
            for (i, signature) in signatures.iter().enumerate() {
                let end = at + signature.len_bytes as usize;
                prop_assert_eq!(signature.digest, shiplane_wire::Digest::blake3(&data[at..end]));
                prop_assert!(u64::from(signature.len_bytes) <= max);
                prop_assert!(u64::from(signature.len_bytes) >= min || i + 1 == signatures.len());
                at = end;
            }
            prop_assert_eq!(at, len);
        }
    }
}
