//! Digests of chunks, of pieces of files, and of whole transfers.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::fmt;

use thiserror::Error;

use self::{piece::PieceHasher, plain::PlainHasher, sparse::SparseHasher};
use crate::limits::MAX_DIGEST_GAP;

mod piece;
mod plain;
mod sparse;

pub use self::piece::Piece;
pub use self::plain::{Digest, DigestAlgorithm};

impl DigestAlgorithm {
    /// Starts a hasher of plain digests: of a pack, of ranges, of a whole file.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        Hasher(Inner::Plain(PlainHasher::new(self)))
    }

    /// Starts the hasher of a chunk that is `piece` of a file, if it is one: with BLAKE3 the digest is then
    /// the file tree's value of that piece.
    #[must_use]
    pub fn chunk_hasher(self, piece: Option<Piece>) -> Hasher {
        match (self, piece) {
            (Self::Blake3, Some(piece)) => Hasher(Inner::Piece(Box::new(PieceHasher::new(piece)))),
            (Self::Blake3 | Self::Sha256, _) => self.hasher(),
        }
    }

    /// Starts the hasher of a whole file that does without blocks of zeros (SPEC 4.33): that of lists of a sync.
    #[must_use]
    pub fn sparse_hasher(self) -> Hasher {
        Hasher(Inner::Sparse(SparseHasher::new(self).into()))
    }

    /// The plain digest of `data`.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(data);
        hasher.finish()
    }
}

impl Digest {
    /// The SHA-256 digest of `data`.
    pub fn sha256(data: &[u8]) -> Self {
        DigestAlgorithm::Sha256.digest(data)
    }

    /// The BLAKE3 digest of `data`.
    pub fn blake3(data: &[u8]) -> Self {
        DigestAlgorithm::Blake3.digest(data)
    }
}

/// Computes a [`Digest`] of data that arrives in pieces.
///
/// Holds at most [`MAX_HASHED_LEN_BYTES`](crate::limits::MAX_HASHED_LEN_BYTES) bytes of input; the frame
/// machines refuse longer chunks before they hash.
#[derive(Clone)]
pub struct Hasher(Inner);

#[derive(Clone)]
enum Inner {
    Plain(PlainHasher),
    Piece(Box<PieceHasher>),
    Sparse(Box<SparseHasher>),
}

impl Hasher {
    /// SHA-256: the digest of the documented frame (SPEC 3.1).
    pub fn sha256() -> Self {
        DigestAlgorithm::Sha256.hasher()
    }

    /// Plain BLAKE3.
    pub fn blake3() -> Self {
        DigestAlgorithm::Blake3.hasher()
    }

