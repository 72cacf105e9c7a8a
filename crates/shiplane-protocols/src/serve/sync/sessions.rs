//! The channel between the calls of a sync and the task that runs it.

use std::{path::Path, sync::Arc, time::Duration};

use shiplane_files::internals::sync::SyncState;
use shiplane_rpc::{Fault, FaultCode};
use shiplane_transport::PeerId;
use shiplane_wire::{Digest, TransferId};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::super::{
    concurrency::{ConcurrencyLimit, MAX_SYNCS},
    registry::{self, Answer, Refused, Registry, Remembered, Session, gone, unless},
    watch::Watches,
};
use crate::methods::Step;
use crate::sync::{
    SyncList, SyncRequest, SyncResponse,
    messages::{SyncDone, SyncEnd, SyncHalf, SyncReady, SyncSettle, SyncStart},
};

/// What a server that may be synced with keeps.
#[derive(Debug)]
pub(in crate::serve) struct Syncing {
    pub(super) state: SyncState,
    /// What this machine calls the root that is served.
    local: Vec<u8>,
    pub(super) sessions: Registry<SyncSession>,
    pub(super) watches: Watches,
}

impl Syncing {
    /// Blocking.
    pub(in crate::serve) fn new(state: SyncState, root: &Path) -> Self {
        let local = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let local = local.into_os_string().into_encoded_bytes();
        Self { state, local, sessions: sessions(), watches: Watches::new() }
    }

    /// What this machine calls a path below what is served.
    pub(in crate::serve) fn local_name(&self, path: &[u8]) -> Vec<u8> {
        if path.is_empty() { self.local.clone() } else { [&self.local[..], b"/", path].concat() }
    }
}

/// One step of a sync: what the peer says, and the answer.
#[derive(Debug)]
pub(super) struct Exchange<Req, Res> {
    said: mpsc::Sender<Req>,
    pub(super) answer: Answer<Res>,
}

/// One sync, as the calls see it.
#[derive(Debug)]
pub(super) struct SyncSession {
    /// Digest of the request, which may be long.
    request: Digest,
    pub(super) compared: Exchange<SyncList, SyncResponse>,
    pub(super) started: Exchange<SyncStart, SyncReady>,
    pub(super) settled: Exchange<SyncHalf, SyncDone>,
    abort: CancellationToken,
    /// When the peer has said anything about it.
    heard: watch::Sender<Instant>,
}

/// The same sync, as the task sees that runs it.
#[derive(Debug)]
pub(super) struct Begun {
    begun: registry::Begun<SyncSession>,
    compare: mpsc::Receiver<SyncList>,
    start: mpsc::Receiver<SyncStart>,
    settle: mpsc::Receiver<SyncHalf>,
    heard: watch::Receiver<Instant>,
}

impl<Req, Res: Clone> Exchange<Req, Res> {
    fn new() -> (Self, mpsc::Receiver<Req>) {
        let (said, inbox) = mpsc::channel(1);
        (Self { said, answer: Answer::default() }, inbox)
    }

    /// Hands `request` over, if none was yet: a second one is the same, asked again. Returns the answer so far.
    pub(super) async fn ask(&self, request: Req, wait: Duration) -> Result<Step<Res>, Fault> {
        let _ = self.said.try_send(request);
        self.answer.within(wait).await
    }
}

/// The syncs that peers have begun.
fn sessions() -> Registry<SyncSession> {
    Registry::new(ConcurrencyLimit::new(MAX_SYNCS, MAX_SYNCS), MAX_REMEMBERED)
}

/// A peer opens a sync.
pub(super) fn begin(
    sessions: &Registry<SyncSession>,
    peer: PeerId,
    request: &SyncRequest,
) -> Result<Begun, Fault> {
    let ((compared, compare), (started, start)) = (Exchange::new(), Exchange::new());
    let (settled, settle) = Exchange::new();
    let (heard, heard_seen) = watch::channel(Instant::now());
    let (request_digest, abort) = (digest_of(request), CancellationToken::new());
    let session = SyncSession { request: request_digest, compared, started, settled, abort, heard };
    let begun = sessions.begin(peer, TransferId::from_bytes(request.sync), session);
    let begun = begun.map_err(|refused| match refused {
        Refused::Known(_) => reused(),
        Refused::TooMany(fault) => fault,
    })?;
    Ok(Begun { begun, compare, start, settle, heard: heard_seen })
}

fn digest_of(request: &SyncRequest) -> Digest {
    // What was decoded can be encoded.
    Digest::blake3(&shiplane_rpc::internals::encode(request).unwrap_or_default())
}

fn reused() -> Fault {
    Fault::new(FaultCode::InvalidRequest, "this sync id was used before")
}

impl Session for SyncSession {
    fn ended(&self) {
        self.fail(&gone("the sync is over"));
    }
}

impl SyncSession {
    /// The peer has said something about it.
    pub(super) fn heard(&self) {
        self.heard.send_replace(Instant::now());
    }

    pub(super) fn abort(&self) -> CancellationToken {
        self.abort.clone()
    }

    /// The result of the comparison so far, if the request has a list.
    pub(super) async fn open(
        &self,
        request: SyncRequest,
        wait: Duration,
    ) -> Result<Step<SyncResponse>, Fault> {
        if digest_of(&request) != self.request {
            return Err(reused());
        }
        match request.list {
            Some(list) => self.compared.ask(list, wait).await,
            None => Ok(Step::Working),
        }
    }

