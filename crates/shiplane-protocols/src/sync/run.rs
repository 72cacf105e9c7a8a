//! The caller's side of a sync, from the listing to the new base.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    hash::{BuildHasher, Hasher, RandomState},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use shiplane_files::internals::{
    SharedMemory, SourceRoot,
    sync::{
        Action, Agreed, Changes, Dataset, DatasetError, Manifest, Prepared, ScanError, ScanOptions, Side,
        Site, SiteOptions, UnresolvedReason,
    },
};
use shiplane_rpc::{CallError, RpcClient};
use shiplane_transport::{
    PeerConnection, PeerId,
    internals::{Claim, blocking},
};
use shiplane_wire::{
    Digest, EscapedPath, LeftOutReason, RelPath, TransferId, escape, escape_truncated, limits,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    SyncError,
    exchange::{Exchanged, check_listed, exchange, half, pack, send_beside, settle, unpack},
    job::{LeftPath, SyncEvent, SyncEventFn, SyncJob, SyncReport},
    memory::ListMemory,
    messages::{
        SYNC_ALIVE, SYNC_COMPARE, SYNC_OPEN, SYNC_SETTLE, SYNC_START, SyncBody, SyncCompare, SyncDirection,
        SyncDone, SyncEnd, SyncHalf, SyncList, SyncReady, SyncRequest, SyncResponse, SyncSettle, SyncStart,
    },
};
use crate::{
    filters::OpenFilters,
    methods::{Step, poll_method},
    single::claim_new,
    transfer::{EventFn, TransferEvent, TransferOptions},
};

/// Brings a directory and one of the peer's together, as `plan` says, and remembers on both
/// sides what they have in common then. Two that are the same already cost one call, or two if
/// this side's list takes longer than a round trip.
///
/// While another sync has one of the two directories, waits for it, 60 s at most.
///
/// Not cancel-safe: dropping it ends the sync in the middle. Nothing is lost by that, as by any failure: each
/// file is one of the versions that there were, whole, and the next sync goes on from there.
///
/// # Errors
/// [`SyncError`].
pub async fn synchronise(
    client: &RpcClient,
    job: &SyncJob,
    events: SyncEventFn,
) -> Result<SyncReport, SyncError> {
    let give_up_at = Instant::now() + BUSY_PATIENCE;
    loop {
        let error = match Attempt::begin(client, job, &events).await?.run().await {
            Err(error) if error.is_busy() && Instant::now() < give_up_at => error,
            ended => return ended,
        };
        tracing::debug!(%error, "another sync is running: waiting");
        events(SyncEvent::Waiting);
        tokio::time::sleep(pause(job.own, client.connection().peer_id())).await;
    }
}

/// One attempt at a sync.
struct Attempt<'a> {
    client: &'a RpcClient,
    job: &'a SyncJob,
    events: &'a SyncEventFn,
    sync: TransferId,
    claim: Claim,
    memory: ListMemory,
    /// Stops the reading of files when this is dropped.
    _cancel: tokio_util::sync::DropGuard,
    cancelled: CancellationToken,
}

/// The directory, open and, unless this is a dry run, locked.
struct Opened {
    site: Site,
    /// What this machine calls it.
    local: Vec<u8>,
    options: ScanOptions,
}

/// What the peer's answer says that differs.
struct Differing {
    agreed: Agreed,
    changes: Changes,
    /// What the peer does not remember of the base.
    base: Option<Changes>,
    /// What of the peer's directory is not listed.
    unlisted: Vec<(Side, LeftOutReason, String)>,
}

impl<'a> Attempt<'a> {
    async fn begin(
        client: &'a RpcClient,
        job: &'a SyncJob,
        events: &'a SyncEventFn,
    ) -> Result<Self, SyncError> {
        let (sync, claim) = claimed(client)?;
        let cancelled = CancellationToken::new();
        let _cancel = cancelled.clone().drop_guard();
        let memory = ListMemory::new(job.transfer.memory.as_ref(), client.connection().peer_id());
        Ok(Self { client, job, events, sync, claim, memory, _cancel, cancelled })
    }

