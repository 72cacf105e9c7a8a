//! Paths that a sync left alone.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use shiplane_wire::{LeftOutReason, RelPath};

use super::manifest::Stamp;
use crate::{
    error::{DestinationError, Operation, SourceError},
    lock,
};

/// Why something was not done at a path. Nothing is lost by that: both sides keep what they have there, and
/// the next sync looks at it anew. Its text is safe to print.
#[derive(Clone, Debug)]
pub enum UnresolvedReason {
    /// It is not any more what it was when this side was listed.
    Changed,
    /// The other side has not offered it: it has left the path alone itself.
    NotOffered,
    /// The other side could not send it.
    NotSent(LeftOutReason),
    /// The content differs from the other side's list.
    NotAsListed,
    /// This side's system does not let us change it, or cannot hold such a name. See to the disk or the name.
    Failed(Arc<DestinationError>),
    /// It is as planned, but this side's system does not let us set its mode, time or attributes: it has these.
    NotSet(Arc<DestinationError>, Stamp),
    /// This side's system does not let us read what is there. See to the disk or its mode.
    Unreadable(Arc<SourceError>),
    /// There is something in the directory that is not synced, so that it stays.
    NotEmpty,
    /// Not all of its attributes can be carried; everything else of it is.
    Stripped,
    /// The other side says so, with what its system says, escaped, if that is the cause.
    LeftThere(LeftOutReason, Box<str>),
    /// The side that takes the changes of a sync in one direction has a version of its own.
    OwnVersion,
}

impl UnresolvedReason {
    /// As it is sent to the other side.
    pub fn reason(&self) -> LeftOutReason {
        match self {
            Self::Changed | Self::NotOffered | Self::NotAsListed => LeftOutReason::Changed,
            Self::NotSent(reason) | Self::LeftThere(reason, _) => *reason,
            Self::Failed(error) | Self::NotSet(error, _) => {
                error.left_out_reason(true).unwrap_or(LeftOutReason::Failed)
            }
            Self::Unreadable(_) => LeftOutReason::Unreadable,
            Self::NotEmpty => LeftOutReason::NotEmpty,
            Self::Stripped => LeftOutReason::Attributes,
            Self::OwnVersion => LeftOutReason::InTheWay,
        }
    }

    /// What this side's system says, if that is the cause. Nothing in it is only for this side to know.
    pub fn cause(&self) -> String {
        let failed =
            if let Self::Failed(error) | Self::NotSet(error, _) = self { error.source() } else { None };
        let unread = if let Self::Unreadable(error) = self { error.source() } else { None };
        failed.or(unread).map(ToString::to_string).unwrap_or_default()
    }

    /// The mode and time that it has, if only these or its attributes are not as planned.
    pub fn stamp(&self) -> Option<Stamp> {
        if let Self::NotSet(_, stamp) = self { Some(*stamp) } else { None }
    }

    /// Notes the mode and time that `found` says, if only these or attributes could not be set.
    pub(super) fn note_stamp(&mut self, found: impl FnOnce() -> Option<Stamp>) {
        if let Self::Failed(error) = self
            && let DestinationError::PermissionDenied { operation: Operation::SetMetadata, .. }
            | DestinationError::AttributesRefused { .. } = **error
            && let Some(stamp) = found()
        {
            *self = Self::NotSet(Arc::clone(error), stamp);
        }
    }

    /// Whether this side's system is the cause.
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Unreadable(_))
    }

    /// Why a path is left alone after a failure that concerns nothing else.
    ///
    /// # Errors
    /// What concerns everything: a full or broken disk, or a peer that breaks the protocol.
    pub(super) fn after(error: DestinationError) -> Result<Self, DestinationError> {
        if error.left_out_reason(true).is_none() {
            return Err(error);
        }
        Ok(Self::of(error.into()))
    }

    /// Why a path is left alone after a failure that is known to concern nothing else.
    pub(super) fn of(error: Arc<DestinationError>) -> Self {
        match &*error {
            DestinationError::Exists { .. } | DestinationError::WrongKind { .. } => Self::Changed,
            DestinationError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Self::Changed,
            DestinationError::Io { source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Self::NotEmpty
            }
            _ => Self::Failed(error),
        }
    }

    /// Why a path is left alone at which nothing could be looked at or read.
    pub(super) fn unreadable(error: Arc<SourceError>) -> Self {
        let is_unreadable = matches!(*error, SourceError::Unreadable { .. });
        if is_unreadable { Self::Unreadable(error) } else { Self::Changed }
    }
}

