//! Lists of files: the records of a transfer, and the manifest of a sync.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use shiplane_benches::Failure;
use shiplane_files::internals::sync::{FileState, Manifest, Node, Stamp};
use shiplane_wire::{Digest, Entry, EntryKind, Holes, Mtime, ProviderRecord, RecordReader, RelPath, Version};

use crate::expect;

pub(crate) fn bench(criterion: &mut Criterion) {
    let records: Vec<ProviderRecord> = (0..FILES).map(|at| ProviderRecord::Entry(entry(at))).collect();
    let encoded = expect(encode(&records));
    let manifest = manifest();
    let bytes = manifest.encode();
    let mut group = criterion.benchmark_group("manifest");
    group.throughput(Throughput::Elements(FILES));
    group.bench_function("encode records", |bench| bench.iter(|| expect(encode(black_box(&records)))));
    group.bench_function("decode records", |bench| bench.iter(|| expect(decode(black_box(&encoded)))));
    group.bench_function("encode a sync's", |bench| bench.iter(|| black_box(&manifest).encode()));
    group.bench_function("decode a sync's", |bench| {
        bench.iter(|| expect(Manifest::decode(black_box(&bytes))));
    });
    group.finish();
}

fn encode(records: &[ProviderRecord]) -> Result<Bytes, Failure> {
    let mut out = BytesMut::new();
    for record in records {
        record.encode(&mut out)?;
    }
    Ok(out.freeze())
}

fn decode(encoded: &Bytes) -> Result<u64, Failure> {
    let mut reader = RecordReader::<ProviderRecord>::new();
    let mut count = 0;
    for at in (0..encoded.len()).step_by(READ_LEN_BYTES) {
        reader.push(encoded.slice(at..encoded.len().min(at + READ_LEN_BYTES)));
        while let Some(record) = reader.poll()? {
            black_box(record);
            count += 1;
        }
    }
    reader.end()?;
    Ok(count)
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::new();
    for at in 0..FILES {
        let (digest, stamp) = (Digest::blake3(&at.to_le_bytes()), Stamp { mode: 0o644, mtime: mtime(at) });
        manifest.insert(path(at), Node::File(FileState { size_bytes: at, digest, stamp }));
    }
    manifest
}

fn entry(at: u64) -> Entry {
    Entry {
        kind: EntryKind::File,
        mode: 0o644,
        size_bytes: at,
        mtime: mtime(at),
        version: Version::from_bytes([7; Version::LEN_BYTES]),
        path: path(at),
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    }
}

fn mtime(at: u64) -> Mtime {
    Mtime { secs: 1_700_000_000, nanos: at as u32 }
}

fn path(at: u64) -> RelPath {
    expect(RelPath::parse(format!("src/module-{:03}/file-{at:05}.rs", at / 100).as_bytes()))
}

const FILES: u64 = 10_000;

/// As streams hand them over.
const READ_LEN_BYTES: usize = 64 << 10;
