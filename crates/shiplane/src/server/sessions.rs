//! Who is connected to a server, and what they do.

use std::net::SocketAddr;

use shiplane_protocols::internals::{FileServer, ServedJob, UnderWay, transfer::Limit};
use shiplane_transport::{PeerId, QuicTransport};

use crate::event::{Event, EventKind, Phase};

/// Each peer once, with its running jobs.
pub(super) fn list(files: &FileServer, transport: &QuicTransport) -> Vec<(PeerId, SocketAddr, Vec<Event>)> {
    let under_way = files.under_way();
    let mut sessions: Vec<(PeerId, SocketAddr, Vec<Event>)> = Vec::new();
    for connection in transport.admitted() {
        let (peer, addr) = (connection.peer_id(), connection.remote_addr());
        if !sessions.iter().any(|(known, ..)| *known == peer) {
            let jobs = under_way.iter().filter(|job| job.peer == peer).map(|job| event_of(job)).collect();
            sessions.push((peer, addr, jobs));
        }
    }
    sessions.sort_by_key(|(peer, ..)| *peer);
    sessions
}

/// A job of a peer, as far as it is.
fn event_of(job: &UnderWay) -> Event {
    Event {
        kind: EventKind::Progress,
        phase: match job.job {
            ServedJob::Fetch => Phase::Sending,
            ServedJob::Push => Phase::Receiving,
            ServedJob::Sync => Phase::Syncing,
        },
        path: Some(job.path.clone()),
        files_done: 0,
        bytes_done: job.moved_bytes(),
        bytes_resumed: 0,
        bytes_moved: job.moved_bytes(),
        bytes_total: job.total_bytes(),
        bytes_per_second: job.bytes_per_second(),
        limited_by: job.limited_by().map(Limit::name),
        elapsed: job.began_at.elapsed(),
    }
}
