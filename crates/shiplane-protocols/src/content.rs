//! Reads the content of one chunk outside of a lane. All functions block.

use bytes::BytesMut;
use shiplane_files::internals::{READ_LEN_BYTES, Scratch, hash_parts};
use shiplane_transport::internals::{ChunkRead, SourceError};
use shiplane_wire::{Digest, Hasher};

/// Hashes all of `source`, in parts of this length. `each` sees every part once it is hashed, and ends the reading by an
/// error.
pub(crate) fn hash_source<E: From<SourceError>>(
    source: &mut impl ChunkRead,
    hasher: &mut Hasher,
    part_len_bytes: usize,
    each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let len_bytes = source.len_bytes();
    let read = |_, buffer: &mut [u8]| {
        let part = source.read(buffer.len())?;
        buffer.get_mut(..part.len()).ok_or(SourceError::Changed)?.copy_from_slice(&part);
        Ok::<_, E>(part.len())
    };
    let read_bytes = hash_parts(hasher, 0..len_bytes, &mut Scratch::new(part_len_bytes), read, each)?;
    if read_bytes < len_bytes {
        return Err(SourceError::Changed.into());
    }
    Ok(source.check_unchanged()?)
}

/// The SHA-256 of all of `source`.
pub(crate) fn sha256_of(source: &mut impl ChunkRead) -> Result<Digest, SourceError> {
    let mut hasher = Hasher::sha256();
    hash_source(source, &mut hasher, READ_LEN_BYTES, |_| Ok::<_, SourceError>(()))?;
    Ok(hasher.finish())
}

/// All of `source`, in memory.
pub(crate) fn read_whole(source: &mut impl ChunkRead) -> Result<BytesMut, SourceError> {
    let len_bytes = source.len_bytes();
    let mut content = BytesMut::new();
    while (content.len() as u64) < len_bytes {
        let part = source.read(READ_LEN_BYTES)?;
        if part.is_empty() {
            return Err(SourceError::Changed);
        }
        content.extend_from_slice(&part);
    }
    source.check_unchanged()?;
    if content.len() as u64 == len_bytes { Ok(content) } else { Err(SourceError::Changed) }
}
