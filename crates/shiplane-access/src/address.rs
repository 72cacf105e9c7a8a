//! Parses `HOST:PORT`, and lists of such addresses.

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
    /// A link-local IPv6 address, and the interface of the dialling machine that leads to it.
    Zoned(Ipv6Addr, Zone),
}

/// The name or the number of a network interface, as behind the `%` of `fe80::1%eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zone(Box<str>);

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
    /// A `%` behind an address that is not link-local, or no name of an interface behind it.
    #[error("an interface is given only with a link-local address, e.g. [fe80::1%eth0]:7514")]
    ZoneMalformed,
    /// More addresses than a client would try.
    #[error("there are more than {max} addresses")]
    TooMany {
        /// The most of one server.
        max: usize,
    },
}

/// The addresses of one server: at least one, at most [`MAX_ADDRESSES`], each once, the best first.
///
/// As text they are separated by commas. One that is not the first may lack its port, which is then that of the one
/// before it; an IPv6 address without port needs no brackets: `192.0.2.7:7514,2001:db8::7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Addresses(Vec<HostPort>);

impl HostName {
    /// The name as typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Zone {
    /// The name or number as typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Host {
    /// Whether only programs on the same machine reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Ip(ip) if ip.to_canonical().is_loopback())
    }
}

impl FromStr for Host {
    type Err = AddressError;

    /// Accepts an IPv6 address with or without brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::HostMissing);
        }
        let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some((ip, zone)) = inside.unwrap_or(text).split_once('%') {
            return parse_zoned(ip, zone);
        }
        if let Some(inside) = inside {
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
            Self::Zoned(ip, zone) => write!(f, "[{ip}%{}]", zone.as_str()),
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

impl Addresses {
    /// Each of them, the best first.
    pub fn iter(&self) -> impl Iterator<Item = &HostPort> {
        self.0.iter()
    }

    /// Adds one at the end, unless it is there.
    ///
    /// # Errors
    /// [`AddressError::TooMany`].
    pub fn push(&mut self, at: HostPort) -> Result<(), AddressError> {
        if self.0.contains(&at) {
            return Ok(());
        }
        if self.0.len() == MAX_ADDRESSES {
            return Err(AddressError::TooMany { max: MAX_ADDRESSES });
        }
        self.0.push(at);
        Ok(())
    }
}

impl From<HostPort> for Addresses {
    fn from(at: HostPort) -> Self {
        Self(vec![at])
    }
}

impl FromStr for Addresses {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (first, others) = text.split_once(',').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let first: HostPort = first.parse()?;
        let mut port = first.port;
        let mut addresses = Self::from(first);
        for part in others.into_iter().flat_map(|others| others.split(',')) {
            let at = match Host::from_str(part) {
                Ok(host) => HostPort { host, port },
                Err(_) => HostPort::from_str(part)?,
            };
            port = at.port;
            addresses.push(at)?;
        }
        Ok(addresses)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut port_before = None;
        for HostPort { host, port } in &self.0 {
            match (port_before.replace(*port), host) {
                (None, _) => write!(f, "{host}:{port}")?,
                (Some(before), _) if before != *port => write!(f, ",{host}:{port}")?,
                (Some(_), Host::Ip(ip)) => write!(f, ",{ip}")?,
                (Some(_), Host::Name(_) | Host::Zoned(..)) => write!(f, ",{host}")?,
            }
        }
        Ok(())
    }
}

/// For the fuzzer: what is read is written so that it reads the same.
pub fn fuzz_address(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(at) = text.parse::<HostPort>() {
        assert_eq!(at.to_string().parse().as_ref(), Ok(&at));
    }
    if let Ok(addresses) = text.parse::<Addresses>() {
        assert_eq!(addresses.to_string().parse().as_ref(), Ok(&addresses));
        assert!((1..=MAX_ADDRESSES).contains(&addresses.iter().count()));
    }
}

fn parse_zoned(ip: &str, zone: &str) -> Result<Host, AddressError> {
    let ip = Ipv6Addr::from_str(ip).map_err(|_| AddressError::HostMalformed)?;
    let is_zone = (1..=MAX_ZONE_LEN_BYTES).contains(&zone.len())
        && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !(is_zone && ip.is_unicast_link_local()) {
        return Err(AddressError::ZoneMalformed);
    }
    Ok(Host::Zoned(ip, Zone(zone.into())))
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

/// 8: begun 250 ms apart, the last one is tried within two seconds.
pub const MAX_ADDRESSES: usize = 8;

/// The longest name of an interface on Linux, macOS and the BSDs.
const MAX_ZONE_LEN_BYTES: usize = 15;

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
    fn a_link_local_address_has_a_zone() {
        let at = parse("[fe80::1%eth0.5]:1").unwrap();
        assert!(matches!(&at.host, Host::Zoned(_, zone) if zone.as_str() == "eth0.5"));
        assert_eq!(at.to_string(), "[fe80::1%eth0.5]:1");
        assert_eq!("fe80::1%3".parse::<Host>().unwrap().to_string(), "[fe80::1%3]");
        for text in
            ["[2001:db8::1%eth0]:1", "[fe80::1%]:1", "[fe80::1%a b]:1", "[fe80::1%sixteen-bytes-xx]:1"]
        {
            assert_eq!(parse(text), Err(AddressError::ZoneMalformed), "{text}");
        }
        assert_eq!(parse("[10.0.0.1%eth0]:1"), Err(AddressError::HostMalformed));
    }

    #[test]
    fn several_addresses_share_their_port_and_need_no_brackets() {
        let list = |text: &str| text.parse::<Addresses>();
        for (text, each) in [
            ("nas", &["nas:7514"][..]),
            ("192.0.2.7:1,2001:db8::7,nas", &["192.0.2.7:1", "[2001:db8::7]:1", "nas:1"]),
            ("[::1]:1,h:2,i,[fe80::1%a]", &["[::1]:1", "h:2", "i:2", "[fe80::1%a]:2"]),
        ] {
            let list = list(text).unwrap();
            let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
            assert_eq!(shown, each, "{text}");
            assert_eq!(list.to_string().parse(), Ok(list));
        }
        assert_eq!(list("h:1,h:1,h").unwrap().to_string(), "h:1", "each once");
        assert_eq!(list("192.0.2.7:1,[2001:db8::7]:1").unwrap().to_string(), "192.0.2.7:1,2001:db8::7");
        assert_eq!(list("::1,h"), Err(AddressError::BracketsMissing));
        assert_eq!(list("h,,i"), Err(AddressError::HostMissing));
        assert_eq!(list(""), Err(AddressError::HostMissing));
    }

    #[test]
    fn more_than_eight_addresses_are_refused() {
        let text = |n| (1..=n).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(text(8).parse::<Addresses>().unwrap().iter().count(), 8);
        assert_eq!(text(9).parse::<Addresses>(), Err(AddressError::TooMany { max: 8 }));
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
