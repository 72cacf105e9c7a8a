//! QUIC over a byte stream, such as the pipes of an ssh session.
//!
//! A thread reads packets from the stream, another one writes them to it. Both directions hold a bounded number of
//! bytes: where the stream takes no more, quinn waits as it does for a full socket, and nothing is dropped.

mod frame;

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSliceMut, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::watch;

pub use self::frame::fuzz_frames;
use self::frame::{FrameDecoder, NotPackets, write};
use crate::endpoint::TransportBuilder;

/// A byte stream that carries the packets of one transport to one other. Clones share it.
///
/// Give it to a transport with [`TransportBuilder::channel`]. The one that dials finds the other at
/// [`CHANNEL_ADDR`].
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the threads: there is room for what was read, or something to write.
    changed: Condvar,
    end: watch::Sender<Option<ChannelEnd>>,
}

struct State {
    incoming: VecDeque<Box<[u8]>>,
    incoming_bytes: usize,
    receiver: Option<Waker>,
    /// Frames.
    outgoing: Vec<u8>,
    senders: Vec<Waker>,
    is_closed: bool,
    heard_at: Instant,
}

/// Why a channel has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelEnd {
    /// This side has closed it.
    Closed,
    /// The stream has ended, or has failed.
    Ended,
    /// Something else than packets came.
    Garbled,
}

impl Channel {
    /// Reads packets from `read` and writes packets to `write`, each on a thread of its own. The first thread ends when
    /// `read` does: a read that is waiting cannot be interrupted.
    ///
    /// # Errors
    /// The system's, if it starts no thread.
    pub fn start(read: impl Read + Send + 'static, write: impl Write + Send + 'static) -> io::Result<Self> {
        let state = State {
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            receiver: None,
            outgoing: Vec::new(),
            senders: Vec::new(),
            is_closed: false,
            heard_at: Instant::now(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            end: watch::Sender::new(None),
        });
        let (reading, writing) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::Builder::new().name("channel-read".to_owned()).spawn(move || reading.read_all(read))?;
        let started = thread::Builder::new().name("channel-write".to_owned());
        let started = started.spawn(move || writing.write_all(write));
        if let Err(error) = started {
            shared.end(ChannelEnd::Closed);
            return Err(error);
        }
        Ok(Self { shared })
    }

    /// Waits for the end and says why it came. Cancel-safe.
    pub async fn ended(&self) -> ChannelEnd {
        let mut end = self.shared.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end).unwrap_or(ChannelEnd::Closed)
    }

    /// Waits until nothing was heard for so long. The other side shows every 15 seconds that it is there.
    /// Cancel-safe.
    pub async fn silent_for(&self, time: Duration) {
        let heard_at = || self.shared.state().heard_at;
        loop {
            let heard = heard_at();
            tokio::time::sleep(time.saturating_sub(heard.elapsed())).await;
            // This program itself may have been stopped: then the data that has arrived meanwhile is read now.
            tokio::time::sleep(READ_GRACE).await;
            if heard_at() == heard {
                return;
            }
        }
    }

    /// Why it has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<ChannelEnd> {
        *self.shared.end.borrow()
    }

    /// Ends it. Data that was to be sent is still written, as far as the stream accepts it.
    pub fn close(&self) {
        self.shared.end(ChannelEnd::Closed);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("end", &self.end()).finish_non_exhaustive()
    }
}

impl TransportBuilder {
    /// Packets go over this channel instead of a socket; the address given to [`bind`](Self::bind) is then ignored. To be
    /// called after [`config`](Self::config).
    #[doc(hidden)]
    #[must_use]
    pub fn channel(mut self, channel: &Channel) -> Self {
        self.config.udp_buffer_len_bytes = 2 * MAX_IN_FLIGHT_BYTES;
        self.seams.socket = Some(Arc::new(ChannelSocket(Arc::clone(&channel.shared))));
        self.seams.is_stream = true;
        self
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is locked here is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: ChannelEnd) {
        let mut state = self.state();
        // Before a thread can see that it is closed, and end it for a reason of its own.
        self.end.send_if_modified(|known| known.is_none() && known.replace(end).is_none());
        state.is_closed = true;
        state.senders.drain(..).for_each(Waker::wake);
        drop(state);
        self.changed.notify_all();
    }

