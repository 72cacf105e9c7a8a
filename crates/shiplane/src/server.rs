//! The server: serves a directory for get, push and sync, and methods of its owner.

mod advertise;
mod cleaning;
mod handler;
mod open;
mod operating;
mod over_ssh;
mod sending;
mod sessions;
mod stats;
#[cfg(feature = "status")]
mod status;
mod ticket;

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shiplane_access::internals::{AccessControl, Addresses};
use shiplane_files::internals::LinkPolicy;
use shiplane_protocols::{
    TransferMetrics,
    internals::{FileServer, ReloadOn, WriteLimits},
};
use shiplane_reach::internals::{Announced, Announcement, CodeTerms};
use shiplane_rpc::Router;
use shiplane_transport::{Identity, PeerId, QuicTransport};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{advertise::addresses_of, sending::SendSettings};
use self::{
    cleaning::clean_now_and_then,
    handler::{Callers, Handler, Shared, mount},
    operating::{Operated, Operating},
    sending::Sending,
};
pub use self::{
    handler::{Context, FromContext, State},
    over_ssh::serve_over_ssh,
    stats::Stats,
    ticket::TicketBuilder,
};
use crate::{
    error::{Cause, Error},
    event::{Action, Event},
    home::{HomePaths, machine_setters},
    request::Request,
};

/// Serves a directory, or one file, to the peers that have a ticket or are in the list of peers. Clones share it.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    files: Arc<FileServer>,
    router: Arc<Router>,
    access: Arc<AccessControl>,
    transport: Arc<QuicTransport>,
    metrics: Arc<TransferMetrics>,
    address: SocketAddr,
    advertised: Addresses,
    /// Where to clean, and what is old enough.
    cleaning: Option<(PathBuf, Duration)>,
    sending: Option<Sending>,
    /// Of a code: whether it is. Of another server: whether it wants to be.
    is_announced: bool,
    operated: Operated,
    stop: CancellationToken,
    is_running: AtomicBool,
}

/// Makes a [`Server`]. `S` is the state that handlers share.
///
/// Without any setting it serves for reading only, with the key and the list of peers of the `shiplane` program
/// ([`ClientBuilder`](crate::ClientBuilder) says where they are).
#[must_use = "nothing happens until `bind` is awaited"]
pub struct ServerBuilder<S = ()> {
    path: PathBuf,
    places: HomePaths,
    is_writable: bool,
    limits: WriteLimits,
    clean_after: Option<Duration>,
    rate: Option<u64>,
    advertised: Vec<String>,
    is_foreground: bool,
    is_announced: bool,
    /// Whether an ssh session has started it: then only that session's client is admitted.
    is_for_ssh: bool,
    /// The client's key, and what is sent by a code.
    sending: Option<(Identity, SendSettings)>,
    operating: Operating,
    state: S,
    methods: Vec<OwnMethod<S>>,
}

struct OwnMethod<S> {
    name: &'static str,
    callers: Callers,
    mount: Mount<S>,
}

type Mount<S> = Box<dyn FnOnce(Router, &Arc<Shared<S>>) -> Router + Send>;

impl Server {
    /// Builds a server for `path`, a directory or a single file.
    pub fn builder(path: impl Into<PathBuf>) -> ServerBuilder {
        ServerBuilder {
            path: path.into(),
            places: HomePaths::default(),
            is_writable: false,
            limits: WriteLimits::default(),
            clean_after: Some(CLEAN_AFTER),
            rate: None,
            advertised: Vec::new(),
            is_foreground: false,
            is_announced: false,
            is_for_ssh: false,
            sending: None,
            operating: Operating::default(),
            state: (),
            methods: Vec::new(),
        }
    }

