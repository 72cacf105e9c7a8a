//! The file server: permissions and running transfers.

mod activity;
mod concurrency;
mod probe;
mod push;
mod registry;
mod sync;
mod targets;
mod watch;
mod writing;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shiplane_access::internals::{AccessControl, TicketSecret};
use shiplane_files::internals::{CountedMemory, Source, SourceError, SourceRoot, sync::SyncState};
use shiplane_rpc::{Fault, FaultCode, RequestContext, Router};
use shiplane_transport::{
    PeerConnection, QuicTransport,
    internals::{Claim, blocking},
};
use shiplane_wire::{Code, RelPath, TransferId, escape};
use tokio::{sync::Notify, time::Interval};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use self::{
    activity::Activity,
    concurrency::{ConcurrencyLimit, ConcurrencyPermit, MAX_FETCHES},
    registry::shutting_down,
    sync::Syncing,
    writing::Writing,
};
pub use self::{
    activity::{FailureFn, ServedJob, UnderWay},
    writing::WriteLimits,
};
use crate::{
    Direction,
    methods::{
        FETCH_OPEN, FetchOpen, FetchOpened, PING, PUSH_OPEN, PUSH_SETTLE, REDEEM, RedeemRequest,
        agree_digest, check_attributes, denied, not_redeemed, not_served,
    },
    metrics::Counting,
    off_thread,
    probe::PROBE,
    sync::messages::{SYNC_ALIVE, SYNC_COMPARE, SYNC_OPEN, SYNC_SETTLE, SYNC_START, SYNC_WATCH},
    transfer::{
        MemoryBudget, TransferError, TransferOptions,
        provider::{Provided, provide},
    },
};

/// When a server reads its rules again.
#[derive(Debug)]
pub enum ReloadOn {
    /// At each tick: of a clock that may be a simulated one.
    Tick(Interval),
    /// When it is notified, as by [`AccessControl::watch`]: an idle server then sleeps.
    Notice(Arc<Notify>),
}

impl ReloadOn {
    /// Cancel-safe.
    async fn due(&mut self) {
        match self {
            Self::Tick(interval) => {
                interval.tick().await;
            }
            Self::Notice(notify) => notify.notified().await,
        }
    }
}

