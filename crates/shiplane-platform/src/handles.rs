//! A cache of open temporary files.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use crate::{calls, lock, recent::Recent};

/// Keeps the last files open, so that each chunk of a large file need not open it again.
#[derive(Debug, Default)]
pub struct Handles(Mutex<Recent<u64, Slot>>);

/// Locked while its file is opened, so that two writers do not both create it, and others need not wait.
type Slot = Arc<Mutex<Option<Arc<SharedFile>>>>;

/// An open file that several chunks are written to, one at a time: writers of one inode would only spin
/// on its lock in the kernel, and burn the cores that the others need.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    turn: Mutex<()>,
}

impl SharedFile {
    /// Shares `file`.
    pub fn new(file: File) -> Self {
        Self { file, turn: Mutex::new(()) }
    }

    /// For anything but writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `data` at `offset_bytes`, when no other writer is at it.
    pub fn write_all_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.turn);
        calls::write_all_at(&self.file, offset_bytes, data)
    }
}

impl Handles {
    /// The file `id`, opened by `open` if it is not.
    pub fn get<E>(&self, id: u64, open: impl FnOnce() -> Result<File, E>) -> Result<Arc<SharedFile>, E> {
        let slot = self.slot(id);
        let mut held = lock(&slot);
        if let Some(file) = held.as_ref() {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(SharedFile::new(open()?));
        *held = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Closes the file `id` as soon as its last writer is done.
    pub fn forget(&self, id: u64) {
        lock(&self.0).forget(&id);
    }

    fn slot(&self, id: u64) -> Slot {
        let mut slots = lock(&self.0);
        slots.find(&id).unwrap_or_else(|| {
            let slot = Slot::default();
            // One that somebody is opening just now must not be opened a second time.
            slots.keep(id, Arc::clone(&slot), |slot| Arc::strong_count(slot) == 1);
            slot
        })
    }
}
