//! SHA-256: of a chunk, and of a whole transfer (its root).

use alloc::collections::BTreeMap;
use core::fmt;

use ring::digest::{Context, SHA256};
use thiserror::Error;

use crate::{hex, limits::MAX_ROOT_GAP};

/// A SHA-256 digest (FIPS 180-4). Its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Self::LEN_BYTES]);

impl Digest {
    /// Length of a digest on the wire.
    pub const LEN_BYTES: usize = 32;

    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(data);
        hasher.finish()
    }

    /// Takes a digest as it came from the wire or from a journal.
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// The digest as it goes on the wire.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

/// Computes a [`Digest`] of data that arrives in pieces.
///
/// Holds at most [`MAX_HASHED_LEN_BYTES`](crate::limits::MAX_HASHED_LEN_BYTES) bytes of input; the frame
/// machines refuse longer chunks before they hash.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Starts on empty input.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Appends `data` to the input.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of everything that was appended.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; Digest::LEN_BYTES];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// Computes the root of a transfer: SHA-256 over the digests of its delivered chunks, in order of index
/// (SPEC 4.11).
///
/// Chunks finish in any order: call [`add`](Self::add) for each as it is delivered and
/// [`skip`](Self::skip) for each that the provider declared void, then [`finish`](Self::finish) with the
/// number of chunks that were wanted. What comes early is held back, at most [`MAX_ROOT_GAP`] digests.
#[derive(Clone, Debug, Default)]
pub struct RootHasher {
    hasher: Hasher,
    /// Every index below this one is in `hasher` or was skipped.
    next: u64,
    /// What came early; `None` is a skipped chunk.
    held: BTreeMap<u64, Option<Digest>>,
}

impl RootHasher {
    /// Starts with no chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the digest of the chunk `index`.
    ///
    /// # Errors
    ///
    /// [`RootError::Duplicate`] if the chunk was added or skipped before, [`RootError::GapTooWide`] if too
    /// much is held back already. Either leaves the hasher as it was.
    pub fn add(&mut self, index: u64, digest: Digest) -> Result<(), RootError> {
        self.take(index, Some(digest))
    }

    /// Leaves the chunk `index` out of the root: it was declared void and never delivered.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub fn skip(&mut self, index: u64) -> Result<(), RootError> {
        self.take(index, None)
    }

    /// The root, once all of the `chunks` wanted ones were added or skipped.
    ///
    /// # Errors
    ///
    /// [`RootError::Missing`] names the first chunk that was neither, [`RootError::Surplus`] one that was
    /// never wanted.
    pub fn finish(self, chunks: u64) -> Result<Digest, RootError> {
        if self.next < chunks {
            return Err(RootError::Missing { index: self.next });
        }
        let last_held = self.held.last_key_value().map(|(index, _)| *index);
        let last = last_held.or_else(|| self.next.checked_sub(1));
        match last {
            Some(index) if index >= chunks => Err(RootError::Surplus { index, chunks }),
            Some(_) | None => Ok(self.hasher.finish()),
        }
    }

    fn take(&mut self, index: u64, digest: Option<Digest>) -> Result<(), RootError> {
        if index < self.next || self.held.contains_key(&index) {
            return Err(RootError::Duplicate { index });
        }
        if index != self.next {
            if self.held.len() >= MAX_ROOT_GAP {
                return Err(RootError::GapTooWide { missing: self.next, max_held: MAX_ROOT_GAP });
            }
            self.held.insert(index, digest);
            return Ok(());
        }
        self.append(digest);
        while let Some(held) = self.held.remove(&self.next) {
            self.append(held);
        }
        Ok(())
    }

    fn append(&mut self, digest: Option<Digest>) {
        if let Some(digest) = digest {
            self.hasher.update(digest.as_bytes());
        }
        // An index of u64::MAX would need as many chunks before it.
        self.next = self.next.saturating_add(1);
    }
}

/// Why a chunk could not be added to a root, or a root not be finished.
///
/// All of them are misuse by the side that hashes, unless its indices come straight from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RootError {
    /// The chunk was counted before. Count a chunk once, when it is first delivered.
    #[error("chunk {index} is already part of the root")]
    Duplicate {
        /// Index of the chunk.
        index: u64,
    },
    /// Too many chunks wait for an earlier one. Stop asking for new chunks until it is delivered.
    #[error("chunk {missing} is missing while {max_held} later ones wait for it")]
    GapTooWide {
        /// The first chunk that is missing.
        missing: u64,
        /// [`MAX_ROOT_GAP`].
        max_held: usize,
    },
    /// The transfer is not complete: a wanted chunk was neither added nor skipped.
    #[error("chunk {index} was never delivered")]
    Missing {
        /// Index of the first such chunk.
        index: u64,
    },
    /// A chunk was added that nobody wanted: the number of chunks is wrong.
    #[error("chunk {index} is beyond the {chunks} wanted ones")]
    Surplus {
        /// The highest index that was added.
        index: u64,
        /// Number of chunks wanted.
        chunks: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"hello").to_string(), hello);
        assert_eq!(std::format!("{:?}", Digest::of(b"")), empty);
    }

    #[test]
    fn the_root_is_the_digest_of_the_digests() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut root = RootHasher::new();
        root.add(2, b).unwrap();
        root.add(0, a).unwrap();
        root.skip(1).unwrap();
        let both = [*a.as_bytes(), *b.as_bytes()].concat();
        assert_eq!(root.finish(3), Ok(Digest::of(&both)));
    }
}
