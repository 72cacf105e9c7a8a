//! SOURCE or TARGET, as typed: a ticket URL, or `NAME|PEERID@HOST:PORT[/PATH]`.

use std::ffi::OsStr;

use shiplane_protocols::access::{AddressError, HostPort, NameError, PeerName, Ticket, TicketError};
use shiplane_transport::{PeerId, PeerIdError};
use shiplane_wire::{PathRefused, RelPath};

/// Where to fetch from or push to, and by what right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceArg {
    /// A stranger's way in.
    Ticket(Box<Ticket>),
    /// A server that knows this machine's key.
    Standing {
        /// Which key must answer.
        server: Server,
        /// Where.
        at: HostPort,
        /// What of it; empty for all that is served.
        path: Vec<u8>,
    },
}

/// A server's key, or the name of a standing peer with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    Name(PeerName),
    Id(PeerId),
}

/// Why a text is no source and no target. Shows nothing of what was typed: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("the ticket is wrong: {0}")]
    Ticket(#[from] TicketError),
    #[error("this is neither a ticket URL nor NAME@HOST:PORT/PATH")]
    Unknown,
    #[error("the peer id is wrong: {0}")]
    Id(#[from] PeerIdError),
    #[error("the name is wrong: {0}")]
    Name(#[from] NameError),
    #[error("the address is wrong: {0}")]
    Address(#[from] AddressError),
    #[error("the path is refused: {0}")]
    Path(PathRefused),
}

impl SourceArg {
    /// Takes it apart. One `/` at the end of the path is forgiven; `%` stands for itself unless
    /// this is a ticket.
    pub(crate) fn parse(typed: &OsStr) -> Result<Self, SourceError> {
        let bytes = typed.as_encoded_bytes();
        if bytes.trim_ascii_start().starts_with(SCHEME) {
            // A ticket is ASCII unless its path was edited; what is not UTF-8 in it is no ticket.
            let text = str::from_utf8(bytes).map_err(|_| SourceError::Unknown)?;
            return Ok(Self::Ticket(Box::new(text.parse()?)));
        }
        let (authority, path) = split_at_byte(bytes, b'/').unwrap_or((bytes, b""));
        let authority = str::from_utf8(authority).map_err(|_| SourceError::Unknown)?;
        let (server, at) = authority.split_once('@').ok_or(SourceError::Unknown)?;
        let server = Server::parse(server)?;
        let at = at.parse()?;
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if !path.is_empty() {
            RelPath::parse(path).map_err(SourceError::Path)?;
        }
        Ok(Self::Standing { server, at, path: path.to_vec() })
    }

    /// What of it; empty for all that is served.
    pub(crate) fn path(&self) -> &[u8] {
        match self {
            Self::Ticket(ticket) => ticket.path(),
            Self::Standing { path, .. } => path,
        }
    }

    /// Whether somebody who typed this meant a source, right or wrong, and not a destination.
    pub(crate) fn is_meant(typed: &OsStr) -> bool {
        let bytes = typed.as_encoded_bytes();
        let authority = split_at_byte(bytes, b'/').map_or(bytes, |(authority, _)| authority);
        bytes.trim_ascii_start().starts_with(SCHEME) || authority.contains(&b'@')
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, SourceError> {
        // No name begins like an id, so a mistyped id is told so and not looked up as a name.
        match text.get(..3) {
            Some(start) if start.eq_ignore_ascii_case("sl1") => Ok(Self::Id(text.parse()?)),
            _ => Ok(Self::Name(text.parse()?)),
        }
    }
}

fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&other| other == byte)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

const SCHEME: &[u8] = b"shiplane:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SourceArg, SourceError> {
        SourceArg::parse(OsStr::new(text))
    }

    #[test]
    fn tickets_ids_and_names_are_told_apart() {
        let id = PeerId::from_bytes([7; 32]);
        let ticket = format!("shiplane://{id}@h:1/a#MDEyMzQ1Njc4OWFiY2RlZg");
        assert_eq!(parse(&ticket), Ok(SourceArg::Ticket(Box::new(ticket.parse().unwrap()))));
        let at: HostPort = "[::1]:7".parse().unwrap();
        let standing =
            |server, path: &[u8]| Ok(SourceArg::Standing { server, at: at.clone(), path: path.to_vec() });
        assert_eq!(parse(&format!("{id}@[::1]:7")), standing(Server::Id(id), b""));
        assert_eq!(parse(&format!("{id}@[::1]:7/")), standing(Server::Id(id), b""));
        let name = Server::Name("nas".parse().unwrap());
        assert_eq!(parse("nas@[::1]:7/a b%20@c/"), standing(name, b"a b%20@c"));
    }

    #[test]
    fn each_mistake_is_named() {
        let id = PeerId::from_bytes([7; 32]).to_string();
        assert_eq!(parse(""), Err(SourceError::Unknown));
        assert_eq!(parse("some/dir"), Err(SourceError::Unknown));
        assert_eq!(parse("host:7514/dir@x"), Err(SourceError::Unknown));
        assert!(matches!(parse(&format!("{}@h:1", &id[..50])), Err(SourceError::Id(_))));
        assert!(matches!(parse("@h:1"), Err(SourceError::Name(_))));
        assert!(matches!(parse("nas@h"), Err(SourceError::Address(AddressError::PortMissing))));
        assert!(matches!(parse("nas@h:1/../x"), Err(SourceError::Path(_))));
        assert!(matches!(parse("nas@h:1//x"), Err(SourceError::Path(_))));
        assert!(matches!(parse("shiplane://x"), Err(SourceError::Ticket(_))));
        assert!(matches!(parse("shiplane:sl1"), Err(SourceError::Ticket(_))));
    }

    #[test]
    fn a_source_is_not_taken_for_a_destination() {
        for meant in ["shiplane://", "nas@h:1", "nas@h:1/a", "sl1x@"] {
            assert!(SourceArg::is_meant(OsStr::new(meant)), "{meant}");
        }
        for other in ["", ".", "-", "out", "./a@b", "/a@b", "dir/a@b"] {
            assert!(!SourceArg::is_meant(OsStr::new(other)), "{other}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_may_be_any_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let source = SourceArg::parse(OsStr::from_bytes(b"nas@h:1/\xff\xfe")).unwrap();
        assert!(matches!(source, SourceArg::Standing { path, .. } if path == b"\xff\xfe"));
        let not_text = SourceArg::parse(OsStr::from_bytes(b"na\xffs@h:1"));
        assert_eq!(not_text, Err(SourceError::Unknown));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_error_repeats_it(text in "\\PC{0,40}") {
            for typed in [format!("shiplane://{text}#SECRETSECRET"), format!("{text}@h:1")] {
                if let Err(error) = parse(&typed) {
                    prop_assert!(!error.to_string().contains("SECRETSECRET"));
                }
            }
        }
    }
}
