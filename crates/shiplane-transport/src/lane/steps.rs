//! Measures what the chunks of a transfer wait for.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What a chunk does at a moment. It may do two things side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneStep {
    /// Reads from the disk or writes to it, on a thread that may wait for it.
    Disk,
    /// Computes a digest.
    Digest,
    /// Waits for a rate limit.
    Limit,
    /// Waits until the path takes more, or brings something.
    Network,
}

/// How long the chunks of a transfer have spent in each step, together. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct StepClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    steps: Mutex<[StepTime; STEPS]>,
}

/// A step that is under way counts up to the moment that it is looked at.
#[derive(Debug, Clone, Copy, Default)]
struct StepTime {
    under_way: u32,
    spent: Duration,
    /// When `spent` was true.
    at: Duration,
}

impl StepTime {
    fn until(&mut self, now: Duration) -> &mut Self {
        self.spent += now.saturating_sub(self.at) * self.under_way;
        self.at = self.at.max(now);
        self
    }
}

impl StepClock {
    /// Nothing is spent.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared { origin: Instant::now(), steps: Mutex::default() }))
    }

    /// Until now, in the order of [`LaneStep`].
    #[must_use]
    pub fn spent(&self) -> [Duration; STEPS] {
        let now = self.0.origin.elapsed();
        self.steps().each_mut().map(|step| step.until(now).spent)
    }

    fn steps(&self) -> MutexGuard<'_, [StepTime; STEPS]> {
        // Each change is one step.
        self.0.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, step: LaneStep, change: impl FnOnce(&mut u32)) {
        let now = self.0.origin.elapsed();
        if let Some(step) = self.steps().get_mut(step as usize) {
            change(&mut step.until(now).under_way);
        }
    }
}

impl Default for StepClock {
    fn default() -> Self {
        Self::new()
    }
}

/// A step under way, until it is dropped.
pub(super) struct InStep<'a>(Option<(&'a StepClock, LaneStep)>);

impl<'a> InStep<'a> {
    /// Without a clock nothing is measured.
    pub(super) fn begin(clock: Option<&'a StepClock>, step: LaneStep) -> Self {
        if let Some(clock) = clock {
            clock.change(step, |under_way| *under_way += 1);
        }
        #[cfg(feature = "test-support")]
        if step == LaneStep::Digest {
            std::thread::sleep(DIGEST_DELAY.get());
        }
        Self(clock.map(|clock| (clock, step)))
    }
}

impl Drop for InStep<'_> {
    fn drop(&mut self) {
        if let Some((clock, step)) = self.0 {
            clock.change(step, |under_way| *under_way -= 1);
        }
    }
}

/// What the thread that asks has done since it was asked last: worked, or waited for a processor. Both keep what it drives
/// from going on.
#[derive(Debug, Default)]
pub struct ThreadClock(Option<Sample>);

#[derive(Debug)]
struct Sample {
    thread: std::thread::ThreadId,
    at: std::time::Instant,
    busy: Duration,
}

impl ThreadClock {
    /// Of the time since then, this part, 0 to 1. 0 at first, on another thread, and where it is not known.
    pub fn busy_share(&mut self) -> f64 {
        let sample = busy_time().map(|busy| Sample {
            thread: std::thread::current().id(),
            at: std::time::Instant::now(),
            busy,
        });
        let before = std::mem::replace(&mut self.0, sample);
        let (Some(before), Some(now)) = (before, &self.0) else { return 0.0 };
        let elapsed = now.at.duration_since(before.at);
        if before.thread != now.thread || elapsed.is_zero() {
            return 0.0;
        }
        (now.busy.saturating_sub(before.busy).as_secs_f64() / elapsed.as_secs_f64()).min(1.0)
    }
}

/// Of this thread: on a processor, and ready to run without one.
fn busy_time() -> Option<Duration> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut times = times.split_ascii_whitespace().map(str::parse);
    let (Some(Ok(ran)), Some(Ok(waited))) = (times.next(), times.next()) else { return None };
    Some(Duration::from_nanos(ran) + Duration::from_nanos(waited))
}

/// From now on each step of a digest that this thread computes takes so much longer.
#[cfg(feature = "test-support")]
pub fn slow_digests(delay: Duration) {
    DIGEST_DELAY.set(delay);
}

#[cfg(feature = "test-support")]
thread_local! {
    static DIGEST_DELAY: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
}

/// How many steps there are.
const STEPS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_counts_for_each_chunk_while_it_is_under_way() {
        let clock = StepClock::new();
        let network = InStep::begin(Some(&clock), LaneStep::Network);
        tokio::time::advance(Duration::from_secs(2)).await;
        let disk = InStep::begin(Some(&clock), LaneStep::Disk);
        let again = InStep::begin(Some(&clock), LaneStep::Disk);
        tokio::time::advance(Duration::from_secs(3)).await;
        let seconds = |spent: [Duration; 4]| spent.map(|spent| spent.as_secs());
        assert_eq!(seconds(clock.spent()), [6, 0, 0, 5], "while it is under way");
        drop((network, disk, again));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(seconds(clock.clone().spent()), [6, 0, 0, 5]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_computes_is_busy_and_one_that_sleeps_is_not() {
        let mut clock = ThreadClock::default();
        assert_eq!(clock.busy_share().total_cmp(&0.0), std::cmp::Ordering::Equal);
        if clock.0.is_none() {
            return; // This kernel does not say.
        }
        let until = std::time::Instant::now() + Duration::from_millis(200);
        while std::time::Instant::now() < until {
            std::hint::black_box(0_u64.wrapping_mul(3));
        }
        let computed = clock.busy_share();
        std::thread::park_timeout(Duration::from_millis(200));
        let slept = clock.busy_share();
        assert!(computed > 0.5 && slept < computed, "{computed} {slept}");
    }
}
