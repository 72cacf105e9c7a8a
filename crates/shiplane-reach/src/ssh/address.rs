//! `[USER@]HOST:PATH` and `ssh://[USER@]HOST[:PORT]/PATH`.

use std::{fmt, net::Ipv6Addr};

use thiserror::Error;

/// Where `ssh` is to lead, and a path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    user: Option<String>,
    /// An IPv6 address has no brackets here.
    host: String,
    port: Option<u16>,
    path: Vec<u8>,
}

/// Why a text that looks like an address for ssh is none. It could be taken for an option, or by a shell for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SshAddressError {
    /// Nothing is before the path.
    #[error("there is no host")]
    HostMissing,
    /// A host that begins with a hyphen, or with a byte that no host has.
    #[error("invalid host name")]
    HostMalformed,
    /// An IPv6 address ends where its path begins.
    #[error("an IPv6 address must be in brackets: [2001:db8::1]:PATH")]
    BracketsMissing,
    /// A URL of another kind, or a kind that is misspelt.
    #[error("a URL begins with shiplane:// or ssh://")]
    SchemeUnknown,
    /// A user that begins with a hyphen, or with a byte that no user name has.
    #[error("invalid user name")]
    UserMalformed,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    PortMalformed,
    /// A path is any bytes but NUL.
    #[error("a path has no NUL in it, and at most {MAX_PATH_LEN_BYTES} bytes")]
    PathMalformed,
    /// A broken `%` escape in a URL.
    #[error("there is a % in the URL without two hexadecimal digits after it")]
    EscapeMalformed,
}

impl SshAddress {
    /// Parses what was typed. `None` if its form is another: a colon after the first slash, or none at all; a drive of
    /// Windows.
    ///
    /// # Errors
    /// [`SshAddressError`] if it is meant for ssh and must not be given to it.
    pub fn parse(typed: &[u8]) -> Option<Result<Self, SshAddressError>> {
        if let Some(rest) = typed.strip_prefix(SCHEME) {
            return Some(Self::of_url(rest));
        }
        let colon = colon_of(typed)?;
        let (authority, path) = (&typed[..colon], &typed[colon + 1..]);
        if is_drive(authority, path) {
            return None;
        }
        if path.starts_with(b"//") && !authority.contains(&b'@') {
            return Some(Err(SshAddressError::SchemeUnknown));
        }
        if is_ipv6_without_brackets(typed) {
            return Some(Err(SshAddressError::BracketsMissing));
        }
        let authority = str::from_utf8(authority).map_err(|_| SshAddressError::HostMalformed);
        Some(authority.and_then(|authority| Self::of_parts(authority, None, path.to_vec())))
    }

    /// The host, as the user names it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if it is not the one that ssh would choose.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Relative to the home directory of the user there, unless it begins with a slash.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// `[USER@]HOST`, as an argument of `ssh`.
    #[must_use]
    pub fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }

    fn of_url(rest: &[u8]) -> Result<Self, SshAddressError> {
        let slash = rest.iter().position(|byte| *byte == b'/');
        let (authority, path) = slash.map_or((rest, &b""[..]), |slash| rest.split_at(slash));
        let path = unescaped(path)?;
        let path = match path.strip_prefix(b"/~") {
            Some(b"" | [b'/', ..]) => path[1..].to_vec(),
            _ => path,
        };
        let authority = str::from_utf8(authority).map_err(|_| SshAddressError::HostMalformed)?;
        // The colon before a port is behind the brackets of an address.
        let host_end = authority.rfind(['@', ']']).map_or(0, |at| at + 1);
        let (authority, port) = match authority[host_end..].find(':') {
            Some(colon) => {
                let (authority, port) = authority.split_at(host_end + colon);
                (authority, Some(port_of(&port[1..])?))
            }
            None => (authority, None),
        };
        let authority = String::from_utf8(unescaped(authority.as_bytes())?)
            .map_err(|_| SshAddressError::HostMalformed)?;
        Self::of_parts(&authority, port, path)
    }

    fn of_parts(authority: &str, port: Option<u16>, path: Vec<u8>) -> Result<Self, SshAddressError> {
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if !is_ipv6(inner) => return Err(SshAddressError::HostMalformed),
            Some(inner) => inner,
            None if host.is_empty() => return Err(SshAddressError::HostMissing),
            None if is_safe(host) && !host.contains(['\\', '[', ']', ':']) => host,
            None => return Err(SshAddressError::HostMalformed),
        };
        if user.is_some_and(|user| !is_safe(user) || user.ends_with('\\')) {
            return Err(SshAddressError::UserMalformed);
        }
        if path.contains(&0) || path.len() > MAX_PATH_LEN_BYTES {
            return Err(SshAddressError::PathMalformed);
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port, path })
    }
}

