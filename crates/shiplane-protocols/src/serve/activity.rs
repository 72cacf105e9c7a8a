//! What a server is doing, for those who watch it.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shiplane_transport::PeerId;

use crate::transfer::{EventFn, Limit, TransferEvent, server_events};

/// The transfers under way.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Vec<Weak<UnderWay>>>);

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
}

/// The rate when somebody last looked.
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
    /// Lists a job for as long as somebody holds what this gives.
    pub(super) fn begin(&self, peer: PeerId, job: ServedJob, path: String) -> Arc<UnderWay> {
        let (moved_bytes, total_bytes) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let began_at = Instant::now();
        let rate = Mutex::new(Rate { at: began_at, moved_bytes: 0, bytes_per_second: 0 });
        let limited_by = Mutex::default();
        let begun = UnderWay { peer, job, path, began_at, rate, moved_bytes, total_bytes, limited_by };
        let begun = Arc::new(begun);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|job| job.strong_count() > 0);
        all.push(Arc::downgrade(&begun));
        begun
    }

    /// In the order in which they began.
    pub(super) fn list(&self) -> Vec<Arc<UnderWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
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
        *self.limited_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rate since somebody last asked, unless that was just now.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        let moved_bytes = self.moved_bytes();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = rate.at.elapsed();
        if elapsed >= MIN_RATE_INTERVAL {
            let bytes = moved_bytes.saturating_sub(rate.moved_bytes);
            let bytes_per_second = (bytes as f64 / elapsed.as_secs_f64()).round() as u64;
            *rate = Rate { at: Instant::now(), moved_bytes, bytes_per_second };
        }
        rate.bytes_per_second
    }

    /// Counts what a transfer of this job does, and logs what a server logs.
    pub(super) fn events(self: &Arc<Self>) -> EventFn {
        let (job, log) = (Arc::clone(self), server_events());
        Arc::new(move |event| {
            match event {
                TransferEvent::Moved { len_bytes } => {
                    job.moved_bytes.fetch_add(len_bytes, Ordering::Relaxed);
                }
                // A sync has two transfers, and no total.
                TransferEvent::ScanComplete { total_bytes, .. } if job.job != ServedJob::Sync => {
                    job.total_bytes.store(total_bytes, Ordering::Relaxed);
                }
                TransferEvent::LimitedBy(limit) => {
                    *job.limited_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit);
                }
                _ => {}
            }
            log(event);
        })
    }
}

/// 200 ms: over less, a rate shows bursts.
const MIN_RATE_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_listed_while_it_runs_and_counted() {
        let (activity, peer) = (Activity::default(), PeerId::from_bytes([7; 32]));
        let fetch = activity.begin(peer, ServedJob::Fetch, "a".to_owned());
        let sync = activity.begin(peer, ServedJob::Sync, "b".to_owned());
        for job in [&fetch, &sync] {
            let events = job.events();
            events(TransferEvent::Moved { len_bytes: 3 });
            events(TransferEvent::Moved { len_bytes: 4 });
            events(TransferEvent::ScanComplete { entries: 1, total_bytes: 10 });
            events(TransferEvent::LimitedBy(Limit::Path));
            assert_eq!(job.limited_by(), Some(Limit::Path));
            assert_eq!(job.moved_bytes(), 7);
        }
        assert_eq!((fetch.total_bytes(), sync.total_bytes()), (Some(10), None));
        drop(fetch);
        let paths: Vec<_> = activity.list().iter().map(|job| job.path.clone()).collect();
        assert_eq!(paths, ["b"]);
    }
}
