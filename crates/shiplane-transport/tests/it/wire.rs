//! A network for tests that can be read, cut, slowed down or narrowed.

use std::{
    collections::HashSet,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{AsyncUdpSocket, Runtime, UdpPoller, udp};
use tokio::time::{Interval, MissedTickBehavior};

use crate::harness::localhost;

/// A UDP socket on loopback.
#[derive(Debug)]
pub(crate) struct Wire {
    inner: Arc<dyn AsyncUdpSocket>,
    cut: AtomicBool,
    max_datagram_len_bytes: AtomicUsize,
    sent: Mutex<Vec<u8>>,
    destinations: Mutex<HashSet<SocketAddr>>,
    /// Sends one datagram a tick, when there are ticks.
    slow: bool,
    may_send: AtomicBool,
}

impl Wire {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_speed(false)
    }

    /// One datagram a millisecond.
    pub(crate) fn slow() -> Arc<Self> {
        Self::with_speed(true)
    }

    fn with_speed(slow: bool) -> Arc<Self> {
        let socket = std::net::UdpSocket::bind(localhost()).unwrap();
        let inner = quinn::TokioRuntime.wrap_udp_socket(socket).unwrap();
        Arc::new(Self {
            inner,
            cut: false.into(),
            max_datagram_len_bytes: usize::MAX.into(),
            sent: Mutex::default(),
            destinations: Mutex::default(),
            slow,
            may_send: true.into(),
        })
    }

    /// From now on nothing gets through, in either direction.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// From now on larger datagrams vanish on their way out.
    pub(crate) fn narrow(&self, max_datagram_len_bytes: usize) {
        self.max_datagram_len_bytes.store(max_datagram_len_bytes, Ordering::Relaxed);
    }

    /// Every byte that has been sent.
    pub(crate) fn sent(&self) -> Vec<u8> {
        self.sent.lock().unwrap().clone()
    }

    /// Everybody who was sent anything.
    pub(crate) fn destinations(&self) -> HashSet<SocketAddr> {
        self.destinations.lock().unwrap().clone()
    }

    fn is_narrow(&self) -> bool {
        self.max_datagram_len_bytes.load(Ordering::Relaxed) < usize::MAX
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

impl AsyncUdpSocket for Wire {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        if !self.slow {
            return Arc::clone(&self.inner).create_io_poller();
        }
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Box::pin(SlowPoller { ticks, wire: self })
    }

    fn try_send(&self, transmit: &udp::Transmit<'_>) -> io::Result<()> {
        if self.is_cut() {
            return Ok(());
        }
        if self.slow && !self.may_send.swap(false, Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let datagram_len_bytes = transmit.segment_size.unwrap_or(transmit.contents.len());
        if datagram_len_bytes > self.max_datagram_len_bytes.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.sent.lock().unwrap().extend_from_slice(transmit.contents);
        self.destinations.lock().unwrap().insert(transmit.destination);
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = ready!(self.inner.poll_recv(cx, bufs, meta));
            if !self.is_cut() {
                return Poll::Ready(received);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if self.slow || self.is_narrow() { 1 } else { self.inner.max_transmit_segments() }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[derive(Debug)]
struct SlowPoller {
    ticks: Interval,
    wire: Arc<Wire>,
}

impl UdpPoller for SlowPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.wire.may_send.load(Ordering::Relaxed) {
            ready!(self.ticks.poll_tick(cx));
            self.wire.may_send.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}
