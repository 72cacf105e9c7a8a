//! A connection to one server, which starts jobs and calls.

pub(crate) mod get;
mod preview;
pub(crate) mod push;
mod redial;
pub(crate) mod sync;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use shiplane_protocols::internals::{measure_rate, ping, with_ticket};
use shiplane_reach::internals::{Rights, SshAddress};
use shiplane_rpc::{Method, RpcClient};
use shiplane_transport::{ConnectError, ConnectionEnd, PeerConnection, PeerId, internals::blocking};
use shiplane_wire::{Code, escape_truncated};
use tokio::time::timeout;

use crate::{
    client::{Client, SshSession},
    error::{Cause, Error},
    offer::{Conclusion, Offer},
    received::ReceivedCodes,
    report::Report,
    request::Request,
    target::{Target, Way, join},
};

/// A connection to one server, for any number of jobs and calls at a time. Clones share it.
///
/// Paths are relative to the path of the target that it was connected by. The job that begins first redeems the
/// ticket, if there is one.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    target: Target,
    peer: Arc<PeerConnection>,
    rpc: RpcClient,
    /// Where the peer was found, if the target does not say it exactly.
    found: Option<SocketAddr>,
    by_code: Option<Arc<ByCode>>,
    /// The session that has started the server.
    ssh: Option<Arc<SshSession>>,
}

/// What is known of a sender whose code this side has proven.
#[derive(Debug)]
pub(crate) struct ByCode {
    pub(crate) offer: Offer,
    pub(crate) code: String,
    /// Where the code is remembered.
    pub(crate) codes: Option<ReceivedCodes>,
}

impl Client {
    /// Connects to the server that a target names: a [`Ticket`](crate::Ticket), a peer id with an address, or a
    /// text such as a ticket URL or `NAME@HOST:PORT/PATH`. Its addresses are tried in order until the right key
    /// answers. Connections to the same peer are shared. A text such as `[USER@]HOST:PATH` starts a server there by
    /// the user's own `ssh`, which may ask at the terminal; it ends when the last connection to it is dropped.
    ///
    /// Whether the server admits this key shows with the first job: that saves a round trip.
    ///
    /// Cancel-safe: dropping the future ends the attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a target that is none,
    /// [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable), or [`ErrorKind::Identity`](crate::ErrorKind::Identity)
    /// if another key answers.
    pub async fn connect<T>(&self, target: T) -> Result<Connection, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let target = target.try_into()?;
        let direct = match target.way() {
            Way::Direct(direct) => direct,
            Way::Either { name, direct, .. } if self.is_known(name).await? => {
                direct.as_ref().map_err(Clone::clone)?
            }
            Way::Ssh(address) | Way::Either { ssh: address, .. } => {
                return Box::pin(Connection::start_by_ssh(self, address.clone(), target.rights())).await;
            }
        };
        let (server, at) = self.locate(direct).await?;
        let peer = self.dial(server, &at).await?;
        Ok(Connection::new(self.clone(), direct.clone().into(), peer))
    }
}

impl Connection {
    fn new(client: Client, target: Target, peer: Arc<PeerConnection>) -> Self {
        let rpc = RpcClient::new(Arc::clone(&peer));
        let rpc = match target.secret() {
            Some(secret) => with_ticket(rpc, secret),
            None => rpc,
        };
        Self { inner: Arc::new(Inner { client, target, peer, rpc, found: None, by_code: None, ssh: None }) }
    }

    async fn start_by_ssh(client: &Client, address: SshAddress, rights: Rights) -> Result<Self, Error> {
        Self::by_ssh(SshSession::start(client, address, rights, false).await?).await
    }

    /// By the best route that is ready.
    async fn by_ssh(session: Arc<SshSession>) -> Result<Self, Error> {
        let peer = session.connect().await?;
        let new = Self::new(session.client().clone(), session.target().clone(), peer);
        Ok(Self { inner: Arc::new(Inner { ssh: Some(session), ..new.inner.parts() }) })
    }

    /// To a peer that was found at this address.
    pub(crate) fn found(client: Client, target: Target, peer: Arc<PeerConnection>, addr: SocketAddr) -> Self {
        let new = Self::new(client, target, peer);
        Self { inner: Arc::new(Inner { found: Some(addr), ..new.inner.parts() }) }
    }

