//! The local network: multicast DNS, without any server.
//!
//! A sender announces the number of its code, its port and its addresses, under a host name that is random each time. What
//! it sends, who it is and the words of the code are not announced.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use mdns_sd::{IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use ring::rand::{SecureRandom as _, SystemRandom};
use shiplane_transport::PeerId;

/// Multicast DNS does not work on this machine.
#[derive(Debug, thiserror::Error)]
#[error("multicast DNS does not work on this machine: {0}")]
pub struct NearbyError(#[from] mdns_sd::Error);

/// An announcement, until it is dropped.
pub struct Announcement {
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
}

/// A search for announcements.
pub struct Search {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
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
    /// Announces that `what` listens on `bound`. Nothing is announced of a loopback address.
    ///
    /// # Errors
    /// [`NearbyError`].
    pub fn start(what: Announced, bound: SocketAddr) -> Result<Option<Self>, NearbyError> {
        if bound.ip().is_loopback() {
            return Ok(None);
        }
        let daemon = daemon()?;
        let ip = Some(bound.ip()).filter(|ip| !ip.is_unspecified());
        let host = format!("{}.local.", random_label());
        let addresses = ip.map_or_else(String::new, |ip| ip.to_string());
        let none: &[(&str, &str)] = &[];
        let info = ServiceInfo::new(
            what.service(),
            &what.instance(),
            &host,
            addresses.as_str(),
            bound.port(),
            none,
        )?;
        let info = if ip.is_none() { info.enable_addr_auto() } else { info };
        let name = info.get_fullname().to_owned();
        daemon.register(info)?;
        Ok(Some(Self { daemon, name }))
    }

    /// Takes the announcement back, and waits for a moment until that is sent. Dropping it sends that too, if the
    /// program lives long enough.
    ///
    /// Cancel-safe.
    pub async fn end(self) {
        if let Ok(unregistered) = self.daemon.unregister(&self.name) {
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, unregistered.recv_async()).await;
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Its thread goes on until it has done both.
        let _ = self.daemon.unregister(&self.name);
        let _ = self.daemon.shutdown();
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

    fn of(service: &str) -> Result<Self, NearbyError> {
        let daemon = daemon()?;
        let events = daemon.browse(service)?;
        Ok(Self { daemon, events })
    }

    /// The next announcement; one that is heard again, or changes, comes again. `None` if multicast DNS has ended.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Nearby> {
        loop {
            if let ServiceEvent::ServiceResolved(service) = self.events.recv_async().await.ok()?
                && let Some(nearby) = nearby(&service)
            {
                return Some(nearby);
            }
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

impl Announced {
    fn service(&self) -> &'static str {
        match self {
            Self::Code(_) => CODE_SERVICE,
            Self::Peer(_) => PEER_SERVICE,
        }
    }

    fn instance(&self) -> String {
        match self {
            Self::Code(number) => number.to_string(),
            Self::Peer(id) => id.to_string(),
        }
    }

    /// What an instance of a service stands for. Multicast DNS adds a number in brackets to a name that is taken.
    fn parse(service: &str, instance: &str) -> Option<Self> {
        let name = instance.split([' ', '\\', '(']).next()?;
        match service {
            CODE_SERVICE => Some(Self::Code(name.parse().ok()?)),
            PEER_SERVICE => Some(Self::Peer(name.parse().ok()?)),
            _ => None,
        }
    }
}

fn daemon() -> Result<ServiceDaemon, NearbyError> {
    let daemon = ServiceDaemon::new()?;
    daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    Ok(daemon)
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

/// A host name that says nothing of the machine.
fn random_label() -> String {
    let mut bytes = [0; 8];
    // Two hosts of one name would only share their addresses.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const CODE_SERVICE: &str = "_shiplane-code._udp.local.";

const PEER_SERVICE: &str = "_shiplane._udp.local.";

/// 16 addresses of one announcement: a machine with several interfaces and both families.
pub const MAX_ADDRESSES: usize = 16;

/// 300 ms: the thread that sends it is idle.
const FAREWELL_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(300);

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
