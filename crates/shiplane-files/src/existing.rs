//! The policy for existing files with other content: refuse, keep, replace, back up.

use std::fmt;

use thiserror::Error;

/// What becomes of files that exist with other content. Directories are never replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The transfer fails.
    #[default]
    Refuse,
    /// They stay as they are, and what was to replace them is not received.
    Keep,
    /// They are replaced.
    Replace,
    /// They are replaced, and stay under another name.
    BackUp(Suffix),
}

/// What the name of a replaced file gets at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Suffix {
    bytes: [u8; MAX_SUFFIX_LEN_BYTES],
    len: usize,
}

/// A text cannot be the end of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a suffix has 1 to {MAX_SUFFIX_LEN_BYTES} bytes, none of them a slash or a line break")]
pub struct SuffixRefused;

impl Existing {
    /// Whether what stands in the way of a file concerns that file alone.
    pub(super) fn goes_on(self) -> bool {
        self != Self::Refuse
    }

    /// Whether files are replaced.
    pub(super) fn replaces(self) -> bool {
        match self {
            Self::Refuse | Self::Keep => false,
            Self::Replace | Self::BackUp(_) => true,
        }
    }
}

impl Suffix {
    /// Checks it.
    ///
    /// # Errors
    /// [`SuffixRefused`].
    pub fn new(suffix: &[u8]) -> Result<Self, SuffixRefused> {
        let is_plain = !suffix.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0..0x20 | 0x7f));
        let mut bytes = [0; MAX_SUFFIX_LEN_BYTES];
        let Some(place) = bytes.get_mut(..suffix.len()).filter(|place| is_plain && !place.is_empty()) else {
            return Err(SuffixRefused);
        };
        place.copy_from_slice(suffix);
        Ok(Self { bytes, len: suffix.len() })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// 32: a date and a time.
const MAX_SUFFIX_LEN_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_the_end_of_a_name() {
        for suffix in [&b"~"[..], b".2026-11-29", &[b'x'; 32]] {
            assert_eq!(Suffix::new(suffix).unwrap().as_bytes(), suffix);
        }
        for refused in [&b""[..], b"/x", b"a\0", b"a\n", &[b'x'; 33]] {
            assert_eq!(Suffix::new(refused), Err(SuffixRefused));
        }
    }
}