/// Serves a directory or a file to the peers that [`AccessControl`] admits.
#[derive(Debug)]
pub struct FileServer {
    root: SourceRoot,
    access: Arc<AccessControl>,
    options: TransferOptions,
    fetches: ConcurrencyLimit,
    probes: ConcurrencyLimit,
    /// `None`: nothing can be pushed.
    writing: Option<Writing>,
    /// `None`: nothing can be synced.
    syncing: Option<Syncing>,
    activity: Activity,
    /// Transfers and calls that a shutdown waits for.
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl FileServer {
    /// Serves `root` for reading, under the rules of `access`.
    #[must_use]
    pub fn new(root: SourceRoot, access: Arc<AccessControl>, mut options: TransferOptions) -> Self {
        options.memory.get_or_insert_default();
        options.digest_cache.get_or_insert_default();
        Self {
            root,
            access,
            options,
            fetches: ConcurrencyLimit::new(MAX_FETCHES, MAX_FETCHES),
            probes: ConcurrencyLimit::new(MAX_PROBES, MAX_PROBES_PER_PEER),
            writing: None,
            syncing: None,
            activity: Activity::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Also takes pushes of peers with the right to write, if the root is a directory.
    #[must_use]
    pub fn writable(self, limits: WriteLimits) -> Self {
        let writing = self.root.is_directory().then(|| Writing::new(limits));
        Self { writing, ..self }
    }

    /// Also takes part in syncs: of peers that take from it, and, if it is [`writable`](Self::writable), of those that may
    /// read and write. `path` is where the root is, and names it in what is remembered in `state`. Blocking: asks the
    /// system for its whole path.
    #[must_use]
    pub fn syncing(self, path: &Path, state: SyncState) -> Self {
        Self { syncing: Some(Syncing::new(state, path)), ..self }
    }

    /// Accepts peers on `transport` until `shutdown` is cancelled; then refuses new transfers, lets those
    /// under way finish, and closes the transport. Dropped, it stops at once.
    ///
    /// The transport's trust must be [`AccessControl::trust`] of the same rules.
    pub async fn run(self: Arc<Self>, transport: Arc<QuicTransport>, shutdown: CancellationToken) {
        let methods = Arc::new(self.router(&[]));
        let reload = ReloadOn::Tick(tokio::time::interval(RELOAD_INTERVAL));
        self.run_with(methods, transport, shutdown, reload).await;
    }

    /// As [`run`](Self::run), with `methods`: those of [`router`](Self::router) and others. The rules are read
    /// again as `reload` says.
    ///
    /// Dropped, it stops at once.
    pub async fn run_with(
        self: Arc<Self>,
        methods: Arc<Router>,
        transport: Arc<QuicTransport>,
        shutdown: CancellationToken,
        mut reload: ReloadOn,
    ) {
        loop {
            tokio::select! {
                accepted = transport.accept() => match accepted {
                    Ok((addr, connection)) => {
                        tracing::info!(peer = %connection.peer_id().short(), %addr, "connected");
                        tokio::spawn(Arc::clone(&methods).serve(connection));
                    }
                    Err(_) => break, // The transport is closed.
                },
                () = reload.due() => self.reload(&transport).await,
                () = shutdown.cancelled() => break,
            }
        }
        // SPEC 1.13: a client that connects now would get no answers.
        transport.refuse_new();
        self.closing.cancel();
        self.tasks.close();
        let drained = async {
            loop {
                tokio::select! {
                    () = self.tasks.wait() => break,
                    () = reload.due() => self.reload(&transport).await,
                }
            }
        };
        drained.await;
        transport.shutdown(CLOSE_TIMEOUT).await;
    }

    /// The transfers under way, in the order in which they began.
    #[must_use]
    pub fn under_way(&self) -> Vec<Arc<UnderWay>> {
        self.activity.list()
    }

    /// Payload bytes that have moved: sent, and received. What is under way counts too.
    #[must_use]
    pub fn moved_bytes(&self) -> [u64; 2] {
        self.activity.moved_bytes()
    }

    /// Calls this when a job fails that was opened. Only the first call of this method counts.
    pub fn on_failure(&self, call: FailureFn) {
        self.activity.on_failure(call);
    }

    /// Waits until jobs have run and then, for ten seconds, none, and gives back to the system what was kept for the next.
    /// Cancel-safe.
    pub async fn rested(&self) {
        self.activity.rested().await;
        self.memory().free_buffers();
    }

    /// How many buffers are kept for the next job, without those that all lanes of the process share.
    #[must_use]
    pub fn kept_buffers(&self) -> usize {
        self.memory().kept_buffers()
    }

    /// Each budget of the memory that peers may make this side hold: its name, what is held, and what may be.
    #[must_use]
    pub fn memory_in_use(&self) -> [(&'static str, u64, u64); 7] {
        self.memory().in_use()
    }

    /// Lets a shutdown wait until the token is dropped, as for a call of a method that is not this server's.
    ///
    /// # Errors
    /// The fault to answer with, once the server shuts down.
    pub fn track(&self) -> Result<TaskTrackerToken, Fault> {
        self.check_open()?;
        Ok(self.tasks.token())
    }

    fn check_open(&self) -> Result<(), Fault> {
        if self.closing.is_cancelled() { Err(shutting_down()) } else { Ok(()) }
    }

    /// Checks the form of the path, and then the caller's right to read it: before the disk is looked at, so that the caller
    /// learns nothing about paths outside of its scope.
    fn check_may_read(&self, context: &RequestContext, path: &[u8]) -> Result<(), Fault> {
        self.check_open()?;
        check_path(path)?;
        self.access.may_read(&context.peer, path, Instant::now()).map_err(|error| denied(&error))
    }

    /// The methods that peers may call, for a program that adds others and accepts connections itself. Guests may also call `methods`, by which they authorise themselves.
    #[must_use]
    pub fn router(self: &Arc<Self>, methods: &'static [&'static str]) -> Router {
        Router::new()
            .guard(move |context, method| {
                if context.connection.is_guest() && method != REDEEM && !methods.contains(&method) {
                    return Err(Fault::new(FaultCode::Unauthorised, "redeem your ticket first"));
                }
                Ok(())
            })
            .wrapping_method(REDEEM, self.handling(Self::redeem))
            .typed(PING, |_, ()| async { Ok(env!("CARGO_PKG_VERSION").to_owned()) })
            .typed(FETCH_OPEN, self.handling(Self::open))
            .typed(PUSH_OPEN, self.handling(Self::open_push))
            .typed(PUSH_SETTLE, self.handling(Self::settle_push))
            .typed(SYNC_OPEN, self.handling(Self::open_sync))
            .typed(SYNC_COMPARE, self.handling(Self::compare_sync))
            .typed(SYNC_START, self.handling(Self::start_sync))
            .typed(SYNC_SETTLE, self.handling(Self::settle_sync))
            .typed(SYNC_ALIVE, self.handling(Self::sync_is_alive))
            .typed(SYNC_WATCH, self.handling(Self::watch_sync))
            .typed(PROBE, self.handling(Self::probe))
    }

    /// Calls of a method go to this server.
    fn handling<Req, Fut>(
        self: &Arc<Self>,
        handle: fn(Arc<Self>, RequestContext, Req) -> Fut,
    ) -> impl Fn(RequestContext, Req) -> Fut + use<Req, Fut> {
        let server = Arc::clone(self);
        move |context, request| handle(Arc::clone(&server), context, request)
    }

    /// Gives the call that comes with the ticket.
    async fn redeem(
        self: Arc<Self>,
        context: RequestContext,
        body: Bytes,
    ) -> Result<Option<(String, Bytes)>, Fault> {
        let RedeemRequest { secret, method, body } = shiplane_rpc::internals::decode(&body)
            .map_err(|error| Fault::new(FaultCode::InvalidRequest, error.to_string()))?;
        let (secret, peer) = (TicketSecret::from_bytes(secret), context.peer);
        let redeemed = if self.access.tickets().is_on_disk() {
            let access = Arc::clone(&self.access);
            off_thread(move || access.tickets().redeem(&secret, peer, Instant::now())).await?
        } else {
            self.access.tickets().redeem(&secret, peer, Instant::now())
        };
        redeemed.map_err(|error| {
            tracing::warn!(peer = %peer.short(), %error, "ticket refused");
            not_redeemed(&error)
        })?;
        context.connection.promote();
        tracing::info!(peer = %peer.short(), "ticket redeemed");
        Ok((!method.is_empty()).then(|| (method, body.into())))
    }

    async fn open(
        self: Arc<Self>,
        context: RequestContext,
        request: FetchOpen,
    ) -> Result<FetchOpened, Fault> {
        self.check_open()?;
        check_path(&request.path)?;
        let digest = agree_digest(self.options.digest, request.digests)?;
        // Before the disk is looked at: a caller learns nothing about paths outside of its scope.
        let allowed = self.access.may_read(&context.peer, &request.path, Instant::now());
        allowed.map_err(|error| denied(&error))?;
        check_attributes(request.attributes, true)?;
        let filtered = request.filters.agree(&self.memory(), context.peer).await?;
        let root = self.root.clone();
        let path = request.path;
        let shown = escape(&path).to_string();
        // Links are followed only for callers that may read everything: a link could lead out of a smaller scope.
        let may_follow = self.access.may_read(&context.peer, b"", Instant::now()).is_ok();
        let resolve = move || if may_follow { root.resolve(&path) } else { root.resolve_unlinked(&path) };
        let source = off_thread(resolve).await?.map_err(|error| not_served(&error))?;
        let source = source.with_filters(filtered.filters).with_attributes(request.attributes);
        let transfer = TransferId::from_bytes(request.transfer);
        let permit = self.fetches.take(context.peer)?;
        let claim = claim(&context.connection, request.transfer)?;
        tracing::info!(peer = %context.peer.short(), %transfer, path = %shown, "transfer opened");
        let opened = FetchOpened { shape: source.shape().into(), digest: digest.bit() };
        let agreed = self.options.agreed(request.compression, request.bytes_per_second);
        let options = TransferOptions { digest, ..agreed };
        let filters_memory = filtered.memory;
        let job = self.activity.begin(context.peer, ServedJob::Fetch, shown);
        let opened_by = Opened { source, permit, filters_memory, is_invited: request.invites, job };
        let run = Arc::clone(&self).run_transfer(context.connection, claim, opened_by, options);
        self.tasks.spawn(run);
        Ok(opened)
    }

    /// Opens the records stream and provides, then waits until the receiver has made everything durable.
    async fn run_transfer(
        self: Arc<Self>,
        connection: Arc<PeerConnection>,
        claim: Claim,
        opened: Opened,
        options: TransferOptions,
    ) {
        let Opened { source, permit, filters_memory: _memory, is_invited, job } = opened;
        let (peer, transfer) = (connection.peer_id(), claim.transfer());
        let metrics = options.metrics.as_ref();
        let counting = Counting::begin(metrics, Direction::Sent, connection.remote_addr());
        // The receiver went away before it began.
        let records = match connection.open_records(transfer).await {
            Ok(records) => records,
            Err(error) => return job.failed(&TransferError::from(error)),
        };
        let events = job.events(Direction::Sent);
        let (source, told) = (Arc::new(source), Arc::clone(&events));
        let provided = provide(connection, transfer, records, source, &options, is_invited, told).await;
        match provided {
            Ok(mut provided) => {
                let Provided { sent_bytes, wire_bytes, .. } = provided;
                tracing::info!(peer = %peer.short(), %transfer, sent_bytes, wire_bytes, "all sent");
                counting.completed(sent_bytes);
                // Its permit is free for others by now.
                drop(permit);
                // A shutdown waits until the receiver has made everything durable.
                let ended = provided.published(&events);
                if tokio::time::timeout(CONFIRM_TIMEOUT, ended).await.is_ok() {
                    tracing::info!(peer = %peer.short(), %transfer, "complete");
                }
            }
            Err(error) => {
                tracing::warn!(peer = %peer.short(), %transfer, %error, "transfer failed");
                job.failed(&error);
                counting.failed(&error);
            }
        }
    }

    /// The budget of all transfers and syncs of this server.
    fn memory(&self) -> MemoryBudget {
        self.options.memory.clone().unwrap_or_default()
    }

    /// Reads the rules again, and closes the connections of peers that have lost a right.
    async fn reload(&self, transport: &QuicTransport) {
        let access = Arc::clone(&self.access);
        let reloaded = blocking::spawn(move || access.reload_if_changed(Instant::now())).await;
        let Ok(reload) = reloaded else { return };
        if let Some(broken) = reload.broken {
            tracing::error!(%broken, "the peers file is unreadable: everyone is refused");
        }
        for peer in reload.revoked {
            tracing::info!(peer = %peer.short(), "rights withdrawn");
            transport.close_peer(peer, Code::Revoked);
        }
    }
}

/// The form of a path beneath what is served.
fn check_path(path: &[u8]) -> Result<(), Fault> {
    if path.is_empty() {
        return Ok(());
    }
    let checked = RelPath::parse(path);
    checked.map(drop).map_err(|reason| not_served(&SourceError::PathRefused { reason }))
}

/// The streams of a transfer that the peer has named.
fn claim(connection: &Arc<PeerConnection>, transfer: [u8; 16]) -> Result<Claim, Fault> {
    let claim = connection.claim(TransferId::from_bytes(transfer));
    claim.map_err(|_| Fault::new(FaultCode::InvalidRequest, "the transfer id is in use"))
}

/// A fetch that was opened.
struct Opened {
    source: Source,
    permit: ConcurrencyPermit,
    filters_memory: Box<dyn CountedMemory>,
    is_invited: bool,
    job: Arc<UnderWay>,
}

/// 4: each holds 8 MiB for a few seconds, and has its part of the uplink.
const MAX_PROBES: usize = 4;

/// 2: the end of one may be noticed later than the beginning of the next.
const MAX_PROBES_PER_PEER: usize = 2;

/// A withdrawn right ends sessions within a second.
const RELOAD_INTERVAL: Duration = Duration::from_millis(500);

/// How long peers may take to hear of the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a shutdown waits for a receiver that has everything to make it durable.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);
