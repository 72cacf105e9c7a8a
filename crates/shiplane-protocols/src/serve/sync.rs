//! The callee's side of a sync (SPEC 5.14 to 5.18).

mod sessions;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shiplane_files::internals::{
    CountedMemory, Filters, JobKey, LinkPolicy, SourceError,
    sync::{
        Agreed, Consent, Dataset, DatasetError, Manifest, PlanError, Prepared, Relisting, ScanOptions, Site,
        SiteOptions,
    },
};
use shiplane_rpc::{Fault, FaultCode, RequestContext};
use shiplane_transport::{PeerConnection, PeerId, StreamError, internals::Claim};
use shiplane_wire::{Code, Digest, DigestAlgorithm, TransferId, escape};
use tokio_util::sync::CancellationToken;

pub(super) use self::sessions::Syncing;
use self::sessions::{Begun, SyncSession, begin};
use super::{
    FileServer,
    activity::{ServedJob, UnderWay},
    claim,
    registry::{answer_wait, gone},
    targets::{TargetClaim, Targets},
};
use crate::{
    Direction,
    filters::OpenFilters,
    methods::{Step, agree_digest, check_attributes, denied, failed, not_served, not_taken},
    off_thread,
    sync::{
        SyncCompare, SyncError, SyncList, SyncRequest, SyncResponse,
        exchange::{check_listed, exchange, half, pack, send_beside, settle, unpack},
        memory::ListMemory,
        messages::{SyncDirection, SyncDone, SyncReady, SyncSettle, SyncStart, SyncWatch, SyncWatched},
    },
    transfer::{TransferError, TransferOptions},
};

/// What one sync holds while it runs.
struct Running {
    server: Arc<FileServer>,
    connection: Arc<PeerConnection>,
    request: SyncRequest,
    claim: Claim,
    digest: DigestAlgorithm,
    filters: Arc<Filters>,
    _filters_memory: Box<dyn CountedMemory>,
    memory: ListMemory,
    begun: Begun,
    abort: CancellationToken,
    /// Keeps other pushes and syncs away. Released before the peer hears of the end, so that it may start again.
    name: Option<TargetClaim>,
    relisting: Option<Relisting>,
    /// Its entry in the list of running jobs, from the exchange until the sync has ended or failed.
    job: Option<Arc<UnderWay>>,
    /// The peer only takes and may not write: nothing is changed or remembered here.
    reads_only: bool,
}

impl FileServer {
    /// Begins a sync: lists this side's dataset, and compares if the request has the peer's list (SPEC 5.14).
    pub(super) async fn open_sync(
        self: Arc<Self>,
        context: RequestContext,
        request: SyncRequest,
    ) -> Result<Step<SyncResponse>, Fault> {
        self.check_may_read(&context, &request.path)?;
        let may_write = self.access.may_write(&context.peer, &request.path, Instant::now());
        let takes_only = request.direction == SyncDirection::ToCaller;
        let reads_only = takes_only && (may_write.is_err() || self.writing.is_none());
        let changes_nothing = request.dry_run || reads_only;
        if !changes_nothing {
            may_write.map_err(|error| denied(&error))?;
        }
        let syncing = self.syncs()?;
        let writing = self.writing.as_ref();
        if !takes_only && writing.is_none() {
            return Err(read_only());
        }
        let takes_attributes = writing.is_some_and(|writing| writing.limits.attributes);
        check_attributes(request.attributes, takes_attributes || changes_nothing)?;
        if let Ok(known) = self.session(&context, request.sync) {
            return known.open(request, answer_wait(&context)).await;
        }
        let digest = agree_digest(self.options.digest, request.digest)?;
        let filtered = request.filters.clone().agree(&self.memory(), context.peer).await?;
        let name = match writing.filter(|_| !changes_nothing) {
            Some(writing) => Some(claim_name(&writing.targets, context.peer, &request).await?),
            None => None,
        };
        let claim = claim(&context.connection, request.sync)?;
        let begun = begin(&syncing.sessions, context.peer, &request)?;
        let session = Arc::clone(begun.session());
        let wait = answer_wait(&context);
        let relisting = request.watch.and_then(|(watch, is_full)| {
            let watch = syncing.watches.of(context.peer, watch, &request.path)?;
            Some(Relisting { watch, is_full })
        });
        let running = Running {
            server: Arc::clone(&self),
            connection: context.connection,
            abort: session.abort(),
            // Their rules are kept by the filters alone.
            request: SyncRequest { filters: OpenFilters::default(), ..request.clone() },
            claim,
            digest,
            filters: filtered.filters,
            _filters_memory: filtered.memory,
            memory: ListMemory::new(self.options.memory.as_ref(), context.peer),
            begun,
            name,
            relisting,
            job: None,
            reads_only,
        };
        self.tasks.spawn(running.run());
        session.open(request, wait).await
    }

