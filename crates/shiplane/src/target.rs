//! The target of a client: a ticket URL, `NAME[/PATH]`, `NAME|PEERID@HOST[:PORT][/PATH]`, or `[USER@]HOST:PATH` over ssh.

use std::{ffi::OsStr, net::SocketAddr, str::FromStr};

use shiplane_access::internals::{Addresses, HostPort, PeerName, Ticket, TicketSecret};
use shiplane_reach::internals::{Rights, SshAddress};
use shiplane_transport::PeerId;
use shiplane_wire::{RelPath, escape};

use crate::error::{Error, TargetError};

/// A server to connect to: its key, its addresses, a path, and the secret of a ticket if there is one.
///
/// Anything that converts to it can be given to [`Client::connect`](crate::Client::connect): a [`Ticket`], a
/// [`PeerId`] with an address, or text. As text it is a ticket URL, `NAME@HOST:PORT/PATH`, where NAME is in the list of
/// peers or a peer id and `:PORT` and `/PATH` may be left out, or `NAME/PATH` if the list has an address for NAME. In
/// place of `HOST:PORT` there may be up to eight, separated by commas.
///
/// `[USER@]HOST:PATH` and `ssh://[USER@]HOST[:PORT]/PATH` start the program on another machine through the user's own
/// `ssh`. As with scp, PATH begins at the home directory there, and what has no colon before its first slash is a local
/// path.
///
/// `Debug` does not show a ticket's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    way: Way,
    /// Of a server that is started by ssh.
    rights: Rights,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    Direct(Direct),
    Ssh(SshAddress),
    /// `NAME@HOST:…`: the first if NAME is in the list of peers, else it is a user of a machine.
    Either {
        name: PeerName,
        direct: Result<Direct, TargetError>,
        ssh: SshAddress,
    },
}

/// A server that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Direct {
    pub(crate) server: ServerKey,
    /// Else where the list of peers says that it is.
    pub(crate) at: Option<Addresses>,
    path: Vec<u8>,
    secret: Option<TicketSecret>,
}

/// A server's key, or the name of a known peer with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerKey {
    Name(PeerName),
    Id(PeerId),
}

impl Target {
    /// Parses a command-line argument, whose path may be any bytes. One `/` at the end of the path is ignored;
    /// `%` stands for itself except in a ticket and in an `ssh://` URL.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), with what is wrong and nothing of a secret.
    pub fn from_os_str(typed: &OsStr) -> Result<Self, Error> {
        let typed = typed.as_encoded_bytes();
        Ok(Self::parse(typed).map_err(|error| match error {
            // A secret follows a `#`.
            TargetError::Unknown if !typed.contains(&b'#') && !typed.is_empty() => {
                TargetError::NoTarget { typed: escape(typed).to_string() }
            }
            error => error,
        })?)
    }

    /// Whether a typed text looks like a target, valid or not, rather than a local path.
    #[must_use]
    pub fn is_meant(typed: &OsStr) -> bool {
        let bytes = typed.as_encoded_bytes();
        let authority = split_at_byte(bytes, b'/').map_or(bytes, |(authority, _)| authority);
        bytes.trim_ascii_start().starts_with(SCHEME)
            || authority.contains(&b'@')
            || SshAddress::parse(bytes).is_some()
    }

    /// The path below what is served; empty for all of it. Over ssh, the path on that machine.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match &self.way {
            Way::Direct(direct) | Way::Either { direct: Ok(direct), .. } => &direct.path,
            Way::Ssh(ssh) | Way::Either { direct: Err(_), ssh, .. } => ssh.path(),
        }
    }

    /// Requests only these rights from a server that is started by ssh. By default it is asked for both, for a directory that
    /// exists or can be made. A server that runs already decides by its tickets and its list of peers.
    #[must_use]
    pub fn with_rights(mut self, read: bool, write: bool) -> Self {
        self.rights = Rights { read, write };
        self
    }

    /// Whether the target may be a listening server, found by a ticket, an id or the name of a known peer.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct(_) | Way::Either { direct: Ok(_), .. })
    }

    /// Whether ssh may start the server, and may ask for a password at the terminal.
    #[must_use]
    pub fn is_over_ssh(&self) -> bool {
        matches!(self.way, Way::Ssh(_) | Way::Either { .. })
    }

    pub(crate) fn rights(&self) -> Rights {
        self.rights
    }

    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    pub(crate) fn secret(&self) -> Option<&TicketSecret> {
        match &self.way {
            Way::Direct(direct) => direct.secret.as_ref(),
            Way::Ssh(_) | Way::Either { .. } => None,
        }
    }

    fn of(way: Way) -> Self {
        Self { way, rights: Rights { read: true, write: true } }
    }

    fn parse(bytes: &[u8]) -> Result<Self, TargetError> {
        if bytes.trim_ascii_start().starts_with(SCHEME) {
            // A ticket is ASCII unless its path was edited; if it is not UTF-8, it is no ticket.
            let text = str::from_utf8(bytes).map_err(|_| TargetError::Unknown)?;
            return Ok(text.parse::<Ticket>()?.into());
        }
        let Some(ssh) = SshAddress::parse(bytes) else {
            return Ok(Self::of(Way::Direct(Direct::parse(bytes)?)));
        };
        let authority = split_at_byte(bytes, b'/').map_or(bytes, |(authority, _)| authority);
        let before_at = split_at_byte(authority, b'@').and_then(|(before, _)| str::from_utf8(before).ok());
        match before_at.map(ServerKey::parse) {
            _ if bytes.starts_with(SSH_SCHEME) => Ok(Self::of(Way::Ssh(ssh?))),
            Some(Ok(ServerKey::Id(_)) | Err(TargetError::Id(_))) => {
                Ok(Self::of(Way::Direct(Direct::parse(bytes)?)))
            }
            Some(Ok(ServerKey::Name(name))) => {
                let direct = Direct::parse(bytes);
                Ok(Self::of(Way::Either { name, direct, ssh: ssh? }))
            }
            Some(Err(_)) | None => Ok(Self::of(Way::Ssh(ssh?))),
        }
    }
}

