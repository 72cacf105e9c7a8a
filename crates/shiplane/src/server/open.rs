//! Binds a server: opens what it serves, its key and its rules, and listens.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use shiplane_access::internals::{AccessControl, PeersFile, RootId, TicketBook, TicketsFile};
use shiplane_files::internals::{Source, SourceRoot, sync::SyncState};
use shiplane_protocols::{
    Compression, TransferMetrics,
    internals::{FileServer, transfer::TransferOptions},
};
use shiplane_rpc::{Fault, Router};
use shiplane_transport::{Identity, QuicTransport, SEND_CREDIT_BYTES, TransportConfig, internals::blocking};
use tokio::net::ToSocketAddrs;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "status")]
use super::status::Observed;
use super::{
    Inner, OwnMethod, Server, ServerBuilder,
    advertise::{Advertised, addresses_for, advertised},
    handler::{Callers, Shared},
    operating::Operated,
    sending::{SendSettings, Sending},
};
use crate::{
    client::transport_config,
    error::{Cause, Error},
    settings::limiter,
};

/// What a server is made of, once everything that blocks is done.
pub(super) struct Opened {
    pub(super) files: Arc<FileServer>,
    pub(super) access: Arc<AccessControl>,
    pub(super) identity: Identity,
    pub(super) advertised: Vec<Advertised>,
    pub(super) metrics: Arc<TransferMetrics>,
    /// What is sent by a code.
    pub(super) sending: Option<(Sending, Source)>,
}

