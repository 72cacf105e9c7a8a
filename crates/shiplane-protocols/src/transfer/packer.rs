//! Packs wanted spans into chunks (SPEC 4.7), one at a time.

use std::{collections::VecDeque, ops::Range};

use shiplane_wire::{Piece, Span, limits};

/// Collects wanted ranges and yields chunks: slices of one large file, or packs of whole small ones.
///
/// A large file is kept as its ranges and cut when its next chunk is asked for, so that the sizes that a peer
/// claims cost nothing.
#[derive(Debug)]
pub(super) struct Packer {
    chunk_len_bytes: u64,
    pack: Vec<Span>,
    pack_len_bytes: u64,
    queue: VecDeque<Queued>,
    /// The next chunk, once `peek` has returned it.
    next: Option<Vec<Span>>,
}

/// What the next chunks are cut from.
#[derive(Debug)]
enum Queued {
    Pack(Vec<Span>),
    Large(LargeFile),
}

/// A file with chunks of its own.
#[derive(Debug)]
struct LargeFile {
    entry: u64,
    size_bytes: u64,
    /// Not yet in any chunk.
    missing: VecDeque<Range<u64>>,
}

impl Packer {
    pub(super) fn new(chunk_len_bytes: u64) -> Self {
        let chunk_len_bytes = chunk_len_bytes.clamp(1, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
        Self { chunk_len_bytes, pack: Vec::new(), pack_len_bytes: 0, queue: VecDeque::new(), next: None }
    }

    /// From now on chunks are so long.
    pub(super) fn set_chunk_len(&mut self, chunk_len_bytes: u64) {
        self.chunk_len_bytes = chunk_len_bytes.clamp(1, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
    }

    /// Wants these ranges of an entry of `size_bytes`.
    pub(super) fn add(&mut self, entry: u64, size_bytes: u64, mut missing: Vec<Range<u64>>) {
        missing.retain(|range| !range.is_empty());
        if size_bytes >= self.chunk_len_bytes || missing.len() > limits::MAX_SPANS_PER_CHUNK {
            let file = LargeFile { entry, size_bytes, missing: missing.into() };
            self.queue.push_back(Queued::Large(file));
            return;
        }
        let len_bytes: u64 = missing.iter().map(|range| range.end - range.start).sum();
        let fits = self.pack_len_bytes + len_bytes <= self.chunk_len_bytes
            && self.pack.len() + missing.len() <= self.max_pack_spans();
        if !fits {
            self.flush();
        }
        self.pack_len_bytes += len_bytes;
        let span =
            |range: Range<u64>| Span { entry, offset_bytes: range.start, len_bytes: range.end - range.start };
        self.pack.extend(missing.into_iter().map(span));
    }

    /// How many small files share a chunk: as many more, the faster the path, and so the provider, has proven to be.
    fn max_pack_spans(&self) -> usize {
        let by_len = usize::try_from(self.chunk_len_bytes / BYTES_PER_SPAN).unwrap_or(usize::MAX);
        by_len.clamp(MIN_PACK_SPANS, MAX_PACK_SPANS)
    }

    /// Wants these spans, which were a chunk or a part of one, again.
    pub(super) fn put_back(&mut self, spans: Vec<Span>) {
        self.queue.push_back(Queued::Pack(spans));
    }

    /// Yields the pack that is not full yet, if any, as it is.
    pub(super) fn flush(&mut self) {
        if !self.pack.is_empty() {
            self.pack_len_bytes = 0;
            self.queue.push_back(Queued::Pack(std::mem::take(&mut self.pack)));
        }
    }

    /// The next chunk; [`next`](Self::next) takes it.
    pub(super) fn peek(&mut self) -> Option<&[Span]> {
        if self.next.is_none() {
            self.next = self.cut();
        }
        self.next.as_deref()
    }

    /// The next chunk that is full, or that was put back or flushed.
    pub(super) fn next(&mut self) -> Option<Vec<Span>> {
        self.next.take().or_else(|| self.cut())
    }

    /// Puts this before all others, in place of what [`next`](Self::next) gave last.
    pub(super) fn set_next(&mut self, spans: Vec<Span>) {
        self.next = Some(spans);
    }

    /// Wants nothing more of this entry, if it is a file with chunks of its own.
    pub(super) fn forget_large(&mut self, entry: u64) {
        self.queue.retain(|queued| !matches!(queued, Queued::Large(file) if file.entry == entry));
    }

    /// Whether nothing is wanted that was not yielded.
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_none() && self.queue.is_empty() && self.pack.is_empty()
    }

    fn cut(&mut self) -> Option<Vec<Span>> {
        loop {
            match self.queue.pop_front()? {
                Queued::Pack(spans) => return Some(spans),
                Queued::Large(mut file) => {
                    let chunk = file.cut(self.chunk_len_for(file.size_bytes));
                    if !file.missing.is_empty() {
                        self.queue.push_front(Queued::Large(file));
                    }
                    if !chunk.is_empty() {
                        return Some(chunk);
                    }
                }
            }
        }
    }

    /// What a large file is cut into: the chunk size, or more where that would be too many chunks.
    fn chunk_len_for(&self, size_bytes: u64) -> u64 {
        let least_bytes = size_bytes.div_ceil(MAX_CHUNKS_OF_A_FILE);
        if least_bytes <= self.chunk_len_bytes {
            return self.chunk_len_bytes;
        }
        least_bytes.next_power_of_two().min(limits::MAX_PAYLOAD_CHUNK_LEN_BYTES)
    }
}

impl LargeFile {
    /// The next chunk. Long ranges are sliced; short ones, which an edited file has many of, share a chunk.
    fn cut(&mut self, chunk_len_bytes: u64) -> Vec<Span> {
        let (mut chunk, mut room_bytes) = (Vec::new(), chunk_len_bytes);
        while let Some(range) = self.missing.front_mut() {
            let len_bytes = slot_len_bytes(range.start, chunk_len_bytes).min(range.end - range.start);
            if len_bytes > room_bytes || chunk.len() == limits::MAX_SPANS_PER_CHUNK {
                break;
            }
            chunk.push(Span { entry: self.entry, offset_bytes: range.start, len_bytes });
            room_bytes -= len_bytes;
            range.start += len_bytes;
            if !range.is_empty() {
                break; // A slice of a long range has a chunk of its own, which may be a piece of the file.
            }
            self.missing.pop_front();
        }
        chunk
    }
}

/// How far a chunk goes that begins at an offset, so that it or the next one is a piece of its file (SPEC 4.22).
fn slot_len_bytes(offset_bytes: u64, chunk_len_bytes: u64) -> u64 {
    if chunk_len_bytes < Piece::CELL_LEN_BYTES || offset_bytes == 0 {
        return chunk_len_bytes;
    }
    match offset_bytes % Piece::CELL_LEN_BYTES {
        0 => chunk_len_bytes.min(1 << offset_bytes.trailing_zeros()),
        past_bytes => Piece::CELL_LEN_BYTES - past_bytes,
    }
}

/// 65,536: each has a record in the journal, which a resumed run reads and holds. With chunks of 512 KiB
/// that is a file of 32 GiB, with the longest ones 1 TiB; only above that there are more.
const MAX_CHUNKS_OF_A_FILE: u64 = 1 << 16;

/// 1 KiB: a chunk of 64 KiB, as all are at first, is 64 files at most.
const BYTES_PER_SPAN: u64 = 1 << 10;

/// 64: files that any disk opens and reads in the time in which a peer has to move something.
const MIN_PACK_SPANS: usize = 64;

/// 256: more share nothing that is worth their wait for one another.
const MAX_PACK_SPANS: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many chunks a whole file of that size has, and how long the first is.
    fn whole(chunk_len_bytes: u64, size_bytes: u64) -> (u64, u64) {
        let mut packer = Packer::new(chunk_len_bytes);
        packer.add(0, size_bytes, all_of(size_bytes));
        let first_bytes = packer.peek().unwrap().iter().map(|span| span.len_bytes).sum();
        (std::iter::from_fn(|| packer.next()).count() as u64, first_bytes)
    }