    fn read_all(&self, mut read: impl Read) {
        let (mut decoder, mut buffer) = (FrameDecoder::default(), vec![0; READ_LEN_BYTES]);
        loop {
            let read = match read.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::debug!(%error, "the channel cannot be read");
                    break;
                }
            };
            decoder.push(&buffer[..read]);
            if let Err(NotPackets) = self.take(&mut decoder) {
                return self.end(ChannelEnd::Garbled);
            }
            let mut state = self.state();
            while state.incoming_bytes > MAX_INCOMING_BYTES && !state.is_closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_closed {
                return;
            }
        }
        self.end(ChannelEnd::Ended);
    }

    fn take(&self, decoder: &mut FrameDecoder) -> Result<(), NotPackets> {
        let mut state = self.state();
        state.heard_at = Instant::now();
        while let Some(packet) = decoder.next()? {
            state.incoming_bytes += packet.len();
            state.incoming.push_back(packet.into());
        }
        if !state.incoming.is_empty()
            && let Some(receiver) = state.receiver.take()
        {
            receiver.wake();
        }
        Ok(())
    }

    fn write_all(&self, mut stream: impl Write) {
        let mut frames = Vec::new();
        loop {
            let mut state = self.state();
            while state.outgoing.is_empty() && !state.is_closed {
                let waited = self.changed.wait_timeout(state, KEEP_ALIVE_INTERVAL);
                let (locked, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                state = locked;
                if waited.timed_out() && state.outgoing.is_empty() {
                    write(b"", &mut state.outgoing);
                }
            }
            if state.outgoing.is_empty() {
                return; // Closed. The other side sees the end of the stream.
            }
            frames.clear();
            std::mem::swap(&mut frames, &mut state.outgoing);
            state.senders.drain(..).for_each(Waker::wake);
            drop(state);
            if let Err(error) = stream.write_all(&frames).and_then(|()| stream.flush()) {
                tracing::debug!(%error, "the channel cannot be written");
                return self.end(ChannelEnd::Ended);
            }
        }
    }
}

/// quinn's view of a channel.
struct ChannelSocket(Arc<Shared>);

impl AsyncUdpSocket for ChannelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(ChannelPoller(Arc::clone(&self.0)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.0.state();
        if state.is_closed {
            return Ok(()); // As into a cable that leads nowhere.
        }
        if state.outgoing.len() >= MAX_OUTGOING_BYTES {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let was_empty = state.outgoing.is_empty();
        let packet_len_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        transmit.contents.chunks(packet_len_bytes).for_each(|packet| write(packet, &mut state.outgoing));
        drop(state);
        if was_empty {
            self.0.changed.notify_all();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        let was_full = state.incoming_bytes > MAX_INCOMING_BYTES;
        let mut received = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some(packet) = state.incoming.pop_front() else { break };
            state.incoming_bytes -= packet.len();
            // Longer than any that this side takes: as lost.
            let len = if packet.len() > buffer.len() { 0 } else { packet.len() };
            buffer[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta { addr: CHANNEL_ADDR, len, stride: len.max(1), ecn: None, dst_ip: None };
            received += 1;
        }
        if received == 0 {
            state.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let has_room = state.incoming_bytes <= MAX_INCOMING_BYTES;
        drop(state);
        if was_full && has_room {
            self.0.changed.notify_all();
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(CHANNEL_ADDR)
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for ChannelSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelSocket")
    }
}

struct ChannelPoller(Arc<Shared>);

impl UdpPoller for ChannelPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if state.is_closed || state.outgoing.len() < MAX_OUTGOING_BYTES {
            return Poll::Ready(Ok(()));
        }
        if !state.senders.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.senders.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl fmt::Debug for ChannelPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelPoller")
    }
}

/// Where a transport finds the other end of its channel. A loopback address: packets there may be as long as they can be.
pub const CHANNEL_ADDR: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 83, 83, 72), 22));