impl<S: Clone + Send + Sync + 'static> ServerBuilder<S> {
    /// Opens what is to be served, loads the key, and listens on the first address that can be had. An unspecified IPv6
    /// address takes IPv4 too. Peers are let in once [`Server::run`] runs.
    ///
    /// Cancel-safe: dropping the future leaves at most a new key file.
    ///
    /// # Errors
    /// [`ErrorKind::LocalIo`](crate::ErrorKind::LocalIo) if the directory or the address cannot be used,
    /// [`ErrorKind::Identity`](crate::ErrorKind::Identity) if the key or the list of peers is broken, and
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for settings that make no sense.
    pub async fn bind(self, addr: impl ToSocketAddrs) -> Result<Server, Error> {
        let opening = blocking::spawn(move || self.open());
        let (opened, builder) = opening.await.map_err(|_| Cause::Abandoned)??;
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(addr).await.map_err(Cause::Listen)?.collect();
        builder.serve(opened, &addresses)
    }

    /// Like [`bind`](Self::bind), but on a socket that is bound already, such as one that a service manager holds while the
    /// server is restarted.
    ///
    /// Cancel-safe: dropping the future leaves at most a new key file.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_socket(mut self, socket: UdpSocket) -> Result<Server, Error> {
        let addr: SocketAddr = socket.local_addr().map_err(Cause::Listen)?;
        self.operating.socket = Some(socket);
        let opening = blocking::spawn(move || self.open());
        let (opened, builder) = opening.await.map_err(|_| Cause::Abandoned)??;
        builder.serve(opened, &[addr])
    }

    /// All that blocks.
    pub(super) fn open(mut self) -> Result<(Opened, Self), Error> {
        if let Some((identity, settings)) = self.sending.take() {
            return Ok((self.open_sending(identity, settings)?, self));
        }
        let root = SourceRoot::open(&self.path).map_err(Cause::Serve)?;
        if self.is_writable && !root.is_directory() {
            return Err(Cause::WritableFile.into());
        }
        let access = self.access()?;
        let advertised = advertised(&self.advertised)?;
        let (options, metrics) = self.transfer_options();
        let state = SyncState::at(self.places.sync_path()?);
        let files = FileServer::new(root, Arc::clone(&access), options);
        let files = if self.is_writable { files.writable(self.limits.clone()) } else { files };
        let files = Arc::new(files.syncing(&self.path, state));
        let identity = match self.places.identity() {
            // What an interrupted run has fetched is then not recognised as this server's.
            Err(error) if self.is_for_ssh => {
                tracing::info!(%error, "no key is kept here");
                Identity::generate().map_err(Cause::from)?
            }
            identity => identity?,
        };
        Ok((Opened { files, access, identity, advertised, metrics, sending: None }, self))
    }

    pub(super) fn serve(mut self, opened: Opened, addresses: &[SocketAddr]) -> Result<Server, Error> {
        let config = server_config(self.is_foreground);
        let (trust, router) = match &opened.sending {
            Some((sending, _)) => (sending.trust(), sending.router(&opened.files)),
            None => (AccessControl::trust(&opened.access), opened.files.router(&[])),
        };
        #[cfg(feature = "status")]
        let (router, observed) =
            self.operating.status.observe(router, &opened.files, &opened.access, &opened.metrics)?;
        let Opened { files, access, identity, advertised, metrics, sending } = opened;
        let mut socket = self.operating.socket.take();
        let mut bind = |addr: SocketAddr| {
            let builder = QuicTransport::builder().identity(identity.clone()).trust(trust.clone());
            let builder = match socket.take() {
                Some(socket) => builder.udp_socket(socket),
                None => builder,
            };
            builder.config(config.clone()).bind(addr).map_err(Cause::from)
        };
        let shared = Shared { state: self.state, access: Arc::clone(&access), files: Arc::clone(&files) };
        let router = with_methods(router, self.methods, &Arc::new(shared))?;
        let mut bound = Err(Cause::Listen(std::io::ErrorKind::NotFound.into()));
        for addr in addresses {
            bound = bind(*addr);
            if bound.is_ok() {
                break;
            }
        }
        let transport = bound?;
        let address = transport.local_addr().map_err(Cause::Listen)?;
        let advertised = addresses_for(address, &advertised).map_err(Cause::Advertise)?;
        let cleaning = self.clean_after.filter(|_| self.is_writable).map(|age| (self.path, age));
        let mut is_announced = self.is_announced;
        let sending = sending.map(|(sending, source)| {
            sending.count(source);
            is_announced = sending.announce(address);
            sending
        });
        let server = Server {
            inner: Arc::new(Inner {
                operated: Operated {
                    reload: Arc::default(),
                    drain_limit: self.operating.drain_limit,
                    #[cfg(feature = "status")]
                    status: observed.as_ref().map(Observed::status),
                },
                cleaning,
                files,
                router: Arc::new(router),
                access,
                transport: Arc::new(transport),
                metrics,
                address,
                advertised,
                sending,
                is_announced,
                stop: CancellationToken::new(),
                is_running: AtomicBool::new(false),
            }),
        };
        #[cfg(feature = "status")]
        if let Some(observed) = observed {
            observed.serve(&server);
        }
        Ok(server)
    }

    /// Of all its transfers, which those figures count.
    fn transfer_options(&self) -> (TransferOptions, Arc<TransferMetrics>) {
        let metrics = Arc::new(TransferMetrics::new());
        let options = TransferOptions {
            rate: limiter(self.rate),
            // The client decides.
            compression: Compression::Always,
            metrics: Some(Arc::clone(&metrics)),
            ..TransferOptions::default()
        };
        (options, metrics)
    }

    /// Who may do what. Blocking.
    fn access(&self) -> Result<Arc<AccessControl>, Error> {
        if self.is_for_ssh {
            return Ok(Arc::new(AccessControl::without_peers()));
        }
        let peers = self.places.peers_path()?;
        // A broken list would refuse everyone: better reported here than found out by every peer.
        PeersFile::at(&peers).read().map_err(Cause::from)?;
        Ok(Arc::new(AccessControl::open(&peers).with_tickets(self.tickets()?)))
    }

    /// What is sent, only to those who know the code.
    pub(super) fn open_sending(&self, identity: Identity, settings: SendSettings) -> Result<Opened, Error> {
        let (root, items) = settings.open()?;
        let access = Arc::new(AccessControl::without_peers());
        let (options, metrics) = self.transfer_options();
        let source = root.resolve(b"").map_err(Cause::Serve)?;
        let files = Arc::new(FileServer::new(root, Arc::clone(&access), options));
        let sending = Sending::new(settings, items, identity.peer_id(), &access)?;
        let sending = Some((sending, source));
        Ok(Opened { files, access, identity, advertised: Vec::new(), metrics, sending })
    }

    /// Those that servers of the same directory have given out, and this one will. Blocking.
    fn tickets(&self) -> Result<TicketBook, Error> {
        let file = match self.places.tickets_path() {
            // The tickets of a key that is stored nowhere end with it.
            Ok(path) if !self.places.has_fresh_key => TicketsFile::at(path),
            _ => return Ok(TicketBook::new()),
        };
        let unreadable = |source| Cause::Root { path: self.path.clone(), source };
        let root = RootId::of(&self.path).map_err(unreadable)?;
        Ok(TicketBook::open(file, root, Instant::now()).map_err(Cause::from)?)
    }
}

/// The router with the server's own methods, and a guard that knows who may call each.
fn with_methods<S>(
    mut router: Router,
    methods: Vec<OwnMethod<S>>,
    shared: &Arc<Shared<S>>,
) -> Result<Router, Error> {
    let mut callers: Vec<(&'static str, Callers)> = Vec::new();
    for method in methods {
        let name = method.name;
        if callers.iter().any(|(known, _)| *known == name) {
            return Err(Cause::Method { name, why: "there already" }.into());
        }
        if router.methods().any(|known| known == name) {
            return Err(Cause::Method { name, why: "one of shiplane's own" }.into());
        }
        callers.push((name, method.callers));
        router = (method.mount)(router, shared);
    }
    let access = Arc::clone(&shared.access);
    Ok(router.guard(move |call, method| -> Result<(), Fault> {
        let known = callers.iter().find(|(name, _)| *name == method);
        known.map_or(Ok(()), |(_, callers)| callers.admit(&access, &call.peer))
    }))
}

pub(super) fn server_config(is_foreground: bool) -> TransportConfig {
    transport_config(None, is_foreground).send_budget_bytes(Some(SEND_CREDIT_BYTES))
}
