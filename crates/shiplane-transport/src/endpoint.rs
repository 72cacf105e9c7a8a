//! A transport: one UDP socket, one identity, many peers.

mod bind;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use shiplane_wire::Code;
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};

pub(crate) use self::bind::{Seams, bind_endpoint};
use crate::{
    close,
    config::{
        FIRST_WINDOW_BYTES, GUEST_MAX_CONCURRENT_STREAMS, RETRY_ABOVE_HANDSHAKES, STREAMS_AT_FIRST,
        TransportConfig,
    },
    connection::{Origin, PeerConnection, Proof, router},
    error::{BindError, ConnectError, ConnectionEnd, MessageError},
    handshake_limiter::HandshakeLimiter,
    identity::{Identity, PeerAddr, PeerId},
    locality::{self, ByLocality, Locality},
    memory::MemoryPool,
    pool::{DialKey, DialResult, Pool},
    quic::{self, Path},
    tls::{self, HandshakeFault},
    trust::{Admission, Trust},
    window::{Borrowers, ConnectionMemoryBudgets, ConnectionWindows, DIALLED_RECEIVE_WINDOW_BYTES},
};

/// Dials and accepts connections to authenticated peers over one UDP socket.
///
/// Share it in an [`Arc`]. It needs a tokio runtime; on few cores a `current_thread` one is by far the
/// fastest, since a connection is driven by one task at a time.
#[derive(Debug)]
pub struct QuicTransport {
    inner: Arc<Inner>,
    accepted: Mutex<mpsc::Receiver<Arc<PeerConnection>>>,
}

#[derive(Debug)]
struct Inner {
    endpoint: quinn::Endpoint,
    identity: Identity,
    trust: Trust,
    config: Arc<TransportConfig>,
    dialling: ByLocality<Arc<quinn::TransportConfig>>,
    answering: ByLocality<Arc<quinn::ServerConfig>>,
    /// Whether the system knows the way to a peer: not if the network is a simulated one.
    asks_system: bool,
    pool: Arc<Pool>,
    handshakes: HandshakeLimiter,
    budgets: ConnectionMemoryBudgets,
    shutting_down: AtomicBool,
}

/// Makes a [`QuicTransport`] with an identity, a trust and settings of your own.
#[derive(Debug)]
pub struct TransportBuilder {
    identity: Option<Identity>,
    trust: Trust,
    pub(crate) config: TransportConfig,
    pub(crate) seams: Seams,
}

impl TransportBuilder {
    /// Uses this key instead of a fresh one.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets the keys to dial and to accept. The default is none.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Limits, windows and deadlines.
    #[must_use]
    pub fn config(mut self, config: TransportConfig) -> Self {
        self.config = config;
        self
    }

