//! The syncs that peers have begun, and what each step of them came to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::places::{MAX_SYNCS, Place, Places},
    gone, unknown,
};
use crate::sync::{
    SyncRequest, SyncResponse,
    messages::{SyncEnd, SyncHalf, SyncSettle, SyncSettled, SyncStart, SyncStarted},
};

/// Syncs by peer and id. A handle: clones share them.
#[derive(Debug, Clone)]
pub(super) struct Sessions {
    state: Arc<Mutex<State>>,
    places: Places,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { state: Arc::default(), places: Places::new(MAX_SYNCS, MAX_SYNCS) }
    }
}

/// One peer cannot see or disturb the syncs of another.
type Key = (PeerId, [u8; 16]);

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Key, Arc<Session>>,
    /// Ended ones, oldest first.
    ended: VecDeque<Key>,
}

/// One sync, as the calls see it.
#[derive(Debug)]
pub(super) struct Session {
    request: SyncRequest,
    opened: watch::Receiver<Step<SyncResponse>>,
    started: watch::Receiver<Step<SyncStarted>>,
    settled: watch::Receiver<Step<SyncSettled>>,
    start: mpsc::Sender<SyncStart>,
    settle: mpsc::Sender<SyncHalf>,
    abort: CancellationToken,
    /// When the peer has said anything about it.
    heard: watch::Sender<Instant>,
}

/// What a step came to; nothing yet.
type Step<T> = Option<Result<T, Fault>>;

/// The same sync, as the task sees that runs it.
#[derive(Debug)]
pub(super) struct Begun {
    sessions: Sessions,
    key: Key,
    opened: watch::Sender<Step<SyncResponse>>,
    started: watch::Sender<Step<SyncStarted>>,
    settled: watch::Sender<Step<SyncSettled>>,
    start: mpsc::Receiver<SyncStart>,
    settle: mpsc::Receiver<SyncHalf>,
    heard: watch::Receiver<Instant>,
    _place: Place,
}

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without a sign of life.
    pub(super) silence: Duration,
    /// In all.
    pub(super) max: Duration,
}

impl Sessions {
    /// For a call of the peer's that is about this sync.
    pub(super) fn find(&self, peer: PeerId, sync: [u8; 16]) -> Option<Arc<Session>> {
        let found = self.lock().sessions.get(&(peer, sync)).cloned();
        found.inspect(|session| _ = session.heard.send_replace(Instant::now()))
    }

