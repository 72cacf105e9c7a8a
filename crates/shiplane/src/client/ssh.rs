//! A server on another machine that this side has started by ssh, and the two routes to it.
//!
//! Packets go through the ssh session at once. Meanwhile the server's addresses are dialled by UDP; once one answers,
//! jobs go on over that connection. The session stays: the server lives as long as it does.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use shiplane_access::internals::{Addresses, Host, HostPort, Ticket};
use shiplane_reach::internals::{NoTicket, Rights, SshAddress, SshError, SshPipes, SshProcess, SshRequest};
use shiplane_transport::{
    PeerAddr, PeerConnection, QuicTransport, Trust,
    internals::{CHANNEL_ADDR, Channel, ChannelEnd, blocking},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Client, Inner, Session};
use crate::{
    error::{Cause, Error, SshFailure},
    target::Target,
};

/// A running ssh session with a server at its other end.
pub(crate) struct SshSession {
    /// Has sockets of its own: another server of the same machine has the same key.
    client: Client,
    address: SshAddress,
    rights: Rights,
    ticket: Ticket,
    target: Target,
    at: Addresses,
    channel: Channel,
    over_channel: Arc<QuicTransport>,
    direct: watch::Sender<DirectRoute>,
    dialling: Mutex<Option<AbortOnDropHandle<()>>>,
    /// Ends with the session.
    ended: CancellationToken,
    process: Mutex<Option<SshProcess>>,
}

/// What is known of the way by UDP.
#[derive(Debug, Clone)]
enum DirectRoute {
    Unknown,
    /// Why it does not answer.
    Silent(String),
    Open(Arc<PeerConnection>),
}

impl SshSession {
    /// Starts ssh, and waits for the server's ticket for as long as it takes to log in.
    ///
    /// Dropping the future ends ssh.
    pub(crate) async fn start(
        client: &Client,
        address: SshAddress,
        rights: Rights,
        is_again: bool,
    ) -> Result<Arc<Self>, Error> {
        let host = address.to_string();
        let failed = |source| Error::from(Cause::from(SshFailure::Start { host: host.clone(), source }));
        tracing::info!(%host, "starting ssh");
        let (process, pipes) = client.inner.ssh.start(&address, is_again).map_err(failed)?;
        let request = SshRequest { rights, path: address.path().to_vec() };
        let greeted = blocking::spawn(move || greet(pipes, &request)).await.map_err(|_| Cause::Abandoned)?;
        let (ticket, channel) = match greeted {
            Ok((ticket, channel)) => {
                (ticket, channel.map_err(|error| Cause::from(SshFailure::Thread(error)))?)
            }
            Err(came) => {
                let explaining = blocking::spawn(move || process.explain(came));
                return Err(failed(explaining.await.map_err(|_| Cause::Abandoned)?));
            }
        };
        let Ok(ticket) = ticket.parse::<Ticket>() else {
            return Err(failed(SshError::OtherVersion("its ticket is none".to_owned())));
        };
        Ok(Self::over(client, address, rights, ticket, channel, process)?)
    }

    fn over(
        client: &Client,
        address: SshAddress,
        rights: Rights,
        ticket: Ticket,
        channel: Channel,
        process: SshProcess,
    ) -> Result<Arc<Self>, Cause> {
        let Inner { identity, places, config, ssh, sessions, .. } = &*client.inner;
        let over_channel = QuicTransport::builder()
            .identity(identity.clone())
            .trust(Trust::none())
            .config(config.clone())
            .channel(&channel)
            .bind(CHANNEL_ADDR)?;
        let own = Inner {
            identity: identity.clone(),
            places: places.clone(),
            config: config.clone(),
            transports: Mutex::default(),
            ssh: ssh.clone(),
            sessions: Arc::clone(sessions),
        };
        let session = Arc::new(Self {
            client: Client { inner: Arc::new(own) },
            at: addresses(ticket.at(), address.host()),
            target: Target::from(&ticket),
            address,
            rights,
            ticket,
            channel,
            over_channel: Arc::new(over_channel),
            direct: watch::Sender::new(DirectRoute::Unknown),
            dialling: Mutex::default(),
            ended: CancellationToken::new(),
            process: Mutex::new(Some(process)),
        });
        tokio::spawn(close_with(session.channel.clone(), Arc::downgrade(&session.over_channel)));
        let mut sessions = client.sessions();
        sessions.retain(|session| session.strong_count() > 0);
        let started: Weak<Self> = Arc::downgrade(&session);
        sessions.push(started);
        drop(sessions);
        Ok(session)
    }

