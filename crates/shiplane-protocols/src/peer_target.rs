//! The target of a dial.

use std::{net::SocketAddr, sync::Arc};

use shiplane_transport::{ConnectError, PeerAddr, PeerConnection, QuicTransport};

/// A peer to be reached: at an address, by any key that the transport trusts, or by one key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerTarget {
    /// Any trusted peer that answers there.
    Address(SocketAddr),
    /// This peer and no other.
    Peer(PeerAddr),
}

impl PeerTarget {
    /// Where to dial.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Address(addr) => *addr,
            Self::Peer(peer) => peer.addr,
        }
    }

    /// The pooled connection, or a new one.
    ///
    /// Cancel-safe: an attempt that others share goes on.
    ///
    /// # Errors
    /// As [`QuicTransport::connect`] and [`QuicTransport::connect_to`].
    pub async fn connect(&self, transport: &QuicTransport) -> Result<Arc<PeerConnection>, ConnectError> {
        match self {
            Self::Address(addr) => transport.connect(*addr).await,
            Self::Peer(peer) => transport.connect_to(*peer).await,
        }
    }
}

impl From<SocketAddr> for PeerTarget {
    fn from(addr: SocketAddr) -> Self {
        Self::Address(addr)
    }
}

impl From<PeerAddr> for PeerTarget {
    fn from(peer: PeerAddr) -> Self {
        Self::Peer(peer)
    }
}
