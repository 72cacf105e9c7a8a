//! One run of a command, shared by its threads.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shiplane::{EventKind, Report};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::doctor::Prediction;
use crate::events::{Event, Phase, seconds, side_name};
use crate::failure::Failure;
use crate::logging::print_line;
use crate::progress::{Progress, Reporter, TICK_INTERVAL};
use crate::settings::OutputMode;

/// One run of a command.
pub(crate) struct Job {
    began_at: Instant,
    output_mode: OutputMode,
    reporter: Mutex<Reporter<Box<dyn io::Write + Send>>>,
    /// Something happens again.
    progressed: Notify,
}

impl Job {
    /// Starts. Events and digests go to `out`.
    pub(crate) fn begin(
        output_mode: OutputMode,
        out: impl io::Write + io::IsTerminal + Send + 'static,
    ) -> Arc<Self> {
        let began_at = Instant::now();
        let (is_terminal, out) = (out.is_terminal(), Box::new(out) as Box<dyn io::Write + Send>);
        let reporter = Reporter::new(output_mode, out, is_terminal, began_at);
        Arc::new(Self { began_at, output_mode, reporter: Mutex::new(reporter), progressed: Notify::new() })
    }

    pub(crate) fn output_mode(&self) -> OutputMode {
        self.output_mode
    }

    /// Seconds since the start, for an event.
    pub(crate) fn seconds(&self) -> f64 {
        seconds(self.began_at.elapsed())
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.reporter().event(event);
    }

    /// Reports a phase before the library's job starts.
    pub(crate) fn phase(&self, phase: Phase) {
        self.progress(Progress::at(phase));
    }

    /// The callback for the library's job.
    pub(crate) fn events(self: &Arc<Self>) -> impl FnMut(&shiplane::Event) + Send + 'static {
        let job = Arc::clone(self);
        move |event| job.on_event(event)
    }

    /// Reports what a sync has done, or would do in a dry run. Otherwise, a terminal shows only conflicts.
    pub(crate) fn tell_actions(&self, report: &Report, dry_run: bool) {
        if dry_run || self.output_mode == OutputMode::Json {
            report.actions.iter().for_each(|action| self.tell(&Event::action(action)));
        }
        if !dry_run && self.output_mode == OutputMode::Human {
            name_conflicts(report);
        }
    }

    /// Compares the rate of a run with the predicted one, if there is one.
    pub(crate) fn explain(&self, prediction: Option<&Prediction>, report: &Report) {
        let Report { bytes_received, bytes_sent, elapsed, .. } = report;
        let compare = |predicted: &Prediction| {
            let explained = predicted.compare(*bytes_received, *bytes_sent, elapsed.as_secs_f64());
            explained.map(|explained| Event::explained(&explained))
        };
        if let Some(event) = prediction.and_then(compare) {
            self.tell(&event);
        }
    }

    /// Ends the command with the result of its work. That standard output could not be written is a failure as well;
    /// of two failures, the one that counts more.
    pub(crate) fn end(&self, ended: Result<(), Failure>) -> Result<(), Failure> {
        match (ended, self.reporter().take_output_error().map(Failure::Stdout)) {
            (ended, None) => ended,
            (Ok(()), Some(unwritten)) => Err(unwritten),
            (Err(failure), Some(unwritten)) => Err(failure.or_worse(unwritten)),
        }
    }

    pub(crate) fn end_bar(&self) {
        self.reporter().end_bar();
    }

    /// Reports stalls in the bar and the events. Never ends. Sleeps while nothing is to be expected.
    pub(crate) async fn watch_for_silence(&self) -> Infallible {
        let mut interval = tokio::time::interval(TICK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.reporter().is_idle() {
                self.progressed.notified().await;
                continue;
            }
            interval.tick().await;
            self.reporter().tick(Instant::now());
        }
    }

    fn progress(&self, progress: Progress) {
        let mut reporter = self.reporter();
        let was_idle = reporter.is_idle();
        reporter.progress(progress, Instant::now());
        if was_idle {
            self.progressed.notify_one();
        }
    }

    fn on_event(&self, event: &shiplane::Event) {
        match (&event.kind, &event.path) {
            (EventKind::File { len_bytes, is_received, sha256 }, Some(path)) => self.tell(&Event::File {
                path: path.clone(),
                bytes: *len_bytes,
                received: *is_received,
                sha256: sha256.clone(),
            }),
            (EventKind::Synced(report), _) => {
                self.tell_actions(report, false);
                self.tell(&Event::round(report));
            }
            (EventKind::NotWatched { side, why, pause }, _) => self.tell(&Event::NotWatched {
                side: side_name(*side),
                message: why.clone(),
                scan_seconds: seconds(*pause),
            }),
            (EventKind::Deleted(action), _) => self.tell(&Event::action(action)),
            (EventKind::LeftOut(left_out), _) => self.tell(&Event::left_out(left_out)),
            (EventKind::ConnectionLost { why, pause }, _) => {
                self.progress(event.into());
                self.tell(&Event::ConnectionLost { message: why.clone(), pause_seconds: seconds(*pause) });
            }
            (EventKind::Route { route, why }, _) => {
                self.tell(&Event::Route { address: route.clone(), message: why.clone() });
            }
            _ => self.progress(event.into()),
        }
    }

    fn reporter(&self) -> MutexGuard<'_, Reporter<Box<dyn io::Write + Send>>> {
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names the files that both sides had changed: one version has the name now, the other one is kept beside it.
fn name_conflicts(report: &Report) {
    let mut conflicts: Vec<(&str, &str)> = (report.actions.iter())
        .filter(|action| action.change == "keep_as")
        .filter_map(|action| Some((action.from.as_deref()?, action.path.as_str())))
        .collect();
    // Both sides may keep one, as the same copy.
    conflicts.sort_unstable();
    conflicts.dedup();
    for (path, copy) in conflicts.iter().take(MAX_CONFLICTS) {
        print_line(&format!("conflict: {path} was changed on both sides; the other version is {copy}"));
    }
    if let Some(more) = conflicts.len().checked_sub(MAX_CONFLICTS).filter(|more| *more > 0) {
        print_line(&format!("conflict: {more} more; --json names them all"));
    }
}

/// What a person reads.
const MAX_CONFLICTS: usize = 50;
