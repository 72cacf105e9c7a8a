//! The client: this machine's key, and connections to servers.

mod dial;
mod ssh;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use shiplane_access::internals::{Addresses, PeerName, PeersFile, StandingPeer};
use shiplane_reach::internals::SshCommand;
use shiplane_transport::{
    Identity, PeerId, QuicTransport, RECEIVE_CREDIT_BYTES, TransportConfig,
    internals::{LaneThreads, blocking},
};

pub(crate) use self::ssh::SshSession;
use crate::{
    error::{Cause, Error, ErrorKind, SshFailure, TargetError},
    home::{HomePaths, machine_setters},
    target::{Direct, ServerKey},
};

/// Connects to servers with this machine's key. Clones share the key and the sockets.
///
/// It needs a tokio runtime. On few cores a `current_thread` one is the fastest, since a connection is driven by one
/// task at a time; disk and hashing work has threads of its own.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    places: HomePaths,
    config: TransportConfig,
    /// For IPv4 and IPv6, bound when they are needed.
    transports: Mutex<[Option<Arc<QuicTransport>>; 2]>,
    ssh: SshCommand,
    /// Those that were started, also in place of others that have ended.
    sessions: Arc<Mutex<Vec<Weak<dyn Session>>>>,
}

/// What a client has started and ends.
trait Session: Send + Sync {
    /// Ends it in order.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Makes a [`Client`].
///
/// Without any setting, the key, the list of peers and the state of syncs are in `$SHIPLANE_HOME` if that is set, else in
/// the usual directories of the platform: those that the `shiplane` program uses.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens until `build` is awaited"]
pub struct ClientBuilder {
    places: HomePaths,
    buffer_len_bytes: Option<usize>,
    is_foreground: bool,
    ssh: Option<String>,
    remote_program: Option<String>,
}

impl Client {
    /// Chooses the key and other settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The id of this machine's key, to which a server's owner gives rights.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.inner.identity.peer_id()
    }

    /// Closes all connections of this client and its clones, and waits for a moment until the servers know. A later
    /// [`connect`](Self::connect) begins anew. Dropping the last clone closes the connections too, but waits for
    /// nothing.
    ///
    /// Dropping the future leaves the connections closed; a server may then learn of it late.
    pub async fn close(&self) {
        let transports = std::mem::take(&mut *self.transports());
        let closing = transports.iter().flatten().map(|transport| transport.shutdown(Duration::ZERO));
        let sessions = std::mem::take(&mut *self.sessions());
        let sessions = sessions.iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let ending = sessions.iter().map(|session| session.close());
        tokio::join!(futures::future::join_all(closing), futures::future::join_all(ending));
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub(crate) fn places(&self) -> &HomePaths {
        &self.inner.places
    }

    /// The server's key and addresses.
    pub(crate) async fn locate(&self, direct: &Direct) -> Result<(PeerId, Addresses), Error> {
        match (&direct.server, &direct.at) {
            (ServerKey::Id(id), Some(at)) => Ok((*id, at.clone())),
            (ServerKey::Id(_), None) => Err(TargetError::Unknown.into()),
            (ServerKey::Name(name), at) => {
                let peer = self.known(name).await?;
                let at = at.clone().or(peer.at);
                Ok((peer.id, at.ok_or(Cause::NoAddress { name: peer.name })?))
            }
        }
    }

    /// Whether the list of peers has this name.
    pub(crate) async fn is_known(&self, name: &PeerName) -> Result<bool, Error> {
        match self.known(name).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.cause(), Cause::NoSuchName { .. }) => Ok(false),
            // Without a place for it there is no list.
            Err(error) if error.kind() == ErrorKind::Usage => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn known(&self, name: &PeerName) -> Result<StandingPeer, Error> {
        let (path, name) = (self.inner.places.peers_path()?, name.clone());
        blocking::spawn(move || known(path, name)).await.map_err(|_| Cause::Abandoned)?
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Weak<dyn Session>>> {
        self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transports(&self) -> MutexGuard<'_, [Option<Arc<QuicTransport>>; 2]> {
        self.inner.transports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    machine_setters!();

    /// Uses a new key that is not stored. The rights from a ticket end with this client.
    pub fn fresh_key(mut self) -> Self {
        self.places.has_fresh_key = true;
        self
    }

    /// Bytes read, hashed and written at a time: from 4 KiB to 4 MiB. The default is 256 KiB.
    pub fn buffer_len_bytes(mut self, len: usize) -> Self {
        self.buffer_len_bytes = Some(len);
        self
    }

    /// The command to use as `ssh`, with arguments of its own, separated by spaces; quotes keep an argument together.
    pub fn ssh(mut self, command: impl Into<String>) -> Self {
        self.ssh = Some(command.into());
        self
    }

    /// The program that ssh runs on the other machine, in the syntax of the shell there. By default it is `shiplane`,
    /// looked for in the PATH of that shell and in the usual places.
    pub fn remote_program(mut self, program: impl Into<String>) -> Self {
        self.remote_program = Some(program.into());
        self
    }

    /// Loads this machine's key, or creates it.
    ///
    /// Cancel-safe: a key file is created completely or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::LocalIo`](crate::ErrorKind::LocalIo) or [`ErrorKind::Identity`](crate::ErrorKind::Identity) if the key
    /// cannot be read or must not be used, [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is no place for it.
    pub async fn build(self) -> Result<Client, Error> {
        let ssh = self.ssh.as_deref().map(SshCommand::parse).transpose();
        let ssh = ssh.map_err(|error| Cause::from(SshFailure::from(error)))?.unwrap_or_default();
        let ssh = self.remote_program.into_iter().fold(ssh, SshCommand::remote_program);
        let places = self.places.clone();
        let loading = blocking::spawn(move || places.identity());
        let identity = loading.await.map_err(|_| Cause::Abandoned)??;
        let config = transport_config(self.buffer_len_bytes, self.is_foreground);
        let (transports, sessions) = Default::default();
        let inner = Inner { identity, places: self.places, config, transports, ssh, sessions };
        Ok(Client { inner: Arc::new(inner) })
    }
}

/// The settings that clients and servers have in common. Whatever comes is read at once, so that no window has to be large
/// before it is used.
pub(crate) fn transport_config(buffer_len_bytes: Option<usize>, is_foreground: bool) -> TransportConfig {
    TransportConfig::default()
        .lane_threads(if is_foreground { LaneThreads::Ordinary } else { LaneThreads::Background })
        .buffer_len_bytes(
            buffer_len_bytes
                .unwrap_or(DEFAULT_BUFFER_LEN_BYTES)
                .clamp(MIN_BUFFER_LEN_BYTES, MAX_BUFFER_LEN_BYTES),
        )
        .receive_budget_bytes(Some(RECEIVE_CREDIT_BYTES))
}

/// What a name stands for on this machine. Blocking.
fn known(peers: PathBuf, name: PeerName) -> Result<StandingPeer, Error> {
    let peers = PeersFile::at(peers).read().map_err(Cause::from)?;
    let found = peers.into_iter().find(|peer| peer.name == name);
    Ok(found.ok_or(Cause::NoSuchName { name })?)
}

/// 256 KiB: hashed at full speed, and still in the cache of a core when it is written.
const DEFAULT_BUFFER_LEN_BYTES: usize = 256 << 10;

/// 4 KiB: a page; below it the system calls cost more than the copying.
pub(crate) const MIN_BUFFER_LEN_BYTES: usize = 4 << 10;

/// 4 MiB: with 16 chunks at a time already all of the memory that a process may take.
pub(crate) const MAX_BUFFER_LEN_BYTES: usize = 4 << 20;
