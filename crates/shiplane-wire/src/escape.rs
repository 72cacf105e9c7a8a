//! Makes bytes from a peer safe to print.

use alloc::string::{String, ToString};
use core::fmt::{self, Write};

use crate::limits::MAX_ESCAPED_PATH_LEN_BYTES;

/// Shows any bytes of a peer so that they can neither control a terminal nor be mistaken for other text.
///
/// Text stays as it is, except: control characters (ESC and the C1 range among them) and characters that
/// reorder or hide text become `\xNN` or `\u{..}`, a backslash is doubled, and bytes that are not UTF-8
/// become `\xNN`. So two different inputs never look alike because of the escaping.
///
/// ```
/// # use shiplane_wire::escape;
/// assert_eq!(escape(b"a\x1b[2J\xff\\").to_string(), r"a\x1b[2J\xff\\");
/// ```
pub fn escape(bytes: &[u8]) -> impl fmt::Display + '_ {
    Escaped { bytes, max_len_bytes: usize::MAX }
}

/// Like [`escape`], but what is printed is at most `max_len_bytes` long.
///
/// Text that is cut ends in `…` and never within an escape sequence.
pub fn escape_truncated(bytes: &[u8], max_len_bytes: usize) -> impl fmt::Display + '_ {
    Escaped { bytes, max_len_bytes }
}

/// A path for people to read, escaped already: of a file that was skipped, whose name may break every
/// rule of `RelPath`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EscapedPath(String);

impl EscapedPath {
    /// Escapes a path of the file system, cut at
    /// [`MAX_ESCAPED_PATH_LEN_BYTES`](crate::limits::MAX_ESCAPED_PATH_LEN_BYTES).
    pub fn new(path: &[u8]) -> Self {
        Self(escape_truncated(path, MAX_ESCAPED_PATH_LEN_BYTES).to_string())
    }

    /// The escaped text, safe to print.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a text that a peer claims to be escaped; `None` if it is not, or too long.
    #[must_use]
    pub fn from_wire(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_ESCAPED_PATH_LEN_BYTES {
            return None;
        }
        let text = core::str::from_utf8(text).ok()?;
        text.chars().all(is_printable).then(|| Self(text.into()))
    }
}

impl fmt::Display for EscapedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct Escaped<'a> {
    bytes: &'a [u8],
    max_len_bytes: usize,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = fits(self.bytes, self.max_len_bytes);
        let room_bytes =
            if fits { usize::MAX } else { self.max_len_bytes.saturating_sub(ELLIPSIS.len_utf8()) };
        let mut used_bytes = 0;
        for unit in units(self.bytes) {
            used_bytes += unit.len_bytes();
            if used_bytes > room_bytes {
                break;
            }
            unit.write(f)?;
        }
        if !fits && self.max_len_bytes >= ELLIPSIS.len_utf8() {
            f.write_char(ELLIPSIS)?;
        }
        Ok(())
    }
}

/// Whether all of `bytes` fits, without looking at more of them than fit.
fn fits(bytes: &[u8], max_len_bytes: usize) -> bool {
    let mut used_bytes = 0;
    units(bytes).all(|unit| {
        used_bytes += unit.len_bytes();
        used_bytes <= max_len_bytes
    })
}

/// What is printed or cut as a whole.
enum Unit {
    Plain(char),
    Backslash,
    Byte(u8),
    Char(char),
}

impl Unit {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Plain(c) => c.len_utf8(),
            Self::Backslash => r"\\".len(),
            Self::Byte(_) => r"\xNN".len(),
            Self::Char(c) => c.escape_unicode().len(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(c) => f.write_char(*c),
            Self::Backslash => f.write_str(r"\\"),
            Self::Byte(byte) => write!(f, r"\x{byte:02x}"),
            Self::Char(c) => write!(f, "{}", c.escape_unicode()),
        }
    }
}