    /// Appends `data` to the input.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            Inner::Plain(hasher) => hasher.update(data),
            Inner::Piece(hasher) => hasher.update(data),
            Inner::Sparse(hasher) => hasher.update(data),
        }
    }

    /// Appends this number of zeros. A [`sparse_hasher`](DigestAlgorithm::sparse_hasher) does without them.
    pub fn update_zeros(&mut self, len_bytes: u64) {
        if let Inner::Sparse(hasher) = &mut self.0 {
            return hasher.zeros(len_bytes);
        }
        plain::zeros(len_bytes, |part| self.update(part));
    }

    /// The digest of everything that was appended.
    pub fn finish(self) -> Digest {
        self.finish_with_cells().0
    }

    /// The digest, and of a piece of a file the digests of its cells, which combine
    /// to those of other pieces (`Piece::combine`). Without cells for any other input.
    pub fn finish_with_cells(self) -> (Digest, Vec<Digest>) {
        match self.0 {
            Inner::Plain(hasher) => (hasher.finish(), Vec::new()),
            Inner::Piece(hasher) => hasher.finish(),
            Inner::Sparse(hasher) => (hasher.finish(), Vec::new()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// Computes the transfer digest: the digest over the digests of its delivered chunks, in order of index
/// (SPEC 4.11).
///
/// Chunks finish in any order: call [`add`](Self::add) for each as it is delivered and
/// [`skip`](Self::skip) for each that the provider declared void, then [`finish`](Self::finish) with the
/// number of chunks that were wanted. What comes early is held back, at most [`MAX_DIGEST_GAP`] digests.
#[derive(Clone, Debug)]
pub struct TransferHasher {
    hasher: Hasher,
    /// Every index below this one is in `hasher` or was skipped.
    next: u64,
    /// Digests that came early; `None` is a skipped chunk.
    held: BTreeMap<u64, Option<Digest>>,
}

impl TransferHasher {
    /// Starts with no chunks.
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        Self { hasher: algorithm.hasher(), next: 0, held: BTreeMap::new() }
    }

    /// Takes the digest of the chunk `index`.
    ///
    /// # Errors
    ///
    /// [`TransferDigestError::Duplicate`] if the chunk was added or skipped before, [`TransferDigestError::GapTooWide`] if too
    /// much is held back already. Either leaves the hasher as it was.
    pub fn add(&mut self, index: u64, digest: Digest) -> Result<(), TransferDigestError> {
        self.take(index, Some(digest))
    }

    /// Leaves the chunk `index` out of the transfer digest: it was declared void and never delivered.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub fn skip(&mut self, index: u64) -> Result<(), TransferDigestError> {
        self.take(index, None)
    }

    /// The transfer digest, once all of the `chunks` wanted ones were added or skipped.
    ///
    /// # Errors
    ///
    /// [`TransferDigestError::Missing`] names the first chunk that was neither, [`TransferDigestError::Surplus`] one that was
    /// never wanted.
    pub fn finish(self, chunks: u64) -> Result<Digest, TransferDigestError> {
        if self.next < chunks {
            return Err(TransferDigestError::Missing { index: self.next });
        }
        let last_held = self.held.last_key_value().map(|(index, _)| *index);
        let last = last_held.or_else(|| self.next.checked_sub(1));
        match last {
            Some(index) if index >= chunks => Err(TransferDigestError::Surplus { index, chunks }),
            Some(_) | None => Ok(self.hasher.finish()),
        }
    }

    fn take(&mut self, index: u64, digest: Option<Digest>) -> Result<(), TransferDigestError> {
        if index < self.next || self.held.contains_key(&index) {
            return Err(TransferDigestError::Duplicate { index });
        }
        if index != self.next {
            if self.held.len() >= MAX_DIGEST_GAP {
                return Err(TransferDigestError::GapTooWide { missing: self.next, max_held: MAX_DIGEST_GAP });
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

/// Why a chunk could not be added to a transfer digest, or the digest not be finished.
///
/// All of them are misuse by the side that hashes, unless its indices come straight from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum TransferDigestError {
    /// The chunk was counted before. Count a chunk once, when it is first delivered.
    #[error("chunk {index} is already part of the transfer digest")]
    Duplicate {
        /// Index of the chunk.
        index: u64,
    },
    /// Too many chunks wait for an earlier one. Stop asking for new chunks until it is delivered.
    #[error("chunk {missing} is missing and {max_held} later ones wait for it")]
    GapTooWide {
        /// The first chunk that is missing.
        missing: u64,
        /// [`MAX_DIGEST_GAP`].
        max_held: usize,
    },
    /// The transfer is not complete: a wanted chunk was neither added nor skipped.
    #[error("chunk {index} was never delivered")]
    Missing {
        /// Index of the first such chunk.
        index: u64,
    },
    /// An unwanted chunk was added: the number of chunks is wrong.
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
    fn digests_are_those_of_the_standards() {
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"hello").to_string(), hello);
        assert_eq!(std::format!("{:?}", Digest::sha256(b"")), empty);
        let hello = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f";
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Digest::blake3(b"hello").to_string(), hello);
        assert_eq!(Digest::blake3(b"").to_string(), empty);
    }

    #[test]
    fn the_preferred_algorithm_of_a_set_is_chosen_and_unknown_bits_are_ignored() {
        for (bits, best) in [
            (0, None),
            (1, Some(DigestAlgorithm::Sha256)),
            (2, Some(DigestAlgorithm::Blake3)),
            (3, Some(DigestAlgorithm::Blake3)),
            (0xfc, None),
            (0xfd, Some(DigestAlgorithm::Sha256)),
        ] {
            assert_eq!(DigestAlgorithm::best_of(bits), best, "{bits}");
        }
    }

    #[test]
    fn the_transfer_digest_is_the_digest_of_the_digests() {
        let (a, b) = (Digest::blake3(b"a"), Digest::blake3(b"b"));
        let both = [*a.as_bytes(), *b.as_bytes()].concat();
        for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Blake3] {
            let mut hasher = TransferHasher::new(algorithm);
            hasher.add(2, b).unwrap();
            hasher.add(0, a).unwrap();
            hasher.skip(1).unwrap();
            assert_eq!(hasher.finish(3), Ok(algorithm.digest(&both)));
        }
    }
}
