//! Cuts what is wanted into chunks (SPEC 4.7).

use std::ops::Range;

use shiplane_transport::SideBySide;
use shiplane_wire::{Span, limits};

/// Collects wanted ranges and yields chunks: slices of one large file, or packs of whole small ones.
#[derive(Debug)]
pub(super) struct Packer {
    chunk_len_bytes: u64,
    pack: Vec<Span>,
    pack_len_bytes: u64,
}

impl Packer {
    pub(super) fn new(chunk_len_bytes: u64) -> Self {
        let chunk_len_bytes = chunk_len_bytes.clamp(1, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
        Self { chunk_len_bytes, pack: Vec::new(), pack_len_bytes: 0 }
    }

    /// Wants these ranges of an entry of `size_bytes`; `emit` gets every chunk that is full by that.
    pub(super) fn add(
        &mut self,
        entry: u64,
        size_bytes: u64,
        missing: &[Range<u64>],
        mut emit: impl FnMut(Vec<Span>),
    ) {
        if size_bytes >= self.chunk_len_bytes || missing.len() > limits::MAX_SPANS_PER_CHUNK {
            return add_large(entry, self.chunk_len_for(size_bytes), missing, emit);
        }
        let missing = missing.iter().filter(|range| !range.is_empty());
        let spans: Vec<_> = missing
            .map(|range| Span { entry, offset_bytes: range.start, len_bytes: range.end - range.start })
            .collect();
        let len_bytes: u64 = spans.iter().map(|span| span.len_bytes).sum();
        let fits = self.pack_len_bytes + len_bytes <= self.chunk_len_bytes
            && self.pack.len() + spans.len() <= limits::MAX_SPANS_PER_CHUNK;
        if !fits {
            self.flush(&mut emit);
        }
        self.pack_len_bytes += len_bytes;
        self.pack.extend(spans);
    }

    /// What a large file is cut into: the chunk size, or more where that would be too many chunks.
    fn chunk_len_for(&self, size_bytes: u64) -> u64 {
        let least_bytes = size_bytes.div_ceil(MAX_CHUNKS_OF_A_FILE);
        if least_bytes <= self.chunk_len_bytes {
            return self.chunk_len_bytes;
        }
        least_bytes.next_power_of_two().clamp(LEAST_GROWN_BYTES, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES)
    }

    /// Emits the pack that is not full yet, if any.
    pub(super) fn flush(&mut self, mut emit: impl FnMut(Vec<Span>)) {
        if !self.pack.is_empty() {
            self.pack_len_bytes = 0;
            emit(std::mem::take(&mut self.pack));
        }
    }
}

/// Slices long ranges; short ones, which an edited file has many of, share a chunk among themselves.
fn add_large(entry: u64, chunk_len_bytes: u64, missing: &[Range<u64>], mut emit: impl FnMut(Vec<Span>)) {
    let (mut chunk, mut room_bytes) = (Vec::new(), chunk_len_bytes);
    for range in missing {
        let mut offset_bytes = range.start;
        while offset_bytes < range.end {
            let len_bytes = chunk_len_bytes.min(range.end - offset_bytes);
            if len_bytes > room_bytes || chunk.len() == limits::MAX_SPANS_PER_CHUNK {
                emit(std::mem::take(&mut chunk));
                room_bytes = chunk_len_bytes;
            }
            chunk.push(Span { entry, offset_bytes, len_bytes });
            room_bytes -= len_bytes;
            offset_bytes += len_bytes;
        }
    }
    if !chunk.is_empty() {
        emit(chunk);
    }
}

/// 65,536: each has a record in the journal, which whoever resumes reads and holds. With chunks of 512 KiB
/// that is a file of 32 GiB, with the longest ones 1 TiB; only above that there are more.
const MAX_CHUNKS_OF_A_FILE: u64 = 1 << 16;

/// 2 MiB: chunks of 1 MiB would still be held whole, twice the memory of the usual ones.
const LEAST_GROWN_BYTES: u64 = 2 * SideBySide::MAX_LEN_BYTES;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many chunks a whole file of that size has, and how long the first is.
    fn whole(chunk_len_bytes: u64, size_bytes: u64) -> (u64, u64) {
        let (mut count, mut first_bytes) = (0, 0);
        let mut packer = Packer::new(chunk_len_bytes);
        packer.add(0, size_bytes, std::slice::from_ref(&(0..size_bytes)), |chunk| {
            count += 1;
            first_bytes = first_bytes.max(chunk.iter().map(|span| span.len_bytes).sum());
        });
        (count, first_bytes)
    }

