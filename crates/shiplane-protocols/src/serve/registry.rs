//! The transfers that peers have opened, and how they ended, for as long as somebody may ask.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;
use shiplane_wire::TransferId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::transfer::provider::Provided;

/// Transfers by peer and id. A handle: clones share the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    state: Arc<Mutex<State>>,
}

/// One peer cannot see, confirm or disturb the transfers of another.
type Key = (PeerId, TransferId);

#[derive(Debug, Default)]
struct State {
    transfers: HashMap<Key, Transfer>,
    /// Ended ones, oldest first.
    ended: VecDeque<Key>,
}

#[derive(Debug, Clone)]
struct Transfer {
    stage: watch::Receiver<Stage>,
    confirmed: CancellationToken,
}

#[derive(Debug, Clone)]
enum Stage {
    Running,
    Ended(Result<Provided, Fault>),
}

impl Registry {
    /// A peer opens a transfer. The returned [`Settle`] says how it ended, at the latest when dropped.
    pub(super) fn begin(&self, peer: PeerId, transfer: TransferId) -> Result<Settle, Refused> {
        let mut state = self.lock();
        let key = (peer, transfer);
        if state.transfers.contains_key(&key) {
            return Err(Refused::Reused);
        }
        let running = state.transfers.len() - state.ended.len();
        if running >= MAX_RUNNING {
            return Err(Refused::TooMany);
        }
        let (stage, watched) = watch::channel(Stage::Running);
        let confirmed = CancellationToken::new();
        state.transfers.insert(key, Transfer { stage: watched, confirmed: confirmed.clone() });
        Ok(Settle { registry: self.clone(), key, stage, confirmed, settled: false })
    }

    /// How a transfer ended, once it has. Cancel-safe.
    pub(super) async fn outcome(&self, peer: PeerId, transfer: TransferId) -> Result<Provided, Fault> {
        let found = self.lock().transfers.get(&(peer, transfer)).cloned();
        let mut stage = found.ok_or_else(|| gone("no such transfer"))?.stage;
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
        match ended.map(|stage| stage.clone()) {
            Ok(Stage::Ended(outcome)) => outcome,
            Ok(Stage::Running) | Err(_) => Err(gone("the transfer was given up")),
        }
    }

    /// The receiver has everything. To confirm twice changes nothing.
    pub(super) fn confirmed(&self, peer: PeerId, transfer: TransferId) {
        if let Some(transfer) = self.lock().transfers.get(&(peer, transfer)) {
            transfer.confirmed.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the task that runs a transfer.
#[derive(Debug)]
pub(super) struct Settle {
    registry: Registry,
    key: Key,
    stage: watch::Sender<Stage>,
    confirmed: CancellationToken,
    settled: bool,
}

impl Settle {
    /// Says how the transfer ended; returns what is cancelled once there is nothing more to wait for.
    pub(super) fn settle(mut self, outcome: Result<Provided, Fault>) -> CancellationToken {
        if outcome.is_err() {
            self.confirmed.cancel();
        }
        self.end(outcome);
        self.confirmed.clone()
    }

    fn end(&mut self, outcome: Result<Provided, Fault>) {
        self.settled = true;
        self.stage.send_replace(Stage::Ended(outcome));
        let mut state = self.registry.lock();
        state.ended.push_back(self.key);
        while state.ended.len() > MAX_REMEMBERED
            && let Some(oldest) = state.ended.pop_front()
        {
            state.transfers.remove(&oldest);
        }
    }
}

impl Drop for Settle {
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
    Reused,
    /// The server is at its limit.
    TooMany,
}

impl Refused {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Reused => Fault::new(FaultCode::InvalidRequest, "the transfer id was used before"),
            Self::TooMany => Fault::new(FaultCode::Busy, "too many transfers at a time"),
        }
    }
}

fn gone(message: &str) -> Fault {
    Fault::new(FaultCode::Gone, message)
}

/// Each holds a records stream, lanes and up to a window of entries.
const MAX_RUNNING: usize = 256;

/// Ended transfers that can still be confirmed: a receiver confirms right after the end.
const MAX_REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests {
    use shiplane_wire::Digest;

    use super::*;

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const BOB: PeerId = PeerId::from_bytes([2; 32]);

    fn id(byte: u8) -> TransferId {
        TransferId::from_bytes([byte; 16])
    }

    fn provided() -> Provided {
        Provided { root: Digest::of(b""), chunks: 0, sent_bytes: 0, failed_entries: 0 }
    }

    #[tokio::test]
    async fn only_the_peer_that_opened_a_transfer_learns_of_it() {
        let registry = Registry::default();
        registry.begin(ALICE, id(1)).unwrap().settle(Ok(provided()));
        assert_eq!(registry.outcome(ALICE, id(1)).await, Ok(provided()));
        assert_eq!(registry.outcome(BOB, id(1)).await.unwrap_err().code, FaultCode::Gone);
    }

    #[tokio::test]
    async fn a_transfer_whose_task_died_is_gone() {
        let registry = Registry::default();
        drop(registry.begin(ALICE, id(1)).unwrap());
        assert_eq!(registry.outcome(ALICE, id(1)).await.unwrap_err().code, FaultCode::Gone);
        assert_eq!(registry.begin(ALICE, id(1)).unwrap_err(), Refused::Reused);
    }

    #[tokio::test]
    async fn a_confirmation_that_is_early_waits_for_the_end() {
        let registry = Registry::default();
        let settle = registry.begin(ALICE, id(1)).unwrap();
        let (outcome, _) =
            tokio::join!(registry.outcome(ALICE, id(1)), async { settle.settle(Ok(provided())) });
        assert_eq!(outcome, Ok(provided()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let registry = Registry::default();
        for i in 0..=MAX_REMEMBERED as u128 {
            let transfer = TransferId::from_bytes(i.to_le_bytes());
            registry.begin(ALICE, transfer).unwrap().settle(Ok(provided()));
        }
        assert_eq!(registry.lock().transfers.len(), MAX_REMEMBERED);
    }

    #[test]
    fn running_transfers_are_bounded() {
        let registry = Registry::default();
        let ids = |i: usize| TransferId::from_bytes((i as u128).to_le_bytes());
        let running: Vec<_> = (0..MAX_RUNNING).map(|i| registry.begin(ALICE, ids(i)).unwrap()).collect();
        assert_eq!(registry.begin(ALICE, ids(MAX_RUNNING)).unwrap_err(), Refused::TooMany);
        drop(running);
    }
}
