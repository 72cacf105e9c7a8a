//! SHA-256 of several chunks at once.
//!
//! A digest is computed block after block, so one chunk keeps only a part of a processor busy. Vector units
//! compute sixteen digests in lockstep, in little more than the time of nine one after another.

use alloc::vec;
use alloc::vec::Vec;

use crate::Digest;

/// How many chunks are worth waiting for, to hash them together: 1 where that brings nothing, or where the
/// feature `side-by-side` is off.
#[must_use]
pub fn digest_lanes() -> usize {
    vector::lanes()
}

impl Digest {
    /// The digest of each message, in order. Fastest with many times [`digest_lanes`] of them, or with that many
    /// of about one length; more than half as many are faster together than alone.
    #[must_use]
    pub fn of_each(messages: &[&[u8]]) -> Vec<Self> {
        let lanes = vector::lanes();
        if lanes <= 1 || messages.len() <= lanes / 2 {
            return messages.iter().map(|message| Self::of(message)).collect();
        }
        let mut by_length: Vec<usize> = (0..messages.len()).collect();
        by_length.sort_unstable_by_key(|&at| messages[at].len());
        let lens: Vec<_> = by_length.iter().map(|&at| messages[at].len()).collect();
        let mut digests = vec![Self::from_bytes([0; Self::LEN_BYTES]); messages.len()];
        let mut rest = &by_length[..];
        let mut group = Vec::with_capacity(lanes);
        for len in grouped(&lens, lanes) {
            let (now, later) = rest.split_at(len);
            rest = later;
            if let [only] = now {
                digests[*only] = Self::of(messages[*only]);
                continue;
            }
            group.clear();
            group.extend(now.iter().map(|&at| messages[at]));
            group.resize(lanes, &[]); // Those that nobody asked for cost nothing beside the longest.
            now.iter().zip(vector::hash(&group)).for_each(|(&at, digest)| digests[at] = digest);
        }
        digests
    }
}

/// How to split messages of these lengths, from the shortest to the longest, so that their digests are
/// computed soonest: into groups of up to `lanes`, and some alone.
///
/// A group takes as long as its longest message, and as long with fewer of them, so one that is much longer than its neighbours is better off
/// alone. Of all splits the best is found: what the shortest `n` cost at least is known once that is known for
/// less of them.
fn grouped(lens: &[usize], lanes: usize) -> Vec<usize> {
    let mut best: Vec<(usize, usize)> = Vec::with_capacity(lens.len() + 1);
    best.push((0, 0));
    for (at, &longest) in lens.iter().enumerate() {
        let alone = (best[at].0 + longest * 16, 1);
        let together =
            (2..=lanes.min(at + 1)).map(|size| (best[at + 1 - size].0 + longest * lanes * GROUP_COST, size));
        best.push(together.fold(alone, Ord::min));
    }
    let mut sizes = Vec::new();
    let mut left = lens.len();
    while left > 0 {
        let (_, size) = best[left];
        sizes.push(size);
        left -= size;
    }
    sizes.reverse();
    sizes
}

/// What a byte of a group's longest message costs for each of its lanes, in sixteenths of what a byte of a
/// message costs that is alone.
const GROUP_COST: usize = 8;

#[cfg(feature = "side-by-side")]
mod vector {
    use super::{Digest, Vec, vec};

    pub(super) fn lanes() -> usize {
        // Narrower units lose to the SHA-256 instructions that the serial code uses.
        match tape_sha256::lane_width() {
            16.. => 16,
            8.. => 8,
            _ => 1,
        }
    }

    pub(super) fn hash(messages: &[&[u8]]) -> impl Iterator<Item = Digest> + use<> {
        let mut digests: Vec<[u8; Digest::LEN_BYTES]> = vec![[0; Digest::LEN_BYTES]; messages.len()];
        tape_sha256::hash_many(messages, &mut digests);
        digests.into_iter().map(Digest::from_bytes)
    }
}

#[cfg(not(feature = "side-by-side"))]
mod vector {
    use super::Digest;

    pub(super) fn lanes() -> usize {
        1
    }

    pub(super) fn hash<'a>(messages: &'a [&[u8]]) -> impl Iterator<Item = Digest> + use<'a> {
        messages.iter().map(|message| Digest::of(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_standards_vectors_come_out_in_every_lane() {
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let messages: Vec<&[u8]> = [&b""[..], b"abc", long].into_iter().cycle().take(48).collect();
        let known = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ];
        for (digest, known) in Digest::of_each(&messages).iter().zip(known.into_iter().cycle()) {
            assert_eq!(std::format!("{digest}"), known);
        }
    }

    #[test]
    fn what_is_much_longer_than_its_neighbours_is_hashed_alone() {
        assert_eq!(grouped(&[100; 16], 16), [16]);
        assert_eq!(grouped(&[100; 15], 16), [15]);
        assert_eq!(grouped(&[100; 9], 16), [9]);
        assert_eq!(grouped(&[100; 8], 16), [1; 8]);
        let mut lens = vec![100; 33];
        lens[32] = 1600;
        assert_eq!(grouped(&lens, 16), [16, 16, 1]);
        let mut lens = vec![10; 15];
        lens.push(1600);
        assert_eq!(grouped(&lens, 16), [15, 1]);
        // The shortest are left out of the groups where some must be.
        assert_eq!(grouped(&[1, 2, 3, 3, 3, 3], 4), [1, 1, 4]);
        assert_eq!(grouped(&[], 4), [0; 0]);
    }

    proptest! {
        /// Whatever unit computes them: around every border of a block and of its padding.
        #[test]
        fn each_digest_is_the_one_of_its_message(
            lens in prop::collection::vec(0_usize..200, 0..40),
            len in 0_usize..5000,
            seed: u8,
        ) {
            let ragged = lens.iter().enumerate();
            let mut messages: Vec<Vec<u8>> =
                ragged.map(|(at, len)| vec![seed.wrapping_add(at as u8); *len]).collect();
            // And a full group of equal ones.
            messages.extend((0..16).map(|at| vec![seed ^ at; len]));
            let slices: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
            let one_by_one: Vec<_> = slices.iter().map(|message| Digest::of(message)).collect();
            prop_assert_eq!(Digest::of_each(&slices), one_by_one);
            prop_assert_eq!(Digest::of_each(&slices[lens.len()..]), &one_by_one_of(&slices[lens.len()..])[..]);
        }
    }

    fn one_by_one_of(messages: &[&[u8]]) -> Vec<Digest> {
        messages.iter().map(|message| Digest::of(message)).collect()
    }
}