    #[test]
    fn a_very_large_file_has_larger_chunks_instead_of_more() {
        const KIB: u64 = 1 << 10;
        const GIB: u64 = 1 << 30;
        assert_eq!(whole(512 * KIB, 32 * GIB), (1 << 16, 512 * KIB));
        // Never those that would be held whole, and are twice as long.
        assert_eq!(whole(512 * KIB, 32 * GIB + 1), ((16 << 10) + 1, 2048 * KIB));
        assert_eq!(whole(64 * KIB, 32 * GIB), (16 << 10, 2048 * KIB));
        assert_eq!(whole(4096 * KIB, 32 * GIB), (8 << 10, 4096 * KIB));
        assert_eq!(whole(512 * KIB, 1024 * GIB), (1 << 16, 16 << 20));
        assert_eq!(whole(512 * KIB, 1025 * GIB).1, 16 << 20);
    }

    fn pack(chunk_len_bytes: u64, files: &[(u64, Vec<Range<u64>>)]) -> Vec<Vec<Span>> {
        let mut packer = Packer::new(chunk_len_bytes);
        let mut chunks = Vec::new();
        for (entry, (size_bytes, missing)) in files.iter().enumerate() {
            packer.add(entry as u64, *size_bytes, missing, |chunk| chunks.push(chunk));
        }
        packer.flush(|chunk| chunks.push(chunk));
        chunks
    }

    fn all_of(len_bytes: u64) -> Vec<Range<u64>> {
        std::iter::once(0..len_bytes).collect()
    }

    fn span(entry: u64, offset_bytes: u64, len_bytes: u64) -> Span {
        Span { entry, offset_bytes, len_bytes }
    }

    #[test]
    fn small_files_share_a_chunk_and_large_ones_do_not() {
        let whole = |len| (len, all_of(len));
        let chunks = pack(10, &[whole(4), whole(25), whole(5), whole(3), whole(0)]);
        assert_eq!(
            chunks,
            [
                vec![span(1, 0, 10)],
                vec![span(1, 10, 10)],
                vec![span(1, 20, 5)],
                vec![span(0, 0, 4), span(2, 0, 5)],
                vec![span(3, 0, 3)],
            ]
        );
    }

    #[test]
    fn a_resumed_file_wants_its_gaps_only() {
        let chunks = pack(10, &[(40, vec![5..12, 30..40])]);
        assert_eq!(chunks, [vec![span(0, 5, 7)], vec![span(0, 30, 10)]]);
    }

    #[test]
    fn the_edits_of_a_large_file_share_chunks() {
        let chunks = pack(10, &[(100, vec![1..4, 20..25, 30..33, 50..75])]);
        let expected = [
            vec![span(0, 1, 3), span(0, 20, 5)],
            vec![span(0, 30, 3)],
            vec![span(0, 50, 10)],
            vec![span(0, 60, 10)],
            vec![span(0, 70, 5)],
        ];
        assert_eq!(chunks, expected);
    }

    #[test]
    fn a_small_file_with_many_gaps_is_more_than_one_chunk() {
        let gaps = (0..1500).map(|i| i * 4..i * 4 + 1).collect();
        let chunks = pack(1 << 20, &[(6000, gaps)]);
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [limits::MAX_SPANS_PER_CHUNK, 476]);
    }

    #[test]
    fn no_chunk_has_too_many_spans() {
        let one_byte = (1, all_of(1));
        let chunks = pack(1 << 20, &vec![one_byte; limits::MAX_SPANS_PER_CHUNK + 1]);
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [limits::MAX_SPANS_PER_CHUNK, 1]);
    }

    proptest! {
        #[test]
        fn every_wanted_byte_is_in_exactly_one_chunk_and_files_stay_whole(
            chunk_len_bytes in 1u64..50,
            sizes in prop::collection::vec(0u64..120, 0..40),
        ) {
            let files: Vec<_> = sizes.iter().map(|&len| (len, all_of(len))).collect();
            let chunks = pack(chunk_len_bytes, &files);
            for chunk in &chunks {
                prop_assert!(!chunk.is_empty());
                prop_assert!(chunk.iter().map(|s| s.len_bytes).sum::<u64>() <= chunk_len_bytes);
                let large = chunk.iter().any(|s| sizes[s.entry as usize] >= chunk_len_bytes);
                prop_assert!(!large || chunk.len() == 1, "a large file shares no chunk");
            }
            for (entry, &len) in sizes.iter().enumerate() {
                let mut next = 0;
                for span in chunks.iter().flatten().filter(|s| s.entry == entry as u64) {
                    prop_assert_eq!(span.offset_bytes, next);
                    next += span.len_bytes;
                }
                prop_assert_eq!(next, len);
            }
        }
    }
}
