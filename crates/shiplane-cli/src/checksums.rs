//! Lines of checksums as `sha256sum` writes them.

/// The line for a file, with its end. `path` is escaped. `sha256sum --check` reads the name's own bytes, so those are
/// written; only a terminal gets the name as it is escaped.
pub(crate) fn line(sha256: &str, path: &str, is_terminal: bool) -> Vec<u8> {
    let name = if is_terminal { path.as_bytes().to_vec() } else { quoted(&unescaped(path)) };
    // A line begins with a backslash if its name is to be unescaped.
    let mark = if name.contains(&b'\\') { "\\" } else { "" };
    [mark.as_bytes(), sha256.as_bytes(), b"  ", &name, b"\n"].concat()
}

/// Escapes the three bytes that `sha256sum` escapes.
fn quoted(name: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => quoted.extend_from_slice(b"\\\\"),
            b'\n' => quoted.extend_from_slice(b"\\n"),
            b'\r' => quoted.extend_from_slice(b"\\r"),
            byte => quoted.push(*byte),
        }
    }
    quoted
}

/// The bytes that [`shiplane::escape`] has made this text from.
fn unescaped(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let (decoded, len) = decoded(rest).unwrap_or_else(|| (b"\\".to_vec(), 1));
        bytes.extend(decoded);
        rest = &rest[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// What the escape sequence at the beginning of `text` stands for, and how long it is.
fn decoded(text: &str) -> Option<(Vec<u8>, usize)> {
    if text.starts_with("\\\\") {
        return Some((b"\\".to_vec(), 2));
    }
    if let Some(hex) = text.strip_prefix("\\x") {
        return Some((vec![u8::from_str_radix(hex.get(..2)?, 16).ok()?], 4));
    }
    let (hex, _) = text.strip_prefix("\\u{")?.split_once('}')?;
    let symbol = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    Some((symbol.to_string().into_bytes(), hex.len() + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_bytes_of_the_name_as_sha256sum_writes_them() {
        for (name, expected) in [
            (&b"plain \xc3\xa9"[..], &b"d  plain \xc3\xa9\n"[..]),
            (b"caf\xe9\x1b[2J", b"d  caf\xe9\x1b[2J\n"),
            ("bidi\u{202e}\u{9b}".as_bytes(), "d  bidi\u{202e}\u{9b}\n".as_bytes()),
            (b"back\\slash", b"\\d  back\\\\slash\n"),
            (b"line\nfeed\r\\x41", b"\\d  line\\nfeed\\r\\\\x41\n"),
        ] {
            assert_eq!(line("d", &shiplane::escape(name), false), expected);
        }
    }

    #[test]
    fn a_terminal_gets_the_name_escaped() {
        assert_eq!(line("d", &shiplane::escape(b"a\x1bb"), true), b"\\d  a\\x1bb\n");
    }
}
