//! Chooses which announced addresses are dialled, and in which order. Announcements are not trusted.

use std::net::{IpAddr, SocketAddr};

/// An address range of one of this machine's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnSubnet {
    ip: IpAddr,
    prefix_len: u8,
}

/// The addresses that are dialled for one name, at most [`MAX_CANDIDATES`] at a time. Those of our own subnets come
/// first. The place of a dead one can be used again.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    waiting: Vec<(Rank, SocketAddr)>,
    seen: Vec<SocketAddr>,
    dialled: usize,
}

/// Lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    OwnSubnet,
    OnLink,
    Elsewhere,
    /// It has not answered before.
    Again,
}

impl OwnSubnet {
    /// Those of the interfaces that are up, loopback left out.
    pub(crate) fn all() -> Vec<Self> {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let up = interfaces.iter().filter(|interface| interface.is_oper_up() && !interface.is_loopback());
        up.map(|interface| match &interface.addr {
            if_addrs::IfAddr::V4(v4) => Self { ip: v4.ip.into(), prefix_len: v4.prefixlen },
            if_addrs::IfAddr::V6(v6) => Self { ip: v6.ip.into(), prefix_len: v6.prefixlen },
        })
        .collect()
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub(self.prefix_len.into());
                shift >= 32 || (own.to_bits() >> shift) == (ip.to_bits() >> shift)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub(self.prefix_len.into());
                shift >= 128 || (own.to_bits() >> shift) == (ip.to_bits() >> shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Candidates {
    /// Takes an address that was announced on this link, if it may be dialled and was not seen before.
    pub(crate) fn add(&mut self, addr: SocketAddr, own: &[OwnSubnet]) {
        let Some(rank) = rank(addr, own) else { return };
        if self.seen.contains(&addr) || self.seen.len() >= MAX_SEEN {
            return;
        }
        self.seen.push(addr);
        self.wait(rank, addr);
    }

    /// The same for an address of this link alone.
    pub(crate) fn add_near(&mut self, addr: SocketAddr, own: &[OwnSubnet]) {
        if matches!(rank(addr, own), Some(Rank::OwnSubnet | Rank::OnLink)) {
            self.add(addr, own);
        }
    }

    /// An address that was dialled and has not answered is dialled again, after all others.
    pub(crate) fn retry(&mut self, addr: SocketAddr) {
        self.wait(Rank::Again, addr);
    }

    /// Addresses that were seen before count as new from now on.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.seen.clear();
    }

    fn wait(&mut self, rank: Rank, addr: SocketAddr) {
        let at = self.waiting.partition_point(|(other, _)| *other <= rank);
        self.waiting.insert(at, (rank, addr));
    }

    /// The next address to dial, if there is a place for it.
    pub(crate) fn next(&mut self) -> Option<SocketAddr> {
        if self.waiting.is_empty() || self.dialled >= MAX_CANDIDATES {
            return None;
        }
        self.dialled += 1;
        Some(self.waiting.remove(0).1)
    }

    /// An address that was dialled is dead, or is done with.
    pub(crate) fn release(&mut self) {
        self.dialled = self.dialled.saturating_sub(1);
    }
}

/// How promising an address is; `None` for one that is never dialled.
fn rank(addr: SocketAddr, own: &[OwnSubnet]) -> Option<Rank> {
    let ip = addr.ip().to_canonical();
    if addr.port() == 0 || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let is_own = own.iter().any(|subnet| subnet.contains(ip));
    match ip {
        IpAddr::V4(v4) if v4.is_broadcast() => None,
        IpAddr::V4(v4) if v4.is_link_local() => is_own.then_some(Rank::OnLink),
        IpAddr::V4(v4) if v4.is_private() => is_own.then_some(Rank::OwnSubnet),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            // Without the interface where it was heard it leads nowhere.
            let has_zone = matches!(addr, SocketAddr::V6(v6) if v6.scope_id() != 0);
            has_zone.then_some(Rank::OnLink)
        }
        IpAddr::V6(v6) if v6.is_unique_local() => is_own.then_some(Rank::OwnSubnet),
        IpAddr::V4(_) | IpAddr::V6(_) => Some(if is_own { Rank::OwnSubnet } else { Rank::Elsewhere }),
    }
}

/// Eight at a time: a machine with several interfaces and both families has no more.
pub(crate) const MAX_CANDIDATES: usize = 8;

/// 64 addresses in all for one name: what comes after that is a flood.
const MAX_SEEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<OwnSubnet> {
        let subnet = |ip: &str, prefix_len| OwnSubnet { ip: ip.parse().unwrap(), prefix_len };
        vec![
            subnet("192.168.1.5", 24),
            subnet("10.1.2.3", 16),
            subnet("fd00:1::5", 64),
            subnet("2001:db8::5", 64),
        ]
    }

