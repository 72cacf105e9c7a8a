//! Peer ids, in bytes and as text.

use std::{fmt, str::FromStr};

use bech32::{
    Bech32m, Hrp,
    primitives::{
        decode::CheckedHrpstring,
        iter::{ByteIterExt, Fe32IterExt},
    },
};
use thiserror::Error;

/// A peer's Ed25519 public key, which is its name.
///
/// Its text form is Bech32m (BIP 350) with the prefix `sl`: 61 characters that start `sl1`.
/// Up to four mistyped characters are always noticed. `Display` gives it in lower case; `FromStr`
/// takes it all in lower or all in upper case.
// SPEC 1.4
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; Self::LEN_BYTES]);

impl PeerId {
    /// The length of the key.
    pub const LEN_BYTES: usize = 32;

    /// The id of the peer with this public key.
    ///
    /// Any bytes will do; no peer can prove that it is one whose bytes are not a key.
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }

    /// The first ten characters of the text form and `…`, for people to tell peers apart at a
    /// glance. Never compare it: another key with the same beginning is made in hours.
    pub fn short(&self) -> String {
        self.chars().take(SHORT_LEN_CHARS).chain(['…']).collect()
    }

    fn chars(&self) -> impl Iterator<Item = char> {
        self.0.iter().copied().bytes_to_fes().with_checksum::<Bech32m>(&PREFIX).chars()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.chars().collect::<String>())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let has_prefix =
            text.get(..TEXT_START.len()).is_some_and(|start| start.eq_ignore_ascii_case(TEXT_START));
        if !has_prefix {
            return Err(PeerIdError::WrongPrefix);
        }
        let len_chars = text.chars().count();
        if len_chars != TEXT_LEN_CHARS {
            return Err(PeerIdError::WrongLength { len_chars });
        }
        let has_case = |case: fn(&char) -> bool| text.chars().any(|c| case(&c));
        if has_case(char::is_ascii_lowercase) && has_case(char::is_ascii_uppercase) {
            return Err(PeerIdError::MixedCase);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| PeerIdError::Mistyped)?;
        let mut bytes = [0; Self::LEN_BYTES];
        for (byte, decoded) in bytes.iter_mut().zip(checked.byte_iter()) {
            *byte = decoded;
        }
        // The last character carries 4 bits of padding. A text in which they are set has a right
        // checksum too, but then one key would have sixteen names.
        if !Self(bytes).chars().eq(text.chars().map(|c| c.to_ascii_lowercase())) {
            return Err(PeerIdError::Mistyped);
        }
        Ok(Self(bytes))
    }
}

/// For the fuzzer: a key has one name, in either case.
pub fn fuzz_peer_id(data: &[u8]) {
    if let Ok(id) = String::from_utf8_lossy(data).parse::<PeerId>() {
        assert_eq!(id.to_string().as_bytes(), data.to_ascii_lowercase());
    }
}

/// Why a text is not a peer id. The caller's input is at fault; the text has to be copied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum PeerIdError {
    /// It is something else altogether, or its beginning is missing.
    #[error("a peer id starts with sl1")]
    WrongPrefix,
    /// Characters are missing, or there are too many.
    #[error("a peer id has 61 characters, this one has {len_chars}: copy it again")]
    WrongLength {
        /// How many there are.
        len_chars: usize,
    },
    /// It mixes lower and upper case, which the checksum cannot see through.
    #[error("a peer id is all in lower case or all in upper case")]
    MixedCase,
    /// The checksum is wrong: at least one character was mistyped.
    #[error("the peer id is mistyped: copy it again")]
    Mistyped,
}

const PREFIX: Hrp = Hrp::parse_unchecked("sl");

/// The prefix and the separator of BIP 173.
const TEXT_START: &str = "sl1";

/// 3 of the start, 52 for 256 bits at 5 bits a character, 6 of the checksum.
const TEXT_LEN_CHARS: usize = 61;

