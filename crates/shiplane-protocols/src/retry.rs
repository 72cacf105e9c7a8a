//! Retries: which errors, how often, with which delays.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shiplane_rpc::RpcClient;
use shiplane_transport::{
    ChunkSource, ConnectError, LaneOptions, QuicTransport, SendChunkError, StreamError, internals::ProgressFn,
};
use shiplane_wire::TransferId;
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    PeerTarget,
    deliver::{Arrived, DeliverError, SendOptions, deliver_by_lane, open},
    methods::random_transfer_id,
    progress::HighWater,
    result::{Delivery, Direction, TransferReport},
};

/// An error that knows whether trying again may help.
pub trait Retryable {
    /// Whether the same, tried again, may succeed.
    fn is_retryable(&self) -> bool;
}

impl Retryable for ConnectError {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

impl Retryable for StreamError {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

impl Retryable for SendChunkError {
    fn is_retryable(&self) -> bool {
        self.is_retryable()
    }
}

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

    /// The most that is waited after so many failures.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
        self.first_delay.saturating_mul(1 << doublings).min(self.max_delay)
    }

    /// Runs `attempt` until it succeeds, fails for good, or the attempts are used up. It is given the
    /// attempt's number, from 1.
    ///
    /// Cancel-safe as far as `attempt` is.
    ///
    /// # Errors
    /// The last attempt's, with their number.
    #[doc(hidden)]
    pub async fn run<T, E: Retryable, F: Future<Output = Result<T, E>>>(
        &self,
        mut attempt: impl FnMut(u32) -> F,
    ) -> Result<Succeeded<T>, RetryError<E>> {
        let mut attempts = 1;
        loop {
            let error = match attempt(attempts).await {
                Ok(value) => return Ok(Succeeded { value, attempts }),
                Err(error) => error,
            };
            if attempts >= self.max_attempts || !error.is_retryable() {
                return Err(RetryError { error, attempts });
            }
            tokio::time::sleep(self.jitter.part_of(self.ceiling(attempts))).await;
            attempts += 1;
        }
    }
}

/// What came of it, and at which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succeeded<T> {
    /// What the attempt returned.
    pub value: T,
    /// 1 for the first.
    pub attempts: u32,
}

/// The last attempt failed, or trying again is no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{error} (attempts: {attempts})")]
pub struct RetryError<E> {
    /// Why the last attempt failed.
    pub error: E,
    /// How many were made.
    pub attempts: u32,
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

/// A delivery that failed for good.
#[derive(Debug, Error)]
#[error("{error} (attempts: {})", report.attempts)]
#[non_exhaustive]
pub struct SendFailed {
    /// What it came to, all attempts together. If the delivery is [`Delivery::Unknown`], only sending
    /// it again under the same id ([`send_again`]) can tell.
    pub report: TransferReport,
    /// The id, for [`send_again`].
    pub transfer: TransferId,
    /// Why the last attempt failed.
    #[source]
    pub error: DeliverError,
}

/// Delivers `source` to the [`Inbox`](crate::Inbox) of `peer`, dialling and trying again as `policy`
/// says. The application there gets it once, whichever answers are lost.
///
/// Each attempt opens the source anew and dials if the connection is gone. A progress hook in `options`
/// hears of the furthest attempt only.
///
/// Not cancel-safe: dropped, whether it was delivered is unknown.
///
/// # Errors
/// [`SendFailed`] when the failure is none that time mends, as a missing file, or the attempts are used
/// up.
pub async fn send_with_retry(
    transport: &QuicTransport,
    peer: impl Into<PeerTarget>,
    source: &ChunkSource,
    policy: &RetryPolicy,
    options: &SendOptions,
) -> Result<TransferReport, SendFailed> {
    let target = peer.into();
    let Some(transfer) = random_transfer_id() else {
        let (error, rejected) = (DeliverError::NoRandomness, Delivery::Rejected);
        let report = TransferReport::failed(Direction::Sent, target.addr(), rejected, &error, Duration::ZERO);
        return Err(SendFailed { report, transfer: TransferId::from_bytes([0; 16]), error });
    };
    send_again(transport, target, transfer, source, policy, options).await
}

/// As [`send_with_retry`], under an id that was used before, by this process or an earlier one.
///
/// Not cancel-safe: dropped, whether it was delivered is unknown; the same call settles it.
///
/// # Errors
/// As there; [`DeliverError::Conflict`] if the source is not what was delivered under the id.
pub async fn send_again(
    transport: &QuicTransport,
    peer: impl Into<PeerTarget>,
    transfer: TransferId,
    source: &ChunkSource,
    policy: &RetryPolicy,
    options: &SendOptions,
) -> Result<TransferReport, SendFailed> {
    let (target, start) = (peer.into(), Instant::now());
    let unknown = AtomicBool::new(false);
    let furthest = options.lane.progress.as_ref().map(furthest);
    let sending = Sending { transport, target, transfer, source, options, furthest, unknown };
    let outcome = policy.run(|_| sending.attempt()).await;
    let duration = start.elapsed();
    let (direction, peer) = (Direction::Sent, target.addr());
    match outcome {
        Ok(Succeeded { value: Arrived { content_bytes, wire_bytes }, attempts }) => {
            let report = TransferReport::verified(direction, peer, content_bytes, duration);
            Ok(TransferReport { attempts, wire_bytes, ..report })
        }
        Err(RetryError { error, attempts }) => {
            let unknown = sending.unknown.load(Ordering::Relaxed);
            let delivery = if unknown { Delivery::Unknown } else { Delivery::Rejected };
            let report = TransferReport::failed(direction, peer, delivery, &error, duration);
            Err(SendFailed { report: TransferReport { attempts, ..report }, transfer, error })
        }
    }
}

/// What all attempts share.
struct Sending<'a> {
    transport: &'a QuicTransport,
    target: PeerTarget,
    transfer: TransferId,
    source: &'a ChunkSource,
    options: &'a SendOptions,
    furthest: Option<Arc<HighWater>>,
    /// Whether an attempt may have arrived without our knowing.
    unknown: AtomicBool,
}