    #[test]
    fn a_very_large_file_has_larger_chunks_instead_of_more() {
        const KIB: u64 = 1 << 10;
        const GIB: u64 = 1 << 30;
        assert_eq!(whole(512 * KIB, 32 * GIB), (1 << 16, 512 * KIB));
        assert_eq!(whole(512 * KIB, 32 * GIB + 1), ((32 << 10) + 1, 1024 * KIB));
        assert_eq!(whole(64 * KIB, 32 * GIB), (1 << 16, 512 * KIB));
        assert_eq!(whole(4096 * KIB, 32 * GIB), (8 << 10, 4096 * KIB));
        assert_eq!(whole(512 * KIB, 1024 * GIB), (1 << 16, 16 << 20));
        assert_eq!(whole(512 * KIB, 1025 * GIB).1, 16 << 20);
    }

    #[test]
    fn a_claimed_size_is_cut_one_chunk_at_a_time() {
        let size_bytes = limits::MAX_FRAME_LEN_BYTES;
        let mut packer = Packer::new(512 << 10);
        (0..4).for_each(|entry| packer.add(entry, size_bytes, all_of(size_bytes)));
        assert_eq!(packer.peek(), Some(&[span(0, 0, 16 << 20)][..]));
        assert_eq!(packer.next(), Some(vec![span(0, 0, 16 << 20)]));
        assert_eq!(packer.next(), Some(vec![span(0, 16 << 20, 16 << 20)]));
        assert!(!packer.is_empty());
    }

