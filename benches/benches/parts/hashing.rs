//! SHA-256, of one chunk after another and of sixteen side by side.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use shiplane_wire::Digest;

use crate::{CHUNK_LEN_BYTES, noise};

pub(crate) fn bench(criterion: &mut Criterion) {
    let data = noise(CHUNKS * CHUNK_LEN_BYTES);
    let chunks: Vec<&[u8]> = data.chunks(CHUNK_LEN_BYTES).collect();
    let mut group = criterion.benchmark_group("hashing");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("one by one", |bench| {
        bench.iter(|| black_box(&chunks).iter().map(|chunk| Digest::of(chunk)).collect::<Vec<_>>());
    });
    group.bench_function("side by side", |bench| bench.iter(|| Digest::of_each(black_box(&chunks))));
    group.finish();
}

/// As many as a vector unit of 512 bits takes.
const CHUNKS: usize = 16;
