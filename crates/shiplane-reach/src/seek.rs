//! Finds the sender of a code on the local network, and proves the code to it.
//!
//! Only one of the two may take what comes in. A receiver that gets no answer announces that; the sender then dials it,
//! from the socket where it listens, so that a firewall on the sender's side lets the receiver's packets in.

use std::{
    collections::HashSet, convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use shiplane_transport::{ConnectError, PeerConnection, PeerId, QuicTransport};
use shiplane_wire::Code as CloseCode;
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::{
    candidates::{Candidates, OwnSubnet},
    nearby::{Announced, Announcement, Nearby, NearbyError, Search},
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
            () = unanswered(seeking.announce_at) => {
                seeking.announce(number);
                continue;
            }
            () = sleep_until(until) => return Err(seeking.failure(number)),
        };
        seeking.candidates.release();
        let (addr, connection) = match connected {
            (addr, Ok(connection)) => (addr, connection),
            (addr, Err(error)) => {
                seeking.silent = Some(addr);
                if matches!(error, ConnectError::TimedOut { .. }) {
                    seeking.candidates.retry(addr);
                }
                continue;
            }
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
    /// The sockets that it dials from, and whether they are announced.
    sockets: Vec<(SocketAddr, Option<Announcement>)>,
    /// When it is time to announce those that are not.
    announce_at: Option<Instant>,
}

/// Dials the receivers on this link that get no answer from the code with this number, so that a firewall of this
/// machine lets their packets in.
///
/// Cancel-safe.
pub async fn meet_seekers(number: u16, transport: Arc<QuicTransport>) -> Infallible {
    let mut search = match Search::seekers() {
        Ok(search) => search,
        Err(error) => {
            tracing::debug!(%error, "receivers that get no answer are not heard");
            return pending().await;
        }
    };
    let (mut candidates, mut dials) = (Candidates::default(), FuturesUnordered::new());
    let mut rounds = interval(ROUND_INTERVAL);
    loop {
        while let Some(addr) = candidates.next() {
            tracing::debug!(%addr, "a receiver gets no answer");
            let transport = Arc::clone(&transport);
            // What comes of it does not matter: the packets do.
            dials.push(async move { drop(timeout(MEET_TIMEOUT, transport.connect_unproven(addr)).await) });
        }
        tokio::select! {
            Some(nearby) = search.next() => {
                if nearby.announced == Announced::Seeker(number) {
                    let own = OwnSubnet::all();
                    nearby.addrs.iter().for_each(|addr| candidates.add_near(*addr, &own));
                }
            }
            Some(()) = dials.next() => candidates.release(),
            _ = rounds.tick() => candidates.forget(),
        }
    }
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
                    self.note(&transport);
                    self.dials.push(Box::pin(async move { (addr, transport.connect_unproven(addr).await) }))
                }
                None => self.candidates.release(),
            }
        }
    }

    fn note(&mut self, transport: &QuicTransport) {
        let Ok(bound) = transport.local_addr() else { return };
        if !self.sockets.iter().any(|(noted, _)| *noted == bound) {
            self.sockets.push((bound, None));
            self.announce_at = Some(Instant::now() + PATIENCE);
        }
    }

    /// Announces that this receiver gets no answer.
    fn announce(&mut self, number: u16) {
        self.announce_at = None;
        for (bound, announcement) in self.sockets.iter_mut().filter(|(_, announced)| announced.is_none()) {
            match Announcement::start(Announced::Seeker(number), *bound) {
                Ok(started) => *announcement = started,
                Err(error) => tracing::debug!(%error, "the sender does not hear that it is not reached"),
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

/// Waits until a dial could have been answered. Cancel-safe.
async fn unanswered(announce_at: Option<Instant>) {
    match announce_at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// 2 s: announcements of other senders with the same number have arrived by then.
const GRACE: Duration = Duration::from_secs(2);

/// 500 ms: a sender on the local network has answered by then, unless its firewall takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// 2 s: two packets, the second a second after the first.
const MEET_TIMEOUT: Duration = Duration::from_secs(2);

/// A minute, in which at most 64 addresses are dialled, however many receivers are announced.
const ROUND_INTERVAL: Duration = Duration::from_secs(60);