impl fmt::Display for UnresolvedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("it changed meanwhile"),
            Self::NotOffered => f.write_str("the other side does not offer it any more"),
            Self::NotSent(reason) => write!(f, "the other side could not send it: {reason}"),
            Self::NotAsListed => f.write_str("what came is not what the other side had listed"),
            Self::Failed(error) | Self::NotSet(error, _) => error.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
            Self::NotEmpty => f.write_str("something in it is not synced"),
            Self::Stripped => f.write_str("not all of its extended attributes can be carried"),
            Self::LeftThere(reason, cause) if cause.is_empty() => write!(f, "left out there: {reason}"),
            Self::LeftThere(reason, cause) => write!(f, "left out there: {reason}: {cause}"),
            Self::OwnVersion => f.write_str("changed on this side too; a one-way sync keeps it"),
        }
    }
}

/// The paths that one side leaves alone. A handle: clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Left(Arc<Mutex<BTreeMap<RelPath, UnresolvedReason>>>);

impl Left {
    /// The first reason counts.
    pub(super) fn note(&self, path: &RelPath, why: UnresolvedReason) {
        let mut left = lock(&self.0);
        // A path that is missing because its directory is missing has not changed.
        let above = std::iter::successors(path.parent(), RelPath::parent);
        let cause = match why {
            UnresolvedReason::Changed => {
                above.filter_map(|above| left.get(&above)).find(|why| why.is_failure()).cloned()
            }
            _ => None,
        };
        left.entry(path.clone()).or_insert_with(|| cause.unwrap_or(why));
    }

    /// Leaves `path` alone if the failure concerns nothing else.
    ///
    /// # Errors
    /// What concerns everything: a full or broken disk, or a peer that breaks the protocol.
    pub(super) fn failed(&self, path: &RelPath, error: DestinationError) -> Result<(), DestinationError> {
        self.note(path, UnresolvedReason::after(error)?);
        Ok(())
    }

    /// Whether `path` is left alone.
    pub(super) fn contains(&self, path: &RelPath) -> bool {
        lock(&self.0).contains_key(path)
    }

    pub(super) fn take(&self) -> BTreeMap<RelPath, UnresolvedReason> {
        std::mem::take(&mut *lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameRefused;

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
        let taken: Vec<_> = left.take().into_iter().map(|(path, why)| (path, why.to_string())).collect();
        assert_eq!(taken, [(path.clone(), message)]);
        let full = DestinationError::NoSpace { path: name(), needed_bytes: 2, available_bytes: 1 };
        assert!(matches!(left.failed(&path, full), Err(DestinationError::NoSpace { .. })));
        assert!(matches!(
            left.failed(&path, DestinationError::NotRequested { path: name() }),
            Err(DestinationError::NotRequested { .. })
        ));
        assert!(!left.contains(&path));
    }

    #[test]
    fn a_path_whose_directory_is_missing_has_the_reason_of_the_directory() {
        let left = Left::default();
        let [above, within, other] =
            ["d", "d/e/f", "other"].map(|path| RelPath::parse(path.as_bytes()).unwrap());
        let source = || io::ErrorKind::ReadOnlyFilesystem.into();
        let failed = |path: &RelPath| DestinationError::io(Operation::Create, path.as_bytes(), source());
        left.failed(&above, failed(&above)).unwrap();
        for path in [&within, &other] {
            left.failed(path, DestinationError::io(Operation::Open, b"", io::ErrorKind::NotFound.into()))
                .unwrap();
        }
        let taken = left.take();
        assert_eq!(taken[&within].to_string(), failed(&above).to_string());
        assert!(matches!(taken[&other], UnresolvedReason::Changed));
    }

    #[test]
    fn a_directory_that_is_not_empty_is_no_failure_of_the_disk() {
        let error = DestinationError::io(Operation::Remove, b"d", io::ErrorKind::DirectoryNotEmpty.into());
        assert!(matches!(UnresolvedReason::after(error), Ok(UnresolvedReason::NotEmpty)));
    }
}
