//! Both digests of one chunk after another, BLAKE3 of them as pieces of a file, and content-defined blocks (SPEC 4.13).

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use fastcdc::v2020::{Chunk, FastCDC};
use shiplane_wire::{Digest, DigestAlgorithm, Piece, limits};

use crate::{CHUNK_LEN_BYTES, noise};

pub(crate) fn bench(criterion: &mut Criterion) {
    let data = noise(CHUNKS * CHUNK_LEN_BYTES);
    let mut group = criterion.benchmark_group("hashing");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for (name, algorithm) in [("SHA-256", DigestAlgorithm::Sha256), ("BLAKE3", DigestAlgorithm::Blake3)] {
        let chunks = || black_box(&data).chunks(CHUNK_LEN_BYTES);
        group.bench_function(name, |bench| {
            bench.iter(|| chunks().map(|chunk| algorithm.digest(chunk)).collect::<Vec<_>>());
        });
    }
    group.bench_function("BLAKE3, pieces of a file", |bench| {
        let chunks = || black_box(&data).chunks(CHUNK_LEN_BYTES).enumerate();
        bench.iter(|| chunks().map(|(at, chunk)| piece(at, chunk)).collect::<Vec<_>>());
    });
    for average_bytes in [limits::MIN_BLOCK_AVERAGE_BYTES as usize, 128 << 10] {
        let blocks = || FastCDC::new(black_box(&data), average_bytes / 4, average_bytes, average_bytes * 4);
        let digest = |block: Chunk| Digest::blake3(&data[block.offset..][..block.length]);
        group.bench_function(format!("blocks of {average_bytes}, cut"), |bench| {
            bench.iter(|| blocks().count());
        });
        group.bench_function(format!("blocks of {average_bytes}, cut and hashed"), |bench| {
            bench.iter(|| blocks().map(digest).collect::<Vec<_>>());
        });
    }
    group.finish();
}

fn piece(at: usize, chunk: &[u8]) -> Digest {
    let len_bytes = CHUNK_LEN_BYTES as u64;
    let piece = Piece::of_file(at as u64 * len_bytes, len_bytes, CHUNKS as u64 * len_bytes);
    let mut hasher = DigestAlgorithm::Blake3.chunk_hasher(piece);
    hasher.update(chunk);
    hasher.finish()
}

const CHUNKS: usize = 32;
