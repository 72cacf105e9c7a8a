//! Parses `HOST:PORT`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A host: a DNS name or an IP address, known to be well formed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name still to be resolved; letters, digits, `-`, `_` and `.` only.
    Name(HostName),
    /// An address, as it stands.
    Ip(IpAddr),
}

/// A syntactically valid DNS name of at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName(Box<str>);

/// Where servers listen unless they are told otherwise: free of any registration at IANA, and easily remembered.
pub const DEFAULT_PORT: u16 = 7514;

/// A host and a port other than 0. As text it may lack the port, which is [`DEFAULT_PORT`] then. Its text form puts an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The name or address to dial.
    pub host: Host,
    /// The UDP port; never 0 when it was parsed.
    pub port: u16,
}

/// Why a text is no `HOST:PORT`. All variants are the typist's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing stands where the host should.
    #[error("the host is missing")]
    HostMissing,
    /// Neither a name nor an address.
    #[error("the host is not a valid name or IP address")]
    HostMalformed,
    /// An IPv6 address without `[` and `]`, so that its end cannot be told from the port.
    #[error("write an IPv6 address in brackets, e.g. [::1]:7514")]
    BracketsMissing,
    /// A colon at the end, or something that is no port behind the brackets.
    #[error("the port is missing; write e.g. host:7514, or host alone")]
    PortMissing,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    PortMalformed,
}

impl HostName {
    /// The name as typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = AddressError;

    /// Accepts an IPv6 address with or without brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::HostMissing);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inside) = bare {
            return Ipv6Addr::from_str(inside)
                .map(|ip| Self::Ip(ip.into()))
                .map_err(|_| AddressError::HostMalformed);
        }
        if let Ok(ip) = IpAddr::from_str(text) {
            return Ok(Self::Ip(ip));
        }
        is_name(text).then(|| Self::Name(HostName(text.into()))).ok_or(AddressError::HostMalformed)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl From<Ipv4Addr> for Host {
    fn from(ip: Ipv4Addr) -> Self {
        Self::Ip(ip.into())
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, rest) = match text.rfind(']') {
            Some(end) if text.starts_with('[') => text.split_at(end + 1),
            _ => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(AddressError::BracketsMissing);
                }
                _ => text.split_at(text.find(':').unwrap_or(text.len())),
            },
        };
        // The host first: a text that is no address at all should not be told about its port.
        let host = Host::from_str(host)?;
        let port = match rest {
            "" => DEFAULT_PORT,
            rest => parse_port(rest.strip_prefix(':').ok_or(AddressError::PortMissing)?)?,
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// For the fuzzer: what is read is written so that it reads the same.
pub fn fuzz_address(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(at) = text.parse::<HostPort>() {
        assert_eq!(at.to_string().parse().as_ref(), Ok(&at));
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    if text.is_empty() {
        return Err(AddressError::PortMissing);
    }
    // `u16::from_str` would take a leading `+`.
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits_only && port != 0 => Ok(port),
        _ => Err(AddressError::PortMalformed),
    }
}

fn is_name(text: &str) -> bool {
    let well_formed = text.len() <= MAX_NAME_LEN_BYTES
        && text.strip_suffix('.').unwrap_or(text).split('.').all(|label| {
            (1..=MAX_LABEL_LEN_BYTES).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    // "10.0.0" or "300.1.1.1" is a mistyped address, not a name that anybody could register.
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    well_formed && !only_digits
}

/// The longest name DNS can carry (RFC 1035).
const MAX_NAME_LEN_BYTES: usize = 253;

/// The longest label of a DNS name (RFC 1035).
const MAX_LABEL_LEN_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostPort, AddressError> {
        text.parse()
    }

    #[test]
    fn names_and_both_kinds_of_address_are_told_apart() {
        let name = parse("files.example_1.org:7514").unwrap();
        assert!(matches!(name.host, Host::Name(_)));
        assert_eq!(name.port, 7514);
        assert_eq!(parse("10.0.0.5:1").unwrap().host, Host::Ip(Ipv4Addr::new(10, 0, 0, 5).into()));
        assert_eq!(parse("[::1]:1").unwrap().host, Host::Ip(Ipv6Addr::LOCALHOST.into()));
        for (text, same) in [("nas", "nas:7514"), ("10.0.0.5", "10.0.0.5:7514"), ("[::1]", "[::1]:7514")] {
            assert_eq!(parse(text), parse(same));
        }
        for text in ["files.example.org:7514", "10.0.0.5:1", "[fe80::1]:65535"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_is_named() {
        use AddressError as E;
        for (text, error) in [
            ("", E::HostMissing),
            (":1", E::HostMissing),
            ("host:", E::PortMissing),
            ("host:0", E::PortMalformed),
            ("host:+1", E::PortMalformed),
            ("host:65536", E::PortMalformed),
            ("host:http", E::PortMalformed),
            ("::1:7514", E::BracketsMissing),
            ("[::1]7514", E::PortMissing),
            ("[10.0.0.1]:1", E::HostMalformed),
            ("300.1.1.1:1", E::HostMalformed),
            ("two words:1", E::HostMalformed),
            ("a..b:1", E::HostMalformed),
            ("-a:1", E::HostMalformed),
            ("\u{1b}[2J:1", E::HostMalformed),
            ("höst:1", E::HostMalformed),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_253_bytes() {
        let label = "a".repeat(63);
        let longest = [label.as_str(); 4].join(".")[..253].to_owned();
        assert!(longest.parse::<Host>().is_ok());
        assert_eq!(format!("{longest}a").parse::<Host>(), Err(AddressError::HostMalformed));
        assert_eq!("a".repeat(64).parse::<Host>(), Err(AddressError::HostMalformed));
    }
}
