//! A connection to one authenticated peer.

mod chunk_order;
mod engine;
mod inbound;
pub(crate) mod router;
mod transfers;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shiplane_wire::{Code, StreamHeader, StreamKind, limits};
use tokio::{sync::mpsc, time::Instant};

pub use self::inbound::{AlreadyClaimed, ChunkExpectation, Claim, InboundChunk, TransferStream};
use self::{chunk_order::ChunkOrder, transfers::Transfers};
use crate::{
    close,
    config::{LANE_PRIORITY, TransportConfig},
    error::{ConnectionEnd, MessageError, RecvChunkError, SendChunkError, SinkError, StreamError},
    identity::PeerId,
    lane::{LaneOptions, send::SentChunk, send::send_chunk},
    meter::watched,
    sink::{ChunkSink, FileSink, MemorySink, WriterSink},
    source::{ChunkRead, ChunkSource},
    stream::{BiStream, InUse},
    traffic::Traffic,
    trust::Admission,
    window::ConnectionWindows,
};

/// A connection to a peer: chunks down the lane, messages, and streams for the layers above.
///
/// Kept alive by the transport's pool and its holders; when the last is gone, it closes in order.
#[derive(Debug)]
pub struct PeerConnection {
    connection: quinn::Connection,
    peer_id: PeerId,
    origin: Origin,
    guest: AtomicBool,
    inboxes: Arc<Inboxes>,
    windows: Arc<ConnectionWindows>,
    traffic: Traffic,
    /// The streams opened here, and those that the peer opened.
    ours: InUse,
    theirs: InUse,
    /// When the peer last proved that it is there.
    heard: tokio::sync::Mutex<Option<Instant>>,
    order: ChunkOrder,
    config: Arc<TransportConfig>,
}

/// Where classified streams wait for their takers. One of each kind a peer: when two dials have
/// crossed, what arrives on either connection is found on both.
#[derive(Debug)]
pub(crate) struct Inboxes {
    pub(crate) bare: tokio::sync::Mutex<mpsc::Receiver<(u64, BiStream)>>,
    pub(crate) messages: tokio::sync::Mutex<mpsc::Receiver<(u32, BiStream)>>,
    pub(crate) calls: tokio::sync::Mutex<mpsc::Receiver<InboundCall>>,
    pub(crate) transfers: Arc<Transfers>,
}

/// An incoming RPC request: its header has been read, its body has not.
#[derive(Debug)]
pub struct InboundCall {
    /// Whether an answer is due.
    pub kind: CallKind,
    /// Length of the body, within the limit.
    pub body_len_bytes: u32,
    /// Body and answer.
    pub stream: BiStream,
    /// Weak: an untaken call must not keep its own connection alive.
    pub(crate) connection: Weak<PeerConnection>,
}

impl InboundCall {
    /// The connection of the call; `None` if it has been dropped. A peer may have several connections, e.g. from
    /// two programs with one key; one queue holds the calls of all.
    #[must_use]
    pub fn connection(&self) -> Option<Arc<PeerConnection>> {
        self.connection.upgrade()
    }
}

/// The two kinds of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Answered on the same stream.
    Call,
    /// Answered by FIN alone.
    OneWay,
}

/// Who made a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer.
    Accepted,
    /// This side.
    Dialled(Proof),
}

/// When a dialler learns that it is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Before it has the connection.
    First,
    /// By the answer to what it asks for first.
    Later,
}

/// Counters of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The path below the connection.
    pub path: PathStats,
    /// UDP payload bytes sent, retransmissions and acknowledgements included.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
}

/// Estimates of the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The congestion window, in bytes.
    pub congestion_window_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets of ours that were lost and sent again.
    pub lost_packets: u64,
    /// The largest UDP payload that the path is known to carry.
    pub datagram_len_bytes: u16,
}

impl PeerConnection {
    pub(crate) fn new(
        connection: quinn::Connection,
        peer_id: PeerId,
        (origin, admission): (Origin, Admission),
        inboxes: Arc<Inboxes>,
        windows: Arc<ConnectionWindows>,
        traffic: Traffic,
        config: Arc<TransportConfig>,
    ) -> Self {
        let in_use = || InUse::with_windows(connection.clone(), Some(Arc::clone(&windows)));
        let (ours, theirs) = (in_use(), in_use());
        let heard = (origin != Origin::Dialled(Proof::Later)).then(Instant::now);
        Self {
            connection,
            peer_id,
            origin,
            guest: AtomicBool::new(admission != Admission::Trusted),
            inboxes,
            windows,
            traffic,
            ours,
            theirs,
            heard: heard.into(),
            order: ChunkOrder::default(),
            config,
        }
    }

