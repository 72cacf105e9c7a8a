//! The digest of a file's content that does without its blocks of zeros (SPEC 4.33).

use alloc::boxed::Box;
use core::ops::Range;

use super::plain::{Digest, DigestAlgorithm, PlainHasher, zeros};

/// Hashes content in which blocks of zeros cost nothing: they may be holes on one side and data on the other.
#[derive(Clone)]
pub(super) struct SparseHasher {
    /// What is not in a block of zeros.
    content: PlainHasher,
    /// The runs of blocks of zeros, but for the last one.
    runs: Box<blake3::Hasher>,
    /// The last one, if there is one.
    run: Range<u64>,
    at: u64,
    /// How long the block that has begun is, if it has nothing but zeros as yet.
    blank: Option<u64>,
}

impl SparseHasher {
    pub(super) fn new(algorithm: DigestAlgorithm) -> Self {
        let runs = Box::new(blake3::Hasher::new_derive_key(CONTEXT));
        Self { content: PlainHasher::new(algorithm), runs, run: 0..0, at: 0, blank: Some(0) }
    }

    pub(super) fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let left = BLOCK_LEN_BYTES - self.at % BLOCK_LEN_BYTES;
            let (part, rest) =
                data.split_at(usize::try_from(left).map_or(data.len(), |left| left.min(data.len())));
            data = rest;
            if self.blank.is_some() && is_zeros(part) {
                self.zeros(part.len() as u64);
                continue;
            }
            self.settle_blank();
            self.content.update(part);
            self.advance(part.len() as u64);
        }
    }

    pub(super) fn zeros(&mut self, mut len_bytes: u64) {
        while len_bytes > 0 {
            let begun = self.at % BLOCK_LEN_BYTES;
            let whole = len_bytes - len_bytes % BLOCK_LEN_BYTES;
            if begun == 0 && whole > 0 {
                self.leave_out(self.at..self.at + whole);
                self.at += whole;
                len_bytes -= whole;
                continue;
            }
            let part = len_bytes.min(BLOCK_LEN_BYTES - begun);
            match &mut self.blank {
                Some(blank) => *blank += part,
                None => zeros(part, |part| self.content.update(part)),
            }
            self.advance(part);
            len_bytes -= part;
        }
    }

    pub(super) fn finish(mut self) -> Digest {
        self.settle_blank();
        let content = self.content.finish();
        if self.run.is_empty() {
            return content;
        }
        for number in [self.run.start, self.run.end, self.at] {
            self.runs.update(&number.to_le_bytes());
        }
        self.runs.update(content.as_bytes());
        Digest(*self.runs.finalize().as_bytes())
    }

    fn settle_blank(&mut self) {
        if let Some(blank) = self.blank.take() {
            zeros(blank, |part| self.content.update(part));
        }
    }

    fn advance(&mut self, len_bytes: u64) {
        self.at += len_bytes;
        if self.at.is_multiple_of(BLOCK_LEN_BYTES) {
            if self.blank.is_some() {
                self.leave_out(self.at - BLOCK_LEN_BYTES..self.at);
            }
            self.blank = Some(0);
        }
    }

    fn leave_out(&mut self, zeros: Range<u64>) {
        if self.run.end == zeros.start && !self.run.is_empty() {
            self.run.end = zeros.end;
            return;
        }
        let before = core::mem::replace(&mut self.run, zeros);
        if !before.is_empty() {
            self.runs.update(&before.start.to_le_bytes());
            self.runs.update(&before.end.to_le_bytes());
        }
    }
}

