//! A disk hook that fails and records calls below given directories.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

use shiplane_files::internals::disk::{self, Change, Disk};

/// What is below a directory, until this is dropped.
pub(crate) struct BrokenDisk {
    rule: Arc<Rule>,
}

/// Whether a change to that file or directory fails.
type Fails = dyn Fn(Change<'_>, &Path) -> bool + Send + Sync;

struct Rule {
    root: PathBuf,
    fails: Box<Fails>,
    /// What a call fails with; 0 is an error that has no number.
    errno: AtomicI32,
    calls: Mutex<Vec<(&'static str, PathBuf)>>,
}

impl BrokenDisk {
    pub(crate) fn below(
        root: &Path,
        fails: impl Fn(Change<'_>, &Path) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::watch_thread();
        let root = root.canonicalize().unwrap();
        let rule = Arc::new(Rule {
            root,
            fails: Box::new(fails),
            errno: AtomicI32::new(0),
            calls: Mutex::default(),
        });
        lock(&RULES).push(Arc::clone(&rule));
        Self { rule }
    }

    /// Calls fail with this error of the system.
    pub(crate) fn with_errno(self, errno: i32) -> Self {
        self.rule.errno.store(errno, Ordering::Relaxed);
        self
    }

    /// Has this thread find broken disks where there are any.
    pub(crate) fn watch_thread() {
        disk::simulate(Some(Arc::new(Disks)));
    }

    /// All that was done, in its order: what, and to which file or directory, from the root.
    pub(crate) fn calls(&self) -> Vec<(&'static str, PathBuf)> {
        lock(&self.rule.calls).clone()
    }
}

impl Drop for BrokenDisk {
    fn drop(&mut self) {
        lock(&RULES).retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

static RULES: Mutex<Vec<Arc<Rule>>> = Mutex::new(Vec::new());

struct Disks;

impl Disk for Disks {
    fn before(&self, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
        let rules = lock(&RULES).clone();
        if rules.is_empty() {
            return Ok(());
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", at.as_raw_fd()))?;
        let Some(rule) = rules.iter().find(|rule| path.starts_with(&rule.root)) else { return Ok(()) };
        if (rule.fails)(change, &path) {
            return Err(match rule.errno.load(Ordering::Relaxed) {
                0 => io::Error::other("the disk is broken"),
                errno => io::Error::from_raw_os_error(errno),
            });
        }
        let path = path.strip_prefix(&rule.root).unwrap().to_owned();
        lock(&rule.calls).push((name_of(change), path));
        Ok(())
    }

    fn synced(&self, _change: Change<'_>, _at: BorrowedFd<'_>) {}
}

fn name_of(change: Change<'_>) -> &'static str {
    match change {
        Change::Name => "name",
        Change::Unname => "unname",
        Change::Write { .. } => "write",
        Change::Resize => "resize",
        Change::Metadata => "metadata",
        Change::Sync => "sync",
        Change::SyncAll => "sync all",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
