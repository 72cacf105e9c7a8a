//! How far a run is, for whoever watches it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shiplane_protocols::PushReport;
use shiplane_protocols::transfer::{EventFn, TransferEvent};
use shiplane_wire::Promise;

use crate::events::{Event, Phase};
use crate::progress::{Audience, Progress, Reporter, seconds};

/// What the threads of one run share.
pub(super) struct Job {
    began_at: Instant,
    shown: Mutex<Shown>,
}

/// Under one lock, so that what is shown never goes backwards.
struct Shown {
    reporter: Reporter<io::Stdout>,
    tally: Tally,
}

/// Adds up what all the paths of a run come to.
#[derive(Debug)]
struct Tally {
    phase: Phase,
    /// Paths that are not listed whole yet: until then there is no total.
    unlisted: usize,
    listed_bytes: u64,
    sent_bytes: u64,
    /// As it travelled.
    wire_bytes: u64,
    /// Of what is done: was there before.
    resumed_bytes: u64,
    files: u64,
    all_durable: bool,
}

impl Job {
    pub(super) fn new(audience: Audience, paths: usize) -> Self {
        let began_at = Instant::now();
        let reporter = Reporter::new(audience, io::stdout(), began_at);
        Self { began_at, shown: Mutex::new(Shown { reporter, tally: Tally::new(paths) }) }
    }

    pub(super) fn tell(&self, event: &Event) {
        self.shown().reporter.event(event);
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.update(|tally| tally.phase = phase);
    }

    pub(super) fn events(self: &Arc<Self>) -> EventFn {
        let job = Arc::clone(self);
        Arc::new(move |event| job.on_event(&event))
    }

    /// One path is done.
    pub(super) fn add(&self, report: &PushReport) {
        self.update(|tally| tally.add(report));
    }

    /// All are.
    pub(super) fn done(&self) {
        let mut shown = self.shown();
        let Tally { files, listed_bytes, sent_bytes, wire_bytes, resumed_bytes, all_durable, .. } =
            shown.tally;
        shown.reporter.event(&Event::Pushed {
            files,
            bytes_total: listed_bytes,
            bytes_sent: sent_bytes,
            bytes_wire: wire_bytes,
            bytes_resumed: resumed_bytes,
            durable: all_durable,
            seconds: seconds(self.began_at.elapsed()),
        });
    }

    pub(super) fn end_bar(&self) {
        self.shown().reporter.end_bar();
    }

    /// Lets the bar say what is being waited for. Never ends.
    pub(super) async fn watch_for_silence(&self) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        loop {
            interval.tick().await;
            self.shown().reporter.tick(Instant::now());
        }
    }

    fn on_event(&self, event: &TransferEvent) {
        match event {
            TransferEvent::Skipped { reason, path } => {
                self.tell(&Event::Skipped { path: path.clone(), reason: reason.to_string() });
            }
            TransferEvent::Failed { reason, path } => {
                self.tell(&Event::Skipped { path: path.clone(), reason: reason.to_string() });
            }
            TransferEvent::ScanComplete { total_bytes, .. } => self.update(|tally| {
                tally.unlisted -= 1;
                tally.listed_bytes += total_bytes;
            }),
            TransferEvent::Moved { len_bytes } => self.update(|tally| {
                tally.phase = Phase::Sending;
                tally.sent_bytes += len_bytes;
            }),
            TransferEvent::Finishing => self.phase(Phase::Settling),
            TransferEvent::Scanned { .. }
            | TransferEvent::Present { .. }
            | TransferEvent::Published { .. } => {}
        }
    }

    fn update(&self, change: impl FnOnce(&mut Tally)) {
        let mut shown = self.shown();
        change(&mut shown.tally);
        let progress = shown.tally.progress();
        shown.reporter.progress(progress, Instant::now());
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn new(paths: usize) -> Self {
        Self {
            phase: Phase::Connecting,
            unlisted: paths,
            listed_bytes: 0,
            sent_bytes: 0,
            wire_bytes: 0,
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

    fn progress(&self) -> Progress {
        // A chunk that came wrong moves again; there is never more than all.
        let done = self.sent_bytes.saturating_add(self.resumed_bytes);
        let total = (self.unlisted == 0).then_some(self.listed_bytes);
        Progress {
            phase: self.phase,
            files: self.files,
            bytes_done: total.map_or(done, |total| done.min(total)),
            bytes_resumed: self.resumed_bytes,
            bytes_total: total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_total_once_all_is_listed_and_never_more_done_than_that() {
        let job = Arc::new(Job::new(Audience::Nobody, 2));
        let events = job.events();
        events(TransferEvent::ScanComplete { entries: 1, total_bytes: 10 });
        events(TransferEvent::Moved { len_bytes: 10 });
        assert_eq!(job.shown().tally.progress().bytes_total, None);
        events(TransferEvent::ScanComplete { entries: 1, total_bytes: 5 });
        events(TransferEvent::Moved { len_bytes: 50 });
        let progress = job.shown().tally.progress();
        assert_eq!((progress.bytes_done, progress.bytes_total), (15, Some(15)));
        assert_eq!(progress.phase, Phase::Sending);
    }
}
