//! What a sync leaves alone, for the next one to settle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shiplane_wire::RelPath;

use crate::files::DestinationError;

/// Why something was not done at a path. Nothing is lost by that: both sides keep what they have there, and
/// the next sync looks at it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftWhy {
    /// It is not any more what it was when this side was listed.
    Changed,
    /// The other side could not provide it any more.
    NotProvided,
    /// What came is not what the other side had listed.
    NotAsListed,
    /// The system does not let us, or cannot hold such a name; in its words, safe to print.
    Failed(String),
    /// The other side says so, and not why.
    LeftThere,
}

impl std::fmt::Display for LeftWhy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed => f.write_str("it changed meanwhile"),
            Self::NotProvided => f.write_str("it changed on the other side meanwhile"),
            Self::NotAsListed => f.write_str("what came is not what the other side had listed"),
            Self::Failed(message) => f.write_str(message),
            Self::LeftThere => f.write_str("the other side left it as it was"),
        }
    }
}

/// The paths that one side leaves alone. A handle: clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Left(Arc<Mutex<BTreeMap<RelPath, LeftWhy>>>);

impl Left {
    /// The first reason counts.
    pub(super) fn note(&self, path: &RelPath, why: LeftWhy) {
        self.lock().entry(path.clone()).or_insert(why);
    }

    /// Leaves `path` alone if the failure concerns nothing else.
    ///
    /// # Errors
    /// What concerns everything: a full or broken disk, or a peer that breaks the protocol.
    pub(super) fn failed(&self, path: &RelPath, error: DestinationError) -> Result<(), DestinationError> {
        match error {
            DestinationError::NoSpace { .. }
            | DestinationError::QuotaExceeded { .. }
            | DestinationError::Poisoned { .. }
            | DestinationError::Busy { .. }
            | DestinationError::TooLarge { .. }
            | DestinationError::Duplicate { .. }
            | DestinationError::NotRequested { .. }
            | DestinationError::NotWanted { .. }
            | DestinationError::SpanOutside { .. }
            | DestinationError::ChunkLength { .. }
            | DestinationError::Unfinished { .. } => Err(error),
            DestinationError::Exists { .. } | DestinationError::WrongKind { .. } => {
                self.note(path, LeftWhy::Changed);
                Ok(())
            }
            DestinationError::NameRefused { .. }
            | DestinationError::NameCollision { .. }
            | DestinationError::NoParent { .. }
            | DestinationError::Altered { .. }
            | DestinationError::PermissionDenied { .. }
            | DestinationError::ParentMissing { .. }
            | DestinationError::Io { .. } => {
                self.note(path, LeftWhy::Failed(error.to_string()));
                Ok(())
            }
        }
    }

    pub(super) fn contains(&self, path: &RelPath) -> bool {
        self.lock().contains_key(path)
    }

    pub(super) fn take(&self) -> BTreeMap<RelPath, LeftWhy> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RelPath, LeftWhy>> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::NameRefused;

    #[test]
    fn a_name_that_cannot_be_held_here_is_left_and_a_full_disk_ends_it_all() {
        let (left, path) = (Left::default(), RelPath::parse(b"a\\b").unwrap());
        let name = || path.to_string();
        let reason = NameRefused::ReservedByte { byte: b'\\' };
        let refused = DestinationError::NameRefused { path: name(), reason };
        let message = refused.to_string();
        left.failed(&path, refused).unwrap();
        // What comes second is but a consequence.
        left.failed(&path, DestinationError::Exists { path: name() }).unwrap();
        assert!(left.contains(&path));
        assert_eq!(left.take().into_iter().collect::<Vec<_>>(), [(path.clone(), LeftWhy::Failed(message))]);
        let full = DestinationError::NoSpace { path: name(), needed_bytes: 2, available_bytes: 1 };
        assert!(matches!(left.failed(&path, full), Err(DestinationError::NoSpace { .. })));
        assert!(matches!(
            left.failed(&path, DestinationError::NotRequested { path: name() }),
            Err(DestinationError::NotRequested { .. })
        ));
        assert!(!left.contains(&path));
    }
}
