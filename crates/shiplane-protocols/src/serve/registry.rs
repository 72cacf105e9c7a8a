//! The running pushes and syncs of this server, and the outcomes of finished ones for as long as peers may ask.

use std::{
    collections::{HashMap, VecDeque},
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

use shiplane_rpc::{Fault, FaultCode, RequestContext};
use shiplane_transport::PeerId;
use shiplane_wire::TransferId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::concurrency::{ConcurrencyLimit, ConcurrencyPermit};
use crate::{lock, methods::Step};

/// Sessions by peer and id. A handle: clones share the state.
#[derive(Debug)]
pub(super) struct Registry<S> {
    state: Arc<Mutex<State<S>>>,
    limit: ConcurrencyLimit,
    max_remembered: Remembered,
}

/// Ended sessions that can still be asked for: of one peer and in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    pub(super) per_peer: usize,
    pub(super) in_all: usize,
}

/// What calls and the task that runs it share.
pub(super) trait Session {
    /// Answers what has not been answered yet: its task has ended.
    fn ended(&self);
}

/// One peer cannot see, confirm or disturb the sessions of another.
type Key = (PeerId, TransferId);

#[derive(Debug)]
struct State<S> {
    sessions: HashMap<Key, Arc<S>>,
    /// Ended ones, oldest first.
    ended: VecDeque<Key>,
}

/// Held by the task that runs a session, which has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Begun<S: Session> {
    registry: Registry<S>,
    key: Key,
    session: Arc<S>,
    _permit: ConcurrencyPermit,
}

/// Why a session cannot begin.
#[derive(Debug)]
pub(super) enum Refused<S> {
    /// The id is known already.
    Known(Arc<S>),
    /// Too many sessions are open.
    TooMany(Fault),
}

/// The answer to one step of a session. The first one counts.
#[derive(Debug)]
pub(super) struct Answer<T>(watch::Sender<Option<Result<T, Fault>>>);

impl<S> Clone for Registry<S> {
    fn clone(&self) -> Self {
        let (state, limit) = (Arc::clone(&self.state), self.limit.clone());
        Self { state, limit, max_remembered: self.max_remembered }
    }
}

impl<S: Session> Registry<S> {
    /// Sessions are limited by `limit`.
    pub(super) fn new(limit: ConcurrencyLimit, max_remembered: Remembered) -> Self {
        let state = State { sessions: HashMap::new(), ended: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)), limit, max_remembered }
    }

    /// A peer opens a session.
    pub(super) fn begin(&self, peer: PeerId, id: TransferId, session: S) -> Result<Begun<S>, Refused<S>> {
        let mut state = lock(&self.state);
        let key = (peer, id);
        if let Some(known) = state.sessions.get(&key) {
            return Err(Refused::Known(Arc::clone(known)));
        }
        let permit = self.limit.take(peer).map_err(Refused::TooMany)?;
        let session = Arc::new(session);
        state.sessions.insert(key, Arc::clone(&session));
        Ok(Begun { registry: self.clone(), key, session, _permit: permit })
    }

    /// The session that the peer has opened with this id.
    pub(super) fn find(&self, peer: PeerId, id: TransferId) -> Option<Arc<S>> {
        lock(&self.state).sessions.get(&(peer, id)).cloned()
    }
}

impl<S> State<S> {
    /// Remembers an ended session: of a peer that has many in place of its oldest, else in place of the oldest of all.
    fn remember(&mut self, key: Key, max: Remembered) {
        self.ended.push_back(key);
        let is_of_peer = |other: &Key| other.0 == key.0;
        let of_peer = self.ended.iter().copied().filter(is_of_peer).count();
        let forgotten = if of_peer > max.per_peer {
            self.ended.iter().position(is_of_peer)
        } else {
            (self.ended.len() > max.in_all).then_some(0)
        };
        if let Some(forgotten) = forgotten.and_then(|at| self.ended.remove(at)) {
            self.sessions.remove(&forgotten);
        }
    }
}

impl<S: Session> Begun<S> {
    /// For the calls that are about it.
    pub(super) fn session(&self) -> &Arc<S> {
        &self.session
    }

    /// The session never began; its id may be used again.
    pub(super) fn forget(self) {
        lock(&self.registry.state).sessions.remove(&self.key);
    }
}

impl<S: Session> Deref for Begun<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.session
    }
}

impl<S: Session> Drop for Begun<S> {
    fn drop(&mut self) {
        self.session.ended();
        let mut state = lock(&self.registry.state);
        // Unless it never began.
        if state.sessions.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.session)) {
            state.remember(self.key, self.registry.max_remembered);
        }
    }
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl<T: Clone> Answer<T> {
    pub(super) fn give(&self, answer: Result<T, Fault>) {
        self.0.send_if_modified(|given| {
            let is_first = given.is_none();
            given.get_or_insert(answer);
            is_first
        });
    }

    /// The answer, unless that takes longer than `wait`. Cancel-safe.
    pub(super) async fn within(&self, wait: Duration) -> Result<Step<T>, Fault> {
        let mut given = self.0.subscribe();
        let given = tokio::time::timeout(wait, given.wait_for(Option::is_some)).await;
        let given = given.ok().and_then(Result::ok).and_then(|given| given.clone());
        given.map_or(Ok(Step::Working), |answer| answer.map(Step::Done))
    }
}

