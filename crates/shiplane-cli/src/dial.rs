//! From `HOST:PORT` and a key to a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shiplane_protocols::access::{Host, HostPort};
use shiplane_transport::{
    ConnectError, ConnectionEnd, Identity, LaneThreads, PeerAddr, PeerConnection, PeerId, QuicTransport,
    TransportConfig, Trust,
};
use shiplane_wire::Code;

use crate::failure::Failure;

/// For programs whose one purpose is a transfer: its threads need not give way to calls.
pub(crate) fn transport_config() -> TransportConfig {
    TransportConfig {
        lane_threads: LaneThreads::Ordinary,
        buffer_len_bytes: BUFFER_LEN_BYTES,
        ..TransportConfig::default()
    }
}

/// A connection, and the transport that lives as long as it does.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) transport: QuicTransport,
    pub(crate) connection: Arc<PeerConnection>,
}

impl Dialled {
    /// The outcome of a run; where the server did not let us in, that is why it failed.
    pub(crate) fn explained<T>(&self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let addr = self.connection.remote_addr();
        outcome.map_err(|failure| match self.connection.end() {
            _ if matches!(failure, Failure::Interrupted) => failure,
            Some(end @ ConnectionEnd::ClosedByPeer { code: Code::Unauthorised | Code::Busy }) => {
                ConnectError::of_end(addr, end).into()
            }
            _ => failure,
        })
    }

    /// Closes the connection, and waits for a moment until the server has been told; for a shorter one after
    /// Ctrl-C.
    pub(crate) async fn close(&self, is_interrupted: bool) {
        let closed = self.transport.shutdown(Duration::ZERO);
        if is_interrupted {
            let _ = tokio::time::timeout(INTERRUPTED_CLOSE_TIMEOUT, closed).await;
        } else {
            closed.await;
        }
    }
}

/// Half of the second that Ctrl-C may take.
const INTERRUPTED_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Dials the addresses of `at` one after another until `server` answers at one of them.
///
/// `identity` makes this machine's key anew for each family of addresses, since each needs a socket
/// of its own.
pub(crate) async fn dial(
    server: PeerId,
    at: &HostPort,
    config: &TransportConfig,
    identity: impl Fn() -> Result<Identity, Failure>,
) -> Result<Dialled, Failure> {
    let addresses = resolve(at).await?;
    let mut transport: Option<(bool, QuicTransport)> = None;
    let mut worst: Option<ConnectError> = None;
    for addr in addresses {
        let usable = transport.take().filter(|(is_ipv4, _)| *is_ipv4 == addr.is_ipv4());
        let bound = match usable {
            Some((_, bound)) => bound,
            None => QuicTransport::builder()
                .identity(identity()?)
                // Whoever is dialled is pinned; nobody dials us.
                .trust(Trust::nobody())
                .config(config.clone())
                .bind(any_port(addr))?,
        };
        tracing::info!(%addr, "dialling");
        match bound.connect_early(PeerAddr { id: server, addr }).await {
            Ok(connection) => return Ok(Dialled { transport: bound, connection }),
            Err(error) => worst = Some(more_telling(worst, error)),
        }
        transport = Some((addr.is_ipv4(), bound));
    }
    Err(worst.map_or_else(|| no_address(&at.host), Failure::Connect))
}

/// The addresses to try, in order.
pub(crate) async fn resolve(at: &HostPort) -> Result<Vec<SocketAddr>, Failure> {
    let name = match &at.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, at.port)]),
        Host::Name(name) => name.as_str(),
    };
    let looking = tokio::net::lookup_host((name, at.port));
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, looking)
        .await
        .map_err(|_| Failure::ResolveSilent { host: at.host.clone() })?
        .map_err(|source| Failure::Resolve { host: at.host.clone(), source })?;
    Ok(found.take(MAX_ADDRESSES).collect())
}

/// A name without an address.
pub(crate) fn no_address(host: &Host) -> Failure {
    let source = std::io::Error::from(std::io::ErrorKind::NotFound);
    Failure::Resolve { host: host.clone(), source }
}

/// This machine's side of a dial, of the same family.
pub(crate) fn any_port(like: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// Of two failures to reach one peer, the one to report: an answer says more than silence, and
/// silence more than an address that cannot even be tried.
fn more_telling(before: Option<ConnectError>, now: ConnectError) -> ConnectError {
    fn rank(error: &ConnectError) -> u8 {
        match error {
            ConnectError::CannotDial { .. } => 0,
            ConnectError::TimedOut { .. } => 1,
            ConnectError::Failed { .. } | ConnectError::Busy { .. } | ConnectError::WrongProtocol { .. } => 2,
            ConnectError::WrongKey { .. }
            | ConnectError::Untrusted { .. }
            | ConnectError::Refused { .. }
            | ConnectError::Tls(_)
            | ConnectError::Abandoned => 3,
        }
    }
    match before {
        Some(before) if rank(&before) >= rank(&now) => before,
        _ => now,
    }
}

/// Longer than the resolvers of common systems take to try a second name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Each may take the whole handshake timeout; nobody waits for more than these.
const MAX_ADDRESSES: usize = 4;

/// 256 KiB: hashed at full speed, and still in the cache of a core when it is written.
const BUFFER_LEN_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_reported_before_silence() {
        let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let silence = || ConnectError::TimedOut { addr, timeout: Duration::from_secs(5) };
        let refused = || ConnectError::Refused { addr };
        for (before, now) in [(Some(silence()), refused()), (Some(refused()), silence()), (None, refused())] {
            assert!(matches!(more_telling(before, now), ConnectError::Refused { .. }));
        }
        assert!(matches!(more_telling(Some(silence()), silence()), ConnectError::TimedOut { .. }));
    }
}
