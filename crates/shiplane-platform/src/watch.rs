//! Watches the directories of a tree for changes, and keeps the paths at which something may have changed. Does not look
//! at files: what has changed, a scan finds out.
//!
//! Each directory has a watch of its own, which is there before the directory is listed. So a scan that begins after a
//! notice finds what the notice was about. Two threads sleep until something happens.

use std::collections::{BTreeMap, BTreeSet};
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

/// Whether a file at a path decides what is excluded.
pub type Governs = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Paths beneath a tree, in bytes; empty for the tree itself. `true`: everything below it counts too.
pub type ChangedPaths = BTreeMap<Vec<u8>, bool>;

/// How a tree is watched.
pub struct WatchRules {
    /// What is no part of the tree.
    pub excludes: Excludes,
    /// Told of each path that has changed. `true`: it decides what is excluded in its directory and below.
    pub governs: Governs,
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
        let WatchRules { excludes, governs, admit, on_change } = rules;
        let root = join(&fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()), path);
        let (state, wake) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { root, excludes, governs, on_change, state, wake });
        let mut directories = Directories { watcher: None, admit, kept_bytes: 0 };
        directories.add_all(&shared);
        let managed = Arc::clone(&shared);
        let manager = thread::Builder::new().name("watch".to_owned());
        if manager.spawn(move || managed.manage(directories)).is_err() {
            shared.lock().unwatched = Some(WatchLimit::System.reached());
        }
        Self { shared }
    }

    /// The paths at which something may have changed since this was last called, in the order of their bytes. `None`: it may
    /// be any. A scan that begins now sees all of it; what changes from now on is in the next answer.
    pub fn take_changes(&self) -> Option<ChangedPaths> {
        let mut state = self.shared.lock();
        let changed = std::mem::take(&mut state.changed);
        (state.unwatched.is_none() && !changed.is_all).then_some(changed.paths)
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
    governs: Governs,
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
    changed: Changed,
    unwatched: Option<Unwatched>,
    is_over: bool,
}

/// What may have changed.
#[derive(Default)]
struct Changed {
    paths: ChangedPaths,
    len_bytes: usize,
    is_all: bool,
}

impl Changed {
    fn add(&mut self, path: Vec<u8>, is_deep: bool) {
        if !self.paths.contains_key(&path) {
            self.len_bytes += path.len();
        }
        *self.paths.entry(path).or_default() |= is_deep;
        if self.is_all || self.paths.len() > MAX_CHANGED || self.len_bytes > MAX_CHANGED_LEN_BYTES {
            *self = Self { is_all: true, ..Self::default() };
        }
    }
}

impl State {
    /// Events were lost: anything may have changed, and any directory may be a new one.
    fn lose_track(&mut self) {
        self.appeared.clear();
        self.all_anew = true;
        self.changed = Changed { is_all: true, ..Changed::default() };
    }

    fn add_appeared(&mut self, path: PathBuf) {
        if self.appeared.len() >= MAX_APPEARED {
            self.lose_track();
        } else if !self.all_anew {
            self.appeared.insert(path);
        }
    }
}

impl Shared {
    /// What the system tells, on the watcher's own thread.
    fn take(&self, event: notify::Result<Event>) {
        let mut state = self.lock();
        let is_change = match event {
            Ok(event) if !event.need_rescan() => self.is_change(&mut state, &event),
            Ok(_) => {
                state.lose_track();
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
        let is_shallow = matches!(
            event.kind,
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_))
        );
        let mut is_change = false;
        for path in &event.paths {
            let Some(relative) = self.relative(path) else {
                state.lose_track();
                is_change = true;
                continue;
            };
            if relative.is_empty() {
                match event.kind {
                    // The top's own mode and time are not part of the tree.
                    EventKind::Modify(ModifyKind::Metadata(_)) => continue,
                    // Another directory may stand there.
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => state.lose_track(),
                    _ => state.changed.add(relative, true),
                }
                is_change = true;
                continue;
            }
            let governs = (self.governs)(&relative);
            if let (true, Some(parent)) = (governs, path.parent()) {
                // What was excluded may count now.
                let name_at = relative.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                state.changed.add(relative[..name_at].to_vec(), true);
                state.add_appeared(parent.to_owned());
                is_change = true;
            }
            if (self.excludes)(&relative, true) && (is_directory || (self.excludes)(&relative, false)) {
                continue;
            }
            is_change = true;
            let is_readable_now = state.denied.remove(path);
            state.changed.add(relative, !is_shallow || is_readable_now);
            if may_be_directory || is_readable_now {
                state.add_appeared(path.clone());
            }
        }
        is_change
    }

    /// Watches directories as they appear, on a thread of its own: the watcher's own thread must not wait for itself.
    fn manage(self: &Arc<Self>, mut directories: Directories) {
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
            // What was made in them before they were watched is found by a scan that begins now.
            if all_anew {
                directories.add_all(self);
                self.lock().changed = Changed { is_all: true, ..Changed::default() };
                (self.on_change)();
                continue;
            }
            let found: Vec<_> = appeared.into_iter().filter(|path| is_directory(path)).collect();
            let paths: Vec<_> = found.iter().filter_map(|path| self.relative(path)).collect();
            if !found.is_empty() {
                directories.add(self, found);
                let mut state = self.lock();
                paths.into_iter().for_each(|path| state.changed.add(path, true));
                drop(state);
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
    /// `None` until it is there, or if the system has none.
    watcher: Option<RecommendedWatcher>,
    admit: Box<dyn FnMut(u64) -> bool + Send>,
    kept_bytes: u64,
}

impl Directories {
    /// Watches the whole tree, from the beginning: which path is that of a directory is not known after events were lost.
    fn add_all(&mut self, shared: &Arc<Shared>) {
        // First, or there would be twice as many watches.
        (self.watcher, self.kept_bytes) = (None, 0);
        // Not of what is opened: a scan would fill the queue.
        let kinds = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE;
        let config = Config::default().with_follow_symlinks(false).with_event_kinds(kinds);
        let told = Arc::clone(shared);
        match RecommendedWatcher::new(move |event| told.take(event), config) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.add(shared, vec![shared.root.clone()]);
                let mut state = shared.lock();
                if state.denied.contains(&shared.root) {
                    // Nothing tells when it is there again.
                    state.unwatched.get_or_insert_with(|| WatchLimit::System.reached());
                }
            }
            Err(error) => shared.lock().unwatched = Some(limit_of(&error).reached()),
        }
    }

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
        let Some(watcher) = &mut self.watcher else { return Err(WatchLimit::System) };
        while let Err(UpdatePathsError { source, origin, remaining }) =
            watcher.update_paths(std::mem::take(&mut left))
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

/// The path in bytes beneath a directory, or that itself.
#[cfg(unix)]
pub fn join(root: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    if path.is_empty() { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(path)) }
}

#[cfg(not(unix))]
pub fn join(root: &Path, path: &[u8]) -> PathBuf {
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
        WatchLimit::System => state.lose_track(),
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

/// 4,096: a scan of more paths is no faster than one of a whole tree, as a rule.
const MAX_CHANGED: usize = 4096;

/// 512 KiB: 128 bytes each.
const MAX_CHANGED_LEN_BYTES: usize = 512 << 10;

/// 256: two entries in maps, beside the path in each.
const WATCH_COST_BYTES: u64 = 256;

#[cfg(test)]
mod tests;
