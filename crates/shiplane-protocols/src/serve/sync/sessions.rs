//! The syncs that peers have begun, and what each step of them came to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{gone, unknown};
use crate::sync::{
    SyncRequest, SyncResponse,
    messages::{SyncEnd, SyncHalf, SyncSettle, SyncSettled, SyncStart, SyncStarted},
};

/// Syncs by peer and id. A handle: clones share them.
#[derive(Debug, Default, Clone)]
pub(super) struct Sessions(Arc<Mutex<State>>);

/// One peer cannot see or disturb the syncs of another.
type Key = (PeerId, [u8; 16]);

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Key, Arc<Session>>,
    running: usize,
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
}

impl Sessions {
    pub(super) fn find(&self, peer: PeerId, sync: [u8; 16]) -> Option<Arc<Session>> {
        self.lock().sessions.get(&(peer, sync)).cloned()
    }

    /// A peer opens a sync. What is returned second says how it ends, at the latest when dropped.
    pub(super) fn begin(&self, peer: PeerId, request: &SyncRequest) -> Result<(Arc<Session>, Begun), Fault> {
        let key = (peer, request.sync);
        let mut state = self.lock();
        if state.running >= MAX_RUNNING {
            return Err(Fault::new(FaultCode::Busy, "too many syncs at a time"));
        }
        if state.sessions.contains_key(&key) {
            return Err(Fault::new(FaultCode::InvalidRequest, "the id of the sync was used before"));
        }
        let (opened, opened_seen) = watch::channel(None);
        let (started, started_seen) = watch::channel(None);
        let (settled, settled_seen) = watch::channel(None);
        let (start, start_inbox) = mpsc::channel(1);
        let (settle, settle_inbox) = mpsc::channel(1);
        let session = Arc::new(Session {
            request: request.clone(),
            opened: opened_seen,
            started: started_seen,
            settled: settled_seen,
            start,
            settle,
            abort: CancellationToken::new(),
        });
        state.sessions.insert(key, Arc::clone(&session));
        state.running += 1;
        let (start, settle) = (start_inbox, settle_inbox);
        Ok((session, Begun { sessions: self.clone(), key, opened, started, settled, start, settle }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Begun {
    pub(super) fn opened(&self, response: SyncResponse) {
        self.opened.send_replace(Some(Ok(response)));
    }

    /// Waits for the peer to begin.
    pub(super) async fn start(
        &mut self,
        timeout: Duration,
        closing: &CancellationToken,
    ) -> Result<SyncStart, Fault> {
        tokio::select! {
            start = tokio::time::timeout(timeout, self.start.recv()) => {
                start.ok().flatten().ok_or_else(|| gone("the peer did not begin"))
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
    pub(super) async fn settle(&mut self, timeout: Duration) -> Result<SyncHalf, Fault> {
        let half = tokio::time::timeout(timeout, self.settle.recv()).await;
        half.ok().flatten().ok_or_else(|| gone("the peer did not say what it made of it"))
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
        state.running -= 1;
        state.ended.push_back(self.key);
        if state.ended.len() > MAX_REMEMBERED
            && let Some(oldest) = state.ended.pop_front()
        {
            state.sessions.remove(&oldest);
        }
    }
}

/// 16: each holds two lists of files, of some 200 bytes a file.
const MAX_RUNNING: usize = 16;

/// Ended syncs that can still be asked for; each holds what was answered, half a mebibyte at most.
const MAX_REMEMBERED: usize = 32;

/// 2 s: as long as a peer that gives up will wait to hear the reason.
const ABORT_WAIT: Duration = Duration::from_secs(2);
