//! Resolves `HOST:PORT` and dials until a connection is authenticated.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use shiplane_access::internals::{Host, HostPort};
use shiplane_transport::{ConnectError, PeerAddr, PeerConnection, PeerId, QuicTransport, Trust};

use super::Client;
use crate::error::{Cause, Error};

impl Client {
    /// Dials the addresses of `at` one after another until `server` answers at one of them.
    pub(crate) async fn dial(&self, server: PeerId, at: &HostPort) -> Result<Arc<PeerConnection>, Error> {
        let mut worst: Option<ConnectError> = None;
        for addr in resolve(at).await? {
            let transport = self.transport_for(addr)?;
            tracing::info!(%addr, "dialling");
            match transport.connect_early(PeerAddr { id: server, addr }).await {
                Ok(connection) => return Ok(connection),
                Err(error) => worst = Some(more_telling(worst, error)),
            }
        }
        Err(worst.map_or_else(|| no_address(&at.host), Cause::Connect).into())
    }

    /// The socket for this family of addresses.
    fn transport_for(&self, addr: SocketAddr) -> Result<Arc<QuicTransport>, Error> {
        let mut transports = self.transports();
        let [ipv4, ipv6] = &mut *transports;
        let slot = if addr.is_ipv4() { ipv4 } else { ipv6 };
        if let Some(transport) = slot {
            return Ok(Arc::clone(transport));
        }
        let bound = QuicTransport::builder()
            .identity(self.inner.identity.clone())
            // Dialled peers are pinned, and a client accepts no connections.
            .trust(Trust::nobody())
            .config(self.inner.config.clone())
            .bind(any_port(addr))
            .map_err(Cause::from)?;
        Ok(Arc::clone(slot.insert(Arc::new(bound))))
    }
}

/// The addresses to try, in order.
async fn resolve(at: &HostPort) -> Result<Vec<SocketAddr>, Error> {
    let name = match &at.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, at.port)]),
        Host::Name(name) => name.as_str(),
    };
    let looking = tokio::net::lookup_host((name, at.port));
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, looking)
        .await
        .map_err(|_| Cause::ResolveSilent { host: at.host.clone() })?
        .map_err(|source| Cause::Resolve { host: at.host.clone(), source })?;
    Ok(found.take(MAX_ADDRESSES).collect())
}

/// A name without an address.
fn no_address(host: &Host) -> Cause {
    Cause::Resolve { host: host.clone(), source: io::ErrorKind::NotFound.into() }
}

/// This machine's side of a dial, of the same family.
fn any_port(like: SocketAddr) -> SocketAddr {
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

/// Each may take the whole handshake timeout; no user waits for more than these.
const MAX_ADDRESSES: usize = 4;

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
