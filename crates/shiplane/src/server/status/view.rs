//! What the page shows: who is connected and what moves, as one JSON text.

use std::net::IpAddr;

use serde::Serialize;
use shiplane_protocols::internals::transfer::Limit;
use shiplane_transport::{PeerConnection, PeerId};

use super::meters::{Failure, Meters, memory, verb};
use crate::server::{Server, sessions::connected};

/// A server at one moment. Its names are read by `page.js`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    peer_id: String,
    address: String,
    uptime_seconds: u64,
    is_draining: bool,
    shows_names: bool,
    moved: Directions,
    completed: Directions,
    failures_total: u64,
    peers_total: usize,
    peers: Vec<Peer>,
    failures: Vec<Failed>,
    memory: Vec<Budget>,
}

#[derive(Debug, Serialize)]
struct Directions {
    sent: u64,
    received: u64,
}

/// Who is connected, by which route, and what it does.
#[derive(Debug, Serialize)]
struct Peer {
    id: String,
    name: Option<String>,
    address: String,
    route: &'static str,
    rtt_seconds: f64,
    sent_packets: u64,
    lost_packets: u64,
    datagram_bytes: u16,
    jobs: Vec<Job>,
}

#[derive(Debug, Serialize)]
struct Job {
    job: &'static str,
    /// `None`: names are not shown.
    path: Option<String>,
    moved_bytes: u64,
    total_bytes: Option<u64>,
    bytes_per_second: u64,
    limited_by: Option<&'static str>,
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    seconds_ago: u64,
    job: &'static str,
    peer: String,
    name: Option<String>,
    class: &'static str,
    side: String,
    path: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Serialize)]
struct Budget {
    name: &'static str,
    used_bytes: u64,
    limit_bytes: u64,
}

impl Status {
    pub(super) fn of(server: &Server, meters: &Meters, shows_names: bool) -> Self {
        let inner = &server.inner;
        let stats = server.stats();
        let [sent, received] = inner.files.moved_bytes();
        let connections = connected(&inner.transport);
        let peers_total = connections.len();
        let peers = connections.iter().take(MAX_PEERS);
        let peers = peers.map(|connection| Peer::of(server, connection, shows_names)).collect();
        let failures =
            meters.failures().into_iter().map(|failure| Failed::of(failure, shows_names)).collect();
        let budget = |(name, used_bytes, limit_bytes)| Budget { name, used_bytes, limit_bytes };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            peer_id: server.id().to_string(),
            address: server.address(),
            uptime_seconds: stats.uptime.as_secs(),
            is_draining: inner.stop.is_cancelled(),
            shows_names,
            moved: Directions { sent, received },
            completed: Directions { sent: stats.sent_transfers, received: stats.received_transfers },
            failures_total: stats.sent_failures + stats.received_failures,
            peers_total,
            peers,
            failures,
            memory: memory(server).into_iter().map(budget).collect(),
        }
    }
}

impl Peer {
    fn of(server: &Server, connection: &PeerConnection, shows_names: bool) -> Self {
        let (peer, address, path) = (connection.peer_id(), connection.remote_addr(), connection.stats().path);
        Self {
            id: peer.short(),
            name: server.inner.access.name_of(&peer),
            address: address.to_string(),
            route: route(address.ip()),
            rtt_seconds: path.rtt.as_secs_f64(),
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            datagram_bytes: path.datagram_len_bytes,
            jobs: jobs(server, peer, shows_names),
        }
    }
}

fn jobs(server: &Server, peer: PeerId, shows_names: bool) -> Vec<Job> {
    let under_way = server.inner.files.under_way();
    let of_peer = under_way.iter().filter(|job| job.peer == peer).take(MAX_JOBS);
    let job = of_peer.map(|job| Job {
        job: verb(job.job),
        path: shows_names.then(|| job.path.chars().take(MAX_PATH_CHARS).collect()),
        moved_bytes: job.moved_bytes(),
        total_bytes: job.total_bytes(),
        bytes_per_second: job.bytes_per_second(),
        limited_by: job.limited_by().map(Limit::name),
        seconds: job.began_at.elapsed().as_secs(),
    });
    job.collect()
}

impl Failed {
    fn of(failure: Failure, shows_names: bool) -> Self {
        let seconds_ago = failure.at.elapsed().as_secs();
        let Failure { job, peer, name, class, side, path, message, .. } = failure;
        let (path, message) = if shows_names { (Some(path), Some(message)) } else { (None, None) };
        Self { seconds_ago, job, peer: peer.short(), name, class, side: side.to_string(), path, message }
    }
}

/// 100 peers: more than a person reads; the page says how many there are.
const MAX_PEERS: usize = 100;

/// 32 jobs of a peer.
const MAX_JOBS: usize = 32;

/// 300 characters of a path.
const MAX_PATH_CHARS: usize = 300;

/// Whether an address is one of this machine, of its networks, or of the internet: how a peer is reached.
fn route(ip: IpAddr) -> &'static str {
    let is_local = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    match ip.is_loopback() {
        true => "this machine",
        false if is_local => "local network",
        false => "internet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_named_by_its_address() {
        for (ip, expected) in [
            ("127.0.0.1", "this machine"),
            ("::1", "this machine"),
            ("192.168.1.7", "local network"),
            ("fe80::1", "local network"),
            ("fd00::1", "local network"),
            ("192.0.2.1", "internet"),
            ("2001:db8::1", "internet"),
        ] {
            assert_eq!(route(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
