//! The UDP socket: large kernel buffers, and batches that the kernel can take.
//!
//! Two facts decide a fast path's speed. A default socket buffer of some 200 KiB loses thousands of
//! packets on loopback; and quinn builds batches of ten segments whatever their size, while one UDP send
//! carries at most 65,507 bytes, so that packets above 6,550 bytes would never leave. [`TunedSocket`]
//! sees to both.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// Binds a UDP socket and asks the kernel for buffers of `buffer_len_bytes` each way.
///
/// The kernel may grant less; that is logged with the setting that would help. Says how much may wait to be
/// received: Linux counts what a packet takes, not what it carries, and grants twice what it was asked for.
pub(crate) fn bind(addr: SocketAddr, buffer_len_bytes: usize) -> io::Result<(UdpSocket, usize)> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if addr.is_ipv6() {
        // One socket for both families where the system allows it.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%error, "no dual-stack socket");
        }
    }
    socket.bind(&addr.into())?;
    adopt(socket, buffer_len_bytes)
}

/// The same for a socket that is bound already.
pub(crate) fn adopt(socket: socket2::Socket, buffer_len_bytes: usize) -> io::Result<(UdpSocket, usize)> {
    enlarge(&socket, buffer_len_bytes);
    let granted_bytes = socket.recv_buffer_size()?;
    Ok((socket.into(), granted_bytes))
}

/// What the kernel grants of buffers of `wanted_bytes`, to receive and to send, in bytes that can be used.
///
/// # Errors
/// What the system says.
pub fn granted_buffers(wanted_bytes: usize) -> io::Result<[usize; 2]> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let _ = (socket.set_recv_buffer_size(wanted_bytes), socket.set_send_buffer_size(wanted_bytes));
    let usable = |granted: usize| if cfg!(target_os = "linux") { granted / 2 } else { granted };
    Ok([usable(socket.recv_buffer_size()?), usable(socket.send_buffer_size()?)])
}

/// Sets both buffers and reads back what was granted (Linux reports twice the usable size).
fn enlarge(socket: &socket2::Socket, wanted_bytes: usize) {
    type Get = fn(&socket2::Socket) -> io::Result<usize>;
    type Set = fn(&socket2::Socket, usize) -> io::Result<()>;
    let directions: [(&str, &str, Set, Get); 2] = [
        (
            "receive",
            "net.core.rmem_max",
            socket2::Socket::set_recv_buffer_size,
            socket2::Socket::recv_buffer_size,
        ),
        (
            "send",
            "net.core.wmem_max",
            socket2::Socket::set_send_buffer_size,
            socket2::Socket::send_buffer_size,
        ),
    ];
    for (direction, sysctl, set, get) in directions {
        // What a service manager has set may be more than this program can.
        if get(socket).is_ok_and(|bytes| bytes >= wanted_bytes) {
            continue;
        }
        if let Err(error) = set(socket, wanted_bytes) {
            tracing::debug!(direction, %error, "UDP buffer not enlarged");
        }
        match get(socket) {
            Ok(granted_bytes) if granted_bytes < wanted_bytes => tracing::warn!(
                direction,
                granted_bytes,
                wanted_bytes,
                "the kernel grants a smaller UDP buffer; `sysctl -w {sysctl}={wanted_bytes}` avoids losses"
            ),
            Ok(granted_bytes) => tracing::debug!(direction, granted_bytes, "UDP buffer"),
            Err(error) => tracing::debug!(direction, %error, "UDP buffer not readable"),
        }
    }
}

/// A quinn socket that never hands the kernel a batch it must refuse.
#[derive(Debug)]
pub(crate) struct TunedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The segment size sent last: what the next batch will most likely use.
    segment_len_bytes: AtomicUsize,
    max_datagram_len_bytes: usize,
}

