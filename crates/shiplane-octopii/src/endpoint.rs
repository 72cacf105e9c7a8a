//! A UDP socket for the octopii dialect.

use std::{net::SocketAddr, sync::Arc};

use shiplane_transport::{BindError, ConnectError, TransportConfig, dialect::BareEndpoint};

use crate::{connection::InsecureOctopiiConnection, intake::Policy, tls};

/// Says that peers are *not authenticated* here: anyone who can reach the port may send to it and read from
/// it, and anyone who can change packets on the way may pose as either side.
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
    endpoint: BareEndpoint,
}

impl InsecureOctopiiTransport {
    /// Binds the socket and begins to accept any peer. Logs a warning about that.
    ///
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`]: the address is taken, or the certificate or TLS failed.
    pub fn bind(
        addr: SocketAddr,
        config: TransportConfig,
        _acknowledged: AcceptAnyPeer,
    ) -> Result<Self, BindError> {
        let (certificate, key) = tls::self_signed()?;
        let tls = tls::server(certificate, key)?;
        let endpoint = BareEndpoint::bind(addr, Arc::new(config), tls)?;
        tracing::warn!(
            %addr,
            "octopii dialect: NO PEER IS AUTHENTICATED; anyone who reaches this port may use it"
        );
        Ok(Self { endpoint })
    }

    /// Dials `addr` without authenticating the peer; `policy` is the type of the peer's streams.
    ///
    /// Cancel-safe. Returns within the handshake timeout.
    ///
    /// # Errors
    /// See [`ConnectError`]; `WrongProtocol` says that what answers there does not speak the dialect. A shiplane peer is
    /// dialled by its id instead.
    pub async fn connect<P: Policy>(
        &self,
        addr: SocketAddr,
        policy: P,
    ) -> Result<InsecureOctopiiConnection<P>, ConnectError> {
        let tls = tls::client().map_err(|error| ConnectError::Tls(Arc::new(error)))?;
        let connection = self.endpoint.connect(addr, tls::SERVER_NAME, tls).await?;
        Ok(InsecureOctopiiConnection::new(connection, policy))
    }

    /// The next incoming connection; `policy` is the type of the peer's streams. `None` once
    /// the transport is closed. Cancel-safe.
    pub async fn accept<P: Policy>(&self, policy: P) -> Option<InsecureOctopiiConnection<P>> {
        Some(InsecureOctopiiConnection::new(self.endpoint.accept().await?, policy))
    }

    /// The address on which this transport listens.
    ///
    /// # Errors
    /// The system's, which is not expected of a bound socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes everything at once, in order; what is under way fails. Idempotent.
    pub fn close(&self) {
        self.endpoint.close();
    }

    /// As [`close`](Self::close), and waits up to a second for the close to reach the peers.
    ///
    /// Cancel-safe: everything is closed at once, and a dropped future only waits no longer.
    pub async fn shutdown(&self) {
        self.endpoint.shutdown().await;
    }
}
