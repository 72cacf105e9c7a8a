//! The connection pool: one connection per peer, whichever side dialled.
//!
//! The key is the peer's identity; addresses are aliases. A dial runs in a task of its own, shared by
//! all who wait for it, and no lock is held while it does, so that a dead peer delays no other dial. It is
//! cancelled when its last waiter is gone.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicU64},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    close,
    connection::{
        Inboxes, PeerConnection,
        router::{Feed, WeakFeed},
    },
    error::ConnectError,
    identity::PeerId,
    traffic::Traffic,
};

/// The pool of one transport.
#[derive(Debug)]
pub(crate) struct Pool {
    me: PeerId,
    state: Mutex<State>,
    /// What all connections have carried.
    carried_bytes: Arc<AtomicU64>,
    /// How many connections there are whose close has not left yet.
    unclosed: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    peers: HashMap<PeerId, Pooled>,
    aliases: HashMap<SocketAddr, PeerId>,
    dials: HashMap<DialKey, Arc<Outcome>>,
    /// Every connection that has not ended, pooled or not.
    live: HashMap<usize, Live>,
    /// Lost a tie while the peer may still use them; the peer, who dialled, closes them. One of them
    /// takes over when the pooled one ends first.
    retired: HashMap<usize, Arc<PeerConnection>>,
    /// A peer's inboxes, shared by all of its connections.
    inboxes: HashMap<PeerId, (Weak<Inboxes>, WeakFeed)>,
}

#[derive(Debug)]
struct Live {
    connection: Weak<PeerConnection>,
    raw: quinn::Connection,
    peer: PeerId,
    alias: SocketAddr,
}

#[derive(Debug)]
struct Pooled {
    connection: Arc<PeerConnection>,
    established: Instant,
    used: Instant,
}

/// Dials with the same key are one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DialKey {
    pub(crate) addr: SocketAddr,
    pub(crate) pin: Option<PeerId>,
}

pub(crate) type DialResult = Result<Arc<PeerConnection>, ConnectError>;

/// Of a dial, once it is known. Those who wait subscribe to it.
type Outcome = watch::Sender<Option<DialResult>>;