impl Direct {
    fn parse(bytes: &[u8]) -> Result<Self, TargetError> {
        let (authority, path) = split_at_byte(bytes, b'/').unwrap_or((bytes, b""));
        let authority = str::from_utf8(authority).map_err(|_| TargetError::Unknown)?;
        let (server, at) = match authority.split_once('@') {
            Some((server, at)) => (ServerKey::parse(server)?, Some(at.parse()?)),
            None => (ServerKey::Name(authority.parse().map_err(|_| TargetError::Unknown)?), None),
        };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if !path.is_empty() {
            RelPath::parse(path).map_err(TargetError::Path)?;
        }
        Ok(Self { server, at, path: path.to_vec(), secret: None })
    }
}

impl From<Direct> for Target {
    fn from(direct: Direct) -> Self {
        Self::of(Way::Direct(direct))
    }
}

impl ServerKey {
    fn parse(text: &str) -> Result<Self, TargetError> {
        // No name begins like an id, so a mistyped id is reported as that and not looked up as a name.
        match text.get(..3) {
            Some(start) if start.eq_ignore_ascii_case("sl1") => Ok(Self::Id(text.parse()?)),
            _ => Ok(Self::Name(text.parse()?)),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(Self::parse(text.as_bytes())?)
    }
}

impl TryFrom<&str> for Target {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Target {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Ticket> for Target {
    fn from(ticket: Ticket) -> Self {
        Self::from(&ticket)
    }
}

impl From<&Ticket> for Target {
    fn from(ticket: &Ticket) -> Self {
        Self::from(Direct {
            server: ServerKey::Id(ticket.server()),
            at: Some(ticket.at().clone()),
            path: ticket.path().to_vec(),
            secret: Some(ticket.secret().clone()),
        })
    }
}

impl From<(PeerId, SocketAddr)> for Target {
    fn from((id, addr): (PeerId, SocketAddr)) -> Self {
        let at = HostPort { host: addr.ip().into(), port: addr.port() };
        Self::from(Direct { server: ServerKey::Id(id), at: Some(at.into()), path: Vec::new(), secret: None })
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

/// `path` below `base`, where either may be empty. One `/` at the end is ignored.
pub(crate) fn join(base: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path.is_empty() {
        return Ok(base.to_vec());
    }
    RelPath::parse(path).map_err(TargetError::Path)?;
    Ok(if base.is_empty() { path.to_vec() } else { [base, b"/", path].concat() })
}

fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&other| other == byte)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

const SCHEME: &[u8] = b"shiplane:";

const SSH_SCHEME: &[u8] = b"ssh://";

#[cfg(test)]
mod tests {
    use shiplane_access::internals::AddressError;

    use super::*;

    fn parse(text: &str) -> Result<Target, TargetError> {
        Target::parse(text.as_bytes())
    }

    #[test]
    fn tickets_ids_and_names_are_told_apart() {
        let id = PeerId::from_bytes([7; 32]);
        let ticket = format!("shiplane://{id}@h:1/a#MDEyMzQ1Njc4OWFiY2RlZg");
        assert_eq!(parse(&ticket), Ok(ticket.parse::<Ticket>().unwrap().into()));
        let at: Addresses = "[::1]:7".parse().unwrap();
        let direct =
            |server, path: &[u8]| Direct { server, at: Some(at.clone()), path: path.to_vec(), secret: None };
        let known = |server, path: &[u8]| Ok(Target::from(direct(server, path)));
        assert_eq!(parse(&format!("{id}@[::1]:7")), known(ServerKey::Id(id), b""));
        assert_eq!(parse(&format!("{id}@[::1]:7/")), known(ServerKey::Id(id), b""));
        let peer = (id, "[::1]:7".parse::<SocketAddr>().unwrap());
        assert_eq!(known(ServerKey::Id(id), b""), Ok(peer.into()));
        let name = ServerKey::Name("nas".parse().unwrap());
        let by_name = Direct { server: name, at: None, path: b"photos/a@b".to_vec(), secret: None };
        assert_eq!(parse("nas/photos/a@b/"), Ok(by_name.into()));
    }

