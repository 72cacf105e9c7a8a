//! What this machine can do, for those who ask why a transfer is not faster. Everything blocks for a moment.

use std::{
    hint::black_box,
    io,
    path::Path,
    time::{Duration, Instant},
};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use shiplane_files::internals::disk_rates;
use shiplane_transport::{UDP_BUFFER_LEN_BYTES, internals::granted_buffers};
use shiplane_wire::DigestAlgorithm;

/// The bytes per second that one thread hashes.
#[must_use]
pub fn digest_rate(algorithm: DigestAlgorithm) -> u64 {
    let block = vec![7; BLOCK_LEN_BYTES];
    measured(BLOCK_LEN_BYTES, || {
        black_box(algorithm.digest(black_box(&block)));
    })
}

/// The bytes per second that one thread encrypts with AES-128-GCM, in packets of the usual length.
#[must_use]
pub fn encryption_rate() -> u64 {
    // A key of this length is one.
    let Ok(key) = UnboundKey::new(&AES_128_GCM, &[7; 16]) else { return 0 };
    let (key, mut packet) = (LessSafeKey::new(key), vec![7; PACKET_LEN_BYTES]);
    measured(PACKET_LEN_BYTES, || {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(&mut packet)));
    })
}

/// The size of UDP socket buffers that the transport asks the kernel for, and the sizes that it gets for receiving and sending.
///
/// # Errors
/// What the system says.
pub fn socket_buffers() -> io::Result<(usize, [usize; 2])> {
    Ok((UDP_BUFFER_LEN_BYTES, granted_buffers(UDP_BUFFER_LEN_BYTES)?))
}

/// How fast the disk of a directory writes and reads, in bytes a second, and how long it takes to sync a little. Takes
/// about two seconds, and up to 256 MiB for so long.
///
/// # Errors
/// What the system says.
pub fn disk(directory: &Path) -> io::Result<([u64; 2], Duration)> {
    let rates = disk_rates(directory, DISK_TIME)?;
    Ok(([rates.write_bytes_per_second, rates.read_bytes_per_second], rates.sync_time))
}

fn measured(len_bytes: usize, mut work: impl FnMut()) -> u64 {
    // Once before, so that everything is in its place.
    work();
    let (began, mut times) = (Instant::now(), 0_u64);
    while began.elapsed() < TIME {
        for _ in 0..WORK_PER_LOOK {
            work();
        }
        times += WORK_PER_LOOK;
    }
    (times as f64 * len_bytes as f64 / began.elapsed().as_secs_f64()) as u64
}

/// 64 KiB: the smallest chunk.
const BLOCK_LEN_BYTES: usize = 64 << 10;

/// 1,400: what a packet on Ethernet carries.
const PACKET_LEN_BYTES: usize = 1400;

/// 100 ms: the processor has its full clock by then.
const TIME: Duration = Duration::from_millis(100);

const WORK_PER_LOOK: u64 = 16;

const DISK_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_rate() {
        assert!(digest_rate(DigestAlgorithm::Blake3) > 0);
        assert!(digest_rate(DigestAlgorithm::Sha256) > 0);
        assert!(encryption_rate() > 0);
        let (wanted, granted) = socket_buffers().unwrap();
        assert!(wanted > 0 && granted.iter().all(|granted| *granted > 0));
    }
}