fn is_zeros(data: &[u8]) -> bool {
    // All of a line at once, which the compiler makes few instructions.
    data.chunks(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

/// 64 KiB: no file system has larger blocks by default, and a run of them takes 16 bytes.
const BLOCK_LEN_BYTES: u64 = 64 << 10;

/// So that no content has the digest of another that has blocks of zeros.
const CONTEXT: &str = "shiplane 1 content with blocks of zeros";

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = BLOCK_LEN_BYTES as usize;

    fn digest_of(content: &[u8], algorithm: DigestAlgorithm) -> Digest {
        let mut hasher = algorithm.sparse_hasher();
        hasher.update(content);
        hasher.finish()
    }

    #[test]
    fn content_without_a_block_of_zeros_has_its_plain_digest() {
        // Zeros that fill no block of their own count as content.
        let shifted = [&[1][..], &vec![0; 2 * BLOCK - 2], &[1]].concat();
        for content in [&b""[..], b"hello", &[0; 100], &vec![0; BLOCK - 1], &vec![7; 3 * BLOCK + 5], &shifted]
        {
            for algorithm in [DigestAlgorithm::Blake3, DigestAlgorithm::Sha256] {
                assert_eq!(digest_of(content, algorithm), algorithm.digest(content));
            }
        }
    }

    #[test]
    fn golden_digests_of_content_with_blocks_of_zeros() {
        let one = vec![0; BLOCK];
        let between = [&b"hello"[..], &vec![0; 3 * BLOCK], b"world"].concat();
        for (content, algorithm, expected) in [
            (
                &one,
                DigestAlgorithm::Blake3,
                "63c31dbcbfd2a1c14b45e37d2ca290436594b73080934e104a6076c2257d8a78",
            ),
            (
                &between,
                DigestAlgorithm::Blake3,
                "731f0b576c7ea0d75368345dbf4c163f05f1caa89b597aaa8ad6ce9271638b4b",
            ),
            (
                &between,
                DigestAlgorithm::Sha256,
                "15f094d087051ad34f533b6c1e8ff5c90dc06031e029a349b098dbb808321cb1",
            ),
        ] {
            assert_eq!(digest_of(content, algorithm).to_string(), expected);
        }
        // As SPEC 4.33 says it.
        let runs = [BLOCK_LEN_BYTES, 3 * BLOCK_LEN_BYTES, between.len() as u64];
        let mut input: Vec<u8> = runs.iter().flat_map(|number| number.to_le_bytes()).collect();
        let content = [&between[..BLOCK], &between[3 * BLOCK..]].concat();
        input.extend(Digest::blake3(&content).as_bytes());
        let expected = blake3::derive_key(CONTEXT, &input);
        assert_eq!(digest_of(&between, DigestAlgorithm::Blake3).as_bytes(), &expected);
    }

    #[test]
    fn an_exbibyte_of_zeros_costs_nothing() {
        let mut hasher = DigestAlgorithm::Blake3.sparse_hasher();
        hasher.update(b"x");
        hasher.update_zeros(1 << 60);
        let long = hasher.clone().finish();
        hasher.update_zeros(1);
        assert_ne!(hasher.finish(), long);
    }

    proptest! {
        #[test]
        fn zeros_count_alike_whether_they_are_read_or_not_and_however_content_is_split(
            parts in prop::collection::vec((any::<bool>(), 1..200_000_usize, any::<bool>()), 1..6),
            piece in 1..150_000_usize,
        ) {
            let mut content = Vec::new();
            let mut hasher = DigestAlgorithm::Blake3.sparse_hasher();
            for (is_zeros, len, is_read) in parts {
                content.resize(content.len() + len, if is_zeros { 0 } else { 3 });
                let part = &content[content.len() - len..];
                match is_zeros && !is_read {
                    true => hasher.update_zeros(len as u64),
                    false => part.chunks(piece).for_each(|part| hasher.update(part)),
                }
            }
            prop_assert_eq!(hasher.finish(), digest_of(&content, DigestAlgorithm::Blake3));
            let mut other = content.clone();
            let at = other.len() / 2;
            other[at] ^= 1;
            prop_assert_ne!(digest_of(&other, DigestAlgorithm::Blake3), digest_of(&content, DigestAlgorithm::Blake3));
            other[at] ^= 1;
            other.push(0);
            prop_assert_ne!(digest_of(&other, DigestAlgorithm::Blake3), digest_of(&content, DigestAlgorithm::Blake3));
        }
    }
}
