//! How far a sync is.

use std::sync::Arc;

use shiplane_protocols::sync::{Action, Change, Side, SyncEvent, SyncEventFn, SyncReport, Why};
use shiplane_protocols::transfer::TransferEvent;

use crate::events::{Event, Phase};
use crate::job::{Job, Tally};
use crate::progress::{Audience, Progress};

/// Adds up both directions.
#[derive(Debug)]
pub(super) struct SyncTally {
    phase: Phase,
    /// Directions that are not listed whole yet: until then there is no total.
    unlisted: usize,
    listed_bytes: u64,
    moved_bytes: u64,
    /// What is verified and written, on either side.
    kept_bytes: u64,
    /// Of what is done: was there before, on this side and on the other.
    present_bytes: [u64; 2],
    files: u64,
}

impl Job<SyncTally> {
    pub(super) fn events(self: &Arc<Self>) -> SyncEventFn {
        let job = Arc::clone(self);
        Arc::new(move |event| job.on_event(&event))
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
        if dry_run || self.audience() == Audience::Program {
            report.actions.iter().for_each(|action| self.tell(&told(action)));
        }
        self.tell(&Event::Synced {
            files: report.files,
            actions: report.actions.len() as u64,
            left: report.left.len() as u64,
            bytes_sent: report.sent_bytes,
            bytes_received: report.received_bytes,
            bytes_wire: report.wire_bytes,
            dry_run,
            root: report.root.to_string(),
            seconds: self.seconds(),
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
            SyncEvent::Receiving(event) => self.update(|tally| tally.add(event, 0)),
            SyncEvent::Sending(event) => self.update(|tally| tally.add(event, 1)),
        }
    }
}

impl SyncTally {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Connecting,
            unlisted: 2,
            listed_bytes: 0,
            moved_bytes: 0,
            kept_bytes: 0,
            present_bytes: [0; 2],
            files: 0,
        }
    }

    fn add(&mut self, event: &TransferEvent, side: usize) {
        match *event {
            TransferEvent::ScanComplete { total_bytes, .. } => {
                self.unlisted = self.unlisted.saturating_sub(1);
                self.listed_bytes += total_bytes;
            }
            TransferEvent::Present { identical_bytes, resumed_bytes } => {
                self.present_bytes[side] = identical_bytes.saturating_add(resumed_bytes);
            }
            TransferEvent::Moved { len_bytes } => self.moved_bytes += len_bytes,
            TransferEvent::Kept { len_bytes } => self.kept_bytes += len_bytes,
            TransferEvent::Published { files } => self.files += files,
            TransferEvent::Scanned { .. }
            | TransferEvent::Skipped { .. }
            | TransferEvent::Failed { .. }
            | TransferEvent::Finishing => {}
        }
    }
}

impl Tally for SyncTally {
    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    fn progress(&self) -> Progress {
        let present_bytes = self.present_bytes.iter().sum();
        let done = self.kept_bytes.saturating_add(present_bytes);
        let total = (self.unlisted == 0).then_some(self.listed_bytes);
        Progress {
            phase: self.phase,
            files: self.files,
            bytes_done: total.map_or(done, |total| done.min(total)),
            bytes_resumed: present_bytes,
            bytes_moved: self.moved_bytes,
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
    use std::io;

    use super::*;

    #[test]
    fn there_is_a_total_once_both_directions_are_listed() {
        let job = Job::begin(Audience::Nobody, io::sink(), SyncTally::new());
        let events = job.events();
        let listed = |total_bytes| TransferEvent::ScanComplete { entries: 1, total_bytes };
        events(SyncEvent::Sending(listed(10)));
        events(SyncEvent::Receiving(TransferEvent::Moved { len_bytes: 4 }));
        assert_eq!(job.read(Tally::progress).bytes_total, None);
        events(SyncEvent::Receiving(listed(5)));
        events(SyncEvent::Sending(TransferEvent::Moved { len_bytes: 50 }));
        let progress = job.read(Tally::progress);
        assert_eq!((progress.bytes_done, progress.bytes_moved), (0, 54), "nothing of it is verified yet");
        events(SyncEvent::Sending(TransferEvent::Kept { len_bytes: 50 }));
        let progress = job.read(Tally::progress);
        assert_eq!((progress.bytes_done, progress.bytes_total), (15, Some(15)));
        events(SyncEvent::Settling);
        assert_eq!(job.read(Tally::progress).phase, Phase::Settling);
    }
    #[test]
    fn what_was_there_is_added_up_over_both_directions() {
        let job = Job::begin(Audience::Nobody, io::sink(), SyncTally::new());
        let events = job.events();
        let present = |resumed_bytes| TransferEvent::Present { identical_bytes: 0, resumed_bytes };
        events(SyncEvent::Sending(present(10)));
        events(SyncEvent::Receiving(present(3)));
        events(SyncEvent::Receiving(present(5)));
        assert_eq!(job.read(Tally::progress).bytes_resumed, 15);
    }
}
