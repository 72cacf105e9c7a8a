//! The local network: multicast DNS, without any server.
//!
//! A sender announces the number of its code, its port and its addresses, under a host name that is random each time. What
//! it sends, who it is and the words of the code are not announced.

mod daemon;

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use mdns_sd::{Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use ring::rand::{SecureRandom as _, SystemRandom};
use shiplane_transport::PeerId;
use tokio::time::{Instant, sleep, sleep_until};

pub use self::daemon::NearbyError;
use self::daemon::Pauses;
use crate::candidates::OwnSubnet;

/// An announcement, until it is dropped.
pub struct Announcement {
    /// `None`: it is over.
    current: Arc<Mutex<Option<Registered>>>,
}

struct Registered {
    daemon: ServiceDaemon,
    name: String,
}

/// What is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// A sender that waits, by the number of its code.
    Code(u16),
    /// A server that wants to be seen.
    Peer(PeerId),
    /// A receiver that gets no answer from the sender of the code with this number.
    Seeker(u16),
}

/// A search for announcements.
pub struct Search {
    service: &'static str,
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    pauses: Pauses,
    /// Until when it pauses, if it does.
    pausing: Option<Instant>,
}

/// Something that was announced. The announcer may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearby {
    /// What.
    pub announced: Announced,
    /// Where, at most [`MAX_ADDRESSES`].
    pub addrs: Vec<SocketAddr>,
}

impl Announcement {
    /// Announces that `what` listens on `bound`. Nothing is announced of a loopback address, nor on a machine that has no
    /// other. It needs a tokio runtime.
    ///
    /// # Errors
    /// [`NearbyError`].
    pub fn start(what: Announced, bound: SocketAddr) -> Result<Option<Self>, NearbyError> {
        if bound.ip().is_loopback() || OwnSubnet::all().is_empty() {
            return Ok(None);
        }
        let current = Arc::new(Mutex::new(Some(Registered::new(what, bound)?)));
        tokio::spawn(keep_up(Arc::downgrade(&current), what, bound));
        Ok(Some(Self { current }))
    }

    /// Takes the announcement back, and waits for a moment until that is sent. Dropping it sends that too, if the
    /// program lives long enough.
    ///
    /// Cancel-safe.
    pub async fn end(self) {
        let Some(registered) = lock(&self.current).take() else { return };
        if let Ok(unregistered) = registered.daemon.unregister(&registered.name) {
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, unregistered.recv_async()).await;
        }
    }
}

impl Registered {
    fn new(what: Announced, bound: SocketAddr) -> Result<Self, NearbyError> {
        let daemon = daemon::start(what.family(bound))?;
        let ip = Some(bound.ip()).filter(|ip| !ip.is_unspecified());
        let host = format!("{}.local.", random_label());
        let addresses = ip.map_or_else(String::new, |ip| ip.to_string());
        let (service, instance, none) = (what.service(), what.instance(), &[] as &[(&str, &str)]);
        let info = ServiceInfo::new(service, &instance, &host, addresses.as_str(), bound.port(), none)?;
        let info = if ip.is_none() { info.enable_addr_auto() } else { info };
        let name = info.get_fullname().to_owned();
        let registered = Self { daemon, name };
        registered.daemon.register(info)?;
        Ok(registered)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Its thread goes on until it has done both.
        let _ = self.daemon.unregister(&self.name);
        let _ = self.daemon.shutdown();
    }
}

/// Announces it again, after a pause, when a flood of others has ended the daemon.
async fn keep_up(current: Weak<Mutex<Option<Registered>>>, what: Announced, bound: SocketAddr) {
    let daemon_of = |current: &Mutex<Option<Registered>>| Some(lock(current).as_ref()?.daemon.clone());
    let mut pauses = Pauses::default();
    while let Some(daemon) = current.upgrade().and_then(|current| daemon_of(&current)) {
        daemon::limit(daemon).await;
        if current.strong_count() == 0 {
            return;
        }
        sleep(after_flood(&mut pauses)).await;
        let Some(current) = current.upgrade() else { return };
        let mut current = lock(&current);
        if current.is_none() {
            return;
        }
        match Registered::new(what, bound) {
            Ok(again) => *current = Some(again),
            Err(error) => {
                tracing::warn!(%error, "nothing is announced any more");
                return;
            }
        }
    }
}

impl Search {
    /// Looks for codes.
    ///
    /// # Errors
    /// [`NearbyError`].
    pub fn codes() -> Result<Self, NearbyError> {
        Self::of(CODE_SERVICE)
    }

    /// Looks for servers that want to be seen.
    ///
    /// # Errors
    /// [`NearbyError`].
    pub fn peers() -> Result<Self, NearbyError> {
        Self::of(PEER_SERVICE)
    }

    /// Looks for receivers that get no answer.
    pub(crate) fn seekers() -> Result<Self, NearbyError> {
        Self::of(SEEKER_SERVICE)
    }

    fn of(service: &'static str) -> Result<Self, NearbyError> {
        let (daemon, events) = browse(service)?;
        Ok(Self { service, daemon, events, pauses: Pauses::default(), pausing: None })
    }

