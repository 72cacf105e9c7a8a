//! Finds the sender of a code on the local network, and proves the code to it.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use shiplane_transport::{ConnectError, PeerConnection, PeerId, QuicTransport};
use shiplane_wire::Code as CloseCode;
use tokio::time::{Instant, sleep_until};

use crate::{
    candidates::{Candidates, OwnSubnet},
    nearby::{Announced, Nearby, NearbyError, Search},
    service::{ProveError, Prover},
};

/// Why no sender was found.
#[derive(Debug, thiserror::Error)]
pub enum SeekError {
    /// This machine cannot search.
    #[error(transparent)]
    Nearby(#[from] NearbyError),
    /// No sender with this number has announced itself in time.
    #[error("no sender with the number {number} was found on the local network")]
    NoSender {
        /// The code's number.
        number: u16,
    },
    /// Somebody has announced it, and no address answers.
    #[error("a sender with the number {number} announces itself, but does not answer at {at}")]
    Silent {
        /// The code's number.
        number: u16,
        /// One of its addresses.
        at: SocketAddr,
    },
    /// The senders that were found do not take the code.
    #[error(transparent)]
    Proof(ProveError),
}

/// Searches for the sender of a code, and proves the code to it. Of all who announce its number, the first to take the
/// code is the sender; `known` is one whose code it was before. `transport` gives the socket for an address.
///
/// Not cancel-safe: dropped midway, an exchange counts.
///
/// # Errors
/// [`SeekError`].
pub async fn seek(
    prover: &mut Prover,
    number: u16,
    known: Option<PeerId>,
    patience: Duration,
    transport: impl Fn(SocketAddr) -> Option<Arc<QuicTransport>>,
) -> Result<(PeerId, SocketAddr), SeekError> {
    let mut search = Search::codes()?;
    let mut seeking = Seeking::default();
    let mut until = Instant::now() + patience;
    loop {
        seeking.dial(&transport);
        let connected = tokio::select! {
            Some(nearby) = search.next() => {
                seeking.hear(&nearby, number);
                continue;
            }
            Some((addr, connected)) = seeking.dials.next() => (addr, connected),
            () = sleep_until(until) => return Err(seeking.failure(number)),
        };
        seeking.candidates.release();
        let (addr, Ok(connection)) = connected else {
            seeking.silent = Some(connected.0);
            continue;
        };
        let id = connection.peer_id();
        let is_new = seeking.tried.insert(id);
        let proven = match known {
            Some(known) if known == id => Ok(()),
            _ if is_new => prover.prove(&connection).await,
            _ => continue,
        };
        connection.close(CloseCode::NoError);
        match proven {
            Ok(()) => return Ok((id, addr)),
            Err(error) => {
                tracing::info!(%addr, %error, "this is not the sender");
                seeking.refused = Some(error);
                // The real one has announced itself by then, if it is there.
                until = until.min(Instant::now() + GRACE);
            }
        }
        if !prover.may_try() {
            return Err(seeking.failure(number));
        }
    }
}

/// A search under way.
#[derive(Default)]
struct Seeking {
    candidates: Candidates,
    dials: FuturesUnordered<BoxFuture<'static, Dialled>>,
    tried: HashSet<PeerId>,
    silent: Option<SocketAddr>,
    refused: Option<ProveError>,
}

type Dialled = (SocketAddr, Result<Arc<PeerConnection>, ConnectError>);

impl Seeking {
    fn hear(&mut self, nearby: &Nearby, number: u16) {
        if nearby.announced != Announced::Code(number) {
            return;
        }
        let own = OwnSubnet::all();
        for addr in &nearby.addrs {
            tracing::debug!(%addr, "announced");
            self.candidates.add(*addr, &own);
        }
    }

    /// Dials what there is a place for.
    fn dial(&mut self, transport: &impl Fn(SocketAddr) -> Option<Arc<QuicTransport>>) {
        while let Some(addr) = self.candidates.next() {
            match transport(addr) {
                Some(transport) => {
                    self.dials.push(Box::pin(async move { (addr, transport.connect_unproven(addr).await) }))
                }
                None => self.candidates.release(),
            }
        }
    }

    fn failure(&mut self, number: u16) -> SeekError {
        match (self.refused.take(), self.silent) {
            (Some(refused), _) => SeekError::Proof(refused),
            (None, Some(at)) => SeekError::Silent { number, at },
            (None, None) => SeekError::NoSender { number },
        }
    }
}

/// 2 s: announcements of other senders with the same number have arrived by then.
const GRACE: Duration = Duration::from_secs(2);
