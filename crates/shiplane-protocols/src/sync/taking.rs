//! Where what the other side provides lands: the files that the plan says, and no others.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shiplane_files::internals::{
    DestinationError, PlacedCut, Plan, Summary,
    sync::{FileState, Prepared, Shared, Taken, UnresolvedReason},
};
use shiplane_wire::{Digest, Entry, EntryKind, FailReason, RelPath, Span};

use crate::transfer::Target;

/// A target that takes what the plan says. What comes is checked as a whole against the other side's list
/// before it gets its name, and what it replaces is looked at once more right before that.
#[derive(Clone, Debug)]
pub(crate) struct Taking(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    taken: HashMap<RelPath, FileState>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// By number of the entry.
    under_way: HashMap<u64, RelPath>,
    done: BTreeSet<RelPath>,
}

impl Taking {
    /// Where lands what this side takes, if it takes anything.
    pub(crate) fn of(prepared: &mut Prepared) -> Option<Self> {
        let Taken { files: taken, here } = prepared.taken.take()?;
        let progress = Mutex::new(Progress { under_way: HashMap::new(), done: here });
        Some(Self(Arc::new(Inner { shared: prepared.shared().clone(), taken, progress })))
    }

    /// `None` if it is not wanted: it is here, or has to be left alone.
    fn admit(&self, entry: &Entry) -> Result<Option<()>, DestinationError> {
        let Inner { shared: site, taken, .. } = &*self.0;
        let not_requested = || DestinationError::NotRequested { path: entry.path.to_string() };
        match entry.kind {
            EntryKind::Directory if site.merged().is_directory(&entry.path) => Ok(Some(())),
            EntryKind::Directory => Err(not_requested()),
            EntryKind::File => {
                let expected = taken.get(&entry.path).ok_or_else(not_requested)?;
                if expected.size_bytes != entry.size_bytes {
                    return Err(not_requested());
                }
                let is_settled =
                    self.progress().done.contains(&entry.path) || site.left.contains(&entry.path);
                Ok((!is_settled).then_some(()))
            }
        }
    }

    /// Of the complete `entries`, those that are what the other side has listed. The others are given up.
    fn checked(&self, entries: &[u64]) -> Result<Vec<u64>, DestinationError> {
        let Inner { shared: site, taken, .. } = &*self.0;
        let digests = site.destination.digests_of(entries)?;
        let mut checked = Vec::with_capacity(entries.len());
        for (entry, digest) in entries.iter().zip(digests) {
            let path = self.path_of(*entry)?;
            if taken.get(&path).is_some_and(|expected| expected.digest == digest) {
                checked.push(*entry);
            } else {
                site.destination.discard(*entry)?;
                site.left.note(&path, UnresolvedReason::NotAsListed);
            }
        }
        Ok(checked)
    }

    fn path_of(&self, entry: u64) -> Result<RelPath, DestinationError> {
        self.progress().under_way.get(&entry).cloned().ok_or(DestinationError::NotWanted { entry })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each change is one step.
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for Taking {
    type Writer = <shiplane_files::internals::Destination as Target>::Writer;

    fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        let Shared { destination, left, .. } = &self.0.shared;
        if self.admit(entry)?.is_none() {
            return Ok(Plan::Done);
        }
        let planned = match entry.kind {
            EntryKind::Directory => Target::plan(destination, index, entry),
            EntryKind::File => destination.plan_anew(index, entry),
        };
        match planned {
            Ok(plan) => {
                if entry.kind == EntryKind::File {
                    self.progress().under_way.insert(index, entry.path.clone());
                }
                Ok(plan)
            }
            Err(error) => left.failed(&entry.path, error).map(|()| Plan::Done),
        }
    }

    fn compare(&self, index: u64, _entry: &Entry, _theirs: Digest) -> Result<Plan, DestinationError> {
        // Nothing is compared: the lists have told what differs.
        Err(DestinationError::NotWanted { entry: index })
    }

    fn follow(&self, index: u64, theirs: &[PlacedCut]) -> Result<(), DestinationError> {
        self.0.shared.destination.follow(index, theirs)
    }

    fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        let plan = self.0.shared.destination.delta(index, entry, theirs)?;
        if plan == Plan::Done {
            // Somebody has put the same here meanwhile.
            self.0.shared.left.note(&entry.path, UnresolvedReason::Changed);
        }
        Ok(plan)
    }

    fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        self.0.shared.destination.reserve(missing_bytes)
    }

    fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        self.0.shared.destination.file_len_bytes(entry)
    }

    fn is_immediate(&self) -> bool {
        self.0.shared.destination.is_immediate()
    }

    fn writer(&self, chunk: u64, spans: &[Span]) -> Result<Self::Writer, DestinationError> {
        Target::writer(&self.0.shared.destination, chunk, spans)
    }

    fn publish(&self, entries: &[u64]) -> Result<(), DestinationError> {
        let Shared { destination, left, .. } = &self.0.shared;
        let checked = self.checked(entries)?;
        let refused = destination.publish_where(&checked, &|path| self.0.shared.place(path))?;
        let mut progress = self.progress();
        for entry in checked {
            let Some(path) = progress.under_way.remove(&entry) else { continue };
            if refused.contains(&entry) {
                left.note(&path, UnresolvedReason::Changed);
            } else {
                progress.done.insert(path);
            }
        }
        Ok(())
    }

    fn discard(&self, entry: u64, reason: FailReason) -> Result<(), DestinationError> {
        let path = self.path_of(entry)?;
        self.0.shared.left.note(&path, UnresolvedReason::NotSent(reason));
        self.0.shared.destination.discard(entry)
    }

    fn abandon(&self) {
        self.0.shared.destination.abandon();
    }

    /// What has not come is left alone. The destination itself is finished later.
    fn finish(self) -> Result<Summary, DestinationError> {
        let progress = self.progress();
        for path in self.0.taken.keys().filter(|path| !progress.done.contains(*path)) {
            self.0.shared.left.note(path, UnresolvedReason::NotOffered);
        }
        let published_files = progress.done.len() as u64;
        Ok(Summary { published_files, ..Summary::default() })
    }
}
