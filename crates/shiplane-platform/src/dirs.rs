//! Open handles of the directories that a transfer writes to.

use std::io;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use shiplane_wire::RelPath;

use crate::{calls, lock, recent::Recent};

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
        Self { root, open: Mutex::default() }
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
        lock(&self.open).keep(path.clone(), Arc::clone(&handle), |_| true);
        Ok(handle)
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
