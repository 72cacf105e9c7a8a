//! Chooses the address in tickets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use shiplane_access::internals::Host;

/// The host for the ticket of a server that listens on `bound`: that address, or, where it means
/// "all of them", one at which others can probably reach this machine.
pub(crate) fn host_for(bound: SocketAddr) -> Host {
    if !bound.ip().is_unspecified() {
        return bound.ip().into();
    }
    if let Some(ip) = by_route(bound.is_ipv4()) {
        return ip.into();
    }
    // Without the list there is still one address at which this machine reaches itself.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let up = interfaces.iter().filter(|interface| interface.is_oper_up());
    choose(bound, up.map(if_addrs::Interface::ip)).into()
}

/// The address that packets to the rest of the world have as their source, as the routes say: not that of a bridge that
/// merely has a lower number. Nothing is sent.
fn by_route(is_ipv4: bool) -> Option<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849), which only a default route leads to.
    let ipv4: (SocketAddr, SocketAddr) =
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let ipv6: (SocketAddr, SocketAddr) =
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into());
    // A socket for all of IPv6 takes IPv4 too.
    let families = if is_ipv4 { &[ipv4][..] } else { &[ipv6, ipv4] };
    families.iter().find_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| is_reachable(*ip))
    })
}

/// The first address that is neither loopback nor link-local (such a one needs an interface's name
/// with it); among those, one of the family that was bound.
fn choose(bound: SocketAddr, interfaces: impl Iterator<Item = IpAddr>) -> IpAddr {
    let usable: Vec<IpAddr> = interfaces.filter(|&ip| is_reachable(ip)).collect();
    let same_family = usable.iter().find(|ip| ip.is_ipv4() == bound.is_ipv4());
    // A socket for all of IPv6 takes IPv4 too on the systems we run on; not the other way round.
    let other = usable.first().filter(|_| bound.is_ipv6());
    same_family.or(other).copied().unwrap_or(match bound {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    })
}

fn is_reachable(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || is_link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(bound: &str, interfaces: &[&str]) -> String {
        let interfaces = interfaces.iter().map(|ip| ip.parse().unwrap());
        choose(bound.parse().unwrap(), interfaces).to_string()
    }

    #[test]
    fn an_address_that_was_asked_for_is_the_one() {
        let host = host_for("192.0.2.7:1".parse().unwrap());
        assert_eq!(host.to_string(), "192.0.2.7");
        assert_eq!(host_for("[::1]:1".parse().unwrap()).to_string(), "[::1]");
    }

    #[test]
    fn of_all_addresses_the_first_that_others_can_reach() {
        let interfaces = ["127.0.0.1", "169.254.1.1", "fe80::1", "2001:db8::1", "10.0.0.5", "10.0.0.6"];
        assert_eq!(chosen("0.0.0.0:1", &interfaces), "10.0.0.5");
        assert_eq!(chosen("[::]:1", &interfaces), "2001:db8::1");
        assert_eq!(chosen("[::]:1", &["::1", "10.0.0.5"]), "10.0.0.5");
        assert_eq!(chosen("0.0.0.0:1", &["2001:db8::1"]), "127.0.0.1");
        assert_eq!(chosen("0.0.0.0:1", &["127.0.0.1"]), "127.0.0.1");
        assert_eq!(chosen("[::]:1", &[]), "::1");
    }
}
