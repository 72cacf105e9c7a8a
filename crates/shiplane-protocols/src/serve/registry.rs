//! The transfers that peers have opened, and how they ended, for as long as somebody may ask.

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

/// Transfers by peer and id, each of which ends in a `T` or a fault. A handle: clones share the state.
#[derive(Debug)]
pub(super) struct Registry<T> {
    state: Arc<Mutex<State<T>>>,
    /// For telling requests apart without keeping them; a peer cannot choose two that look alike.
    key: RandomState,
    max_running: usize,
    max_running_per_peer: usize,
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            key: self.key.clone(),
            max_running: self.max_running,
            max_running_per_peer: self.max_running_per_peer,
        }
    }
}

/// One peer cannot see, confirm or disturb the transfers of another.
type Key = (PeerId, TransferId);

#[derive(Debug)]
struct State<T> {
    transfers: HashMap<Key, Transfer<T>>,
    /// By peer, who has transfers here.
    peers: HashMap<PeerId, OfPeer>,
    running: usize,
}

#[derive(Debug, Default)]
struct OfPeer {
    running: usize,
    /// Ended ones, oldest first.
    ended: VecDeque<TransferId>,
}

#[derive(Debug)]
struct Transfer<T> {
    request: u64,
    stage: watch::Receiver<Stage<T>>,
    confirmed: CancellationToken,
}

#[derive(Debug, Clone)]
enum Stage<T> {
    Running,
    Ended(Result<T, Fault>),
}

impl<T: Clone + Send + Sync + 'static> Registry<T> {
    /// For at most so many transfers at a time, in all and of one peer.
    pub(super) fn new(max_running: usize, max_running_per_peer: usize) -> Self {
        let state = State { transfers: HashMap::new(), peers: HashMap::new(), running: 0 };
        Self {
            state: Arc::new(Mutex::new(state)),
            key: RandomState::new(),
            max_running,
            max_running_per_peer,
        }
    }

    /// A peer opens a transfer by `request`. The returned [`Settle`] says how it ended, at the latest when
    /// dropped.
    pub(super) fn begin<R: Hash>(
        &self,
        peer: PeerId,
        transfer: TransferId,
        request: &R,
    ) -> Result<Settle<T>, Refused> {
        let request = self.key.hash_one(request);
        let mut state = self.lock();
        let key = (peer, transfer);
        if let Some(known) = state.transfers.get(&key) {
            return Err(Refused::Reused { same: known.request == request });
        }
        let of_peer = state.peers.get(&peer).map_or(0, |of_peer| of_peer.running);
        // However much the others want, a peer that has nothing under way finds a place: they leave some to such.
        let left = self.max_running.saturating_sub(state.running);
        let reserved = if of_peer == 0 { 0 } else { self.max_running / RESERVED_PART };
        if of_peer >= self.max_running_per_peer || of_peer + reserved >= left {
            return Err(Refused::TooMany);
        }
        let (stage, watched) = watch::channel(Stage::Running);
        let confirmed = CancellationToken::new();
        state.transfers.insert(key, Transfer { request, stage: watched, confirmed: confirmed.clone() });
        state.peers.entry(peer).or_default().running += 1;
        state.running += 1;
        Ok(Settle { registry: self.clone(), key, stage, confirmed, settled: false })
    }

    /// Whether the peer has used this id already.
    pub(super) fn knows(&self, peer: PeerId, transfer: TransferId) -> bool {
        self.lock().transfers.contains_key(&(peer, transfer))
    }

    /// How a transfer ended, once it has. Cancel-safe.
    pub(super) async fn outcome(&self, peer: PeerId, transfer: TransferId) -> Result<T, Fault> {
        let found = self.lock().transfers.get(&(peer, transfer)).map(|found| found.stage.clone());
        let mut stage = found.ok_or_else(|| gone("no such transfer"))?;
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
        match ended.map(|stage| stage.clone()) {
            Ok(Stage::Ended(outcome)) => outcome,
            Ok(Stage::Running) | Err(_) => Err(gone("the transfer was given up")),
        }
    }

    /// The peer knows how the transfer ended. To say it twice changes nothing.
    pub(super) fn confirmed(&self, peer: PeerId, transfer: TransferId) {
        if let Some(transfer) = self.lock().transfers.get(&(peer, transfer)) {
            transfer.confirmed.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn stops_running(&mut self, peer: PeerId) -> &mut OfPeer {
        self.running -= 1;
        let of_peer = self.peers.entry(peer).or_default();
        of_peer.running -= 1;
        of_peer
    }
}

/// Held by the task that runs a transfer.
#[derive(Debug)]
pub(super) struct Settle<T: Clone + Send + Sync + 'static> {
    registry: Registry<T>,
    key: Key,
    stage: watch::Sender<Stage<T>>,
    confirmed: CancellationToken,
    settled: bool,
}

