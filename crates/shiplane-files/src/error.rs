//! Errors of the disks on both sides, sorted by whose fault they are.

use std::fmt;
use std::io;

use shiplane_wire::{LeftOutReason, PathRefused, escape};
use thiserror::Error;

use crate::{
    names::NameRefused,
    platform::{self, Kind},
};

/// Whose fault a [`DestinationError`] is, and so which exit code a program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// A rule forbids it: a name, an existing file, another run.
    Refused,
    /// The local disk failed, is full or does not permit it.
    LocalIo,
    /// The peer, or the caller, broke the order of a transfer.
    Protocol,
    /// What is on the disk is not what was written there.
    Integrity,
}

/// Why something could not be received into a [`Destination`](crate::destination::Destination).
///
/// Every path in it is escaped and safe to print.
#[derive(Debug, Error)]
pub enum DestinationError {
    /// A different file has the name. Choose another destination or allow overwriting; nothing was changed.
    #[error("{path} exists and is different; move it away or allow overwriting")]
    Exists {
        /// The file.
        path: String,
    },
    /// A directory has the name of a file to come, or the other way round. It is never replaced, not even
    /// when overwriting: move it away.
    #[error("{path} is {found}, where {wanted} must go; move it away")]
    WrongKind {
        /// What is in the way.
        path: String,
        /// What it is.
        found: Kind,
        /// What was to be put there.
        wanted: Kind,
    },
    /// The name cannot be used here. Rename the file at the source.
    #[error("the name {path} is refused: {reason}")]
    NameRefused {
        /// The path as the peer named it.
        path: String,
        /// The rule it breaks.
        reason: NameRefused,
    },
    /// Two names of the transfer are one name on this file system, which folds case or normalises.
    /// Rename one at the source or receive into another file system.
    #[error("{path} is the same name as an earlier one on this file system; rename one at the source")]
    NameCollision {
        /// The later of the two.
        path: String,
    },
    /// The directory that it is in was left out, for this reason.
    #[error("{path} is in a directory that was left out ({reason})")]
    InLeftOut {
        /// The path.
        path: String,
        /// Why the directory was left out.
        reason: LeftOutReason,
    },
    /// Another run of the same job holds its journal. Wait for it or end it.
    #[error("another run of this transfer is at work here (it holds {journal}); wait for it or end it")]
    Busy {
        /// The journal that is locked.
        journal: String,
    },
    /// The memory for what interrupted runs have left is in use by others. Run it again when one of them has ended.
    #[error(
        "too many interrupted transfers are resumed here at a time; run this one again in a moment, what was kept stays"
    )]
    NoMemory,

    /// The peer has more for us than is taken from one.
    #[error("the transfer has {total_bytes} bytes or more, and at most {max_bytes} are taken")]
    TooLarge {
        /// What was announced so far.
        total_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },

    /// The peer named the same path twice.
    #[error("the peer sent {path} twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// The peer sent an entry before the directory it is in, or below a file.
    #[error("the peer sent {path}, but not as a directory what it is in")]
    NoParent {
        /// The path.
        path: String,
    },
    /// The peer sent something other than the one file that was asked for.
    #[error("the peer sent {path}, which was not asked for")]
    NotRequested {
        /// The path.
        path: String,
    },
    /// Bytes came, or were to be published, for an entry that is not wanted, or not any more.
    #[error("entry {entry} is not wanted at this point")]
    NotWanted {
        /// Number of the entry.
        entry: u64,
    },
    /// A span lies outside its file or is empty.
    #[error("a span of chunk {chunk} lies outside of entry {entry}")]
    SpanOutside {
        /// Index of the chunk.
        chunk: u64,
        /// Number of the entry.
        entry: u64,
    },
    /// A chunk has another length than its spans.
    #[error("chunk {chunk} has {actual_bytes} bytes, its spans have {expected_bytes}")]
    ChunkLength {
        /// Index of the chunk.
        chunk: u64,
        /// What was written so far, or what was verified.
        actual_bytes: u64,
        /// What the spans add up to.
        expected_bytes: u64,
    },
    /// The transfer was finished while files were neither published nor discarded.
    #[error("{files} files are not complete")]
    Unfinished {
        /// How many.
        files: usize,
    },

    /// A temporary file is not as it was written; somebody else changed it. Run the transfer again.
    #[error("{path} was changed by somebody else while it was received; run the transfer again")]
    Altered {
        /// The file it was to become.
        path: String,
    },

    /// The disk is full or will be. Free space and run the transfer again; it resumes.
    #[error(
        "no space for {path}: {needed_bytes} bytes needed, {available_bytes} available; \
         free space and run the transfer again"
    )]
    NoSpace {
        /// What was to be written.
        path: String,
        /// How much was to be written.
        needed_bytes: u64,
        /// How much the file system has left for us; 0 if it does not say.
        available_bytes: u64,
    },
    /// The user's quota is used up. Free space and run the transfer again; it resumes.
    #[error("the disk quota is used up at {path}; free space and run the transfer again")]
    QuotaExceeded {
        /// What was to be written.
        path: String,
    },
    /// The system does not let us, or the file system is read-only. Choose another destination.
    #[error("not permitted to {operation} {path}: {source}")]
    PermissionDenied {
        /// What was tried.
        operation: Operation,
        /// On what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The served directory was deleted, moved away or replaced.
    #[error("the served directory was removed or replaced")]
    Gone,
    /// The directory that the destination is to be in does not exist. Create it first.
    #[error("{path} cannot be created, because the directory it is in does not exist; create that first")]
    ParentMissing {
        /// The destination as it was given.
        path: String,
    },
    /// The system could not make the file durable. It is not published and what was kept of it is
    /// dropped, because a second attempt would claim success for bytes that may be lost. Check the disk.
    #[error("{path} could not be made durable and is not published{}; check the disk", because(.source))]
    Poisoned {
        /// The file.
        path: String,
        /// What the system said; `None` on a later attempt to publish it.
        source: Option<io::Error>,
    },
    /// Any other failure of the local system.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: Operation,
        /// On what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl DestinationError {
    /// Whose fault it is.
    pub fn class(&self) -> FaultClass {
        match self {
            Self::Exists { .. }
            | Self::WrongKind { .. }
            | Self::NameRefused { .. }
            | Self::NameCollision { .. }
            | Self::InLeftOut { .. }
            | Self::Busy { .. }
            | Self::NoMemory
            | Self::TooLarge { .. } => FaultClass::Refused,
            Self::Duplicate { .. }
            | Self::NoParent { .. }
            | Self::NotRequested { .. }
            | Self::NotWanted { .. }
            | Self::SpanOutside { .. }
            | Self::ChunkLength { .. }
            | Self::Unfinished { .. } => FaultClass::Protocol,
            Self::Altered { .. } => FaultClass::Integrity,
            Self::NoSpace { .. }
            | Self::QuotaExceeded { .. }
            | Self::PermissionDenied { .. }
            | Self::Gone
            | Self::ParentMissing { .. }
            | Self::Poisoned { .. }
            | Self::Io { .. } => FaultClass::LocalIo,
        }
    }

    /// Why its path is left out, if that alone is concerned and everything else can go on; `None` if it ends the
    /// transfer. What stands in the way ends one that may not `overwrite`.
    #[must_use]
    pub fn left_out_reason(&self, overwrite: bool) -> Option<LeftOutReason> {
        match self {
            Self::Exists { .. } | Self::WrongKind { .. } => overwrite.then_some(LeftOutReason::InTheWay),
            Self::NameRefused { .. } => Some(LeftOutReason::Name),
            Self::NameCollision { .. } => Some(LeftOutReason::NameTaken),
            Self::InLeftOut { reason, .. } => Some(*reason),
            Self::PermissionDenied { .. } => Some(LeftOutReason::NotPermitted),
            Self::Altered { .. } => Some(LeftOutReason::Changed),
            // They say nothing of the path.
            Self::Io { operation: Operation::Sync | Operation::Lock, .. } => None,
            Self::Io { source, .. } if platform::is_shortage(source) => None,
            Self::Io { source, .. } => Some(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LeftOutReason::Changed,
                io::ErrorKind::DirectoryNotEmpty => LeftOutReason::NotEmpty,
                _ => LeftOutReason::Failed,
            }),
            Self::Busy { .. }
            | Self::NoMemory
            | Self::TooLarge { .. }
            | Self::Duplicate { .. }
            | Self::NoParent { .. }
            | Self::NotRequested { .. }
            | Self::NotWanted { .. }
            | Self::SpanOutside { .. }
            | Self::ChunkLength { .. }
            | Self::Unfinished { .. }
            | Self::NoSpace { .. }
            | Self::QuotaExceeded { .. }
            | Self::Gone
            | Self::ParentMissing { .. }
            | Self::Poisoned { .. } => None,
        }
    }

    /// Sorts what the system said about `operation` on `path`. A full disk is told with 0 available bytes;
    /// whoever can ask the file system fills that in.
    #[must_use]
    pub fn io(operation: Operation, path: &[u8], source: io::Error) -> Self {
        let path = escape(path).to_string();
        match source.kind() {
            io::ErrorKind::StorageFull => Self::NoSpace { path, needed_bytes: 0, available_bytes: 0 },
            io::ErrorKind::QuotaExceeded => Self::QuotaExceeded { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::PermissionDenied { operation, path, source }
            }
            _ => Self::Io { operation, path, source },
        }
    }
}