impl fmt::Display for SshAddress {
    /// Without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.destination())?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// The colon that ends the host: the first one outside of brackets, unless there is a slash before it.
fn colon_of(typed: &[u8]) -> Option<usize> {
    let is_bracketed = typed.first() == Some(&b'[') || typed.windows(2).any(|pair| pair == b"@[");
    let mut depth = 0_usize;
    for (at, byte) in typed.iter().enumerate() {
        match byte {
            b'/' => return None,
            b'[' if is_bracketed => depth += 1,
            b']' if is_bracketed => depth = depth.saturating_sub(1),
            // As with scp, a path may begin with a colon.
            b':' if at == 0 => return None,
            b':' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// `C:\x`, and where there are drives all else that begins with one letter and a colon.
fn is_drive(authority: &[u8], path: &[u8]) -> bool {
    matches!(authority, [letter] if letter.is_ascii_alphabetic())
        && (cfg!(windows) || path.starts_with(b"\\"))
}

/// Whether all before some colon is one: it would be cut at its first colon, and a piece of it looked up.
fn is_ipv6_without_brackets(typed: &[u8]) -> bool {
    let end = typed.iter().position(|byte| *byte == b'/').unwrap_or(typed.len());
    let start = typed[..end].iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let text = &typed[start..end];
    let ends =
        text.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).chain([text.len()]);
    ends.filter_map(|end| str::from_utf8(&text[..end]).ok()).any(is_ipv6)
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let is_zone = |zone: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !zone.is_empty() && zone.bytes().all(is_plain)
    };
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

/// Neither an option nor anything that a shell would take apart: a `ProxyCommand` may contain it. As OpenSSH 9.6 has it.
fn is_safe(name: &str) -> bool {
    let is_special = |symbol: char| {
        symbol.is_control() || symbol.is_whitespace() || "'`\"$;&<>|(){}*?!#~^/".contains(symbol)
    };
    !name.is_empty()
        && name.len() <= MAX_NAME_LEN_BYTES
        && !name.starts_with('-')
        && !name.contains(is_special)
}

fn port_of(text: &str) -> Result<u16, SshAddressError> {
    // `u16::from_str` would take a leading `+`.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0).ok_or(SshAddressError::PortMalformed)
}

fn unescaped(text: &[u8]) -> Result<Vec<u8>, SshAddressError> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let byte = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                    return Err(SshAddressError::EscapeMalformed);
                };
                rest = after;
                u8::try_from(high * 16 + low).map_err(|_| SshAddressError::EscapeMalformed)?
            }
            (b'%', _) => return Err(SshAddressError::EscapeMalformed),
            (byte, _) => *byte,
        };
        bytes.push(byte);
    }
    Ok(bytes)
}

/// For the fuzzer: whatever is given to ssh is one word that is no option.
pub fn fuzz_ssh_address(data: &[u8]) {
    if let Some(Ok(address)) = SshAddress::parse(data) {
        let destination = address.destination();
        assert!(!destination.starts_with('-') && !address.host().starts_with('-'), "{destination}");
        assert!(!destination.contains(|symbol: char| symbol.is_control() || symbol.is_whitespace()));
        assert!(!address.path().contains(&0));
    }
}

const SCHEME: &[u8] = b"ssh://";

/// 255 bytes: the longest name that DNS has, and more than any alias.
const MAX_NAME_LEN_BYTES: usize = 255;

