//! The only loop that reads content to hash it.

use std::ops::Range;

use shiplane_wire::{Digest, DigestAlgorithm, Hasher};

use crate::buffers::Scratch;

/// Hashes what `read` puts into `buffer` for each offset of `range`, to its end or to where `read` gives 0. `each` sees
/// every part once it is hashed: it may count or copy it, and ends the reading by an error. Gives how many bytes were
/// hashed.
///
/// # Errors
/// Whatever `read` and `each` fail with.
pub fn hash_parts<E>(
    hasher: &mut Hasher,
    range: Range<u64>,
    buffer: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let len = read(at, &mut buffer[..wanted])?;
        if len == 0 {
            break;
        }
        hasher.update(&buffer[..len]);
        each(&buffer[..len])?;
        at += len as u64;
    }
    Ok(at - range.start)
}

/// The digest of what `read` gives for these ranges, one after another.
pub(crate) fn digest_of<E>(
    algorithm: DigestAlgorithm,
    ranges: impl IntoIterator<Item = Range<u64>>,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
) -> Result<Digest, E> {
    let (mut hasher, mut buffer) = (algorithm.hasher(), Scratch::new(READ_LEN_BYTES));
    for range in ranges {
        hash_parts(&mut hasher, range, &mut buffer, &mut read, |_| Ok(()))?;
    }
    Ok(hasher.finish())
}

/// All of a file.
pub(crate) const WHOLE_FILE: Range<u64> = 0..u64::MAX;

/// 256 KiB: large enough that calls cost nothing beside the hashing, small enough to stay in the cache. Each of a few
/// threads has one.
pub const READ_LEN_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use shiplane_wire::Digest;

    use super::*;

    /// Hashes a range of `content`, at most `most` bytes at a time, and gives the parts that `each` has seen.
    fn hashed(content: &[u8], range: Range<u64>, most: usize) -> (Digest, u64, Vec<Vec<u8>>) {
        let (mut hasher, mut parts) = (Hasher::blake3(), Vec::new());
        let read = |at: u64, buffer: &mut [u8]| {
            let rest = &content[at as usize..];
            let len = rest.len().min(buffer.len()).min(most);
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok::<_, ()>(len)
        };
        let each = |part: &[u8]| {
            parts.push(part.to_vec());
            Ok(())
        };
        let len_bytes = hash_parts(&mut hasher, range, &mut [0; 4], read, each).unwrap();
        (hasher.finish(), len_bytes, parts)
    }

    #[test]
    fn a_range_is_hashed_in_order_whatever_the_reads_give() {
        for most in 1..6 {
            let (digest, len_bytes, parts) = hashed(b"0123456789", 2..9, most);
            assert_eq!((digest, len_bytes), (Digest::blake3(b"2345678"), 7));
            assert_eq!(parts.concat(), b"2345678");
            assert!(parts.iter().all(|part| part.len() <= most.min(4)));
        }
    }

    #[test]
    fn a_source_that_ends_early_says_how_much_there_was() {
        let (digest, len_bytes, _) = hashed(b"012345", 4..u64::MAX, 9);
        assert_eq!((digest, len_bytes), (Digest::blake3(b"45"), 2));
    }

    #[test]
    fn the_progress_callback_may_end_it() {
        let mut reads = 0;
        let read = |_, buffer: &mut [u8]| {
            reads += 1;
            Ok(buffer.len())
        };
        let mut seen = 0;
        let each = |_: &[u8]| {
            seen += 1;
            if seen < 3 { Ok(()) } else { Err("enough") }
        };
        let outcome = hash_parts(&mut Hasher::blake3(), 0..u64::MAX, &mut [0; 4], read, each);
        assert_eq!((outcome, reads), (Err("enough"), 3));
    }
}
