//! Counts what a connection carries, and what all connections of its transport do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::close;

/// A connection's traffic. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Traffic {
    connection: quinn::Connection,
    /// How much of it is counted in that of the transport.
    counted: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

/// Bytes, since the connection began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// In datagrams, both ways.
    pub own: u64,
    /// By all connections of the transport that somebody looks at.
    pub all: u64,
    /// Acknowledged by the peer.
    pub acknowledged: u64,
    /// Of these, sent while the path had room for more.
    pub unfilled: u64,
}

impl Traffic {
    pub(crate) fn new(connection: quinn::Connection, all: Arc<AtomicU64>) -> Self {
        Self { connection, counted: Arc::default(), all }
    }

    /// As it is now.
    #[must_use]
    pub fn count(&self) -> TrafficCount {
        let stats = self.connection.stats();
        let own = stats.udp_tx.bytes + stats.udp_rx.bytes;
        let before = self.counted.fetch_max(own, Ordering::Relaxed);
        let more = own.saturating_sub(before);
        let acknowledged = close::acknowledged(&self.connection);
        TrafficCount {
            own,
            all: self.all.fetch_add(more, Ordering::Relaxed) + more,
            acknowledged: acknowledged.bytes,
            unfilled: acknowledged.unfilled_bytes,
        }
    }
}
