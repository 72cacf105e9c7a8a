//! Standing peers, and the text format of the peers file.
//!
//! ```text
//! # NAME   PEERID         RIGHTS       PATH...                    @ADDRESSES
//! laptop   sl1qyqszqg...  read         /
//! nas      sl1qgpqyqs...  read,write   /photos /sommer%202024     @192.0.2.7:7514
//! friend   sl1qvpsxqc...  none                              # only a name to dial
//! ```
//!
//! Paths are relative to the served root, start with `/` and are percent-encoded. Nothing is left
//! to a default: a line without rights, or with rights but without paths, is an error.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use shiplane_transport::{PeerId, internals::PeerIdError};
use shiplane_wire::{PathRefused, escape_truncated};

use crate::address::{AddressError, Addresses};
use crate::grant::{Grant, Scope};
use crate::ticket::decode_path;

/// A key that the owner of this machine has given a name, and perhaps rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingPeer {
    /// Unique in the file.
    pub name: PeerName,
    /// Unique in the file too: two lines for one key would leave its rights in doubt.
    pub id: PeerId,
    /// What it may do here; [`Grant::none`] for a mere name.
    pub grant: Grant,
    /// Where it is found, if that is known.
    pub at: Option<Addresses>,
}

/// A name for a key: 1 to 64 letters, digits, `.`, `_` or `-`, beginning with a letter or digit,
/// and nothing that could be taken for a peer id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Box<str>);

/// Why a text is no name for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with a character that is not allowed.
    #[error(
        "a peer's name has 1 to {max_bytes} letters, digits, dots, underscores or hyphens \
         and begins with a letter or a digit"
    )]
    Malformed {
        /// The longest name.
        max_bytes: usize,
    },
    /// Begins with `sl1`, like a peer id.
    #[error("a peer's name cannot begin with sl1, as peer ids do")]
    LikeAnId,
}

/// What is wrong with a line of the peers file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Not UTF-8.
    #[error("the line is not valid UTF-8")]
    NotText,
    /// The first word is no name.
    #[error("{0}")]
    Name(NameError),
    /// Nothing after the name.
    #[error("the peer id is missing")]
    IdMissing,
    /// The second word is no peer id.
    #[error("invalid peer id: {0}")]
    Id(PeerIdError),
    /// Nothing after the peer id.
    #[error("the rights are missing; write read, write, read,write or none")]
    RightsMissing,
    /// The third word names no rights.
    #[error("{} is not valid as rights; write read, write, read,write or none", show(.word))]
    RightsUnknown {
        /// The word.
        word: String,
    },
    /// Rights that hold nowhere.
    #[error("the paths are missing; write / for everything, or paths relative to the served root")]
    PathsMissing,
    /// Paths after `none`.
    #[error("a peer without rights must have no paths")]
    PathsWithoutRights,
    /// A path that does not start with `/`.
    #[error("{} is not a valid path: it must start with /", show(.word))]
    PathNotAbsolute {
        /// The word.
        word: String,
    },
    /// A path with an unencoded `%` or `?`.
    #[error("{} is not percent-encoded", show(.word))]
    PathEncoding {
        /// The word.
        word: String,
    },
    /// A path that breaks the rules for names.
    #[error("invalid path: {0}")]
    Path(PathRefused),
    /// A word that begins with `@` and is no address.
    #[error("invalid address: {0}")]
    Address(AddressError),
    /// Two words with addresses.
    #[error("write all addresses of a peer in one word, separated by commas")]
    AddressTwice,
    /// The name stands on an earlier line too.
    #[error("the name is already used on line {first}")]
    NameTwice {
        /// That line, counted from 1.
        first: usize,
    },
    /// The key stands on an earlier line too.
    #[error("the peer id is already used on line {first}")]
    IdTwice {
        /// That line, counted from 1.
        first: usize,
    },
}

