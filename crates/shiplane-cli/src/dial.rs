//! The addresses of octopii nodes, and this machine's side of a dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use shiplane_protocols::access::{Host, HostPort};
use shiplane_transport::{LaneThreads, TransportConfig};

use crate::failure::octopii::OctopiiFailure;

/// For programs whose one purpose is a transfer: its threads need not give way to calls.
pub(crate) fn transport_config() -> TransportConfig {
    TransportConfig {
        lane_threads: LaneThreads::Ordinary,
        buffer_len_bytes: BUFFER_LEN_BYTES,
        ..TransportConfig::default()
    }
}

/// The addresses to try, in order.
pub(crate) async fn resolve(at: &HostPort) -> Result<Vec<SocketAddr>, OctopiiFailure> {
    let name = match &at.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, at.port)]),
        Host::Name(name) => name.as_str(),
    };
    let looking = tokio::net::lookup_host((name, at.port));
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, looking)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|source| OctopiiFailure::Resolve { host: at.host.to_string(), source })?;
    Ok(found.take(MAX_ADDRESSES).collect())
}

/// A name without an address.
pub(crate) fn no_address(host: &Host) -> OctopiiFailure {
    let source = std::io::Error::from(std::io::ErrorKind::NotFound);
    OctopiiFailure::Resolve { host: host.to_string(), source }
}

/// This machine's side of a dial, of the same family.
pub(crate) fn any_port(like: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// Longer than the resolvers of common systems take to try a second name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Each may take the whole handshake timeout; nobody waits for more than these.
const MAX_ADDRESSES: usize = 4;

/// 256 KiB: hashed at full speed, and still in the cache of a core when it is written.
const BUFFER_LEN_BYTES: usize = 256 << 10;
