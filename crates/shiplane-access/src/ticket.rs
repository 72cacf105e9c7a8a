//! The ticket URL.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use ring::rand::{SecureRandom, SystemRandom};
use shiplane_transport::{PeerId, internals::PeerIdError};
use shiplane_wire::{PathRefused, RelPath};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::address::{AddressError, Addresses};

/// `shiplane://PEERID@ADDRESSES/PATH#SECRET` (SPEC 6.1).
///
/// It pins the server's key, so that even the first connection is authenticated, and carries the secret that
/// lets the first key to present it in. `Display` writes the whole URL, secret included: that is
/// for the one who is to use it. Logs take [`Ticket::redacted`]; `Debug` is redacted by itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    server: PeerId,
    at: Addresses,
    path: Vec<u8>,
    secret: TicketSecret,
}

/// The 128 random bits that authorise the first key that presents them.
///
/// Wiped when dropped, compared in constant time, and shown as `#…` by `Debug` and `Display`; the
/// text form is given by [`TicketSecret::to_text`] alone.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TicketSecret([u8; SECRET_LEN_BYTES]);

/// A [`Ticket`] for logs and messages: the secret is `…`, control characters are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Redacted<'a>(&'a Ticket);

/// Why a text is no ticket. No variant carries any part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Longer than any ticket can be.
    #[error("the ticket has {len_bytes} bytes; the limit is {max_bytes}")]
    TooLong {
        /// The length of the text.
        len_bytes: usize,
        /// The longest ticket there can be.
        max_bytes: usize,
    },
    /// It does not begin with `shiplane://`.
    #[error("a ticket begins with shiplane://")]
    WrongScheme,
    /// Nothing before the `@`, or no `@`.
    #[error("the server's peer id is missing; a ticket looks like shiplane://PEERID@HOST:PORT/PATH#SECRET")]
    PeerIdMissing,
    /// The server's peer id is mistyped or cut off.
    #[error("invalid peer id of the server: {0}")]
    PeerId(#[from] PeerIdError),
    /// The part after the `@` is no `HOST:PORT`, or one of several is none.
    #[error("invalid address of the server: {0}")]
    Address(#[from] AddressError),
    /// A `%` in the path without two hexadecimal digits after it.
    #[error("in the path, % must be followed by two hexadecimal digits")]
    PathEscape,
    /// A `?`: a ticket has no query part, so this is not the text that was handed out.
    #[error("the path contains a question mark; write it as %3F")]
    Query,
    /// A path that no server would give out.
    #[error("invalid path: {0}")]
    Path(PathRefused),
    /// The part after `#` is wrong.
    #[error("the secret (the part after #) {0}")]
    Secret(#[from] SecretError),
}

/// Why a text is no ticket secret. Says where, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No `#`, or nothing after it; shells and chat programs like to cut it off.
    #[error("is missing")]
    Missing,
    /// Some characters are missing at the end.
    #[error("is truncated: it has {chars} of {expected_chars} characters")]
    CutOff {
        /// Characters found.
        chars: usize,
        /// Characters a secret has.
        expected_chars: usize,
    },
    /// Something was glued to the end.
    #[error("is too long: it has {chars} characters, not {expected_chars}")]
    TooLong {
        /// Characters found.
        chars: usize,
        /// Characters a secret has.
        expected_chars: usize,
    },
    /// A character that base64url has not, or a last one that cannot stand there.
    #[error("has an invalid character at position {position}")]
    Mistyped {
        /// Counted from 1.
        position: usize,
    },
}

/// The system's random generator failed; nothing secret can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoRandomness;

impl Ticket {
    /// Puts a ticket together. `path` is relative to what the server serves, empty for all of it.
    ///
    /// # Errors
    /// `TicketError::Path` if the path could not stand on the wire (SPEC 4.5).
    #[doc(hidden)]
    pub fn new(
        server: PeerId,
        at: Addresses,
        path: &[u8],
        secret: TicketSecret,
    ) -> Result<Self, TicketError> {
        if !path.is_empty() {
            RelPath::parse(path).map_err(TicketError::Path)?;
        }
        Ok(Self { server, at, path: path.to_vec(), secret })
    }

    /// A ticket for all that is served, which needs no path.
    #[doc(hidden)]
    #[must_use]
    pub fn for_everything(server: PeerId, at: Addresses, secret: TicketSecret) -> Self {
        Self { server, at, path: Vec::new(), secret }
    }

    /// The key the server must prove to hold.
    #[must_use]
    pub fn server(&self) -> PeerId {
        self.server
    }

    /// Where the server said that it can be reached, the best first.
    #[doc(hidden)]
    #[must_use]
    pub fn at(&self) -> &Addresses {
        &self.at
    }

    /// Whether only programs on the server's own machine can use it: its addresses are loopback ones.
    #[must_use]
    pub fn is_for_this_machine_only(&self) -> bool {
        self.at.iter().all(|at| at.host.is_loopback())
    }

    /// The path below what is served; empty for all of it.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// What to redeem.
    #[doc(hidden)]
    #[must_use]
    pub fn secret(&self) -> &TicketSecret {
        &self.secret
    }

    /// The ticket without its secret, for logs and messages.
    #[doc(hidden)]
    #[must_use]
    pub fn redacted(&self) -> Redacted<'_> {
        Redacted(self)
    }

    fn fmt_public_part(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = percent_encode(&self.path, ESCAPED_IN_PATH);
        write!(f, "{SCHEME}{}@{}/{path}#", self.server, self.at)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// White space around the text and one `/` at the end of the path are forgiven; a path that
    /// was edited by hand may hold unescaped UTF-8, and the rest of the path may stand behind the secret.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TICKET_LEN_BYTES {
            let (len_bytes, max_bytes) = (text.len(), MAX_TICKET_LEN_BYTES);
            return Err(TicketError::TooLong { len_bytes, max_bytes });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(TicketError::WrongScheme)?;
        let (public, secret) =
            rest.split_once('#').map_or((rest, None), |(public, secret)| (public, Some(secret)));
        let (authority, path) = public.split_once('/').unwrap_or((public, ""));
        let (peer, at) = authority.split_once('@').ok_or(TicketError::PeerIdMissing)?;
        if peer.is_empty() {
            return Err(TicketError::PeerIdMissing);
        }
        let server = peer.parse()?;
        let at = at.parse()?;
        let path = decode_path(path)?;
        let secret = secret.ok_or(SecretError::Missing)?;
        // As scripts write it: "$TICKET/photos".
        let (secret, below) = secret.split_once('/').unwrap_or((secret, ""));
        let secret = secret.parse()?;
        let below = decode_path(below)?;
        let path = match (path.is_empty(), below.is_empty()) {
            (true, _) => below,
            (_, true) => path,
            (false, false) => [&path, &b"/"[..], &below].concat(),
        };
        Self::new(server, at, &path, secret)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_public_part(f)?;
        f.write_str(&self.secret.to_text())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.redacted())
    }
}

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_public_part(f)?;
        f.write_str("…")
    }
}

