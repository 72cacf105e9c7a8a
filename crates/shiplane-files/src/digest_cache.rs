//! A cache of digests of sent files, so that the next receiver costs no hashing.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use shiplane_wire::{Digest, Entry, Piece, Version};

use crate::lock;

/// Knows BLAKE3 digests of a grid of pieces of files, by the files' identity (device, inode, size and times). A
/// handle: clones share it.
///
/// Holds at most [`MAX_BYTES`](Self::MAX_BYTES); the file that was not asked for longest is forgotten first. A digest
/// that is stale, because a file was changed without a trace, is found out by the receiver's check: then all that is
/// known of the file is dropped, and it is hashed again.
#[derive(Clone, Default)]
pub struct DigestCache(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: HashMap<Version, Grid>,
    held_bytes: usize,
    /// Rises with each use.
    clock: u64,
}

/// The digests of one file's cells, in order.
struct Grid {
    cell_len_bytes: u64,
    cells: Box<[Option<Digest>]>,
    used_at: u64,
}

impl DigestCache {
    /// 8 MiB: the digests of some 15 GiB in cells of 64 KiB, or of at least eight files of any size.
    pub const MAX_BYTES: usize = 8 << 20;

    /// The digest of a piece of a file, if all of it is known.
    pub fn find(&self, entry: &Entry, piece: &Piece) -> Option<Digest> {
        let mut state = lock(&self.0);
        state.clock += 1;
        let now = state.clock;
        let grid = state.files.get_mut(&entry.version)?;
        grid.used_at = now;
        let cells = grid.cells.get(grid.range_of(piece)?)?;
        piece.combine(&cells.iter().copied().collect::<Option<Vec<_>>>()?)
    }

    /// Takes the cells of a piece of a file, each of [`Piece::CELL_LEN_BYTES`]; none if it was not hashed.
    pub fn learn(&self, entry: &Entry, piece: &Piece, cells: &[Digest]) {
        // A file of one cell is hashed sooner than found.
        if cells.is_empty() || entry.size_bytes <= Piece::CELL_LEN_BYTES {
            return;
        }
        let mut state = lock(&self.0);
        state.clock += 1;
        let now = state.clock;
        if !state.files.contains_key(&entry.version) {
            let grid = Grid::of(entry.size_bytes, now);
            state.held_bytes += grid.held_bytes();
            state.files.insert(entry.version, grid);
            state.make_room();
        }
        if let Some(grid) = state.files.get_mut(&entry.version) {
            grid.used_at = now;
            grid.learn(piece, cells, entry.size_bytes);
        }
    }

    /// Drops all that is known of a file whose piece has another digest than `stale`, unless that was done before: what
    /// was hashed since is right.
    pub fn refute(&self, entry: &Entry, piece: &Piece, stale: Digest) {
        if self.find(entry, piece) == Some(stale) {
            let mut state = lock(&self.0);
            if let Some(grid) = state.files.remove(&entry.version) {
                state.held_bytes -= grid.held_bytes();
            }
        }
    }

    /// How often it was asked for a piece, or taught one, so far.
    pub fn uses(&self) -> u64 {
        lock(&self.0).clock
    }
}

impl fmt::Debug for DigestCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestCache").field("held_bytes", &lock(&self.0).held_bytes).finish_non_exhaustive()
    }
}

impl State {
    fn make_room(&mut self) {
        while self.held_bytes > DigestCache::MAX_BYTES
            && let Some(oldest) =
                self.files.iter().min_by_key(|(_, grid)| grid.used_at).map(|(version, _)| *version)
        {
            if let Some(grid) = self.files.remove(&oldest) {
                self.held_bytes -= grid.held_bytes();
            }
        }
    }
}

impl Grid {
    /// With cells so long that there are not too many of them.
    fn of(size_bytes: u64, used_at: u64) -> Self {
        let least_bytes = size_bytes.div_ceil(MAX_CELLS_OF_A_FILE).next_power_of_two();
        let cell_len_bytes = least_bytes.max(Piece::CELL_LEN_BYTES);
        let cells = usize::try_from(size_bytes.div_ceil(cell_len_bytes)).unwrap_or(0);
        Self { cell_len_bytes, cells: vec![None; cells].into(), used_at }
    }

    fn held_bytes(&self) -> usize {
        self.cells.len() * size_of::<Option<Digest>>() + GRID_OVERHEAD_BYTES
    }

    /// The cells that a piece consists of; `None` if it is only a part of one.
    fn range_of(&self, piece: &Piece) -> Option<std::ops::Range<usize>> {
        let (offset, end) = (piece.offset_bytes(), piece.offset_bytes() + piece.len_bytes());
        if !offset.is_multiple_of(self.cell_len_bytes) {
            return None;
        }
        let first = usize::try_from(offset / self.cell_len_bytes).ok()?;
        let last = usize::try_from(end.div_ceil(self.cell_len_bytes)).ok()?;
        let is_whole = end.is_multiple_of(self.cell_len_bytes) || last == self.cells.len();
        (is_whole && last <= self.cells.len()).then_some(first..last)
    }

    fn learn(&mut self, piece: &Piece, small: &[Digest], file_len_bytes: u64) {
        let Some(range) = self.range_of(piece) else { return };
        let ratio = usize::try_from(self.cell_len_bytes / Piece::CELL_LEN_BYTES).unwrap_or(usize::MAX);
        let first_bytes = piece.offset_bytes();
        for ((at, cell), parts) in self.cells[range].iter_mut().enumerate().zip(small.chunks(ratio)) {
            let offset_bytes = first_bytes + at as u64 * self.cell_len_bytes;
            let len_bytes = self.cell_len_bytes.min(file_len_bytes.saturating_sub(offset_bytes));
            *cell =
                Piece::of_file(offset_bytes, len_bytes, file_len_bytes).and_then(|cell| cell.combine(parts));
        }
    }
}

/// 16,384: up to 1 GiB a file has cells of 64 KiB, and none takes more than 1/14 of the cache.
const MAX_CELLS_OF_A_FILE: u64 = 16 << 10;

/// About what a file takes besides its cells.
const GRID_OVERHEAD_BYTES: usize = 128;

#[cfg(test)]
mod tests;
