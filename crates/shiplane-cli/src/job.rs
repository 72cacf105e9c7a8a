//! What the threads of one run share: where its events go.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shiplane::{EventKind, LeftOut};

use crate::events::{Event, Phase};
use crate::progress::{Audience, Progress, Reporter, TICK_INTERVAL, seconds};

/// One run of a command.
pub(crate) struct Job {
    began_at: Instant,
    audience: Audience,
    reporter: Mutex<Reporter<Box<dyn io::Write + Send>>>,
}

impl Job {
    /// Begins. Events and digests go to `out`.
    pub(crate) fn begin(audience: Audience, out: impl io::Write + Send + 'static) -> Arc<Self> {
        let began_at = Instant::now();
        let reporter = Reporter::new(audience, Box::new(out) as Box<dyn io::Write + Send>, began_at);
        Arc::new(Self { began_at, audience, reporter: Mutex::new(reporter) })
    }

    pub(crate) fn audience(&self) -> Audience {
        self.audience
    }

    /// Since it began, for an event.
    pub(crate) fn seconds(&self) -> f64 {
        seconds(self.began_at.elapsed())
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.reporter().event(event);
    }

    /// A phase before there is a job of the library.
    pub(crate) fn phase(&self, phase: Phase) {
        self.reporter().progress(Progress::at(phase), Instant::now());
    }

    /// For the library's job: passes on what it reports. `left_out` says what is told of what is not carried over.
    pub(crate) fn events(
        self: &Arc<Self>,
        left_out: fn(&LeftOut) -> Event,
    ) -> impl FnMut(&shiplane::Event) + Send + 'static {
        let job = Arc::clone(self);
        move |event| match &event.kind {
            EventKind::LeftOut(what) => job.tell(&left_out(what)),
            _ => job.on_event(event),
        }
    }

    pub(crate) fn end_bar(&self) {
        self.reporter().end_bar();
    }

    /// Lets the bar and the events say what is being waited for. Never ends.
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
            _ => self.reporter().progress(event.into(), Instant::now()),
        }
    }

    fn reporter(&self) -> MutexGuard<'_, Reporter<Box<dyn io::Write + Send>>> {
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