    /// This socket instead of one of the system's; the address given to [`bind`](Self::bind) is then ignored.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn socket(mut self, socket: Arc<dyn crate::simulation::Socket>) -> Self {
        self.seams.socket = Some(crate::simulation::for_quinn(socket));
        self
    }

    /// This socket, which is bound already; the address given to [`bind`](Self::bind) is then ignored.
    #[doc(hidden)]
    #[must_use]
    pub fn udp_socket(mut self, socket: std::net::UdpSocket) -> Self {
        self.seams.udp = Some(socket);
        self
    }

    /// A socket of quinn's kind, for tests of what is done with one.
    #[cfg(feature = "test-support")]
    #[doc(hidden)]
    #[must_use]
    pub fn quinn_socket(mut self, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Self {
        self.seams.socket = Some(socket);
        self
    }

    /// Makes QUIC's own random choices repeatable.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn rng_seed(mut self, seed: [u8; 32]) -> Self {
        self.seams.rng_seed = Some(seed);
        self
    }

    /// Binds the socket and begins to accept.
    ///
    /// # Errors
    /// [`BindError`]: the address is taken, or the identity or TLS set-up failed.
    pub fn bind(self, addr: SocketAddr) -> Result<QuicTransport, BindError> {
        let Self { identity, trust, config, seams } = self;
        let (asks_system, is_stream) = (seams.socket.is_none(), seams.is_stream);
        let identity = match identity {
            Some(identity) => identity,
            None => Identity::generate()?,
        };
        let (endpoint, buffer_len_bytes) = bind_endpoint(addr, &config, seams, Some(&identity))
            .map_err(|source| BindError::Socket { addr, source })?;
        let paths = ByLocality::new(|locality| match is_stream {
            true => Path::over_stream(&config, buffer_len_bytes),
            false => Path::new(&config, locality, buffer_len_bytes),
        });
        let dialling = paths.map(|path| Arc::new(quic::dialling(&config, path)));
        let answering = quic::answering(&identity, &trust, &config, &paths)?;
        endpoint.set_server_config(Some(answering.of(Locality::Elsewhere).clone()));
        let answering = answering.map(|server| Arc::new(server.clone()));
        let pool = Arc::new(Pool::new(identity.peer_id()));
        let handshakes = HandshakeLimiter::new(config.max_incoming_handshakes);
        let budget = |bytes: Option<u32>| bytes.map(|bytes| MemoryPool::new(bytes.into()));
        let budgets = ConnectionMemoryBudgets {
            receive: budget(config.receive_budget_bytes),
            send: budget(config.send_budget_bytes),
            borrowers: Borrowers::default(),
        };
        let config = Arc::new(config);
        let shutting_down = AtomicBool::new(false);
        let inner = Arc::new(Inner {
            endpoint,
            identity,
            trust,
            config,
            dialling,
            answering,
            asks_system,
            pool,
            handshakes,
            budgets,
            shutting_down,
        });
        let (outlet, accepted) = mpsc::channel(ACCEPTED_LEN);
        tokio::spawn(accept_loop(inner.endpoint.clone(), Arc::downgrade(&inner), outlet));
        tokio::spawn(upkeep(Arc::downgrade(&inner)));
        Ok(QuicTransport { inner, accepted: accepted.into() })
    }
}

impl QuicTransport {
    /// A transport with a fresh identity and no trusted keys: it accepts no connection and dials
    /// only peers whose key is given ([`connect_to`](Self::connect_to)). See
    /// [`builder`](Self::builder) for more.
    ///
    /// Nothing is left of it if the future is dropped.
    ///
    /// # Errors
    /// As [`TransportBuilder::bind`].
    #[expect(clippy::unused_async, reason = "part of the documented interface, which is async")]
    pub async fn new(bind_addr: SocketAddr) -> Result<Self, BindError> {
        Self::builder().bind(bind_addr)
    }

    /// Chooses identity, trust and settings.
    #[must_use]
    pub fn builder() -> TransportBuilder {
        TransportBuilder {
            identity: None,
            trust: Trust::none(),
            config: TransportConfig::default(),
            seams: Seams::default(),
        }
    }