    fn order(addrs: &[&str]) -> Vec<String> {
        let mut candidates = Candidates::default();
        addrs.iter().for_each(|addr| candidates.add(addr.parse().unwrap(), &own()));
        std::iter::from_fn(|| candidates.next()).map(|addr| addr.to_string()).collect()
    }

    #[test]
    fn loopback_multicast_and_foreign_private_addresses_are_never_dialled() {
        let never = [
            "127.0.0.1:1",
            "[::1]:1",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.251:1",
            "[ff02::fb]:1",
            "255.255.255.255:1",
            "192.168.2.5:1",
            "10.2.0.1:1",
            "172.16.0.1:1",
            "169.254.1.1:1",
            "[fd00:2::1]:1",
            "[fe80::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:192.168.2.5]:1",
            "192.168.1.7:0",
        ];
        assert_eq!(order(&never), [""; 0]);
    }

    #[test]
    fn own_subnets_come_first_then_the_link_then_the_rest() {
        let addrs = [
            "203.0.113.1:1",
            "[fe80::1%3]:1",
            "192.168.1.7:1",
            "[2001:db8::7]:1",
            "10.1.9.9:1",
            "192.168.1.7:1",
        ];
        assert_eq!(
            order(&addrs),
            ["192.168.1.7:1", "[2001:db8::7]:1", "10.1.9.9:1", "[fe80::1%3]:1", "203.0.113.1:1"]
        );
    }

    #[test]
    fn eight_are_dialled_at_a_time_and_the_places_of_dead_ones_are_used_again() {
        let mut candidates = Candidates::default();
        for host in 1..=200 {
            candidates.add(SocketAddr::new(IpAddr::from([192, 168, 1, host]), 1), &own());
        }
        let first: Vec<_> = std::iter::from_fn(|| candidates.next()).collect();
        assert_eq!(first.len(), MAX_CANDIDATES);
        let mut all = first.len();
        loop {
            candidates.release();
            match candidates.next() {
                Some(_) => all += 1,
                None => break,
            }
        }
        assert_eq!(all, MAX_SEEN, "a flood ends");
    }

    #[test]
    fn an_address_that_did_not_answer_is_dialled_again_after_all_others() {
        let mut candidates = Candidates::default();
        let addr = |text: &str| text.parse().unwrap();
        candidates.add(addr("192.168.1.7:1"), &own());
        assert_eq!(candidates.next(), Some(addr("192.168.1.7:1")));
        candidates.release();
        candidates.retry(addr("192.168.1.7:1"));
        candidates.add(addr("203.0.113.1:1"), &own());
        assert_eq!(candidates.next(), Some(addr("203.0.113.1:1")));
        assert_eq!(candidates.next(), Some(addr("192.168.1.7:1")));
        assert_eq!(candidates.next(), None);
    }

    #[test]
    fn only_addresses_of_this_link_are_taken_and_forgotten_ones_again() {
        let mut candidates = Candidates::default();
        for round in 0..2 {
            for text in ["203.0.113.1:1", "10.2.0.1:1", "[fe80::1%3]:1", "192.168.1.7:1"] {
                candidates.add_near(text.parse().unwrap(), &own());
            }
            let found: Vec<_> =
                std::iter::from_fn(|| candidates.next()).map(|addr| addr.to_string()).collect();
            assert_eq!(found, ["192.168.1.7:1", "[fe80::1%3]:1"], "{round}");
            candidates.forget();
        }
    }

    #[test]
    fn a_subnet_of_any_length_is_compared_by_its_prefix() {
        let subnet = |ip: &str, prefix_len| OwnSubnet { ip: ip.parse().unwrap(), prefix_len };
        assert!(subnet("10.0.0.1", 0).contains("1.2.3.4".parse().unwrap()));
        assert!(subnet("10.0.0.1", 32).contains("10.0.0.1".parse().unwrap()));
        assert!(!subnet("10.0.0.1", 32).contains("10.0.0.2".parse().unwrap()));
        assert!(!subnet("::", 0).contains("1.2.3.4".parse().unwrap()));
        assert!(!subnet("fd00::", 200).contains("fd00::1".parse().unwrap()));
    }
}