    async fn run(mut self) -> Result<SyncReport, SyncError> {
        (self.events)(SyncEvent::Scanning);
        let here = blocking(self.opening()).await?;
        let mut request = self.request(&here);
        let listing = blocking(self.listing(here));
        let (dataset, mut compared) = self.list_and_compare(listing, &mut request).await?;
        if compared.as_ref().is_err_and(SyncError::is_gone) {
            // The peer does not wait for long lists. Its own is read sooner the second time.
            (self.sync, self.claim) = claimed(self.client)?;
            request.sync = *self.sync.as_bytes();
            request.list = Some(list_of(&dataset));
            compared = self.open(&request).await;
        }
        let (base, manifest_digest, changes) = match compared {
            Ok(SyncResponse::Differs { base, manifest_digest, changes }) => (base, manifest_digest, changes),
            Ok(SyncResponse::Same) => return self.nothing_to_do(dataset).await,
            Err(refused @ SyncError::Refused(CallError::Fault(_))) => return Err(refused),
            // It may have begun there all the same.
            Err(error) => return Err(self.explain(error).await),
        };
        let signs = signs_of_life(self.client.clone(), self.sync);
        let ended =
            self.differs(dataset, base.map(Digest::from_bytes), Digest::from_bytes(manifest_digest), changes);
        let ended = tokio::select! {
            ended = ended => ended,
            never = signs => match never {},
        };
        match ended {
            Err(error) => Err(self.explain(error).await),
            done => done,
        }
    }

    /// Lists this side's files, and lets the peer list its own and compare. A list that takes less than a round trip is
    /// part of the call that opens the sync; else both sides list at the same time.
    async fn list_and_compare(
        &self,
        listing: impl Future<Output = Result<Dataset, SyncError>>,
        request: &mut SyncRequest,
    ) -> Result<(Dataset, Result<SyncResponse, SyncError>), SyncError> {
        let mut listing = pin!(listing);
        if let Ok(listed) = tokio::time::timeout(self.claim.rtt(), &mut listing).await {
            let dataset = listed?;
            request.list = Some(list_of(&dataset));
            (self.events)(SyncEvent::Comparing);
            let compared = self.open(request).await;
            return Ok((dataset, compared));
        }
        let opening = async {
            let opened = self.client.call_typed(SYNC_OPEN, request, self.progress_timeout()).await;
            if opened.is_err() {
                self.cancelled.cancel();
            }
            opened
        };
        let (opened, listed) = futures::join!(opening, listing);
        let dataset = match (opened, listed) {
            (Ok(_), Ok(dataset)) => dataset,
            (Err(refused @ CallError::Fault(_)), _) => return Err(SyncError::Refused(refused)),
            (Err(lost), _) => return Err(self.explain(SyncError::Refused(lost)).await),
            (Ok(_), Err(error)) => return Err(self.explain(error).await),
        };
        (self.events)(SyncEvent::Comparing);
        let compared = self.compare(list_of(&dataset)).await;
        Ok((dataset, compared))
    }

    async fn differs(
        &mut self,
        dataset: Dataset,
        base: Option<Digest>,
        manifest_digest: Digest,
        changes: SyncBody,
    ) -> Result<SyncReport, SyncError> {
        let (dataset, differing) = self.agree(dataset, base, manifest_digest, changes).await?;
        let Differing { agreed, changes, base, unlisted } = differing;
        let mut report = report(&dataset, agreed.merged(), agreed.actions().to_vec());
        let own_version = |(side, path): (Side, &RelPath)| LeftPath {
            side,
            path: path.clone(),
            why: UnresolvedReason::OwnVersion,
        };
        report.left.extend(agreed.kept().map(own_version));
        report.unlisted.extend(unlisted);
        (self.events)(SyncEvent::Planned(report.actions.clone().into()));
        if self.job.dry_run {
            return Ok(report);
        }
        let view = dataset.view().ok_or(SyncError::Abandoned)?;
        let mut prepared = blocking(move || Ok(Prepared::new(view, agreed)?)).await?;
        let (claims, options) = self.start(&prepared, &changes, base.as_ref()).await?;
        let events = [self.forward(SyncEvent::Sending), self.forward(SyncEvent::Receiving)];
        let exchanged = exchange(self.connection(), &mut prepared, claims, &options, events).await?;
        (self.events)(SyncEvent::Settling);
        let agreed = Arc::clone(prepared.agreed());
        let unsent = exchanged.unsent();
        let (left, _) = blocking(move || Ok(prepared.finish(unsent)?)).await?;
        let ours = half(&left);
        self.job.relisting.iter().for_each(|relisting| relisting.watch.look_again(left.keys()));
        let SyncDone { half: theirs, base: their_base } = self.settle(ours.clone()).await?;
        report.left.extend(left_on_both(&theirs, left.into_iter()));
        let named = theirs.unsettled.as_ref().map_or(0, |unsettled| unsettled.len() as u64);
        report.left_unnamed = theirs.left.saturating_sub(named);
        blocking(move || remember(&dataset, &agreed, &ours, &theirs, their_base)).await?;
        add(&mut report, &exchanged);
        Ok(report)
    }