    /// Compares with the peer's list (SPEC 5.15).
    pub(super) async fn compare_sync(
        self: Arc<Self>,
        context: RequestContext,
        request: SyncCompare,
    ) -> Result<Step<SyncResponse>, Fault> {
        self.session(&context, request.sync)?.compared.ask(request.list, answer_wait(&context)).await
    }

    /// Begins a watch, or waits for what the caller has not seen.
    pub(super) async fn watch_sync(
        self: Arc<Self>,
        context: RequestContext,
        request: SyncWatch,
    ) -> Result<Step<SyncWatched>, Fault> {
        self.check_may_read(&context, &request.path)?;
        let watches = &self.syncs()?.watches;
        match request.seen {
            Some(seen) => watches.changed(&context, &request, seen, &self.closing).await,
            None => watches.begin(&context, request, &self.root, &self.memory(), &self.closing).await,
        }
    }

    /// The state for syncs, if this server takes part in them.
    pub(super) fn syncs(&self) -> Result<&Syncing, Fault> {
        self.syncing.as_ref().ok_or_else(read_only)
    }

    /// Plans, and executes the steps that need no data from the peer (SPEC 5.16).
    pub(super) async fn start_sync(
        self: Arc<Self>,
        context: RequestContext,
        request: SyncStart,
    ) -> Result<Step<SyncReady>, Fault> {
        self.session(&context, request.sync)?.started.ask(request, answer_wait(&context)).await
    }

    /// Gives the outcome (SPEC 5.17).
    pub(super) async fn settle_sync(
        self: Arc<Self>,
        context: RequestContext,
        request: SyncSettle,
    ) -> Result<Step<SyncDone>, Fault> {
        self.session(&context, request.sync)?.settle(request, answer_wait(&context)).await
    }

    /// Takes a sign of life (SPEC 5.17).
    pub(super) async fn sync_is_alive(
        self: Arc<Self>,
        context: RequestContext,
        sync: [u8; 16],
    ) -> Result<(), Fault> {
        self.session(&context, sync).map(drop)
    }

    /// The session of a call. The call is a sign of life.
    fn session(&self, context: &RequestContext, sync: [u8; 16]) -> Result<Arc<SyncSession>, Fault> {
        let (peer, sync) = (context.peer, TransferId::from_bytes(sync));
        let session = self.syncing.as_ref().and_then(|syncing| syncing.sessions.find(peer, sync));
        session.inspect(|session| session.heard()).ok_or_else(|| gone("no such sync"))
    }
}

