//! Exact counters in both directions, here and in the metrics facade.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use shiplane_protocols::{Direction, TransferManager, TransferMetrics, TransferResult};
use shiplane_transport::{ChunkExpectation, ChunkSource, LaneOptions};

use super::pair::{Pair, memory};

#[tokio::test]
async fn three_sends_two_receives_and_a_failure_are_counted_exactly() {
    let pair = Pair::new();
    let (alice, bob) = pair.connect().await;
    let metrics = Arc::new(TransferMetrics::new());
    let manager = TransferManager::new(Arc::clone(&pair.alice), Arc::clone(&metrics), LaneOptions::default());
    for len in [1, 10, 100] {
        let source = memory(vec![7; len]);
        let (sent, taken) = tokio::join!(manager.send(pair.bob_addr(), &source), bob.recv_chunk_verified());
        sent.unwrap();
        taken.unwrap();
    }
    for len in [1000, 10_000] {
        let (source, any) = (memory(vec![7; len]), ChunkExpectation::default());
        let (sent, taken) = tokio::join!(bob.send_chunk_verified(&source), manager.receive(&alice, &any));
        sent.unwrap();
        taken.unwrap();
    }
    let missing = ChunkSource::File("/there/is/no/such/file".into());
    manager.send(pair.bob_addr(), &missing).await.unwrap_err();

    let now = metrics.snapshot();
    assert_eq!((now.sent.completed, now.sent.failed, now.sent.bytes), (3, 1, 111));
    assert_eq!((now.received.completed, now.received.failed, now.received.bytes), (2, 0, 11_000));
    assert_eq!((now.sent.durations.count(), now.received.durations.count()), (3, 2));
    let report = metrics.report();
    assert!(report.contains("3 completed, 1 failed, 111 bytes"), "{report}");
    assert!(report.contains("2 completed, 0 failed, 11000 bytes"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_of_wall_clock_time_and_falls_when_nothing_moves() {
    let metrics = TransferMetrics::new();
    tokio::time::advance(Duration::from_secs(5)).await;
    // Four side by side, ten seconds' worth of work in five.
    for _ in 0..4 {
        let result = TransferResult::success(peer(), 10_000_000, Duration::from_secs(5));
        metrics.record_transfer(Direction::Sent, &result);
    }
    assert_eq!(metrics.snapshot().sent.bytes_per_second, 8_000_000);
    assert_eq!(metrics.snapshot().received.bytes_per_second, 0);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(metrics.snapshot().sent.bytes_per_second, 0);
    assert_eq!(metrics.snapshot().sent.bytes, 40_000_000);
}

#[test]
fn concurrent_records_are_all_counted() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _in_runtime = runtime.enter();
    let metrics = TransferMetrics::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let result = TransferResult::success(peer(), 3, Duration::from_millis(1));
                    metrics.record_transfer(Direction::Received, &result);
                }
            });
        }
    });
    let received = metrics.snapshot().received;
    assert_eq!((received.completed, received.bytes, received.durations.count()), (4000, 12_000, 4000));
}

#[test]
fn the_facade_gets_the_same_numbers() {
    let (recorder, metrics) = (Recorded::default(), TransferMetrics::new());
    metrics::with_local_recorder(&recorder, || {
        let success = TransferResult::success(peer(), 111, Duration::from_millis(1500));
        metrics.record_transfer(Direction::Sent, &success);
        metrics.record_transfer(Direction::Sent, &success);
        let failure = TransferResult::failure(peer(), "no".to_owned());
        metrics.record_transfer(Direction::Received, &failure);
    });
    let expected = [
        ("shiplane_transfer_bytes_total direction=sent", 222.0),
        ("shiplane_transfer_duration_seconds direction=sent", 3.0),
        ("shiplane_transfers_total direction=received outcome=failed", 1.0),
        ("shiplane_transfers_total direction=sent outcome=completed", 2.0),
    ];
    let recorded = recorder.0.lock().unwrap().clone();
    let recorded: Vec<_> = recorded.iter().map(|(key, sum)| (key.as_str(), *sum)).collect();
    assert_eq!(recorded, expected);
}

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// Sums up whatever is recorded, by name and labels.
#[derive(Default)]
struct Recorded(Arc<Mutex<BTreeMap<String, f64>>>);

struct Sum(Arc<Mutex<BTreeMap<String, f64>>>, String);

impl Recorded {
    fn sum(&self, key: &Key) -> Arc<Sum> {
        let labels: Vec<_> =
            key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
        Arc::new(Sum(Arc::clone(&self.0), format!("{}{}", key.name(), labels.concat())))
    }
}

impl Sum {
    fn add(&self, value: f64) {
        *self.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, value: u64) {
        panic!("not a counter's business: {value}");
    }
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.sum(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("there are no gauges: {key}");
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.sum(key))
    }
}
