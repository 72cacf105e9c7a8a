//! Combines the engine's events of a job into [`Event`]s.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use shiplane_protocols::internals::transfer::{Awaited, EventFn, Limit, TransferEvent};
use shiplane_wire::{Entry, EntryKind, escape};

use crate::{
    error::{Cause, Error},
    event::{Action, Event, EventKind, Phase, Side},
    rate::Rate,
    report::Report,
};

/// Called with each event of a job.
pub(crate) type ProgressFn = Box<dyn FnMut(&Event) + Send>;

/// The state of one running job, shared by its threads. One lock for all, so that what is reported never goes
/// backwards.
pub(crate) struct Tracker {
    began_at: Instant,
    state: Mutex<State>,
}

struct State {
    progress: ProgressState,
    rate: Rate,
    left_out: Vec<Action>,
    /// Of the paths and reasons in that list.
    left_out_bytes: usize,
    left_out_count: u64,
    announced: Announced,
    /// Kinds that are not wanted.
    skipped: Vec<&'static str>,
    on_progress: Option<ProgressFn>,
}

/// What has been told, so that an attempt after a lost connection does not tell it again. Hashes of paths and their number
/// are bounded: beyond that, an event may come twice.
#[derive(Default)]
struct Announced {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Announced {
    /// Whether this is its first event, of a file or, by one of the sides, of what is left out.
    fn is_new(&mut self, path: &str, left_out_by: Option<Side>) -> bool {
        let hash = self.hasher.hash_one((path, left_out_by));
        if self.hashes.len() < MAX_ANNOUNCED {
            self.hashes.insert(hash)
        } else {
            !self.hashes.contains(&hash)
        }
    }
}

/// What the parts of a job add up to: the paths of a push, the two directions of a sync.
#[derive(Debug)]
pub(crate) struct ProgressState {
    pub(crate) phase: Phase,
    /// The phase that each attempt begins with.
    first_phase: Phase,
    parts: Vec<Part>,
    pub(crate) moved_bytes: u64,
    pub(crate) files: u64,
    /// What limited it in the last second, and in how many seconds each.
    limited_by: Option<Limit>,
    limits: HashMap<Limit, u32>,
    /// The phases that the first byte and the last one of a part begin, if any.
    phases: Option<(Phase, Phase)>,
}

/// One part of a job, in this attempt.
#[derive(Debug, Clone, Default)]
struct Part {
    /// Its size, once it is listed completely. Until all are, there is no total.
    listed_bytes: Option<u64>,
    /// What is verified and written.
    kept_bytes: u64,
    /// What need not be sent, as far as is known.
    present_bytes: u64,
    /// What earlier attempts of this job have kept: present now.
    carried_bytes: u64,
}

impl ProgressState {
    /// For a job of `parts` parts that begins with `phase`.
    pub(crate) fn new(phase: Phase, parts: usize, phases: Option<(Phase, Phase)>) -> Self {
        let parts = vec![Part::default(); parts];
        Self {
            phase,
            first_phase: phase,
            parts,
            moved_bytes: 0,
            files: 0,
            limited_by: None,
            limits: HashMap::new(),
            phases,
        }
    }

    pub(crate) fn add(&mut self, event: &TransferEvent, part: usize) {
        let Some(part) = self.parts.get_mut(part) else { return };
        match *event {
            TransferEvent::ScanComplete { total_bytes, .. } => part.listed_bytes = Some(total_bytes),
            TransferEvent::Present { identical_bytes, resumed_bytes } => {
                part.present_bytes = identical_bytes.saturating_add(resumed_bytes).max(part.present_bytes);
            }
            TransferEvent::Moved { len_bytes } => {
                self.moved_bytes += len_bytes;
                self.phase = self.phases.map_or(self.phase, |(moving, _)| moving);
            }
            TransferEvent::Kept { len_bytes } => part.kept_bytes += len_bytes,
            TransferEvent::Published { files } => self.files += files,
            TransferEvent::Awaits(awaited) => {
                self.phase = self.phases.map_or(self.phase, |(moving, _)| match (awaited, moving) {
                    (Awaited::Chunks, moving) => moving,
                    (Awaited::PeersDisk, _) => Phase::Comparing,
                    (Awaited::OwnDisk, Phase::Sending) => Phase::Scanning,
                    (Awaited::OwnDisk, _) => Phase::Checking,
                    (Awaited::List, _) => Phase::Listing,
                    (Awaited::Input, _) => Phase::AwaitingInput,
                });
            }
            TransferEvent::LimitedBy(limit) => {
                self.limited_by = Some(limit);
                *self.limits.entry(limit).or_default() += 1;
            }
            TransferEvent::Finishing => self.phase = self.phases.map_or(self.phase, |(_, ending)| ending),
            TransferEvent::Scanned { .. } | TransferEvent::LeftOut { .. } => {}
        }
    }