impl PeerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let well_formed = (1..=MAX_NAME_LEN_BYTES).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !well_formed {
            return Err(NameError::Malformed { max_bytes: MAX_NAME_LEN_BYTES });
        }
        if text.as_bytes()[..text.len().min(3)].eq_ignore_ascii_case(b"sl1") {
            return Err(NameError::LikeAnId);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for StandingPeer {
    /// The line of the file, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.id, self.grant.rights())?;
        match self.grant.paths.paths() {
            None => f.write_str(" /"),
            Some(paths) => {
                paths.iter().try_for_each(|path| write!(f, " /{}", percent_encode(path.as_bytes(), ESCAPED)))
            }
        }?;
        self.at.iter().try_for_each(|at| write!(f, " @{at}"))
    }
}

/// A peers file taken apart, so that an edit leaves the other lines as they were typed.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeersText {
    lines: Vec<Line>,
}

impl PeersText {
    /// Reads every line. `Err` is the number of the first bad one, counted from 1, and its fault.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, (usize, LineFault)> {
        let mut lines: Vec<Line> = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = Line::parse(line).map_err(|fault| (index + 1, fault))?;
            if let Some(fault) = line.peer.as_ref().and_then(|peer| clash(&lines, peer)) {
                return Err((index + 1, fault));
            }
            lines.push(line);
        }
        // What `split` finds after the last line's end is no line.
        if lines.last().is_some_and(|last| last.raw.is_empty()) {
            lines.pop();
        }
        Ok(Self { lines })
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &StandingPeer> {
        self.lines.iter().filter_map(|line| line.peer.as_ref())
    }

    /// Puts the peer's line in place of the one with its name, or at the end. The caller has made
    /// sure that the key stands nowhere else.
    pub(crate) fn put(&mut self, peer: &StandingPeer) {
        if self.lines.is_empty() {
            self.lines.extend(HEADER.lines().map(|line| Line { raw: line.into(), peer: None }));
        }
        let existing = self
            .lines
            .iter_mut()
            .find(|line| line.peer.as_ref().is_some_and(|other| other.name == peer.name));
        let comment = existing
            .as_ref()
            .and_then(|line| line.raw.split_once('#'))
            .map_or_else(String::new, |(_, comment)| format!(" #{comment}"));
        let line = Line { raw: format!("{peer}{comment}"), peer: Some(peer.clone()) };
        match existing {
            Some(existing) => *existing = line,
            None => self.lines.push(line),
        }
    }

    /// Takes the line with this name out.
    pub(crate) fn take(&mut self, name: &PeerName) -> Option<StandingPeer> {
        let at =
            self.lines.iter().position(|line| line.peer.as_ref().is_some_and(|peer| peer.name == *name))?;
        self.lines.remove(at).peer
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let lines = self.lines.iter();
        lines.flat_map(|line| line.raw.bytes().chain(std::iter::once(b'\n'))).collect()
    }
}

/// For the fuzzer: a file that is understood says the same when it is written again, and so does each peer.
pub fn fuzz_peers(data: &[u8]) {
    let Ok(text) = PeersText::parse(data) else { return };
    let peers = || text.peers().cloned().collect::<Vec<_>>();
    let reads_as = |bytes: &[u8], peers: &[StandingPeer]| {
        PeersText::parse(bytes).is_ok_and(|text| text.peers().eq(peers))
    };
    assert!(reads_as(&text.to_bytes(), &peers()));
    let mut rewritten = PeersText::default();
    peers().iter().for_each(|peer| rewritten.put(peer));
    assert!(reads_as(&rewritten.to_bytes(), &peers()));
}

#[derive(Debug, Clone)]
struct Line {
    raw: String,
    peer: Option<StandingPeer>,
}

impl Line {
    fn parse(bytes: &[u8]) -> Result<Self, LineFault> {
        let raw = std::str::from_utf8(bytes).map_err(|_| LineFault::NotText)?;
        let content = raw.split_once('#').map_or(raw, |(content, _)| content);
        let mut words = content.split_ascii_whitespace();
        let peer = match words.next() {
            None => None,
            Some(name) => Some(parse_peer(name, words)?),
        };
        Ok(Self { raw: raw.to_owned(), peer })
    }
}