    /// The id of the peer, proven by the handshake.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The peer's current address; it may change when the peer's network does. An IPv4 address is shown as one, also on a socket
    /// of both families.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        match self.connection.remote_address() {
            SocketAddr::V6(addr) => match addr.ip().to_ipv4_mapped() {
                Some(ip) => (ip, addr.port()).into(),
                None => addr.into(),
            },
            addr => addr,
        }
    }

    /// Whether this side dialled.
    #[must_use]
    pub fn is_dialled_here(&self) -> bool {
        matches!(self.origin, Origin::Dialled(_))
    }

    /// Whether the peer has been admitted as a guest only (SPEC 1.7).
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.guest.load(Ordering::Acquire)
    }

    /// The peer has opened its first stream.
    pub(crate) fn is_used(&self) {
        if !self.is_guest() {
            self.connection.set_max_concurrent_bi_streams(self.config.max_concurrent_streams.into());
        }
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<ConnectionEnd> {
        self.connection.close_reason().map(ConnectionEnd::of)
    }

    /// Waits for the end and says why it came. Cancel-safe.
    pub async fn closed(&self) -> ConnectionEnd {
        ConnectionEnd::of(self.connection.closed().await)
    }

    /// Ends the connection at once; what is under way fails on both sides. [`Code::NoError`] is an
    /// orderly end. Let transfers finish before.
    pub fn close(&self, code: Code) {
        close::close(&self.connection, code);
    }

    /// Counters since the handshake.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let stats = self.connection.stats();
        ConnectionStats {
            path: PathStats {
                rtt: stats.path.rtt,
                congestion_window_bytes: stats.path.cwnd,
                sent_packets: stats.path.sent_packets,
                lost_packets: stats.path.lost_packets,
                datagram_len_bytes: stats.path.current_mtu,
            },
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        }
    }

    /// Sends a bare chunk and waits until the receiver has verified it. Returns its size in bytes.
    ///
    /// Not cancel-safe: dropping resets the stream, and the receiver keeps nothing.
    ///
    /// # Errors
    /// See [`SendChunkError`]; each variant says whether another try may help.
    pub async fn send_chunk_verified(&self, chunk: &ChunkSource) -> Result<u64, SendChunkError> {
        self.send_chunk_with(chunk, &LaneOptions::default()).await
    }

    /// As [`send_chunk_verified`](Self::send_chunk_verified), with progress or a rate limit.
    ///
    /// Not cancel-safe: dropping resets the stream, and the receiver keeps nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn send_chunk_with(
        &self,
        chunk: &ChunkSource,
        options: &LaneOptions,
    ) -> Result<u64, SendChunkError> {
        let sent = self.send_frame(Bytes::new(), chunk.opened().await?, LANE_PRIORITY, options).await?;
        Ok(sent.len_bytes)
    }

    /// Receives the next bare chunk into memory; `None` after the connection's orderly end.
    ///
    /// Cancel-safe until a chunk has begun to arrive; dropping later rejects that chunk.
    ///
    /// # Errors
    /// See [`RecvChunkError`]. The connection remains usable unless it says otherwise.
    pub async fn recv_chunk_verified(&self) -> Result<Option<Bytes>, RecvChunkError> {
        self.recv_chunk_expecting(&ChunkExpectation::default()).await
    }

    /// As [`recv_chunk_verified`](Self::recv_chunk_verified), but refuses a chunk of another size or
    /// digest than was agreed on, *before* the sender sees success.
    ///
    /// Cancel-safe until a chunk has begun to arrive; dropping later rejects that chunk.
    ///
    /// # Errors
    /// [`RecvChunkError::Frame`] for the size, `SinkError::WrongDigest` inside [`RecvChunkError::Sink`],
    /// and as there.
    pub async fn recv_chunk_expecting(
        &self,
        expected: &ChunkExpectation,
    ) -> Result<Option<Bytes>, RecvChunkError> {
        self.recv_bare(expected, || Ok(MemorySink::default())).await
    }

    /// Receives the next bare chunk into a new file at `path`, in bounded memory; `false` after the
    /// connection's orderly end. The file appears whole, verified and synced, or not at all.
    ///
    /// Cancel-safe until a chunk has begun to arrive; dropping later rejects that chunk and leaves no file.
    ///
    /// # Errors
    /// `SinkError::Exists` inside [`RecvChunkError::Sink`] when the name is taken, and as
    /// [`recv_chunk_verified`](Self::recv_chunk_verified).
    pub async fn recv_chunk_to_path(&self, path: &Path) -> Result<bool, RecvChunkError> {
        let path = path.to_owned();
        let received = self.recv_bare(&ChunkExpectation::any_size(), move || FileSink::create(&path)).await?;
        Ok(received.is_some())
    }

    /// Receives the next bare chunk into `writer`, in bounded memory, and gives it back; `None` after
    /// the connection's orderly end. What was written counts only once this returns `Ok`.
    ///
    /// Cancel-safe until a chunk has begun to arrive; dropping later rejects that chunk, of which the writer may have a part.
    ///
    /// # Errors
    /// As [`recv_chunk_verified`](Self::recv_chunk_verified).
    pub async fn recv_chunk_to_writer<W: std::io::Write + Send + 'static>(
        &self,
        writer: W,
    ) -> Result<Option<W>, RecvChunkError> {
        self.recv_bare(&ChunkExpectation::any_size(), || Ok(WriterSink(writer))).await
    }

    /// Sends a message of at most 1 MiB and waits until the peer's [`recv`](Self::recv) has taken it.
    ///
    /// Not cancel-safe: dropped midway, whether the peer gets it is unknown.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`] names the lane, where larger things go.
    pub async fn send(&self, data: Bytes) -> Result<(), MessageError> {
        let too_large = |_| MessageError::TooLarge {
            len_bytes: data.len(),
            max_bytes: limits::MAX_MESSAGE_LEN_BYTES as usize,
        };
        let header = StreamHeader::new(StreamKind::Message, data.len() as u64).map_err(too_large)?;
        let mut stream = self.open_stream(Bytes::copy_from_slice(&header.encode())).await?;
        let progress_timeout = self.config.progress_timeout;
        stream.send.write_within(data, progress_timeout).await?;
        stream.send.finish()?;
        stream.send.delivered(progress_timeout).await?;
        match stream.recv.read_within(progress_timeout).await? {
            None => Ok(()),
            Some(_) => {
                stream.recv.stop(Code::Protocol);
                Err(StreamError::TooLong { max_bytes: 0 }.into())
            }
        }
    }

    /// The peer's next message; `None` after the connection's orderly end.
    ///
    /// Cancel-safe until a message has begun to arrive.
    ///
    /// # Errors
    /// [`MessageError::Stream`] when the message did not arrive whole.
    pub async fn recv(&self) -> Result<Option<Bytes>, MessageError> {
        let next = self.inboxes.messages.lock().await.recv().await;
        let Some((len_bytes, mut stream)) = next else {
            return self.orderly_end().await.map(|()| None).map_err(MessageError::Stream);
        };
        let timeout = self.config.progress_timeout;
        let read = tokio::time::timeout(timeout, stream.recv.read_to_end(len_bytes as usize)).await;
        let data = match read.unwrap_or(Err(StreamError::TimedOut { timeout })) {
            Ok(data) if data.len() == len_bytes as usize => data,
            Ok(data) => {
                stream.reject(Code::Protocol);
                let (received_bytes, expected_bytes) = (data.len() as u64, len_bytes.into());
                return Err(MessageError::Truncated { received_bytes, expected_bytes });
            }
            Err(error) => {
                stream.reject(error.answer());
                return Err(error.into());
            }
        };
        stream.send.finish()?;
        Ok(Some(data))
    }

    async fn halves(&self) -> Result<(quinn::SendStream, quinn::RecvStream), StreamError> {
        let timeout = self.config.progress_timeout;
        let mut opened = std::pin::pin!(self.connection.open_bi());
        loop {
            tokio::select! {
                biased;
                opened = &mut opened => return opened.map_err(StreamError::of_end),
                () = self.ours.wait() => {}
            }
            match tokio::time::timeout(timeout, &mut opened).await {
                Ok(opened) => return opened.map_err(StreamError::of_end),
                // Not one was open for so long, nor is one now: the peer grants none.
                Err(_) if self.ours.is_empty() => return Err(StreamError::TimedOut { timeout }),
                Err(_) => {}
            }
        }
    }

    /// Waits until no stream is open, so that a close loses nothing. Cancel-safe.
    pub async fn drained(&self) {
        drained(&self.ours, &self.theirs).await;
    }

    /// Whether the peer gives a sign of life within `timeout`, or has done so a moment ago. One that
    /// was restarted says that it knows nothing of this connection; one that is gone says nothing.
    pub(crate) async fn answers(&self, timeout: Duration) -> bool {
        let answered = async {
            let mut heard = self.heard.lock().await; // Who comes meanwhile shares the answer.
            if self.is_closed() {
                return false;
            }
            // What is under way notices by itself when it gets nowhere.
            if heard.is_some_and(|heard| heard.elapsed() < BELIEVED_FOR) || !self.is_unused() {
                return true;
            }
            let answered = close::knock(&self.connection).await.is_ok();
            if answered {
                *heard = Some(Instant::now());
            }
            answered
        };
        tokio::time::timeout(timeout, answered).await.unwrap_or(false)
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.ours.is_empty() && self.theirs.is_empty()
    }

    pub(crate) fn stable_id(&self) -> usize {
        self.connection.stable_id()
    }

    pub(crate) fn watch_end(&self) -> impl Future<Output = ()> + Send + 'static {
        let connection = self.connection.clone();
        async move {
            connection.closed().await;
        }
    }

    /// What is left of it once its last holder is gone: it may still have something to deliver.
    pub(crate) fn raw(&self) -> quinn::Connection {
        self.connection.clone()
    }

    async fn send_frame(
        &self,
        opening: Bytes,
        source: impl ChunkRead,
        priority: i32,
        options: &LaneOptions,
    ) -> Result<SentChunk, SendChunkError> {
        let Some(meter) = &options.meter else {
            let mut stream = self.open_stream(opening).await?;
            stream.send.set_priority(priority);
            return send_chunk(stream, source, &self.config, options).await;
        };
        let mut stream = BiStream::new(self.halves().await?, &self.ours);
        stream.send.set_priority(priority);
        stream.count(meter);
        let config = watched(&self.config);
        stream.send.write_within(opening, config.progress_timeout).await?;
        send_chunk(stream, source, &config, options).await
    }

    async fn recv_bare<S: ChunkSink<Error = SinkError>>(
        &self,
        expected: &ChunkExpectation,
        make_sink: impl FnOnce() -> Result<S, SinkError> + Send + 'static,
    ) -> Result<Option<S::Output>, RecvChunkError> {
        match self.next_chunk().await? {
            Some(chunk) => chunk.receive_made(expected, make_sink, &LaneOptions::default()).await.map(Some),
            None => Ok(None),
        }
    }

    /// `Ok` when the connection ended on purpose.
    async fn orderly_end(&self) -> Result<(), StreamError> {
        let end = self.closed().await;
        if end.is_orderly() { Ok(()) } else { Err(end.into()) }
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        // The router and quinn hold the connection too: close it explicitly. What was
        // sent last must still arrive: a close discards what has not been acknowledged.
        let connection = self.connection.clone();
        let close = move || close::close(&connection, Code::NoError);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !self.is_unused() && !self.is_closed() => {
                let (ours, theirs) = (self.ours.clone(), self.theirs.clone());
                let timeout = self.config.progress_timeout;
                runtime.spawn(async move {
                    let _ = tokio::time::timeout(timeout, drained(&ours, &theirs)).await;
                    close();
                });
            }
            _ => close(),
        }
    }
}

/// Longer than a round trip, shorter than a restart.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

async fn drained(ours: &InUse, theirs: &InUse) {
    // A stream of one kind may end in one of the other, as a call does in its handler's.
    while !(ours.is_empty() && theirs.is_empty()) {
        ours.wait().await;
        theirs.wait().await;
    }
}