    /// The next announcement; one that is heard again, or changes, comes again. `None` if multicast DNS has ended.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Nearby> {
        loop {
            if let Some(until) = self.pausing {
                daemon::end(&self.daemon).await;
                sleep_until(until).await;
                (self.daemon, self.events) = browse(self.service).ok()?;
                self.pausing = None;
            }
            match self.events.recv_async().await {
                Ok(ServiceEvent::ServiceResolved(service)) => {
                    if let Some(nearby) = nearby(&service) {
                        return Some(nearby);
                    }
                }
                Ok(_) => {}
                // A flood has ended the daemon, or filled the queue.
                Err(_) => self.pausing = Some(Instant::now() + after_flood(&mut self.pauses)),
            }
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

/// How long to pause.
fn after_flood(pauses: &mut Pauses) -> Duration {
    let pause = pauses.next();
    tracing::warn!(?pause, "the local network is flooded with announcements");
    pause
}

fn browse(service: &str) -> Result<(ServiceDaemon, Receiver<ServiceEvent>), NearbyError> {
    let daemon = daemon::start(None)?;
    let events = daemon.browse(service)?;
    tokio::spawn(daemon::limit(daemon.clone()));
    Ok((daemon, events))
}

impl Announced {
    fn service(&self) -> &'static str {
        match self {
            Self::Code(_) => CODE_SERVICE,
            Self::Peer(_) => PEER_SERVICE,
            Self::Seeker(_) => SEEKER_SERVICE,
        }
    }

    fn instance(&self) -> String {
        match self {
            Self::Code(number) => number.to_string(),
            Self::Peer(id) => id.to_string(),
            // There may be several.
            Self::Seeker(number) => format!("{number} {}", random_label()),
        }
    }

    /// The one family of addresses by which it can be reached on `bound`; `None` for both. A socket of IPv6 serves IPv4
    /// too, but that of a receiver dials from IPv6 alone.
    fn family(&self, bound: SocketAddr) -> Option<SocketAddr> {
        let is_of_one = bound.is_ipv4() || matches!(self, Self::Seeker(_));
        is_of_one.then_some(bound)
    }

    /// What an instance of a service stands for. Multicast DNS adds a number in brackets to a name that is taken.
    fn parse(service: &str, instance: &str) -> Option<Self> {
        let name = instance.split([' ', '\\', '(']).next()?;
        match service {
            CODE_SERVICE => Some(Self::Code(name.parse().ok()?)),
            PEER_SERVICE => Some(Self::Peer(name.parse().ok()?)),
            SEEKER_SERVICE => Some(Self::Seeker(name.parse().ok()?)),
            _ => None,
        }
    }
}

fn nearby(service: &ResolvedService) -> Option<Nearby> {
    let instance = service.fullname.strip_suffix(service.ty_domain.as_str())?.trim_end_matches('.');
    let announced = Announced::parse(&service.ty_domain, instance)?;
    let addrs = service.addresses.iter().filter_map(|ip| socket_addr(ip, service.port));
    Some(Nearby { announced, addrs: addrs.take(MAX_ADDRESSES).collect() })
}

/// With the interface where it was heard, if it needs one.
fn socket_addr(ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            Some(SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into())
        }
        ScopedIp::V4(v4) => Some(SocketAddr::new(IpAddr::V4(*v4.addr()), port)),
        ScopedIp::V6(v6) => Some(SocketAddr::new(IpAddr::V6(*v6.addr()), port)),
        _ => None,
    }
}

/// What is locked here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host name that says nothing of the machine.
fn random_label() -> String {
    let mut bytes = [0; 8];
    // Two hosts of one name would only share their addresses.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const CODE_SERVICE: &str = "_shiplane-code._udp.local.";

const PEER_SERVICE: &str = "_shiplane._udp.local.";

const SEEKER_SERVICE: &str = "_shiplane-seek._udp.local.";

/// 16 addresses of one announcement: a machine with several interfaces and both families.
pub const MAX_ADDRESSES: usize = 16;

/// 300 ms: the thread that sends it is idle.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_number_or_an_id_and_nothing_else() {
        let code = |instance| Announced::parse(CODE_SERVICE, instance);
        for instance in ["7", "7 (2)", "7\\ (3)"] {
            assert_eq!(code(instance), Some(Announced::Code(7)), "{instance}");
        }
        for hostile in ["", "x", "-7", "70000", "7x", "\u{1b}[2J", "7\u{202e}", " 7"] {
            assert_eq!(code(hostile), None, "{hostile:?}");
        }
        let seeker = Announced::Seeker(7).instance();
        assert_eq!(Announced::parse(SEEKER_SERVICE, &seeker), Some(Announced::Seeker(7)));
        assert_ne!(seeker, Announced::Seeker(7).instance());
        let id = PeerId::from_bytes([7; 32]);
        assert_eq!(Announced::parse(PEER_SERVICE, &id.to_string()), Some(Announced::Peer(id)));
        assert_eq!(Announced::parse(PEER_SERVICE, "7"), None);
        assert_eq!(Announced::parse("_other._udp.local.", "7"), None);
    }

    #[test]
    fn nothing_is_announced_of_loopback() {
        let started = Announcement::start(Announced::Code(7), "127.0.0.1:1".parse().unwrap());
        assert!(started.is_ok_and(|announcement| announcement.is_none()));
    }

    #[test]
    fn host_names_are_short_and_differ() {
        let (one, other) = (random_label(), random_label());
        assert!(one != other && one.len() == 16);
    }
}