    /// A connection by UDP if it answers about as fast as the session itself, else one through the session.
    ///
    /// Cancel-safe.
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<Arc<PeerConnection>, Error> {
        if let Some(direct) = self.open_direct() {
            return Ok(direct);
        }
        self.dial_directly();
        let began = Instant::now();
        let server = PeerAddr { id: self.ticket.server(), addr: CHANNEL_ADDR };
        let over_channel = async {
            let connected = self.over_channel.connect_early(server).await;
            if connected.is_ok() {
                let grace = (began.elapsed() / 4).clamp(SHORTEST_GRACE, LONGEST_GRACE);
                let _ = tokio::time::timeout(grace, self.moved()).await;
            }
            connected
        };
        let connected = tokio::select! {
            biased;
            () = self.moved() => None,
            connected = over_channel => Some(connected),
        };
        match (self.open_direct(), connected) {
            (Some(direct), _) => Ok(direct),
            (None, Some(connected)) => connected.map_err(|error| match self.end() {
                Some(end) => Cause::from(end).into(),
                None => Cause::Connect(error).into(),
            }),
            // It has ended right away.
            (None, None) => Err(Cause::Abandoned.into()),
        }
    }

    /// This session, or a new one if it has ended. Nothing is asked at the terminal then.
    pub(crate) async fn again(self: &Arc<Self>) -> Result<Arc<Self>, Error> {
        match self.channel.end() {
            None => Ok(Arc::clone(self)),
            Some(_) => Self::start(&self.client, self.address.clone(), self.rights, true).await,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The server, by its ticket.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// How its packets go.
    pub(crate) fn route(&self) -> String {
        format!("ssh {}", self.address)
    }

    /// Whether the packets of this connection go through the session.
    pub(crate) fn carries(&self, connection: &PeerConnection) -> bool {
        connection.remote_addr() == CHANNEL_ADDR
    }

    /// Why this connection is lost, if it is lost with the session.
    pub(crate) fn lost(&self, connection: &PeerConnection) -> Option<SshFailure> {
        self.end().filter(|_| connection.is_closed())
    }

    /// Waits until there is a connection by UDP. Cancel-safe.
    pub(crate) async fn moved(&self) {
        let mut direct = self.direct.subscribe();
        // The sender is ours.
        let _ = direct.wait_for(|route| matches!(route, DirectRoute::Open(_))).await;
    }

    /// Waits until the addresses have been dialled without an answer, and says why. Cancel-safe.
    pub(crate) async fn stays(&self) -> String {
        let mut direct = self.direct.subscribe();
        let why = |route: &DirectRoute| match route {
            DirectRoute::Silent(why) => Some(why.clone()),
            DirectRoute::Unknown | DirectRoute::Open(_) => None,
        };
        let silent = direct.wait_for(|route| why(route).is_some()).await;
        silent.ok().and_then(|route| why(&route)).unwrap_or_default()
    }

    fn end(&self) -> Option<SshFailure> {
        let host = self.address.to_string();
        match self.channel.end()? {
            ChannelEnd::Closed | ChannelEnd::Ended => Some(SshFailure::Ended { host }),
            ChannelEnd::Garbled => Some(SshFailure::Garbled { host }),
        }
    }

    fn open_direct(&self) -> Option<Arc<PeerConnection>> {
        match &*self.direct.borrow() {
            DirectRoute::Open(direct) if !direct.is_closed() => Some(Arc::clone(direct)),
            DirectRoute::Open(_) | DirectRoute::Silent(_) | DirectRoute::Unknown => None,
        }
    }

    /// Dials the server's addresses by UDP in the background, again and again with growing pauses, until one answers.
    fn dial_directly(self: &Arc<Self>) {
        let mut dialling = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
        let is_under_way = dialling.as_ref().is_some_and(|dialling| !dialling.is_finished());
        if is_under_way {
            return;
        }
        self.direct.send_if_modified(|route| {
            let is_over = matches!(route, DirectRoute::Open(_));
            if is_over {
                *route = DirectRoute::Unknown;
            }
            is_over
        });
        let (session, ended) = (Arc::downgrade(self), self.ended.clone());
        let task = tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Some(dial) = session.upgrade().map(|session| session.dial_once()) {
                let is_open = tokio::select! {
                    is_open = dial => is_open,
                    () = ended.cancelled() => return,
                };
                if is_open {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        *dialling = Some(AbortOnDropHandle::new(task));
    }

    /// Whether an address has answered.
    fn dial_once(&self) -> impl Future<Output = bool> + Send + use<> {
        let (client, server, at) = (self.client.clone(), self.ticket.server(), self.at.clone());
        let direct = self.direct.clone();
        async move {
            match client.dial(server, &at).await {
                Ok(connection) => {
                    tracing::info!(addr = %connection.remote_addr(), "reached by UDP, beside ssh");
                    direct.send_replace(DirectRoute::Open(connection));
                    true
                }
                Err(error) => {
                    tracing::info!(%error, "not reached by UDP");
                    direct.send_if_modified(|route| {
                        let is_news = matches!(route, DirectRoute::Unknown);
                        if is_news {
                            *route = DirectRoute::Silent(error.to_string());
                        }
                        is_news
                    });
                    false
                }
            }
        }
    }

    fn stop_dialling(&self) {
        self.ended.cancel();
        drop(self.dialling.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn lock_process(&self) -> std::sync::MutexGuard<'_, Option<SshProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session for SshSession {
    /// Waits for a moment until ssh has ended.
    fn close(&self) -> BoxFuture<'_, ()> {
        let closing = async {
            self.stop_dialling();
            // The end of the session tells the server whatever a close would, and dials under way would delay a shutdown.
            self.over_channel.close();
            let own = std::mem::take(&mut *self.client.transports());
            own.iter().flatten().for_each(|transport| transport.close());
            self.channel.close();
            let Some(process) = self.lock_process().take() else { return };
            let ending = blocking::spawn(move || release(process));
            // An error means that the runtime ends.
            let _ = ending.await;
        };
        closing.boxed()
    }
}

impl Drop for SshSession {
    fn drop(&mut self) {
        self.stop_dialling();
        self.over_channel.close();
        self.channel.close();
        if let Some(process) = self.lock_process().take() {
            process.release();
        }
    }
}

impl fmt::Debug for SshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshSession").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Blocking.
fn greet(pipes: SshPipes, request: &SshRequest) -> Result<(String, io::Result<Channel>), NoTicket> {
    pipes.greet(request).map(|(ticket, read, write)| (ticket, Channel::start(read, write)))
}

/// Waits for a moment until it has ended. Blocking.
fn release(process: SshProcess) {
    if process.wait(CLOSE_TIMEOUT).is_none() {
        tracing::debug!("ssh goes on for a while");
        process.release();
    }
}

/// The connections of a session end with it: jobs then need not wait for their timeouts. It ends, too, if the network is
/// gone: ssh itself would wait for it.
async fn close_with(channel: Channel, transport: Weak<QuicTransport>) {
    tokio::select! {
        _ = channel.ended() => {}
        () = channel.silent_for(MAX_SILENCE) => channel.close(),
    }
    if let Some(transport) = transport.upgrade() {
        transport.close();
    }
}

/// What the server says of itself, and the host as the user names it: a server behind a router knows only its own side.
/// This machine's loopback is not the server's, unless the user names it.
fn addresses(ticket: &Addresses, host: &str) -> Addresses {
    let host = host.parse::<Host>().ok();
    let is_here = match &host {
        Some(Host::Name(name)) => name.as_str() == "localhost",
        Some(host) => host.is_loopback(),
        None => false,
    };
    let named = ticket.iter().next().zip(host).map(|(first, host)| HostPort { host, port: first.port });
    let own = ticket.iter().filter(|at| is_here || !at.host.is_loopback()).cloned();
    let mut all = own.chain(named);
    let Some(first) = all.next() else { return ticket.clone() };
    let mut at = Addresses::from(first);
    // An error means that there are enough.
    all.for_each(|other| drop(at.push(other)));
    at
}

/// 20 ms to 200 ms, a quarter of the round trip: UDP that answers at all answers by then, since it was dialled first.
const SHORTEST_GRACE: Duration = Duration::from_millis(20);
const LONGEST_GRACE: Duration = Duration::from_millis(200);

/// 60 s: four signs of life of the other side, and longer than a connection lives without its packets.
const MAX_SILENCE: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A minute: a few packets, for a firewall that is opened in the middle of a long job.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// 20 ms: over a local network ssh has ended by then. Elsewhere it ends a round trip later by itself, once the other side
/// has: nothing is lost without waiting for that.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_dialled_too_and_loopback_only_if_it_is_named() {
        let dialled = |ticket: &str, host| addresses(&ticket.parse().unwrap(), host).to_string();
        assert_eq!(dialled("10.0.0.5:7,[2001:db8::7]:7", "nas"), "10.0.0.5:7,2001:db8::7,nas");
        assert_eq!(dialled("127.0.0.1:7,10.0.0.5:7", "10.0.0.5"), "10.0.0.5:7");
        assert_eq!(dialled("127.0.0.1:7,[::1]:7", "nas"), "nas:7");
        assert_eq!(dialled("127.0.0.1:7,[::1]:7", "localhost"), "127.0.0.1:7,::1,localhost");
        assert_eq!(dialled("127.0.0.1:7", "127.0.0.1"), "127.0.0.1:7");
        assert_eq!(dialled("10.0.0.5:7", "an alias!"), "10.0.0.5:7");
    }
}
