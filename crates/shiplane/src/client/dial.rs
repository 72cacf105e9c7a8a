//! Resolves the addresses of a server and dials them as RFC 8305 says, until one answers.

mod race;
mod resolve;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use shiplane_access::internals::{Addresses, MAX_ADDRESSES};
use shiplane_transport::{ConnectError, PeerAddr, PeerConnection, PeerId, QuicTransport, Trust};

use self::{race::first_to_answer, resolve::resolve};
use super::Client;
use crate::error::{Cause, Error};

impl Client {
    /// Dials the addresses of `at` until `server` answers at one of them; the other dials are cancelled.
    pub(crate) async fn dial(&self, server: PeerId, at: &Addresses) -> Result<Arc<PeerConnection>, Error> {
        let found = at.iter().map(resolve);
        let is_connected = |addr| self.is_connected(addr);
        Ok(first_to_answer(found, is_connected, |addr| self.dial_one(server, addr)).await?)
    }

    async fn dial_one(&self, server: PeerId, addr: SocketAddr) -> Result<Arc<PeerConnection>, ConnectError> {
        let unusable = |reason| ConnectError::CannotDial { addr, reason };
        check_route(addr).map_err(|error| unusable(Arc::new(error)))?;
        let transport = self.transport_for(addr).map_err(|error| unusable(Arc::new(error)))?;
        tracing::info!(%addr, "dialling");
        transport.connect_early(PeerAddr { id: server, addr }).await
    }

    /// Whether a connection to this address is open, so that it need not be dialled.
    fn is_connected(&self, addr: SocketAddr) -> bool {
        let [ipv4, ipv6] = &*self.transports();
        let transport = if addr.is_ipv4() { ipv4 } else { ipv6 };
        transport.as_ref().is_some_and(|transport| transport.is_connected(addr))
    }

    /// Dials this address.
    pub(crate) async fn dial_addr(
        &self,
        server: PeerId,
        addr: SocketAddr,
    ) -> Result<Arc<PeerConnection>, Error> {
        Ok(self.dial_one(server, addr).await.map_err(Cause::Connect)?)
    }

    /// The addresses to try, in order.
    pub(crate) async fn resolved(&self, at: &Addresses) -> Result<Vec<SocketAddr>, Error> {
        let found = futures::future::join_all(at.iter().map(resolve)).await;
        let all = found.iter().flatten().flatten().copied().take(MAX_ADDRESSES).collect::<Vec<_>>();
        match found.into_iter().find_map(Result::err) {
            Some(error) if all.is_empty() => Err(error.into()),
            _ => Ok(all),
        }
    }

    /// The socket for this family of addresses.
    pub(crate) fn transport_for(&self, addr: SocketAddr) -> Result<Arc<QuicTransport>, Error> {
        let mut transports = self.transports();
        let [ipv4, ipv6] = &mut *transports;
        let slot = if addr.is_ipv4() { ipv4 } else { ipv6 };
        if let Some(transport) = slot {
            return Ok(Arc::clone(transport));
        }
        let bound = QuicTransport::builder()
            .identity(self.inner.identity.clone())
            // Dialled peers are pinned, and a client accepts no connections.
            .trust(Trust::none())
            .config(self.inner.config.clone())
            .bind(any_port(addr))
            .map_err(Cause::from)?;
        Ok(Arc::clone(slot.insert(Arc::new(bound))))
    }
}

/// Whether the system knows a way there. quinn would wait for an answer to what was never sent. Nothing is sent.
fn check_route(addr: SocketAddr) -> io::Result<()> {
    UdpSocket::bind(any_port(addr))?.connect(addr)
}

/// This machine's side of a dial, of the same family.
fn any_port(like: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}
