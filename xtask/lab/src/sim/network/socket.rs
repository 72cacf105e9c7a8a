//! A socket on the network.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::Network;

/// What has arrived for a socket.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) addr: SocketAddr,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    waiting: Option<Waker>,
}

impl Port {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self { addr, queue: Mutex::default() }
    }

    pub(super) fn push(&self, from: SocketAddr, data: Vec<u8>) {
        let mut queue = self.queue.lock();
        queue.arrived.push_back((from, data));
        if let Some(waiting) = queue.waiting.take() {
            waiting.wake();
        }
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    network: Arc<Network>,
    port: Arc<Port>,
}

impl Socket {
    pub(super) fn new(network: Arc<Network>, port: Arc<Port>) -> Self {
        Self { network, port }
    }
}

impl shiplane_transport::simulation::Socket for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.port.addr
    }

    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.network.send(&self.port, to, datagram);
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, SocketAddr)> {
        let mut queue = self.port.queue.lock();
        let Some((addr, data)) = queue.arrived.pop_front() else {
            queue.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // As the kernel does, it cuts off what is too long.
        let len = data.len().min(buffer.len());
        buffer[..len].copy_from_slice(&data[..len]);
        Poll::Ready((len, addr))
    }
}
