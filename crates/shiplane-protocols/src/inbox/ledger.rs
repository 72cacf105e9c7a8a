//! Tracks running and finished deliveries by peer. Every step is atomic; no IO.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use shiplane_transport::PeerId;
use shiplane_wire::{Digest, TransferId};
use tokio_util::sync::CancellationToken;

use crate::lock;

/// Names a delivery: ids of different peers are different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) peer: PeerId,
    pub(super) transfer: TransferId,
}

/// The memory of an inbox, bounded for each peer and in all.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

/// What a new attempt finds.
#[derive(Debug)]
pub(super) enum Begun {
    /// No other task works on it.
    New(Attempt),
    /// An earlier one has not ended.
    UnderWay(Earlier),
    /// An earlier one was delivered.
    Delivered(Digest),
}

/// An attempt under way. Dropped, it has ended, delivered or not.
#[derive(Debug)]
pub(super) struct Attempt {
    ledger: Arc<Ledger>,
    key: Key,
    number: u64,
    signals: Signals,
}

/// An attempt that another task works on.
#[derive(Debug)]
pub(super) struct Earlier(Signals);

impl Ledger {
    pub(super) fn begin(self: &Arc<Self>, key: Key) -> Begun {
        let mut state = lock(&self.state);
        state.clock += 1;
        let number = state.clock;
        state.make_room_for(key.peer);
        let peer = state.peers.entry(key.peer).or_default();
        peer.used = number;
        match peer.entries.get(&key.transfer) {
            Some(Entry::Delivered { digest }) => Begun::Delivered(*digest),
            Some(Entry::UnderWay { signals, .. }) => Begun::UnderWay(Earlier(signals.clone())),
            None => {
                let signals = Signals::default();
                let entry = Entry::UnderWay { number, signals: signals.clone() };
                peer.entries.insert(key.transfer, entry);
                Begun::New(Attempt { ledger: Arc::clone(self), key, number, signals })
            }
        }
    }

    /// Remembers the delivery and runs `hand_over`, unless the attempt has ended: then it is `false`.
    pub(super) fn deliver(&self, attempt: (Key, u64), digest: Digest, hand_over: impl FnOnce()) -> bool {
        let (key, number) = attempt;
        let mut state = lock(&self.state);
        let Some(peer) = state.peers.get_mut(&key.peer) else { return false };
        match peer.entries.get_mut(&key.transfer) {
            Some(entry) if entry.is_attempt(number) => *entry = Entry::Delivered { digest },
            Some(_) | None => return false,
        }
        peer.delivered.push_back(key.transfer);
        if peer.delivered.len() > MAX_REMEMBERED
            && let Some(oldest) = peer.delivered.pop_front()
        {
            peer.entries.remove(&oldest);
        }
        // Under the lock: a delivery must not be seen before it is complete.
        hand_over();
        true
    }

    fn end(&self, key: Key, number: u64) {
        let mut state = lock(&self.state);
        if let Some(peer) = state.peers.get_mut(&key.peer)
            && peer.entries.get(&key.transfer).is_some_and(|entry| entry.is_attempt(number))
        {
            peer.entries.remove(&key.transfer);
        }
    }
}

impl Attempt {
    /// For [`Ledger::deliver`].
    pub(super) fn key(&self) -> (Key, u64) {
        (self.key, self.number)
    }

    /// Comes when the sender has begun another attempt.
    pub(super) fn superseded(&self) -> impl Future<Output = ()> + Send + 'static {
        self.signals.give_up.clone().cancelled_owned()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.ledger.end(self.key, self.number);
        self.signals.ended.cancel();
    }
}

impl Earlier {
    /// Ends it and waits until it has.
    pub(super) async fn end(self) {
        self.0.give_up.cancel();
        self.0.ended.cancelled().await;
    }
}

#[derive(Debug, Default)]
struct State {
    peers: HashMap<PeerId, Memory>,
    /// Counts up; numbers attempts and dates a peer's last one.
    clock: u64,
}

#[derive(Debug, Default)]
struct Memory {
    entries: HashMap<TransferId, Entry>,
    /// In order of delivery.
    delivered: VecDeque<TransferId>,
    used: u64,
}

#[derive(Debug)]
enum Entry {
    UnderWay { number: u64, signals: Signals },
    Delivered { digest: Digest },
}

