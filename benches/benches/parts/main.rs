//! The parts of shiplane, each on one thread: `cargo bench -p shiplane-benches`, or with a name at the end
//! for one of them. What they add up to is measured by `cargo xtask bench`, calls by the program `rpc_flow`.

mod congestion;
mod frame;
mod hashing;
mod manifest;

use criterion::{criterion_group, criterion_main};
use shiplane_benches::Failure;

criterion_group!(parts, frame::bench, hashing::bench, manifest::bench, congestion::bench);
criterion_main!(parts);

/// Hands a bench's failure to criterion, which knows none.
fn expect<T, E: Into<Failure>>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|failure| panic!("the bench cannot go on: {}", failure.into()))
}

/// Bytes that nothing compresses or guesses.
fn noise(len_bytes: usize) -> Vec<u8> {
    testlink::Rng::new(1).bytes(len_bytes)
}

/// As `get` has its chunks.
const CHUNK_LEN_BYTES: usize = 512 << 10;
