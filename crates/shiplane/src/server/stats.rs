//! What a server has transferred.

use std::{fmt, time::Duration};

use shiplane_protocols::MetricsSnapshot;

/// Counters of a server since it was bound. Its text form is a report of several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Since the server was bound.
    pub uptime: Duration,
    /// Transfers to peers that succeeded.
    pub sent_transfers: u64,
    /// Transfers to peers that failed.
    pub sent_failures: u64,
    /// Payload bytes of the former.
    pub sent_bytes: u64,
    /// Transfers from peers that succeeded.
    pub received_transfers: u64,
    /// Transfers from peers that failed.
    pub received_failures: u64,
    /// Payload bytes of the former.
    pub received_bytes: u64,
    text: String,
}

impl Stats {
    pub(super) fn of(all: &MetricsSnapshot) -> Self {
        Self {
            text: all.to_string(),
            uptime: all.uptime,
            sent_transfers: all.sent.completed,
            sent_failures: all.sent.failed,
            sent_bytes: all.sent.bytes,
            received_transfers: all.received.completed,
            received_failures: all.received.failed,
            received_bytes: all.received.bytes,
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}
