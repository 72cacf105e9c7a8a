//! Chooses the addresses in tickets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use shiplane_access::internals::{AddressError, Addresses, Host, HostPort};

use crate::error::{Cause, Error};

/// A host in tickets, and its port if that is not the one that the server listens on.
#[derive(Debug, Clone)]
pub(super) struct Advertised(Host, Option<u16>);

impl Advertised {
    /// Parses `HOST` or `HOST:PORT`.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        match text.parse::<Host>() {
            Ok(host) => Ok(Self(host, None)),
            // The error of an address that is neither is about its host, not its port.
            Err(error) => match text.parse::<HostPort>() {
                Ok(HostPort { host, port }) => Ok(Self(host, Some(port))),
                Err(AddressError::HostMalformed | AddressError::HostMissing) => Err(error),
                Err(error) => Err(error),
            },
        }
    }
}

/// What was typed.
pub(super) fn advertised(named: &[String]) -> Result<Vec<Advertised>, Error> {
    let parsed = named.iter().map(|text| Advertised::parse(text)).collect::<Result<_, _>>();
    Ok(parsed.map_err(Cause::Advertise)?)
}

/// The addresses in the tickets of a server that listens on `bound`: those that are named, or else this machine's.
pub(crate) fn addresses_of(bound: SocketAddr, named: &[String]) -> Result<Addresses, Error> {
    Ok(addresses_for(bound, &advertised(named)?).map_err(Cause::Advertise)?)
}

/// The addresses for the tickets of a server that listens on `bound`: those that its owner names, else that address, or,
/// where it means "all of them", those at which others can probably reach this machine.
pub(super) fn addresses_for(bound: SocketAddr, named: &[Advertised]) -> Result<Addresses, AddressError> {
    let port = bound.port();
    let named =
        named.iter().map(|Advertised(host, own)| HostPort { host: host.clone(), port: own.unwrap_or(port) });
    let mut all: Vec<HostPort> = named.collect();
    if all.is_empty() && !bound.ip().is_unspecified() {
        all.push(HostPort { host: bound.ip().into(), port });
    }
    if all.is_empty() {
        let routes = [by_route(true), bound.is_ipv6().then(|| by_route(false)).flatten()];
        let routes: Vec<IpAddr> = routes.into_iter().flatten().collect();
        let found = choose(bound.is_ipv6(), &routes, &interfaces());
        all.extend(found.into_iter().map(|ip| HostPort { host: ip.into(), port }));
    }
    let mut all = all.into_iter();
    let first = all.next().ok_or(AddressError::HostMissing)?;
    let mut addresses = Addresses::from(first);
    all.try_for_each(|at| addresses.push(at))?;
    Ok(addresses)
}

/// The address that packets to the rest of the world have as their source, as the routes say: not that of a bridge that
/// merely has a lower number. Nothing is sent.
fn by_route(is_ipv4: bool) -> Option<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849), which only a default route leads to.
    let (from, to): (SocketAddr, SocketAddr) = if is_ipv4 {
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into())
    } else {
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into())
    };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

/// An interface that is up, and one of its addresses.
struct Interface {
    name: String,
    ip: IpAddr,
}

/// Those that may lead to other machines. Without the list there are still the routes.
fn interfaces() -> Vec<Interface> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let up = all.into_iter().filter(|interface| interface.is_oper_up() && !is_bridge(&interface.name));
    up.map(|interface| Interface { ip: interface.ip(), name: interface.name }).collect()
}

/// Whether this is a bridge, as of containers and virtual machines. One that leads out of this machine is found by the
/// routes.
fn is_bridge(name: &str) -> bool {
    cfg!(target_os = "linux") && std::path::Path::new("/sys/class/net").join(name).join("bridge").exists()
}

/// The addresses that `routes` name, and one more of each family from every other interface. Where there are none,
/// link-local ones; where there are none of those either, the loopback's.
fn choose(is_dual: bool, routes: &[IpAddr], interfaces: &[Interface]) -> Vec<IpAddr> {
    let listens = |ip: &IpAddr| is_dual || ip.is_ipv4();
    let mut chosen: Vec<IpAddr> =
        routes.iter().copied().filter(|ip| listens(ip) && scope(*ip) == IpScope::Wide).collect();
    let mut served: Vec<(&str, bool)> = Vec::new();
    let of = |ip: &IpAddr| interfaces.iter().find(|interface| interface.ip == *ip);
    served.extend(chosen.iter().filter_map(|ip| Some((of(ip)?.name.as_str(), ip.is_ipv4()))));
    for wanted in [IpScope::Wide, IpScope::Link] {
        for Interface { name, ip } in interfaces.iter().filter(|one| listens(&one.ip)) {
            let family = (name.as_str(), ip.is_ipv4());
            if scope(*ip) == wanted && !served.contains(&family) && chosen.len() < MAX_CHOSEN {
                served.push(family);
                chosen.push(*ip);
            }
        }
        if !chosen.is_empty() {
            return chosen;
        }
    }
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    loopback.into_iter().filter(listens).collect()
}