    fn opening(&self) -> impl FnOnce() -> Result<Opened, SyncError> + Send + 'static {
        let (job, peer) = (self.job.clone(), self.connection().peer_id());
        let cancel = self.cancelled.clone();
        let attributes = job.attributes;
        move || {
            let open = || SourceRoot::open(&job.directory);
            let root = job.root.clone().map_or_else(open, Ok).map_err(DatasetError::from)?;
            if root.directory().is_none() {
                let path = escape(job.directory.as_os_str().as_encoded_bytes()).to_string();
                return Err(DatasetError::from(ScanError::NotDirectory { path }).into());
            }
            let local = job.directory.canonicalize().unwrap_or_else(|_| job.directory.clone());
            let local = local.into_os_string().into_encoded_bytes();
            let TransferOptions { digest, links, .. } = job.transfer;
            let site = if job.dry_run {
                Site::to_look_at(&root, b"")?.ok_or(SyncError::Abandoned)?
            } else {
                let chunk_len_bytes = job.transfer.chunk_len_bytes.min(limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
                let options = SiteOptions { digest, links, attributes, chunk_len_bytes };
                let shared = SharedMemory::default();
                let peer = peer.as_bytes();
                Site::to_change(&root, b"", peer, options, shared, &|_| false)?
            };
            let go_on = Arc::new(move |_| !cancel.is_cancelled());
            let options = ScanOptions {
                go_on,
                digest,
                links,
                attributes,
                filters: job.filters,
                ..ScanOptions::default()
            };
            Ok(Opened { site, local, options })
        }
    }

