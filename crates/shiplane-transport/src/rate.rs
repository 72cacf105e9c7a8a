//! A token bucket that limits the rate, shared and fair.

use std::{
    fmt,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

/// A rate and how much may go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The long-run rate, in bytes a second.
    pub bytes_per_second: NonZeroU64,
    /// What may go at once after a pause. Any window of time `t` carries at most
    /// `bytes_per_second * t + burst_bytes`.
    ///
    /// Timers tick every millisecond: a burst of less than a few milliseconds' worth costs throughput.
    pub burst_bytes: NonZeroU64,
}

impl RateLimit {
    /// A rate with a burst of a tenth of a second: short for a user, long for a timer.
    #[must_use]
    pub fn per_second(bytes_per_second: NonZeroU64) -> Self {
        let burst_bytes = NonZeroU64::new(bytes_per_second.get() / 10).unwrap_or(NonZeroU64::MIN);
        Self { bytes_per_second, burst_bytes }
    }
}

/// Lets bytes pass at a limited rate. Clones share the limit.
///
/// Give it to the [`LaneOptions`](crate::LaneOptions) of all the chunks that share a limit, or
/// [`take`](Self::take) from it by hand. Who asks first is served first, so that a stream of small
/// buffers is not starved by one of large ones. A pause earns one burst and no more.
#[derive(Clone)]
pub struct RateLimiter {
    /// One, but for limits that were put together.
    buckets: Vec<Arc<Shared>>,
    /// How many wait, by this handle and its clones.
    waiting: Arc<AtomicUsize>,
}

struct Shared {
    limit: RateLimit,
    /// Held while waiting for credit: tokio's mutex is first come, first served.
    bucket: Mutex<Bucket>,
}

impl RateLimiter {
    /// A full bucket.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let bucket = Bucket { credit: full(&limit), filled: Instant::now() };
        Self { buckets: vec![Arc::new(Shared { limit, bucket: bucket.into() })], waiting: Arc::default() }
    }

    /// Both limits at once: what passes is debited from each, and from whatever shares it.
    #[doc(hidden)]
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.buckets.extend(other.buckets.iter().map(Arc::clone));
        self
    }

    /// A handle to the same limit, with waits counted separately.
    #[doc(hidden)]
    #[must_use]
    pub fn for_user(&self) -> Self {
        Self { buckets: self.buckets.clone(), waiting: Arc::default() }
    }

    /// Whether anybody waits right now, by this handle or a clone of it.
    #[doc(hidden)]
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// What it was made with; of several limits, the lowest of each kind.
    #[must_use]
    pub fn limit(&self) -> RateLimit {
        let limits = self.buckets.iter().map(|shared| shared.limit);
        let lowest = |a: RateLimit, b: RateLimit| RateLimit {
            bytes_per_second: a.bytes_per_second.min(b.bytes_per_second),
            burst_bytes: a.burst_bytes.min(b.burst_bytes),
        };
        // There is one at least.
        limits.reduce(lowest).unwrap_or_else(|| RateLimit::per_second(NonZeroU64::MAX))
    }

    /// Bytes that may be sent right now: a full burst after a pause, none while others wait.
    ///
    /// Cancel-safe.
    #[doc(hidden)]
    pub async fn available_bytes(&self) -> u64 {
        let mut least_bytes = u64::MAX;
        for shared in &self.buckets {
            let mut bucket = shared.bucket.lock().await;
            bucket.fill(&shared.limit, Instant::now());
            let whole_bytes = u64::try_from(bucket.credit / CREDIT_PER_BYTE).unwrap_or(u64::MAX);
            least_bytes = least_bytes.min(whole_bytes);
        }
        least_bytes
    }

    /// Waits until `len_bytes` may go, and debits them. More than a burst is paid in bursts; to send
    /// it evenly, ask for the pieces.
    ///
    /// Cancel-safe up to a burst: dropped while it waits, it has debited nothing of it from the limit that
    /// it waits for.
    pub async fn take(&self, len_bytes: usize) {
        let _waiting = Waiting::begin(&self.waiting);
        let burst_bytes = self.burst_bytes() as u64;
        let mut missing_bytes = len_bytes as u64;
        while missing_bytes > 0 {
            let part_bytes = missing_bytes.min(burst_bytes);
            for shared in &self.buckets {
                shared.take_part(part_bytes).await;
            }
            missing_bytes -= part_bytes;
        }
    }

    /// The most that goes at once.
    pub(crate) fn burst_bytes(&self) -> usize {
        usize::try_from(self.limit().burst_bytes.get()).unwrap_or(usize::MAX)
    }
}