#[derive(Debug, Clone, Default)]
struct Signals {
    give_up: CancellationToken,
    ended: CancellationToken,
}

impl Entry {
    fn is_attempt(&self, wanted: u64) -> bool {
        match self {
            Self::UnderWay { number, .. } => *number == wanted,
            Self::Delivered { .. } => false,
        }
    }
}

impl State {
    /// Forgets the peer that has been quiet for longest, if a new one has no place.
    fn make_room_for(&mut self, peer: PeerId) {
        if self.peers.len() < MAX_PEERS || self.peers.contains_key(&peer) {
            return;
        }
        let is_quiet = |memory: &Memory| memory.entries.len() == memory.delivered.len();
        let quiet = self.peers.iter().filter(|(_, memory)| is_quiet(memory));
        if let Some(oldest) = quiet.min_by_key(|(_, memory)| memory.used).map(|(peer, _)| *peer) {
            self.peers.remove(&oldest);
        }
    }
}

/// 256 peers of at most 100 KiB each, all of them admitted by the transport's trust.
const MAX_PEERS: usize = 256;

/// 1,024 deliveries of one peer: far more than can be under way at a time, in under 100 KiB.
pub const MAX_REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(peer: u8, transfer: u64) -> Key {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&transfer.to_le_bytes());
        Key { peer: PeerId::from_bytes([peer; 32]), transfer: TransferId::from_bytes(id) }
    }

    fn begin(ledger: &Arc<Ledger>, key: Key) -> Attempt {
        match ledger.begin(key) {
            Begun::New(attempt) => attempt,
            other => panic!("not new: {other:?}"),
        }
    }

    fn deliver(ledger: &Arc<Ledger>, key: Key) -> usize {
        let attempt = begin(ledger, key);
        let mut handed_over = 0;
        ledger.deliver(attempt.key(), Digest::sha256(b"data"), || handed_over += 1);
        handed_over
    }

    #[test]
    fn a_delivered_id_is_known_and_belongs_to_one_peer() {
        let ledger = Arc::default();
        assert_eq!(deliver(&ledger, key(1, 7)), 1);
        assert!(
            matches!(ledger.begin(key(1, 7)), Begun::Delivered(digest) if digest == Digest::sha256(b"data"))
        );
        assert_eq!(deliver(&ledger, key(2, 7)), 1);
    }

    #[test]
    fn an_attempt_that_has_ended_delivers_nothing() {
        let ledger: Arc<Ledger> = Arc::default();
        let first = begin(&ledger, key(1, 7));
        let late = first.key();
        drop(first);
        let second = begin(&ledger, key(1, 7));
        assert!(!ledger.deliver(late, Digest::sha256(b"data"), || panic!("handed over")));
        assert!(ledger.deliver(second.key(), Digest::sha256(b"data"), || ()));
        assert!(!ledger.deliver(second.key(), Digest::sha256(b"data"), || panic!("twice")));
    }

    #[tokio::test]
    async fn an_earlier_attempt_is_ended_and_awaited() {
        let ledger: Arc<Ledger> = Arc::default();
        let first = begin(&ledger, key(1, 7));
        let Begun::UnderWay(earlier) = ledger.begin(key(1, 7)) else { panic!("it is under way") };
        let superseded = first.superseded();
        let holder = tokio::spawn(async move {
            superseded.await;
            drop(first);
        });
        earlier.end().await;
        holder.await.unwrap();
        begin(&ledger, key(1, 7));
    }

    #[test]
    fn memory_is_bounded_for_a_peer_and_in_all() {
        let ledger: Arc<Ledger> = Arc::default();
        for transfer in 0..=MAX_REMEMBERED as u64 {
            deliver(&ledger, key(1, transfer));
        }
        assert_eq!(lock(&ledger.state).peers[&key(1, 0).peer].entries.len(), MAX_REMEMBERED);
        assert!(matches!(ledger.begin(key(1, 0)), Begun::New(_)), "the oldest is forgotten");
        assert!(matches!(ledger.begin(key(1, 1)), Begun::Delivered(_)));

        for number in 0..2 * MAX_PEERS as u32 {
            let mut peer = [9; 32];
            peer[..4].copy_from_slice(&number.to_le_bytes());
            deliver(&ledger, Key { peer: PeerId::from_bytes(peer), ..key(0, 1) });
        }
        assert_eq!(lock(&ledger.state).peers.len(), MAX_PEERS);
    }
}
