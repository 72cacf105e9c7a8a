//! Open handles of the directories that a transfer writes to.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use shiplane_wire::RelPath;

use crate::{lock, platform};

/// A directory beneath the landing root, held open.
#[derive(Debug)]
pub(super) struct DirHandle {
    pub(super) dir: Dir,
    /// The file system it is on.
    pub(super) device: u64,
}

/// Opens directories beneath the landing root, each in one lookup that follows no link, and keeps the
/// last ones open: the files of a directory come one after another.
#[derive(Debug)]
pub(super) struct Dirs {
    root: Arc<DirHandle>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    handles: HashMap<RelPath, (Arc<DirHandle>, u64)>,
    uses: u64,
}

impl DirHandle {
    pub(super) fn new(dir: Dir) -> io::Result<Self> {
        let device = platform::stat_open(&dir)?.device;
        Ok(Self { dir, device })
    }
}

impl Dirs {
    pub(super) fn new(root: Arc<DirHandle>) -> Self {
        Self { root, cache: Mutex::default() }
    }

    /// The landing root.
    pub(super) fn root(&self) -> &Arc<DirHandle> {
        &self.root
    }

    /// The directory `path`; `None` is the root.
    pub(super) fn open(&self, path: Option<&RelPath>) -> io::Result<Arc<DirHandle>> {
        let Some(path) = path else {
            return Ok(Arc::clone(&self.root));
        };
        if let Some(handle) = lock(&self.cache).find(path) {
            return Ok(handle);
        }
        let handle = Arc::new(DirHandle::new(platform::open_dir(&self.root.dir, path.as_bytes())?)?);
        lock(&self.cache).keep(path.clone(), &handle);
        Ok(handle)
    }

    /// Closes the directory `path`, which is about to go.
    pub(super) fn forget(&self, path: &RelPath) {
        lock(&self.cache).handles.remove(path);
    }

    /// The directory that `path` is in.
    pub(super) fn parent_of(&self, path: &RelPath) -> io::Result<Arc<DirHandle>> {
        self.open(path.parent().as_ref())
    }
}

impl Cache {
    fn find(&mut self, path: &RelPath) -> Option<Arc<DirHandle>> {
        self.uses += 1;
        let (handle, used) = self.handles.get_mut(path)?;
        *used = self.uses;
        Some(Arc::clone(handle))
    }

    fn keep(&mut self, path: RelPath, handle: &Arc<DirHandle>) {
        if self.handles.len() >= MAX_OPEN_DIRS {
            let oldest = self.handles.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                self.handles.remove(&oldest);
            }
        }
        self.handles.insert(path, (Arc::clone(handle), self.uses));
    }
}

/// As deep as a path may be, so that a walk to the bottom and back finds each level open.
const MAX_OPEN_DIRS: usize = 64;
