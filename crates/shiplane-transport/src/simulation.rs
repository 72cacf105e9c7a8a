//! Replaces network, randomness and thread scheduling in simulations.
//!
//! [`TransportBuilder`](crate::TransportBuilder) takes a [`Socket`] and a seed; [`set_scheduler`] is of one thread, the one
//! that runs the runtime. The clock is tokio's, paused. Chunks must be moved by `LaneThreads::Runtime`.

use std::{
    cell::RefCell,
    fmt::Debug,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::oneshot;

/// A place on a simulated network.
pub trait Socket: Debug + Send + Sync + 'static {
    /// Where it is reached.
    fn local_addr(&self) -> SocketAddr;

    /// Sends a datagram. One that finds no room is lost.
    fn send(&self, to: SocketAddr, datagram: &[u8]);

    /// Takes the next datagram that has arrived, cut to the buffer: its length and where it is from.
    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, SocketAddr)>;
}

/// Runs blocking work and the runtime's thread one at a time.
pub trait DeterministicScheduler: Send + Sync {
    /// Runs `work` on a thread of its own while the future is polled; its panic is the future's.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Called by such work: what wakes it after it has passed its turn.
    fn waker(&self) -> Waker;

    /// Called by such work: passes its turn, until it is woken.
    fn pass(&self);
}

/// Sets the scheduler for blocking work that this thread starts or waits for; `None` removes it.
pub fn set_scheduler(scheduler: Option<Arc<dyn DeterministicScheduler>>) {
    SCHEDULER.set(scheduler);
}

/// This thread's.
pub(crate) fn scheduler() -> Option<Arc<dyn DeterministicScheduler>> {
    SCHEDULER.with_borrow(Clone::clone)
}

pub(crate) async fn run_scheduled<T: Send + 'static>(
    scheduler: Arc<dyn DeterministicScheduler>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = oneshot::channel();
    scheduler.run(Box::new(move || drop(done.send(work())))).await;
    match result.await {
        Ok(value) => value,
        // Never: work that ends has sent, and the panic of any other is that of the line above.
        Err(_) => std::future::pending().await,
    }
}

pub(crate) fn wait<T>(scheduler: &dyn DeterministicScheduler, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&scheduler.waker())) {
            Poll::Ready(value) => return value,
            Poll::Pending => scheduler.pass(),
        }
    }
}

/// The socket as quinn wants it.
pub(crate) fn for_quinn(socket: Arc<dyn Socket>) -> Arc<dyn AsyncUdpSocket> {
    Arc::new(Simulated(socket))
}

thread_local! {
    static SCHEDULER: RefCell<Option<Arc<dyn DeterministicScheduler>>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Simulated(Arc<dyn Socket>);

impl AsyncUdpSocket for Simulated {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment_len_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for segment in transmit.contents.chunks(segment_len_bytes) {
            self.0.send(transmit.destination, segment);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Poll::Ready((len, addr)) = self.0.poll_recv(cx, buffer) else { break };
            *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 { Poll::Ready(Ok(count)) } else { Poll::Pending }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// As Linux has it with segmentation offload, in small.
const MAX_SEGMENTS: usize = 4;
