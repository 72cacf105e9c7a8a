//! SHA-256 of several chunks at once.
//!
//! A digest is computed block after block, so one chunk keeps only a part of a processor busy. Vector units
//! compute sixteen digests in lockstep, in little more than the time of nine one after another.

use alloc::vec::Vec;

use crate::Digest;

/// How many chunks are worth waiting for, to hash them together: 1 where that brings nothing, or where the
/// feature `side-by-side` is off.
#[must_use]
pub fn digest_lanes() -> usize {
    vector::lanes()
}

impl Digest {
    /// The digest of each message, in order. Fastest with [`digest_lanes`] of them, all of about one length.
    #[must_use]
    pub fn of_each(messages: &[&[u8]]) -> Vec<Self> {
        let lanes = vector::lanes();
        let mut digests = Vec::with_capacity(messages.len());
        for group in messages.chunks(lanes.max(1)) {
            if lanes > 1 && group.len() == lanes && pays(group) {
                digests.extend(vector::hash(group));
            } else {
                digests.extend(group.iter().map(|message| Self::of(message)));
            }
        }
        digests
    }
}

/// Whether the lanes are full for most of the time. All of them together are about twice as fast as one after
/// another, and the longest message determines how long they take.
fn pays(group: &[&[u8]]) -> bool {
    let longest = group.iter().map(|message| message.len()).max().unwrap_or(0);
    let sum: usize = group.iter().map(|message| message.len()).sum();
    sum / 3 >= longest * group.len() / 4
}

#[cfg(feature = "side-by-side")]
mod vector {
    use alloc::vec;

    use super::{Digest, Vec};

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
    use proptest::prelude::*;
    use std::vec;

    use super::*;

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
    fn a_group_of_one_long_message_and_many_short_ones_is_not_worth_it() {
        let (long, short) = (vec![0; 1600], vec![0; 100]);
        let mut group = vec![&long[..]; 16];
        assert!(pays(&group));
        group[1..].fill(&short);
        assert!(!pays(&group));
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