fn units(bytes: &[u8]) -> impl Iterator<Item = Unit> + '_ {
    bytes.utf8_chunks().flat_map(|chunk| {
        let text = chunk.valid().chars().map(unit_of);
        text.chain(chunk.invalid().iter().map(|byte| Unit::Byte(*byte)))
    })
}

fn unit_of(c: char) -> Unit {
    match c {
        '\\' => Unit::Backslash,
        c if is_printable(c) => Unit::Plain(c),
        c => u8::try_from(c).ok().filter(u8::is_ascii).map_or(Unit::Char(c), Unit::Byte),
    }
}

/// Whether a character may reach a terminal or a log as it is.
pub(crate) fn is_printable(c: char) -> bool {
    !c.is_control() && !UNPRINTABLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Characters outside the control range that reorder the text around them, break lines, or show nothing.
/// The joiners U+200C and U+200D are not among them: names in several scripts need them.
const UNPRINTABLE: [(char, char); 10] = [
    ('\u{061c}', '\u{061c}'),   // Arabic letter mark
    ('\u{180e}', '\u{180e}'),   // Mongolian vowel separator
    ('\u{200b}', '\u{200b}'),   // zero width space
    ('\u{200e}', '\u{200f}'),   // left-to-right and right-to-left mark
    ('\u{2028}', '\u{202e}'),   // line and paragraph separator, bidi embeddings and overrides
    ('\u{2060}', '\u{2064}'),   // word joiner, invisible operators
    ('\u{2066}', '\u{206f}'),   // bidi isolates, deprecated format characters
    ('\u{feff}', '\u{feff}'),   // byte order mark
    ('\u{fff9}', '\u{fffb}'),   // interlinear annotation
    ('\u{e0000}', '\u{e007f}'), // tags: hidden ASCII
];

const ELLIPSIS: char = '…';

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec;

    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped() {
        let cases: [(&[u8], &str); 9] = [
            ("Zoë 日本 🙂".as_bytes(), "Zoë 日本 🙂"),
            (b"\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07"),
            (b"a\r\nb\0\x7f", r"a\x0d\x0ab\x00\x7f"),
            ("\u{9b}2J".as_bytes(), r"\u{9b}2J"),
            (b"\x9b2J", r"\x9b2J"),
            ("a\u{202e}b\u{2066}c\u{200f}".as_bytes(), r"a\u{202e}b\u{2066}c\u{200f}"),
            ("a\u{2028}b\u{feff}\u{e0041}".as_bytes(), r"a\u{2028}b\u{feff}\u{e0041}"),
            (b"caf\xe9 \xe2\x82", r"caf\xe9 \xe2\x82"),
            (br"\x1b", r"\\x1b"),
        ];
        for (bytes, text) in cases {
            assert_eq!(format!("{}", escape(bytes)), text);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let cut = |bytes: &[u8], max_len_bytes| format!("{}", escape_truncated(bytes, max_len_bytes));
        assert_eq!(cut(b"abcdef", 6), "abcdef");
        assert_eq!(cut(b"abcdefg", 6), "abc…");
        assert_eq!(cut(b"ab\x1bc", 6), "ab…");
        assert_eq!(cut("ééé".as_bytes(), 5), "é…");
        assert_eq!(cut(b"abc", 2), "");
        assert_eq!(cut(&[0x1b; 1024], 256).len(), 63 * 4 + 3);
    }

    #[test]
    fn only_printable_text_is_taken_for_escaped() {
        let own = EscapedPath::new(b"a\x1b/\xff");
        assert_eq!(EscapedPath::from_wire(own.as_str().as_bytes()), Some(own));
        assert_eq!(EscapedPath::from_wire(b"a\x1b"), None);
        assert_eq!(EscapedPath::from_wire("\u{202e}".as_bytes()), None);
        assert_eq!(EscapedPath::from_wire(b"\xff"), None);
    }

    #[test]
    fn a_path_of_control_characters_fits_its_record() {
        let path = vec![0x1b; 40_000];
        assert!(EscapedPath::new(&path).as_str().len() <= MAX_ESCAPED_PATH_LEN_BYTES);
    }
}