    #[test]
    fn a_name_before_an_address_may_be_a_user_of_ssh() {
        let name: PeerName = "nas".parse().unwrap();
        let ssh = |text: &str| SshAddress::parse(text.as_bytes()).unwrap().unwrap();
        let text = "nas@[::1]:7/a b%20@c/";
        let at = Some("[::1]:7".parse().unwrap());
        let direct =
            Direct { server: ServerKey::Name(name.clone()), at, path: b"a b%20@c".to_vec(), secret: None };
        let either = Way::Either { name: name.clone(), direct: Ok(direct), ssh: ssh(text) };
        assert_eq!(parse(text).unwrap().way, either);
        assert_eq!(parse(text).unwrap().path(), b"a b%20@c");
        let text = "nas@host:photos";
        let direct = Err(TargetError::Address(AddressError::PortMalformed));
        assert_eq!(parse(text).unwrap().way, Way::Either { name, direct, ssh: ssh(text) });
        assert_eq!(parse(text).unwrap().path(), b"photos");
        for text in ["host:photos", "a b@c@host:", "ssh://nas@h:1/x", "[::1]:x"] {
            let parsed = parse(text);
            match SshAddress::parse(text.as_bytes()).unwrap() {
                Ok(ssh) => assert_eq!(parsed.unwrap().way, Way::Ssh(ssh), "{text}"),
                Err(error) => assert_eq!(parsed, Err(TargetError::Ssh(error)), "{text}"),
            }
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let id = PeerId::from_bytes([7; 32]).to_string();
        assert_eq!(parse(""), Err(TargetError::Unknown));
        assert_eq!(parse("./dir"), Err(TargetError::Unknown));
        assert_eq!(parse("/some/dir"), Err(TargetError::Unknown));
        assert!(matches!(parse(&format!("{}@h:1", &id[..50])), Err(TargetError::Id(_))));
        assert!(matches!(parse("@h"), Err(TargetError::Name(_))));
        assert!(matches!(parse("@h:1"), Err(TargetError::Ssh(_))));
        assert!(matches!(parse(&format!("{id}@h:")), Err(TargetError::Address(AddressError::PortMissing))));
        assert!(matches!(parse("nas@h/../x"), Err(TargetError::Path(_))));
        assert!(matches!(parse("nas@h//x"), Err(TargetError::Path(_))));
        assert!(matches!(parse("-oProxyCommand=x:y"), Err(TargetError::Ssh(_))));
        assert!(matches!(parse("shiplane://x"), Err(TargetError::Ticket(_))));
        assert!(matches!(parse("shiplane:sl1"), Err(TargetError::Ticket(_))));
    }

    #[test]
    fn a_target_is_not_taken_for_a_local_path() {
        for meant in
            ["shiplane://", "nas@h:1", "nas@h:1/a", "sl1x@", "h:x", "h:", "ssh://", "-o:x", "[::1]:x"]
        {
            assert!(Target::is_meant(OsStr::new(meant)), "{meant}");
        }
        for other in ["", ".", "-", "out", "./a@b", "/a@b", "dir/a@b", "./a:b", "C:\\x", "dir/a:b"] {
            assert!(!Target::is_meant(OsStr::new(other)), "{other}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_may_be_any_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let target = Target::from_os_str(OsStr::from_bytes(b"nas@h:1/\xff\xfe")).unwrap();
        assert_eq!(target.path(), b"\xff\xfe");
        assert_eq!(Target::parse(b"na\xffs@h"), Err(TargetError::Unknown));
        assert!(matches!(Target::parse(b"na\xffs@h:1"), Err(TargetError::Ssh(_))));
    }

    #[test]
    fn no_error_repeats_a_secret() {
        let id = PeerId::from_bytes([7; 32]);
        for text in ["", "x", "@", "%", "\u{1b}", "a/../b", &format!("{id}@h:1/%"), &format!("{id}@h:0/")] {
            let error = parse(&format!("shiplane://{text}#SECRETSECRET")).unwrap_err();
            assert!(!error.to_string().contains("SECRETSECRET"), "{error}");
        }
    }

    #[test]
    fn paths_are_joined_below_the_base_and_cannot_leave_it() {
        assert_eq!(join(b"", b"a/b/").unwrap(), b"a/b");
        assert_eq!(join(b"base", b"").unwrap(), b"base");
        assert_eq!(join(b"base", b"a").unwrap(), b"base/a");
        for refused in [&b".."[..], b"/a", b"a/../..", b"a//b"] {
            assert!(join(b"base", refused).is_err());
        }
    }
}
