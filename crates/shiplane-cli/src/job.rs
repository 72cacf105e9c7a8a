//! What the threads of one run share: who is told of it, and how far it is.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::events::{Event, Phase};
use crate::progress::{Audience, Progress, Reporter, seconds};

/// Adds a run's events up.
pub(crate) trait Tally: Send + 'static {
    /// What is being done now.
    fn set_phase(&mut self, phase: Phase);

    /// How far it is.
    fn progress(&self) -> Progress;
}

/// One run of a command.
pub(crate) struct Job<T> {
    began_at: Instant,
    audience: Audience,
    shown: Mutex<Shown<T>>,
}

/// Under one lock, so that what is shown never goes backwards.
struct Shown<T> {
    reporter: Reporter<Box<dyn io::Write + Send>>,
    tally: T,
}

impl<T: Tally> Job<T> {
    /// Begins. Events and digests go to `out`.
    pub(crate) fn begin(audience: Audience, out: impl io::Write + Send + 'static, tally: T) -> Arc<Self> {
        let began_at = Instant::now();
        let reporter = Reporter::new(audience, Box::new(out) as Box<dyn io::Write + Send>, began_at);
        Arc::new(Self { began_at, audience, shown: Mutex::new(Shown { reporter, tally }) })
    }

    pub(crate) fn audience(&self) -> Audience {
        self.audience
    }

    /// Since it began, for an event.
    pub(crate) fn seconds(&self) -> f64 {
        seconds(self.began_at.elapsed())
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.shown().reporter.event(event);
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.update(|tally| tally.set_phase(phase));
    }

    /// Changes what is added up, and shows it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        let mut shown = self.shown();
        change(&mut shown.tally);
        let progress = shown.tally.progress();
        shown.reporter.progress(progress, Instant::now());
    }

    /// Looks at what is added up.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.shown().tally)
    }

    pub(crate) fn end_bar(&self) {
        self.shown().reporter.end_bar();
    }

    /// Lets the bar say what is being waited for. Never ends.
    pub(crate) async fn watch_for_silence(&self) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        loop {
            interval.tick().await;
            self.shown().reporter.tick(Instant::now());
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown<T>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
