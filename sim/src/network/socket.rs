//! A socket on the network, as quinn wants it.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

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
        let mut queue = self.lock();
        queue.arrived.push_back((from, data));
        if let Some(waiting) = queue.waiting.take() {
            waiting.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment_len_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for segment in transmit.contents.chunks(segment_len_bytes) {
            self.network.send(&self.port, transmit.destination, segment);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut queue = self.port.lock();
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some((addr, data)) = queue.arrived.pop_front() else { break };
            // As the kernel does, it cuts off what is too long.
            let len = data.len().min(buffer.len());
            buffer[..len].copy_from_slice(&data[..len]);
            *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        queue.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.port.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Whatever is too much for the link is lost on it.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// As Linux has it with segmentation offload, in small.
const MAX_SEGMENTS: usize = 4;
