//! How far a push is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shiplane_protocols::PushReport;
use shiplane_protocols::transfer::{EventFn, TransferEvent};
use shiplane_wire::Promise;

use crate::events::{Event, Phase};
use crate::job::{Job, Tally};
use crate::progress::Progress;

/// Adds up what all the paths of a run come to.
#[derive(Debug)]
pub(super) struct PushTally {
    phase: Phase,
    /// Paths that are not listed whole yet: until then there is no total.
    unlisted: usize,
    listed_bytes: u64,
    sent_bytes: u64,
    /// What the server has verified and written.
    kept_bytes: u64,
    /// As it travelled.
    wire_bytes: u64,
    /// What need not be sent, as far as is known on the way.
    present_bytes: u64,
    /// The same of the paths that are done, by the server's word.
    resumed_bytes: u64,
    files: u64,
    all_durable: bool,
}

impl Job<PushTally> {
    /// For one path.
    pub(super) fn events(self: &Arc<Self>) -> EventFn {
        let (job, present_bytes) = (Arc::clone(self), AtomicU64::new(0));
        Arc::new(move |event| job.on_event(&event, &present_bytes))
    }

    /// One path is done.
    pub(super) fn add(&self, report: &PushReport) {
        self.update(|tally| tally.add(report));
    }

    /// All are.
    pub(super) fn done(&self) {
        let seconds = self.seconds();
        self.tell(&self.read(|tally| Event::Pushed {
            files: tally.files,
            bytes_total: tally.listed_bytes,
            bytes_sent: tally.sent_bytes,
            bytes_wire: tally.wire_bytes,
            bytes_resumed: tally.resumed_bytes,
            durable: tally.all_durable,
            seconds,
        }));
    }

    /// `known_bytes` is what was present of this path when it last said so.
    fn on_event(&self, event: &TransferEvent, known_bytes: &AtomicU64) {
        if let Some(left_out) = Event::left_out(event) {
            return self.tell(&left_out);
        }
        match *event {
            TransferEvent::ScanComplete { total_bytes, .. } => self.update(|tally| {
                tally.unlisted -= 1;
                tally.listed_bytes += total_bytes;
            }),
            TransferEvent::Present { identical_bytes, resumed_bytes } => {
                let present_bytes = identical_bytes.saturating_add(resumed_bytes);
                let more_bytes =
                    present_bytes.saturating_sub(known_bytes.fetch_max(present_bytes, Ordering::Relaxed));
                self.update(|tally| tally.present_bytes += more_bytes);
            }
            TransferEvent::Moved { len_bytes } => self.update(|tally| {
                tally.phase = Phase::Sending;
                tally.sent_bytes += len_bytes;
            }),
            TransferEvent::Kept { len_bytes } => self.update(|tally| tally.kept_bytes += len_bytes),
            TransferEvent::Finishing => self.phase(Phase::Settling),
            TransferEvent::Scanned { .. }
            | TransferEvent::Published { .. }
            | TransferEvent::Skipped { .. }
            | TransferEvent::Failed { .. } => {}
        }
    }
}

impl PushTally {
    pub(super) fn new(paths: usize) -> Self {
        Self {
            phase: Phase::Connecting,
            unlisted: paths,
            listed_bytes: 0,
            sent_bytes: 0,
            kept_bytes: 0,
            wire_bytes: 0,
            present_bytes: 0,
            resumed_bytes: 0,
            files: 0,
            all_durable: true,
        }
    }

    fn add(&mut self, report: &PushReport) {
        self.files += report.published_files + report.identical_files;
        self.wire_bytes += report.wire_bytes;
        self.resumed_bytes += report.total_bytes.saturating_sub(report.sent_bytes);
        self.all_durable &= report.kept == Promise::Durable;
    }
}

impl Tally for PushTally {
    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    fn progress(&self) -> Progress {
        let done = self.kept_bytes.saturating_add(self.present_bytes);
        let total = (self.unlisted == 0).then_some(self.listed_bytes);
        Progress {
            phase: self.phase,
            files: self.files,
            bytes_done: total.map_or(done, |total| done.min(total)),
            bytes_resumed: self.present_bytes,
            bytes_moved: self.sent_bytes,
            bytes_total: total,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::progress::Audience;

    fn job(paths: usize) -> Arc<Job<PushTally>> {
        Job::begin(Audience::Nobody, io::sink(), PushTally::new(paths))
    }

    fn present(resumed_bytes: u64) -> TransferEvent {
        TransferEvent::Present { identical_bytes: 0, resumed_bytes }
    }

    #[test]
    fn there_is_a_total_once_all_is_listed_and_never_more_done_than_that() {
        let job = job(2);
        let events = job.events();
        events(TransferEvent::ScanComplete { entries: 1, total_bytes: 10 });
        events(TransferEvent::Moved { len_bytes: 10 });
        assert_eq!(job.read(Tally::progress).bytes_total, None);
        events(TransferEvent::ScanComplete { entries: 1, total_bytes: 5 });
        events(TransferEvent::Moved { len_bytes: 50 });
        let progress = job.read(Tally::progress);
        assert_eq!(
            (progress.bytes_done, progress.bytes_moved),
            (0, 60),
            "the server has verified nothing yet"
        );
        events(TransferEvent::Kept { len_bytes: 50 });
        let progress = job.read(Tally::progress);
        assert_eq!((progress.bytes_done, progress.bytes_total), (15, Some(15)));
        assert_eq!(progress.phase, Phase::Sending);
    }

    #[test]
    fn what_is_there_already_counts_before_the_end_for_each_path() {
        let job = job(2);
        let (one, two) = (job.events(), job.events());
        for events in [&one, &two] {
            events(TransferEvent::ScanComplete { entries: 1, total_bytes: 100 });
        }
        one(present(30));
        two(present(50));
        one(present(60));
        let progress = job.read(Tally::progress);
        assert_eq!((progress.bytes_done, progress.bytes_resumed), (110, 110));
        one(TransferEvent::Kept { len_bytes: 40 });
        two(TransferEvent::Kept { len_bytes: 50 });
        let progress = job.read(Tally::progress);
        assert_eq!((progress.bytes_done, progress.bytes_total), (200, Some(200)));
    }
}