impl Running {
    async fn run(mut self) {
        let (peer, path) = (self.connection.peer_id(), escape(&self.request.path).to_string());
        let (abort, connection) = (self.abort.clone(), Arc::clone(&self.connection));
        let taken_over = self.name.as_ref().map(TargetClaim::give_up).unwrap_or_default();
        let stopped = || Some(TransferError::from(StreamError::Reset(Code::Cancelled)));
        let (ended, why) = tokio::select! {
            ended = self.sync() => (ended, None),
            () = abort.cancelled() => (Err(gone("the peer cancelled the sync")), stopped()),
            () = taken_over.cancelled() => (Err(gone("the peer started the sync again")), stopped()),
            end = connection.closed() => {
                let lost = TransferError::from(StreamError::ConnectionLost(end));
                (Err(gone("the connection was closed")), Some(lost))
            }
        };
        // Stops the threads that read files for this sync.
        abort.cancel();
        match &ended {
            Ok(()) => tracing::info!(peer = %peer.short(), path, "synced"),
            Err(fault) => tracing::warn!(peer = %peer.short(), path, %fault, "sync failed"),
        }
        self.name = None;
        if let (Err(fault), Some(job)) = (&ended, self.job.take()) {
            match &why {
                Some(error) => job.failed(error),
                None => job.failed(fault),
            }
        }
        if let Err(fault) = ended {
            self.begun.session().fail(&fault);
        }
    }

    async fn sync(&mut self) -> Result<(), Fault> {
        let mut dataset = blocking(self.opening()).await?;
        let patience = self.connection.config().timeouts().progress;
        let SyncList { manifest_digest, bases } = self.begun.compare(patience, &self.server.closing).await?;
        let announced = Digest::from_bytes(manifest_digest);
        let digest = dataset.manifest().digest();
        let known: Vec<_> = bases.iter().map(|digest| Digest::from_bytes(*digest)).collect();
        // Paths that this side leaves out reach the peer with the changes.
        if digest == announced && dataset.is_whole() {
            let reads_only = self.reads_only;
            let remembered = blocking(move || {
                if !reads_only {
                    dataset.common_base(&known);
                    dataset.finish_interrupted()?;
                    dataset.remember(dataset.manifest())?;
                }
                Ok(dataset.release()?)
            });
            remembered.await?;
            self.name = None;
            self.begun.session().compared.answer.give(Ok(SyncResponse::Same));
            return Ok(());
        }
        let reads_only = self.reads_only;
        let (dataset, base, changes) = blocking(move || {
            let base = if reads_only { Manifest::new() } else { dataset.common_base(&known) };
            let changes = dataset.changes_since(&base);
            Ok((dataset, base, changes))
        })
        .await?;
        let (changes, beside) = pack(&changes, OUR_LIST, MAX_INLINE_LEN_BYTES);
        let common = (!base.is_empty()).then(|| *base.digest().as_bytes());
        let differs = SyncResponse::Differs { base: common, manifest_digest: *digest.as_bytes(), changes };
        self.begun.session().compared.answer.give(Ok(differs));
        if let Some(bytes) = beside {
            let sync = TransferId::from_bytes(self.request.sync);
            let sent = send_beside(&self.connection, sync, OUR_LIST, bytes, self.digest).await;
            sent.map_err(|error| fault(&error))?;
        }
        if self.request.dry_run {
            return Ok(());
        }
        let start = self.begun.start(self.silence(), &self.server.closing).await?;
        let claims = [claim(&self.connection, start.up)?, claim(&self.connection, start.down)?];
        let ours = &self.server.options;
        // SPEC 5.16: neither side raises what the other takes.
        let options =
            TransferOptions { digest: self.digest, ..ours.agreed(start.compression, start.bytes_per_second) };
        let (compression, bytes_per_second) = (options.compression, ours.bytes_per_second());
        let prepared = self.prepare(&dataset, base, start, announced).await?;
        let merged = *prepared.agreed().merged_digest().as_bytes();
        let ready = SyncReady { merged, compression, bytes_per_second };
        self.begun.session().started.answer.give(Ok(ready));
        self.carry_out(dataset, prepared, claims, &options).await
    }