    /// Hands over the peer's outcome, or ends it; returns the result so far.
    pub(super) async fn settle(&self, request: SyncSettle, wait: Duration) -> Result<Step<SyncDone>, Fault> {
        match request.end {
            SyncEnd::Done(half) => self.settled.ask(half, wait).await,
            SyncEnd::Withdrawn => {
                self.abort.cancel();
                self.settled.answer.within(wait).await
            }
            SyncEnd::Failed => {
                // Why may be known here a little later than there that it has.
                let known = self.settled.answer.within(ABORT_WAIT.min(wait)).await;
                self.abort.cancel();
                match known {
                    Ok(Step::Working) => Err(gone("nothing has failed here")),
                    known => known,
                }
            }
        }
    }

    /// Answers every step that has no answer yet with this fault.
    pub(super) fn fail(&self, fault: &Fault) {
        self.compared.answer.give(Err(fault.clone()));
        self.started.answer.give(Err(fault.clone()));
        self.settled.answer.give(Err(fault.clone()));
    }
}

/// The peer's next request; `None` if the peer gives no sign of life for `silence`, or takes too long in all.
async fn next<T>(
    inbox: &mut mpsc::Receiver<T>,
    heard: &mut watch::Receiver<Instant>,
    silence: Duration,
) -> Option<T> {
    let began = Instant::now();
    loop {
        // The peer may be silent while this side works.
        let heard_at = began.max(*heard.borrow_and_update());
        let give_up_at = (began + MAX_STEP_TIME).min(heard_at + silence);
        tokio::select! {
            biased;
            next = inbox.recv() => return next,
            said = heard.changed() => said.ok()?,
            () = tokio::time::sleep_until(give_up_at) => return None,
        }
    }
}

impl Begun {
    pub(super) fn session(&self) -> &Arc<SyncSession> {
        self.begun.session()
    }

    /// Waits for the peer's list. Signs of life do not count, as others may want to sync this dataset.
    pub(super) async fn compare(
        &mut self,
        max: Duration,
        closing: &CancellationToken,
    ) -> Result<SyncList, Fault> {
        let list = unless(closing, tokio::time::timeout(max, self.compare.recv())).await?;
        list.ok().flatten().ok_or_else(|| gone("the peer's list took too long"))
    }

    /// Waits for the peer to begin.
    pub(super) async fn start(
        &mut self,
        silence: Duration,
        closing: &CancellationToken,
    ) -> Result<SyncStart, Fault> {
        let start = unless(closing, next(&mut self.start, &mut self.heard, silence)).await?;
        start.ok_or_else(|| gone("the peer did not start the transfer"))
    }

    /// Waits for the peer's outcome.
    pub(super) async fn settle(&mut self, silence: Duration) -> Result<SyncHalf, Fault> {
        let half = next(&mut self.settle, &mut self.heard, silence).await;
        half.ok_or_else(|| gone("the peer did not report its result"))
    }
}

/// Ended syncs that can still be asked for; each holds what was answered, 64 KiB at most.
const MAX_REMEMBERED: Remembered = Remembered { per_peer: 32, in_all: 32 };

/// 2 s: as long as a peer that gives up will wait to hear the reason.
const ABORT_WAIT: Duration = Duration::from_secs(2);

/// 15 min: the peer copies what is about to lose its name before it begins, a hundred gigabytes at most, or makes durable what
/// it has received, and gives signs of life meanwhile. One that does not is not waited for any longer than in a transfer.
const MAX_STEP_TIME: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{filters::OpenFilters, sync::SyncDirection};

    const ALICE: PeerId = PeerId::from_bytes([1; 32]);
    const SILENCE: Duration = Duration::from_secs(30);

    fn begun(sessions: &Registry<SyncSession>) -> Begun {
        let digest = [0; 32];
        let request = SyncRequest {
            sync: [1; 16],
            path: Vec::new(),
            list: None,
            dry_run: false,
            source: digest,
            digest: 2,
            mode: None,
            filters: OpenFilters::default(),
            attributes: false,
            watch: None,
            direction: SyncDirection::Both,
        };
        begin(sessions, ALICE, &request).unwrap()
    }

    /// Whether it was the peer's.
    fn is_heard(sessions: &Registry<SyncSession>, peer: PeerId) -> bool {
        let session = sessions.find(peer, TransferId::from_bytes([1; 16]));
        session.inspect(|session| session.heard()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_waited_for_while_it_gives_signs_of_life_and_no_longer() {
        let sessions = sessions();
        let mut begun = begun(&sessions);
        // We were at work, and it had nothing to say.
        tokio::time::advance(SILENCE * 5).await;
        let began = Instant::now();
        let mut ticks = tokio::time::interval(SILENCE * 2 / 3);
        let signs = async {
            for _ in 0..=20 {
                ticks.tick().await;
                assert!(is_heard(&sessions, ALICE));
            }
        };
        let closing = CancellationToken::new();
        let (waited, ()) = tokio::join!(begun.start(SILENCE, &closing), signs);
        assert_eq!(waited.unwrap_err().code, FaultCode::Gone);
        assert_eq!(began.elapsed(), SILENCE * 2 / 3 * 20 + SILENCE);

        // Somebody else's word is no sign of life.
        let began = Instant::now();
        let strangers = async {
            ticks.tick().await;
            assert!(!is_heard(&sessions, PeerId::from_bytes([2; 32])));
        };
        let (waited, ()) = tokio::join!(begun.settle(SILENCE), strangers);
        waited.unwrap_err();
        assert_eq!(began.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_do_not_hold_a_dataset_for_ever() {
        let sessions = sessions();
        let mut begun = begun(&sessions);
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        let signs = async {
            loop {
                ticks.tick().await;
                assert!(is_heard(&sessions, ALICE));
            }
        };
        tokio::select! {
            waited = begun.settle(SILENCE) => drop(waited.unwrap_err()),
            () = signs => {}
        }
        assert_eq!(began.elapsed(), MAX_STEP_TIME);
    }
}
