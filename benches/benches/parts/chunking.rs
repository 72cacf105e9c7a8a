//! Content-defined chunking (SPEC 4.13) at both block sizes, with the blocks' digests.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use fastcdc::v2020::FastCDC;
use shiplane_wire::{Digest, limits};

use crate::noise;

pub(crate) fn bench(criterion: &mut Criterion) {
    let data = noise(16 << 20);
    let mut group = criterion.benchmark_group("chunking");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for average_bytes in [limits::MIN_BLOCK_AVERAGE_BYTES as usize, 128 << 10] {
        let pieces = move |data| FastCDC::new(data, average_bytes / 4, average_bytes, average_bytes * 4);
        let id = |what| BenchmarkId::new(what, average_bytes);
        group.bench_function(id("cut"), |bench| bench.iter(|| pieces(black_box(&data)).count()));
        group.bench_function(id("cut and hash"), |bench| {
            bench.iter(|| {
                let digest =
                    |piece: fastcdc::v2020::Chunk| Digest::blake3(&data[piece.offset..][..piece.length]);
                pieces(black_box(&data)).map(digest).collect::<Vec<_>>()
            });
        });
    }
    group.finish();
}
