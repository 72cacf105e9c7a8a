//! Whether a peer is on this machine. Its datagrams then pass no network, and may be longer than any network's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locality {
    Elsewhere,
    ThisMachine,
}

impl Locality {
    /// Of a peer at an address that reaches us, or is reached from us, at an address of ours, if that is known.
    pub(crate) fn of(peer: IpAddr, ours: Option<IpAddr>) -> Self {
        let peer = peer.to_canonical();
        if peer.is_loopback() || ours.is_some_and(|ours| ours.to_canonical() == peer) {
            Self::ThisMachine
        } else {
            Self::Elsewhere
        }
    }
}

/// One for peers elsewhere, one for those on this machine.
#[derive(Debug)]
pub(crate) struct ByLocality<T> {
    elsewhere: T,
    this_machine: T,
}

impl<T> ByLocality<T> {
    pub(crate) fn new(make: impl Fn(Locality) -> T) -> Self {
        Self { elsewhere: make(Locality::Elsewhere), this_machine: make(Locality::ThisMachine) }
    }

    pub(crate) fn map<U>(&self, make: impl Fn(&T) -> U) -> ByLocality<U> {
        ByLocality { elsewhere: make(&self.elsewhere), this_machine: make(&self.this_machine) }
    }

    pub(crate) fn of(&self, locality: Locality) -> &T {
        match locality {
            Locality::Elsewhere => &self.elsewhere,
            Locality::ThisMachine => &self.this_machine,
        }
    }
}

/// The address from which the system would send to a peer. No packet leaves for that.
pub(crate) fn source_of(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_with_an_address_of_ours_is_on_this_machine() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (peer, ours, there) in [
            ("127.0.0.1", None, Locality::ThisMachine),
            ("127.8.8.8", Some("192.0.2.1"), Locality::ThisMachine),
            ("::1", None, Locality::ThisMachine),
            ("::ffff:127.0.0.1", None, Locality::ThisMachine),
            ("192.0.2.1", Some("192.0.2.1"), Locality::ThisMachine),
            ("192.0.2.1", Some("::ffff:192.0.2.1"), Locality::ThisMachine),
            ("192.0.2.1", Some("192.0.2.2"), Locality::Elsewhere),
            ("192.0.2.1", None, Locality::Elsewhere),
            ("2001:db8::1", Some("::1"), Locality::Elsewhere),
        ] {
            assert_eq!(Locality::of(ip(peer), ours.map(ip)), there, "{peer} {ours:?}");
        }
    }

    #[test]
    fn the_system_says_from_where_it_would_send() {
        let here: SocketAddr = ([127, 0, 0, 1], 9).into();
        assert_eq!(source_of(here), Some(here.ip()));
    }
}
