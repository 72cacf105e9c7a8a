//! The file-system side of the peers file: read whole within bounds, replaced whole, one writer at
//! a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use shiplane_files::internals::replace_file;

/// What stands in the file, and whether others may write to it.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// The permission bits, if group or others may write.
    pub(super) writable_by_others: Option<u32>,
}

/// Reads at most `max_bytes + 1` bytes, so that the caller can tell a file that is too long from
/// one that just fits. `None` if there is no file.
pub(super) fn read(path: &Path, max_bytes: usize) -> io::Result<Option<Content>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // Of the open file, not of the path: both must be of the same one.
    let writable_by_others = writable_by_others(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(Content { bytes, writable_by_others }))
}

/// Keeps other writers out until it is dropped. The lock is on a file of its own, because the
/// peers file itself is replaced by every edit.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits until no other process edits the file; an edit takes milliseconds.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        create_private_dir(parent(path))?;
        let file = private_file().create(true).truncate(false).open(beside(path, ".lock"))?;
        lock(&file)?;
        Ok(Self { _file: file })
    }
}

/// Replaces the file: a reader sees the old content or the new one. The lock keeps edits from being lost.
pub(super) fn replace(path: &Path, bytes: &[u8], _lock: &WriteLock) -> io::Result<()> {
    replace_file(path, bytes)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Waits for the lock; a signal does not end the wait.
fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(unix)]
fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(unix)]
fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(unix)]
fn writable_by_others(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o022 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

#[cfg(not(unix))]
fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(not(unix))]
fn writable_by_others(_metadata: &fs::Metadata) -> Option<u32> {
    None
}
