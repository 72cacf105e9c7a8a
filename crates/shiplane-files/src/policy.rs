//! The policy hook of a destination: decides what may be written, and receives an event for each file.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use shiplane_wire::{Digest, Entry, LeftOutReason, LinkTarget, RelPath};

use crate::{error::DestinationError, lock};

/// The rules for what a [`Destination`](crate::destination::Destination) writes. Called on blocking threads. By default everything
/// may be written that the destination's options allow.
pub trait Policy: Send + Sync {
    /// Decides whether an entry may be written, before it is planned.
    ///
    /// # Errors
    /// Ends the transfer.
    fn admit(&self, entry: &Entry) -> Result<Admission, DestinationError> {
        let _ = entry;
        Ok(Admission::Compare)
    }

    /// The digest that a complete file must have to get its name. The file is read for it.
    fn expected_digest(&self, path: &RelPath) -> Option<Digest> {
        let _ = path;
        None
    }

    /// How a file is renamed to its final name. Called right before that. `None`: as the options say.
    fn rename_mode(&self, path: &RelPath) -> Option<RenameMode> {
        let _ = path;
        None
    }

    /// Takes note of what has become of a file of `len_bytes`, by its path at the peer.
    ///
    /// # Errors
    /// Ends the transfer.
    fn on_file(&self, path: &RelPath, len_bytes: u64, event: FileEvent) -> Result<(), DestinationError> {
        let _ = (path, len_bytes, event);
        Ok(())
    }
}

/// No rules beside the options.
impl Policy for () {}

/// For copies within a destination, renamed as `mode_of` says: notes what has become of them.
pub(super) struct CopyPolicy<'a> {
    mode_of: &'a (dyn Fn(&RelPath) -> RenameMode + Sync),
    outcomes: Mutex<CopyOutcomes>,
}

/// The copies that have their names, and the last failure.
#[derive(Debug, Default)]
pub(super) struct CopyOutcomes {
    pub(super) done: BTreeSet<RelPath>,
    pub(super) failed: Option<Arc<DestinationError>>,
}

impl<'a> CopyPolicy<'a> {
    pub(super) fn new(mode_of: &'a (dyn Fn(&RelPath) -> RenameMode + Sync)) -> Self {
        Self { mode_of, outcomes: Mutex::default() }
    }

    pub(super) fn outcomes(self) -> CopyOutcomes {
        std::mem::take(&mut lock(&self.outcomes))
    }
}

impl Policy for CopyPolicy<'_> {
    fn rename_mode(&self, path: &RelPath) -> Option<RenameMode> {
        Some((self.mode_of)(path))
    }

    fn on_file(&self, path: &RelPath, _len_bytes: u64, event: FileEvent) -> Result<(), DestinationError> {
        let mut outcomes = lock(&self.outcomes);
        if matches!(event, FileEvent::Published) {
            outcomes.done.insert(path.clone());
        } else if let FileEvent::Failed(error) = event {
            outcomes.failed = Some(error);
        }
        Ok(())
    }
}

/// Which symbolic links are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkPolicy {
    /// All, as they are.
    #[default]
    All,
    /// Those that lead nowhere outside of the tree (SPEC 4.27).
    Inside,
    /// None.
    Skip,
}

impl LinkPolicy {
    /// Why the link at `path` is left out, if it is.
    pub fn refusal(self, path: &RelPath, target: &LinkTarget) -> Option<LeftOutReason> {
        match self {
            Self::All => None,
            Self::Inside if target.stays_inside(path.components().count() - 1) => None,
            Self::Inside => Some(LeftOutReason::LinkLeadsOut),
            Self::Skip => Some(LeftOutReason::Symlink),
        }
    }
}

/// Whether an entry may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// What is there already is compared with it.
    Compare,
    /// It is known not to be what is there: nothing is compared.
    Replace,
    /// It is not wanted.
    Skip,
}

/// What has become of a file.
#[derive(Debug)]
pub enum FileEvent {
    /// It was there already, with the same content.
    Identical,
    /// It has its name.
    Published,
    /// It came with another digest than was expected, and is given up.
    Unexpected,
    /// The peer does not have it, and it was removed.
    Removed {
        /// Whether it was a directory.
        is_directory: bool,
    },
    /// The peer cannot send it.
    NotSent(LeftOutReason),
    /// This side leaves it out; everything else goes on. Also of a directory.
    Failed(Arc<DestinationError>),
}

/// How a file is renamed to its final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Fails if the name exists.
    New,
    /// Replaces an existing file.
    Replace,
    /// Does not rename: what has the name must stay.
    Refuse,
}
