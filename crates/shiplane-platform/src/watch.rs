//! Watches the directories of a tree for changes, without looking at files: what has changed, a scan finds out.
//!
//! Each directory has a watch of its own, which is there before the directory is listed. So a scan that begins after a
//! notice finds what the notice was about. Two threads sleep until something happens.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{
    Config, ErrorKind, Event, EventKindMask, PathOp, RecommendedWatcher, RecursiveMode, UpdatePathsError,
    WatchPathConfig, Watcher,
};

/// A tree that is watched until this is dropped.
pub struct TreeWatch {
    shared: Arc<Shared>,
}

/// Whether a path beneath a tree, in bytes, and a directory or not, is none of its.
pub type Excludes = Box<dyn Fn(&[u8], bool) -> bool + Send + Sync>;

/// How a tree is watched.
pub struct WatchRules {
    /// What is no part of the tree.
    pub excludes: Excludes,
    /// Asked before more is kept, with what is kept then in all, in bytes. `false`: no more is watched.
    pub admit: Box<dyn FnMut(u64) -> bool + Send>,
    /// Called after each change of anything, from another thread: it must be quick.
    pub on_change: Box<dyn Fn() + Send + Sync>,
}

/// Why a tree is not watched as a whole: only a full scan finds all changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwatched {
    /// What is used up.
    pub limit: WatchLimit,
    /// Its value; 0 if it is not known.
    pub value: u64,
}

/// What limits how much is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchLimit {
    /// The watches of a user: `fs.inotify.max_user_watches`.
    Watches,
    /// The same within a user namespace: `user.max_inotify_watches`.
    NamespaceWatches,
    /// The queues of a user: `fs.inotify.max_user_instances`.
    Instances,
    /// The memory that is set aside for it.
    Memory,
    /// The system or the file system cannot watch this.
    System,
}

impl WatchLimit {
    /// The setting of the system that raises it, if there is one.
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Watches => Some("fs.inotify.max_user_watches"),
            Self::NamespaceWatches => Some("user.max_inotify_watches"),
            Self::Instances => Some("fs.inotify.max_user_instances"),
            Self::Memory | Self::System => None,
        }
    }

    /// Of its value now.
    fn reached(self) -> Unwatched {
        Unwatched { limit: self, value: self.setting().and_then(read_setting).unwrap_or_default() }
    }
}

impl TreeWatch {
    /// Watches the directory `path` beneath `root`, or `root` itself if it is empty, and all directories beneath it.
    /// Blocks until that is done. No link is followed but in `root` itself.
    pub fn start(root: &Path, path: &[u8], rules: WatchRules) -> Self {
        let WatchRules { excludes, admit, on_change } = rules;
        let root = join(&fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()), path);
        let shared = Shared { root, excludes, on_change, state: Mutex::default(), wake: Condvar::new() };
        let shared = Arc::new(shared);
        let told = Arc::clone(&shared);
        // Not of what is opened: a scan would fill the queue.
        let kinds = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE;
        let config = Config::default().with_follow_symlinks(false).with_event_kinds(kinds);
        match RecommendedWatcher::new(move |event| told.take(event), config) {
            Ok(watcher) => {
                let mut directories = Directories { watcher, admit, kept_bytes: 0 };
                directories.add(&shared, vec![shared.root.clone()]);
                let managed = Arc::clone(&shared);
                let manager = thread::Builder::new().name("watch".to_owned());
                if manager.spawn(move || managed.manage(directories)).is_err() {
                    shared.lock().unwatched = Some(WatchLimit::System.reached());
                }
            }
            Err(error) => shared.lock().unwatched = Some(limit_of(&error).reached()),
        }
        Self { shared }
    }

    /// Why not all of it is watched; `None` if all is.
    pub fn unwatched(&self) -> Option<Unwatched> {
        self.shared.lock().unwatched
    }
}

impl Drop for TreeWatch {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for TreeWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeWatch").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

struct Shared {
    root: PathBuf,
    excludes: Excludes,
    on_change: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// What may be a directory that is not watched yet.
    appeared: BTreeSet<PathBuf>,
    /// Anything may: events were lost.
    all_anew: bool,
    /// Directories that may not be read, until their modes change.
    denied: BTreeSet<PathBuf>,
    unwatched: Option<Unwatched>,
    is_over: bool,
}

impl Shared {
    /// What the system tells, on the watcher's own thread.
    fn take(&self, event: notify::Result<Event>) {
        let mut state = self.lock();
        let is_change = match event {
            Ok(event) if !event.need_rescan() => self.is_change(&mut state, &event),
            Ok(_) => {
                state.all_anew = true;
                true
            }
            Err(error) => {
                note_failure(&mut state, &error);
                true
            }
        };
        let has_work = state.all_anew || !state.appeared.is_empty();
        drop(state);
        if has_work {
            self.wake.notify_one();
        }
        if is_change {
            (self.on_change)();
        }
    }