    /// This transport's own id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.identity.peer_id()
    }

    /// The live connection to the peer at `addr`, dialled if there is none. Any key in [`Trust`] is accepted.
    ///
    /// Cancel-safe; concurrent calls share one handshake. Returns within the handshake timeout. A
    /// connection that has been quiet is asked for a sign of life first, which costs a round trip.
    ///
    /// # Errors
    /// See [`ConnectError`]; only a live connection is ever returned.
    pub async fn connect(&self, addr: SocketAddr) -> Result<Arc<PeerConnection>, ConnectError> {
        self.connect_key(DialKey { addr, pin: None }, Proof::First).await
    }

    /// The live connection to exactly this peer, dialled at its address if there is none.
    ///
    /// Cancel-safe, as [`connect`](Self::connect).
    ///
    /// # Errors
    /// [`ConnectError::WrongKey`] when another key answers there, and as [`connect`](Self::connect).
    pub async fn connect_to(&self, peer: PeerAddr) -> Result<Arc<PeerConnection>, ConnectError> {
        self.connect_key(DialKey { addr: peer.addr, pin: Some(peer.id) }, Proof::First).await
    }

    /// The next connection that a peer has made to us. Cancel-safe; never ends with an error of one
    /// peer.
    ///
    /// # Errors
    /// [`ConnectError::Abandoned`] once the transport is closed.
    pub async fn accept(&self) -> Result<(SocketAddr, Arc<PeerConnection>), ConnectError> {
        let next = self.accepted.lock().await.recv().await;
        let connection = next.ok_or(ConnectError::Abandoned)?;
        Ok((connection.remote_addr(), connection))
    }

    /// Sends a message to the peer at `addr` and waits until it has been taken.
    ///
    /// Not cancel-safe: dropped, whether the peer took the message is unknown.
    ///
    /// # Errors
    /// As [`connect`](Self::connect) and [`PeerConnection::send`].
    pub async fn send(&self, addr: SocketAddr, data: Bytes) -> Result<(), MessageError> {
        self.connect(addr).await?.send(data).await
    }

    /// The address on which this transport listens.
    ///
    /// # Errors
    /// The system's, which is not expected of a bound socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// Whether there is a live connection to the peer at `addr`.
    ///
    /// Cancel-safe.
    #[expect(clippy::unused_async, reason = "part of the documented interface, which is async")]
    pub async fn has_active_peer(&self, addr: SocketAddr) -> bool {
        self.is_connected(addr)
    }

    /// How many dials are under way, for tests.
    #[cfg(feature = "test-support")]
    #[doc(hidden)]
    #[must_use]
    pub fn dials_under_way(&self) -> usize {
        self.inner.pool.dials()
    }

    /// As [`has_active_peer`](Self::has_active_peer).
    #[doc(hidden)]
    #[must_use]
    pub fn is_connected(&self, addr: SocketAddr) -> bool {
        self.inner.pool.has(addr)
    }

    /// The number of open connections, pooled or not. One that has ended does not count, even while its
    /// last packets are on their way.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.inner.pool.live().iter().filter(|connection| !connection.is_closed()).count()
    }

    /// Those that are open, with peers that are admitted as more than guests.
    #[doc(hidden)]
    #[must_use]
    pub fn admitted(&self) -> Vec<Arc<PeerConnection>> {
        let mut live = self.inner.pool.live();
        live.retain(|connection| !connection.is_closed() && !connection.is_guest());
        live
    }

    /// The memory that windows are lent from, if it is limited: received and not read, sent and not acknowledged. Of
    /// each what is lent, and what may be.
    #[doc(hidden)]
    #[must_use]
    pub fn window_memory(&self) -> [Option<(u64, u64)>; 2] {
        let ConnectionMemoryBudgets { receive, send, .. } = &self.inner.budgets;
        [receive, send].map(|pool| pool.as_ref().map(|pool| (pool.used_bytes(), pool.total_bytes())))
    }

    /// Refuses new connections from now on. Those that are open stay.
    #[doc(hidden)]
    pub fn refuse_new(&self) {
        self.inner.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Closes every connection to this peer at once, as when its rights are withdrawn.
    pub fn close_peer(&self, peer: PeerId, code: Code) {
        for connection in self.inner.pool.live() {
            if connection.peer_id() == peer {
                connection.close(code);
            }
        }
    }

    /// Closes everything at once, in order; what is under way fails. Idempotent. See
    /// [`shutdown`](Self::shutdown) for the gentle way.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Accepts no more connections, lets open streams finish for at most `timeout`, then closes and
    /// waits until peers have been told.
    ///
    /// Not cancel-safe: dropped midway, call it again or [`close`](Self::close).
    pub async fn shutdown(&self, timeout: Duration) {
        self.refuse_new();
        let connections = self.inner.pool.live();
        let drained = async {
            for connection in &connections {
                connection.drained().await;
            }
        };
        // Connections that have not finished by then are cut off.
        let _ = tokio::time::timeout(timeout, drained).await;
        self.close();
        // Not until quinn has forgotten the connections: it does so after three probe timeouts, which is a second for a
        // dial that was abandoned.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.inner.pool.closed()).await;
    }

    /// As [`connect_to`](Self::connect_to), and returns as soon as this side has finished the handshake: the first
    /// stream can carry a request a round trip earlier. Whether the peer admits our key shows by the first answer;
    /// if it does not, the connection ends with [`Code::Unauthorised`] or [`Code::Busy`].
    ///
    /// Cancel-safe, as [`connect`](Self::connect).
    ///
    /// # Errors
    /// As [`connect_to`](Self::connect_to), but for the peer's refusal.
    #[doc(hidden)]
    pub async fn connect_early(&self, peer: PeerAddr) -> Result<Arc<PeerConnection>, ConnectError> {
        self.connect_key(DialKey { addr: peer.addr, pin: Some(peer.id) }, Proof::Later).await
    }

    /// A new connection to any key at `addr`, for a peer that then proves itself by a secret. Cancel-safe.
    /// # Errors
    /// As [`connect_early`](Self::connect_early), but for the key.
    #[doc(hidden)]
    pub async fn connect_unproven(&self, addr: SocketAddr) -> Result<Arc<PeerConnection>, ConnectError> {
        let until = Instant::now() + self.inner.config.handshake_timeout;
        let any = Trust::ask(|_| Admission::Trusted);
        self.inner.dial(DialKey { addr, pin: None }, Proof::Later, until, &any).await
    }

    async fn connect_key(&self, key: DialKey, proof: Proof) -> DialResult {
        let timeout = self.inner.config.handshake_timeout;
        let deadline = Instant::now() + timeout;
        if let Some(connection) = self.inner.pool.find(key) {
            if connection.answers(timeout / 2).await {
                return Ok(connection);
            }
            tracing::debug!(peer = %connection.peer_id().short(), "a pooled connection is dead");
            self.inner.pool.discard(&connection);
        }
        let inner = Arc::clone(&self.inner);
        self.inner
            .pool
            .get_or_dial(key, move || async move { inner.dial(key, proof, deadline, &inner.trust).await })
            .await
    }
}

