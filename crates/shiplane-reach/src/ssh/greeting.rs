//! The request and the answer in an ssh session before the first packet (SPEC 6.9, 6.10). No IO but reading a request.

use std::io::{self, Read};

use shiplane_wire::{escape, escape_truncated};
use thiserror::Error;

/// What is wanted of the program on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRequest {
    /// What may be done with the path.
    pub rights: Rights,
    /// Relative to the home directory, unless it begins with a slash.
    pub path: Vec<u8>,
}

/// What may be done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// List and fetch.
    pub read: bool,
    /// Push; with `read` also sync.
    pub write: bool,
}

/// What the other side answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// A ticket for what was asked.
    Ticket(String),
    /// It cannot be had. The reason is escaped.
    Refused {
        /// The exit code that the other side's program ends with (its classes of failures).
        class: u8,
        /// Why, escaped.
        reason: String,
    },
    /// The shell has not found the program; where it looked, escaped.
    Missing(String),
}

/// Why the received bytes have no greeting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GreetingError {
    /// Something else came. Its end, escaped.
    #[error("there was no answer from shiplane{}", came(.0))]
    Noise(String),
    /// The program there is of another version.
    #[error("the program there speaks another version of the protocol ({0})")]
    OtherVersion(String),
}

/// Why a request is none.
#[derive(Debug, Error)]
pub enum SshRequestError {
    /// It could not be read.
    #[error("cannot read the request: {0}")]
    Io(#[from] io::Error),
    /// The other side is of another version, or is not shiplane.
    #[error("the request does not follow version {VERSION} of the protocol")]
    Malformed,
}

impl SshRequest {
    /// The bytes (SPEC 6.9).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{MARKER}{VERSION}\n").into_bytes();
        bytes.push(u8::from(self.rights.read) | u8::from(self.rights.write) << 1);
        // Longer ones are refused where they are typed.
        let len = u16::try_from(self.path.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.path);
        bytes
    }

    /// Reads one, and not a byte more. Blocking.
    ///
    /// # Errors
    /// [`SshRequestError`].
    pub fn read(from: &mut impl Read) -> Result<Self, SshRequestError> {
        // SPEC 6.9
        let expected = format!("{MARKER}{VERSION}\n");
        let mut first_line = vec![0; expected.len()];
        from.read_exact(&mut first_line)?;
        let mut rest = [0; 3];
        if first_line != expected.as_bytes() {
            return Err(SshRequestError::Malformed);
        }
        from.read_exact(&mut rest)?;
        let [rights, len_low, len_high] = rest;
        let rights = Rights { read: rights & 1 != 0, write: rights & 2 != 0 };
        let is_known = rights != Rights { read: false, write: false } && rest[0] < 4;
        let mut path = vec![0; u16::from_le_bytes([len_low, len_high]).into()];
        from.read_exact(&mut path)?;
        if !is_known || path.contains(&0) {
            return Err(SshRequestError::Malformed);
        }
        Ok(Self { rights, path })
    }
}

