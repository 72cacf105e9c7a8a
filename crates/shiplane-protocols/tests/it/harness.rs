//! Two peers on loopback, one of them serving a directory.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use shiplane_access::internals::{AccessControl, Grant, Scope, TicketSecret};
use shiplane_files::internals::{
    Destination, DestinationError, LinkPolicy, ReceiveOptions, SourceRoot, sync::SyncState,
};
use shiplane_protocols::internals::{
    Fetch, FetchError, FetchRequest, FileServer, WriteLimits, redeem,
    transfer::{FilesReport, TransferEvent, TransferOptions},
};
use shiplane_rpc::{CallError, RpcClient};
use shiplane_transport::{
    ConnectError, Identity, LaneOptions, PeerAddr, QuicTransport, RECEIVE_CREDIT_BYTES, SEND_CREDIT_BYTES,
    TransportConfig, Trust, internals::LaneThreads,
};
use shiplane_wire::{DigestAlgorithm, Durability};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

#[cfg(target_os = "linux")]
use crate::broken_disk::BrokenDisk;

/// A served directory, a destination, and the ticket between them.
pub(crate) struct World {
    dir: TempDir,
    key: TempDir,
    server: Arc<QuicTransport>,
    pub(crate) access: Arc<AccessControl>,
    pub(crate) files: Arc<FileServer>,
    shutdown: CancellationToken,
    pub(crate) running: tokio::task::JoinHandle<()>,
    pub(crate) options: TransferOptions,
    pub(crate) receive: ReceiveOptions,
}

/// A peer that wants something.
pub(crate) struct Client {
    pub(crate) transport: QuicTransport,
    server: PeerAddr,
}

impl World {
    /// Serves what `fill` puts into the source directory.
    pub(crate) fn new(fill: impl FnOnce(&Path)) -> Self {
        Self::with_chunks(64 * 1024, fill)
    }

    pub(crate) fn with_chunks(chunk_len_bytes: u64, fill: impl FnOnce(&Path)) -> Self {
        Self::with_options(TransferOptions { chunk_len_bytes, ..options() }, fill)
    }

    /// Both sides have these options.
    pub(crate) fn with_options(options: TransferOptions, fill: impl FnOnce(&Path)) -> Self {
        Self::with_config(quick(), options, fill)
    }

    /// The same, with a transport like this.
    pub(crate) fn with_config(
        config: TransportConfig,
        options: TransferOptions,
        fill: impl FnOnce(&Path),
    ) -> Self {
        let make = |root, _: &Path, access, options| Arc::new(FileServer::new(root, access, options));
        Self::build(config, options, fill, make, FileServer::run)
    }

    /// The same, and peers with the right may push.
    pub(crate) fn writable_with(options: TransferOptions) -> Self {
        let make = |root, _: &Path, access, options| {
            Arc::new(FileServer::new(root, access, options).writable(WriteLimits::default()))
        };
        Self::build(quick(), options, |_| (), make, FileServer::run)
    }

    /// Lets peers with the right push into the source directory.
    pub(crate) fn writable(limits: WriteLimits) -> Self {
        Self::writable_by(limits, FileServer::run)
    }

