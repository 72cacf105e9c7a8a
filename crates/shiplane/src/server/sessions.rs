//! The sessions of a server: the connected peers and their jobs.

use std::{net::SocketAddr, sync::Arc};

use shiplane_protocols::internals::{FileServer, ServedJob, UnderWay, transfer::Limit};
use shiplane_transport::{PeerConnection, PeerId, QuicTransport};

use crate::event::{Event, EventKind, Phase};

/// A connection of each peer.
pub(super) fn connected(transport: &QuicTransport) -> Vec<Arc<PeerConnection>> {
    let mut connections = transport.admitted();
    connections.sort_by_key(|connection| connection.peer_id());
    connections.dedup_by_key(|connection| connection.peer_id());
    connections
}

/// Each peer once, with its running jobs.
pub(super) fn list(files: &FileServer, transport: &QuicTransport) -> Vec<(PeerId, SocketAddr, Vec<Event>)> {
    let under_way = files.under_way();
    let session = |connection: &Arc<PeerConnection>| {
        let peer = connection.peer_id();
        let jobs = under_way.iter().filter(|job| job.peer == peer).map(|job| event_of(job)).collect();
        (peer, connection.remote_addr(), jobs)
    };
    connected(transport).iter().map(session).collect()
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