impl Inner {
    async fn dial(&self, key: DialKey, proof: Proof, deadline: Instant, trust: &Trust) -> DialResult {
        let (addr, timeout) = (key.addr, self.config.handshake_timeout);
        let crypto = tls::client_crypto(&self.identity, trust, key.pin)
            .map_err(|error| ConnectError::Tls(Arc::new(error)))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        let ours = self.asks_system.then(|| locality::source_of(addr)).flatten();
        client.transport_config(Arc::clone(self.dialling.of(Locality::of(addr.ip(), ours))));
        let failed = |error: quinn::ConnectionError| connect_error(key, error);
        let handshake = async {
            let connecting = self
                .endpoint
                .connect_with(client, addr, tls::SERVER_NAME)
                .map_err(|reason| ConnectError::CannotDial { addr, reason: Arc::new(reason) })?;
            let connection = connecting.await.map_err(failed)?;
            // A TLS 1.3 client is done before the server has judged its key.
            if proof == Proof::First {
                close::knock(&connection).await.map_err(failed)?;
            }
            Ok(connection)
        };
        let connection = tokio::time::timeout_at(deadline, handshake)
            .await
            .map_err(|_| ConnectError::TimedOut { addr, timeout })??;
        let peer = tls::peer_id_of_connection(&connection)
            .ok_or(ConnectError::WrongKey { addr, expected: key.pin })?;
        Ok(self.establish(connection, peer, Origin::Dialled(proof), Admission::Trusted))
    }

    /// Wraps a connection whose handshake is complete and starts its router.
    fn establish(
        &self,
        connection: quinn::Connection,
        peer: PeerId,
        origin: Origin,
        admission: Admission,
    ) -> Arc<PeerConnection> {
        let config = Arc::clone(&self.config);
        let (inboxes, feed) = self.pool.inboxes(peer, || router::inboxes(config.header_timeout));
        let (budgets, max_receive_bytes) = (self.budgets.clone(), config.connection_receive_window_bytes);
        let windows =
            ConnectionWindows::new(connection.clone(), budgets, max_receive_bytes, config.send_window_bytes);
        if admission == Admission::Trusted {
            windows.open(match origin {
                Origin::Dialled(_) => DIALLED_RECEIVE_WINDOW_BYTES,
                Origin::Accepted => FIRST_WINDOW_BYTES.into(),
            });
        }
        let (origin, traffic) = ((origin, admission), self.pool.traffic(connection.clone()));
        let new = PeerConnection::new(connection, peer, origin, inboxes, windows, traffic, config);
        let new = Arc::new(new);
        new.route(feed);
        new
    }