    /// The same, with a server that is run by `run`.
    pub(crate) fn writable_by<F>(
        limits: WriteLimits,
        run: impl FnOnce(Arc<FileServer>, Arc<QuicTransport>, CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let make = |root, _: &Path, access, options| {
            Arc::new(FileServer::new(root, access, options).writable(limits))
        };
        Self::build(quick(), options(), |_| (), make, run)
    }

    /// Lets peers with the rights sync with the source directory.
    pub(crate) fn syncing() -> Self {
        Self::syncing_by(FileServer::run)
    }

    /// The same, with these options.
    pub(crate) fn syncing_with(options: TransferOptions) -> Self {
        let make = |root, source: &Path, access, options| {
            let state = SyncState::at(source.join("../state"));
            let files = FileServer::new(root, access, options).writable(WriteLimits::default());
            Arc::new(files.syncing(source, state))
        };
        Self::build(quick(), options, |_| (), make, FileServer::run)
    }

    /// The same, with a server that is run by `run`.
    pub(crate) fn syncing_by<F>(
        run: impl FnOnce(Arc<FileServer>, Arc<QuicTransport>, CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let make = |root, source: &Path, access, options| {
            let state = SyncState::at(source.join("../state"));
            let limits = WriteLimits { attributes: true, ..WriteLimits::default() };
            let files = FileServer::new(root, access, options).writable(limits);
            Arc::new(files.syncing(source, state))
        };
        Self::build(quick(), options(), |_| (), make, run)
    }

    /// Where the server remembers its syncs.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn build<F>(
        config: TransportConfig,
        options: TransferOptions,
        fill: impl FnOnce(&Path),
        make: impl FnOnce(SourceRoot, &Path, Arc<AccessControl>, TransferOptions) -> Arc<FileServer>,
        run: impl FnOnce(Arc<FileServer>, Arc<QuicTransport>, CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::create_dir(dir.path().join("dest")).unwrap();
        fill(&dir.path().join("source"));
        let access = Arc::new(AccessControl::open(&dir.path().join("peers")));
        let key = TempDir::new().unwrap();
        let server = Arc::new(
            QuicTransport::builder()
                .identity(Identity::load_or_create(&key.path().join("key")).unwrap())
                .trust(AccessControl::trust(&access))
                .config(
                    config
                        // As the program serves.
                        .receive_budget_bytes(Some(RECEIVE_CREDIT_BYTES))
                        .send_budget_bytes(Some(SEND_CREDIT_BYTES)),
                )
                .bind(localhost())
                .unwrap(),
        );
        let root = SourceRoot::open(&dir.path().join("source")).unwrap();
        let shutdown = CancellationToken::new();
        let files = make(root, &dir.path().join("source"), Arc::clone(&access), options.clone());
        let running = tokio::spawn(run(Arc::clone(&files), Arc::clone(&server), shutdown.clone()));
        let chunk_len_bytes = options.chunk_len_bytes;
        let receive = ReceiveOptions {
            existing: shiplane_files::internals::Existing::Refuse,
            durability: Durability::Durable,
            verify: false,
            links: LinkPolicy::All,
            attributes: false,
            digest: DigestAlgorithm::Blake3,
            chunk_len_bytes,
        };
        Self { dir, key, server, access, files, shutdown, running, options, receive }
    }

    /// How many connections the server has now.
    pub(crate) fn open_connections(&self) -> usize {
        self.server.open_connections()
    }

    /// Outside of the served directory: no peer may write there.
    pub(crate) fn outside(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(crate) fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    /// A ticket for all that is served.
    pub(crate) fn ticket(&self) -> TicketSecret {
        self.ticket_below("")
    }

    pub(crate) fn ticket_below(&self, path: &str) -> TicketSecret {
        let grant = Grant::read_only(Scope::below(path.as_bytes()).unwrap());
        self.access.tickets().issue(grant, Duration::from_secs(3600), Instant::now()).unwrap()
    }

    /// A ticket to read and to write below `path`.
    pub(crate) fn ticket_to_write(&self, path: &str) -> TicketSecret {
        let grant = Grant { read: true, write: true, paths: Scope::below(path.as_bytes()).unwrap() };
        self.access.tickets().issue(grant, Duration::from_secs(3600), Instant::now()).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        self.client_as(Identity::generate().unwrap())
    }

    pub(crate) fn client_as(&self, identity: Identity) -> Client {
        self.client_with(identity, quick())
    }

    fn client_with(&self, identity: Identity, config: TransportConfig) -> Client {
        let transport = QuicTransport::builder().identity(identity).trust(Trust::none()).config(config);
        let server = PeerAddr { id: self.server.peer_id(), addr: self.address() };
        Client { transport: transport.bind(localhost()).unwrap(), server }
    }

    /// The same, which takes little before it reads it.
    pub(crate) async fn admitted_with_narrow_windows(&self) -> RpcClient {
        self.admitted_over(self.address(), narrow_windows()).await
    }

    /// One with a transport like this, that dials this address.
    pub(crate) async fn admitted_over(&self, addr: SocketAddr, config: TransportConfig) -> RpcClient {
        let Client { transport, server } = self.client_with(Identity::generate().unwrap(), config);
        self.admit(Client { transport, server: PeerAddr { addr, ..server } }, self.ticket()).await
    }

    /// Where the server is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    /// A client that owns a ticket for everything.
    pub(crate) async fn admitted(&self) -> RpcClient {
        self.admitted_by(self.ticket()).await
    }

    /// The server's own key, for a client on the same machine.
    pub(crate) fn identity(&self) -> Identity {
        Identity::load_or_create(&self.key.path().join("key")).unwrap()
    }

    /// A client that owns this ticket.
    pub(crate) async fn admitted_by(&self, ticket: TicketSecret) -> RpcClient {
        self.admitted_as(Identity::generate().unwrap(), ticket).await
    }

    /// A client with this key that owns this ticket.
    pub(crate) async fn admitted_as(&self, identity: Identity, ticket: TicketSecret) -> RpcClient {
        self.admit(self.client_as(identity), ticket).await
    }

    async fn admit(&self, client: Client, ticket: TicketSecret) -> RpcClient {
        let rpc = client.connect().await.unwrap();
        redeem(&rpc, &ticket).await.unwrap();
        // The transport closes with its last handle; the test's end is soon enough.
        std::mem::forget(client.transport);
        rpc
    }

    /// Fetches `path` into the destination directory.
    pub(crate) async fn fetch(&self, client: &RpcClient, path: &str) -> Result<FilesReport, FetchError> {
        self.fetch_watched(client, path, Arc::new(|_| ())).await
    }

    pub(crate) async fn fetch_watched(
        &self,
        client: &RpcClient,
        path: &str,
        events: shiplane_protocols::internals::transfer::EventFn,
    ) -> Result<FilesReport, FetchError> {
        let fetch = Fetch::open(client, FetchRequest::of(path.as_bytes()), &self.options).await?;
        let target =
            self.destination(&fetch).map_err(shiplane_protocols::internals::transfer::TransferError::from)?;
        fetch.receive(target, &self.options, events).await
    }

    pub(crate) fn destination(&self, fetch: &Fetch) -> Result<Destination, DestinationError> {
        Destination::open(&self.dest(), fetch.shape(), fetch.job(), self.receive)
    }

    /// Ends the server in order.
    pub(crate) async fn shut_down(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap();
    }
}

impl Client {
    pub(crate) async fn connect(&self) -> Result<RpcClient, ConnectError> {
        Ok(RpcClient::new(self.transport.connect_to(self.server).await?))
    }
}

/// Collects events.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<TransferEvent>>>);

impl Events {
    pub(crate) fn watch(&self) -> shiplane_protocols::internals::transfer::EventFn {
        let events = self.clone();
        Arc::new(move |event| events.0.lock().unwrap().push(event))
    }

    pub(crate) fn moved_bytes(&self) -> u64 {
        let moved = |event: &TransferEvent| match event {
            TransferEvent::Moved { len_bytes } => *len_bytes,
            _ => 0,
        };
        self.0.lock().unwrap().iter().map(moved).sum()
    }
}

/// Every file beneath `root` with its content, every link with its target, and every directory.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if let Ok(target) = fs::read_link(&path) {
                found.insert(name, Some(target.into_os_string().into_encoded_bytes()));
            } else if path.is_dir() {
                found.insert(name, None);
                open.push(path);
            } else {
                found.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// The same bytes every time, different for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    testlink::Rng::new(seed).bytes(len)
}

pub(crate) fn fault(error: &FetchError) -> shiplane_rpc::FaultCode {
    match error {
        FetchError::Open(CallError::Fault(fault)) => fault.code,
        other => panic!("not a fault: {other}"),
    }
}

/// Of small chunks, so that a small file is many.
pub(crate) fn options() -> TransferOptions {
    TransferOptions { lanes: 4, chunk_len_bytes: 64 * 1024, ..TransferOptions::default() }
}

/// Of a peer that takes little before it reads it.
pub(crate) fn narrow_windows() -> TransportConfig {
    quick().stream_receive_window_bytes(64 << 10).connection_receive_window_bytes(64 << 10)
}

pub(crate) fn quick() -> TransportConfig {
    TransportConfig::default()
        .lane_threads(LaneThreads::Ordinary)
        // They keep short deadlines on a busy machine too.
        .handshake_timeout(Duration::from_secs(3))
        .progress_timeout(PROGRESS_TIMEOUT)
}

/// Short enough to wait for in a test, and far above what loopback takes.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(4);

fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// How the chunks of a transfer are sent, as it is agreed between two peers that offer every digest.
pub(crate) fn transfer_lane() -> LaneOptions {
    LaneOptions::default().digest(DigestAlgorithm::Blake3)
}

/// Runs a test on a runtime of which every thread finds broken disks.
#[cfg(target_os = "linux")]
pub(crate) fn on_broken_disks(test: impl Future<Output = ()>) {
    BrokenDisk::watch_thread();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().on_thread_start(BrokenDisk::watch_thread);
    builder.build().unwrap().block_on(test);
}
