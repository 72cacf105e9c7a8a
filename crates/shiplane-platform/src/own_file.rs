//! Small files of our own, such as state and lists of peers: private to this user, read whole within bounds, replaced
//! whole, edited by one process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::calls::retry;
#[cfg(unix)]
use crate::disk::{self, Change};

/// Puts `bytes` in the place of the file at `path`, whose directory is created when it is missing. A
/// reader sees the old content or the new one, whole; when this returns, the new one is durable. After an error the old
/// one is there, as far as the system does what it is asked.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    create_durably(directory)?;
    remove_abandoned(directory, path);
    let old = File::open(path);
    write_in_place(path, bytes)?;
    sync_directory(directory).inspect_err(|_| put_back(path, old))
}

/// Puts back what the file had, because the new content may not last: a later reader must not take it for durable.
fn put_back(path: &Path, old: io::Result<File>) {
    let directory = directory_of(path);
    let put = match old {
        Ok(mut old) => {
            let mut bytes = Vec::new();
            old.read_to_end(&mut bytes).and_then(|_| write_in_place(path, &bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            before_name(directory).and_then(|()| retry(|| fs::remove_file(path)))
        }
        Err(error) => Err(error),
    };
    // The first error is the one to report.
    let _ = put.and_then(|()| sync_directory(directory));
}

fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = (0..WRITE_ATTEMPTS).find_map(|_| match write_beside(path, bytes) {
        // Taken for abandoned, between its creation and its lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        written => Some(written),
    });
    written.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
}

/// What stands in a file, and whether others may write to it.
#[derive(Debug)]
pub struct OwnFile {
    /// All of it, or as much as tells that it is too long.
    pub bytes: Vec<u8>,
    /// The permission bits, if group or others may write.
    pub writable_by_others: Option<u32>,
}

/// Reads the file at `path`, and not more than one byte over `max_len_bytes` of it.
pub fn read_file(path: &Path, max_len_bytes: u64) -> io::Result<OwnFile> {
    let file = File::open(path)?;
    // Of the open file, not of the path: both must be of the same one.
    let writable_by_others = writable_by_others(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(max_len_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(OwnFile { bytes, writable_by_others })
}

/// Keeps other processes from editing a file until it is dropped. The lock is on a file of its own, because the file
/// itself is replaced by every edit.
#[derive(Debug)]
pub struct EditLock {
    _file: File,
}

impl EditLock {
    /// Waits until no other process edits the file at `path`; an edit takes milliseconds.
    pub fn take(path: &Path) -> io::Result<Self> {
        create_durably(directory_of(path))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let file = create_private(name.as_ref())?;
        retry(|| file.lock())?;
        Ok(Self { _file: file })
    }
}

/// Writes a temporary file and gives it the name `path`.
fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Others may be saving the same file, in this process or another.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.{TEMPORARY}", std::process::id()));
    // Locked until it has its name.
    let directory = directory_of(path);
    let renamed = || before_name(directory).and_then(|()| retry(|| fs::rename(&temporary, path)));
    let written =
        before_name(directory).and_then(|()| write_new(&temporary, bytes)).and_then(|_locked| renamed());
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes the temporary files for `path` that no process holds: those of killed processes. One that
/// cannot be removed does no harm.
fn remove_abandoned(directory: &Path, path: &Path) {
    let (Some(stem), Ok(entries)) = (path.file_stem(), fs::read_dir(directory)) else { return };
    for entry in entries.flatten() {
        let found = entry.path();
        let is_temporary = found.extension().is_some_and(|extension| extension == TEMPORARY)
            && found.file_stem().map(Path::new).and_then(Path::file_stem) == Some(stem);
        // Locked until it is removed, so that a process that has just created it waits, and begins anew.
        if is_temporary
            && let Ok(file) = File::open(&found)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&found);
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// How often to begin anew: another process that takes our file for abandoned is saving the same one.
const WRITE_ATTEMPTS: u32 = 8;

const TEMPORARY: &str = "tmp";

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = create_private(path)?;
    // Where there are no locks, nothing is found abandoned either.
    let _ = file.lock();
    write_synced(&mut file, bytes)?;
    Ok(file)
}

#[cfg(unix)]
fn write_synced(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    disk::before(Change::Write { offset_bytes: 0, data: bytes }, file)?;
    file.write_all(bytes)?;
    disk::synced(Change::Sync, file, || file.sync_all())
}

#[cfg(not(unix))]
fn write_synced(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Tells a simulation that a name in the directory is about to change.
#[cfg(unix)]
fn before_name(directory: &Path) -> io::Result<()> {
    disk::before(Change::Name, &File::open(directory)?)
}

#[cfg(not(unix))]
fn before_name(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Creates what is missing of a directory's path, and makes the new names durable: what is put into it would
/// otherwise go with it in a power cut.
fn create_durably(directory: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<_> = directory.ancestors().take_while(is_missing).collect();
    retry(|| create_private_dir(directory))?;
    missing.into_iter().try_for_each(|created| sync_directory(directory_of(created)))
}

/// Where the name of `path` stands.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Names and digests of files are private to this user.
#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

#[cfg(unix)]
fn create_private_dir(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_private_dir(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

#[cfg(unix)]
fn writable_by_others(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o022 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn writable_by_others(_metadata: &fs::Metadata) -> Option<u32> {
    None
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    disk::synced(Change::Sync, &directory, || directory.sync_all())
}

// Directories cannot be synced there.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("deep/state/x.y");
        for content in [&b"one"[..], b"", b"longer than before"] {
            replace_file(&path, content).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        let directory = path.parent().unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
        // A directory is in the way: the temporary file goes, too.
        fs::create_dir(directory.join("taken")).unwrap();
        assert!(replace_file(&directory.join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(directory).unwrap().count(), 2);
    }

    #[test]
    fn temporary_files_of_killed_processes_are_removed_and_those_in_use_stay() {
        let dir = tempfile::TempDir::new().unwrap();
        let [left, held, foreign] = ["x.7-0.tmp", "x.8-0.tmp", "z.9-0.tmp"].map(|name| dir.path().join(name));
        fs::write(&left, "half").unwrap();
        fs::write(&foreign, "of another file").unwrap();
        let held_by_another = write_new(&held, b"whole").unwrap();
        replace_file(&dir.path().join("x.y"), b"new").unwrap();
        assert!(!left.exists() && held.exists() && foreign.exists());
        drop(held_by_another);
        replace_file(&dir.path().join("x.y"), b"newer").unwrap();
        assert!(!held.exists() && foreign.exists());
    }

    #[test]
    fn many_may_save_at_the_same_time() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.y");
        std::thread::scope(|scope| {
            for content in [b"one", b"two"] {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| replace_file(path, content).unwrap()));
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Fails calls to sync, by their numbers.
    #[cfg(all(unix, feature = "simulation"))]
    #[derive(Debug)]
    struct Failing {
        syncs: std::sync::Mutex<(u32, std::ops::Range<u32>)>,
    }

    #[cfg(all(unix, feature = "simulation"))]
    impl disk::Disk for Failing {
        fn before(&self, change: Change<'_>, _at: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
            let mut syncs = self.syncs.lock().unwrap();
            if !matches!(change, Change::Sync) {
                return Ok(());
            }
            syncs.0 += 1;
            let is_failing = syncs.1.contains(&(syncs.0 - 1));
            if is_failing { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }

        fn synced(&self, _change: Change<'_>, _at: std::os::fd::BorrowedFd<'_>) {}
    }

    /// Does something while these of its calls to sync fail.
    #[cfg(all(unix, feature = "simulation"))]
    fn while_failing<T>(failing: std::ops::Range<u32>, work: impl FnOnce() -> T) -> T {
        let failing = Failing { syncs: std::sync::Mutex::new((0, failing)) };
        disk::simulate(Some(std::sync::Arc::new(failing)));
        let done = work();
        disk::simulate(None);
        done
    }

    #[cfg(all(unix, feature = "simulation"))]
    fn replace_failing(path: &Path, failing: std::ops::Range<u32>) -> io::Result<()> {
        while_failing(failing, || replace_file(path, b"new"))
    }

    #[cfg(all(unix, feature = "simulation"))]
    #[test]
    fn what_is_not_made_durable_is_an_error_and_the_old_content_is_there_again() {
        // Of the file, of its directory, and of all that is tried after that.
        for failing in [0..1, 1..2, 1..9] {
            let dir = tempfile::TempDir::new().unwrap();
            let path = dir.path().join("x.y");
            let failed = replace_failing(&path, failing.clone()).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(5));
            assert!(!path.exists(), "{failing:?}");
            fs::write(&path, b"old").unwrap();
            replace_failing(&path, failing.clone()).unwrap_err();
            // Where the disk does nothing any more, the new content is better than none.
            let left = if failing == (1..9) { b"new" } else { b"old" };
            assert_eq!(fs::read(&path).unwrap(), left, "{failing:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{failing:?}");
            replace_file(&path, b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
        }
    }

    #[cfg(all(unix, feature = "simulation"))]
    #[test]
    fn a_directory_that_is_created_for_a_lock_is_made_durable_as_for_a_file() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("deep/state/x");
        for failing in [0..1, 1..2] {
            let _ = fs::remove_dir_all(dir.path().join("deep"));
            while_failing(failing, || EditLock::take(&path)).unwrap_err();
        }
        EditLock::take(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_to_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("state/x");
        replace_file(&path, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
}