    /// Opens the dataset and reads what is in it.
    fn opening(&self) -> impl FnOnce() -> Result<Dataset, SyncError> + Send + 'static {
        let (server, peer) = (Arc::clone(&self.server), self.connection.peer_id());
        let SyncRequest { dry_run, mode, attributes, .. } = self.request;
        let reads_only = self.reads_only && !dry_run;
        let (path, digest) = (self.request.path.clone(), self.digest);
        let (cancel, memory) = (self.abort.clone(), self.memory.clone());
        let (filters, relisting) = (Arc::clone(&self.filters), self.relisting.clone());
        // The sync that takes over waits for what this has begun, too.
        let under_way = self.name.as_ref().map(TargetClaim::under_way);
        move || {
            let syncing = server.syncing.as_ref().ok_or(SyncError::Abandoned)?;
            let site = if reads_only {
                let missing = || SourceError::NotFound { path: escape(&path).to_string() };
                Some(Site::to_look_at(&server.root, &path)?.ok_or_else(missing).map_err(DatasetError::from)?)
            } else if dry_run {
                Site::to_look_at(&server.root, &path)?
            } else {
                let may_create = |path: &[u8]| server.access.may_write(&peer, path, Instant::now()).is_ok();
                let chunk_len_bytes = server.options.chunk_len_bytes;
                let links =
                    server.writing.as_ref().map_or(LinkPolicy::Inside, |writing| writing.limits.links);
                let options = SiteOptions { digest, links, attributes, chunk_len_bytes };
                let shared = server.memory().of_destinations(peer);
                let peer = peer.as_bytes();
                let site = Site::to_change(&server.root, &path, peer, options, shared, &may_create)?;
                if let Some(mode) = mode {
                    site.set_new_mode(mode)?;
                }
                if let Some(under_way) = under_way {
                    site.hold(under_way);
                }
                Some(site)
            };
            let go_on = Arc::new(move |_| !cancel.is_cancelled());
            let options = ScanOptions { go_on, digest, filters, attributes, ..ScanOptions::default() };
            let local = syncing.local_name(&path);
            let (state, relisting) = (&syncing.state, relisting.as_ref());
            let mut dataset = Dataset::open(site, &local, peer.as_bytes(), state, &options, relisting)?;
            memory.pay_for_ours(&mut dataset)?;
            Ok(dataset)
        }
    }

    /// How long the peer may be silent.
    fn silence(&self) -> Duration {
        self.connection.config().timeouts().progress
    }

    /// Computes the same plan as the peer, and executes its first steps.
    async fn prepare(
        &mut self,
        dataset: &Dataset,
        base: Manifest,
        start: SyncStart,
        announced: Digest,
    ) -> Result<Prepared, Fault> {
        let timeout = self.connection.config().timeouts().progress;
        let told = match start.base {
            Some(told) if self.request.direction == SyncDirection::ToCaller && base.is_empty() => Some(told),
            Some(_) => {
                return Err(Fault::new(
                    FaultCode::InvalidRequest,
                    "a base that is none of the caller's to tell",
                ));
            }
            None => None,
        };
        let mut unpacked = Vec::new();
        // In the order in which their chunks arrive.
        for body in told.into_iter().chain([start.changes]) {
            let body = unpack(&mut self.claim, body, timeout, self.digest, &self.memory).await;
            unpacked.push(body.map_err(|error| fault(&error))?);
        }
        let theirs = unpacked.pop().unwrap_or_default();
        let consent = Consent { mass_deletion: start.mass_deletion };
        let only_to = self.request.direction.at_callee();
        let filters = Arc::clone(&self.filters);
        let own = dataset.view().ok_or_else(|| Fault::new(FaultCode::Internal, ""))?;
        blocking(move || {
            let base = match unpacked.pop() {
                Some(told) => told.apply(&base)?,
                None => base,
            };
            let other = theirs.apply(&base)?;
            if other.digest() != announced {
                return Err(SyncError::WrongManifestDigest);
            }
            check_listed(&other, &filters)?;
            let agreed = Agreed::on(
                &base,
                &own.manifest,
                &other,
                own.unlisted.iter().chain(theirs.unlisted()),
                only_to,
                consent,
                own.folds(),
            )?;
            Ok(Prepared::new(own, agreed)?)
        })
        .await
    }

    /// Carries the files both ways, does the last steps, and settles.
    async fn carry_out(
        &mut self,
        dataset: Dataset,
        mut prepared: Prepared,
        [up, down]: [Claim; 2],
        options: &TransferOptions,
    ) -> Result<(), Fault> {
        let path = escape(&self.request.path).to_string();
        let job = self.server.activity.begin(self.connection.peer_id(), ServedJob::Sync, path);
        let events = [Direction::Sent, Direction::Received].map(|direction| job.events(direction));
        self.job = Some(job);
        let exchanged = exchange(&self.connection, &mut prepared, [down, up], options, events).await;
        let exchanged = exchanged.map_err(|error| {
            self.job.take().iter().for_each(|job| job.failed(&error));
            fault(&error)
        })?;
        let agreed = Arc::clone(prepared.agreed());
        let unsent = exchanged.unsent();
        let (left, _) = blocking(move || Ok(prepared.finish(unsent)?)).await?;
        for (path, why) in &left {
            // The peer gets the reason, not the details.
            tracing::debug!(%path, %why, "left alone");
        }
        let ours = half(&left);
        self.relisting.iter().for_each(|relisting| relisting.watch.look_again(left.keys()));
        let theirs = self.begun.settle(self.silence()).await?;
        let reads_only = self.reads_only;
        let done = blocking(move || {
            let base = settle(&agreed, &ours, &theirs)?;
            if let Some(base) = base.as_ref().filter(|_| !reads_only) {
                dataset.remember(base)?;
            }
            // The next caller finds everything at rest.
            dataset.release()?;
            drop(dataset);
            Ok(SyncDone { half: ours, base: base.map(|base| *base.digest().as_bytes()) })
        });
        let done = done.await?;
        self.name = None;
        self.job = None;
        self.begun.session().settled.answer.give(Ok(done));
        Ok(())
    }
}