    /// A peer's handshake has begun.
    async fn answer(&self, connecting: quinn::Connecting) -> Option<Arc<PeerConnection>> {
        let connection = tokio::time::timeout(self.config.handshake_timeout, connecting)
            .await
            .ok()? // Dropped, the handshake is abandoned.
            .map_err(|error| tracing::debug!(error = %ConnectionEnd::of(error), "handshake failed"))
            .ok()?;
        let peer = tls::peer_id_of_connection(&connection)?;
        // Asked again: the answer may have changed since the handshake began.
        let admission = self.trust.admit(&peer);
        let streams = match admission {
            Admission::Trusted => self.config.max_concurrent_streams.min(STREAMS_AT_FIRST),
            Admission::Guest => GUEST_MAX_CONCURRENT_STREAMS,
            Admission::Refused => {
                close::close(&connection, Code::Unauthorised);
                return None;
            }
        };
        // SPEC 1.11
        let (all, of_peer) = self.pool.count(peer);
        if all >= self.config.max_connections || of_peer >= self.config.max_connections_per_peer {
            tracing::warn!(peer = %peer.short(), all, of_peer, "too many connections");
            close::close(&connection, Code::Busy);
            return None;
        }
        let addr = connection.remote_address();
        let new = self.establish(connection.clone(), peer, Origin::Accepted, admission);
        self.pool.admit(Arc::clone(&new), addr);
        // Revoked since: who did that has closed what was there by then, and this was not.
        if self.trust.admit(&peer) == Admission::Refused {
            close::close(&connection, Code::Unauthorised);
            return None;
        }
        connection.set_max_concurrent_bi_streams(streams.into());
        tracing::debug!(peer = %peer.short(), %addr, ?admission, "connection accepted");
        Some(new)
    }

    fn close(&self) {
        self.endpoint.set_server_config(None);
        self.pool.give_way();
        self.endpoint.close(close::varint(Code::NoError), b"");
    }
}

impl Drop for QuicTransport {
    /// Not `Inner`'s: a dial that is under way holds that for a while.
    fn drop(&mut self) {
        self.inner.close();
    }
}

/// Takes handshakes as they come, each in a task of its own, until the transport is closed.
async fn accept_loop(
    endpoint: quinn::Endpoint,
    inner: Weak<Inner>,
    accepted: mpsc::Sender<Arc<PeerConnection>>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let Some(inner) = inner.upgrade() else { return };
        if inner.shutting_down.load(Ordering::Relaxed) {
            incoming.refuse(); // So that the client does not wait for an answer.
            continue;
        }
        if inner.handshakes.under_way() >= RETRY_ABOVE_HANDSHAKES && incoming.may_retry() {
            // An error means that it was validated meanwhile; the client tries again by itself.
            let _ = incoming.retry();
            continue;
        }
        let Some(place) = inner.handshakes.enter(incoming.remote_address().ip()) else {
            incoming.ignore();
            continue;
        };
        let locality = Locality::of(incoming.remote_address().ip(), incoming.local_ip());
        let Ok(connecting) = incoming.accept_with(Arc::clone(inner.answering.of(locality))) else {
            continue;
        };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let connection = inner.answer(connecting).await;
            drop(place);
            if let Some(connection) = connection {
                // Full: connections are not accepted. This one stays reachable through the pool.
                let _ = accepted.try_send(connection);
            }
        });
    }
}

/// Drops unused connections.
async fn upkeep(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.pool.drop_idle(POOL_IDLE_TIMEOUT);
    }
}

/// What the end of a handshake means to the one who dialled.
pub(crate) fn connect_error(key: DialKey, error: quinn::ConnectionError) -> ConnectError {
    let addr = key.addr;
    match tls::classify(&error) {
        HandshakeFault::WrongKey => ConnectError::WrongKey { addr, expected: key.pin },
        HandshakeFault::UntrustedKey => ConnectError::Untrusted { addr },
        HandshakeFault::RefusedByPeer => ConnectError::Refused { addr },
        HandshakeFault::WrongProtocol => ConnectError::WrongProtocol { addr },
        HandshakeFault::Other => ConnectError::of_end(addr, ConnectionEnd::of(error)),
    }
}

/// Accepted connections that wait for `accept`; more stay reachable through the pool.
const ACCEPTED_LEN: usize = 1024;

/// How long peers may take to hear of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Much shorter than the five minutes below, and rare enough to cost nothing.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Five minutes: dialling anew costs two round trips.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
