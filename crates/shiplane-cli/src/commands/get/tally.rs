//! How far a `get` is.

use std::sync::Arc;

use shiplane_protocols::FetchReport;
use shiplane_protocols::transfer::{EventFn, TransferEvent};

use crate::events::{Event, Phase};
use crate::job::{Job, Tally};
use crate::progress::Progress;

/// Adds a transfer's events up to its progress.
#[derive(Debug)]
pub(super) struct GetTally {
    progress: Progress,
    kept_bytes: u64,
}

impl Job<GetTally> {
    pub(super) fn events(self: &Arc<Self>) -> EventFn {
        let job = Arc::clone(self);
        Arc::new(move |event| job.on_event(&event))
    }

    pub(super) fn done(&self, report: &FetchReport) {
        self.tell(&Event::Done {
            files: report.summary.published_files + report.summary.identical_files,
            bytes_total: report.total_bytes,
            bytes_received: report.received_bytes,
            bytes_wire: report.wire_bytes,
            bytes_resumed: report.total_bytes.saturating_sub(report.received_bytes),
            seconds: self.seconds(),
            digest: report.digest.map(|digest| digest.to_string()),
            digest_algorithm: report.digest.map(|_| report.digest_algorithm.into()),
        });
    }

    fn on_event(&self, event: &TransferEvent) {
        match Event::left_out(event) {
            Some(left_out) => self.tell(&left_out),
            None => self.update(|tally| tally.add(event)),
        }
    }
}

impl GetTally {
    pub(super) fn new() -> Self {
        Self { progress: Progress::at(Phase::Connecting), kept_bytes: 0 }
    }

    fn add(&mut self, event: &TransferEvent) {
        let progress = &mut self.progress;
        match *event {
            TransferEvent::ScanComplete { total_bytes, .. } => progress.bytes_total = Some(total_bytes),
            TransferEvent::Present { identical_bytes, resumed_bytes } => {
                progress.bytes_resumed = identical_bytes.saturating_add(resumed_bytes);
            }
            TransferEvent::Moved { len_bytes } => {
                progress.phase = Phase::Receiving;
                progress.bytes_moved += len_bytes;
            }
            TransferEvent::Kept { len_bytes } => self.kept_bytes += len_bytes,
            TransferEvent::Published { files } => progress.files += files,
            TransferEvent::Finishing => progress.phase = Phase::Publishing,
            TransferEvent::Scanned { .. } | TransferEvent::Skipped { .. } | TransferEvent::Failed { .. } => {}
        }
        let done = progress.bytes_resumed.saturating_add(self.kept_bytes);
        progress.bytes_done = progress.bytes_total.map_or(done, |total| done.min(total));
    }
}

impl Tally for GetTally {
    fn set_phase(&mut self, phase: Phase) {
        self.progress.phase = phase;
    }

    fn progress(&self) -> Progress {
        self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_add_up_to_never_more_than_all() {
        let mut tally = GetTally::new();
        tally.set_phase(Phase::Listing);
        let mut add = |event| {
            tally.add(&event);
            tally.progress()
        };
        let moved = |len_bytes| TransferEvent::Moved { len_bytes };
        assert_eq!(add(TransferEvent::Scanned { entries: 1, total_bytes: 9 }), Progress::at(Phase::Listing));
        let (identical_bytes, resumed_bytes) = (10, 20);
        let progress = add(TransferEvent::Present { identical_bytes, resumed_bytes });
        assert_eq!((progress.bytes_done, progress.bytes_resumed, progress.bytes_total), (30, 30, None));
        add(TransferEvent::ScanComplete { entries: 2, total_bytes: 100 });
        let progress = add(moved(60));
        assert_eq!((progress.bytes_done, progress.bytes_moved), (30, 60), "nothing of it is verified yet");
        assert_eq!(progress.phase, Phase::Receiving);
        let kept = |len_bytes| TransferEvent::Kept { len_bytes };
        let progress = add(kept(60));
        assert_eq!((progress.bytes_done, progress.bytes_total), (90, Some(100)));
        assert_eq!(add(kept(60)).bytes_done, 100);
        assert_eq!(add(TransferEvent::Published { files: 2 }).files, 2);
        assert_eq!(add(TransferEvent::Finishing).phase, Phase::Publishing);
    }
}
