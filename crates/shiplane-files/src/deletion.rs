//! Remembers the paths that the peer has sent, so that all others can be deleted (`--delete`).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use shiplane_wire::RelPath;

use crate::{
    buffers::{CountedMemory, room_for_more},
    error::DestinationError,
    lock,
};

/// A destination whose surplus is removed at the end, unless something of the transfer is left out.
#[derive(Debug)]
pub(super) struct Deletion {
    /// Whether most of the files may go.
    consent: bool,
    sent: Mutex<SentPaths>,
    is_withheld: AtomicBool,
}

/// The paths that the peer has sent, 8 bytes each. Two that look alike keep a file that could be removed; a peer cannot
/// choose them.
#[derive(Debug)]
struct SentPaths {
    key: RandomState,
    hashes: Vec<u64>,
    is_sorted: bool,
    memory: Box<dyn CountedMemory>,
    /// There were more than there is memory for.
    is_full: bool,
}

impl SentPaths {
    fn insert(&mut self, path: &[u8]) {
        self.is_sorted = false;
        if self.hashes.len() == self.hashes.capacity() {
            match room_for_more(&mut *self.memory, self.hashes.len(), SENT_PATHS, 8) {
                Some(more) => self.hashes.reserve_exact(more),
                None => self.is_full = true,
            }
        }
        if !self.is_full {
            self.hashes.push(self.key.hash_one(path));
        }
    }

    fn contains(&mut self, path: &[u8]) -> bool {
        if !std::mem::replace(&mut self.is_sorted, true) {
            self.hashes.sort_unstable();
        }
        self.hashes.binary_search(&self.key.hash_one(path)).is_ok()
    }
}

impl Deletion {
    pub(super) fn new(consent: bool, memory: Box<dyn CountedMemory>) -> Self {
        let key = RandomState::new();
        let sent = SentPaths { key, hashes: Vec::new(), is_sorted: true, memory, is_full: false };
        Self { consent, sent: Mutex::new(sent), is_withheld: AtomicBool::new(false) }
    }

    /// Notes a path that the peer has.
    pub(super) fn sent(&self, path: &RelPath, folds: bool) {
        lock(&self.sent).insert(&spelling(path, folds));
    }

    /// Whether the path was.
    pub(super) fn was_sent(&self, path: &RelPath, folds: bool) -> bool {
        lock(&self.sent).contains(&spelling(path, folds))
    }

    /// Checks that all that was sent is remembered.
    pub(super) fn check_complete(&self) -> Result<(), DestinationError> {
        match lock(&self.sent).is_full {
            true => Err(DestinationError::TooManyToDelete { max: MAX_SENT_PATHS }),
            false => Ok(()),
        }
    }

    pub(super) fn has_consent(&self) -> bool {
        self.consent
    }

    pub(super) fn is_withheld(&self) -> bool {
        self.is_withheld.load(Ordering::Relaxed)
    }

    /// Something is left out: it cannot be told from what the peer does not have.
    pub(super) fn withhold(&self) {
        self.is_withheld.store(true, Ordering::Relaxed);
    }
}

/// As the peer's paths are compared with those that are here.
fn spelling(path: &RelPath, folds: bool) -> Vec<u8> {
    if folds { path.as_bytes().to_ascii_lowercase() } else { path.as_bytes().to_vec() }
}

/// 2,097,152: 16 MiB of them.
const MAX_SENT_PATHS: usize = 2 << 20;

/// At least 8 KiB.
const SENT_PATHS: (usize, usize) = (1 << 10, MAX_SENT_PATHS);