fn parse_peer<'a>(name: &str, mut words: impl Iterator<Item = &'a str>) -> Result<StandingPeer, LineFault> {
    let name = name.parse().map_err(LineFault::Name)?;
    let id = words.next().ok_or(LineFault::IdMissing)?.parse().map_err(LineFault::Id)?;
    let rights = words.next().ok_or(LineFault::RightsMissing)?;
    let (read, write) =
        Grant::parse_rights(rights).ok_or_else(|| LineFault::RightsUnknown { word: rights.to_owned() })?;
    let mut at = None;
    let mut paths = Scope::nothing();
    for word in words {
        match word.strip_prefix('@') {
            Some(_) if at.is_some() => return Err(LineFault::AddressTwice),
            Some(address) => at = Some(address.parse().map_err(LineFault::Address)?),
            None => paths = paths.and(parse_path(word)?),
        }
    }
    let grant = match (read || write, paths == Scope::nothing()) {
        (true, true) => return Err(LineFault::PathsMissing),
        (false, false) => return Err(LineFault::PathsWithoutRights),
        _ => Grant { read, write, paths },
    };
    Ok(StandingPeer { name, id, grant, at })
}

fn parse_path(word: &str) -> Result<Scope, LineFault> {
    let Some(path) = word.strip_prefix('/') else {
        return Err(LineFault::PathNotAbsolute { word: word.to_owned() });
    };
    let path = decode_path(path).map_err(|_| LineFault::PathEncoding { word: word.to_owned() })?;
    Scope::below(&path).map_err(LineFault::Path)
}

fn clash(earlier: &[Line], peer: &StandingPeer) -> Option<LineFault> {
    earlier.iter().enumerate().find_map(|(index, line)| {
        let other = line.peer.as_ref()?;
        let first = index + 1;
        if other.name == peer.name {
            Some(LineFault::NameTwice { first })
        } else if other.id == peer.id {
            Some(LineFault::IdTwice { first })
        } else {
            None
        }
    })
}

/// A word of the file, fit for a terminal.
fn show(word: &str) -> impl fmt::Display + '_ {
    escape_truncated(word.as_bytes(), MAX_SHOWN_BYTES)
}

/// Enough for a host name, and a list of peers still fits a terminal.
const MAX_NAME_LEN_BYTES: usize = 64;

/// A mistyped word is recognised by its beginning; a line of garbage need not fill the screen.
const MAX_SHOWN_BYTES: usize = 64;

/// What the words are separated by, what starts a comment, and what a terminal would obey.
pub(crate) const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

