//! The pushes that peers have opened, and how they ended, for as long as somebody may ask.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;
use shiplane_wire::TransferId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::places::{Place, Places};
use crate::methods::PushDone;

/// Pushes by peer and id. A handle: clones share the state.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    state: Arc<Mutex<State>>,
    places: Places,
    /// For telling requests apart without keeping them; a peer cannot choose two that look alike.
    key: RandomState,
}

/// One peer cannot see, confirm or disturb the pushes of another.
type Key = (PeerId, TransferId);

#[derive(Debug, Default)]
struct State {
    pushes: HashMap<Key, Known>,
    /// Ended ones, oldest first.
    ended: VecDeque<Key>,
}

#[derive(Debug)]
struct Known {
    request: u64,
    stage: watch::Receiver<Stage>,
    confirmed: CancellationToken,
}

#[derive(Debug, Clone)]
enum Stage {
    Running,
    Ended(Result<PushDone, Fault>),
}

impl Registry {
    /// Of pushes that have these places.
    pub(super) fn new(places: Places) -> Self {
        Self { state: Arc::default(), places, key: RandomState::new() }
    }

    /// A peer opens a push by `request`. The returned [`Settle`] says how it ended, at the latest when dropped.
    pub(super) fn begin<R: Hash>(
        &self,
        peer: PeerId,
        transfer: TransferId,
        request: &R,
    ) -> Result<Settle, Refused> {
        let request = self.key.hash_one(request);
        let mut state = self.lock();
        let key = (peer, transfer);
        if let Some(known) = state.pushes.get(&key) {
            return Err(Refused::Reused { same: known.request == request });
        }
        let place = self.places.take(peer).map_err(Refused::TooMany)?;
        let (stage, watched) = watch::channel(Stage::Running);
        let confirmed = CancellationToken::new();
        state.pushes.insert(key, Known { request, stage: watched, confirmed: confirmed.clone() });
        Ok(Settle { registry: self.clone(), key, stage, confirmed, settled: false, _place: place })
    }

    /// Whether the peer has used this id already.
    pub(super) fn knows(&self, peer: PeerId, transfer: TransferId) -> bool {
        self.lock().pushes.contains_key(&(peer, transfer))
    }

    /// How a push ended, once it has. Cancel-safe.
    pub(super) async fn outcome(&self, peer: PeerId, transfer: TransferId) -> Result<PushDone, Fault> {
        let found = self.lock().pushes.get(&(peer, transfer)).map(|found| found.stage.clone());
        let mut stage = found.ok_or_else(|| gone("no such transfer"))?;
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
        match ended.map(|stage| stage.clone()) {
            Ok(Stage::Ended(outcome)) => outcome,
            Ok(Stage::Running) | Err(_) => Err(gone("the transfer was given up")),
        }
    }

    /// The peer knows how the push ended. To say it twice changes nothing.
    pub(super) fn confirmed(&self, peer: PeerId, transfer: TransferId) {
        if let Some(push) = self.lock().pushes.get(&(peer, transfer)) {
            push.confirmed.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers an ended push: of a peer that has many in place of its oldest, else in place of the oldest of all.
    fn remember(&mut self, key: Key) {
        self.ended.push_back(key);
        let is_of_peer = |other: &Key| other.0 == key.0;
        let of_peer = self.ended.iter().copied().filter(is_of_peer).count();
        let forgotten = if of_peer > MAX_REMEMBERED_PER_PEER {
            self.ended.iter().position(is_of_peer)
        } else {
            (self.ended.len() > MAX_REMEMBERED).then_some(0)
        };
        if let Some(forgotten) = forgotten.and_then(|at| self.ended.remove(at)) {
            self.pushes.remove(&forgotten);
        }
    }
}

/// Held by the task that runs a push.
#[derive(Debug)]
pub(super) struct Settle {
    registry: Registry,
    key: Key,
    stage: watch::Sender<Stage>,
    confirmed: CancellationToken,
    settled: bool,
    _place: Place,
}

impl Settle {
    /// Says how the push ended; returns what is cancelled once there is nothing more to wait for.
    pub(super) fn settle(mut self, outcome: Result<PushDone, Fault>) -> CancellationToken {
        self.end(outcome);
        self.confirmed.clone()
    }

    /// The push never began; its id may be used again.
    pub(super) fn forget(mut self) {
        self.settled = true;
        self.registry.lock().pushes.remove(&self.key);
    }

    fn end(&mut self, outcome: Result<PushDone, Fault>) {
        self.settled = true;
        self.stage.send_replace(Stage::Ended(outcome));
        self.registry.lock().remember(self.key);
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        if !self.settled {
            self.end(Err(gone("the transfer was given up")));
        }
    }
}

/// Why a push cannot begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The id is known already.
    Reused {
        /// By the same request, so that it is the same push.
        same: bool,
    },
    /// There is no place for it.
    TooMany(Fault),
}

impl Refused {
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Reused { .. } => Fault::new(FaultCode::InvalidRequest, "the transfer id was used before"),
            Self::TooMany(fault) => fault,
        }
    }
}