impl TicketSecret {
    /// The secret that travelled.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The secret itself, for sending it to the server that issued it and nowhere else.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// 128 bits from the system's generator.
    ///
    /// # Errors
    /// [`NoRandomness`]; there is nothing to do but to give up.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut secret = Self([0; SECRET_LEN_BYTES]);
        SystemRandom::new().fill(&mut secret.0).map_err(|_| NoRandomness)?;
        Ok(secret)
    }

    /// The secret as it stands behind the `#`, wiped when dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for TicketSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let chars = text.chars().count();
        let expected_chars = SECRET_LEN_CHARS;
        match chars {
            0 => return Err(SecretError::Missing),
            few if few < expected_chars => {
                return Err(SecretError::CutOff { chars, expected_chars });
            }
            many if many > expected_chars => {
                return Err(SecretError::TooLong { chars, expected_chars });
            }
            _ => {}
        }
        if let Some(at) = text.chars().position(|symbol| !is_base64url(symbol)) {
            return Err(SecretError::Mistyped { position: at + 1 });
        }
        let mut secret = Self([0; SECRET_LEN_BYTES]);
        // 22 symbols hold 132 bits; that the last four are zero is checked here.
        BASE64URL_NOPAD
            .decode_mut(text.as_bytes(), &mut secret.0)
            .map_err(|_| SecretError::Mistyped { position: expected_chars })?;
        Ok(secret)
    }
}

impl ConstantTimeEq for TicketSecret {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for TicketSecret {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for TicketSecret {}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#…")
    }
}

impl fmt::Display for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#…")
    }
}

/// Undoes the percent encoding, strictly: a stray `%` is an error, so that one path has one
/// meaning.
pub(crate) fn decode_path(text: &str) -> Result<Vec<u8>, TicketError> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('?') {
        return Err(TicketError::Query);
    }
    let mut after_percent = text.split('%');
    after_percent.next();
    let well_formed = after_percent
        .all(|part| part.as_bytes().get(..2).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)));
    if !well_formed {
        return Err(TicketError::PathEscape);
    }
    Ok(percent_decode_str(text).collect())
}

/// For the fuzzer: what is read is written so that it reads the same.
pub fn fuzz_ticket(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert!(ticket.to_string().parse::<Ticket>().is_ok_and(|again| again == ticket));
        assert!(ticket.path().is_empty() || RelPath::parse(ticket.path()).is_ok());
    }
}

fn is_base64url(symbol: char) -> bool {
    symbol.is_ascii_alphanumeric() || matches!(symbol, '-' | '_')
}

