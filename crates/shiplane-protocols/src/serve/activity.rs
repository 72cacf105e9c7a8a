//! Lists the running jobs of a server, for the terminal and the status page.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shiplane_transport::PeerId;
use tokio::{sync::watch, time::timeout};

use crate::{
    Direction, lock,
    transfer::{EventFn, Limit, TransferEvent},
};

/// The transfers under way, and what all of them have moved.
#[derive(Debug, Default)]
pub(super) struct Activity {
    jobs: Mutex<Vec<Weak<UnderWay>>>,
    totals: Arc<Totals>,
}

/// What all jobs of a server have in common.
#[derive(Default)]
struct Totals {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    on_failure: OnceLock<FailureFn>,
    /// How many jobs have ended.
    ended: watch::Sender<u64>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.totals.ended.send_modify(|ended| *ended += 1);
    }
}

/// Called when a job has failed, from any thread: it must be quick.
pub type FailureFn = Box<dyn Fn(&UnderWay, &(dyn Error + 'static)) + Send + Sync>;

impl fmt::Debug for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totals").finish_non_exhaustive()
    }
}

/// A transfer or a sync that is under way.
#[derive(Debug)]
pub struct UnderWay {
    /// Whose it is.
    pub peer: PeerId,
    /// What it does.
    pub job: ServedJob,
    /// Where, below what is served. Escaped.
    pub path: String,
    /// When it began.
    pub began_at: Instant,
    rate: Mutex<Rate>,
    moved_bytes: AtomicU64,
    /// `u64::MAX` as long as it is not known.
    total_bytes: AtomicU64,
    limited_by: Mutex<Option<Limit>>,
    totals: Arc<Totals>,
}

/// The rate at the last reading.
#[derive(Debug)]
struct Rate {
    at: Instant,
    moved_bytes: u64,
    bytes_per_second: u64,
}

/// What a peer does with a server's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedJob {
    /// It gets them.
    Fetch,
    /// It puts some there.
    Push,
    /// Both.
    Sync,
}

impl Activity {
    /// Lists a job until the last handle of the result is dropped.
    pub(super) fn begin(&self, peer: PeerId, job: ServedJob, path: String) -> Arc<UnderWay> {
        let (moved_bytes, total_bytes) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let began_at = Instant::now();
        let rate = Mutex::new(Rate { at: began_at, moved_bytes: 0, bytes_per_second: 0 });
        let (limited_by, totals) = (Mutex::default(), Arc::clone(&self.totals));
        let begun =
            UnderWay { peer, job, path, began_at, rate, moved_bytes, total_bytes, limited_by, totals };
        let begun = Arc::new(begun);
        let mut all = lock(&self.jobs);
        all.retain(|job| job.strong_count() > 0);
        all.push(Arc::downgrade(&begun));
        begun
    }

    /// In the order in which they began.
    pub(super) fn list(&self) -> Vec<Arc<UnderWay>> {
        lock(&self.jobs).iter().filter_map(Weak::upgrade).collect()
    }

    /// Payload bytes that all jobs have moved: sent, and received.
    pub(super) fn moved_bytes(&self) -> [u64; 2] {
        [&self.totals.sent_bytes, &self.totals.received_bytes].map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// Waits until a job has ended and, for a while after that, no other has begun or ended. Cancel-safe: it then counts from
    /// the next one on.
    pub(super) async fn rested(&self) {
        let mut ended = self.totals.ended.subscribe();
        loop {
            // The sender is here.
            let _ = ended.changed().await;
            while timeout(REST, ended.changed()).await.is_ok() {}
            if self.list().is_empty() {
                return;
            }
        }
    }

    /// Only the first call counts.
    pub(super) fn on_failure(&self, call: FailureFn) {
        let _ = self.totals.on_failure.set(call);
    }
}

impl UnderWay {
    /// Payload bytes that have moved.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// The size of all of it, once that is known; what the receiver has already included.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        Some(self.total_bytes.load(Ordering::Relaxed)).filter(|total| *total != u64::MAX)
    }

    /// What limited it in the last second.
    #[must_use]
    pub fn limited_by(&self) -> Option<Limit> {
        *lock(&self.limited_by)
    }