/// 7 random characters are 35 bits: no two peers of a fleet look alike by chance.
const SHORT_LEN_CHARS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    fn any_id() -> impl Strategy<Value = PeerId> {
        any::<[u8; 32]>().prop_map(PeerId::from_bytes)
    }

    // Computed with the checksum algorithm as BIP 350 states it, independently of this crate.
    const GOLDEN: &str = "sl1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0s333s3e";

    fn counting() -> PeerId {
        PeerId::from_bytes(std::array::from_fn(|i| i as u8))
    }

    #[test]
    fn the_text_form_is_bip_350s() {
        assert_eq!(counting().to_string(), GOLDEN);
        assert_eq!(GOLDEN.parse(), Ok(counting()));
    }

    #[test]
    fn debug_is_the_text_form_and_short_its_beginning() {
        assert_eq!(format!("{:?}", counting()), GOLDEN);
        assert_eq!(counting().short(), format!("{}…", &GOLDEN[..10]));
        assert_eq!(format!("{:>63}|", counting()), format!("  {GOLDEN}|"));
    }

    #[test]
    fn mixed_case_is_refused() {
        let mut mixed = GOLDEN.to_uppercase();
        mixed.replace_range(..1, "s");
        assert_eq!(mixed.parse::<PeerId>(), Err(PeerIdError::MixedCase));
    }

    #[test]
    fn each_fault_has_its_name() {
        let fault = |text: &str| text.parse::<PeerId>().expect_err("is no id");
        assert_eq!(fault(""), PeerIdError::WrongPrefix);
        assert_eq!(fault("é1"), PeerIdError::WrongPrefix);
        assert_eq!(fault(&GOLDEN[1..]), PeerIdError::WrongPrefix);
        assert_eq!(fault(&GOLDEN.replacen("sl1", "bc1", 1)), PeerIdError::WrongPrefix);
        assert_eq!(fault("sl1"), PeerIdError::WrongLength { len_chars: 3 });
        assert_eq!(fault(&GOLDEN[..60]), PeerIdError::WrongLength { len_chars: 60 });
        assert_eq!(fault(&format!("{GOLDEN} ")), PeerIdError::WrongLength { len_chars: 62 });
        assert_eq!(fault(&format!("{}é", &GOLDEN[..60])), PeerIdError::Mistyped);
    }

    #[test]
    fn a_checksum_of_the_older_bech32_is_refused() {
        let text = bech32::encode::<bech32::Bech32>(PREFIX, counting().as_bytes());
        assert_eq!(text.expect("encodes").parse::<PeerId>(), Err(PeerIdError::Mistyped));
    }

    #[test]
    fn set_padding_bits_are_refused_though_the_checksum_is_right() {
        let mut digits: Vec<_> = counting().as_bytes().iter().copied().bytes_to_fes().collect();
        *digits.last_mut().expect("has digits") = bech32::Fe32::L;
        let text: String = digits.into_iter().with_checksum::<Bech32m>(&PREFIX).chars().collect();
        assert!(CheckedHrpstring::new::<Bech32m>(&text).is_ok());
        assert_eq!(text.parse::<PeerId>(), Err(PeerIdError::Mistyped));
    }

    proptest! {
        #[test]
        fn text_round_trips_in_either_case(id in any_id()) {
            let text = id.to_string();
            prop_assert_eq!(text.len(), TEXT_LEN_CHARS);
            prop_assert!(text.starts_with(TEXT_START));
            prop_assert_eq!(text.to_uppercase().parse(), Ok(id));
            prop_assert_eq!(text.parse(), Ok(id));
        }

        #[test]
        fn every_mistyped_character_is_noticed(id in any_id(), at in 0..TEXT_LEN_CHARS) {
            let text = id.to_string();
            for typed in (' '..='~').filter(|c| !text[at..].starts_with(*c)) {
                let mut mistyped = text.clone();
                mistyped.replace_range(at..=at, typed.encode_utf8(&mut [0; 4]));
                prop_assert!(mistyped.parse::<PeerId>().is_err(), "{}", mistyped);
            }
        }

        #[test]
        fn swapped_neighbours_are_noticed(id in any_id(), at in any::<Index>()) {
            let mut text = id.to_string().into_bytes();
            let at = at.index(TEXT_LEN_CHARS - 1);
            prop_assume!(text[at] != text[at + 1]);
            text.swap(at, at + 1);
            let text = String::from_utf8(text).expect("is ASCII");
            prop_assert!(text.parse::<PeerId>().is_err());
        }

        #[test]
        fn no_text_panics(text in "\\PC*", like in "(?i)sl1.{58}") {
            prop_assert!(text.parse::<PeerId>().is_err());
            prop_assert!(like.parse::<PeerId>().is_err());
        }
    }
}
