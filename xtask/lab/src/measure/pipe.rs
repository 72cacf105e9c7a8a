//! One direction of the link, which counts what it carries.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use testlink::Path;

/// What the link is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub(super) rtt_ms: f64,
    /// In the direction of the data.
    pub(super) rate_mbit: f64,
    /// In the other direction.
    pub(super) back_mbit: f64,
    /// In each direction.
    pub(super) loss_percent: f64,
    /// How long the whole link stops and how often: means, each of which is random within half of it.
    pub(super) freeze_ms: Option<(f64, f64)>,
    /// A token bucket at the sender, in addition to the rate.
    pub(super) bucket_kbit: Option<u32>,
    /// As a firewall may have it.
    pub(super) drops_udp: bool,
}

impl Conditions {
    pub(super) const fn new(rtt_ms: f64, rate_mbit: f64, loss_percent: f64) -> Self {
        let (freeze_ms, bucket_kbit, drops_udp) = (None, None, false);
        Self { rtt_ms, rate_mbit, back_mbit: rate_mbit, loss_percent, freeze_ms, bucket_kbit, drops_udp }
    }

    /// The same link as the other direction sees it.
    pub(super) fn reversed(self) -> Self {
        Self { rate_mbit: self.back_mbit, back_mbit: self.rate_mbit, ..self }
    }

    /// The bandwidth-delay product.
    pub(super) fn product_bytes(&self) -> f64 {
        self.rate_mbit * 125.0 * self.rtt_ms
    }

    /// Without the freezes, which stop both directions.
    fn path(&self, seed: u64) -> Path {
        let path = Path::new(self.rate_mbit, self.rtt_ms).loss(self.loss_percent / 100.0).seed(seed);
        let queue_bytes = path.queue_bytes.max(MIN_QUEUE_BYTES);
        path.queue_bytes(queue_bytes)
    }

    /// When the whole link stops.
    pub(super) fn freezes(&self, seed: u64) -> Option<Path> {
        let (len_ms, every_ms) = self.freeze_ms?;
        Some(Path::new(1.0, 1.0).seed(seed).freezing(every_ms, len_ms))
    }
}

/// What a direction has carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets that the sender put on the link, acknowledgements excluded, dropped ones included.
    pub(super) data_packets: u64,
    /// Their bytes, IP headers included.
    pub(super) data_bytes: u64,
    /// Bytes of all packets that arrived.
    pub(super) carried_bytes: u64,
}

/// Takes packets at one end and says when each leaves the other. Time is an argument.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) link: testlink::Link<Vec<u8>>,
    drops_udp: bool,
    pub(super) counts: Arc<Mutex<Counts>>,
}

impl Pipe {
    pub(super) fn new(conditions: Conditions, seed: u64) -> Self {
        let link = testlink::Link::new(conditions.path(seed));
        Self { link, drops_udp: conditions.drops_udp, counts: Arc::default() }
    }

    /// Queues or drops a packet.
    pub(super) fn enter(&mut self, now: Duration, packet: &[u8]) {
        if packet.len() >= MIN_DATA_PACKET_BYTES {
            let mut counts = self.counts.lock();
            counts.data_packets += 1;
            counts.data_bytes += packet.len() as u64;
        }
        if !(self.drops_udp && is_udp(packet)) {
            self.link.send(now, packet.len(), packet.to_vec());
        }
    }

    /// The next packet whose time has come.
    pub(super) fn leave(&mut self, now: Duration) -> Option<Vec<u8>> {
        let packet = self.link.receive(now)?;
        self.counts.lock().carried_bytes += packet.len() as u64;
        Some(packet)
    }
}

/// Of an IPv4 packet: the protocol's number is 17.
fn is_udp(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4) && packet.get(9) == Some(&17)
}

/// Beside one bandwidth-delay product: the least queue of a router.
const MIN_QUEUE_BYTES: f64 = 65_536.0;

/// Acknowledgements and keep-alives are shorter.
const MIN_DATA_PACKET_BYTES: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_without_udp_carries_all_else() {
        let mut pipe = Pipe::new(Conditions { drops_udp: true, ..Conditions::new(100.0, 8.0, 0.0) }, 1);
        let packet = |protocol| [&[0x45; 9][..], &[protocol; 31]].concat();
        pipe.enter(Duration::ZERO, &packet(17));
        pipe.enter(Duration::ZERO, &packet(6));
        assert_eq!(pipe.leave(Duration::from_secs(1)), Some(packet(6)));
        assert_eq!(pipe.leave(Duration::from_secs(1)), None);
    }

    #[test]
    fn dropped_packets_are_counted_as_sent() {
        let mut pipe = Pipe::new(Conditions::new(100.0, 8.0, 0.0), 1);
        for _ in 0..120 {
            pipe.enter(Duration::ZERO, &[7; 1000]);
        }
        pipe.enter(Duration::ZERO, &[7; 40]);
        while pipe.leave(Duration::from_secs(1)).is_some() {}
        let counts = Counts { data_packets: 120, data_bytes: 120_000, carried_bytes: 100_000 };
        assert_eq!(*pipe.counts.lock(), counts);
    }
}