impl<T: Clone + Send + Sync + 'static> Settle<T> {
    /// Says how the transfer ended; returns what is cancelled once there is nothing more to wait for.
    pub(super) fn settle(mut self, outcome: Result<T, Fault>) -> CancellationToken {
        self.end(outcome);
        self.confirmed.clone()
    }

    /// The transfer never began; its id may be used again.
    pub(super) fn forget(mut self) {
        self.settled = true;
        let mut state = self.registry.lock();
        state.transfers.remove(&self.key);
        state.stops_running(self.key.0);
    }

    fn end(&mut self, outcome: Result<T, Fault>) {
        self.settled = true;
        self.stage.send_replace(Stage::Ended(outcome));
        let (peer, transfer) = self.key;
        let mut state = self.registry.lock();
        let of_peer = state.stops_running(peer);
        of_peer.ended.push_back(transfer);
        if of_peer.ended.len() > MAX_REMEMBERED
            && let Some(oldest) = of_peer.ended.pop_front()
        {
            state.transfers.remove(&(peer, oldest));
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Drop for Settle<T> {
    fn drop(&mut self) {
        if !self.settled {
            self.end(Err(gone("the transfer was given up")));
        }
    }
}

/// Why a transfer cannot begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The id is known already.
    Reused {
        /// By the same request, so that it is the same transfer.
        same: bool,
    },
    /// The server is at its limit, or the peer at its own.
    TooMany,
}

impl Refused {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Reused { .. } => Fault::new(FaultCode::InvalidRequest, "the transfer id was used before"),
            Self::TooMany => Fault::new(FaultCode::Busy, "too many transfers at a time"),
        }
    }
}

fn gone(message: &str) -> Fault {
    Fault::new(FaultCode::Gone, message)
}

/// Each holds a records stream and up to a window of entries, and, while its receiver stalls, one of the 512 threads
/// that a runtime has for blocking work by default.
pub(super) const MAX_FETCHES: usize = 192;

/// Each has two such threads for its disk and one for a chunk.
pub(super) const MAX_PUSHES: usize = 56;

/// A quarter of the places is for peers that have none yet.
const RESERVED_PART: usize = 4;

/// Ended transfers of a peer that can still be asked for: it does so right after the end, or after it has
/// connected again.
const MAX_REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const BOB: PeerId = PeerId::from_bytes([2; 32]);

    fn id(number: usize) -> TransferId {
        TransferId::from_bytes((number as u128).to_le_bytes())
    }

    fn registry() -> Registry<u8> {
        Registry::new(MAX_FETCHES, MAX_FETCHES)
    }

    #[tokio::test]
    async fn only_the_peer_that_opened_a_transfer_learns_of_it() {
        let registry = registry();
        registry.begin(ALICE, id(1), &"a").unwrap().settle(Ok(7));
        assert_eq!(registry.outcome(ALICE, id(1)).await, Ok(7));
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
        let (outcome, _) = tokio::join!(registry.outcome(ALICE, id(1)), async { settle.settle(Ok(7)) });
        assert_eq!(outcome, Ok(7));
    }

    #[test]
    fn one_that_never_began_leaves_its_id_and_its_place() {
        let registry = Registry::<u8>::new(2, 1);
        registry.begin(ALICE, id(1), &"a").unwrap().forget();
        registry.begin(ALICE, id(1), &"b").unwrap();
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded_and_each_peers_own() {
        let registry = registry();
        registry.begin(BOB, id(0), &"b").unwrap().settle(Ok(1));
        for number in 0..=MAX_REMEMBERED {
            registry.begin(ALICE, id(number), &"a").unwrap().settle(Ok(2));
        }
        assert_eq!(registry.lock().transfers.len(), MAX_REMEMBERED + 1);
        assert!(registry.outcome(ALICE, id(0)).await.is_err());
        assert_eq!(registry.outcome(BOB, id(0)).await, Ok(1));
    }

    #[test]
    fn running_transfers_are_bounded_in_all_and_for_each_peer() {
        let registry = Registry::<u8>::new(8, 2);
        let peer = |number: u8| PeerId::from_bytes([number; 32]);
        let begin = |peer, number| registry.begin(peer, id(number), &0);
        let mut running = vec![begin(peer(1), 1).unwrap(), begin(peer(1), 2).unwrap()];
        assert_eq!(begin(peer(1), 3).unwrap_err(), Refused::TooMany, "two of one peer");
        running.extend((2..=7).map(|number| begin(peer(number), 1).unwrap()));
        assert_eq!(begin(peer(8), 1).unwrap_err(), Refused::TooMany, "eight in all");
        drop(running);
        begin(peer(8), 1).unwrap();
    }

    #[test]
    fn a_peer_that_opens_without_end_leaves_places_to_others() {
        let registry = registry();
        let mut running = Vec::new();
        for peer in 1..=MAX_FETCHES as u8 / 4 {
            let greedy = PeerId::from_bytes([peer; 32]);
            while let Ok(settle) = registry.begin(greedy, id(running.len()), &0) {
                running.push(settle);
            }
        }
        registry.begin(PeerId::from_bytes([0; 32]), id(0), &0).unwrap();
    }
}