impl Greeting {
    /// The bytes (SPEC 6.10). They begin on a line of their own, whatever was printed before.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let words = match self {
            Self::Ticket(ticket) => format!("ticket {ticket}"),
            Self::Refused { class, reason } => format!("refused {class} {}", escaped_once(reason.as_bytes())),
            Self::Missing(path) => format!("missing {path}"),
        };
        format!("\n{MARKER}{VERSION} {words}\n").into_bytes()
    }

    /// Finds the greeting in the bytes so far, after other output, and the length of both. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`GreetingError`], once there is too much noise or the greeting is not one that we know.
    pub fn find(came: &[u8]) -> Result<Option<(Self, usize)>, GreetingError> {
        // SPEC 6.10
        let starts = std::iter::once(0).chain(came.iter().enumerate().filter_map(|(at, byte)| {
            // Some terminals and shells end lines in their own ways.
            matches!(byte, b'\n' | b'\r').then_some(at + 1)
        }));
        for start in starts {
            let Some(rest) = came[start..].strip_prefix(MARKER.as_bytes()) else { continue };
            if rest.first().is_some_and(|byte| !byte.is_ascii_digit()) {
                continue; // Somebody talks about it.
            }
            let Some(len) = rest.iter().position(|byte| *byte == b'\n') else { break };
            let greeting = Self::parse(rest[..len].trim_ascii_end())?;
            return Ok(Some((greeting, start + MARKER.len() + len + 1)));
        }
        if came.len() >= MAX_NOISE_BYTES { Err(GreetingError::noise(came)) } else { Ok(None) }
    }

    fn parse(line: &[u8]) -> Result<Self, GreetingError> {
        let text = |bytes: &[u8]| escape(bytes).to_string();
        let (version, words) = split_word(line);
        if version != VERSION.to_string().as_bytes() {
            return Err(GreetingError::OtherVersion(escape_truncated(version, MAX_SHOWN_BYTES).to_string()));
        }
        let (kind, rest) = split_word(words);
        match kind {
            b"ticket" => str::from_utf8(rest)
                .map(|ticket| Self::Ticket(ticket.to_owned()))
                .map_err(|_| GreetingError::noise(line)),
            b"refused" => {
                let (class, reason) = split_word(rest);
                let class = str::from_utf8(class).ok().and_then(|class| class.parse().ok());
                let refused = |class| Self::Refused { class, reason: escaped_once(reason) };
                class.map(refused).ok_or_else(|| GreetingError::noise(line))
            }
            b"missing" => Ok(Self::Missing(text(rest))),
            _ => Err(GreetingError::noise(line)),
        }
    }
}

impl GreetingError {
    /// Something else came.
    #[must_use]
    pub fn noise(came: &[u8]) -> Self {
        let came = came.trim_ascii();
        // The end says most: a login script comes before the reason.
        let start = came.len().saturating_sub(MAX_SHOWN_BYTES);
        Self::Noise(escape(&came[start..]).to_string())
    }
}

/// Escaped and cut, unless it is escaped already.
fn escaped_once(text: &[u8]) -> String {
    let text = &text[..text.len().min(MAX_REASON_LEN_BYTES)];
    let escaped = escape(text).to_string();
    match str::from_utf8(text) {
        Ok(text) if escaped.replace("\\\\", "\\") == text => text.to_owned(),
        _ => escaped,
    }
}

fn came(noise: &str) -> String {
    if noise.is_empty() { String::new() } else { format!(", but this: {noise}") }
}

fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    (&line[..end], line.get(end + 1..).unwrap_or_default())
}

/// For the fuzzer: a greeting that is found is found again, and so is a request.
pub fn fuzz_greeting(data: &[u8]) {
    if let Ok(Some((greeting, len))) = Greeting::find(data) {
        assert!(len <= data.len());
        if let Greeting::Ticket(_) = greeting {
            let encoded = greeting.encode();
            assert_eq!(Greeting::find(&encoded), Ok(Some((greeting, encoded.len()))));
        }
    }
    let mut rest = data;
    if let Ok(request) = SshRequest::read(&mut rest) {
        assert_eq!(request.encode(), data[..data.len() - rest.len()]);
    }
}

/// What the first word of either side's first line begins with.
const MARKER: &str = "shiplane-ssh/";

/// Of what is said before the first packet.
const VERSION: u8 = 1;

/// 64 KiB: what login scripts print; much more is another program.
const MAX_NOISE_BYTES: usize = 64 << 10;

/// 300 bytes of something else: a line or two.
const MAX_SHOWN_BYTES: usize = 300;