    fn listing(&self, here: Opened) -> impl FnOnce() -> Result<Dataset, SyncError> + Send + 'static {
        let (state, peer) = (self.job.state.clone(), self.connection().peer_id());
        let (relisting, memory) = (self.job.relisting.clone(), self.memory.clone());
        let Opened { site, local, options } = here;
        move || {
            let mut dataset =
                Dataset::open(Some(site), &local, peer.as_bytes(), &state, &options, relisting.as_ref())?;
            memory.pay_for_ours(&mut dataset)?;
            Ok(dataset)
        }
    }

    fn request(&self, here: &Opened) -> SyncRequest {
        let is_full = self.job.relisting.as_ref().is_none_or(|relisting| relisting.is_full);
        SyncRequest {
            sync: *self.sync.as_bytes(),
            path: self.job.remote_path.clone(),
            list: None,
            dry_run: self.job.dry_run,
            source: Dataset::source(self.connection().peer_id().as_bytes(), &here.local, &here.options),
            digest: self.job.transfer.digest.bit(),
            mode: here.site.mode(),
            filters: OpenFilters::of(&self.job.filters),
            attributes: self.job.attributes,
            watch: self.job.peer_watch.map(|watch| (watch, is_full)),
            direction: SyncDirection::of_caller(self.job.only_to),
        }
    }

    /// With a list.
    async fn open(&self, request: &SyncRequest) -> Result<SyncResponse, SyncError> {
        let opened = self.client.call_typed(SYNC_OPEN, request, self.progress_timeout()).await;
        match (opened.map_err(SyncError::Refused)?, &request.list) {
            (Step::Done(compared), _) => Ok(compared),
            (Step::Working, Some(list)) => self.compare(list.clone()).await,
            (Step::Working, None) => Err(SyncError::Abandoned),
        }
    }

    async fn compare(&self, list: SyncList) -> Result<SyncResponse, SyncError> {
        let request = SyncCompare { sync: *self.sync.as_bytes(), list };
        poll_method(self.client, SYNC_COMPARE, &request, Duration::MAX).await.map_err(SyncError::Refused)
    }

    async fn nothing_to_do(&self, dataset: Dataset) -> Result<SyncReport, SyncError> {
        let dry_run = self.job.dry_run;
        blocking(move || {
            if !dry_run {
                dataset.finish_interrupted()?;
                dataset.remember(dataset.manifest())?;
                dataset.release()?;
            }
            Ok(report(&dataset, dataset.manifest(), Vec::new()))
        })
        .await
    }

    /// Takes the peer's list, and plans.
    async fn agree(
        &mut self,
        mut dataset: Dataset,
        base: Option<Digest>,
        manifest_digest: Digest,
        changes: SyncBody,
    ) -> Result<(Dataset, Differing), SyncError> {
        let timeout = self.progress_timeout();
        let digest = self.job.transfer.digest;
        let theirs = unpack(&mut self.claim, changes, timeout, digest, &self.memory).await?;
        let (only_to, consent) = (self.job.only_to, self.job.consent);
        let filters = Arc::clone(&self.job.filters);
        blocking(move || {
            let known = match base {
                Some(base) => dataset.common_base(&[base]),
                // A peer from which this side only takes need not remember anything.
                None if only_to == Some(Side::Local) => dataset.common_base(&dataset.base_digests()),
                None => Manifest::new(),
            };
            if base.is_some_and(|base| known.digest() != base) {
                return Err(SyncError::WrongManifestDigest);
            }
            let nothing = Manifest::new();
            let other = theirs.apply(if base.is_some() { &known } else { &nothing })?;
            let told = (base.is_none() && !known.is_empty())
                .then(|| Changes::between(&nothing, &known, BTreeMap::new()));
            if other.digest() != manifest_digest {
                return Err(SyncError::WrongManifestDigest);
            }
            check_listed(&other, &filters)?;
            let changes = dataset.changes_since(&known);
            let on_neither = dataset.unlisted().chain(theirs.unlisted());
            let folds = dataset.folds();
            let agreed = Agreed::on(&known, dataset.manifest(), &other, on_neither, only_to, consent, folds)?;
            let mut unlisted: Vec<_> = unlisted(Side::Remote, &theirs.unknown, &theirs.unsendable).collect();
            unlisted.extend(without_owners(dataset.manifest(), &other));
            Ok((dataset, Differing { agreed, changes, base: told, unlisted }))
        })
        .await
    }

    /// Tells the peer what has changed here, and waits until it is ready to provide and to receive. Also gives how
    /// both have agreed to do that.
    async fn start(
        &self,
        prepared: &Prepared,
        changes: &Changes,
        base: Option<&Changes>,
    ) -> Result<([Claim; 2], TransferOptions), SyncError> {
        let claim = || claim_new(self.connection()).map_err(|_| SyncError::NoRandomness);
        let (up, down) = (claim()?, claim()?);
        let (changes, beside) = pack(changes, OUR_LIST, MAX_INLINE_LEN_BYTES);
        let (base, base_beside) = base.map(|base| pack(base, OUR_BASE, MAX_INLINE_LEN_BYTES)).unzip();
        let request = SyncStart {
            sync: *self.sync.as_bytes(),
            up: *up.transfer().as_bytes(),
            down: *down.transfer().as_bytes(),
            mass_deletion: self.job.consent.mass_deletion,
            compression: self.job.transfer.compression,
            bytes_per_second: self.job.transfer.bytes_per_second(),
            changes,
            base,
        };
        let asking = poll_method(self.client, SYNC_START, &request, Duration::MAX);
        let sending = async {
            let digest = self.job.transfer.digest;
            // The peer takes one after the other.
            for (index, bytes) in [(OUR_BASE, base_beside.flatten()), (OUR_LIST, beside)] {
                if let Some(bytes) = bytes {
                    send_beside(self.connection(), self.sync, index, bytes, digest).await?;
                }
            }
            Ok::<_, SyncError>(())
        };
        let (started, sent) = futures::join!(asking, sending);
        let SyncReady { merged, compression, bytes_per_second } = started.map_err(rejected)?;
        if merged != *prepared.agreed().merged_digest().as_bytes() {
            return Err(SyncError::Disagreed);
        }
        let options = self.job.transfer.agreed(compression, bytes_per_second);
        sent?;
        Ok(([up, down], options))
    }

    async fn settle(&self, half: SyncHalf) -> Result<SyncDone, SyncError> {
        let request = SyncSettle { sync: *self.sync.as_bytes(), end: SyncEnd::Done(half) };
        poll_method(self.client, SYNC_SETTLE, &request, Duration::MAX).await.map_err(rejected)
    }

    /// Lets the peer know that this is the end, and asks why if that is not clear from here.
    async fn explain(&self, error: SyncError) -> SyncError {
        let may_know = match &error {
            SyncError::Transfer(error) => error.is_hang_up(),
            error => matches!(error, SyncError::NotReceived(_) | SyncError::NotSent(_)),
        };
        let end = if may_know { SyncEnd::Failed } else { SyncEnd::Withdrawn };
        let request = SyncSettle { sync: *self.sync.as_bytes(), end };
        match self.client.call_typed(SYNC_SETTLE, &request, LEAVE_BUDGET).await {
            Err(CallError::Fault(fault)) if may_know && fault.code != shiplane_rpc::FaultCode::Gone => {
                SyncError::Rejected(fault)
            }
            _ => error,
        }
    }

    fn forward(&self, kind: fn(TransferEvent) -> SyncEvent) -> EventFn {
        let events = Arc::clone(self.events);
        Arc::new(move |event| events(kind(event)))
    }

    fn progress_timeout(&self) -> Duration {
        self.connection().config().timeouts().progress
    }

    fn connection(&self) -> &Arc<PeerConnection> {
        self.client.connection()
    }
}

