//! The cost of our congestion control per acknowledged packet.

use criterion::{Criterion, Throughput};
use shiplane_transport::DrivenController;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut driven = DrivenController::new();
    let mut group = criterion.benchmark_group("congestion");
    group.throughput(Throughput::Elements(PACKETS.into()));
    group.bench_function("a round of a steady path", |bench| bench.iter(|| driven.round(PACKETS)));
    group.finish();
}

/// A window of 200 Mbit/s at 50 ms, about.
const PACKETS: u32 = 1000;
