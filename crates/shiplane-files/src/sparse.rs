//! Files with holes: finds the holes, and hashes the content between them (SPEC 4.29).

use std::fs::File;
use std::io;
use std::ops::Range;

use shiplane_wire::{Digest, DigestAlgorithm, Holes};

use crate::{
    buffers::Scratch,
    hash::{READ_LEN_BYTES, digest_of, hash_parts},
    platform::{self, Stat},
};

/// The holes of a file that occupies less than its length, in the state that `stat` says. If they cannot be told, it has
/// none.
pub(super) fn holes_of(stat: &Stat, open: impl FnOnce() -> io::Result<File>) -> Holes {
    if !may_have_holes(stat) {
        return Holes::default();
    }
    let found = open().and_then(|file| {
        let holes = platform::holes_of(&file, stat.size_bytes)?;
        let is_same = platform::stat_open(&file)?.version() == stat.version();
        Ok(if is_same { holes } else { Vec::new() })
    });
    Holes::longest_of(found.unwrap_or_default())
}

/// Whether it is worth a look: no file system has holes in less than a page.
pub(super) fn may_have_holes(stat: &Stat) -> bool {
    stat.size_bytes >= LEAST_SIZE_BYTES && stat.allocated_bytes < stat.size_bytes
}

/// The digest of a file of `size_bytes` without its `holes`, as `read` gives it.
pub(super) fn digest_of_data<E>(
    algorithm: DigestAlgorithm,
    holes: &Holes,
    size_bytes: u64,
    read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
) -> Result<Digest, E> {
    digest_of(algorithm, holes.data(size_bytes), read)
}

/// Hashes a file of `size_bytes` as the lists of a sync do (SPEC 4.33), without reading its holes. `each` gets every part that is
/// read, and where it is.
pub(super) fn hash_content<E>(
    algorithm: DigestAlgorithm,
    holes: &Holes,
    size_bytes: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Digest, E> {
    let longest = usize::try_from(size_bytes).map_or(READ_LEN_BYTES, |len| len.min(READ_LEN_BYTES));
    let (mut hasher, mut buffer, mut at) = (algorithm.sparse_hasher(), Scratch::new(longest), 0);
    for range in holes.data(size_bytes) {
        hasher.update_zeros(range.start - at);
        at = range.start;
        let each = |part: &[u8]| {
            let from = at;
            at += part.len() as u64;
            each(from, part)
        };
        hash_parts(&mut hasher, range, &mut buffer, &mut read, each)?;
    }
    hasher.update_zeros(size_bytes.saturating_sub(at));
    Ok(hasher.finish())
}

/// The holes of an open file, of which those that cannot be told are read as what they are.
pub(super) fn holes_in(file: &File, size_bytes: u64) -> Holes {
    let found =
        if size_bytes < LEAST_SIZE_BYTES { Ok(Vec::new()) } else { platform::holes_of(file, size_bytes) };
    Holes::longest_of(found.unwrap_or_default())
}

/// Whether a file reads as zeros wherever the peer's has these holes. Its own holes are not read.
pub(super) fn are_zeros(file: &File, holes: &Holes, size_bytes: u64) -> io::Result<bool> {
    if holes.is_empty() {
        return Ok(true);
    }
    let ours = Holes::longest_of(platform::holes_of(file, size_bytes)?);
    let mut buffer = Scratch::new(READ_LEN_BYTES);
    for hole in holes.ranges() {
        for data in ours.data(size_bytes) {
            let both = data.start.max(hole.start)..data.end.min(hole.end);
            if !is_zeros(file, both, &mut buffer)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is_zeros(file: &File, range: Range<u64>, buffer: &mut [u8]) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = platform::read_at(file, at, &mut buffer[..wanted])?;
        if read == 0 || buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}

/// 4 KiB.
const LEAST_SIZE_BYTES: u64 = 4 << 10;
