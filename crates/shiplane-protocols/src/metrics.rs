//! Exact counters of finished transfers, by direction.

mod histogram;
mod window;

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

pub use self::histogram::DurationHistogram;
use self::window::Window;
use crate::{Direction, TransferReport, TransferResult, lock};

/// Counts finished transfers. Share it in an [`Arc`](std::sync::Arc).
///
/// The same numbers go to the [`metrics`] facade, if the program has installed a recorder:
/// `shiplane_transfers_total` (labels `direction` and `outcome`), `shiplane_transfer_bytes_total` and
/// `shiplane_transfer_duration_seconds` (label `direction`).
pub struct TransferMetrics {
    origin: Instant,
    /// One lock for all, so that no snapshot shows a transfer's bytes without its count.
    state: Mutex<State>,
    recorder: OnceLock<SharedRecorder>,
}

/// A recorder of the [`metrics`] facade that the process does not share.
pub type SharedRecorder = Arc<dyn metrics::Recorder + Send + Sync>;

/// The counters at one moment. Printed, it is a report.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Since the metrics were made.
    pub uptime: Duration,
    /// What was sent.
    pub sent: DirectionMetrics,
    /// What was received.
    pub received: DirectionMetrics,
}

/// The counters of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectionMetrics {
    /// Transfers that succeeded.
    pub completed: u64,
    /// Transfers that failed.
    pub failed: u64,
    /// Payload bytes of the successful ones.
    pub bytes: u64,
    /// How long those took.
    pub durations: DurationHistogram,
    /// Payload bytes a second of wall-clock time over the last ten seconds, transfers side by side
    /// added up. A transfer counts once it has ended, spread over the time it took.
    pub bytes_per_second: u64,
}

impl TransferMetrics {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), state: Mutex::default(), recorder: OnceLock::new() }
    }

    /// From now on the numbers go to this recorder instead of the process's. Only the first call counts.
    #[doc(hidden)]
    pub fn record_to(&self, recorder: SharedRecorder) {
        let _ = self.recorder.set(recorder);
    }

    /// Counts a transfer that has just ended.
    pub fn record_transfer(&self, direction: Direction, result: &TransferResult) {
        let now = self.origin.elapsed();
        {
            let mut state = lock(&self.state);
            state.side(direction).record(result, now);
        }
        match self.recorder.get() {
            Some(recorder) => metrics::with_local_recorder(recorder, || tell_facade(direction, result)),
            None => tell_facade(direction, result),
        }
    }

    /// Counts a transfer that has just ended, in the direction that its report says.
    pub fn record(&self, report: &TransferReport) {
        self.record_transfer(report.direction, &report.result);
    }

    /// All counters at this moment.
    #[must_use]
    pub fn snapshot(&self) -> MetricsSnapshot {
        let uptime = self.origin.elapsed();
        let mut state = lock(&self.state);
        MetricsSnapshot {
            uptime,
            sent: state.side(Direction::Sent).snapshot(uptime),
            received: state.side(Direction::Received).snapshot(uptime),
        }
    }

    /// The counters as text, several lines of it.
    #[must_use]
    pub fn report(&self) -> String {
        self.snapshot().to_string()
    }
}

impl Default for TransferMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TransferMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferMetrics").field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Display for MetricsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Transfer statistics of {:.1} s:", self.uptime.as_secs_f64())?;
        for (direction, side) in [(Direction::Sent, &self.sent), (Direction::Received, &self.received)] {
            let DirectionMetrics { completed, failed, bytes, durations, bytes_per_second } = side;
            writeln!(
                f,
                "  {:<8}  {completed} completed, {failed} failed, {bytes} bytes",
                direction.as_str()
            )?;
            let rate = *bytes_per_second as f64 / BYTES_PER_MB;
            write!(f, "            {rate:.2} MB/s of late")?;
            if let (Some(median), Some(slow)) = (durations.quantile(0.5), durations.quantile(0.99)) {
                write!(f, "; half took at most {median:?}, 99 % at most {slow:?}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct State {
    sent: Side,
    received: Side,
}

impl State {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        }
    }
}

#[derive(Debug, Default)]
struct Side {
    /// Without a rate.
    counted: DirectionMetrics,
    window: Window,
}

impl Side {
    fn record(&mut self, result: &TransferResult, now: Duration) {
        if !result.success {
            self.counted.failed += 1;
            return;
        }
        self.counted.completed += 1;
        self.counted.bytes += result.bytes_transferred;
        self.counted.durations.record(result.duration);
        self.window.add(now.saturating_sub(result.duration), now, result.bytes_transferred);
    }

    fn snapshot(&mut self, now: Duration) -> DirectionMetrics {
        DirectionMetrics { bytes_per_second: self.window.bytes_per_second(now), ..self.counted.clone() }
    }
}

/// A transfer under way. Dropped before its end is recorded, it has failed.
pub(crate) struct Counting {
    metrics: Option<Arc<TransferMetrics>>,
    direction: Direction,
    peer: SocketAddr,
    began: Instant,
}

impl Counting {
    pub(crate) fn begin(
        metrics: Option<&Arc<TransferMetrics>>,
        direction: Direction,
        peer: SocketAddr,
    ) -> Self {
        Self { metrics: metrics.cloned(), direction, peer, began: Instant::now() }
    }

    /// Counts `moving`, which has moved `bytes` of content when it succeeds.
    pub(crate) async fn of<T, E: Error + 'static>(
        metrics: Option<&Arc<TransferMetrics>>,
        direction: Direction,
        peer: SocketAddr,
        moving: impl Future<Output = Result<T, E>>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, E> {
        let counting = Self::begin(metrics, direction, peer);
        let moved = moving.await;
        match &moved {
            Ok(moved) => counting.completed(bytes(moved)),
            Err(error) => counting.failed(error),
        }
        moved
    }

    /// This many bytes of content have moved, and both sides know.
    pub(crate) fn completed(mut self, bytes: u64) {
        self.end(&TransferResult::success(self.peer, bytes, self.began.elapsed()));
    }

    pub(crate) fn failed(mut self, error: &dyn Error) {
        self.end(&TransferResult::failure(self.peer, error.to_string()));
    }

    fn end(&mut self, result: &TransferResult) {
        if let Some(metrics) = self.metrics.take() {
            metrics.record_transfer(self.direction, result);
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.end(&TransferResult::failure(self.peer, "given up".to_owned()));
    }
}

fn tell_facade(direction: Direction, result: &TransferResult) {
    let direction = direction.as_str();
    let outcome = if result.success { "completed" } else { "failed" };
    metrics::counter!("shiplane_transfers_total", "direction" => direction, "outcome" => outcome)
        .increment(1);
    if result.success {
        metrics::counter!("shiplane_transfer_bytes_total", "direction" => direction)
            .increment(result.bytes_transferred);
        metrics::histogram!("shiplane_transfer_duration_seconds", "direction" => direction)
            .record(result.duration.as_secs_f64());
    }
}

const BYTES_PER_MB: f64 = 1_000_000.0;
