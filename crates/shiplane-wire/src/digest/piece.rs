//! Pieces of a file, whose digests are nodes of the file's BLAKE3 tree and can be combined.

use alloc::vec::Vec;

use blake3::hazmat::{self, ChainingValue, HasherExt as _, Mode};

use super::plain::Digest;

/// An aligned piece of a file: 64 KiB times a power of two at a multiple of its length, or what such a piece has
/// of the file's end (SPEC 4.22).
///
/// Its BLAKE3 digest is the value that the file's tree has at that place; that of the piece which is the whole
/// file is what `b3sum` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    offset_bytes: u64,
    len_bytes: u64,
    is_whole_file: bool,
}

impl Piece {
    /// Length of the smallest piece, a *cell*: 64 KiB. What is cached and combined is a grid of cells.
    pub const CELL_LEN_BYTES: u64 = 64 << 10;

    /// The piece of a file of `file_len_bytes` that is exactly this range; `None` if the range is no piece.
    pub fn of_file(offset_bytes: u64, len_bytes: u64, file_len_bytes: u64) -> Option<Self> {
        let end = offset_bytes.checked_add(len_bytes)?;
        let slot_bytes = len_bytes.max(Self::CELL_LEN_BYTES).checked_next_power_of_two()?;
        let is_aligned = offset_bytes.is_multiple_of(slot_bytes);
        let is_complete = len_bytes == slot_bytes || end == file_len_bytes;
        if len_bytes == 0 || end > file_len_bytes || !is_aligned || !is_complete {
            return None;
        }
        let is_whole_file = offset_bytes == 0 && end == file_len_bytes;
        Some(Self { offset_bytes, len_bytes, is_whole_file })
    }

    /// Where in the file it begins.
    pub const fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Its length.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The digest of the piece from those of the equally long, aligned parts that it consists of, in order; the last
    /// part may be shorter. `None` without parts, or if the only part is the whole file, whose digest differs from
    /// that of a part.
    pub fn combine(&self, parts: &[Digest]) -> Option<Digest> {
        match parts {
            [] => None,
            [_] if self.is_whole_file => None,
            [only] => Some(*only),
            parts => Some(merge(parts, self.is_whole_file)),
        }
    }
}

/// Hashes one piece, cell by cell.
#[derive(Clone)]
pub(super) struct PieceHasher {
    piece: Piece,
    /// Of the cells that are complete and not the last.
    cells: Vec<Digest>,
    cell: blake3::Hasher,
    /// Bytes of the cell so far.
    filled_bytes: usize,
}

impl PieceHasher {
    pub(super) fn new(piece: Piece) -> Self {
        Self { piece, cells: Vec::new(), cell: cell_at(piece.offset_bytes), filled_bytes: 0 }
    }

    pub(super) fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.filled_bytes == CELL_LEN {
                self.end_cell();
            }
            let (now, later) = data.split_at(data.len().min(CELL_LEN - self.filled_bytes));
            self.cell.update(now);
            self.filled_bytes += now.len();
            data = later;
        }
    }

    pub(super) fn finish(mut self) -> (Digest, Vec<Digest>) {
        if self.filled_bytes == 0 || (self.cells.is_empty() && self.piece.is_whole_file) {
            // A piece is never empty; if it were, this would be the digest of nothing.
            return (Digest(*self.cell.finalize().as_bytes()), Vec::new());
        }
        self.end_cell();
        let digest = merge(&self.cells, self.piece.is_whole_file);
        (digest, self.cells)
    }

    fn end_cell(&mut self) {
        self.cells.push(Digest(self.cell.finalize_non_root()));
        self.cell = cell_at(self.piece.offset_bytes + self.cells.len() as u64 * Piece::CELL_LEN_BYTES);
        self.filled_bytes = 0;
    }
}

fn cell_at(offset_bytes: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset_bytes);
    hasher
}