    /// The id of the server's key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.inner.transport.peer_id()
    }

    /// The code by which a receiver finds what [`Client::send`](crate::Client::send) sends; `None` for other servers.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        self.inner.sending.as_ref().map(Sending::code)
    }

    /// Whether receivers on the local network can find the server by its [code](Self::code) alone. If not, since it listens
    /// on loopback or multicast does not work here, they need its [address](Self::address), too. Of other servers: whether
    /// [they want to be seen](ServerBuilder::announce).
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.inner.is_announced
    }

    /// The addresses at which others can probably reach the server: `HOST:PORT`, or several with commas, as in its tickets.
    #[must_use]
    pub fn address(&self) -> String {
        self.inner.advertised.to_string()
    }

    /// The address on which the server listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.address
    }

    /// Counters of what was transferred so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.inner.metrics.snapshot())
    }

    /// The connected peers, their addresses and their running jobs, where `path` is below what is served,
    /// `bytes_done` what has moved, and the phase [`Sending`](crate::Phase::Sending) for a get,
    /// [`Receiving`](crate::Phase::Receiving) for a push and [`Syncing`](crate::Phase::Syncing) for a sync.
    #[must_use]
    pub fn sessions(&self) -> Vec<(PeerId, SocketAddr, Vec<Event>)> {
        sessions::list(&self.inner.files, &self.inner.transport)
    }

    /// Waits until jobs have run and then, for ten seconds, none. The server has then released the memory that it had kept for the next job, and a
    /// program that wants to be small may have its allocator do the same. Call it again for the next time.
    ///
    /// Cancel-safe: dropping the future leaves the rest to the next call.
    pub async fn rested(&self) {
        self.inner.files.rested().await;
    }

    /// Serves until [`shutdown`](Self::shutdown), and then until transfers and calls under way have ended. Meanwhile it
    /// looks once a second whether the list of peers or the tickets have changed, and closes the connections of peers that have lost a right.
    ///
    /// With a [code](Self::code) it returns by itself, once as many receivers as the code is for have everything.
    ///
    /// Dropping the future ends everything at once; peers keep what they have received, and can resume later.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if it runs already or has run. With a code:
    /// [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable) if no receiver has come in time,
    /// [`ErrorKind::Identity`](crate::ErrorKind::Identity) if the code was guessed at,
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) if it is not wanted, and
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if it was shut down before.
    pub async fn run(&self) -> Result<(), Error> {
        let Inner { files, router, access, transport, cleaning, stop, is_running, sending, operated, .. } =
            &*self.inner;
        if is_running.swap(true, Ordering::Relaxed) {
            return Err(Cause::RunsAlready.into());
        }
        let notice = Arc::clone(&operated.reload);
        AccessControl::watch(access, move || notice.notify_one()).map_err(Cause::Watch)?;
        let reload = ReloadOn::Notice(Arc::clone(&operated.reload));
        let methods = Arc::clone(router);
        let serving = Arc::clone(files).run_with(methods, Arc::clone(transport), stop.clone(), reload);
        let serving = async {
            tokio::select! {
                () = serving => {}
                () = self.drained_long_enough() => transport.shutdown(CUT_OFF_TIMEOUT).await,
                never = clean_now_and_then(cleaning.clone()) => match never {},
            }
        };
        let Some(sending) = sending else {
            let announcement = self.announcement();
            serving.await;
            if let Some(announcement) = announcement {
                announcement.end().await;
            }
            return Ok(());
        };
        let ending = async {
            let ended = tokio::select! {
                ended = sending.ended() => ended,
                () = stop.cancelled() => sending.interrupted(),
                never = sending.meet_seekers(Arc::clone(transport)) => match never {},
            };
            sending.end_announcement().await;
            stop.cancel();
            ended
        };
        let ((), ended) = tokio::join!(serving, ending);
        ended
    }

    /// Like [`run`](Self::run), but shuts down when `signal` is ready.
    ///
    /// Dropping the future ends everything at once.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(&self, signal: impl Future<Output = ()>) -> Result<(), Error> {
        let watching = async {
            signal.await;
            self.shutdown();
            std::future::pending().await
        };
        tokio::select! {
            ended = self.run() => ended,
            never = watching => never,
        }
    }

    /// What peers on the local network see of this server, if it wants to be seen.
    fn announcement(&self) -> Option<Announcement> {
        let what = Announced::Peer(self.id());
        let started = self.inner.is_announced.then(|| Announcement::start(what, self.inner.address))?;
        started.unwrap_or_else(|error| {
            tracing::warn!(%error, "peers on the local network do not see this server");
            None
        })
    }

    /// Refuses new transfers and calls from now on, and lets [`run`](Self::run) return once those under way have
    /// ended.
    pub fn shutdown(&self) {
        self.inner.stop.cancel();
    }

    /// Reads the list of peers and the tickets again, now. [`run`](Self::run) does so by itself within a second after
    /// they have changed.
    pub fn reload(&self) {
        self.inner.operated.reload.notify_one();
    }

    /// Ready when what is under way has had the time that it is given after a [`shutdown`](Self::shutdown).
    async fn drained_long_enough(&self) {
        self.inner.stop.cancelled().await;
        match self.inner.operated.drain_limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("id", &self.id())
            .field("address", &self.inner.address)
            .finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync + 'static> ServerBuilder<S> {
    /// Lets peers with the right to write push, and peers with both rights sync. What is served must then be
    /// a directory.
    pub fn writable(mut self) -> Self {
        self.is_writable = true;
        self
    }

    /// The maximum size of one push, in bytes. By default the free space of the disk.
    pub fn max_push_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_transfer_bytes = Some(bytes);
        self
    }

    /// Whether all symbolic links of peers that push or sync are created. By default only those are created that do not lead
    /// outside of the tree that they are in; the others are left out.
    pub fn all_links(mut self, are_allowed: bool) -> Self {
        self.limits.links = if are_allowed { LinkPolicy::All } else { LinkPolicy::Inside };
        self
    }

    /// Whether owners, access lists and extended attributes of peers that push or sync with
    /// [`attributes`](crate::PushJob::attributes) are taken, as far as this process may set them. By default such jobs are
    /// refused: as the superuser, a server that takes them gives files to whomever the peer names.
    pub fn attributes(mut self, are_taken: bool) -> Self {
        self.limits.attributes = are_taken;
        self
    }

    /// How long an interrupted push can be resumed. Older temporary files are removed from time to time, as
    /// [`clean`](crate::clean) does. 7 days by default; `None`: they stay.
    pub fn clean_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.clean_after = age.into();
        self
    }

    /// Maximum concurrent pushes per peer. Further ones are refused as busy.
    pub fn max_pushes_per_peer(mut self, pushes: usize) -> Self {
        self.limits.max_pushes_per_peer = pushes;
        self
    }

    /// Lets [`Peers::nearby`](crate::Peers::nearby) on the local network see the server's id, addresses and port while it
    /// runs. By default nothing is announced.
    pub fn announce(mut self) -> Self {
        self.is_announced = true;
        self
    }

    /// How long transfers and calls may continue after a [`shutdown`](Server::shutdown). Those that have not ended by then
    /// are cut off; their peers resume with the next server. By default there is no limit: a transfer that does not move
    /// ends by itself.
    pub fn drain_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.operating.drain_limit = limit.into();
        self
    }

    machine_setters!();

    /// Limits the rate in each direction, in bytes a second, over all transfers. A limit below 1,000 counts as 1,000.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    /// Adds an address to tickets: `HOST`, or `HOST:PORT` if the port is not the one that the server listens on.
    /// Called again, it adds another one, up to eight; clients try them in this order, a quarter of a second apart. By
    /// default tickets name the address that the server listens on, or those at which others can probably reach this
    /// machine.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertised.push(address.into());
        self
    }

    /// Adds a method for peers that may read and write all that is served. Holders of anything less, such as a ticket
    /// for reading, are denied.
    ///
    /// A handler is an async function or closure that answers a [`Request`](crate::Request): its first argument is the request, the others
    /// are extracted ([`FromContext`](crate::FromContext)), at most three of them. It returns `Result<Response, Error>`.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Add { a: u64, b: u64 }
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Sum(u64);
    /// # impl shiplane::Request for Add {
    /// #     const METHOD: &'static str = "calculator.add";
    /// #     type Response = Sum;
    /// # }
    /// use shiplane::{Context, Error, ErrorKind, State};
    ///
    /// async fn add(add: Add, State(limit): State<u64>, context: Context) -> Result<Sum, Error> {
    ///     match add.a.checked_add(add.b) {
    ///         Some(sum) if sum <= limit => Ok(Sum(sum)),
    ///         _ => Err(Error::new(ErrorKind::Refused, format!("too much for {}", context.peer_id()))),
    ///     }
    /// }
    ///
    /// let server = shiplane::Server::builder("photos").state(1_000_u64).method_for_readers(add);
    /// ```
    ///
    /// The future is dropped at its next `await` when the caller gives up, its time is over, or the connection ends. If it
    /// panics, the caller gets an error.
    pub fn method<H, Arguments>(self, handler: H) -> Self
    where
        H: Handler<Arguments, S>,
    {
        self.with_method(Callers::FullAccess, handler)
    }

    /// Adds a method for peers that may read anything of what is served. If it touches files, the handler checks
    /// [`Context::may_read`].
    pub fn method_for_readers<H, Arguments>(self, handler: H) -> Self
    where
        H: Handler<Arguments, S>,
    {
        self.with_method(Callers::Readers, handler)
    }

    /// Adds a method for peers that may write anything of what is served. If it touches files, the handler checks
    /// [`Context::may_write`].
    pub fn method_for_writers<H, Arguments>(self, handler: H) -> Self
    where
        H: Handler<Arguments, S>,
    {
        self.with_method(Callers::Writers, handler)
    }

    /// Of what is [sent](crate::Client::send) by a code: how many words the code has, from 2 to 8. Each adds 8 bits. The
    /// default is two.
    pub fn code_words(self, words: usize) -> Self {
        self.with_code(|settings| settings.words = words)
    }

    /// Of what is sent by a code: how many receivers it is for. Each has ten minutes from the one before. The default is
    /// one.
    pub fn receivers(self, receivers: u32) -> Self {
        self.with_code(|settings| settings.terms.receivers = Some(receivers.max(1)))
    }

    /// Of what is sent by a code: the code is for any number of receivers, until the server is shut down.
    pub fn stay(self) -> Self {
        self.with_code(|settings| settings.terms = CodeTerms { ttl: None, receivers: None })
    }

    /// Of what is sent by a code: how long it waits for its next receiver. For tests.
    #[doc(hidden)]
    pub fn code_ttl(self, ttl: Duration) -> Self {
        self.with_code(|settings| settings.terms.ttl = Some(ttl))
    }

    /// Of what is sent by a code: calls `callback` when a receiver uses the code: [`Action::change`](crate::Action::change)
    /// is `guessed`, `admitted`, `taken` or `declined`, `path` says who, and `why` is text for people. It must be quick.
    pub fn on_code(self, callback: impl FnMut(&Action) + Send + 'static) -> Self {
        self.with_code(|settings| settings.on_event = Box::new(callback))
    }

    fn with_code(mut self, set: impl FnOnce(&mut SendSettings)) -> Self {
        if let Some((_, settings)) = &mut self.sending {
            set(settings);
        }
        self
    }

    fn with_method<H, Arguments>(mut self, callers: Callers, handler: H) -> Self
    where
        H: Handler<Arguments, S>,
    {
        self.methods.push(OwnMethod {
            name: <H::Request as Request>::METHOD,
            callers,
            mount: Box::new(move |router, shared| mount(router, handler, shared)),
        });
        self
    }
}

impl ServerBuilder {
    pub(crate) fn sending(places: HomePaths, identity: Identity, settings: SendSettings) -> Self {
        Self { places, sending: Some((identity, settings)), ..Server::builder("") }
    }

    /// The state that handlers extract as [`State<S>`]. It comes before the methods.
    pub fn state<S: Clone + Send + Sync + 'static>(self, state: S) -> ServerBuilder<S> {
        let Self { path, places, is_writable, limits, clean_after, rate, advertised, .. } = self;
        let Self { is_foreground, is_announced, is_for_ssh, sending, operating, .. } = self;
        ServerBuilder {
            path,
            places,
            is_writable,
            limits,
            clean_after,
            rate,
            advertised,
            is_foreground,
            is_announced,
            is_for_ssh,
            sending,
            operating,
            state,
            methods: Vec::new(),
        }
    }
}

impl<S> fmt::Debug for ServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("path", &self.path)
            .field("is_writable", &self.is_writable)
            .field("limits", &self.limits)
            .field("methods", &self.methods.iter().map(|method| method.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Seven days, as `shiplane clean` has it.
const CLEAN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long peers may take to hear that they are cut off.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);