/// 4 MiB: OpenSSH lets 2 MiB of a session be under way, and the pipes and sockets around it hold the rest. More would wait
/// there and delay calls.
const MAX_IN_FLIGHT_BYTES: usize = 4 << 20;

/// 256 KiB, and as much again that is being written: enough that the writing thread never waits for the next packet, and
/// little beside what ssh itself holds.
const MAX_OUTGOING_BYTES: usize = 256 << 10;

/// 1 MiB: what is in flight waits in ssh, not here.
const MAX_INCOMING_BYTES: usize = 1 << 20;

/// 128 KiB: two pipes full.
const READ_LEN_BYTES: usize = 128 << 10;

/// 16 packets for each time that quinn is asked: with packets of 64 KiB the socket above allows one.
const MAX_SEGMENTS: usize = 16;

/// 1 s: after a stop, the reading thread has read something by then.
const READ_GRACE: Duration = Duration::from_secs(1);

/// 15 s: how often a side that sends nothing else shows that it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A pipe within this process, which holds a bounded number of writes.
    fn pipe(holds: usize) -> (PipeReader, PipeWriter) {
        let (send, recv) = mpsc::sync_channel(holds);
        (PipeReader { recv, rest: Vec::new() }, PipeWriter(send))
    }

    struct PipeReader {
        recv: mpsc::Receiver<Vec<u8>>,
        rest: Vec<u8>,
    }

    struct PipeWriter(mpsc::SyncSender<Vec<u8>>);

    impl Read for PipeReader {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.rest.is_empty() {
                let Ok(next) = self.recv.recv() else { return Ok(0) };
                self.rest = next;
            }
            let len = self.rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&self.rest[..len]);
            self.rest.drain(..len);
            Ok(len)
        }
    }

    impl Write for PipeWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn send(channel: &Channel, packet: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: CHANNEL_ADDR,
            ecn: None,
            contents: packet,
            segment_size: None,
            src_ip: None,
        };
        ChannelSocket(Arc::clone(&channel.shared)).try_send(&transmit)
    }

    async fn receive(channel: &Channel) -> Vec<u8> {
        let socket = ChannelSocket(Arc::clone(&channel.shared));
        let mut buffer = vec![0; 1 << 16];
        std::future::poll_fn(|cx| {
            let (mut bufs, mut meta) = ([IoSliceMut::new(&mut buffer)], [RecvMeta::default()]);
            socket.poll_recv(cx, &mut bufs, &mut meta).map(|received| {
                assert_eq!(received.unwrap(), 1);
                meta[0].len
            })
        })
        .await
        .pipe(|len| buffer[..len].to_vec())
    }

    trait Pipe: Sized {
        fn pipe<T>(self, then: impl FnOnce(Self) -> T) -> T {
            then(self)
        }
    }

    impl Pipe for usize {}

    #[tokio::test]
    async fn packets_arrive_in_order_and_the_end_of_the_stream_is_the_end() {
        let ((near_read, far_write), (far_read, near_write)) = (pipe(4), pipe(4));
        let near = Channel::start(near_read, near_write).unwrap();
        let far = Channel::start(far_read, far_write).unwrap();
        for n in 0..100_u8 {
            send(&near, &[n; 50]).unwrap();
        }
        for n in 0..100_u8 {
            assert_eq!(receive(&far).await, [n; 50]);
        }
        near.close();
        assert_eq!((near.ended().await, far.ended().await), (ChannelEnd::Closed, ChannelEnd::Ended));
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_blocks_and_drops_nothing() {
        let ((near_read, _far_write), (mut far_read, near_write)) = (pipe(0), pipe(0));
        let near = Channel::start(near_read, near_write).unwrap();
        let packet = vec![7; 60_000];
        let mut sent = 0;
        while send(&near, &packet).is_ok() {
            sent += 1;
            assert!(sent < 100, "without bound");
        }
        let writable = async {
            let socket = Arc::new(ChannelSocket(Arc::clone(&near.shared)));
            let mut poller = socket.create_io_poller();
            std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        };
        let reading = thread::spawn(move || {
            let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
            while read < sent * (packet.len() + 4) {
                read += far_read.read(&mut buffer).unwrap();
            }
            (read, far_read)
        });
        writable.await;
        let (read, _far_read) = tokio::task::spawn_blocking(move || reading.join().unwrap()).await.unwrap();
        assert_eq!(read, sent * 60_004, "each packet has left, once");
    }

    #[tokio::test]
    async fn text_from_elsewhere_ends_it() {
        let (read, mut write) = pipe(1);
        let channel = Channel::start(read, io::sink()).unwrap();
        write.write_all(b"Message from root@host: reboot\n").unwrap();
        assert_eq!(channel.ended().await, ChannelEnd::Garbled);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_and_a_sign_of_life_is_none() {
        let (read, mut write) = pipe(1);
        let channel = Channel::start(read, io::sink()).unwrap();
        let began = tokio::time::Instant::now();
        channel.silent_for(Duration::ZERO).await;
        assert_eq!(began.elapsed(), READ_GRACE);
        let heard_at = channel.shared.state().heard_at;
        let mut silent = std::pin::pin!(channel.silent_for(Duration::from_secs(3600)));
        tokio::select! {
            biased;
            () = &mut silent => panic!("it has just begun"),
            () = std::future::ready(()) => {}
        }
        let mut frame = Vec::new();
        super::write(b"", &mut frame);
        write.write_all(&frame).unwrap();
        while channel.shared.state().heard_at == heard_at {
            thread::yield_now();
        }
        assert!(tokio::time::timeout(Duration::from_secs(5400), silent).await.is_err());
    }

    /// Counts what is written.
    struct Counted(PipeWriter, Arc<std::sync::atomic::AtomicUsize>);

    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.fetch_add(bytes.len(), std::sync::atomic::Ordering::Relaxed);
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    #[tokio::test]
    async fn a_connection_begins_without_packets_that_only_try_their_size() {
        let ((near_read, far_write), (far_read, near_write)) = (pipe(64), pipe(64));
        let written: [Arc<std::sync::atomic::AtomicUsize>; 2] = Default::default();
        let near = Channel::start(near_read, Counted(near_write, Arc::clone(&written[0]))).unwrap();
        let far = Channel::start(far_read, Counted(far_write, Arc::clone(&written[1]))).unwrap();
        let bind = |channel: &Channel| {
            let builder =
                crate::QuicTransport::builder().trust(crate::Trust::ask(|_| crate::Admission::Trusted));
            builder.channel(channel).bind(CHANNEL_ADDR).unwrap()
        };
        let (near, far) = (bind(&near), bind(&far));
        let server = crate::PeerAddr { id: far.peer_id(), addr: CHANNEL_ADDR };
        let (dialled, accepted) = tokio::join!(near.connect_to(server), far.accept());
        let (dialled, (_, accepted)) = (dialled.unwrap(), accepted.unwrap());
        let (sent, received) =
            tokio::join!(dialled.send(bytes::Bytes::from_static(b"hello")), accepted.recv());
        sent.unwrap();
        received.unwrap();
        assert_eq!(dialled.stats().path.datagram_len_bytes, crate::LOCAL_DATAGRAM_LEN_BYTES);
        for written in written {
            let written = written.load(std::sync::atomic::Ordering::Relaxed);
            assert!(written < 10_000, "a handshake and a message are {written} bytes");
        }
    }

    #[tokio::test]
    async fn a_stream_that_cannot_be_written_ends_it() {
        let ((read, _write), (_, broken)) = (pipe(1), pipe(1));
        let channel = Channel::start(read, broken).unwrap();
        send(&channel, b"packet").unwrap();
        assert_eq!(channel.ended().await, ChannelEnd::Ended);
        send(&channel, b"packet").unwrap();
    }
}