/// An id, claimed before it is asked for: the peer's list may be faster than its answer.
fn claimed(client: &RpcClient) -> Result<(TransferId, Claim), SyncError> {
    let claim = claim_new(client.connection()).map_err(|_| SyncError::NoRandomness)?;
    Ok((claim.transfer(), claim))
}

fn list_of(dataset: &Dataset) -> SyncList {
    SyncList {
        manifest_digest: *dataset.manifest().digest().as_bytes(),
        bases: dataset.base_digests().iter().map(|digest| *digest.as_bytes()).collect(),
    }
}

/// Tells the peer again and again that we are at work, which may take long where it hears of nothing.
async fn signs_of_life(client: RpcClient, sync: TransferId) -> Infallible {
    let interval = client.connection().config().timeouts().progress / SIGNS;
    loop {
        tokio::time::sleep(interval).await;
        // Whatever is wrong, the sync itself finds out.
        let _ = client.call_typed(SYNC_ALIVE, sync.as_bytes(), interval).await;
    }
}

/// The peer has taken part until now: a fault is its word on the sync.
fn rejected(error: CallError) -> SyncError {
    match error {
        CallError::Fault(fault) => SyncError::Rejected(fault),
        other => SyncError::Call(other),
    }
}

fn remember(
    dataset: &Dataset,
    agreed: &Agreed,
    ours: &SyncHalf,
    theirs: &SyncHalf,
    their_base: Option<[u8; 32]>,
) -> Result<(), SyncError> {
    let base = settle(agreed, ours, theirs)?;
    if base.as_ref().map(|base| *base.digest().as_bytes()) != their_base {
        return Err(SyncError::Disagreed);
    }
    base.map_or(Ok(()), |base| dataset.remember(&base))?;
    Ok(dataset.release()?)
}

