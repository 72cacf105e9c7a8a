//! The base for another dialect: QUIC connections under TLS settings of its own, over this crate's socket,
//! windows, streams and lanes.
//!
//! For `shiplane-octopii` alone. Nothing here asks a [`Trust`](crate::Trust), and nothing of it is promised to stay.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use shiplane_wire::{Code, Offer};
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    time::timeout,
};

pub use crate::tls::dialect::{client_tls, server_tls, signature_algorithms};
use crate::{
    BindError, ConnectError, ConnectionEnd, LaneOptions, RecvChunkError, SendChunkError, StreamError,
    TransportConfig, close,
    config::{FIRST_WINDOW_BYTES, LANE_PRIORITY, RETRY_ABOVE_HANDSHAKES},
    endpoint::{Seams, bind_endpoint, connect_error},
    error::SinkError,
    lane,
    lane::send::SentChunk,
    locality::Locality,
    pool::DialKey,
    quic,
    sink::{ChunkSink, FileSink, MemorySink},
    source::ChunkRead,
    stream::{BiStream, InUse},
    tls::TlsError,
};

/// Dials and accepts connections over one UDP socket. Dropped, it closes its connections.
#[derive(Debug)]
pub struct BareEndpoint {
    endpoint: quinn::Endpoint,
    config: Arc<TransportConfig>,
    quic: Arc<quinn::TransportConfig>,
    accepted: Mutex<mpsc::Receiver<quinn::Connection>>,
}

impl BareEndpoint {
    /// Binds the socket and begins to accept. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError::Socket`] or [`BindError::Tls`].
    pub fn bind(
        addr: SocketAddr,
        config: Arc<TransportConfig>,
        tls: rustls::ServerConfig,
    ) -> Result<Self, BindError> {
        let crypto = QuicServerConfig::try_from(tls).map_err(|_| TlsError::NoInitialSuite)?;
        let path = quic::Path::new(&config, Locality::Elsewhere, config.udp_buffer_len_bytes);
        let mut quic = quic::settings(&config, &path);
        // Until somebody takes the connection, a stranger can make us hold next to nothing.
        quic.max_concurrent_bidi_streams(0u32.into());
        quic.receive_window(FIRST_WINDOW_BYTES.into());
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(quic)).max_incoming(config.max_incoming_handshakes);

        let (endpoint, _) = bind_endpoint(addr, &config, Seams::default(), None)
            .map_err(|source| BindError::Socket { addr, source })?;
        endpoint.set_server_config(Some(server));
        let quic = Arc::new(quic::settings(&config, &path));
        let (outlet, accepted) = mpsc::channel(ACCEPTED_LEN);
        tokio::spawn(accept_loop(endpoint.clone(), Arc::clone(&config), outlet));
        Ok(Self { endpoint, config, quic, accepted: accepted.into() })
    }

    /// Dials `addr`. Cancel-safe. Returns within the handshake timeout.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        addr: SocketAddr,
        server_name: &str,
        tls: rustls::ClientConfig,
    ) -> Result<BareConnection, ConnectError> {
        let crypto = QuicClientConfig::try_from(tls)
            .map_err(|_| ConnectError::Tls(Arc::new(TlsError::NoInitialSuite)))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::clone(&self.quic));
        let connecting = self
            .endpoint
            .connect_with(client, addr, server_name)
            .map_err(|reason| ConnectError::CannotDial { addr, reason: Arc::new(reason) })?;
        let handshake_timeout = self.config.handshake_timeout;
        let connection = timeout(handshake_timeout, connecting)
            .await
            .map_err(|_| ConnectError::TimedOut { addr, timeout: handshake_timeout })?
            .map_err(|error| connect_error(DialKey { addr, pin: None }, error))?;
        Ok(BareConnection::new(connection, &self.config))
    }

    /// The next incoming connection; `None` once the endpoint is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<BareConnection> {
        let connection = self.accepted.lock().await.recv().await?;
        connection.set_receive_window(self.config.connection_receive_window_bytes.into());
        connection.set_max_concurrent_bi_streams(self.config.max_concurrent_streams.into());
        Some(BareConnection::new(connection, &self.config))
    }

    /// The address of the socket.
    ///
    /// # Errors
    /// The system's, which is not expected of a bound socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes everything at once, in order; what is under way fails. Idempotent.
    pub fn close(&self) {
        self.endpoint.set_server_config(None);
        self.endpoint.close(close::varint(Code::NoError), b"");
    }

    /// As [`close`](Self::close), and waits up to a second for the close to reach the peers. Cancel-safe: it is closed at the
    /// first poll.
    pub async fn shutdown(&self) {
        self.close();
        // quinn forgets a closed connection after three probe timeouts, which a dead path makes long.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Drop for BareEndpoint {
    fn drop(&mut self) {
        self.close();
    }
}

/// An unauthenticated connection. Clones share it; it stays open until it is closed.
#[derive(Debug, Clone)]
pub struct BareConnection {
    connection: quinn::Connection,
    in_use: InUse,
    config: Arc<TransportConfig>,
}

impl BareConnection {
    fn new(connection: quinn::Connection, config: &Arc<TransportConfig>) -> Self {
        let in_use = InUse::new(connection.clone());
        Self { connection, in_use, config: Arc::clone(config) }
    }