    pub(crate) fn with_code(self, by_code: ByCode) -> Self {
        Self { inner: Arc::new(Inner { by_code: Some(Arc::new(by_code)), ..self.inner.parts() }) }
    }

    pub(crate) fn by_code(&self) -> Option<&Arc<ByCode>> {
        self.inner.by_code.as_ref()
    }

    /// What the sender offers, if this connection was made by a [code](Client::receive_at): in the form of a dry run, with
    /// the names at the top as actions. It is what the sender says; names are escaped.
    #[must_use]
    pub fn offer(&self) -> Option<Report> {
        self.by_code().map(|by_code| by_code.offer.report())
    }

    /// Whether the offer is complete. If not, the sender has more than it says.
    #[must_use]
    pub fn is_offer_counted(&self) -> bool {
        self.by_code().is_some_and(|by_code| by_code.offer.is_counted)
    }

    /// The text that the sender offers in place of files.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.by_code().and_then(|by_code| by_code.offer.text.as_deref())
    }

    /// Tells the sender that this side has everything, or does not want it. The code is then used up. A
    /// [`get`](Self::get) of everything does that by itself when it is done.
    ///
    /// Cancel-safe: the sender then goes on waiting.
    ///
    /// # Errors
    /// What can befall any call.
    pub async fn conclude(&self, is_taken: bool) -> Result<(), Error> {
        let Some(by_code) = self.by_code() else { return Ok(()) };
        self.call(Conclusion { is_taken }).await?;
        if let Some(codes) = by_code.codes.clone() {
            let by_code = Arc::clone(by_code);
            let forgetting = blocking::spawn(move || codes.forget(&by_code.code));
            forgetting.await.map_err(|_| Cause::Abandoned)?;
        }
        Ok(())
    }

    /// The server's key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer.peer_id()
    }

    /// How the server is reached: its address, or `ssh HOST` while packets go through an ssh session.
    #[must_use]
    pub fn route(&self) -> String {
        match &self.inner.ssh {
            Some(session) if session.carries(&self.inner.peer) => session.route(),
            _ => self.remote_addr().to_string(),
        }
    }

    /// The server's address; without meaning for a server that is reached [through ssh](Self::route).
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.inner.peer.remote_addr()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.peer.is_closed()
    }

    /// Calls the server and waits for the answer. Returns the time that this took, and the version of the server's program;
    /// escaped, since the server may say anything.
    ///
    /// Dropping the future gives the call up.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable) if there is no answer, and
    /// [`ErrorKind::Identity`](crate::ErrorKind::Identity) if the server does not admit this key.
    pub async fn ping(&self) -> Result<(Duration, String), Error> {
        let began_at = Instant::now();
        let answered = ping(self.rpc()).await;
        let version = answered.map_err(|error| self.explained(Cause::Call(error).into()))?;
        let version = escape_truncated(version.as_bytes(), MAX_VERSION_LEN_BYTES).to_string();
        Ok((began_at.elapsed(), version))
    }

    /// Measures how fast data gets from the server to this machine, or, if `to_server`, the other way, in bytes a second.
    /// Takes about two seconds, and as much of the path as it carries, within the server's limit of the rate. 0 means that
    /// less than 128 KiB have arrived.
    ///
    /// Dropping the future ends it.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`](crate::ErrorKind::Identity) for who may not read what the target names, and what can befall
    /// any call.
    pub async fn measure(&self, to_server: bool) -> Result<u64, Error> {
        let measured = measure_rate(self.rpc(), &self.server_path(b"")?, to_server).await;
        measured.map_err(|error| self.explained(Cause::Call(error).into()))
    }

    /// The packet length that the path to the server is known to carry, without the headers of UDP and IP.
    #[must_use]
    pub fn packet_len_bytes(&self) -> u16 {
        self.inner.peer.stats().path.datagram_len_bytes
    }

    /// The number of packets sent to the server over this connection, and the number of those that were lost.
    #[must_use]
    pub fn packets(&self) -> (u64, u64) {
        let path = self.inner.peer.stats().path;
        (path.sent_packets, path.lost_packets)
    }

    /// Calls a method that the server's owner has added, and waits for the answer, for at most
    /// [`Request::TIMEOUT`].
    ///
    /// Dropping the future gives the call up, and the server cancels the handler.
    ///
    /// # Errors
    /// What the handler answers, [`ErrorKind::Identity`](crate::ErrorKind::Identity) if this key may not call the
    /// method, and what can befall any call. Unless the kind is `Usage`, it is not known whether the server did it.
    pub async fn call<R: Request>(&self, request: R) -> Result<R::Response, Error> {
        let method: Method<R, R::Response> = Method::new(R::METHOD);
        let answer = self.rpc().call_typed(method, &request, R::TIMEOUT).await;
        answer.map_err(|error| self.explained(Cause::Call(error).into()))
    }

    pub(crate) fn rpc(&self) -> &RpcClient {
        &self.inner.rpc
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Whether both are the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner.peer, &other.inner.peer)
    }

    /// What the server calls `path`.
    pub(crate) fn server_path(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        join(self.inner.target.path(), path)
    }

    /// A new connection to the same server.
    pub(crate) async fn redial(&self) -> Result<Self, Error> {
        let Inner { client, target, found, by_code, ssh, .. } = &*self.inner;
        if let Some(session) = ssh {
            return Box::pin(async { Self::by_ssh(session.again().await?).await }).await;
        }
        let Some(addr) = *found else { return client.connect(target).await };
        let peer = client.dial_addr(self.peer_id(), addr).await?;
        let again = Self::found(client.clone(), target.clone(), peer, addr);
        Ok(Self { inner: Arc::new(Inner { by_code: by_code.clone(), ..again.inner.parts() }) })
    }

    /// The session that carries this connection's packets, if one does.
    fn carrying_session(&self) -> Option<&Arc<SshSession>> {
        self.inner.ssh.as_ref().filter(|session| session.carries(&self.inner.peer))
    }

    /// Runs a job until it ends or `cancelled` is ready.
    pub(crate) async fn run(
        &self,
        job: impl Future<Output = Result<Report, Error>>,
        cancelled: BoxFuture<'static, ()>,
    ) -> Result<Report, Error> {
        tokio::select! {
            biased; // So that a job that was cancelled before does not begin.
            () = cancelled => Err(Cause::Interrupted.into()),
            ended = job => ended,
        }
    }

    /// As [`run`](Self::run), for a push or a sync. If it is cancelled, the server has noticed that when this returns, so
    /// that the job can be continued at once. A close may be lost where the path is full of what was sent before it.
    /// The reset of a stream is not, and any answer shows that it has arrived.
    pub(crate) async fn run_confirmed(
        &self,
        job: impl Future<Output = Result<Report, Error>>,
        cancelled: BoxFuture<'static, ()>,
    ) -> Result<Report, Error> {
        let ended = self.run(job, cancelled).await;
        // A server that ssh has started ends with its session.
        let is_gone = self.inner.ssh.as_ref().is_some_and(|session| session.lost(&self.inner.peer).is_some());
        if !is_gone && matches!(&ended, Err(error) if matches!(error.cause(), Cause::Interrupted)) {
            let ping = async {
                // The job may have got another connection since; connections to one peer are shared.
                let current = if self.is_closed() { self.redial().await? } else { self.clone() };
                let _ = ping(current.rpc()).await;
                Ok::<(), Error>(())
            };
            let _ = timeout(CONFIRM_TIMEOUT, ping).await;
        }
        ended
    }

    /// Why something failed: where the server did not let us in, that is the reason.
    fn explained(&self, failed: Error) -> Error {
        if let Some(why) = self.inner.ssh.as_ref().and_then(|session| session.lost(&self.inner.peer)) {
            return Cause::from(why).into();
        }
        match self.inner.peer.end() {
            Some(end @ ConnectionEnd::ClosedByPeer { code: Code::Unauthorised | Code::Busy }) => {
                Cause::Connect(ConnectError::of_end(self.remote_addr(), end)).into()
            }
            _ => failed,
        }
    }
}

impl Inner {
    fn parts(&self) -> Self {
        Self {
            client: self.client.clone(),
            target: self.target.clone(),
            peer: Arc::clone(&self.peer),
            rpc: self.rpc.clone(),
            found: self.found,
            by_code: self.by_code.clone(),
            ssh: self.ssh.clone(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.inner.peer).finish_non_exhaustive()
    }
}

/// Longer than any version; a server could say anything.
const MAX_VERSION_LEN_BYTES: usize = 64;

/// 400 ms: with the close that follows it, Ctrl-C takes less than a second.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(400);
