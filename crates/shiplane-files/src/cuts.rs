//! Content-defined chunking of a file (SPEC 4.13).

use std::ops::Range;

use fastcdc::v2020::FastCDC;
use shiplane_wire::{Cut, DigestAlgorithm, limits};

use crate::buffers::Buffers;

/// A [`Cut`] and where in its file it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedCut {
    /// Where it starts.
    pub offset_bytes: u64,
    /// How long it is, and its digest.
    pub cut: Cut,
}

impl PlacedCut {
    /// Where it ends.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + u64::from(self.cut.len_bytes)
    }

    /// From where to where it goes.
    pub fn range(&self) -> Range<u64> {
        self.offset_bytes..self.end_bytes()
    }
}

/// Cuts a span of `len_bytes` and tells of its pieces, in order, as many at a time as a buffer holds.
/// `read` fills a buffer with what is at an offset within the span; it is asked for every byte once.
///
/// The same content is cut at the same places wherever it stands, but for the first piece and what an edit
/// touches: so a piece that moved is found again by its digest.
pub(crate) fn cut<E>(
    len_bytes: u64,
    average_bytes: u32,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    mut tell: impl FnMut(Vec<Cut>) -> Result<(), E>,
) -> Result<(), E> {
    let cutter = Cutter::new(average_bytes, algorithm);
    buffers.with(cutter.buffer_len_bytes(len_bytes), |buffer| {
        let (mut at, mut filled) = (0, 0);
        while at < len_bytes || filled > 0 {
            let room = buffer.len() - filled;
            let len = usize::try_from(len_bytes - at).map_or(room, |left| left.min(room));
            read(at, &mut buffer[filled..filled + len])?;
            at += len as u64;
            filled += len;
            let (cuts, used) = cutter.cut(&buffer[..filled], at == len_bytes);
            tell(cuts)?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
        Ok(())
    })
}

/// The same for as much of `len_bytes` as a buffer holds: gives its pieces. What follows them is cut from there, with
/// the same result as if it were all one.
pub fn cut_some<E>(
    len_bytes: u64,
    average_bytes: u32,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
    read: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Vec<Cut>, E> {
    let cutter = Cutter::new(average_bytes, algorithm);
    buffers.with(cutter.buffer_len_bytes(len_bytes), |buffer| {
        read(buffer)?;
        Ok(cutter.cut(buffer, buffer.len() as u64 == len_bytes).0)
    })
}

/// Cuts what is in a buffer.
struct Cutter {
    average_bytes: usize,
    algorithm: DigestAlgorithm,
}

impl Cutter {
    fn new(average_bytes: u32, algorithm: DigestAlgorithm) -> Self {
        // At most 1 MiB by what the wire lets through, so that a piece is at most 4 MiB.
        let average_bytes =
            average_bytes.clamp(limits::MIN_CUT_AVERAGE_BYTES, limits::MAX_CUT_AVERAGE_BYTES) as usize;
        Self { average_bytes, algorithm }
    }

    /// How long a buffer is for so much.
    fn buffer_len_bytes(&self, len_bytes: u64) -> usize {
        let wanted = (self.average_bytes * PIECES_AT_A_TIME).clamp(MIN_READ_LEN_BYTES, MAX_READ_LEN_BYTES);
        usize::try_from(len_bytes).map_or(wanted, |len| len.min(wanted))
    }

    /// The pieces of `content`, and how much of it they are: all of it, if it `is_last`.
    fn cut(&self, content: &[u8], is_last: bool) -> (Vec<Cut>, usize) {
        let (min, max) = (self.average_bytes / SPREAD, self.average_bytes * SPREAD);
        let mut used = 0;
        let mut cuts = Vec::new();
        for piece in FastCDC::new(content, min, self.average_bytes, max) {
            let end = piece.offset + piece.length;
            if end == content.len() && !is_last && piece.length < max {
                break; // The buffer ended it, not the content.
            }
            let digest = self.algorithm.digest(&content[piece.offset..end]);
            cuts.push(Cut { len_bytes: piece.length as u32, digest });
            used = end;
        }
        (cuts, used)
    }
}

/// The shortest and the longest that pieces of this average may be; only the last may be shorter.
pub fn bounds_of(average_bytes: u32) -> (u64, u64) {
    (u64::from(average_bytes) / SPREAD as u64, u64::from(average_bytes) * SPREAD as u64)
}

/// Pieces are from a quarter to four times the average: what FastCDC's authors measured with.
const SPREAD: usize = 4;

/// Enough pieces for few of them to be cut by the end of what was read.
const PIECES_AT_A_TIME: usize = 64;

/// 1 MiB: reads of this size keep a disk busy, and what was read is still in the processor's cache when it is
/// hashed.
const MIN_READ_LEN_BYTES: usize = 1 << 20;

/// 6 MiB: more than the longest piece there is. A few threads have one each.
const MAX_READ_LEN_BYTES: usize = 6 << 20;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn cuts(data: &[u8], average_bytes: u32) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let read = |offset: u64, buffer: &mut [u8]| {
            let from = offset as usize;
            buffer.copy_from_slice(&data[from..from + buffer.len()]);
            Ok::<_, Infallible>(())
        };
        let tell = |more| {
            cuts.extend(more);
            Ok(())
        };
        cut(data.len() as u64, average_bytes, DigestAlgorithm::Blake3, &Buffers::default(), read, tell)
            .unwrap();
        cuts
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn the_cuts_of_a_content_never_change() {
        // Other versions of this program cut the same, or nothing matches any more.
        let lens: Vec<_> = cuts(&noise(1, 30_000), 1 << 12).iter().map(|cut| cut.len_bytes).collect();
        assert_eq!(lens, GOLDEN_LENS);
    }

    const GOLDEN_LENS: &[u32] = &[5977, 4111, 5338, 2748, 4717, 4233, 2876];

    #[test]
    fn what_is_longer_than_the_buffer_is_cut_as_if_it_were_whole() {
        let data = noise(2, 2 * MAX_READ_LEN_BYTES + 12_345);
        for log in [12, 16, 20] {
            let whole = FastCDC::new(&data, 1 << (log - 2), 1 << log, 1 << (log + 2));
            let whole = whole.map(|piece| piece.length as u32);
            assert!(cuts(&data, 1 << log).iter().map(|cut| cut.len_bytes).eq(whole), "{log}");
        }
        // All the same bytes: nothing but the longest pieces.
        let zeros = vec![0; MAX_READ_LEN_BYTES + 5];
        let whole = FastCDC::new(&zeros, 1 << 14, 1 << 16, 1 << 18).map(|piece| piece.length as u32);
        assert!(cuts(&zeros, 1 << 16).iter().map(|cut| cut.len_bytes).eq(whole));
    }

    #[test]
    fn what_is_cut_step_by_step_is_cut_as_if_it_were_whole() {
        let data = noise(4, 2 * MAX_READ_LEN_BYTES + 12_345);
        let (buffers, mut stepwise, mut at) = (Buffers::default(), Vec::new(), 0);
        while at < data.len() {
            let read = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&data[at..at + buffer.len()]);
                Ok::<_, Infallible>(())
            };
            let left = (data.len() - at) as u64;
            let step = cut_some(left, 1 << 16, DigestAlgorithm::Blake3, &buffers, read).unwrap();
            at += step.iter().map(|cut| cut.len_bytes as usize).sum::<usize>();
            stepwise.extend(step);
        }
        assert_eq!(stepwise, cuts(&data, 1 << 16));
    }

    #[test]
    fn an_insertion_at_the_front_changes_the_first_pieces_only() {
        let old = noise(3, 1 << 20);
        let new = [b"xy", &old[..]].concat();
        let known: HashSet<_> = cuts(&old, 1 << 12).into_iter().collect();
        let changed = cuts(&new, 1 << 12).into_iter().filter(|cut| !known.contains(cut)).count();
        assert!((1..=3).contains(&changed), "{changed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn cuts_cover_everything_within_their_bounds(seed: u64, len in 0usize..200_000, log in 10u32..14) {
            let data = noise(seed, len);
            let cuts = cuts(&data, 1 << log);
            let (min, max) = bounds_of(1 << log);
            let mut at = 0;
            for (i, cut) in cuts.iter().enumerate() {
                let end = at + cut.len_bytes as usize;
                prop_assert_eq!(cut.digest, shiplane_wire::Digest::blake3(&data[at..end]));
                prop_assert!(u64::from(cut.len_bytes) <= max);
                prop_assert!(u64::from(cut.len_bytes) >= min || i + 1 == cuts.len());
                at = end;
            }
            prop_assert_eq!(at, len);
        }
    }
}