impl Sending<'_> {
    async fn attempt(&self) -> Result<Arrived, DeliverError> {
        let outcome = self.try_once().await;
        if let Err(error) = &outcome {
            tracing::debug!(peer = %self.target.addr(), transfer = %self.transfer, %error, "attempt failed");
            self.learn(error);
        }
        outcome
    }

    async fn try_once(&self) -> Result<Arrived, DeliverError> {
        let source = open(self.source).await?;
        let connection = self.target.connect(self.transport).await?;
        let lane = LaneOptions {
            progress: self.furthest.as_ref().map(HighWater::attempt),
            ..self.options.lane.clone()
        };
        let options = self.options.clone().lane(lane);
        deliver_by_lane(&RpcClient::new(connection), self.transfer, source, &options).await
    }

    fn learn(&self, error: &DeliverError) {
        match error {
            // Failed before the peer could say anything about the earlier attempts.
            DeliverError::Send(SendChunkError::Source(_))
            | DeliverError::Connect(_)
            | DeliverError::Call(_)
            | DeliverError::Put(_)
            | DeliverError::NoRandomness => {}
            // The peer asked for the chunk, so no earlier one had arrived.
            DeliverError::Send(_) | DeliverError::Conflict => {
                self.unknown.store(error.delivery() == Delivery::Unknown, Ordering::Relaxed);
            }
        }
    }
}

/// Passes on what goes beyond the furthest attempt so far.
fn furthest(progress: &ProgressFn) -> Arc<HighWater> {
    let (progress, mut reported_bytes) = (Arc::clone(progress), 0);
    HighWater::new(0, move |at| {
        progress(at.moved_bytes - std::mem::replace(&mut reported_bytes, at.moved_bytes))
    })
}

/// Five attempts with the delays below: some seconds of a peer's restart are bridged.
const DEFAULT_ATTEMPTS: u32 = 5;

/// 200 ms: longer than most round trips, shorter than anybody's patience.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// 10 s: a peer that was gone for long is noticed soon after it is back.
const MAX_DELAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use shiplane_transport::{ConnectionEnd, internals::SourceError};
    use shiplane_wire::{Code, StatusError};

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Failure {
        retryable: bool,
    }

    impl Retryable for Failure {
        fn is_retryable(&self) -> bool {
            self.retryable
        }
    }

    /// Fails `failures` times, then succeeds; the times of the attempts.
    async fn attempts(
        policy: &RetryPolicy,
        failures: u32,
        retryable: bool,
    ) -> (Result<Succeeded<()>, RetryError<Failure>>, Vec<Duration>) {
        let (start, times) = (Instant::now(), Mutex::new(Vec::new()));
        let outcome = policy
            .run(async |number| {
                times.lock().unwrap().push(start.elapsed());
                if number > failures { Ok(()) } else { Err(Failure { retryable }) }
            })
            .await;
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
        assert_eq!(outcome, Ok(Succeeded { value: (), attempts: 3 }));
        assert_eq!(times.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_capped_and_attempts_end() {
        let (outcome, times) = attempts(&policy(6), u32::MAX, true).await;
        assert_eq!(outcome, Err(RetryError { error: Failure { retryable: true }, attempts: 6 }));
        assert_eq!(times.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 3, 7, 12, 17]);
        assert_eq!(policy(1).ceiling(u32::MAX), Duration::from_secs(5), "no overflow");
    }

    #[tokio::test(start_paused = true)]
    async fn what_time_does_not_mend_is_tried_once() {
        let (outcome, times) = attempts(&policy(5), 1, false).await;
        assert_eq!(outcome, Err(RetryError { error: Failure { retryable: false }, attempts: 1 }));
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
    fn only_what_may_pass_is_retryable() {
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
