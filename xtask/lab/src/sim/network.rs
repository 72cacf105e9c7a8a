//! An in-memory network with faults from the seed, until it heals.

mod faults;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use parking_lot::Mutex;
use shiplane_transport::simulation;
use testlink::Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::faults::Link;
pub use self::faults::{Burst, Faults, Partition};

/// What connects the sockets that are bound to it.
#[derive(Debug)]
pub(crate) struct Network {
    state: Mutex<State>,
    /// There is something earlier to deliver.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    faults: Faults,
    began: Instant,
    /// The inboxes of the sockets that are bound.
    ports: BTreeMap<SocketAddr, UnboundedSender<Datagram>>,
    /// By the address that a socket was bound to: the one that others see. It changes as those behind a NAT do.
    seen_as: BTreeMap<SocketAddr, SocketAddr>,
    links: BTreeMap<SocketAddr, Link>,
    /// What has arrived, by the host that sent it.
    delivered_bytes: BTreeMap<IpAddr, u64>,
    /// By time of arrival, to where and what; if two arrive together, the one that was sent first comes first.
    on_the_way: BTreeMap<(Instant, u64), (SocketAddr, Datagram)>,
    sent: u64,
    trace: u64,
}

/// Where it comes from, and what it is.
type Datagram = (SocketAddr, Vec<u8>);

/// A socket on the network.
#[derive(Debug)]
struct Socket {
    network: Arc<Network>,
    addr: SocketAddr,
    /// The other end of the inbox: as long as this is here, the network's may go.
    port: UnboundedSender<Datagram>,
    inbox: Mutex<UnboundedReceiver<Datagram>>,
}

impl Network {
    /// A network that begins to fail now. It works for as long as it is held.
    pub(crate) fn new(faults: Faults, rng: Rng) -> Arc<Self> {
        let state = State {
            rng,
            began: Instant::now(),
            ports: BTreeMap::new(),
            seen_as: BTreeMap::new(),
            links: BTreeMap::new(),
            delivered_bytes: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            trace: 0,
            faults,
        };
        let network = Arc::new(Self { state: state.into(), changed: Notify::new() });
        tokio::spawn(Arc::clone(&network).deliver());
        network
    }

    /// A socket at this address. The socket that had it before neither receives nor sends any more.
    pub(crate) fn bind(self: &Arc<Self>, addr: SocketAddr) -> Arc<dyn simulation::Socket> {
        let (port, inbox) = unbounded();
        let mut state = self.state.lock();
        state.ports.insert(addr, port.clone());
        state.seen_as.insert(addr, addr);
        Arc::new(Socket { network: Arc::clone(self), addr, port, inbox: inbox.into() })
    }

    /// Cuts off the socket that is bound there, as when its machine has lost power.
    pub(crate) fn unplug(&self, addr: SocketAddr) {
        self.state.lock().ports.remove(&addr);
    }

    /// Gives the socket that is bound there another address as all others see it, as a NAT does that has lost its state.
    pub(crate) fn change_address(&self, bound: SocketAddr) {
        let mut state = self.state.lock();
        if let Some(seen) = state.seen_as.get_mut(&bound) {
            seen.set_port(seen.port() + 1);
        }
    }

    /// What has arrived of all that this host has sent.
    pub(crate) fn delivered_bytes(&self, from: IpAddr) -> u64 {
        self.state.lock().delivered_bytes.get(&from).copied().unwrap_or_default()
    }

    /// From now on the links carry so much.
    pub(crate) fn set_rate(&self, bytes_per_second: u64) {
        let mut state = self.state.lock();
        let now = state.began.elapsed();
        state.faults.bytes_per_second = bytes_per_second;
        state.links.values_mut().for_each(|link| link.set_rate(now, bytes_per_second));
    }

    /// How many datagrams were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.lock().sent
    }

    /// A digest of everything that has happened, in order.
    pub(crate) fn trace(&self) -> u64 {
        self.state.lock().trace
    }

    async fn deliver(self: Arc<Self>) {
        loop {
            let next = self.state.lock().on_the_way.first_key_value().map(|((due, _), _)| *due);
            match next {
                // A change may mean an earlier one.
                Some(due) => tokio::select! {
                    biased;
                    () = sleep_until(due) => self.state.lock().deliver_due(),
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

impl State {
    fn send(&mut self, bound: SocketAddr, to: SocketAddr, data: &[u8]) {
        self.sent += 1;
        let now = Instant::now();
        let from = self.seen_as.get(&bound).copied().unwrap_or(bound);
        let at = now - self.began;
        let link = self.links.entry(bound).or_insert_with(|| Link::new(&self.faults));
        let copies = link.carry(&self.faults, &mut self.rng, at, data);
        self.note(&[at.as_nanos() as u64, data.len() as u64, from.port().into(), copies.len() as u64]);
        for (delay, data) in copies {
            self.sent += 1;
            self.on_the_way.insert((now + delay, self.sent), (to, (from, data)));
        }
    }

    fn deliver_due(&mut self) {
        let now = Instant::now();
        while let Some(next) = self.on_the_way.first_entry().filter(|next| next.key().0 <= now) {
            let (to, (from, data)) = next.remove();
            let (at, len_bytes) = (now - self.began, data.len() as u64);
            self.note(&[at.as_nanos() as u64, len_bytes, to.port().into()]);
            // Addresses that nobody is seen as any more lead nowhere.
            let bound = self.seen_as.iter().find(|(_, seen)| **seen == to).map(|(bound, _)| *bound);
            if let Some(port) = bound.and_then(|bound| self.ports.get(&bound)) {
                *self.delivered_bytes.entry(from.ip()).or_default() += len_bytes;
                // Its program may have ended.
                let _unheard = port.unbounded_send((from, data));
            }
        }
    }

    /// Adds what has happened to the trace.
    fn note(&mut self, what: &[u64]) {
        for number in what {
            self.trace = (self.trace ^ number).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
}

impl simulation::Socket for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let mut state = self.network.state.lock();
        if state.ports.get(&self.addr).is_some_and(|port| port.same_receiver(&self.port)) {
            state.send(self.addr, to, datagram);
            self.network.changed.notify_one();
        }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, SocketAddr)> {
        let Poll::Ready(Some((addr, data))) = self.inbox.lock().poll_next_unpin(cx) else {
            return Poll::Pending;
        };
        // As the kernel does, it cuts off what is too long.
        let len = data.len().min(buffer.len());
        buffer[..len].copy_from_slice(&data[..len]);
        Poll::Ready((len, addr))
    }
}

/// An odd number with its bits well spread.
const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;
