//! Counts the bytes of a transfer, to watch its progress as a whole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::config::TransportConfig;

/// Counts the bytes that the streams of one transfer carry, as they are read or queued. A handle: clones share it.
///
/// A stream that has one waits for its turn as long as it takes: the owner of the meter decides when the transfer
/// makes too little progress, and drops its streams.
#[derive(Debug, Clone, Default)]
pub struct ProgressMeter(Arc<AtomicU64>);

impl ProgressMeter {
    /// All bytes so far.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, len_bytes: usize) {
        self.0.fetch_add(len_bytes as u64, Ordering::Relaxed);
    }
}

/// The same for streams of a transfer that is watched as a whole.
pub(crate) fn watched(config: &TransportConfig) -> TransportConfig {
    TransportConfig { progress_timeout: WATCHED_TIMEOUT, ..config.clone() }
}

/// A day: longer than any transfer's watcher waits, and a timer can hold it.
const WATCHED_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