fn gone(message: &str) -> Fault {
    Fault::new(FaultCode::Gone, message)
}

/// Ended pushes of a peer that can still be asked for: it does so right after the end, or after it has connected
/// again.
const MAX_REMEMBERED_PER_PEER: usize = 256;

/// 4,096, at some 300 bytes each: a crowd of peers that come once and never again keeps no more than that.
const MAX_REMEMBERED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        methods::PushSent,
        serve::places::{MAX_PUSHES, Places},
    };

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const BOB: PeerId = PeerId::from_bytes([2; 32]);

    fn id(number: usize) -> TransferId {
        TransferId::from_bytes((number as u128).to_le_bytes())
    }

    fn registry() -> Registry {
        Registry::new(Places::new(MAX_PUSHES, MAX_PUSHES))
    }

    fn done(entries: u64) -> PushDone {
        PushDone {
            received: PushSent { root: [0; 32], chunks: 0 },
            durable: true,
            entries,
            total_bytes: 0,
            published_files: 0,
            identical_files: 0,
            resumed_bytes: 0,
            failed_entries: 0,
        }
    }

    #[tokio::test]
    async fn only_the_peer_that_opened_a_transfer_learns_of_it() {
        let registry = registry();
        registry.begin(ALICE, id(1), &"a").unwrap().settle(Ok(done(7)));
        assert_eq!(registry.outcome(ALICE, id(1)).await, Ok(done(7)));
        assert_eq!(registry.outcome(BOB, id(1)).await.unwrap_err().code, FaultCode::Gone);
    }

    #[tokio::test]
    async fn a_transfer_whose_task_died_is_gone() {
        let registry = registry();
        drop(registry.begin(ALICE, id(1), &"a").unwrap());
        assert_eq!(registry.outcome(ALICE, id(1)).await.unwrap_err().code, FaultCode::Gone);
        assert_eq!(registry.begin(ALICE, id(1), &"a").unwrap_err(), Refused::Reused { same: true });
        assert_eq!(registry.begin(ALICE, id(1), &"b").unwrap_err(), Refused::Reused { same: false });
    }

    #[tokio::test]
    async fn a_question_that_is_early_waits_for_the_end() {
        let registry = registry();
        let settle = registry.begin(ALICE, id(1), &"a").unwrap();
        let (outcome, _) = tokio::join!(registry.outcome(ALICE, id(1)), async { settle.settle(Ok(done(7))) });
        assert_eq!(outcome, Ok(done(7)));
    }

    #[test]
    fn one_that_never_began_leaves_its_id_and_its_place() {
        let registry = Registry::new(Places::new(2, 1));
        registry.begin(ALICE, id(1), &"a").unwrap().forget();
        registry.begin(ALICE, id(1), &"b").unwrap();
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded_and_each_peers_own() {
        let registry = registry();
        registry.begin(BOB, id(0), &"b").unwrap().settle(Ok(done(1)));
        for number in 0..=MAX_REMEMBERED_PER_PEER {
            registry.begin(ALICE, id(number), &"a").unwrap().settle(Ok(done(2)));
        }
        assert_eq!(registry.lock().pushes.len(), MAX_REMEMBERED_PER_PEER + 1);
        assert!(registry.outcome(ALICE, id(0)).await.is_err());
        assert_eq!(registry.outcome(BOB, id(0)).await, Ok(done(1)));
    }

    #[test]
    fn a_crowd_of_peers_that_push_once_is_forgotten_in_order() {
        let registry = registry();
        let peer = |number: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&number.to_le_bytes());
            PeerId::from_bytes(key)
        };
        let last = MAX_REMEMBERED as u16;
        for number in 0..=last {
            registry.begin(peer(number), id(1), &"a").unwrap().settle(Ok(done(1)));
        }
        assert_eq!(registry.lock().pushes.len(), MAX_REMEMBERED);
        assert!(!registry.knows(peer(0), id(1)));
        assert!(registry.knows(peer(1), id(1)) && registry.knows(peer(last), id(1)));
    }
}
