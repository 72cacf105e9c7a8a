//! The transfer digest.

use proptest::prelude::*;
use shiplane_wire::limits::MAX_DIGEST_GAP;
use shiplane_wire::{Digest, DigestAlgorithm, TransferDigestError, TransferHasher};

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(chunks in shuffled()) {
        let mut hasher = TransferHasher::new(DigestAlgorithm::Blake3);
        for (index, delivered) in &chunks {
            match delivered {
                true => hasher.add(*index, digest(*index)).unwrap(),
                false => hasher.skip(*index).unwrap(),
            }
            prop_assert_eq!(hasher.add(*index, digest(*index)), Err(TransferDigestError::Duplicate { index: *index }));
        }
        let mut in_order = chunks.clone();
        in_order.sort();
        let delivered = in_order.iter().filter(|(_, delivered)| *delivered);
        let digests: Vec<u8> = delivered.flat_map(|(index, _)| *digest(*index).as_bytes()).collect();
        prop_assert_eq!(hasher.finish(chunks.len() as u64), Ok(Digest::blake3(&digests)));
    }

    #[test]
    fn a_missing_chunk_is_noticed(chunks in shuffled(), missing in any::<prop::sample::Index>()) {
        prop_assume!(!chunks.is_empty());
        let missing = missing.index(chunks.len()) as u64;
        let mut hasher = TransferHasher::new(DigestAlgorithm::Blake3);
        for (index, _) in chunks.iter().filter(|(index, _)| *index != missing) {
            hasher.add(*index, digest(*index)).unwrap();
        }
        prop_assert_eq!(hasher.finish(chunks.len() as u64), Err(TransferDigestError::Missing { index: missing }));
    }
}

#[test]
fn what_runs_ahead_is_bounded() {
    let mut hasher = TransferHasher::new(DigestAlgorithm::Blake3);
    let ahead = 1..=MAX_DIGEST_GAP as u64;
    ahead.clone().for_each(|index| hasher.add(u64::MAX - index, digest(0)).unwrap());
    let full = TransferDigestError::GapTooWide { missing: 0, max_held: MAX_DIGEST_GAP };
    assert_eq!(hasher.add(7, digest(7)), Err(full));
    assert_eq!(hasher.skip(7), Err(full));
    // The missing one itself is always taken.
    hasher.add(0, digest(0)).unwrap();
}

#[test]
fn a_chunk_too_many_is_noticed() {
    let mut hasher = TransferHasher::new(DigestAlgorithm::Blake3);
    hasher.add(0, digest(0)).unwrap();
    assert_eq!(hasher.clone().finish(0), Err(TransferDigestError::Surplus { index: 0, chunks: 0 }));
    hasher.add(u64::MAX, digest(1)).unwrap();
    assert_eq!(hasher.finish(1), Err(TransferDigestError::Surplus { index: u64::MAX, chunks: 1 }));
}

#[test]
fn the_transfer_digest_of_no_chunks_is_the_digest_of_nothing() {
    assert_eq!(TransferHasher::new(DigestAlgorithm::Blake3).finish(0), Ok(Digest::blake3(b"")));
}

/// The chunks of a transfer in some order, each with whether it was delivered.
fn shuffled() -> impl Strategy<Value = Vec<(u64, bool)>> {
    prop::collection::vec(prop::bool::weighted(0.8), 0..60)
        .prop_map(|delivered| (0..).zip(delivered).collect::<Vec<_>>())
        .prop_shuffle()
}

fn digest(index: u64) -> Digest {
    Digest::blake3(&index.to_le_bytes())
}