    /// Nothing is to be moved in this part.
    pub(crate) fn is_empty(&mut self, part: usize) {
        if let Some(part) = self.parts.get_mut(part) {
            part.listed_bytes = Some(0);
        }
    }

    /// What earlier attempts have kept of a part.
    pub(crate) fn carried_bytes(&self, part: usize) -> u64 {
        self.parts.get(part).map_or(0, |part| part.carried_bytes)
    }

    /// A part begins anew.
    fn begin_again(&mut self, part: usize) {
        if let Some(part) = self.parts.get_mut(part) {
            let carried_bytes = part.carried_bytes + part.kept_bytes;
            *part = Part { carried_bytes, present_bytes: carried_bytes, ..Part::default() };
        }
    }

    pub(crate) fn bytes_total(&self) -> Option<u64> {
        self.parts.iter().map(|part| part.listed_bytes).sum()
    }

    /// What was there before the job began.
    pub(crate) fn bytes_resumed(&self) -> u64 {
        self.parts.iter().map(|part| part.present_bytes.saturating_sub(part.carried_bytes)).sum()
    }

    /// The longest first.
    fn limits(&self) -> Vec<(&'static str, Duration)> {
        let seconds =
            |(limit, seconds): (&Limit, &u32)| (limit.name(), Duration::from_secs((*seconds).into()));
        let mut limits: Vec<_> = self.limits.iter().map(seconds).collect();
        limits.sort_unstable_by_key(|(name, seconds)| (Reverse(*seconds), *name));
        limits
    }

    fn bytes_done(&self) -> u64 {
        let done = self.parts.iter().map(|part| part.kept_bytes.saturating_add(part.present_bytes)).sum();
        self.bytes_total().map_or(done, |total| total.min(done))
    }
}

impl Tracker {
    /// `skipped`: the kinds that are not wanted.
    pub(crate) fn new(
        progress: ProgressState,
        skipped: Vec<&'static str>,
        on_progress: Option<ProgressFn>,
    ) -> Arc<Self> {
        let began_at = Instant::now();
        let state = State {
            progress,
            rate: Rate::new(began_at),
            left_out: Vec::new(),
            left_out_bytes: 0,
            left_out_count: 0,
            announced: Announced::default(),
            skipped,
            on_progress,
        };
        let tracker = Arc::new(Self { began_at, state: Mutex::new(state) });
        tracker.update(|_| ());
        tracker
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.update(|progress| progress.phase = phase);
    }