impl Shared {
    async fn take_part(&self, part_bytes: u64) {
        let cost = u128::from(part_bytes) * CREDIT_PER_BYTE;
        let mut bucket = self.bucket.lock().await;
        loop {
            bucket.fill(&self.limit, Instant::now());
            match bucket.credit.checked_sub(cost) {
                Some(rest) => {
                    bucket.credit = rest;
                    return;
                }
                None => {
                    let missing = cost - bucket.credit;
                    tokio::time::sleep(wait_for(missing, &self.limit)).await;
                }
            }
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimiter").field(&self.limit()).finish()
    }
}

/// Counts until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Credit is counted in byte-nanoseconds, so that no rate is rounded: a nanosecond at `r` bytes a
/// second earns `r`, and a byte costs [`CREDIT_PER_BYTE`].
struct Bucket {
    credit: u128,
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, limit: &RateLimit, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let earned = elapsed.as_nanos().saturating_mul(limit.bytes_per_second.get().into());
        self.credit = self.credit.saturating_add(earned).min(full(limit));
        self.filled = now;
    }
}

fn full(limit: &RateLimit) -> u128 {
    u128::from(limit.burst_bytes.get()) * CREDIT_PER_BYTE
}

fn wait_for(missing: u128, limit: &RateLimit) -> Duration {
    let nanos = missing.div_ceil(limit.bytes_per_second.get().into());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Nanoseconds in a second.
const CREDIT_PER_BYTE: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex as StdMutex};

    use super::*;

    const MB: u64 = 1_000_000;

    fn limiter(bytes_per_second: u64, burst_bytes: u64) -> RateLimiter {
        let non_zero = |n| NonZeroU64::new(n).unwrap();
        RateLimiter::new(RateLimit {
            bytes_per_second: non_zero(bytes_per_second),
            burst_bytes: non_zero(burst_bytes),
        })
    }

    /// Every debit with its time.
    type Log = Arc<StdMutex<Vec<(Instant, u64)>>>;

    async fn send(limiter: RateLimiter, total_bytes: u64, piece_bytes: usize, log: Log) {
        let mut left = total_bytes;
        while left > 0 {
            let piece = (piece_bytes as u64).min(left);
            limiter.take(piece as usize).await;
            log.lock().unwrap().push((Instant::now(), piece));
            left -= piece;
        }
    }

    /// The most that any second saw.
    fn busiest_second(log: &Log) -> u64 {
        let mut window: VecDeque<(Instant, u64)> = VecDeque::new();
        let (mut sum, mut most) = (0, 0);
        for (at, bytes) in log.lock().unwrap().iter() {
            window.push_back((*at, *bytes));
            sum += bytes;
            while window.front().is_some_and(|(first, _)| *at - *first >= Duration::from_secs(1)) {
                sum -= window.pop_front().map_or(0, |(_, bytes)| bytes);
            }
            most = most.max(sum);
        }
        most
    }

    async fn four_streams(limiter: &RateLimiter, log: &Log) -> Duration {
        let start = Instant::now();
        let streams: Vec<_> = (0..4)
            .map(|_| tokio::spawn(send(limiter.clone(), 50 * MB / 4, 64 * 1024, Arc::clone(log))))
            .collect();
        for stream in streams {
            stream.await.unwrap();
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_megabytes_at_ten_a_second_take_five_seconds_whatever_came_before() {
        let limiter = limiter(10 * MB, MB);
        let log = Log::default();
        for idle in [Duration::ZERO, Duration::from_secs(10)] {
            tokio::time::advance(idle).await;
            let elapsed = four_streams(&limiter, &log).await;
            assert!((4.5..=5.5).contains(&elapsed.as_secs_f64()), "{elapsed:?} after {idle:?}");
        }
        let most = busiest_second(&log);
        assert!(most <= 11 * MB, "{most} bytes in one second");
        assert!(most >= 9 * MB, "the cap is used, not only kept: {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_served_in_order() {
        let limiter = limiter(1000, 100);
        limiter.take(100).await;
        let order = Arc::new(StdMutex::new(Vec::new()));
        let waiting: Vec<_> = [("large", 100), ("small", 1), ("large again", 100)]
            .map(|(name, bytes)| {
                let (limiter, order) = (limiter.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    limiter.take(bytes).await;
                    order.lock().unwrap().push(name);
                })
            })
            .into();
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["large", "small", "large again"]);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_is_paid_in_full() {
        let limiter = limiter(1000, 10);
        let start = Instant::now();
        limiter.take(2010).await;
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_limits_the_lower_one_holds_and_both_are_debited() {
        let (ours, theirs) = (limiter(10_000, 1000), limiter(1000, 100));
        // Debited in this order: after the wait for the lower limit.
        let both = theirs.clone().and(&ours);
        assert_eq!(both.limit(), theirs.limit());
        let start = Instant::now();
        both.take(1100).await;
        let elapsed = start.elapsed();
        assert!((0.95..1.05).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
        assert!(ours.available_bytes().await < 1000, "what went last is not earned again yet");
        ours.take(900).await;
        assert!(theirs.available_bytes().await <= 1, "debited by what both let pass only");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_given_up_costs_the_others_nothing() {
        let limiter = limiter(1000, 100);
        limiter.take(100).await;
        let given_up = tokio::time::timeout(Duration::from_millis(50), limiter.take(100)).await;
        assert!(given_up.is_err());
        let start = Instant::now();
        limiter.take(50).await;
        assert!(start.elapsed() <= Duration::from_millis(2), "{:?}", start.elapsed());
    }
}