/// Locks the directory. An earlier sync of the same two datasets is ended first, even if its connection still seems to
/// live (SPEC 5.14).
async fn claim_name(targets: &Targets, peer: PeerId, request: &SyncRequest) -> Result<TargetClaim, Fault> {
    // A job that no push has: none takes over from a sync.
    let job = JobKey::new(peer.as_bytes(), &[&request.source[..], &request.path].concat());
    targets.take_over(&request.path, job).await;
    let busy = || Fault::new(FaultCode::Busy, "another push or sync is writing there; try again later");
    targets.claim(&request.path, job).ok_or_else(busy)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, Fault> {
    off_thread(work).await?.map_err(|error| fault(&error))
}

fn read_only() -> Fault {
    Fault::new(FaultCode::ReadOnly, "nothing can be synced with this server")
}

/// The fault that the peer gets for a failure here.
fn fault(error: &SyncError) -> Fault {
    let code = match error {
        SyncError::Transfer(error) => return failed(error),
        SyncError::Dataset(DatasetError::Destination(error)) => return not_taken(error),
        SyncError::Dataset(DatasetError::Source(error)) => return not_served(error),
        SyncError::Dataset(DatasetError::Busy) | SyncError::ListsBusy => FaultCode::Busy,
        SyncError::ListTooLarge { .. } => FaultCode::TooLarge,
        SyncError::Plan(PlanError::MassDeletion { .. } | PlanError::NoName { .. })
        | SyncError::Changes(_)
        | SyncError::Excluded { .. }
        | SyncError::OwnName { .. } => FaultCode::InvalidRequest,
        SyncError::WrongManifestDigest | SyncError::Disagreed => FaultCode::Integrity,
        SyncError::Dataset(DatasetError::Scan(_)) => FaultCode::SourceIo,
        SyncError::Dataset(DatasetError::Base(_)) => FaultCode::SinkIo,
        SyncError::NotReceived(_)
        | SyncError::NotSent(_)
        | SyncError::Refused(_)
        | SyncError::Rejected(_)
        | SyncError::Call(_) => return gone("the sync was interrupted"),
        SyncError::NoRandomness | SyncError::Abandoned => FaultCode::Internal,
    };
    Fault::new(code, error.to_string())
}

/// The index of this side's list.
const OUR_LIST: u64 = 0;

/// 64 KiB, some 700 files that were never synced: what is answered is remembered for a while after the end.
const MAX_INLINE_LEN_BYTES: usize = 64 << 10;