/// 1 KiB: a message with a path in it.
const MAX_REASON_LEN_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICKET: &[u8] = b"\nshiplane-ssh/1 ticket shiplane://x\n";

    fn ticket() -> Greeting {
        Greeting::Ticket("shiplane://x".to_owned())
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let request = SshRequest { rights: Rights { read: true, write: false }, path: b"a b".to_vec() };
        assert_eq!(request.encode(), b"shiplane-ssh/1\n\x01\x03\x00a b");
        assert_eq!(ticket().encode(), TICKET);
        let refused = Greeting::Refused { class: 7, reason: "no such file".to_owned() };
        assert_eq!(refused.encode(), b"\nshiplane-ssh/1 refused 7 no such file\n");
        assert_eq!(Greeting::find(&refused.encode()), Ok(Some((refused, 39))));
    }

    #[test]
    fn noise_before_the_greeting_is_skipped_and_bytes_after_it_are_left() {
        for noise in [
            "",
            "Welcome!",
            "Welcome!\r\n\x1b[0m\n",
            "shiplane-ssh is great\nshiplane-ssh",
            "shiplane-ssh/ is great",
            "\u{0}\u{1}",
        ] {
            let mut came = noise.as_bytes().to_vec();
            came.extend_from_slice(TICKET);
            let len = came.len();
            came.extend_from_slice(b"packets");
            assert_eq!(Greeting::find(&came), Ok(Some((ticket(), len))), "{noise:?}");
        }
        assert_eq!(Greeting::find(b"shiplane-ssh/1 ticket shiplane://x\r\n"), Ok(Some((ticket(), 36))));
    }

    #[test]
    fn without_a_greeting_the_output_is_quoted_and_bounded() {
        assert_eq!(Greeting::find(&vec![b'x'; MAX_NOISE_BYTES - 1]), Ok(None));
        let endless = vec![0x1b; MAX_NOISE_BYTES];
        let Err(GreetingError::Noise(shown)) = Greeting::find(&endless) else { panic!("endless") };
        assert!(shown.starts_with("\\x1b") && shown.len() <= 4 * MAX_SHOWN_BYTES, "{}", shown.len());
        let other = GreetingError::noise(b"long motd\nThis account is disabled.\x07\n").to_string();
        assert!(other.ends_with("This account is disabled.\\x07"), "{other}");
        assert_eq!(GreetingError::noise(b"\n").to_string(), "there was no answer from shiplane");
    }

    #[test]
    fn other_versions_are_named() {
        let found = Greeting::find(b"shiplane-ssh/2 whatever\n");
        assert_eq!(found, Err(GreetingError::OtherVersion("2".to_owned())));
        assert!(matches!(Greeting::find(b"shiplane-ssh/1 sesame\n"), Err(GreetingError::Noise(_))));
        assert!(matches!(Greeting::find(b"shiplane-ssh/1 refused x y\n"), Err(GreetingError::Noise(_))));
        let missing = Greeting::find(b"shiplane-ssh/1 missing /bin:/usr/bin\n").unwrap().unwrap().0;
        assert_eq!(missing, Greeting::Missing("/bin:/usr/bin".to_owned()));
    }

    #[test]
    fn a_request_of_another_program_is_none() {
        for bytes in [
            &b"shiplane-ssh/2\n\x01\x00\x00"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"shiplane-ssh/1\n\x00\x00\x00",
            b"shiplane-ssh/1\n\x04\x00\x00",
            b"shiplane-ssh/1\n\x01\x01\x00\x00",
        ] {
            assert!(
                matches!(SshRequest::read(&mut &bytes[..]), Err(SshRequestError::Malformed)),
                "{bytes:?}"
            );
        }
        let cut = SshRequest::read(&mut &b"shiplane-ssh/1\n\x01\x05\x00ab"[..]);
        assert!(matches!(cut, Err(SshRequestError::Io(_))));
    }

    proptest! {
        #[test]
        fn any_path_arrives_exactly(path in proptest::collection::vec(1..=255_u8, 0..200), rights in 1..4_u8) {
            let rights = Rights { read: rights & 1 != 0, write: rights & 2 != 0 };
            let request = SshRequest { rights, path };
            let bytes = [request.encode(), b"packets".to_vec()].concat();
            let mut rest = &bytes[..];
            prop_assert_eq!(SshRequest::read(&mut rest).unwrap(), request);
            prop_assert_eq!(rest, b"packets");
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_greeting(&data);
        }

        #[test]
        fn a_greeting_is_found_behind_any_noise(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assume!(!noise.windows(MARKER.len()).any(|part| part == MARKER.as_bytes()));
            let came = [&noise[..], TICKET].concat();
            prop_assert_eq!(Greeting::find(&came), Ok(Some((ticket(), came.len()))));
            prop_assert_eq!(Greeting::find(&came[..came.len() - 1]), Ok(None));
        }
    }
}
