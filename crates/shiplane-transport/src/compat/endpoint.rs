//! An endpoint of the octopii dialect: one UDP socket, nobody's identity.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use shiplane_wire::Code;
use tokio::{
    sync::{Mutex, Semaphore, mpsc},
    time::timeout,
};

use super::{
    certificate,
    connection::InsecureOctopiiConnection,
    error::{OctopiiBindError, OctopiiConnectError},
    intake::Policy,
};
use crate::{
    TransportConfig, close,
    config::{FIRST_WINDOW_BYTES, RETRY_ABOVE_HANDSHAKES},
    endpoint::{Seams, bind_endpoint},
    locality::Locality,
    quic::{self, Path},
    stream::varint,
    tls::{self, HandshakeFault},
};

/// Says that peers are *not authenticated* here: whoever can reach the port may send to it and read from
/// it, and whoever can change packets on the way may pose as either side.
#[derive(Debug, Clone, Copy)]
pub struct AcceptAnyPeer;

/// Dials and accepts nodes of the original program, **without authenticating any of them** (SPEC 9).
///
/// Has its own socket and its own throw-away certificate; a `shiplane/1` peer can neither dial it nor be
/// dialled by it. Every [`connect`](Self::connect) makes a connection: keep it to use it again.
///
/// Dropped or closed, it closes its connections. Wait for [`InsecureOctopiiConnection::drained`] first,
/// or what was sent last may be lost.
#[derive(Debug)]
pub struct InsecureOctopiiTransport {
    endpoint: quinn::Endpoint,
    config: Arc<TransportConfig>,
    quic: Arc<quinn::TransportConfig>,
    accepted: Mutex<mpsc::Receiver<quinn::Connection>>,
}

impl InsecureOctopiiTransport {
    /// Binds the socket and begins to accept anybody. Logs a warning that it does.
    ///
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`OctopiiBindError`]: the address is taken, or the certificate or TLS failed.
    pub fn bind(
        addr: SocketAddr,
        config: TransportConfig,
        _acknowledged: AcceptAnyPeer,
    ) -> Result<Self, OctopiiBindError> {
        let (certificate, key) = certificate::self_signed()?;
        let crypto = tls::octopii_server_crypto(certificate, key)?;
        let path = Path::new(&config, Locality::Elsewhere, config.udp_buffer_len_bytes);
        let mut quic = quic::settings(&config, &path);
        // Until somebody takes the connection, a stranger can make us hold next to nothing.
        quic.max_concurrent_bidi_streams(0u32.into());
        quic.receive_window(FIRST_WINDOW_BYTES.into());
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(quic)).max_incoming(config.max_incoming_handshakes);

        let (endpoint, _) = bind_endpoint(addr, &config, Seams::default(), None)
            .map_err(|source| OctopiiBindError::Socket { addr, source })?;
        endpoint.set_server_config(Some(server));
        tracing::warn!(
            %addr,
            "octopii dialect: NO PEER IS AUTHENTICATED; whoever reaches this port may use it"
        );
        let quic = Arc::new(quic::settings(&config, &path));
        let config = Arc::new(config);
        let (outlet, accepted) = mpsc::channel(ACCEPTED_LEN);
        tokio::spawn(accept_loop(endpoint.clone(), Arc::clone(&config), outlet));
        Ok(Self { endpoint, config, quic, accepted: accepted.into() })
    }

    /// Dials whoever answers at `addr`; `policy` says what their streams are.
    ///
    /// Cancel-safe. Returns within the handshake timeout.
    ///
    /// # Errors
    /// See [`OctopiiConnectError`].
    pub async fn connect<P: Policy>(
        &self,
        addr: SocketAddr,
        policy: P,
    ) -> Result<InsecureOctopiiConnection<P>, OctopiiConnectError> {
        let mut client = quinn::ClientConfig::new(Arc::new(tls::octopii_client_crypto()?));
        client.transport_config(Arc::clone(&self.quic));
        let connecting = self
            .endpoint
            .connect_with(client, addr, tls::OCTOPII_SERVER_NAME)
            .map_err(|reason| OctopiiConnectError::CannotDial { addr, reason })?;
        let handshake_timeout = self.config.handshake_timeout;
        let connection = timeout(handshake_timeout, connecting)
            .await
            .map_err(|_| OctopiiConnectError::TimedOut { addr, timeout: handshake_timeout })?
            .map_err(|error| connect_error(addr, error))?;
        Ok(InsecureOctopiiConnection::new(connection, Arc::clone(&self.config), policy))
    }

    /// The next connection that anybody has made to us; `policy` says what their streams are. `None` once
    /// the transport is closed. Cancel-safe.
    pub async fn accept<P: Policy>(&self, policy: P) -> Option<InsecureOctopiiConnection<P>> {
        let connection = self.accepted.lock().await.recv().await?;
        connection.set_receive_window(self.config.connection_receive_window_bytes.into());
        connection.set_max_concurrent_bi_streams(self.config.max_concurrent_streams.into());
        Some(InsecureOctopiiConnection::new(connection, Arc::clone(&self.config), policy))
    }

    /// Where this transport listens.
    ///
    /// # Errors
    /// The system's, which is not expected of a bound socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes everything at once, in order; what is under way fails. Idempotent.
    pub fn close(&self) {
        self.endpoint.set_server_config(None);
        self.endpoint.close(varint(Code::NoError), b"");
    }

    /// As [`close`](Self::close), and waits, a second at most, until peers have been told.
    pub async fn shutdown(&self) {
        self.close();
        // quinn forgets a closed connection after three probe timeouts, which a dead path makes long.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Drop for InsecureOctopiiTransport {
    fn drop(&mut self) {
        self.close();
    }
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
                tracing::debug!("octopii handshake failed");
                return;
            };
            tracing::debug!(addr = %connection.remote_address(), "unauthenticated connection accepted");
            if let Err(mpsc::error::TrySendError::Full(connection)) = accepted.try_send(connection) {
                close::close(&connection, Code::Busy);
            }
        });
    }
}

fn connect_error(addr: SocketAddr, error: quinn::ConnectionError) -> OctopiiConnectError {
    match tls::classify(&error) {
        HandshakeFault::WrongProtocol => OctopiiConnectError::WrongProtocol { addr },
        HandshakeFault::WrongKey
        | HandshakeFault::UntrustedKey
        | HandshakeFault::RefusedByPeer
        | HandshakeFault::Other => OctopiiConnectError::Failed { addr, end: error.into() },
    }
}

/// 64 connections that nobody has taken yet: they come from strangers, and each costs memory.
const ACCEPTED_LEN: usize = 64;

/// How long peers may take to hear of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