/// How far away an address is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpScope {
    Wide,
    /// Only where the dialling machine knows the interface, which it has to try.
    Link,
    Machine,
}

fn scope(ip: IpAddr) -> IpScope {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => IpScope::Link,
        // Such an address is of use only to a machine that has one too, and no other.
        IpAddr::V4(ip) if ip.is_link_local() => IpScope::Link,
        ip if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() => IpScope::Machine,
        _ => IpScope::Wide,
    }
}

/// 4: those of the default routes, and two more. A ticket should fit a line or two, and a QR code.
const MAX_CHOSEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(is_dual: bool, routes: &[&str], interfaces: &[(&str, &str)]) -> Vec<String> {
        let ip = |text: &&str| text.parse::<IpAddr>().unwrap();
        let interfaces: Vec<_> =
            interfaces.iter().map(|(name, of)| Interface { name: (*name).to_owned(), ip: ip(of) }).collect();
        let routes: Vec<_> = routes.iter().map(ip).collect();
        choose(is_dual, &routes, &interfaces).iter().map(ToString::to_string).collect()
    }

    fn named(bound: &str, named: &[&str]) -> String {
        let named: Vec<_> = named.iter().map(|text| Advertised::parse(text).unwrap()).collect();
        addresses_for(bound.parse().unwrap(), &named).unwrap().to_string()
    }

    #[test]
    fn an_address_that_was_asked_for_is_the_one() {
        assert_eq!(named("192.0.2.7:1", &[]), "192.0.2.7:1");
        assert_eq!(named("[::1]:1", &[]), "[::1]:1");
        assert_eq!(
            named("[::]:1", &["nas", "192.0.2.7:2", "2001:db8::7"]),
            "nas:1,192.0.2.7:2,[2001:db8::7]:1"
        );
        assert!(matches!(Advertised::parse("nas nas"), Err(AddressError::HostMalformed)));
        assert!(matches!(Advertised::parse("nas:"), Err(AddressError::PortMissing)));
    }

    #[test]
    fn routes_come_before_the_order_of_interfaces() {
        let interfaces = [
            ("lo", "127.0.0.1"),
            ("lan1", "10.0.0.5"),
            ("eth0", "192.0.2.7"),
            ("eth0", "192.0.2.8"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::7"),
            ("eth0", "2001:db8::8"),
        ];
        let routes = ["192.0.2.8", "2001:db8::8"];
        assert_eq!(chosen(true, &routes, &interfaces), ["192.0.2.8", "2001:db8::8", "10.0.0.5"]);
        assert_eq!(chosen(false, &routes, &interfaces), ["192.0.2.8", "10.0.0.5"]);
        assert_eq!(chosen(true, &[], &interfaces), ["10.0.0.5", "192.0.2.7", "2001:db8::7"]);
    }

    #[test]
    fn a_machine_with_ipv6_only_names_no_loopback() {
        assert_eq!(chosen(true, &[], &[("lo", "127.0.0.1"), ("eth0", "2001:db8::7")]), ["2001:db8::7"]);
        assert_eq!(chosen(true, &["2001:db8::7"], &[]), ["2001:db8::7"]);
    }

    #[test]
    fn link_local_addresses_are_named_where_there_are_no_others() {
        let interfaces = [("lo", "::1"), ("eth0", "fe80::1"), ("eth1", "fe80::2"), ("eth1", "169.254.1.1")];
        assert_eq!(chosen(true, &[], &interfaces), ["fe80::1", "fe80::2", "169.254.1.1"]);
        assert_eq!(chosen(false, &[], &interfaces), ["169.254.1.1"]);
    }

    #[test]
    fn only_a_machine_without_a_network_names_its_loopback() {
        assert_eq!(chosen(true, &[], &[("lo", "127.0.0.1")]), ["127.0.0.1", "::1"]);
        assert_eq!(chosen(false, &["2001:db8::7"], &[]), ["127.0.0.1"]);
    }

    #[test]
    fn a_machine_with_many_interfaces_names_four_addresses() {
        let names: Vec<(String, String)> =
            (1..20).map(|n| (format!("eth{n}"), format!("10.0.{n}.1"))).collect();
        let interfaces: Vec<(&str, &str)> =
            names.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).collect();
        let chosen = chosen(true, &["10.0.9.1"], &interfaces);
        assert_eq!(chosen, ["10.0.9.1", "10.0.1.1", "10.0.2.1", "10.0.3.1"]);
    }
}
