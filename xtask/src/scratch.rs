//! A temporary directory for one run, removed at its end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::units;

/// The directory. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// Makes one, beneath `parent` or else the system's temporary directory.
    pub fn new(prefix: &str, parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        Ok(Self { directory })
    }

    /// Makes one in memory, if there is such a place.
    pub fn in_memory(prefix: &str) -> Result<Self> {
        Self::new(prefix, Some(&memory_or_disk(0)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes an empty directory in it.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Fails unless `bytes` more fit, so that a full disk is not met half-way.
    pub fn expect_room(&self, bytes: u64) -> Result<()> {
        let free = free_bytes(self.path())?;
        let (place, has, needs) = (self.path().display(), units::bytes(free), units::bytes(bytes));
        ensure!(
            free >= bytes,
            "{place} has {has} free and this needs {needs}; set TMPDIR to a directory with room"
        );
        Ok(())
    }
}

/// Memory if it has so much room, else the directory for temporary files.
pub fn memory_or_disk(room_bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let has_room = memory.is_dir() && free_bytes(memory).is_ok_and(|free| free >= room_bytes);
    if has_room { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// What an unprivileged user can still write where `path` is.
#[cfg(unix)]
pub fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)
        .with_context(|| format!("cannot ask for the room in {}", path.display()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Not asked for on this platform: a full disk is then met on the way.
#[cfg(not(unix))]
pub fn free_bytes(_path: &Path) -> Result<u64> {
    Ok(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_behind() {
        let scratch = Scratch::new("shiplane-test-", None).unwrap();
        let inside = scratch.directory("inside").unwrap();
        std::fs::write(inside.join("file"), b"x").unwrap();
        let path = scratch.path().to_path_buf();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn too_little_room_is_said_before_anything_is_written() {
        let scratch = Scratch::new("shiplane-test-", None).unwrap();
        scratch.expect_room(1).unwrap();
        let refused = scratch.expect_room(u64::MAX);
        #[cfg(unix)]
        assert!(refused.unwrap_err().to_string().contains("TMPDIR"));
        #[cfg(not(unix))]
        refused.unwrap();
    }
}
