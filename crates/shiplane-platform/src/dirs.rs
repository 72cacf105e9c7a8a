//! Open handles of the directories that a transfer writes to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use shiplane_wire::RelPath;

use crate::{
    calls::{self, Sizes, Stat},
    lock,
    recent::Recent,
};

/// A directory beneath the destination directory, held open.
#[derive(Debug)]
pub struct DirHandle {
    /// Itself.
    pub dir: Dir,
    /// The file system it is on.
    pub device: u64,
}

/// Opens directories beneath the destination directory, each in one lookup that follows no link, and keeps the
/// last ones open: the files of a directory come one after another.
#[derive(Debug)]
pub struct Dirs {
    root: Arc<DirHandle>,
    open: Mutex<Recent<RelPath, Arc<DirHandle>>>,
    /// By file system, the directory that was opened first on it. As many as are mounted beneath the root.
    file_systems: Mutex<BTreeMap<u64, Arc<DirHandle>>>,
}

/// The file systems on which directories and files are listed.
#[derive(Debug)]
pub struct FileSystems {
    /// That of the last file, and which of its sizes are true.
    last: (u64, Sizes),
    /// The first directory that was entered on each of them.
    first: BTreeMap<u64, RelPath>,
}

impl Default for FileSystems {
    fn default() -> Self {
        Self { last: (u64::MAX, Sizes::True), first: BTreeMap::new() }
    }
}

impl FileSystems {
    /// A directory is entered.
    pub fn enter(&mut self, path: &RelPath, stat: &Stat) {
        self.first.entry(stat.device).or_insert_with(|| path.clone());
    }

    /// The first directory that was entered on each of them, which are forgotten.
    pub fn take(&mut self) -> BTreeMap<u64, RelPath> {
        std::mem::take(&mut self.first)
    }

    /// Whether the size of a file in `dir` is that of its content.
    pub fn has_true_size(&mut self, dir: &Dir, stat: &Stat) -> bool {
        if self.last.0 != stat.device {
            self.last = (stat.device, calls::sizes_of(dir));
        }
        self.last.1.is_true(stat.size_bytes)
    }
}

impl DirHandle {
    /// Of an open directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(dir: Dir) -> io::Result<Self> {
        let device = calls::stat_open(&dir)?.device;
        Ok(Self { dir, device })
    }
}

impl Dirs {
    /// Beneath `root`.
    pub fn new(root: Arc<DirHandle>) -> Self {
        let file_systems = BTreeMap::from([(root.device, Arc::clone(&root))]);
        Self { root, open: Mutex::default(), file_systems: file_systems.into() }
    }

    /// The destination directory.
    pub fn root(&self) -> &Arc<DirHandle> {
        &self.root
    }

    /// The directory `path`; `None` is the root.
    pub fn open(&self, path: Option<&RelPath>) -> io::Result<Arc<DirHandle>> {
        let Some(path) = path else {
            return Ok(Arc::clone(&self.root));
        };
        if let Some(handle) = lock(&self.open).find(path) {
            return Ok(handle);
        }
        let handle = Arc::new(DirHandle::new(calls::open_dir(&self.root.dir, path.as_bytes())?)?);
        lock(&self.file_systems).entry(handle.device).or_insert_with(|| Arc::clone(&handle));
        lock(&self.open).keep(path.clone(), Arc::clone(&handle), |_| true);
        Ok(handle)
    }

    /// A directory of each file system that any of them is on. They were opened before this program wrote there, so that
    /// they report every write error since.
    pub fn file_systems(&self) -> Vec<Arc<DirHandle>> {
        lock(&self.file_systems).values().map(Arc::clone).collect()
    }

    /// Closes the directory `path`, which is about to go.
    pub fn forget(&self, path: &RelPath) {
        lock(&self.open).forget(path);
    }

    /// The directory that `path` is in.
    pub fn parent_of(&self, path: &RelPath) -> io::Result<Arc<DirHandle>> {
        self.open(path.parent().as_ref())
    }
}