impl TunedSocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, max_datagram_len_bytes: u16) -> Self {
        Self {
            inner,
            segment_len_bytes: AtomicUsize::new(1),
            max_datagram_len_bytes: usize::from(max_datagram_len_bytes),
        }
    }

    /// Sends a batch that is over the kernel's limit in parts. Once a part has left, a part that would
    /// block counts as lost on the way, which QUIC repairs: quinn must not send the first part again.
    fn send_in_parts(&self, transmit: &Transmit<'_>, segment_len_bytes: usize) -> io::Result<()> {
        let part_len_bytes = segments_per_batch(segment_len_bytes) * segment_len_bytes;
        for (i, part) in transmit.contents.chunks(part_len_bytes).enumerate() {
            let sent = self.inner.try_send(&Transmit {
                contents: part,
                destination: transmit.destination,
                ecn: transmit.ecn,
                segment_size: Some(segment_len_bytes),
                src_ip: transmit.src_ip,
            });
            match sent {
                Err(error) if i > 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }
}

impl AsyncUdpSocket for TunedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment_len_bytes) = transmit.segment_size else {
            return self.inner.try_send(transmit);
        };
        self.segment_len_bytes.store(segment_len_bytes, Ordering::Relaxed);
        if transmit.contents.len() <= MAX_UDP_PAYLOAD_LEN_BYTES {
            self.inner.try_send(transmit)
        } else {
            self.send_in_parts(transmit, segment_len_bytes)
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        let fit = segments_per_batch(self.segment_len_bytes.load(Ordering::Relaxed));
        self.inner.max_transmit_segments().min(fit)
    }

    /// quinn allocates 32 receive buffers of this many times the largest datagram. The kernel merges at
    /// most 64 KiB into one, so that a few jumbo datagrams' worth is enough.
    fn max_receive_segments(&self) -> usize {
        let hold_a_batch = MERGED_BATCH_LEN_BYTES.div_ceil(self.max_datagram_len_bytes.max(1));
        self.inner.max_receive_segments().min(hold_a_batch)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// How many segments of this length fit one send, at least one.
fn segments_per_batch(segment_len_bytes: usize) -> usize {
    (MAX_UDP_PAYLOAD_LEN_BYTES / segment_len_bytes.max(1)).max(1)
}

/// The largest payload of one IPv4 UDP send: 65,535 less 20 bytes of IP and 8 of UDP header.
const MAX_UDP_PAYLOAD_LEN_BYTES: usize = 65_507;

/// The most that generic receive offload merges into one buffer.
const MERGED_BATCH_LEN_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Records what it is asked to send; fails like the kernel above its limit.
    #[derive(Debug, Default)]
    struct Kernel {
        sent_lens_bytes: Mutex<Vec<usize>>,
    }

    #[test]
    fn a_buffer_that_is_large_enough_is_not_made_smaller() {
        let socket = socket2::Socket::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let before = socket.recv_buffer_size().unwrap();
        let (_socket, granted_bytes) = adopt(socket, 16 << 10).unwrap();
        assert_eq!(granted_bytes, before);
    }

    impl AsyncUdpSocket for Kernel {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing blocks here")
        }
        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            if transmit.contents.len() > MAX_UDP_PAYLOAD_LEN_BYTES {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.sent_lens_bytes.lock().unwrap().push(transmit.contents.len());
            Ok(())
        }
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
        fn max_transmit_segments(&self) -> usize {
            64
        }
        fn max_receive_segments(&self) -> usize {
            64
        }
    }

    fn send(socket: &TunedSocket, segment_len_bytes: usize, segments: usize) {
        let contents = vec![7; segment_len_bytes * segments];
        socket
            .try_send(&Transmit {
                destination: ([127, 0, 0, 1], 2).into(),
                ecn: None,
                contents: &contents,
                segment_size: Some(segment_len_bytes),
                src_ip: None,
            })
            .unwrap();
    }

    #[test]
    fn jumbo_batches_are_cut_to_what_the_kernel_takes() {
        let kernel = Arc::new(Kernel::default());
        let socket = TunedSocket::new(Arc::clone(&kernel) as Arc<dyn AsyncUdpSocket>, 8952);
        send(&socket, 8952, 10);
        assert_eq!(*kernel.sent_lens_bytes.lock().unwrap(), [7 * 8952, 3 * 8952]);
        assert_eq!(socket.max_transmit_segments(), 7, "the next batch fits at once");
    }

    #[test]
    fn ordinary_batches_pass_whole() {
        let kernel = Arc::new(Kernel::default());
        let socket = TunedSocket::new(Arc::clone(&kernel) as Arc<dyn AsyncUdpSocket>, 8952);
        send(&socket, 1452, 10);
        assert_eq!(*kernel.sent_lens_bytes.lock().unwrap(), [14_520]);
        assert_eq!(socket.max_transmit_segments(), 45);
    }

    #[test]
    fn the_kernel_grants_a_buffer_and_the_port_is_chosen() {
        let (socket, granted_bytes) = bind(([127, 0, 0, 1], 0).into(), 64 << 10).unwrap();
        assert!(granted_bytes >= 64 << 10, "{granted_bytes}");
        assert_ne!(socket.local_addr().unwrap().port(), 0);
    }
}
