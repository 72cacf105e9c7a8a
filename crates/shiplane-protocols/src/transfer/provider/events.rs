//! The events of a provider.

use super::{
    super::event::{Awaited, TransferEvent},
    Provider,
};

impl Provider {
    /// Tells what has arrived and what is waited for, as far as that is news.
    pub(super) fn show(&mut self) {
        self.report_moved();
        let is_listing = self.scan.is_some() && self.listed.is_empty();
        let awaited = if !self.lanes.is_empty() {
            Awaited::Chunks
        } else if is_listing || !self.digests.is_empty() || !self.signature_jobs.is_idle() {
            Awaited::OwnDisk
        } else {
            Awaited::PeersDisk
        };
        if self.reported_wait.replace(awaited) != Some(awaited) {
            (self.events)(TransferEvent::Awaits(awaited));
        }
    }

    pub(super) fn report_moved(&mut self) {
        let moved_bytes = self.outlet.arrived_content(&mut self.arrival).max(self.sent_bytes);
        let len_bytes = moved_bytes.saturating_sub(self.reported_bytes);
        if len_bytes > 0 {
            self.reported_bytes = moved_bytes;
            (self.events)(TransferEvent::Moved { len_bytes });
        }
    }

    pub(super) fn report_present(&mut self) {
        if let Some(resumed_bytes) = self.presence.news() {
            (self.events)(TransferEvent::Present { identical_bytes: 0, resumed_bytes });
        }
    }
}
