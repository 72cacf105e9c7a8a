//! The cache alone; `shiplane-protocols` tries it in a server.

use shiplane_wire::{DigestAlgorithm, EntryKind, Mtime, RelPath};

use super::*;

const CELL: u64 = Piece::CELL_LEN_BYTES;

fn file(id: u8, size_bytes: u64) -> Entry {
    Entry {
        kind: EntryKind::File,
        mode: 0o644,
        size_bytes,
        mtime: Mtime { secs: 0, nanos: 0 },
        version: Version::from_bytes([id; 16]),
        path: RelPath::parse(b"file").unwrap(),
        target: None,
        first: None,
        holes: shiplane_wire::Holes::default(),
        attributes: None,
    }
}

fn content(len_bytes: u64) -> Vec<u8> {
    (0..len_bytes).map(|at| (at * 7 + at / 253) as u8).collect()
}

fn learn(cache: &DigestCache, entry: &Entry, content: &[u8], offset: u64, len: u64) -> (Piece, Digest) {
    let piece = Piece::of_file(offset, len, content.len() as u64).unwrap();
    let mut hasher = DigestAlgorithm::Blake3.chunk_hasher(Some(piece));
    hasher.update(&content[offset as usize..(offset + len) as usize]);
    let (digest, cells) = hasher.finish_with_cells();
    cache.learn(entry, &piece, &cells);
    (piece, digest)
}

#[test]
fn what_was_hashed_in_one_size_of_chunk_is_known_in_every_other() {
    let (cache, content) = (DigestCache::default(), content(9 * CELL + 5));
    let entry = file(1, content.len() as u64);
    for (offset, len) in [(0, 4 * CELL), (4 * CELL, 4 * CELL), (8 * CELL, CELL), (9 * CELL, 5)] {
        let (piece, digest) = learn(&cache, &entry, &content, offset, len);
        assert_eq!(cache.find(&entry, &piece), Some(digest));
    }
    let piece = |offset, len| Piece::of_file(offset, len, content.len() as u64).unwrap();
    let (_, cell) = learn(&DigestCache::default(), &entry, &content, 2 * CELL, CELL);
    assert_eq!(cache.find(&entry, &piece(2 * CELL, CELL)), Some(cell));
    let whole = piece(0, content.len() as u64);
    assert_eq!(cache.find(&entry, &whole), Some(Digest::blake3(&content)), "what b3sum prints");
}

#[test]
fn nothing_is_known_of_other_files_of_gaps_and_of_what_was_refuted() {
    let (cache, content) = (DigestCache::default(), content(4 * CELL));
    let entry = file(1, content.len() as u64);
    let (piece, digest) = learn(&cache, &entry, &content, 0, CELL);
    assert_eq!(cache.find(&file(2, content.len() as u64), &piece), None);
    let longer = Piece::of_file(0, 2 * CELL, content.len() as u64).unwrap();
    assert_eq!(cache.find(&entry, &longer), None, "its second half was never hashed");
    assert_eq!(cache.find(&entry, &piece), Some(digest));
    cache.refute(&entry, &piece, Digest::blake3(b"before"));
    assert_eq!(cache.find(&entry, &piece), Some(digest), "it was hashed since");
    cache.refute(&entry, &piece, digest);
    assert_eq!(cache.find(&entry, &piece), None);
    assert_eq!(lock(&cache.0).held_bytes, 0);
}

#[test]
fn memory_is_bounded_and_the_file_not_used_longest_goes_first() {
    let cache = DigestCache::default();
    let huge = 1 << 50;
    let piece = Piece::of_file(0, 16 << 20, huge).unwrap();
    for id in 0..100 {
        cache.learn(&file(id, huge), &piece, &[Digest::blake3(b""); 256]);
        assert!(lock(&cache.0).held_bytes <= DigestCache::MAX_BYTES);
        // Used again and again, it stays.
        cache.find(&file(0, huge), &piece);
    }
    let state = lock(&cache.0);
    assert!(state.files.len() >= 8, "{}", state.files.len());
    assert!(state.files.contains_key(&Version::from_bytes([0; 16])));
    assert!(!state.files.contains_key(&Version::from_bytes([1; 16])));
}

#[test]
fn a_large_file_has_longer_cells_and_shorter_pieces_are_not_kept() {
    let (cache, size) = (DigestCache::default(), 4 << 30);
    let entry = file(1, size);
    let cells = [Digest::blake3(b"a"), Digest::blake3(b"b"), Digest::blake3(b"c"), Digest::blake3(b"d")];
    let piece = |len| Piece::of_file(0, len, size).unwrap();
    cache.learn(&entry, &piece(CELL), &cells[..1]);
    assert_eq!(cache.find(&entry, &piece(CELL)), None);
    cache.learn(&entry, &piece(4 * CELL), &cells);
    assert_eq!(cache.find(&entry, &piece(4 * CELL)), piece(4 * CELL).combine(&cells));
}