/// The value of the tree above these nodes of one level, of which only the last may be incomplete.
fn merge(nodes: &[Digest], is_root: bool) -> Digest {
    let [first, rest @ ..] = nodes else { return Digest([0; Digest::LEN_BYTES]) };
    if rest.is_empty() {
        return *first;
    }
    let left_len = nodes.len().next_power_of_two() / 2;
    let (left, right) = nodes.split_at(left_len);
    let left: ChainingValue = merge(left, false).0;
    let right: ChainingValue = merge(right, false).0;
    if is_root {
        Digest(*hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    } else {
        Digest(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

const CELL_LEN: usize = Piece::CELL_LEN_BYTES as usize;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec;

    use super::*;
    use crate::DigestAlgorithm;

    const CELL: u64 = Piece::CELL_LEN_BYTES;

    fn hashed(file: &[u8], offset_bytes: u64, len_bytes: u64) -> (Digest, Vec<Digest>) {
        let piece = Piece::of_file(offset_bytes, len_bytes, file.len() as u64);
        let mut hasher = DigestAlgorithm::Blake3.chunk_hasher(Some(piece.unwrap()));
        hasher.update(&file[offset_bytes as usize..(offset_bytes + len_bytes) as usize]);
        hasher.finish_with_cells()
    }

    fn content(len_bytes: u64) -> Vec<u8> {
        (0..len_bytes).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    #[test]
    fn only_aligned_ranges_are_pieces() {
        let is_piece = |offset, len, file| Piece::of_file(offset, len, file).is_some();
        assert!(is_piece(0, 5, 5), "a whole file of any length");
        assert!(!is_piece(0, 0, 0) && !is_piece(0, 5, 6) && !is_piece(1, 4, 5));
        assert!(is_piece(0, CELL, 9 * CELL) && is_piece(8 * CELL, CELL, 9 * CELL));
        assert!(is_piece(8 * CELL, 5, 8 * CELL + 5), "the end of a file");
        assert!(is_piece(4 * CELL, 3 * CELL + 1, 7 * CELL + 1));
        assert!(!is_piece(2 * CELL, 3 * CELL + 1, 5 * CELL + 1), "its slot would not be aligned");
        assert!(!is_piece(CELL, 2 * CELL, 9 * CELL), "not at a multiple of its length");
        assert!(!is_piece(0, 3 * CELL, 9 * CELL), "no power of two");
        assert!(!is_piece(0, 2 * CELL, CELL) && !is_piece(u64::MAX, 2, u64::MAX));
        assert!(!is_piece(0, u64::MAX, u64::MAX), "no power of two is that long");
    }

    #[test]
    fn cells_of_one_size_combine_to_the_pieces_of_another_and_to_the_file() {
        for len_bytes in [CELL + 1, 2 * CELL, 3 * CELL, 8 * CELL, 8 * CELL + 1, 11 * CELL + 77] {
            let file = content(len_bytes);
            let (whole, cells) = hashed(&file, 0, len_bytes);
            assert_eq!(whole, Digest::blake3(&file), "what b3sum prints");
            for slot in [CELL, 2 * CELL, 4 * CELL] {
                let pieces: Vec<_> = (0..len_bytes.div_ceil(slot))
                    .map(|i| (i * slot, slot.min(len_bytes - i * slot)))
                    .collect();
                let mut digests = vec![];
                for &(offset, len) in pieces.iter().filter(|_| pieces.len() > 1) {
                    let (digest, _) = hashed(&file, offset, len);
                    let piece = Piece::of_file(offset, len, len_bytes).unwrap();
                    let parts = &cells[(offset / CELL) as usize..(offset + len).div_ceil(CELL) as usize];
                    assert_eq!(piece.combine(parts), Some(digest), "{len} at {offset} of {len_bytes}");
                    digests.push(digest);
                }
                let all = Piece::of_file(0, len_bytes, len_bytes).unwrap();
                assert_eq!(all.combine(&digests), (digests.len() > 1).then_some(whole));
            }
        }
    }

    #[test]
    fn the_only_part_of_a_file_is_not_the_files_digest() {
        let whole = Piece::of_file(0, 7, 7).unwrap();
        assert_eq!(whole.combine(&[Digest::blake3(b"content")]), None);
        assert_eq!(whole.combine(&[]), None);
        assert_eq!(hashed(b"content", 0, 7), (Digest::blake3(b"content"), vec![]));
    }

    /// SPEC 4.22.
    #[test]
    fn the_golden_file_has_these_pieces() {
        let file: Vec<u8> = (0..CELL + 1).map(|at| (at % 251) as u8).collect();
        let [(first, _), (last, _)] = [(0, CELL), (CELL, 1)].map(|(offset, len)| hashed(&file, offset, len));
        let whole = Piece::of_file(0, CELL + 1, CELL + 1).unwrap();
        assert_eq!(whole.combine(&[first, last]), Some(Digest::blake3(&file)));
        assert_ne!(last, Digest::blake3(&file[CELL as usize..]), "a piece is hashed at its place");
        assert_eq!(
            std::format!("{first}"),
            "88da791e722ac59740d9a44402e384ad99f1c79d4bab7449a0c2da1fafb91fb7"
        );
        assert_eq!(
            std::format!("{last}"),
            "41051b85efd33b8dbb1238447c3a385c5cdc0d8ff092fa1feb5441078786ccba"
        );
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_digest(
            len_bytes in 1_u64..5 * CELL,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let file = content(len_bytes);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(file.len())).collect();
            cuts.sort_unstable();
            let piece = Piece::of_file(0, len_bytes, len_bytes);
            let mut hasher = DigestAlgorithm::Blake3.chunk_hasher(piece);
            let mut from = 0;
            for cut in cuts.into_iter().chain([file.len()]) {
                hasher.update(&file[from..cut]);
                from = cut;
            }
            prop_assert_eq!(hasher.finish(), Digest::blake3(&file));
        }
    }
}
