//! State files sealed by a digest.

use shiplane_wire::Digest;

/// What says which file it is, and of which version.
pub type Magic = [u8; 16];

/// Puts `magic` before the content and the BLAKE3 digest of both behind it.
pub fn seal(magic: &Magic, content: &[&[u8]]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    content.iter().for_each(|part| bytes.extend_from_slice(part));
    let check = Digest::blake3(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// The content of what [`seal`] made, if it is that.
pub fn unseal<'a>(magic: &Magic, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (sealed, check) = bytes.split_last_chunk::<{ Digest::LEN_BYTES }>()?;
    let content = sealed.strip_prefix(magic)?;
    (Digest::blake3(sealed).as_bytes() == check).then_some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAGIC: &Magic = b"shiplane-test 1\n";

    proptest! {
        #[test]
        fn any_flipped_bit_breaks_the_seal(content: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let sealed = seal(MAGIC, &[&content]);
            prop_assert_eq!(unseal(MAGIC, &sealed), Some(&content[..]));
            let mut broken = sealed.clone();
            broken[at.index(sealed.len())] ^= 1_u8 << bit;
            prop_assert_eq!(unseal(MAGIC, &broken), None);
            prop_assert_eq!(unseal(MAGIC, &sealed[..at.index(sealed.len())]), None);
            prop_assert_eq!(unseal(b"shiplane-test 2\n", &sealed), None);
        }

        #[test]
        fn soup_is_not_sealed(soup: Vec<u8>) {
            prop_assert_eq!(unseal(MAGIC, &soup), None);
        }
    }
}