    #[test]
    fn chunks_grow_only_where_they_stay_pieces_of_the_file() {
        const KIB: u64 = 1 << 10;
        let mut packer = Packer::new(64 * KIB);
        packer.add(0, 2048 * KIB, std::iter::once(10..2048 * KIB).collect());
        let mut next = |chunk_len_bytes| {
            packer.set_chunk_len(chunk_len_bytes);
            let [span] = packer.next().unwrap()[..] else { panic!("one span") };
            let piece = Piece::of_file(span.offset_bytes, span.len_bytes, 2048 * KIB);
            assert_eq!(piece.is_some(), span.offset_bytes > 10);
            span.len_bytes
        };
        assert_eq!(next(512 * KIB), 64 * KIB - 10);
        assert_eq!(next(512 * KIB), 64 * KIB);
        assert_eq!(next(512 * KIB), 128 * KIB);
        assert_eq!(next(512 * KIB), 256 * KIB);
        assert_eq!(next(512 * KIB), 512 * KIB);
        assert_eq!(next(64 * KIB), 64 * KIB, "and become shorter at once");
        assert_eq!(next(512 * KIB), 64 * KIB);
    }

    #[test]
    fn spans_that_are_put_back_come_again_as_they_were() {
        let mut packer = Packer::new(10);
        packer.add(0, 25, all_of(25));
        packer.put_back(vec![span(7, 1, 2), span(8, 0, 3)]);
        let chunks: Vec<_> = std::iter::from_fn(|| packer.next()).skip(3).collect();
        assert_eq!(chunks, [vec![span(7, 1, 2), span(8, 0, 3)]]);
    }

    fn pack(chunk_len_bytes: u64, files: &[(u64, Vec<Range<u64>>)]) -> Vec<Vec<Span>> {
        let mut packer = Packer::new(chunk_len_bytes);
        for (entry, (size_bytes, missing)) in files.iter().enumerate() {
            packer.add(entry as u64, *size_bytes, missing.clone());
        }
        packer.flush();
        let chunks = std::iter::from_fn(|| packer.next()).collect();
        assert!(packer.is_empty());
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
    fn tiny_files_share_a_chunk_with_few_others_until_the_path_is_known_to_be_fast() {
        let files = vec![(1, all_of(1)); 300];
        let spans = |chunk_len_bytes| pack(chunk_len_bytes, &files).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(spans(64 << 10), [64, 64, 64, 64, 44]);
        assert_eq!(spans(128 << 10), [128, 128, 44]);
        assert_eq!(spans(4 << 20), [256, 44]);
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
