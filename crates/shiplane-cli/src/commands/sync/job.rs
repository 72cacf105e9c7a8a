//! How far a sync is, for whoever watches it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shiplane_protocols::sync::{Action, Change, Side, SyncEvent, SyncEventFn, SyncReport, Why};
use shiplane_protocols::transfer::TransferEvent;

use crate::events::{Event, Phase};
use crate::progress::{Audience, Progress, Reporter, seconds};

/// What the threads of one run share.
pub(super) struct Job {
    began_at: Instant,
    audience: Audience,
    shown: Mutex<Shown>,
}

/// Under one lock, so that what is shown never goes backwards.
struct Shown {
    reporter: Reporter<io::Stdout>,
    tally: Tally,
}

/// Adds up both directions.
#[derive(Debug)]
struct Tally {
    phase: Phase,
    /// Directions that are not listed whole yet: until then there is no total.
    unlisted: usize,
    listed_bytes: u64,
    moved_bytes: u64,
    /// Of what is done: was there before.
    present_bytes: u64,
    files: u64,
}

impl Job {
    pub(super) fn new(audience: Audience) -> Self {
        let began_at = Instant::now();
        let reporter = Reporter::new(audience, io::stdout(), began_at);
        Self { began_at, audience, shown: Mutex::new(Shown { reporter, tally: Tally::new() }) }
    }

    pub(super) fn tell(&self, event: &Event) {
        self.shown().reporter.event(event);
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.update(|tally| tally.phase = phase);
    }

    pub(super) fn events(self: &Arc<Self>) -> SyncEventFn {
        let job = Arc::clone(self);
        Arc::new(move |event| job.on_event(&event))
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

    /// All is done that could be; after a dry run, all is known that is to be.
    pub(super) fn done(&self, report: &SyncReport, dry_run: bool) {
        for (reason, path) in &report.skipped {
            self.tell(&Event::Skipped { path: path.clone(), reason: reason.to_string() });
        }
        for left in &report.left {
            let (side, path) = (name(left.side), left.path.to_string());
            self.tell(&Event::Left { side, path, reason: left.why.to_string() });
        }
        // A person who lets it happen need not read it all.
        if dry_run || self.audience == Audience::Program {
            report.actions.iter().for_each(|action| self.tell(&told(action)));
        }
        self.tell(&Event::Synced {
            files: report.files,
            actions: report.actions.len() as u64,
            left: report.left.len() as u64,
            bytes_sent: report.sent_bytes,
            bytes_received: report.received_bytes,
            dry_run,
            root: report.root.to_string(),
            seconds: seconds(self.began_at.elapsed()),
        });
    }

    fn on_event(&self, event: &SyncEvent) {
        match event {
            SyncEvent::Waiting => self.phase(Phase::Waiting),
            SyncEvent::Scanning => self.phase(Phase::Scanning),
            SyncEvent::Comparing => self.phase(Phase::Comparing),
            SyncEvent::Settling => self.phase(Phase::Settling),
            SyncEvent::Planned(actions) => self.update(|tally| {
                tally.phase = Phase::Syncing;
                let takes = |side| {
                    actions
                        .iter()
                        .any(|action| action.side == side && matches!(action.change, Change::Take { .. }))
                };
                tally.unlisted = usize::from(takes(Side::Local)) + usize::from(takes(Side::Remote));
            }),
            SyncEvent::Sending(event) | SyncEvent::Receiving(event) => self.update(|tally| tally.add(event)),
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
    fn new() -> Self {
        let phase = Phase::Connecting;
        Self { phase, unlisted: 2, listed_bytes: 0, moved_bytes: 0, present_bytes: 0, files: 0 }
    }

    fn add(&mut self, event: &TransferEvent) {
        match *event {
            TransferEvent::ScanComplete { total_bytes, .. } => {
                self.unlisted = self.unlisted.saturating_sub(1);
                self.listed_bytes += total_bytes;
            }
            TransferEvent::Present { identical_bytes, resumed_bytes } => {
                self.present_bytes = identical_bytes.saturating_add(resumed_bytes);
            }
            TransferEvent::Moved { len_bytes } => self.moved_bytes += len_bytes,
            TransferEvent::Published { files } => self.files += files,
            TransferEvent::Scanned { .. }
            | TransferEvent::Skipped { .. }
            | TransferEvent::Failed { .. }
            | TransferEvent::Finishing => {}
        }
    }

    fn progress(&self) -> Progress {
        // A chunk that came wrong moves again; there is never more than all.
        let done = self.moved_bytes.saturating_add(self.present_bytes);
        let total = (self.unlisted == 0).then_some(self.listed_bytes);
        Progress {
            phase: self.phase,
            files: self.files,
            bytes_done: total.map_or(done, |total| done.min(total)),
            bytes_resumed: self.present_bytes,
            bytes_total: total,
        }
    }
}

/// As a person and a program are told of it.
fn told(action: &Action) -> Event {
    let (change, from) = match &action.change {
        Change::KeepAs { from } => ("keep_as", Some(from)),
        Change::RemoveFile => ("remove_file", None),
        Change::RemoveDirectory => ("remove_directory", None),
        Change::CreateDirectory => ("create_directory", None),
        Change::Take { from } => ("take", Some(from).filter(|from| **from != action.path)),
    };
    let why = match action.why {
        Why::Created => "new on the other side",
        Why::Edited => "edited on the other side",
        Why::Deleted => "deleted on the other side",
        Why::EditOutlivesDeletion => "deleted here, edited there",
        Why::BothEdited => "edited on both sides",
        Why::DirectoryInItsPlace => "a directory has its name",
    };
    let why = match (action.why, action.side) {
        (Why::EditOutlivesDeletion, Side::Remote) => "deleted there, edited here",
        _ => why,
    };
    let from = from.map(ToString::to_string);
    Event::Action { side: name(action.side), change, path: action.path.to_string(), from, why }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Local => "here",
        Side::Remote => "there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_total_once_both_directions_are_listed() {
        let job = Arc::new(Job::new(Audience::Nobody));
        let events = job.events();
        let listed = |total_bytes| TransferEvent::ScanComplete { entries: 1, total_bytes };
        events(SyncEvent::Sending(listed(10)));
        events(SyncEvent::Receiving(TransferEvent::Moved { len_bytes: 4 }));
        assert_eq!(job.shown().tally.progress().bytes_total, None);
        events(SyncEvent::Receiving(listed(5)));
        events(SyncEvent::Sending(TransferEvent::Moved { len_bytes: 50 }));
        let progress = job.shown().tally.progress();
        assert_eq!((progress.bytes_done, progress.bytes_total), (15, Some(15)));
        events(SyncEvent::Settling);
        assert_eq!(job.shown().tally.progress().phase, Phase::Settling);
    }
}