impl Pool {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, state: Mutex::default(), carried_bytes: Arc::default(), unclosed: watch::Sender::new(0) }
    }

    /// Counts what a connection carries.
    pub(crate) fn traffic(&self, connection: quinn::Connection) -> Traffic {
        Traffic::new(connection, Arc::clone(&self.carried_bytes))
    }

    /// The live connection for `key`, or the result of the one dial that `dial` starts for it.
    ///
    /// Cancel-safe: the dial goes on for those who still wait, and ends with the last of them.
    pub(crate) async fn get_or_dial<F>(self: &Arc<Self>, key: DialKey, dial: impl FnOnce() -> F) -> DialResult
    where
        F: Future<Output = DialResult> + Send + 'static,
    {
        let mut result = {
            let mut state = self.lock();
            if let Some(connection) = state.find(key) {
                return Ok(connection);
            }
            match state.dials.get(&key) {
                Some(outcome) => outcome.subscribe(),
                None => {
                    let (outcome, result) = watch::channel(None);
                    let outcome = Arc::new(outcome);
                    state.dials.insert(key, Arc::clone(&outcome));
                    let (pool, dial) = (Arc::clone(self), dial());
                    tokio::spawn(async move {
                        let unlist = Unlist { pool: &pool, key, outcome: &outcome };
                        tokio::select! {
                            dialled = dial => {
                                outcome.send_replace(Some(dialled.map(|new| pool.admit(new, key.addr))));
                            }
                            () = unlist.when_abandoned() => {}
                        }
                    });
                    result
                }
            }
        };
        let settled = result.wait_for(Option::is_some).await;
        let connection = settled.ok().and_then(|r| r.clone()).unwrap_or(Err(ConnectError::Abandoned))?;
        match connection.end() {
            None => Ok(connection),
            Some(end) => Err(ConnectError::of_end(key.addr, end)),
        }
    }

    /// The pooled connection for `key`, unless it is known to have ended.
    pub(crate) fn find(&self, key: DialKey) -> Option<Arc<PeerConnection>> {
        self.lock().find(key)
    }

    /// Gives out `connection` no more: its peer has fallen silent. Who holds it keeps it.
    pub(crate) fn discard(&self, connection: &PeerConnection) {
        let mut state = self.lock();
        let pooled = state.peers.get(&connection.peer_id());
        let pooled = pooled.is_some_and(|pooled| pooled.connection.stable_id() == connection.stable_id());
        let gone = if pooled { state.peers.remove(&connection.peer_id()) } else { None };
        drop(state);
        drop(gone); // Outside the lock.
    }

    /// Takes in a new connection that was dialled at, or came from, `addr`; returns the one that the
    /// peer is to be reached by from now on.
    pub(crate) fn admit(self: &Arc<Self>, new: Arc<PeerConnection>, addr: SocketAddr) -> Arc<PeerConnection> {
        let peer = new.peer_id();
        let mut state = self.lock();
        let live = Live { connection: Arc::downgrade(&new), raw: new.raw(), peer, alias: addr };
        state.live.insert(new.stable_id(), live);
        state.aliases.insert(addr, peer);
        let now = Instant::now();
        let winner = match state.peers.get(&peer) {
            Some(old) if !old.connection.is_closed() && !self.prefers(&new, old, now) => {
                let winner = Arc::clone(&old.connection);
                state.retire(Arc::clone(&new));
                winner
            }
            _ => {
                let pooled = Pooled { connection: Arc::clone(&new), established: now, used: now };
                if let Some(old) = state.peers.insert(peer, pooled) {
                    state.retire(old.connection);
                }
                Arc::clone(&new)
            }
        };
        drop(state);
        self.forget_when_closed(&new);
        winner
    }

    /// The inboxes for a new connection to `peer`: those of its other live connections, if any, so
    /// that what arrives on either is found on both.
    pub(crate) fn inboxes(
        &self,
        peer: PeerId,
        make: impl FnOnce() -> (Arc<Inboxes>, Feed),
    ) -> (Arc<Inboxes>, Feed) {
        let mut state = self.lock();
        if let Some((inboxes, feed)) = state.inboxes.get(&peer)
            && let (Some(inboxes), Some(feed)) = (inboxes.upgrade(), feed.upgrade())
        {
            return (inboxes, feed);
        }
        let (inboxes, feed) = make();
        state.inboxes.insert(peer, (Arc::downgrade(&inboxes), feed.downgrade()));
        (inboxes, feed)
    }

    /// Whether a live connection to the peer last seen at `addr` is pooled.
    pub(crate) fn has(&self, addr: SocketAddr) -> bool {
        self.lock().find(DialKey { addr, pin: None }).is_some()
    }

    /// How many dials are under way.
    #[cfg(feature = "test-support")]
    pub(crate) fn dials(&self) -> usize {
        self.lock().dials.len()
    }

    /// Every connection that has not ended.
    pub(crate) fn live(&self) -> Vec<Arc<PeerConnection>> {
        self.lock().live.values().filter_map(|live| live.connection.upgrade()).collect()
    }

    /// Before the whole endpoint closes, with those that only deliver what was sent last.
    pub(crate) fn give_way(&self) {
        let live: Vec<_> = self.lock().live.values().map(|live| live.raw.clone()).collect();
        live.iter().for_each(close::give_way);
    }

    /// Waits until the closes of all closed connections have left. Cancel-safe.
    pub(crate) async fn closed(&self) {
        // The sender is ours.
        let _ = self.unclosed.subscribe().wait_for(|unclosed| *unclosed == 0).await;
    }

    /// How many connections have not ended, in all and with this peer.
    pub(crate) fn count(&self, peer: PeerId) -> (usize, usize) {
        let state = self.lock();
        (state.live.len(), state.live.values().filter(|live| live.peer == peer).count())
    }

    /// Drops connections unused for `idle`. A connection closes once its last user drops it.
    pub(crate) fn drop_idle(&self, idle: Duration) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut gone = Vec::new();
        state.peers.retain(|_, pooled| {
            let held = Arc::strong_count(&pooled.connection) > 1 || !pooled.connection.is_unused();
            if held {
                pooled.used = now;
            }
            let keep = now.duration_since(pooled.used) < idle;
            if !keep {
                gone.push(Arc::clone(&pooled.connection));
            }
            keep
        });
        drop(state); // Dropping a connection takes this lock again, when its end is noticed.
    }

    /// Simultaneous dials settle on the one dialled by the smaller id, so that both sides choose the
    /// same. Otherwise the newer one wins: a peer that dials again has lost the older.
    fn prefers(&self, new: &PeerConnection, old: &Pooled, now: Instant) -> bool {
        let simultaneous = now.duration_since(old.established) < SIMULTANEOUS_DIAL_WINDOW
            && new.is_dialled_here() != old.connection.is_dialled_here();
        !simultaneous || (new.is_dialled_here() == (self.me < new.peer_id()))
    }

    fn forget_when_closed(self: &Arc<Self>, connection: &Arc<PeerConnection>) {
        let (peer, stable_id, raw) = (connection.peer_id(), connection.stable_id(), connection.raw());
        let (pool, unclosed) = (Arc::downgrade(self), self.unclosed.clone());
        unclosed.send_modify(|unclosed| *unclosed += 1);
        tokio::spawn(async move {
            raw.closed().await;
            if let Some(pool) = pool.upgrade() {
                let gone = pool.lock().forget(peer, stable_id);
                drop(gone); // Outside the lock.
            }
            close::sent(&raw).await;
            unclosed.send_modify(|unclosed| *unclosed -= 1);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No step under the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Finds by address only trusted peers. A guest's connection is found only by its id.
    fn find(&mut self, key: DialKey) -> Option<Arc<PeerConnection>> {
        let peer = key.pin.or_else(|| self.aliases.get(&key.addr).copied())?;
        let pooled = self.peers.get_mut(&peer)?;
        if pooled.connection.is_closed() || (key.pin.is_none() && pooled.connection.is_guest()) {
            return None;
        }
        pooled.used = Instant::now();
        Some(Arc::clone(&pooled.connection))
    }

    /// Who dialled closes it, once the last user lets go; until then the other side keeps it.
    fn retire(&mut self, connection: Arc<PeerConnection>) {
        if !connection.is_dialled_here() && !connection.is_closed() {
            self.retired.insert(connection.stable_id(), connection);
        }
    }

    fn forget(&mut self, peer: PeerId, stable_id: usize) -> Vec<Arc<PeerConnection>> {
        let mut gone: Vec<_> = self.retired.remove(&stable_id).into_iter().collect();
        if let Some(ended) = self.live.remove(&stable_id)
            && !self.live.values().any(|live| live.peer == peer && live.alias == ended.alias)
            && self.aliases.get(&ended.alias) == Some(&peer)
        {
            self.aliases.remove(&ended.alias);
        }
        if self.peers.get(&peer).is_some_and(|p| p.connection.stable_id() == stable_id) {
            gone.extend(self.peers.remove(&peer).map(|p| p.connection));
            self.reinstate(peer);
        }
        self.inboxes.retain(|_, (inboxes, _)| inboxes.strong_count() > 0);
        gone
    }

    fn reinstate(&mut self, peer: PeerId) {
        let usable = |c: &Arc<PeerConnection>| c.peer_id() == peer && !c.is_closed();
        let stable_id = self.retired.values().find(|c| usable(c)).map(|c| c.stable_id());
        if let Some(connection) = stable_id.and_then(|id| self.retired.remove(&id)) {
            let now = Instant::now();
            self.peers.insert(peer, Pooled { connection, established: now, used: now });
        }
    }
}

/// Takes a dial off the list however its task ends, so that the next `connect` dials anew.
struct Unlist<'a> {
    pool: &'a Pool,
    key: DialKey,
    outcome: &'a Arc<Outcome>,
}

impl Unlist<'_> {
    /// Ready once the dial has no waiter. It is off the list then, so that it cannot get a new one.
    async fn when_abandoned(&self) {
        loop {
            self.outcome.closed().await;
            let mut state = self.pool.lock();
            if self.outcome.receiver_count() == 0 {
                self.remove_from(&mut state);
                return;
            }
        }
    }

    fn remove_from(&self, state: &mut State) {
        if state.dials.get(&self.key).is_some_and(|listed| Arc::ptr_eq(listed, self.outcome)) {
            state.dials.remove(&self.key);
        }
    }
}

impl Drop for Unlist<'_> {
    fn drop(&mut self) {
        self.remove_from(&mut self.pool.lock());
    }
}

/// Two dials that cross are at most a handshake apart.
const SIMULTANEOUS_DIAL_WINDOW: Duration = crate::config::HANDSHAKE_TIMEOUT;
