//! What a sync may change: the files that the plan says, and no others.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use shiplane_wire::{Digest, Entry, EntryKind, RelPath};

use super::dataset::{Agreed, KeepAlive, View};
use super::left::{Left, UnresolvedReason};
use super::manifest::{FileState, Manifest};
use super::scan::SeenFiles;
use crate::{
    destination::Destination,
    error::DestinationError,
    lock,
    policy::{Admission, FileEvent, Policy, RenameMode},
    source::SourceRoot,
};

/// What one side works on.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) destination: Destination,
    pub(super) root: SourceRoot,
    pub(super) seen: Arc<SeenFiles>,
    pub(super) agreed: Arc<Agreed>,
    pub(super) left: Left,
    /// Of all the lists.
    _held: Option<KeepAlive>,
}

/// Takes what the plan says. What comes is checked as a whole against the other side's list before it gets its name,
/// and what it replaces is looked at once more right before that.
#[derive(Debug)]
pub(super) struct TakePolicy {
    shared: Shared,
    taken: HashMap<RelPath, FileState>,
    done: Mutex<BTreeSet<RelPath>>,
}

impl Shared {
    pub(super) fn new(view: View, destination: Destination, agreed: Agreed) -> Self {
        let View { root, seen, held: _held, .. } = view;
        Self { destination, root, seen, agreed: Arc::new(agreed), left: Left::default(), _held }
    }

    /// Whether what is at `path` is still what was listed. If not, or if that cannot be found out, it is left alone.
    pub(super) fn is_untouched(&self, path: &RelPath) -> bool {
        let why = match self.seen.is_unchanged(&self.root, path) {
            Ok(true) => return true,
            Ok(false) => UnresolvedReason::Changed,
            Err(error) => UnresolvedReason::unreadable(error.into()),
        };
        self.left.note(path, why);
        false
    }

    /// What a file may find at `path`, right now.
    pub(super) fn rename_mode(&self, path: &RelPath) -> RenameMode {
        let was_leaf = self.agreed.own.leaf(path).is_some();
        match was_leaf {
            _ if self.left.contains(path) => RenameMode::Refuse,
            true if self.is_untouched(path) => RenameMode::Replace,
            true => RenameMode::Refuse,
            false => RenameMode::New,
        }
    }

    fn merged(&self) -> &Manifest {
        &self.agreed.outcome.merged
    }
}

impl TakePolicy {
    /// Of the files `taken`, those that are `here` need not come.
    pub(super) fn new(
        shared: Shared,
        taken: HashMap<RelPath, FileState>,
        here: BTreeSet<RelPath>,
    ) -> Arc<Self> {
        Arc::new(Self { shared, taken, done: Mutex::new(here) })
    }

    /// Where it all lands. The destination itself is finished later.
    pub(super) fn destination(self: &Arc<Self>) -> Destination {
        self.shared.destination.clone().with_policy(Arc::<Self>::clone(self))
    }

    /// Everything has arrived, which is given; files that have not are left alone.
    pub(super) fn end(&self) -> BTreeSet<RelPath> {
        let done = lock(&self.done);
        for path in self.taken.keys().filter(|path| !done.contains(*path)) {
            self.shared.left.note(path, UnresolvedReason::NotOffered);
        }
        done.clone()
    }
}

impl Policy for TakePolicy {
    fn admit(&self, entry: &Entry) -> Result<Admission, DestinationError> {
        let Self { shared, taken, .. } = self;
        let not_requested = || DestinationError::NotRequested { path: entry.path.to_string() };
        match entry.kind {
            EntryKind::Directory if shared.merged().is_directory(&entry.path) => Ok(Admission::Compare),
            // They are in the lists.
            EntryKind::Directory | EntryKind::Symlink => Err(not_requested()),
            EntryKind::File => {
                let expected = taken.get(&entry.path).ok_or_else(not_requested)?;
                if expected.size_bytes != entry.size_bytes {
                    return Err(not_requested());
                }
                let is_settled = lock(&self.done).contains(&entry.path) || shared.left.contains(&entry.path);
                // Nothing is compared: the lists have told what differs.
                Ok(if is_settled { Admission::Skip } else { Admission::Replace })
            }
        }
    }

    fn expected_digest(&self, path: &RelPath) -> Option<Digest> {
        self.taken.get(path).map(|expected| expected.digest)
    }

    fn rename_mode(&self, path: &RelPath) -> Option<RenameMode> {
        Some(self.shared.rename_mode(path))
    }

    fn on_file(&self, path: &RelPath, _len_bytes: u64, event: FileEvent) -> Result<(), DestinationError> {
        let why = match event {
            FileEvent::Published => {
                lock(&self.done).insert(path.clone());
                return Ok(());
            }
            FileEvent::Failed(error) => UnresolvedReason::of(error),
            // A sync deletes by its plan.
            FileEvent::Removed { .. } => return Ok(()),
            // Somebody has put the same here meanwhile.
            FileEvent::Identical => UnresolvedReason::Changed,
            FileEvent::Unexpected => UnresolvedReason::NotAsListed,
            FileEvent::NotSent(reason) => UnresolvedReason::NotSent(reason),
        };
        self.shared.left.note(path, why);
        Ok(())
    }
}
