//! A chunk frame, written from buffers of 64 KiB and read in packet-sized pieces; both hash.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use shiplane_benches::Failure;
use shiplane_wire::{
    ChunkSender, Digest, Hasher, Offer, Opened, OpeningReader, RecvStep, SendStep, Verified, limits,
};

use crate::{CHUNK_LEN_BYTES, expect, noise};

pub(crate) fn bench(criterion: &mut Criterion) {
    let payload = Bytes::from(noise(CHUNK_LEN_BYTES));
    let frame = Bytes::from(expect(encode(&payload)));
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(CHUNK_LEN_BYTES as u64));
    group.bench_function("encode", |bench| bench.iter(|| expect(encode(black_box(&payload)))));
    group.bench_function("decode", |bench| bench.iter(|| expect(decode(black_box(&frame)))));
    group.finish();
}

fn encode(payload: &Bytes) -> Result<Vec<u8>, Failure> {
    let mut source = (0..payload.len()).step_by(BUFFER_LEN_BYTES);
    let mut stream = Vec::with_capacity(payload.len() + 8 + Digest::LEN_BYTES);
    let mut sender = ChunkSender::new(payload.len() as u64, Hasher::blake3())?;
    loop {
        match sender.poll()? {
            SendStep::Transmit(bytes) => stream.extend_from_slice(&bytes),
            SendStep::NeedPayload { .. } => match source.next() {
                Some(at) => sender.supply(payload.slice(at..payload.len().min(at + BUFFER_LEN_BYTES)))?,
                None => sender.source_ended()?,
            },
            SendStep::Finish => return Ok(stream),
        }
    }
}

fn decode(frame: &Bytes) -> Result<Verified, Failure> {
    let (offer, input) = open(frame)?;
    let mut receiver = offer.accept(Hasher::blake3());
    let mut pieces = (0..input.len()).step_by(PACKET_LEN_BYTES);
    loop {
        match receiver.poll()? {
            RecvStep::NeedInput => match pieces.next() {
                Some(at) => receiver.push(input.slice(at..input.len().min(at + PACKET_LEN_BYTES))),
                None => receiver.end(),
            },
            RecvStep::Payload { data, .. } => drop(black_box(data)),
            RecvStep::Verified(verified) => return Ok(verified),
            RecvStep::Ended => return Err("it ended before it was verified".into()),
        }
    }
}

fn open(frame: &Bytes) -> Result<(Offer, Bytes), Failure> {
    let mut input = frame.clone();
    match OpeningReader::new().push(&mut input)? {
        Some(Opened::Bare { len_bytes }) => Ok((Offer::new(len_bytes, limits::MAX_CHUNK_LEN_BYTES)?, input)),
        _ => Err("it opens as something else".into()),
    }
}

/// As `get` and `push` have them.
const BUFFER_LEN_BYTES: usize = 64 << 10;

/// What a packet of 8,952 bytes has room for, or nearly.
const PACKET_LEN_BYTES: usize = 8900;