const HEADER: &str = "\
# Peers of shiplane, one a line: NAME PEERID RIGHTS PATH...
# RIGHTS: read, write, read,write or none (then no PATH). PATH: / or a path relative to the served root.
# At the end there may be @HOST:PORT, where the peer is found, or several: @HOST:PORT,HOST:PORT.
# A line that cannot be understood refuses everyone.";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shiplane_wire::RelPath;

    use super::*;

    fn key(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn peer(name: &str, byte: u8, grant: Grant) -> StandingPeer {
        StandingPeer { name: name.parse().unwrap(), id: key(byte), grant, at: None }
    }

    fn parse(text: &str) -> Result<Vec<StandingPeer>, (usize, LineFault)> {
        PeersText::parse(text.as_bytes()).map(|text| text.peers().cloned().collect())
    }

    #[test]
    fn a_file_made_by_hand_is_understood() {
        let (one, two, three) = (key(1), key(2), key(3));
        let text = format!(
            "# mine\r\n\n  laptop\t{one} read /\r\nnas {two} read,write /photos /a%20b/c # at home\n\
             friend {three} none"
        );
        let photos = Scope::below(b"photos").unwrap();
        let paths = photos.and(Scope::below(b"a b/c").unwrap());
        assert_eq!(
            parse(&text).unwrap(),
            [
                peer("laptop", 1, Grant::read_only(Scope::everything())),
                peer("nas", 2, Grant { read: true, write: true, paths }),
                peer("friend", 3, Grant::none()),
            ]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("\n\n").unwrap(), []);
    }

    #[test]
    fn each_fault_has_its_line_and_its_name() {
        let id = key(1);
        let other = key(2);
        let word = |word: &str| word.to_owned();
        let malformed = NameError::Malformed { max_bytes: 64 };
        for (line, fault) in [
            (format!("-x {id} read /"), LineFault::Name(malformed)),
            (format!("{id} {id} read /"), LineFault::Name(NameError::LikeAnId)),
            (word("x"), LineFault::IdMissing),
            (word("x # no more"), LineFault::IdMissing),
            (format!("x {id}"), LineFault::RightsMissing),
            (format!("x {id} all /"), LineFault::RightsUnknown { word: word("all") }),
            (format!("x {id} READ /"), LineFault::RightsUnknown { word: word("READ") }),
            (format!("x {id} read"), LineFault::PathsMissing),
            (format!("x {id} none /"), LineFault::PathsWithoutRights),
            (format!("x {id} read a"), LineFault::PathNotAbsolute { word: word("a") }),
            (format!("x {id} read /%"), LineFault::PathEncoding { word: word("/%") }),
            (format!("x {id} none @h:0"), LineFault::Address(AddressError::PortMalformed)),
            (format!("x {id} none @h @i"), LineFault::AddressTwice),
            (format!("first {id} read /"), LineFault::NameTwice { first: 2 }),
            (format!("x {other} read /"), LineFault::IdTwice { first: 2 }),
        ] {
            let text = format!("# one\nfirst {other} read /\n{line}\n");
            assert_eq!(parse(&text), Err((3, fault)), "{line}");
        }
        let climbs = parse(&format!("x {id} read /a/../b"));
        assert!(matches!(climbs, Err((1, LineFault::Path(_)))), "{climbs:?}");
        let mistyped = parse("x sl1abc read /");
        assert!(matches!(mistyped, Err((1, LineFault::Id(_)))), "{mistyped:?}");
        let no_text = PeersText::parse(b"# ok\n\xff\n").unwrap_err();
        assert_eq!(no_text, (2, LineFault::NotText));
    }

    #[test]
    fn a_fault_escapes_the_text_of_the_file() {
        let fault = parse(&format!("x {} \u{1b}]52;c;x\u{7} /", key(1))).unwrap_err().1;
        assert!(!fault.to_string().contains('\u{1b}'), "{fault}");
    }

    #[test]
    fn an_edit_leaves_the_rest_as_it_was_typed() {
        let (one, two) = (key(1), key(2));
        let text = format!("# top\n\nlaptop   {one}  none # old one\n  nas {two} read /\n# end\n");
        let mut file = PeersText::parse(text.as_bytes()).unwrap();
        file.put(&peer("laptop", 1, Grant::read_only(Scope::everything())));
        file.put(&peer("new", 3, Grant::none()));
        let three = key(3);
        let expected =
            format!("# top\n\nlaptop {one} read / # old one\n  nas {two} read /\n# end\nnew {three} none\n");
        assert_eq!(String::from_utf8(file.to_bytes()).unwrap(), expected);

        assert_eq!(file.take(&"nas".parse().unwrap()).unwrap().id, two);
        assert_eq!(file.take(&"nas".parse().unwrap()), None);
        assert!(!String::from_utf8(file.to_bytes()).unwrap().contains("nas"));
    }

    #[test]
    fn a_new_file_explains_itself() {
        let mut file = PeersText::default();
        file.put(&peer("a", 1, Grant::none()));
        let text = String::from_utf8(file.to_bytes()).unwrap();
        assert!(text.starts_with("# Peers of shiplane"), "{text}");
        assert_eq!(parse(&text).unwrap(), [peer("a", 1, Grant::none())]);
    }

    proptest! {
        #[test]
        fn a_written_line_is_read_again(
            name in "[a-rt-z0-9][a-zA-Z0-9._-]{0,20}",
            byte in any::<u8>(),
            (read, write) in any::<(bool, bool)>(),
            path in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let path = RelPath::parse(&path).map_or_else(|_| Vec::new(), |p| p.as_bytes().to_vec());
            let grant = match read || write {
                true => Grant { read, write, paths: Scope::below(&path).unwrap() },
                false => Grant::none(),
            };
            let at = (byte % 2 == 1).then(|| format!("h{byte}:1,2001:db8::{byte}").parse().unwrap());
            let peer = StandingPeer { at, ..peer(&name, byte, grant) };
            prop_assert_eq!(parse(&peer.to_string()).unwrap(), [peer]);
        }

        #[test]
        fn byte_soup_never_panics(soup in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PeersText::parse(&soup);
        }
    }
}