/// 16 KiB: four times what Linux takes.
const MAX_PATH_LEN_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<Result<SshAddress, SshAddressError>> {
        SshAddress::parse(text.as_bytes())
    }

    fn parts(text: &str) -> (String, Option<u16>, String) {
        let address = parse(text).expect("meant for ssh").expect("well formed");
        (address.destination(), address.port, String::from_utf8(address.path).unwrap())
    }

    #[test]
    fn host_and_path_are_split_as_with_scp() {
        for (text, destination, path) in [
            ("nas:", "nas", ""),
            ("nas:photos", "nas", "photos"),
            ("nas:/srv/a b:c", "nas", "/srv/a b:c"),
            ("me@nas:~/x", "me@nas", "~/x"),
            ("me@corp.example@nas:x", "me@corp.example@nas", "x"),
            ("CORP\\me@nas:x", "CORP\\me@nas", "x"),
            ("n:x", "n", "x"),
            ("10.0.0.5:7514/x", "10.0.0.5", "7514/x"),
            ("[::1]:x", "::1", "x"),
            ("root@[2001:db8::3:0]:data/", "root@2001:db8::3:0", "data/"),
            ("[fe80::1%eth0]:x", "fe80::1%eth0", "x"),
            ("me@[fe80::1%3]:", "me@fe80::1%3", ""),
            ("nas:a$b'c\"d\ne", "nas", "a$b'c\"d\ne"),
        ] {
            assert_eq!(parts(text), (destination.to_owned(), None, path.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_url_has_a_port_and_an_absolute_path() {
        for (text, destination, port, path) in [
            ("ssh://nas/srv/x", "nas", None, "/srv/x"),
            ("ssh://me@nas:2222/srv/a%20b", "me@nas", Some(2222), "/srv/a b"),
            ("ssh://me@[fe80::1%25eth0]:22/~/x", "me@fe80::1%eth0", Some(22), "~/x"),
            ("ssh://nas/~", "nas", None, "~"),
            ("ssh://nas/~other/x", "nas", None, "/~other/x"),
            ("ssh://nas", "nas", None, ""),
            ("ssh://nas/", "nas", None, "/"),
        ] {
            assert_eq!(parts(text), (destination.to_owned(), port, path.to_owned()), "{text}");
        }
    }

    #[test]
    fn paths_are_not_hosts() {
        for text in
            ["", "x", "./a:b", "a/b:c", "/a:b", ":x", "C:\\x", "c:\\", "-", "shiplane", "a@b", "a@b/c:d"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("C:/x").is_none(), cfg!(windows));
        assert_eq!(SshAddress::parse(b"\xff/x:y"), None);
    }

    #[test]
    fn addresses_that_could_be_an_option_or_a_command_are_refused() {
        use SshAddressError as E;
        for (text, error) in [
            ("-oProxyCommand=x:y", E::HostMalformed),
            ("me@-oProxyCommand=x:y", E::HostMalformed),
            ("-lroot@nas:x", E::UserMalformed),
            ("ssh://-oProxyCommand=x/y", E::HostMalformed),
            ("ssh://%2doProxyCommand=x/y", E::HostMalformed),
            ("ssh://-l@nas/y", E::UserMalformed),
            ("ssh://nas%0a/x", E::HostMalformed),
            ("two words:x", E::HostMalformed),
            ("a b@nas:x", E::UserMalformed),
            ("na\u{1b}[2Js:x", E::HostMalformed),
            ("na\ns:x", E::HostMalformed),
            ("$(reboot):x", E::HostMalformed),
            ("`x`@nas:x", E::UserMalformed),
            ("shiplan://sl1qyqszqg@nas", E::SchemeUnknown),
            ("https://nas/x", E::SchemeUnknown),
            ("me\\@nas:x", E::UserMalformed),
            ("@nas:x", E::UserMalformed),
            ("me@:x", E::HostMissing),
            ("ssh:///x", E::HostMissing),
            ("[nas]:x", E::HostMalformed),
            ("[fe80::1%a b]:x", E::HostMalformed),
            ("2001:db8::3:0:data", E::BracketsMissing),
            ("::1:x", E::BracketsMissing),
            ("me@::1:x", E::BracketsMissing),
            ("ssh://nas:0/x", E::PortMalformed),
            ("ssh://nas:+1/x", E::PortMalformed),
            ("ssh://nas:/x", E::PortMalformed),
            ("ssh://nas/%zz", E::EscapeMalformed),
            ("ssh://nas/%0", E::EscapeMalformed),
            ("ssh://nas/%00", E::PathMalformed),
            ("nas:a\0b", E::PathMalformed),
        ] {
            let parsed = parse(text);
            if text == "::1:x" {
                // As with scp, it begins with a colon and so is a path.
                assert_eq!(parsed, None);
                continue;
            }
            assert_eq!(parsed, Some(Err(error)), "{text:?}");
        }
        assert_eq!(parse(&format!("{}:x", "a".repeat(256))), Some(Err(E::HostMalformed)));
        assert_eq!(parse(&format!("nas:{}", "a".repeat(20_000))), Some(Err(E::PathMalformed)));
    }

    proptest! {
        #[test]
        fn whatever_is_given_to_ssh_is_one_word_and_no_option(text in "(ssh://)?[-a-z@:\\[\\]%/ $'\\\\\n0-9]{0,24}") {
            fuzz_ssh_address(text.as_bytes());
        }
    }
}