    fn is_change(&self, state: &mut State, event: &Event) -> bool {
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return false;
        }
        let may_be_directory = matches!(
            event.kind,
            EventKind::Create(CreateKind::Folder | CreateKind::Any | CreateKind::Other)
                | EventKind::Modify(ModifyKind::Name(_))
        );
        let is_directory = matches!(
            event.kind,
            EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder)
        );
        let mut is_change = false;
        for path in &event.paths {
            let Some(relative) = self.relative(path) else {
                state.all_anew = true;
                is_change = true;
                continue;
            };
            if relative.is_empty() {
                // The top's own mode and time are not part of the tree.
                is_change |= !matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
                continue;
            }
            if (self.excludes)(&relative, true) && (is_directory || (self.excludes)(&relative, false)) {
                continue;
            }
            is_change = true;
            let may_be_directory = may_be_directory || state.denied.remove(path);
            if may_be_directory && !state.all_anew && state.appeared.len() < MAX_APPEARED {
                state.appeared.insert(path.clone());
            } else if may_be_directory {
                state.appeared.clear();
                state.all_anew = true;
            }
        }
        is_change
    }

    /// Watches directories as they appear, on a thread of its own: the watcher's own thread must not wait for itself.
    fn manage(&self, mut directories: Directories) {
        loop {
            let mut state = self.lock();
            while !state.is_over && !state.all_anew && state.appeared.is_empty() {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_over {
                return;
            }
            let appeared = std::mem::take(&mut state.appeared);
            let all_anew = std::mem::take(&mut state.all_anew);
            drop(state);
            let found = if all_anew {
                directories.kept_bytes = 0;
                vec![self.root.clone()]
            } else {
                appeared.into_iter().filter(|path| is_directory(path)).collect()
            };
            if !found.is_empty() {
                directories.add(self, found);
                // What was made in them before they were watched is found by a scan that begins now.
                (self.on_change)();
            }
        }
    }

    /// The path beneath the root, in bytes; `None` if it is not beneath it.
    fn relative(&self, path: &Path) -> Option<Vec<u8>> {
        let relative = path.strip_prefix(&self.root).ok()?.as_os_str().as_encoded_bytes().to_vec();
        let separator = |byte: u8| if cfg!(windows) && byte == b'\\' { b'/' } else { byte };
        Some(relative.into_iter().map(separator).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watches.
struct Directories {
    watcher: RecommendedWatcher,
    admit: Box<dyn FnMut(u64) -> bool + Send>,
    kept_bytes: u64,
}

impl Directories {
    /// Watches directories and those in them: each before it is listed, so that nothing is made in between.
    fn add(&mut self, shared: &Shared, mut level: Vec<PathBuf>) {
        while !level.is_empty() {
            let mut below = Vec::new();
            for part in level.chunks(BATCH) {
                if let Err(limit) = self.watch(shared, part) {
                    shared.lock().unwatched.get_or_insert_with(|| limit.reached());
                    return;
                }
                if shared.lock().is_over {
                    return;
                }
                part.iter().for_each(|directory| list(shared, directory, &mut below));
            }
            level = below;
        }
    }

    fn watch(&mut self, shared: &Shared, directories: &[PathBuf]) -> Result<(), WatchLimit> {
        let cost_bytes = |path: &PathBuf| WATCH_COST_BYTES + 2 * path.as_os_str().len() as u64;
        self.kept_bytes += directories.iter().map(cost_bytes).sum::<u64>();
        if !(self.admit)(self.kept_bytes) {
            return Err(WatchLimit::Memory);
        }
        let config = WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(false);
        let mut left: Vec<_> =
            directories.iter().map(|path| PathOp::Watch(path.clone(), config.clone())).collect();
        while let Err(UpdatePathsError { source, origin, remaining }) =
            self.watcher.update_paths(std::mem::take(&mut left))
        {
            match limit_of(&source) {
                // It is gone, or cannot be read: its own directory tells when that changes.
                WatchLimit::System if is_passed_over(&source) => {
                    let mut state = shared.lock();
                    if state.denied.len() < MAX_APPEARED {
                        state.denied.extend(origin.map(PathOp::into_path));
                    }
                    left = remaining;
                }
                limit => return Err(limit),
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn join(root: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    if path.is_empty() { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(path)) }
}

#[cfg(not(unix))]
fn join(root: &Path, path: &[u8]) -> PathBuf {
    // What is no text names nothing there.
    if path.is_empty() { root.to_owned() } else { root.join(&*String::from_utf8_lossy(path)) }
}

/// The directories in a directory that are not excluded.
fn list(shared: &Shared, directory: &Path, found: &mut Vec<PathBuf>) {
    // What cannot be listed cannot be synced either.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        if shared.relative(&path).is_some_and(|relative| !(shared.excludes)(&relative, true)) {
            found.push(path);
        }
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn note_failure(state: &mut State, error: &notify::Error) {
    match limit_of(error) {
        // A single failure: look at everything.
        WatchLimit::System => state.all_anew = true,
        limit => drop(state.unwatched.get_or_insert_with(|| limit.reached())),
    }
}

fn limit_of(error: &notify::Error) -> WatchLimit {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            let [all, here] = [WatchLimit::Watches, WatchLimit::NamespaceWatches]
                .map(|limit| limit.setting().and_then(read_setting).unwrap_or(u64::MAX));
            if here < all { WatchLimit::NamespaceWatches } else { WatchLimit::Watches }
        }
        // EMFILE
        ErrorKind::Io(error) if error.raw_os_error() == Some(24) && cfg!(unix) => WatchLimit::Instances,
        _ => WatchLimit::System,
    }
}

fn is_passed_over(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
        ),
        _ => false,
    }
}

/// The value of a setting of the kernel.
fn read_setting(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?.trim().parse().ok()
}

/// 512: few enough that a watch that ends is noticed soon.
const BATCH: usize = 512;

/// 4,096: of more, the tree is walked again.
const MAX_APPEARED: usize = 4096;

/// 256: two entries in maps, beside the path in each.
const WATCH_COST_BYTES: u64 = 256;

#[cfg(test)]
mod tests;