/// Before anything has moved.
fn report(dataset: &Dataset, merged: &Manifest, actions: Vec<Action>) -> SyncReport {
    SyncReport {
        actions,
        left: Vec::new(),
        left_unnamed: 0,
        unlisted: unlisted(Side::Local, dataset.unknown(), dataset.unsendable()).collect(),
        digest: merged.digest(),
        files: merged.files().count() as u64,
        sent_bytes: 0,
        received_bytes: 0,
        wire_bytes: 0,
        chunks: 0,
    }
}

fn add(report: &mut SyncReport, exchanged: &Exchanged) {
    if let Some(provided) = &exchanged.provided {
        report.sent_bytes = provided.sent_bytes;
        report.wire_bytes += provided.wire_bytes;
        report.chunks += provided.chunks;
    }
    if let Some(received) = &exchanged.received {
        report.received_bytes = received.totals.received_bytes;
        report.wire_bytes += received.totals.wire_bytes;
        report.chunks += received.chunks;
    }
}

fn left_on_both(theirs: &SyncHalf, ours: impl Iterator<Item = (RelPath, UnresolvedReason)>) -> Vec<LeftPath> {
    let ours = ours.map(|(path, why)| LeftPath { side: Side::Local, path, why });
    let theirs = theirs.unsettled.iter().flatten().filter_map(|(path, why, cause, _)| {
        let cause = escape_truncated(cause.as_bytes(), MAX_CAUSE_LEN_BYTES).to_string();
        let why = UnresolvedReason::LeftThere(LeftOutReason::from_wire(*why)?, cause.into());
        Some(LeftPath { side: Side::Remote, path: RelPath::parse(path).ok()?, why })
    });
    ours.chain(theirs).collect()
}

fn unlisted<'a>(
    side: Side,
    unknown: &'a BTreeMap<RelPath, LeftOutReason>,
    unsendable: &'a [EscapedPath],
) -> impl Iterator<Item = (Side, LeftOutReason, String)> + 'a {
    let unknown = unknown.iter().map(move |(path, why)| (side, *why, path.to_string()));
    unknown.chain(unsendable.iter().map(move |path| (side, LeftOutReason::Name, path.to_string())))
}

/// Owners are carried only between two who may give files away: which side may not.
fn without_owners(ours: &Manifest, theirs: &Manifest) -> Option<(Side, LeftOutReason, String)> {
    let side = match (ours.knows_owners(), theirs.knows_owners()) {
        (Some(true), Some(false)) => Side::Remote,
        (Some(false), Some(true)) => Side::Local,
        (Some(_), Some(_)) | (None, _) | (_, None) => return None,
    };
    Some((side, LeftOutReason::Attributes, ".".to_owned()))
}

/// Two peers that start a sync with each other at the same moment both find the other busy, and release their locks.
/// The smaller key is back so soon that the other finds it done.
fn pause(own: PeerId, peer: PeerId) -> Duration {
    let random = RandomState::new().build_hasher().finish() as u16;
    let jitter = MAX_JITTER * u32::from(random) / u32::from(u16::MAX);
    if own.as_bytes() < peer.as_bytes() { jitter } else { LOSERS_PAUSE + jitter * 4 }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    blocking::spawn(work).await.map_err(|_| SyncError::Abandoned)?
}

/// The index of this side's list.
const OUR_LIST: u64 = 1;

/// The index of the base that the peer does not remember.
const OUR_BASE: u64 = 2;

/// 64 KiB: the call may have to be repeated.
const MAX_INLINE_LEN_BYTES: usize = 64 << 10;

/// Of the time after which a peer is taken for gone, one may be lost and one be late.
const SIGNS: u32 = 3;

/// 5 s: what a peer that is there takes to say why it gave up.
const LEAVE_BUDGET: Duration = Duration::from_secs(5);

/// 128 bytes: what a system says of a failure.
const MAX_CAUSE_LEN_BYTES: usize = 128;

/// 60 s: longer than most syncs take, and twice as long as a peer that has vanished keeps its lock.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);

/// 200 ms: more than the winner takes to try again.
const LOSERS_PAUSE: Duration = Duration::from_millis(200);

/// 100 ms: some tens of round trips on a local network, and too short to notice.
const MAX_JITTER: Duration = Duration::from_millis(100);