    /// The settings of the endpoint.
    #[must_use]
    pub fn config(&self) -> &TransportConfig {
        &self.config
    }

    /// The peer's address.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Waits for the end and says why it came. Cancel-safe.
    pub async fn closed(&self) -> ConnectionEnd {
        ConnectionEnd::of(self.connection.closed().await)
    }

    /// Ends the connection at once; what is under way fails on both sides.
    pub fn close(&self, code: Code) {
        // quinn would forget why it ended.
        if !self.is_closed() {
            close::close(&self.connection, code);
        }
    }

    /// Whether no stream is open, so that a close loses nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_use.is_empty()
    }

    /// Waits until no stream is open. Cancel-safe.
    pub async fn drained(&self) {
        self.in_use.wait().await;
    }

    /// Opens a stream, within the progress timeout. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamError::TimedOut`] when the peer allows no more streams, or the connection's end.
    pub async fn open(&self) -> Result<BiStream, StreamError> {
        let progress_timeout = self.config.progress_timeout;
        let halves = timeout(progress_timeout, self.connection.open_bi())
            .await
            .map_err(|_| StreamError::TimedOut { timeout: progress_timeout })?
            .map_err(StreamError::of_end)?;
        Ok(BiStream::new(halves, &self.in_use))
    }

    /// The next stream that the peer opens; `None` once the connection has ended. Cancel-safe.
    pub async fn accept(&self) -> Option<BiStream> {
        let halves = self.connection.accept_bi().await.ok()?;
        Some(BiStream::new(halves, &self.in_use))
    }

    /// Sends a chunk on a stream of its own, without a stream header. The first byte of the answer is the status,
    /// whatever follows it.
    ///
    /// Not cancel-safe: dropping resets the stream.
    ///
    /// # Errors
    /// See [`SendChunkError`].
    pub async fn send_chunk<R: ChunkRead>(
        &self,
        source: R,
        options: &LaneOptions,
    ) -> Result<SentChunk, SendChunkError> {
        let mut stream = self.open().await?;
        stream.send.set_priority(LANE_PRIORITY);
        stream.recv.end_after(STATUS_LEN_BYTES);
        lane::send::send_chunk(stream, source, &self.config, options).await
    }

    /// Receives the chunk that comes on `stream` after its size.
    ///
    /// Not cancel-safe: dropping stops the stream.
    ///
    /// # Errors
    /// See [`RecvChunkError`]. [`RecvChunkError::Stream`] may come after the sink's commit.
    pub async fn recv_chunk<S: ChunkSink>(
        &self,
        stream: BiStream,
        offer: Offer,
        sink: S,
        options: &LaneOptions,
    ) -> Result<S::Output, RecvChunkError<S::Error>> {
        lane::recv::recv_chunk(stream, offer, sink, &self.config, options).await
    }

    /// Answers a chunk that is not taken with status 2 and this code. Dropped, it resets the stream, which refuses the chunk
    /// too.
    pub async fn refuse_chunk(&self, stream: BiStream, code: Code) {
        lane::recv::refuse_chunk(stream, code, self.config.progress_timeout).await;
    }
}

/// The code that [`BareConnection::refuse_chunk`] takes after this error.
#[must_use]
pub fn refusal_code(error: &RecvChunkError) -> Code {
    error.code()
}

/// Collects a chunk in memory.
pub fn memory_sink() -> impl ChunkSink<Output = Bytes, Error = SinkError> {
    MemorySink::default()
}

/// Writes a chunk to a new file. Blocking.
///
/// # Errors
/// `SinkError::Exists` when the name is taken.
pub fn file_sink(path: &Path) -> Result<impl ChunkSink<Output = (), Error = SinkError> + use<>, SinkError> {
    FileSink::create(path)
}

/// Takes handshakes as they come, each in a task of its own, until the endpoint is closed.
async fn accept_loop(
    endpoint: quinn::Endpoint,
    config: Arc<TransportConfig>,
    accepted: mpsc::Sender<quinn::Connection>,
) {
    let places = Arc::new(Semaphore::new(config.max_incoming_handshakes));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let under_way = config.max_incoming_handshakes - places.available_permits();
        if under_way > RETRY_ABOVE_HANDSHAKES && incoming.may_retry() {
            // An error means that it was validated meanwhile; the client tries again by itself.
            let _ = incoming.retry();
            continue;
        }
        let Ok(connecting) = incoming.accept() else {
            continue;
        };
        let (accepted, handshake_timeout) = (accepted.clone(), config.handshake_timeout);
        tokio::spawn(async move {
            let _place = place;
            // Dropped, a handshake is abandoned.
            let Ok(Ok(connection)) = timeout(handshake_timeout, connecting).await else {
                tracing::debug!("handshake failed");
                return;
            };
            tracing::debug!(addr = %connection.remote_address(), "unauthenticated connection accepted");
            if let Err(mpsc::error::TrySendError::Full(connection)) = accepted.try_send(connection) {
                close::close(&connection, Code::Busy);
            }
        });
    }
}

/// 64 connections that wait to be accepted: they come from strangers, and each costs memory.
const ACCEPTED_LEN: usize = 64;

/// How long peers may take to hear of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The status is all that a sender reads.
const STATUS_LEN_BYTES: usize = 1;
