//! Retries: which errors, how often, with which delays.

use std::{fmt, sync::Arc, time::Duration};

/// How often to try, and how long to wait in between.
///
/// Before attempt `n + 1` it waits a random part ("full jitter") of `first_delay * 2^(n-1)`, at most
/// `max_delay`, so that peers who failed together do not come back together.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    max_attempts: u32,
    first_delay: Duration,
    max_delay: Duration,
    jitter: Jitter,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: DEFAULT_ATTEMPTS,
            first_delay: FIRST_DELAY,
            max_delay: MAX_DELAY,
            jitter: Jitter::default(),
        }
    }
}

impl RetryPolicy {
    /// Attempts in all; 1 is no retry.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// The most that is waited after the first failure.
    #[must_use]
    pub fn first_delay(mut self, first_delay: Duration) -> Self {
        self.first_delay = first_delay;
        self
    }

    /// The most that is ever waited.
    #[must_use]
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// Which part of a delay is waited.
    #[doc(hidden)]
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The longest pause after this number of failures.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
        self.first_delay.saturating_mul(1 << doublings).min(self.max_delay)
    }

    /// Runs `attempt` until it succeeds, fails with an error that is not retried, or the attempts are used up. Gives what came
    /// of the last one, and its number, from 1.
    ///
    /// Cancel-safe as far as `attempt` is.
    pub(crate) async fn run<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        mut attempt: impl FnMut() -> F,
        is_retryable: impl Fn(&E) -> bool,
    ) -> (Result<T, E>, u32) {
        let mut attempts = 1;
        loop {
            match attempt().await {
                Err(error) if attempts < self.max_attempts && is_retryable(&error) => {}
                outcome => return (outcome, attempts),
            }
            tokio::time::sleep(self.jitter.part_of(self.ceiling(attempts))).await;
            attempts += 1;
        }
    }
}

/// Chooses how much of a delay is waited.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn(Duration) -> Duration + Send + Sync>);

impl Jitter {
    /// Chosen by `choose`, which is given the most that may be waited; more than that is cut.
    #[must_use]
    pub fn by(choose: impl Fn(Duration) -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    /// All of it, for tests and for a lone client.
    #[must_use]
    pub fn none() -> Self {
        Self::by(|ceiling| ceiling)
    }

    fn part_of(&self, ceiling: Duration) -> Duration {
        (self.0)(ceiling).min(ceiling)
    }
}

impl Default for Jitter {
    /// Any part of it, each as likely.
    fn default() -> Self {
        Self::by(|ceiling| {
            // Without randomness all of it: late is safe, early is not.
            let random = ring::rand::generate::<[u8; 4]>(&ring::rand::SystemRandom::new());
            random.map_or(ceiling, |random| {
                ceiling.mul_f64(f64::from(u32::from_le_bytes(random.expose())) / f64::from(u32::MAX))
            })
        })
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

/// Five attempts with the delays below: some seconds of a peer's restart are bridged.
const DEFAULT_ATTEMPTS: u32 = 5;

/// 200 ms: longer than most round trips, and hardly noticeable.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// 10 s: a peer that was gone for long is noticed soon after it is back.
const MAX_DELAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use shiplane_transport::{
        ConnectError, ConnectionEnd, SendChunkError, StreamError, internals::SourceError,
    };
    use shiplane_wire::{Code, StatusError};
    use tokio::time::Instant;

    use super::*;

    /// Fails `failures` times, then succeeds; the times of the attempts.
    async fn attempts(
        policy: &RetryPolicy,
        failures: u32,
        is_retryable: bool,
    ) -> ((Result<(), ()>, u32), Vec<Duration>) {
        let (start, times) = (Instant::now(), Mutex::new(Vec::new()));
        let attempt = async || {
            let mut times = times.lock().unwrap();
            times.push(start.elapsed());
            if times.len() > failures as usize { Ok(()) } else { Err(()) }
        };
        let outcome = policy.run(attempt, |()| is_retryable).await;
        (outcome, times.into_inner().unwrap())
    }

    fn policy(max_attempts: u32) -> RetryPolicy {
        RetryPolicy {
            max_attempts,
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(5),
            jitter: Jitter::none(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_failures_make_three_attempts_with_growing_delays() {
        let (outcome, times) = attempts(&policy(5), 2, true).await;
        assert_eq!(outcome, (Ok(()), 3));
        assert_eq!(times.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_capped_and_attempts_end() {
        let (outcome, times) = attempts(&policy(6), u32::MAX, true).await;
        assert_eq!(outcome, (Err(()), 6));
        assert_eq!(times.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 3, 7, 12, 17]);
        assert_eq!(policy(1).ceiling(u32::MAX), Duration::from_secs(5), "no overflow");
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failures_are_tried_once() {
        let (outcome, times) = attempts(&policy(5), 1, false).await;
        assert_eq!(outcome, (Err(()), 1));
        assert_eq!(times.len(), 1);
    }

    #[test]
    fn jitter_takes_any_part_and_never_more() {
        let ceiling = Duration::from_secs(8);
        let parts: Vec<_> = (0..200).map(|_| Jitter::default().part_of(ceiling)).collect();
        assert!(parts.iter().all(|part| *part <= ceiling));
        assert!(parts.iter().any(|part| *part < ceiling / 4) && parts.iter().any(|part| *part > ceiling / 2));
        assert_eq!(Jitter::by(|ceiling| ceiling * 2).part_of(ceiling), ceiling);
    }

    #[test]
    fn only_transient_errors_are_retryable() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let lost = |end| SendChunkError::Stream(StreamError::ConnectionLost(end));
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let never = [
            SendChunkError::Source(SourceError::Io(missing())),
            SendChunkError::Rejected { code: None },
            SendChunkError::Rejected { code: Some(Code::SinkFailed) },
            SendChunkError::Status(StatusError::Unknown { byte: 7 }),
            SendChunkError::Stream(StreamError::Stopped(Code::TooLarge)),
            lost(ConnectionEnd::ClosedHere),
            lost(ConnectionEnd::ClosedByPeer { code: Code::Revoked }),
        ];
        let may = [
            SendChunkError::ChecksumFailed,
            SendChunkError::Rejected { code: Some(Code::Busy) },
            SendChunkError::Source(SourceError::Changed),
            SendChunkError::Status(StatusError::Missing),
            SendChunkError::Stream(StreamError::TimedOut { timeout: Duration::ZERO }),
            SendChunkError::Stream(StreamError::Reset(Code::Busy)),
            lost(ConnectionEnd::TimedOut),
            lost(ConnectionEnd::ClosedByPeer { code: Code::NoError }),
        ];
        assert!(never.iter().all(|error| !error.is_retryable()), "{never:?}");
        assert!(may.iter().all(SendChunkError::is_retryable), "{may:?}");
        assert!(ConnectError::TimedOut { addr, timeout: Duration::ZERO }.is_retryable());
        assert!(!ConnectError::Refused { addr }.is_retryable());
        assert!(!ConnectError::WrongKey { addr, expected: None }.is_retryable());
    }
}
