//! A destination that reports each file when it is complete.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shiplane_files::internals::{Destination, DestinationError, PlacedCut, Plan, Summary};
use shiplane_protocols::internals::transfer::Target;
use shiplane_wire::{Digest, DigestAlgorithm, Entry, EntryKind, FailReason, Span};

use crate::tracker::Tracker;

/// A [`Destination`] with an event for each file.
///
/// It remembers the entries that are under way, of which there are no more than the transfer's
/// window allows (SPEC 4.10).
#[derive(Clone)]
pub(super) struct FileEvents {
    destination: Destination,
    /// Whether each file's digest is reported too; the file is then read once more, most likely out of the system's
    /// memory.
    sha256: bool,
    tracker: Arc<Tracker>,
    under_way: Arc<Mutex<HashMap<u64, Entry>>>,
}

impl FileEvents {
    pub(super) fn new(destination: Destination, sha256: bool, tracker: Arc<Tracker>) -> Self {
        Self { destination, sha256, tracker, under_way: Arc::default() }
    }

    fn planned(&self, index: u64, entry: &Entry, plan: &Plan) -> Result<(), DestinationError> {
        match (entry.kind, plan) {
            (EntryKind::Directory, _) | (EntryKind::File, Plan::Compare { .. } | Plan::Delta { .. }) => {
                Ok(())
            }
            (EntryKind::File, Plan::Done) => self.report(entry, false),
            (EntryKind::File, Plan::Want { .. }) => {
                self.under_way().insert(index, entry.clone());
                Ok(())
            }
        }
    }

    fn report(&self, entry: &Entry, received: bool) -> Result<(), DestinationError> {
        let sha256 = match self.sha256 {
            true => Some(self.destination.digest_of(entry, DigestAlgorithm::Sha256)?.to_string()),
            false => None,
        };
        let (path, bytes) = (entry.path.to_string(), entry.size_bytes);
        self.tracker.file(path, bytes, received, sha256);
        Ok(())
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for FileEvents {
    type Writer = <Destination as Target>::Writer;

    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        let plan = Target::plan(&self.destination, index, entry)?;
        self.planned(index, entry, &plan)?;
        Ok(plan)
    }

    fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        let plan = Target::compare(&self.destination, index, entry, theirs)?;
        self.planned(index, entry, &plan)?;
        Ok(plan)
    }

    fn follow(&self, index: u64, theirs: &[PlacedCut]) -> Result<(), DestinationError> {
        self.destination.follow(index, theirs)
    }

    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        let plan = self.destination.delta(index, entry, theirs)?;
        self.planned(index, entry, &plan)?;
        Ok(plan)
    }

    fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        self.destination.file_len_bytes(entry)
    }

    fn is_immediate(&self) -> bool {
        self.destination.is_immediate()
    }

    fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        self.destination.reserve(missing_bytes)
    }

    fn writer(&self, chunk: u64, spans: &[Span]) -> Result<Self::Writer, DestinationError> {
        self.destination.writer(chunk, spans)
    }

    fn publish(&self, entries: &[u64]) -> Result<(), DestinationError> {
        self.destination.publish(entries)?;
        for index in entries {
            let entry = self.under_way().remove(index);
            if let Some(entry) = entry {
                self.report(&entry, true)?;
            }
        }
        Ok(())
    }

    fn discard(&self, entry: u64, _reason: FailReason) -> Result<(), DestinationError> {
        self.under_way().remove(&entry);
        self.destination.discard(entry)
    }

    fn abandon(&self) {
        self.destination.abandon();
    }

    fn finish(self) -> Result<Summary, DestinationError> {
        self.destination.finish()
    }
}

impl fmt::Debug for FileEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileEvents").field("destination", &self.destination).finish_non_exhaustive()
    }
}
