//! A cache of open temporary files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use crate::{error::DestinationError, lock, platform};

/// Keeps the last files open, so that each chunk of a large file need not open it again.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    slots: HashMap<u64, (Slot, u64)>,
    uses: u64,
}

/// Locked while its file is opened, so that two writers do not both create it, and others need not wait.
type Slot = Arc<Mutex<Option<Arc<SharedFile>>>>;

/// An open file that several chunks are written to, one at a time: writers of one inode would only spin
/// on its lock in the kernel, and burn the cores that the others need.
#[derive(Debug)]
pub(super) struct SharedFile {
    file: File,
    turn: Mutex<()>,
}

impl SharedFile {
    pub(super) fn new(file: File) -> Self {
        Self { file, turn: Mutex::new(()) }
    }

    /// For anything but writing.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `data` at `offset_bytes`, when no other writer is at it.
    pub(super) fn write_all_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.turn);
        platform::write_all_at(&self.file, offset_bytes, data)
    }
}

impl Handles {
    /// The file `id`, opened by `open` if it is not.
    pub(super) fn get(
        &self,
        id: u64,
        open: impl FnOnce() -> Result<File, DestinationError>,
    ) -> Result<Arc<SharedFile>, DestinationError> {
        let slot = lock(&self.0).slot(id);
        let mut held = lock(&slot);
        if let Some(file) = held.as_ref() {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(SharedFile::new(open()?));
        *held = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Closes the file `id` as soon as nobody writes to it any more.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.0).slots.remove(&id);
    }
}

impl Slots {
    fn slot(&mut self, id: u64) -> Slot {
        self.uses += 1;
        if let Some((slot, used)) = self.slots.get_mut(&id) {
            *used = self.uses;
            return Arc::clone(slot);
        }
        if self.slots.len() >= MAX_OPEN_FILES {
            // One that somebody is opening just now must not be opened a second time.
            let idle = self.slots.iter().filter(|(_, (slot, _))| Arc::strong_count(slot) == 1);
            if let Some(oldest) = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) {
                self.slots.remove(&oldest);
            }
        }
        let slot = Slot::default();
        self.slots.insert(id, (Arc::clone(&slot), self.uses));
        slot
    }
}

/// As many as chunks may be on their way at once; with the directories and what the writers hold it stays
/// far below the usual limit of 1,024.
const MAX_OPEN_FILES: usize = 64;
