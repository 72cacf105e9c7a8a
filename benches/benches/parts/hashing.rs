//! Both digests of one chunk after another, and BLAKE3 of them as pieces of a file.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use shiplane_wire::{Digest, DigestAlgorithm, Piece};

use crate::{CHUNK_LEN_BYTES, noise};

pub(crate) fn bench(criterion: &mut Criterion) {
    let data = noise(CHUNKS * CHUNK_LEN_BYTES);
    let chunks: Vec<&[u8]> = data.chunks(CHUNK_LEN_BYTES).collect();
    let mut group = criterion.benchmark_group("hashing");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for (name, algorithm) in [("SHA-256", DigestAlgorithm::Sha256), ("BLAKE3", DigestAlgorithm::Blake3)] {
        group.bench_function(name, |bench| {
            bench.iter(|| black_box(&chunks).iter().map(|chunk| algorithm.digest(chunk)).collect::<Vec<_>>());
        });
    }
    group.bench_function("BLAKE3, pieces of a file", |bench| {
        bench.iter(|| {
            black_box(&chunks).iter().enumerate().map(|(at, chunk)| piece(at, chunk)).collect::<Vec<_>>()
        });
    });
    group.finish();
}

fn piece(at: usize, chunk: &[u8]) -> Digest {
    let len_bytes = CHUNK_LEN_BYTES as u64;
    let piece = Piece::of_file(at as u64 * len_bytes, len_bytes, CHUNKS as u64 * len_bytes);
    let mut hasher = DigestAlgorithm::Blake3.chunk_hasher(piece);
    hasher.update(chunk);
    hasher.finish()
}

const CHUNKS: usize = 16;
