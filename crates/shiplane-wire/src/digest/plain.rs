//! Digests, and the functions that compute them of plain data.

use alloc::boxed::Box;
use core::fmt;

use ring::digest::{Context, SHA256};

use crate::hex;

/// The function that a transfer's digests are computed with, agreed when the transfer is opened (SPEC 4.21).
///
/// Ordered by preference: the greatest algorithm that both sides offer is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestAlgorithm {
    /// SHA-256 (FIPS 180-4): that of bare chunks, and of a transfer on request.
    Sha256,
    /// BLAKE3, whose digests of aligned pieces combine to that of the file.
    #[default]
    Blake3,
}

impl DigestAlgorithm {
    /// Its number on the wire and in files: a bit of a set.
    #[must_use]
    pub const fn bit(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Blake3 => 2,
        }
    }

    /// The one that is preferred of a set of [`bit`](Self::bit)s; bits that are not known do not count.
    #[must_use]
    pub const fn best_of(bits: u8) -> Option<Self> {
        if bits & Self::Blake3.bit() != 0 {
            Some(Self::Blake3)
        } else if bits & Self::Sha256.bit() != 0 {
            Some(Self::Sha256)
        } else {
            None
        }
    }
}

/// A digest of 32 bytes. Its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub(super) [u8; Self::LEN_BYTES]);

impl Digest {
    /// Length of a digest on the wire.
    pub const LEN_BYTES: usize = 32;

    /// Takes a digest as it came from the wire or from a journal.
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// The digest in wire format.
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

/// Hashes plain data.
#[derive(Clone)]
pub(super) enum PlainHasher {
    Sha256(Box<Context>),
    Blake3(Box<blake3::Hasher>),
}

impl PlainHasher {
    pub(super) fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Sha256 => Self::Sha256(Box::new(Context::new(&SHA256))),
            DigestAlgorithm::Blake3 => Self::Blake3(Box::default()),
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(context) => context.update(data),
            Self::Blake3(hasher) => _ = hasher.update(data),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(context) => {
                let mut bytes = [0; Digest::LEN_BYTES];
                bytes.copy_from_slice(context.finish().as_ref());
                Digest(bytes)
            }
            Self::Blake3(hasher) => Digest(*hasher.finalize().as_bytes()),
        }
    }
}

/// Gives this number of zeros, in parts.
pub(super) fn zeros(mut len_bytes: u64, mut update: impl FnMut(&[u8])) {
    const ZEROS: &[u8] = &[0; 4096];
    while len_bytes > 0 {
        let part = usize::try_from(len_bytes).map_or(ZEROS, |len| &ZEROS[..len.min(ZEROS.len())]);
        update(part);
        len_bytes -= part.len() as u64;
    }
}
