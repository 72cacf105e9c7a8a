//! One run of a command, shared by its threads.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shiplane::EventKind;

use crate::events::{Event, Phase};
use crate::failure::Failure;
use crate::progress::{OutputMode, Progress, Reporter, TICK_INTERVAL, seconds};

/// One run of a command.
pub(crate) struct Job {
    began_at: Instant,
    output_mode: OutputMode,
    reporter: Mutex<Reporter<Box<dyn io::Write + Send>>>,
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
        Arc::new(Self { began_at, output_mode, reporter: Mutex::new(reporter) })
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
        self.reporter().progress(Progress::at(phase), Instant::now());
    }

    /// The callback for the library's job.
    pub(crate) fn events(self: &Arc<Self>) -> impl FnMut(&shiplane::Event) + Send + 'static {
        let job = Arc::clone(self);
        move |event| job.on_event(event)
    }

    /// Ends the command with what its work came to. That standard output could not be written is a failure as well;
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

    /// Reports stalls in the bar and the events. Never ends.
    pub(crate) async fn watch_for_silence(&self) -> Infallible {
        let mut interval = tokio::time::interval(TICK_INTERVAL);
        loop {
            interval.tick().await;
            self.reporter().tick(Instant::now());
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
            (EventKind::Deleted(action), _) => self.tell(&Event::action(action)),
            (EventKind::LeftOut(left_out), _) => self.tell(&Event::left_out(left_out)),
            (EventKind::ConnectionLost { why, pause }, _) => {
                self.reporter().progress(event.into(), Instant::now());
                self.tell(&Event::ConnectionLost { message: why.clone(), pause_seconds: seconds(*pause) });
            }
            (EventKind::Route { route, why }, _) => {
                self.tell(&Event::Route { address: route.clone(), message: why.clone() });
            }
            _ => self.reporter().progress(event.into(), Instant::now()),
        }
    }

    fn reporter(&self) -> MutexGuard<'_, Reporter<Box<dyn io::Write + Send>>> {
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
