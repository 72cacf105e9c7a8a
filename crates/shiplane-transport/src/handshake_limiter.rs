//! Limits concurrent handshakes, globally and per host.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Limits concurrent handshakes, in all and per host. A handle: clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct HandshakeLimiter {
    under_way: Arc<Mutex<UnderWay>>,
    max: usize,
}

#[derive(Debug, Default)]
struct UnderWay {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl HandshakeLimiter {
    pub(crate) fn new(max: usize) -> Self {
        Self { under_way: Arc::default(), max }
    }

    /// How many there are.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().all
    }

    /// Admits a handshake from `from`; `None` at the global limit or at that of the host.
    pub(crate) fn enter(&self, from: IpAddr) -> Option<Handshake> {
        let mut under_way = self.lock();
        let network = network_of(from);
        let of_network = under_way.by_network.get(&network).copied().unwrap_or(0);
        if under_way.all >= self.max || of_network >= self.max.div_ceil(NETWORK_PART) {
            return None;
        }
        under_way.all += 1;
        under_way.by_network.insert(network, of_network + 1);
        Some(Handshake { handshakes: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        // Each change is one step.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the handshakes under way, however it ends: a trust callback may panic.
#[derive(Debug)]
pub(crate) struct Handshake {
    handshakes: HandshakeLimiter,
    network: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut under_way = self.handshakes.lock();
        under_way.all -= 1;
        if let Some(of_network) = under_way.by_network.get_mut(&self.network) {
            *of_network -= 1;
            if *of_network == 0 {
                under_way.by_network.remove(&self.network);
            }
        }
    }
}

/// What one host has for itself: an IPv6 address and all others of its network of 64 bits.
fn network_of(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(addr) => addr.into(),
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Half of the limit, so that one host cannot keep others out.
const NETWORK_PART: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_host_leaves_half_of_the_places_to_others() {
        let handshakes = HandshakeLimiter::new(4);
        let greedy: Vec<_> = std::iter::from_fn(|| handshakes.enter(addr("192.0.2.1"))).collect();
        assert_eq!(greedy.len(), 2);
        assert!(handshakes.enter(addr("::ffff:192.0.2.1")).is_none(), "the same host");
        let one = handshakes.enter(addr("192.0.2.2")).unwrap();
        let _two = handshakes.enter(addr("192.0.2.3")).unwrap();
        assert!(handshakes.enter(addr("192.0.2.4")).is_none(), "four in all");
        drop(one);
        assert!(handshakes.enter(addr("192.0.2.4")).is_some());
        drop(greedy);
        assert_eq!((handshakes.under_way(), handshakes.lock().by_network.len()), (1, 1));
    }

    #[test]
    fn a_host_is_a_network_of_64_bits() {
        let handshakes = HandshakeLimiter::new(4);
        let _one = handshakes.enter(addr("2001:db8::1")).unwrap();
        let _two = handshakes.enter(addr("2001:db8::2:1")).unwrap();
        assert!(handshakes.enter(addr("2001:db8::3")).is_none());
        assert!(handshakes.enter(addr("2001:db8:0:1::1")).is_some());
    }
}
