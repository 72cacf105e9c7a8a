//! Turns a `HOST:PORT` into socket addresses.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use shiplane_access::internals::{Host, HostPort, MAX_ADDRESSES};

use crate::error::Cause;

/// The addresses of a host in order of preference, at most [`MAX_ADDRESSES`]. A link-local one without a zone could be
/// behind any interface.
pub(super) async fn resolve(at: &HostPort) -> Result<Vec<SocketAddr>, Cause> {
    let found: Vec<SocketAddr> = match &at.host {
        Host::Ip(IpAddr::V6(ip)) if ip.is_unicast_link_local() => link_local(*ip, at.port, |_| true),
        Host::Ip(ip) => vec![SocketAddr::new(*ip, at.port)],
        Host::Zoned(ip, zone) => {
            let is_it = |interface: &if_addrs::Interface| {
                interface.name == zone.as_str()
                    || interface.index.is_some_and(|index| index.to_string() == zone.as_str())
            };
            link_local(*ip, at.port, is_it)
        }
        Host::Name(name) => {
            let looking = tokio::net::lookup_host((name.as_str(), at.port));
            let found = tokio::time::timeout(RESOLVE_TIMEOUT, looking)
                .await
                .map_err(|_| Cause::ResolveSilent { host: at.host.clone() })?;
            let failed = |source| Cause::Resolve { host: at.host.clone(), source };
            found.map_err(failed)?.collect()
        }
    };
    if found.is_empty() {
        return Err(Cause::Resolve { host: at.host.clone(), source: io::ErrorKind::NotFound.into() });
    }
    Ok(found.into_iter().take(MAX_ADDRESSES).collect())
}

/// The address behind each interface that has a link-local one itself.
fn link_local(ip: Ipv6Addr, port: u16, is_meant: impl Fn(&if_addrs::Interface) -> bool) -> Vec<SocketAddr> {
    let is_linked = |interface: &if_addrs::Interface| matches!(interface.ip(), IpAddr::V6(own) if own.is_unicast_link_local());
    let mut zones: Vec<u32> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .filter(|interface| interface.is_oper_up() && is_linked(interface) && is_meant(interface))
        .filter_map(|interface| interface.index)
        .collect();
    zones.dedup();
    zones.into_iter().map(|zone| SocketAddrV6::new(ip, port, 0, zone).into()).collect()
}

/// Longer than the resolvers of common systems take to try a second name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(at: &str) -> Result<Vec<SocketAddr>, Cause> {
        resolve(&at.parse().unwrap()).await
    }

    #[tokio::test]
    async fn an_address_stands_for_itself() {
        assert_eq!(resolved("192.0.2.7:1").await.unwrap(), ["192.0.2.7:1".parse().unwrap()]);
        assert_eq!(resolved("[2001:db8::7]:1").await.unwrap(), ["[2001:db8::7]:1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_leads_nowhere() {
        let refused = resolved("[fe80::1%no-such-if0]:1").await;
        assert!(matches!(refused, Err(Cause::Resolve { .. })), "{refused:?}");
    }
}