/// How long a call may wait for an answer. "Working" is a sign of life and must come in time.
pub(super) fn answer_wait(context: &RequestContext) -> Duration {
    let left = context.deadline.saturating_duration_since(tokio::time::Instant::now());
    ANSWER_WAIT.min(left / 2)
}

/// Waits, unless the server shuts down before.
pub(super) async fn unless<T>(
    closing: &CancellationToken,
    waiting: impl Future<Output = T>,
) -> Result<T, Fault> {
    closing.run_until_cancelled(waiting).await.ok_or_else(shutting_down)
}

pub(super) fn shutting_down() -> Fault {
    Fault::new(FaultCode::ShuttingDown, "the server is shutting down")
}

pub(super) fn gone(message: &str) -> Fault {
    Fault::new(FaultCode::Gone, message)
}

/// 10 s, of the 30 that a peer waits for progress by default: it hears twice that we are at work.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const BOB: PeerId = PeerId::from_bytes([2; 32]);
    const REMEMBERED: Remembered = Remembered { per_peer: 3, in_all: 8 };

    #[derive(Debug, Default)]
    struct Count(Answer<u64>);

    impl Session for Count {
        fn ended(&self) {
            self.0.give(Err(gone("the session has ended")));
        }
    }

    fn id(number: usize) -> TransferId {
        TransferId::from_bytes((number as u128).to_le_bytes())
    }

    fn registry() -> Registry<Count> {
        Registry::new(ConcurrencyLimit::new(8, 8), REMEMBERED)
    }

    fn end(registry: &Registry<Count>, peer: PeerId, number: usize) {
        registry.begin(peer, id(number), Count::default()).unwrap().0.give(Ok(number as u64));
    }

    async fn answer(registry: &Registry<Count>, peer: PeerId, number: usize) -> Option<Result<u64, Fault>> {
        match registry.find(peer, id(number))?.0.within(ANSWER_WAIT).await {
            Ok(Step::Working) => None,
            Ok(Step::Done(number)) => Some(Ok(number)),
            Err(fault) => Some(Err(fault)),
        }
    }

    #[tokio::test]
    async fn only_the_peer_that_opened_a_transfer_learns_of_it() {
        let registry = registry();
        end(&registry, ALICE, 7);
        assert_eq!(answer(&registry, ALICE, 7).await, Some(Ok(7)));
        assert_eq!(answer(&registry, BOB, 7).await, None);
    }

    #[tokio::test]
    async fn a_session_whose_task_died_is_gone_and_its_id_is_used() {
        let registry = registry();
        drop(registry.begin(ALICE, id(1), Count::default()).unwrap());
        assert_eq!(answer(&registry, ALICE, 1).await.unwrap().unwrap_err().code, FaultCode::Gone);
        assert!(matches!(registry.begin(ALICE, id(1), Count::default()), Err(Refused::Known(_))));
    }

    #[tokio::test]
    async fn a_question_that_is_early_waits_for_the_end_and_the_first_answer_counts() {
        let registry = registry();
        let begun = registry.begin(ALICE, id(1), Count::default()).unwrap();
        let (early, ()) = tokio::join!(answer(&registry, ALICE, 1), async { begun.0.give(Ok(7)) });
        assert_eq!(early, Some(Ok(7)));
        begun.0.give(Ok(8));
        drop(begun);
        assert_eq!(answer(&registry, ALICE, 1).await, Some(Ok(7)));
    }

    #[test]
    fn one_that_never_began_leaves_its_id_and_its_permit() {
        let registry = Registry::new(ConcurrencyLimit::new(2, 1), REMEMBERED);
        registry.begin(ALICE, id(1), Count::default()).unwrap().forget();
        let again = registry.begin(ALICE, id(1), Count::default()).unwrap();
        assert!(lock(&registry.state).ended.is_empty());
        drop(again);
    }

    #[test]
    fn remembered_outcomes_are_bounded_and_private_to_each_peer() {
        let registry = registry();
        end(&registry, BOB, 0);
        (0..=REMEMBERED.per_peer).for_each(|number| end(&registry, ALICE, number));
        assert_eq!(lock(&registry.state).sessions.len(), REMEMBERED.per_peer + 1);
        assert!(registry.find(ALICE, id(0)).is_none());
        assert!(registry.find(BOB, id(0)).is_some());
    }

    #[test]
    fn a_crowd_of_peers_that_push_once_is_forgotten_in_order() {
        let registry = registry();
        let peer = |number: usize| PeerId::from_bytes([number as u8; 32]);
        (0..=REMEMBERED.in_all).for_each(|number| end(&registry, peer(number), 1));
        assert_eq!(lock(&registry.state).sessions.len(), REMEMBERED.in_all);
        assert!(registry.find(peer(0), id(1)).is_none());
        assert!(registry.find(peer(1), id(1)).is_some());
    }
}