    /// Changes what is added up, and reports it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProgressState)) {
        let mut state = self.state();
        change(&mut state.progress);
        self.emit(&mut state, EventKind::Progress, None);
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&ProgressState) -> R) -> R {
        look(&self.state().progress)
    }

    /// The events of one part of the job; `side` is where the source is.
    pub(crate) fn events(self: &Arc<Self>, part: usize, side: Side) -> EventFn {
        let tracker = Arc::clone(self);
        Arc::new(move |event| tracker.add(&event, part, side))
    }

    pub(crate) fn add(&self, event: &TransferEvent, part: usize, side: Side) {
        match event {
            TransferEvent::LeftOut { path, reason, why, at_source } => {
                let side = if *at_source { side } else { side.other() };
                self.left_out(Action::left_out(side, *reason, path.clone(), why.clone()));
            }
            event => self.update(|progress| progress.add(event, part)),
        }
    }

    /// A file is complete.
    pub(crate) fn file(&self, path: String, len_bytes: u64, is_received: bool, sha256: Option<String>) {
        let mut state = self.state();
        if state.announced.is_new(&path, None) {
            let kind = EventKind::File { len_bytes, is_received, sha256 };
            self.emit(&mut state, kind, Some(path));
        }
    }

    /// The server has this.
    pub(crate) fn listed(&self, entry: &Entry) {
        let what = match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "link",
        };
        let target = entry.target.as_ref().map(|target| escape(target.as_bytes()).to_string());
        let (len_bytes, mode, modified_secs) = (entry.size_bytes, entry.mode, entry.mtime.secs);
        let mut state = self.state();
        if entry.kind == EntryKind::File {
            state.progress.files += 1;
        }
        let kind = EventKind::Listed { what, len_bytes, mode, modified_secs, target };
        self.emit(&mut state, kind, Some(entry.path.to_string()));
    }

    /// The connection is lost, and is dialled again after `pause`.
    pub(crate) fn connection_lost(&self, why: String, pause: Duration) {
        let mut state = self.state();
        state.progress.phase = Phase::Reconnecting;
        state.progress.limited_by = None;
        self.emit(&mut state, EventKind::ConnectionLost { why, pause }, None);
    }

    /// The server is reached by this route, if not by a better one for this reason.
    pub(crate) fn route(&self, route: String, why: Option<String>) {
        self.emit(&mut self.state(), EventKind::Route { route, why }, None);
    }

    /// The parts begin anew, over another connection: what was there counts as present, and what was left out is found
    /// out again.
    pub(crate) fn begin_again(&self, parts: impl IntoIterator<Item = usize>) {
        let mut state = self.state();
        state.left_out.clear();
        state.left_out_bytes = 0;
        state.left_out_count = 0;
        parts.into_iter().for_each(|part| state.progress.begin_again(part));
        state.progress.phase = state.progress.first_phase;
        self.emit(&mut state, EventKind::Progress, None);
    }

    /// A watching sync begins another round: nothing has moved in it yet. What was left out before is not told again, as
    /// long as it stays so.
    pub(crate) fn next_round(&self, progress: ProgressState) {
        let mut state = self.state();
        if state.left_out_count == 0 {
            state.announced = Announced::default();
        }
        state.left_out.clear();
        state.left_out_bytes = 0;
        state.left_out_count = 0;
        state.progress = ProgressState { moved_bytes: state.progress.moved_bytes, ..progress };
        self.emit(&mut state, EventKind::Progress, None);
    }

    /// What a watching sync has done in a round, if it is worth an event.
    pub(crate) fn end_round(&self, report: Report, is_told: bool) {
        let mut state = self.state();
        let (left_out, left_out_count) = (state.left_out.clone(), state.left_out_count);
        let report = Report { left_out, left_out_count, ..report };
        if is_told {
            self.emit(&mut state, EventKind::Synced(Box::new(report)), None);
        }
    }

    /// A side is not watched as a whole.
    pub(crate) fn not_watched(&self, side: Side, why: String, pause: Duration) {
        self.emit(&mut self.state(), EventKind::NotWatched { side, why, pause }, None);
    }

    /// Something is left out.
    pub(crate) fn left_out(&self, left_out: Action) {
        let mut state = self.state();
        if state.skipped.contains(&left_out.change) {
            return;
        }
        state.left_out_count += 1;
        let len_bytes = size_of::<Action>() + left_out.path.len() + left_out.why.len();
        if state.left_out_bytes + len_bytes <= Report::MAX_LEFT_OUT_BYTES {
            state.left_out_bytes += len_bytes;
            state.left_out.push(left_out.clone());
        }
        if state.announced.is_new(&left_out.path, Some(left_out.side)) {
            let path = Some(left_out.path.clone());
            self.emit(&mut state, EventKind::LeftOut(left_out), path);
        }
    }

    /// Something that the source does not have was removed.
    pub(crate) fn deleted(&self, path: String, is_directory: bool) {
        let change = if is_directory { "remove_directory" } else { "remove_file" };
        let (side, why) = (Side::ThisMachine, "not at the source".into());
        let action = Action { side, change, path: path.clone(), from: None, why };
        self.emit(&mut self.state(), EventKind::Deleted(action), Some(path));
    }

    /// This number of further paths is left out, whose names are not known here.
    pub(crate) fn left_out_unnamed(&self, count: u64) {
        self.state().left_out_count += count;
    }

    /// Ends the job with what it has achieved: completes the report by how long it took and what was left out. If there
    /// is any of that, it is an error.
    pub(crate) fn end(&self, report: Report) -> Result<Report, Error> {
        let mut state = self.state();
        let left_out = std::mem::take(&mut state.left_out);
        let left_out_count = state.left_out_count;
        let limited_by = state.progress.limits();
        drop(state);
        let first_at = left_out.first().map_or(Side::ThisMachine, |first| first.side);
        let elapsed = self.began_at.elapsed();
        let report = Report { left_out, left_out_count, elapsed, limited_by, ..report };
        match NonZeroU64::new(left_out_count) {
            None => Ok(report),
            Some(paths) => Err(Error::from(Cause::LeftOut { paths, side: first_at }).with_report(report)),
        }
    }

    /// The same for a job that was to delete something, and has not because something is left out.
    pub(crate) fn end_without_deletion(&self, report: Report) -> Result<Report, Error> {
        let report = self.end(report)?;
        Err(Error::from(Cause::NothingDeleted).with_report(report))
    }

    fn emit(&self, state: &mut State, kind: EventKind, path: Option<String>) {
        let State { progress, rate, on_progress, .. } = state;
        let Some(on_progress) = on_progress else { return };
        let now = Instant::now();
        rate.moved(progress.moved_bytes, now);
        on_progress(&Event {
            kind,
            phase: progress.phase,
            path,
            files_done: progress.files,
            bytes_done: progress.bytes_done(),
            bytes_resumed: progress.bytes_resumed(),
            bytes_moved: progress.moved_bytes,
            bytes_total: progress.bytes_total(),
            bytes_per_second: rate.bytes_per_second(),
            limited_by: progress.limited_by.map(Limit::name),
            elapsed: now.duration_since(self.began_at),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A callback that panics leaves the numbers whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 500,000: 9 MiB of hashes.
const MAX_ANNOUNCED: usize = 500_000;

#[cfg(test)]
mod tests {
    use shiplane_wire::{DigestAlgorithm, LeftOutReason};

    use super::*;
    use crate::error::ErrorKind;

    /// A tracker, and the last event that it has reported.
    fn tracked(progress: ProgressState) -> (Arc<Tracker>, Arc<Mutex<Option<Event>>>) {
        let last = Arc::new(Mutex::new(None));
        let told = Arc::clone(&last);
        let on_progress: ProgressFn = Box::new(move |event| *told.lock().unwrap() = Some(event.clone()));
        (Tracker::new(progress, vec!["links"], Some(on_progress)), last)
    }

    fn listed(total_bytes: u64) -> TransferEvent {
        TransferEvent::ScanComplete { entries: 1, total_bytes }
    }

    fn moved(len_bytes: u64) -> TransferEvent {
        TransferEvent::Moved { len_bytes }
    }

    fn present(resumed_bytes: u64) -> TransferEvent {
        TransferEvent::Present { identical_bytes: 0, resumed_bytes }
    }

    #[test]
    fn a_total_is_known_once_every_part_is_listed_and_never_exceeded() {
        let phases = (Phase::Sending, Phase::Settling);
        let (tracker, last) = tracked(ProgressState::new(Phase::Offering, 2, Some(phases)));
        let last = || last.lock().unwrap().clone().unwrap();
        assert_eq!(last().phase, Phase::Offering);
        tracker.add(&listed(10), 0, Side::ThisMachine);
        tracker.add(&moved(10), 0, Side::ThisMachine);
        assert_eq!((last().bytes_total, last().phase), (None, Phase::Sending));
        tracker.add(&listed(5), 1, Side::ThisMachine);
        tracker.add(&moved(50), 1, Side::ThisMachine);
        assert_eq!((last().bytes_done, last().bytes_moved), (0, 60), "nothing is verified yet");
        tracker.add(&TransferEvent::Kept { len_bytes: 50 }, 0, Side::ThisMachine);
        assert_eq!((last().bytes_done, last().bytes_total), (15, Some(15)));
        for (awaited, phase) in [
            (Awaited::PeersDisk, Phase::Comparing),
            (Awaited::OwnDisk, Phase::Scanning),
            (Awaited::Input, Phase::AwaitingInput),
            (Awaited::Chunks, Phase::Sending),
        ] {
            tracker.add(&TransferEvent::Awaits(awaited), 0, Side::ThisMachine);
            assert_eq!(last().phase, phase);
        }
        tracker.add(&TransferEvent::Finishing, 0, Side::ThisMachine);
        assert_eq!(last().phase, Phase::Settling);
    }

    #[test]
    fn present_bytes_are_added_up_over_the_parts() {
        let (tracker, last) = tracked(ProgressState::new(Phase::Scanning, 2, None));
        for (part, bytes) in [(0, 30), (1, 50), (0, 60), (0, 40)] {
            tracker.add(&present(bytes), part, Side::Peer);
        }
        let event = last.lock().unwrap().clone().unwrap();
        assert_eq!((event.bytes_resumed, event.bytes_done, event.phase), (110, 110, Phase::Scanning));
    }

    #[test]
    fn limits_of_a_job_are_reported_and_added_up() {
        let (tracker, last) = tracked(ProgressState::new(Phase::Receiving, 2, None));
        for (part, limit) in [(0, Limit::SourceDisk), (1, Limit::Path), (0, Limit::Path)] {
            tracker.add(&TransferEvent::LimitedBy(limit), part, Side::Peer);
            assert_eq!(last.lock().unwrap().clone().unwrap().limited_by, Some(limit.name()));
        }
        tracker.connection_lost(String::new(), Duration::ZERO);
        assert_eq!(last.lock().unwrap().clone().unwrap().limited_by, None);
        let report = tracker.end(Report::new(DigestAlgorithm::Blake3)).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(report.limited_by, [("path", seconds(2)), ("source disk", seconds(1))]);
    }

    fn left_out(path: String, reason: LeftOutReason, at_source: bool) -> TransferEvent {
        TransferEvent::LeftOut { path, reason, why: None, at_source }
    }

    /// The report of the error that a job ends with if something was left out.
    fn report(tracker: &Tracker) -> Report {
        let error = tracker.end(Report::new(DigestAlgorithm::Blake3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeftOut);
        error.report().unwrap().clone()
    }

    #[test]
    fn left_out_paths_are_reported_with_their_side_and_end_in_an_error() {
        let (tracker, last) = tracked(ProgressState::new(Phase::Listing, 1, None));
        for (at_source, side) in [(true, Side::Peer), (false, Side::ThisMachine)] {
            tracker.add(&left_out("d/x".to_owned(), LeftOutReason::SpecialFile, at_source), 0, Side::Peer);
            let event = last.lock().unwrap().clone().unwrap();
            assert_eq!(event.path.as_deref(), Some("d/x"));
            let EventKind::LeftOut(action) = event.kind else { panic!("{event:?}") };
            assert_eq!((action.side, action.change), (side, "special"));
        }
        let report = report(&tracker);
        assert_eq!((report.left_out_count, report.left_out.len()), (2, 2));
    }

    #[test]
    fn a_kind_that_is_not_wanted_is_not_left_out() {
        let (tracker, last) = tracked(ProgressState::new(Phase::Listing, 1, None));
        tracker.add(&left_out("x".to_owned(), LeftOutReason::Symlink, true), 0, Side::Peer);
        assert_eq!(last.lock().unwrap().clone().unwrap().kind, EventKind::Progress);
        assert!(tracker.end(Report::new(DigestAlgorithm::Blake3)).is_ok());
    }

    #[test]
    fn a_peer_that_leaves_out_long_paths_without_end_fills_no_memory() {
        let (tracker, last) = tracked(ProgressState::new(Phase::Listing, 1, None));
        for number in 0..1000 {
            let path = format!("{number:04}{}", "\\x01".repeat(4096));
            tracker.add(&left_out(path, LeftOutReason::SpecialFile, true), 0, Side::Peer);
        }
        assert!(last.lock().unwrap().clone().unwrap().path.unwrap().starts_with("0999"), "each is told");
        let report = report(&tracker);
        let held: usize = report.left_out.iter().map(|left_out| left_out.path.len()).sum();
        assert!(report.left_out[0].path.starts_with("0000") && held <= Report::MAX_LEFT_OUT_BYTES, "{held}");
        assert_eq!(report.left_out_count, 1000);
    }
}