    /// A peer opens a sync. What is returned second says how it ends, at the latest when dropped.
    pub(super) fn begin(&self, peer: PeerId, request: &SyncRequest) -> Result<(Arc<Session>, Begun), Fault> {
        let key = (peer, request.sync);
        let mut state = self.lock();
        if state.sessions.contains_key(&key) {
            return Err(Fault::new(FaultCode::InvalidRequest, "the id of the sync was used before"));
        }
        let place = self.places.take(peer)?;
        let (opened, opened_seen) = watch::channel(None);
        let (started, started_seen) = watch::channel(None);
        let (settled, settled_seen) = watch::channel(None);
        let (start, start_inbox) = mpsc::channel(1);
        let (settle, settle_inbox) = mpsc::channel(1);
        let (heard, heard_seen) = watch::channel(Instant::now());
        let session = Arc::new(Session {
            request: request.clone(),
            opened: opened_seen,
            started: started_seen,
            settled: settled_seen,
            start,
            settle,
            abort: CancellationToken::new(),
            heard,
        });
        state.sessions.insert(key, Arc::clone(&session));
        let (start, settle, heard) = (start_inbox, settle_inbox, heard_seen);
        let (sessions, _place) = (self.clone(), place);
        Ok((session, Begun { sessions, key, opened, started, settled, start, settle, heard, _place }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(super) fn abort(&self) -> CancellationToken {
        self.abort.clone()
    }

    /// What the comparison came to, by then.
    pub(super) async fn opened(&self, request: &SyncRequest, wait: Duration) -> Result<SyncResponse, Fault> {
        if *request != self.request {
            return Err(Fault::new(FaultCode::InvalidRequest, "the id of the sync was used before"));
        }
        wait_for(&self.opened, wait).await.unwrap_or(Ok(SyncResponse::Working))
    }

    /// Hands `request` over, if none was yet; what came of it by then.
    pub(super) async fn started(&self, request: SyncStart, wait: Duration) -> Result<SyncStarted, Fault> {
        // A second one is the same, asked again.
        let _ = self.start.try_send(request);
        wait_for(&self.started, wait).await.unwrap_or(Ok(SyncStarted::Working))
    }

    /// Hands over what the peer made of it, or ends it; what came of it by then.
    pub(super) async fn settled(&self, request: SyncSettle, wait: Duration) -> Result<SyncSettled, Fault> {
        match request.end {
            SyncEnd::Done(half) => drop(self.settle.try_send(half)),
            SyncEnd::Withdrawn => self.abort.cancel(),
            SyncEnd::Failed => {
                // Why may be known here a little later than there that it has.
                let known = wait_for(&self.settled, ABORT_WAIT.min(wait)).await;
                self.abort.cancel();
                return known.unwrap_or_else(|| Err(gone("nothing has failed here")));
            }
        }
        wait_for(&self.settled, wait).await.unwrap_or(Ok(SyncSettled::Working))
    }
}

/// What a step came to, unless that takes longer than `wait`.
async fn wait_for<T: Clone>(step: &watch::Receiver<Step<T>>, wait: Duration) -> Step<T> {
    let mut step = step.clone();
    let known = tokio::time::timeout(wait, step.wait_for(Option::is_some)).await.ok()?;
    Some(known.map_or_else(|_| None, |known| known.clone()).unwrap_or_else(|| Err(unknown())))
}

/// What the peer says next; nothing, if it falls silent or takes too long.
async fn next<T>(
    inbox: &mut mpsc::Receiver<T>,
    heard: &mut watch::Receiver<Instant>,
    Patience { silence, max }: Patience,
) -> Option<T> {
    let began = Instant::now();
    loop {
        // It need not speak while it is our turn.
        let heard_at = began.max(*heard.borrow_and_update());
        let give_up_at = (began + max).min(heard_at + silence);
        tokio::select! {
            biased;
            next = inbox.recv() => return next,
            said = heard.changed() => said.ok()?,
            () = tokio::time::sleep_until(give_up_at) => return None,
        }
    }
}

impl Begun {
    pub(super) fn opened(&self, response: SyncResponse) {
        self.opened.send_replace(Some(Ok(response)));
    }

    /// Waits for the peer to begin.
    pub(super) async fn start(
        &mut self,
        patience: Patience,
        closing: &CancellationToken,
    ) -> Result<SyncStart, Fault> {
        tokio::select! {
            start = next(&mut self.start, &mut self.heard, patience) => {
                start.ok_or_else(|| gone("the peer did not begin"))
            }
            () = closing.cancelled() => {
                Err(Fault::new(FaultCode::ShuttingDown, "the server is about to end"))
            }
        }
    }

    pub(super) fn started(&self, started: SyncStarted) {
        self.started.send_replace(Some(Ok(started)));
    }

    /// Waits for what the peer made of it.
    pub(super) async fn settle(&mut self, patience: Patience) -> Result<SyncHalf, Fault> {
        let half = next(&mut self.settle, &mut self.heard, patience).await;
        half.ok_or_else(|| gone("the peer did not say what it made of it"))
    }

    pub(super) fn settled(&self, settled: SyncSettled) {
        self.settled.send_replace(Some(Ok(settled)));
    }

    /// All steps that have come to nothing yet come to this.
    pub(super) fn fail(&self, fault: Fault) {
        fn fail<T>(step: &watch::Sender<Step<T>>, fault: &Fault) {
            step.send_if_modified(|step| {
                let is_open = step.is_none();
                if is_open {
                    *step = Some(Err(fault.clone()));
                }
                is_open
            });
        }
        fail(&self.opened, &fault);
        fail(&self.started, &fault);
        fail(&self.settled, &fault);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.fail(gone("the sync is over"));
        let mut state = self.sessions.lock();
        state.ended.push_back(self.key);
        if state.ended.len() > MAX_REMEMBERED
            && let Some(oldest) = state.ended.pop_front()
        {
            state.sessions.remove(&oldest);
        }
    }
}

/// Ended syncs that can still be asked for; each holds what was answered, 64 KiB at most.
const MAX_REMEMBERED: usize = 32;

/// 2 s: as long as a peer that gives up will wait to hear the reason.
const ABORT_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const PATIENCE: Patience = Patience { silence: Duration::from_secs(30), max: Duration::from_secs(900) };

    fn begin(sessions: &Sessions) -> Begun {
        let root = [0; 32];
        let request = SyncRequest {
            sync: [1; 16],
            path: Vec::new(),
            root,
            bases: Vec::new(),
            dry_run: false,
            source: root,
            digest: 2,
        };
        sessions.begin(ALICE, &request).unwrap().1
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_waited_for_while_it_gives_signs_of_life_and_no_longer() {
        let sessions = Sessions::default();
        let mut begun = begin(&sessions);
        // We were at work, and it had nothing to say.
        tokio::time::advance(PATIENCE.silence * 5).await;
        let began = Instant::now();
        let mut ticks = tokio::time::interval(PATIENCE.silence * 2 / 3);
        let signs = async {
            for _ in 0..=20 {
                ticks.tick().await;
                assert!(sessions.find(ALICE, [1; 16]).is_some());
            }
        };
        let closing = CancellationToken::new();
        let (waited, ()) = tokio::join!(begun.start(PATIENCE, &closing), signs);
        assert_eq!(waited.unwrap_err().code, FaultCode::Gone);
        assert_eq!(began.elapsed(), PATIENCE.silence * 2 / 3 * 20 + PATIENCE.silence);

        // Somebody else's word is no sign of life.
        let began = Instant::now();
        let strangers = async {
            ticks.tick().await;
            assert!(sessions.find(PeerId::from_bytes([2; 32]), [1; 16]).is_none());
        };
        let (waited, ()) = tokio::join!(begun.settle(PATIENCE), strangers);
        waited.unwrap_err();
        assert_eq!(began.elapsed(), PATIENCE.silence);
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_do_not_hold_a_dataset_for_ever() {
        let sessions = Sessions::default();
        let mut begun = begin(&sessions);
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        let signs = async {
            loop {
                ticks.tick().await;
                assert!(sessions.find(ALICE, [1; 16]).is_some());
            }
        };
        tokio::select! {
            waited = begun.settle(PATIENCE) => drop(waited.unwrap_err()),
            () = signs => {}
        }
        assert_eq!(began.elapsed(), PATIENCE.max);
    }
}
