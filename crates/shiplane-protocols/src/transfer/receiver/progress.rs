//! Counts a provider's progress.

use std::{num::NonZeroU64, time::Duration};

use shiplane_transport::internals::ProgressMeter;
use tokio::time::Instant;

use super::super::progress::{ENTRY_BYTES, ProgressWatch, Turn};

/// Feeds a [`ProgressWatch`] with what a provider sends.
pub(super) struct Progress {
    watch: ProgressWatch,
    meter: ProgressMeter,
    metered_bytes: u64,
    /// Entries and skipped files that it has sent, and how many it says it has looked at.
    listed: u64,
    scanned_entries: u64,
}

impl Progress {
    pub(super) fn new(meter: ProgressMeter, window: Duration) -> Self {
        let watch = ProgressWatch::new(window, Instant::now());
        Self { watch, meter, metered_bytes: 0, listed: 0, scanned_entries: 0 }
    }

    /// An entry or a skipped file has arrived.
    pub(super) fn listed(&mut self) {
        self.listed += 1;
        self.watch.moved(ENTRY_BYTES, Instant::now());
    }

    /// The provider has said something.
    pub(super) fn heard(&mut self) {
        self.watch.heard(Instant::now());
    }

    /// Something that was asked for is complete.
    pub(super) fn completed(&mut self) {
        self.watch.completed(Instant::now());
    }

    /// The provider has read this many bytes on request.
    pub(super) fn moved(&mut self, bytes: u64) {
        self.watch.moved(bytes, Instant::now());
    }

    /// It works, and says how far it has looked, of which not everything is believed, and how fast it may send.
    pub(super) fn alive(&mut self, scanned_entries: u64, bytes_per_second: u64) {
        self.watch.limit_to(NonZeroU64::new(bytes_per_second));
        let scanned_entries = scanned_entries.min(self.listed + MAX_SCANNED_AHEAD);
        let more = scanned_entries.saturating_sub(self.scanned_entries.max(self.listed));
        self.scanned_entries = self.scanned_entries.max(scanned_entries);
        self.moved(more.saturating_mul(ENTRY_BYTES));
    }

    /// What the transfer's streams have carried so far.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.meter.moved_bytes()
    }

    /// Whether the provider has had enough time. To be asked several times in each window.
    pub(super) fn is_stalled(&mut self, turn: Turn) -> bool {
        let (now, moved_bytes) = (Instant::now(), self.meter.moved_bytes());
        self.watch.moved(moved_bytes - std::mem::replace(&mut self.metered_bytes, moved_bytes), now);
        self.watch.is_stalled(turn, now)
    }
}

/// 2,048: what a provider of ours scans before it sends a batch, and somewhat more.
const MAX_SCANNED_AHEAD: u64 = 2048;
