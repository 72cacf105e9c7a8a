//! The tree that the demo sends: one large file, many small ones, and every awkward name that a
//! file system lets through. The same seed gives the same bytes on every machine.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use testlink::Rng;

use crate::{interrupt, names};

/// How much to make.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of the one large file.
    pub large_bytes: u64,
    /// Number of small files.
    pub small_files: usize,
    /// Directories they are spread over.
    pub directories: usize,
}

impl Size {
    /// What the demo shows.
    pub const FULL: Self = Self { large_bytes: 512 << 20, small_files: 2000, directories: 50 };

    /// A taste, for a quick look and for CI.
    pub const SMALL: Self = Self { large_bytes: 32 << 20, small_files: 200, directories: 8 };

    /// More than the tree will ever take on disk, blocks and all.
    pub fn room_bytes(self) -> u64 {
        self.large_bytes + self.small_files as u64 * (MAX_SMALL_BYTES / 8) + (16 << 20)
    }
}

/// Fills the empty directory `root`.
pub fn make(root: &Path, size: Size) -> Result<()> {
    let mut noise = Rng::new(SEED);
    write_noise(&root.join("large.bin"), size.large_bytes, &mut noise)?;
    small_files(root, size, &mut noise)?;
    odd_entries(root, &mut noise)
}

/// Writes a file of the next `len_bytes` of `noise`, in place of whatever has that name.
pub fn noisy_file(path: &Path, len_bytes: u64, noise: &mut Rng) -> Result<()> {
    if path.exists() {
        fs::remove_file(path).with_context(|| format!("cannot remove {path:?}"))?;
    }
    write_noise(path, len_bytes, noise)
}

/// Writes a file of `len_bytes` pseudo-random bytes.
pub fn large_file(path: &Path, len_bytes: u64) -> Result<()> {
    write_noise(path, len_bytes, &mut Rng::new(SEED))
}

/// Fills a new directory `root` with small files, in this number of directories.
pub fn small_tree(root: &Path, files: usize, directories: usize) -> Result<()> {
    let size = Size { large_bytes: 0, small_files: files, directories };
    small_files(root, size, &mut Rng::new(SEED))
}

fn small_files(root: &Path, size: Size, noise: &mut Rng) -> Result<()> {
    let directories: Vec<PathBuf> = directory_names(root, size.directories).collect();
    directories.iter().try_for_each(|directory| make_directory(directory))?;
    for (i, directory) in (0..size.small_files).zip(directories.iter().cycle()) {
        let path = directory.join(format!("{i:05}.dat"));
        let len_bytes = noise.log_normal(MEDIAN_SMALL_BYTES, SPREAD).min(MAX_SMALL_BYTES as f64) as u64;
        write_noise(&path, len_bytes, noise)?;
        // Some are old, to the nanosecond, so that times that were not carried over show.
        if i % 3 == 0 {
            let age = Duration::new(noise.between(0, 400_000_000), (noise.between(0, 1_000_000_000)) as u32);
            age_file(&path, age)?;
        }
    }
    Ok(())
}

/// A few levels deep: every fifth directory holds the four that follow it.
fn directory_names(root: &Path, count: usize) -> impl Iterator<Item = PathBuf> {
    let root = root.join("small");
    (0..count).map(move |i| {
        let top = root.join(format!("d{:02}", i / 5 * 5));
        if i % 5 == 0 { top } else { top.join(format!("d{i:02}")) }
    })
}

fn odd_entries(root: &Path, noise: &mut Rng) -> Result<()> {
    make_directory(&root.join("empty directory"))?;
    write_noise(&root.join("empty file"), 0, noise)?;
    let odd = root.join("odd names");
    make_directory(&odd)?;
    for name in names::odd() {
        write_noise(&odd.join(name), 100 + noise.between(0, 5000), noise)?;
    }
    for name in names::odd_directories() {
        make_directory(&odd.join(&name))?;
        write_noise(&odd.join(name).join("inside"), 10, noise)?;
    }
    let program = root.join("program.sh");
    fs::write(&program, "#!/bin/sh\necho shiplane\n").context("cannot write program.sh")?;
    #[cfg(unix)]
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .context("cannot set the mode of program.sh")?;
    age_file(&program, Duration::from_secs(1_000_000_000))?;
    let deep = root.join("deep").join((0..DEPTH).map(|level| level.to_string()).collect::<PathBuf>());
    make_directory(&deep)?;
    write_noise(&deep.join("bottom"), 1000, noise)
}

/// Makes a directory and those that it is in.
pub fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {path:?}"))
}

fn write_noise(path: &Path, len_bytes: u64, noise: &mut Rng) -> Result<()> {
    let cannot = || format!("cannot write {path:?}");
    let mut file = File::create_new(path).with_context(cannot)?;
    let mut left = len_bytes;
    let mut buffer = vec![0; BUFFER_LEN_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX))];
    while left > 0 {
        interrupt::check()?;
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        noise.fill(&mut buffer[..take]);
        file.write_all(&buffer[..take]).with_context(cannot)?;
        left -= take as u64;
    }
    Ok(())
}

fn age_file(path: &Path, age: Duration) -> Result<()> {
    filetime::set_file_mtime(path, (SystemTime::now() - age).into())
        .with_context(|| format!("cannot set the time of {path:?}"))
}

/// Any number would do; it only has to stay the same.
const SEED: u64 = 0x5417_1A4E;

/// Source trees have most files near this size.
const MEDIAN_SMALL_BYTES: f64 = 4_000.0;

/// The standard deviation of the sizes' logarithms: about one file in forty is over 60 kB.
const SPREAD: f64 = 1.4;

/// Keeps one draw from the long tail from deciding the size of the whole tree.
const MAX_SMALL_BYTES: u64 = 2_000_000;

/// Well below the 64 components of SPEC 4.5, well above what a recursion would like.
const DEPTH: usize = 40;

/// Large enough that the system calls do not count, small enough to leave our own memory small:
/// a child's peak memory as the kernel reports it never falls below its parent's at the fork.
const BUFFER_LEN_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    const TINY: Size = Size { large_bytes: 300_000, small_files: 30, directories: 7 };

    #[test]
    fn the_tree_holds_what_it_promises() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), TINY).unwrap();
        let counted = tree::survey(root.path()).unwrap();
        let odd = names::odd().len() + names::odd_directories().len();
        // The large one, the empty one, the program and the one at the bottom.
        assert_eq!(counted.files, 30 + 4 + odd as u64);
        assert_eq!(fs::metadata(root.path().join("large.bin")).unwrap().len(), 300_000);
        assert!(fs::read_dir(root.path().join("empty directory")).unwrap().next().is_none());
        assert!(counted.bytes > 300_000 && counted.bytes < TINY.room_bytes());
    }
}