const SCHEME: &str = "shiplane://";

/// 128 bits: out of reach of guessing over a network for ever.
const SECRET_LEN_BYTES: usize = 16;

/// What 16 bytes are in base64 without padding.
const SECRET_LEN_CHARS: usize = 22;

/// The longest path with every byte escaped (3 × 4,096), and 3 KiB for all the rest: eight names have 2 KiB.
const MAX_TICKET_LEN_BYTES: usize = 3 * 4096 + 3072;

/// All that a shell, a chat program or a URL parser might take for something else.
const ESCAPED_IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::HostPort;

    fn golden() -> Ticket {
        let secret = TicketSecret(*b"0123456789abcdef");
        let at = "10.0.0.5:7514".parse().unwrap();
        Ticket::new(PeerId::from_bytes([7; 32]), at, b"photos/sommer \xf6?#%", secret).unwrap()
    }

    fn error(text: &str) -> TicketError {
        text.parse::<Ticket>().unwrap_err()
    }

    #[test]
    fn the_text_form_is_the_documented_one() {
        let ticket = golden();
        let server = ticket.server();
        let text =
            format!("shiplane://{server}@10.0.0.5:7514/photos/sommer%20%F6%3F%23%25#MDEyMzQ1Njc4OWFiY2RlZg");
        assert_eq!(ticket.to_string(), text);
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
    }

    #[test]
    fn a_ticket_carries_several_addresses_and_one_with_too_many_is_refused() {
        let id = PeerId::from_bytes([7; 32]);
        let text = |at: &str| format!("shiplane://{id}@{at}/a#MDEyMzQ1Njc4OWFiY2RlZg");
        let ticket: Ticket = text("192.0.2.7:1,2001:db8::7,[2001:db8::8]:2").parse().unwrap();
        let at: Vec<String> = ticket.at().iter().map(ToString::to_string).collect();
        assert_eq!(at, ["192.0.2.7:1", "[2001:db8::7]:1", "[2001:db8::8]:2"]);
        assert_eq!(ticket.to_string(), text("192.0.2.7:1,2001:db8::7,[2001:db8::8]:2"));
        assert!(text("127.0.0.1,::1").parse::<Ticket>().unwrap().is_for_this_machine_only());
        assert!(!text("127.0.0.1,192.0.2.7").parse::<Ticket>().unwrap().is_for_this_machine_only());
        let nine: Vec<String> = (1..=9).map(|n| format!("192.0.2.{n}")).collect();
        assert_eq!(error(&text(&nine.join(","))), TicketError::Address(AddressError::TooMany { max: 8 }));
    }

    #[test]
    fn a_path_may_follow_the_secret() {
        let id = PeerId::from_bytes([7; 32]);
        let ticket = |path: &str, below: &str| {
            let text = format!("shiplane://{id}@h:1/{path}#MDEyMzQ1Njc4OWFiY2RlZg{below}");
            text.parse::<Ticket>().map(|ticket| ticket.path().to_vec())
        };
        for (path, below, whole) in
            [("", "/a/b", "a/b"), ("", "/a%20b/", "a b"), ("x", "/a", "x/a"), ("x/", "/", "x"), ("", "/", "")]
        {
            assert_eq!(ticket(path, below).unwrap(), whole.as_bytes(), "{path}#{below}");
        }
        for below in ["/..", "//a", "/a/../b", "/%"] {
            assert!(ticket("x", below).is_err(), "{below}");
        }
    }

    #[test]
    fn harmless_changes_to_a_pasted_ticket_are_accepted() {
        let id = PeerId::from_bytes([7; 32]);
        let secret = "MDEyMzQ1Njc4OWFiY2RlZg";
        let for_everything = Ticket::for_everything(id, "h:1".parse().unwrap(), secret.parse().unwrap());
        let url = format!("shiplane://{id}@h:1/#{secret}");
        assert_eq!(for_everything.to_string(), url);
        for (path, means) in
            [("", &b""[..]), ("/", b""), ("/a/b/", b"a/b"), ("/é", "é".as_bytes()), ("/%41", b"A")]
        {
            let ticket: Ticket = format!(" shiplane://{id}@h:1{path}#{secret}\r\n").parse().unwrap();
            assert_eq!(ticket.path(), means);
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let id = PeerId::from_bytes([7; 32]).to_string();
        let tail = "#MDEyMzQ1Njc4OWFiY2RlZg";
        let wrong_id = format!("{}q", &id[..id.len() - 1]);
        let other_id = format!("{}p", &id[..id.len() - 1]);
        let mistyped = if id.ends_with('q') { other_id } else { wrong_id };

        assert_eq!(error("https://example.org/"), TicketError::WrongScheme);
        assert_eq!(error(""), TicketError::WrongScheme);
        assert_eq!(error(&format!("shiplane://h:1/{tail}")), TicketError::PeerIdMissing);
        assert_eq!(error(&format!("shiplane://@h:1/{tail}")), TicketError::PeerIdMissing);
        let refused = error(&format!("shiplane://{mistyped}@h:1/{tail}"));
        assert!(matches!(refused, TicketError::PeerId(_)));
        let address = |error| TicketError::Address(error);
        assert_eq!(error(&format!("shiplane://{id}@h:/{tail}")), address(AddressError::PortMissing));
        assert_eq!(error(&format!("shiplane://{id}@::1:1/{tail}")), address(AddressError::BracketsMissing));
        for path in ["%", "a%4", "%zz", "%é"] {
            assert_eq!(error(&format!("shiplane://{id}@h:1/{path}{tail}")), TicketError::PathEscape);
        }
        assert_eq!(error(&format!("shiplane://{id}@h:1/a?b{tail}")), TicketError::Query);
        for path in ["../x", "a/%2e%2e/x", "/x", "a//b", "%00", "a%00b"] {
            let refused = error(&format!("shiplane://{id}@h:1/{path}{tail}"));
            assert!(matches!(refused, TicketError::Path(_)), "{path}: {refused}");
        }
        let long = format!("shiplane://{id}@h:1/{}{tail}", "a".repeat(MAX_TICKET_LEN_BYTES));
        assert!(matches!(error(&long), TicketError::TooLong { .. }));
    }

    #[test]
    fn a_damaged_secret_is_not_taken_for_a_missing_one() {
        let id = PeerId::from_bytes([7; 32]);
        let secret_error = |tail: &str| match error(&format!("shiplane://{id}@h:1/{tail}")) {
            TicketError::Secret(error) => error,
            other => panic!("{other}"),
        };
        let expected_chars = 22;
        assert_eq!(secret_error(""), SecretError::Missing);
        assert_eq!(secret_error("#"), SecretError::Missing);
        assert_eq!(secret_error("#MDEyMzQ1Njc4OWFiY2Rl"), SecretError::CutOff { chars: 20, expected_chars });
        assert_eq!(
            secret_error("#MDEyMzQ1Njc4OWFiY2RlZg=="),
            SecretError::TooLong { chars: 24, expected_chars }
        );
        assert_eq!(secret_error("#MD+yMzQ1Njc4OWFiY2RlZg"), SecretError::Mistyped { position: 3 });
        // A last symbol with bits that 128 have no room for.
        assert_eq!(secret_error("#MDEyMzQ1Njc4OWFiY2RlZh"), SecretError::Mistyped { position: 22 });
    }

    #[test]
    fn the_secret_is_shown_nowhere_but_in_the_url() {
        let ticket = golden();
        let secret = ticket.secret();
        let shown = format!("{ticket:?} {} {secret:?} {secret}", ticket.redacted());
        assert!(!shown.contains("MDEy"), "{shown}");
        assert!(!shown.contains("48, 49"), "{shown}");
        assert!(shown.contains("/photos/sommer%20%F6%3F%23%25#…"), "{shown}");
    }

    #[test]
    fn two_secrets_differ() {
        let (one, other) = (TicketSecret::random().unwrap(), TicketSecret::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one, one.clone());
    }

    proptest! {
        #[test]
        fn text_and_ticket_are_one(
            key in any::<[u8; 32]>(),
            secret in any::<[u8; SECRET_LEN_BYTES]>(),
            ends in proptest::collection::vec((any::<std::net::IpAddr>(), 1..=3_u16), 1..=8),
            path in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut ends = ends.into_iter().map(|(ip, port)| HostPort { host: ip.into(), port });
            let mut at = Addresses::from(ends.next().unwrap());
            ends.for_each(|end| at.push(end).unwrap());
            let path: Vec<u8> = match RelPath::parse(&path) {
                Ok(path) => path.as_bytes().to_vec(),
                Err(_) => Vec::new(),
            };
            let ticket =
                Ticket::new(PeerId::from_bytes(key), at, &path, TicketSecret(secret)).unwrap();
            let text = ticket.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{}", text);
            prop_assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        }

        #[test]
        fn byte_soup_is_an_error_and_never_a_panic(
            soup in proptest::collection::vec(any::<u8>(), 0..80),
            tail in "[%/@:#a-zé\\[\\]]{0,40}",
        ) {
            let soup = String::from_utf8_lossy(&soup);
            let id = PeerId::from_bytes([7; 32]);
            prop_assert!(soup.parse::<Ticket>().is_err());
            let _ = format!("shiplane://{soup}").parse::<Ticket>();
            let _ = format!("shiplane://{id}@h:1/{tail}{soup}").parse::<Ticket>();
            let _ = format!("shiplane://{id}@{tail}").parse::<Ticket>();
        }
    }
}
