//! Measures how fast a directory's disk writes and reads.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How fast a disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskRates {
    /// Written and synced, in bytes a second.
    pub write_bytes_per_second: u64,
    /// Read, past the cache if the system allows it, in bytes a second.
    pub read_bytes_per_second: u64,
    /// How long it takes to sync 4 KiB.
    pub sync_time: Duration,
}

/// Blocks for up to `most` or a little longer, where one sync takes longer. Writes at most 256 MiB to a temporary file in
/// `directory`, which has no name, or is removed at the end.
///
/// # Errors
/// What the system says.
pub fn disk_rates(directory: &Path, most: Duration) -> io::Result<DiskRates> {
    let path = directory.join(format!(".shiplane-doctor-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    // So that it is gone whatever happens.
    let is_nameless = cfg!(unix) && fs::remove_file(&path).is_ok();
    let measured = measure(&mut file, most);
    drop(file);
    if !is_nameless {
        fs::remove_file(&path)?;
    }
    measured
}

fn measure(file: &mut File, most: Duration) -> io::Result<DiskRates> {
    let mut block = incompressible();
    let began = Instant::now();
    file.write_all(&block[..SMALL_LEN_BYTES])?;
    file.sync_data()?;
    let sync_time = began.elapsed();
    let (began, mut written_bytes) = (Instant::now(), 0);
    while written_bytes < MAX_LEN_BYTES && began.elapsed() < most / 2 {
        for _ in 0..BLOCKS_PER_SYNC {
            // No two blocks are alike.
            block[..8].copy_from_slice(&written_bytes.to_le_bytes());
            file.write_all(&block)?;
            written_bytes += block.len() as u64;
        }
        file.sync_data()?;
    }
    let write_bytes_per_second = rate(written_bytes, began.elapsed());
    forget_cached(file);
    file.rewind()?;
    let (began, mut read_bytes) = (Instant::now(), 0);
    while began.elapsed() < most / 2 {
        match file.read(&mut block)? {
            0 => break,
            read => read_bytes += read as u64,
        }
    }
    Ok(DiskRates {
        write_bytes_per_second,
        read_bytes_per_second: rate(read_bytes, began.elapsed()),
        sync_time,
    })
}

fn rate(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(f64::EPSILON)) as u64
}

/// A block that no disk makes smaller.
fn incompressible() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(BLOCK_LEN_BYTES);
    while block.len() < BLOCK_LEN_BYTES {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
}

/// Has the next reads of a file come from the disk, as far as it is not still to be written there.
#[cfg(target_os = "linux")]
pub fn forget_cached(file: &File) {
    // A file system that cannot do that has no other copy.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Has the next reads of a file come from the disk, as far as it is not still to be written there.
#[cfg(not(target_os = "linux"))]
pub fn forget_cached(_: &File) {}

/// 1 MiB, as a chunk is written.
const BLOCK_LEN_BYTES: usize = 1 << 20;

/// 16 MiB: several times what a sync costs on a disk of any kind, and a second on the slowest.
const BLOCKS_PER_SYNC: usize = 16;

/// 256 MiB: more tells nothing more, and wears the disk.
const MAX_LEN_BYTES: u64 = 256 << 20;

const SMALL_LEN_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_disk_is_measured_and_nothing_is_left_there() {
        let dir = TempDir::new().unwrap();
        let rates = disk_rates(dir.path(), Duration::from_millis(200)).unwrap();
        assert!(rates.write_bytes_per_second > 0 && rates.read_bytes_per_second > 0, "{rates:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = disk_rates(&dir.path().join("missing"), Duration::from_millis(200));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn blocks_do_not_repeat_themselves() {
        let block = incompressible();
        assert_eq!(block.len(), BLOCK_LEN_BYTES);
        let (one, other) = (&block[..64], &block[64..128]);
        assert_ne!(one, other);
    }
}