    /// The rate since the last reading, or the last rate if that was just now.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        let moved_bytes = self.moved_bytes();
        let mut rate = lock(&self.rate);
        let elapsed = rate.at.elapsed();
        if elapsed >= MIN_RATE_INTERVAL {
            let bytes = moved_bytes.saturating_sub(rate.moved_bytes);
            let bytes_per_second = (bytes as f64 / elapsed.as_secs_f64()).round() as u64;
            *rate = Rate { at: Instant::now(), moved_bytes, bytes_per_second };
        }
        rate.bytes_per_second
    }

    /// It has failed.
    pub(super) fn failed(&self, error: &(dyn Error + 'static)) {
        if let Some(call) = self.totals.on_failure.get() {
            call(self, error);
        }
    }

    /// Counts what a transfer of this job does. What cannot be written is logged with the cause, which the peer is not told:
    /// [`MAX_LOGGED`] lines, since it is the peer that says what there is.
    pub(super) fn events(self: &Arc<Self>, direction: Direction) -> EventFn {
        let (job, logged) = (Arc::clone(self), AtomicU64::new(0));
        Arc::new(move |event| match event {
            TransferEvent::Moved { len_bytes } => {
                job.moved_bytes.fetch_add(len_bytes, Ordering::Relaxed);
                let all = match direction {
                    Direction::Sent => &job.totals.sent_bytes,
                    Direction::Received => &job.totals.received_bytes,
                };
                all.fetch_add(len_bytes, Ordering::Relaxed);
            }
            // A sync has two transfers, and no total.
            TransferEvent::ScanComplete { total_bytes, .. } if job.job != ServedJob::Sync => {
                job.total_bytes.store(total_bytes, Ordering::Relaxed);
            }
            TransferEvent::LimitedBy(limit) => {
                *lock(&job.limited_by) = Some(limit);
            }
            // What this side leaves out.
            TransferEvent::LeftOut { path, why: Some(why), at_source, .. }
                if at_source == (direction == Direction::Sent)
                    && logged.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED =>
            {
                tracing::warn!(%path, %why, "left out");
            }
            _ => {}
        })
    }
}

/// 16: enough to find the cause.
const MAX_LOGGED: u64 = 16;

/// 10 s: a peer that has more to do has begun by then.
const REST: Duration = Duration::from_secs(10);

/// 900 ms: over less, a rate shows bursts; those who look once a second see a new one each time, however many they are.
const MIN_RATE_INTERVAL: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_has_rested_some_time_after_the_last_job() {
        let (activity, peer) = (Activity::default(), PeerId::from_bytes([7; 32]));
        let begin = || activity.begin(peer, ServedJob::Fetch, String::new());
        let began_at = tokio::time::Instant::now();
        let pass = async |time| drop(timeout(time, std::future::pending::<()>()).await);
        let work = async {
            let long = begin();
            for _ in 0..5 {
                let short = begin();
                pass(REST / 2).await;
                drop(short);
            }
            pass(REST * 2).await;
            drop(long);
        };
        tokio::join!(activity.rested(), work);
        assert_eq!(began_at.elapsed(), REST / 2 * 5 + REST * 2 + REST);
        let none = timeout(REST * 10, activity.rested()).await;
        assert!(none.is_err(), "who does nothing need not rest");
    }

    #[test]
    fn a_job_is_listed_while_it_runs_and_counted() {
        let (activity, peer) = (Activity::default(), PeerId::from_bytes([7; 32]));
        let fetch = activity.begin(peer, ServedJob::Fetch, "a".to_owned());
        let sync = activity.begin(peer, ServedJob::Sync, "b".to_owned());
        for job in [&fetch, &sync] {
            let [events, others] = [Direction::Sent, Direction::Received].map(|way| job.events(way));
            events(TransferEvent::Moved { len_bytes: 3 });
            others(TransferEvent::Moved { len_bytes: 4 });
            events(TransferEvent::ScanComplete { entries: 1, total_bytes: 10 });
            events(TransferEvent::LimitedBy(Limit::Path));
            assert_eq!(job.limited_by(), Some(Limit::Path));
            assert_eq!(job.moved_bytes(), 7);
        }
        assert_eq!((fetch.total_bytes(), sync.total_bytes()), (Some(10), None));
        assert_eq!(activity.moved_bytes(), [6, 8]);
        drop(fetch);
        let paths: Vec<_> = activity.list().iter().map(|job| job.path.clone()).collect();
        assert_eq!(paths, ["b"]);
    }
}