fn because(source: &Option<io::Error>) -> String {
    source.as_ref().map(|source| format!(": {source}")).unwrap_or_default()
}

/// What was tried when the local system failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open a file or directory.
    Open,
    /// Look at a file's metadata, or at the space left.
    Examine,
    /// Create a file or directory.
    Create,
    /// Read a file.
    Read,
    /// Write a file.
    Write,
    /// Set a file's mode or time.
    SetMetadata,
    /// Make a file or directory durable.
    Sync,
    /// Give a file its final name.
    Rename,
    /// Remove a temporary file.
    Remove,
    /// Lock a journal.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Examine => "examine",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetMetadata => "set mode or time of",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Lock => "lock",
        })
    }
}

/// Why something cannot be served from a [`SourceRoot`](crate::source::SourceRoot).
///
/// Every path in it is escaped and safe to print.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The peer asked for a path that breaks a rule of SPEC 4.5.
    #[error("the requested path is refused: {reason}")]
    PathRefused {
        /// The rule.
        reason: PathRefused,
    },
    /// The path goes through a link that leads out of what is served. Such a path is never followed.
    #[error("{path} leads out of what is served")]
    LeavesServedRoot {
        /// The path.
        path: String,
    },
    /// There is no such file.
    #[error("{path} does not exist")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Only files and directories are served.
    #[error("{path} is {found}, and only files and directories are served")]
    NotServable {
        /// The path.
        path: String,
        /// What it is.
        found: Kind,
    },
    /// The directory or file that is served was deleted, moved away or replaced.
    #[error("the served directory was removed or replaced")]
    Gone,
    /// The file is not any more what the scan saw. Nothing of it may be sent; scan again.
    #[error("{path} changed while it was sent")]
    Changed {
        /// The path.
        path: String,
    },
    /// The file is gone since the scan.
    #[error("{path} vanished while it was sent")]
    Vanished {
        /// The path.
        path: String,
    },
    /// The system does not let us read it. Change its mode, or serve something else.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl SourceError {
    /// What the peer is told when this befalls a file it wants (SPEC 4.3, *failed*).
    pub fn left_out_reason(&self) -> LeftOutReason {
        match self {
            Self::Changed { .. } => LeftOutReason::Changed,
            Self::Vanished { .. } | Self::NotFound { .. } | Self::Gone => LeftOutReason::Vanished,
            Self::PathRefused { .. } => LeftOutReason::Name,
            Self::LeavesServedRoot { .. } | Self::NotServable { .. } | Self::Unreadable { .. } => {
                LeftOutReason::Unreadable
            }
        }
    }

    /// Sorts what the system said about opening `path`, which nobody has seen yet.
    pub(super) fn opening(path: &[u8], source: io::Error) -> Self {
        let escaped = escape(path).to_string();
        if platform::is_escape(&source) {
            return Self::LeavesServedRoot { path: escaped };
        }
        match source.kind() {
            // A file where a directory was named is no such path either.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound { path: escaped },
            _ => Self::Unreadable { path: escaped, source },
        }
    }

    /// Sorts what the system said about opening `path`, which the scan has seen.
    pub(super) fn reopening(path: &[u8], source: io::Error) -> Self {
        let path = escape(path).to_string();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Vanished { path },
            // The scan lists no links, so one that is there now came since.
            _ if platform::is_symlink_refused(&source) => Self::Changed { path },
            _ => Self::Unreadable { path, source },
        }
    }
}
