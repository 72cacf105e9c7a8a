//! Errors of the disks on both sides, by cause.

use std::fmt;
use std::io;

use shiplane_wire::{LeftOutReason, PathRefused, escape};
use thiserror::Error;

use crate::{
    attributes::AttributeKind,
    names::NameRefused,
    platform::{self, Kind},
};

/// Classifies a [`DestinationError`] by its cause. Decides the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// A rule forbids it: an invalid name, an existing file, another run.
    Refused,
    /// The local disk failed, is full, or denies permission.
    LocalIo,
    /// The peer or the caller broke the protocol of a transfer.
    Protocol,
    /// The disk has other content than was written.
    Integrity,
}

/// Why something could not be received into a [`Destination`](crate::destination::Destination).
///
/// Every path in it is escaped and safe to print.
#[derive(Debug, Error)]
pub enum DestinationError {
    /// A different file exists at this path. Choose another destination or allow overwriting. Nothing was changed.
    #[error("{path} exists with different content; move it away or allow overwriting")]
    Exists {
        /// The file.
        path: String,
    },
    /// A directory exists where a file must go, or the reverse. It is never replaced, not even when overwriting. Move it
    /// away.
    #[error("{path} is {found}, but the transfer needs {wanted} there; move it away")]
    WrongKind {
        /// What is in the way.
        path: String,
        /// What it is.
        found: Kind,
        /// What was to be put there.
        wanted: Kind,
    },
    /// This platform cannot store the name. Rename the file at the source.
    #[error("cannot use the name {path}: {reason}; rename it at the source")]
    NameRefused {
        /// The path as the peer named it.
        path: String,
        /// The rule it breaks.
        reason: NameRefused,
    },
    /// Two entries have the same name on this file system, which ignores case or normalises Unicode. Rename one at the
    /// source, or receive into another file system.
    #[error("{path} is the same name as an earlier entry on this file system; rename one at the source")]
    NameCollision {
        /// The later of the two.
        path: String,
    },
    /// It is a symbolic link, and this receiver does not create it. Use `--links all` where that may be said.
    #[error("{path} was not created: {reason}{}", because(.source))]
    LinkRefused {
        /// The path.
        path: String,
        /// Why.
        reason: LeftOutReason,
        /// The system's error, if the file system has no symbolic links.
        source: Option<io::Error>,
    },
    /// There are more files with several names than are kept track of. The rest becomes files of their own.
    #[error("{path}: too many hard links; from here on each name is a separate file")]
    TooManyHardLinks {
        /// The first path that is concerned.
        path: String,
    },
    /// The directory that it is in, or the file that it is another name of, was left out for this reason.
    #[error("{path} is in a directory, or a name of a file, that was left out ({reason})")]
    InLeftOut {
        /// The path.
        path: String,
        /// Why that was left out.
        reason: LeftOutReason,
    },
    /// Another run of the same job holds its journal. Wait for it or end it.
    #[error("another run of this transfer is active (it locks {journal}); wait for it or stop it")]
    Busy {
        /// The journal that is locked.
        journal: String,
    },
    /// The memory for what interrupted runs have left is in use by others. Run it again when one of them has ended.
    #[error(
        "too many interrupted transfers are resumed here at a time; run this one again in a moment, what was kept stays"
    )]
    NoMemory,

    /// The transfer is larger than the limit for one transfer.
    #[error("the transfer has at least {total_bytes} bytes, over the limit of {max_bytes}")]
    TooLarge {
        /// What was announced so far.
        total_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },

    /// The peer sent the same path twice.
    #[error("the peer sent {path} twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// The peer sent an entry before its parent directory, or below a file.
    #[error("the peer sent {path} before its parent directory")]
    NoParent {
        /// The path.
        path: String,
    },
    /// The peer sent an entry other than the one requested file.
    #[error("the peer sent {path}, which was not requested")]
    NotRequested {
        /// The path.
        path: String,
    },
    /// Bytes arrived, or publication was requested, for an entry that is not wanted or no longer wanted.
    #[error("entry {entry} is not being received")]
    NotWanted {
        /// Number of the entry.
        entry: u64,
    },
    /// A span lies outside its file or is empty.
    #[error("a span of chunk {chunk} is empty or outside entry {entry}")]
    SpanOutside {
        /// Index of the chunk.
        chunk: u64,
        /// Number of the entry.
        entry: u64,
    },
    /// A chunk has another length than its spans.
    #[error("chunk {chunk} has {actual_bytes} bytes, but its spans have {expected_bytes}")]
    ChunkLength {
        /// Index of the chunk.
        chunk: u64,
        /// What was written so far, or what was verified.
        actual_bytes: u64,
        /// What the spans add up to.
        expected_bytes: u64,
    },
    /// `finish` was called while files were neither published nor discarded.
    #[error("{files} files are incomplete")]
    Unfinished {
        /// How many.
        files: usize,
    },

    /// What was kept before an interruption is gone, and the peer cannot read its input once more. Run the transfer again,
    /// with the whole input.
    #[error(
        "cannot resume {path}: what had arrived of it is gone, and its source cannot be read twice; \
         run the transfer again"
    )]
    NotResumable {
        /// The file.
        path: String,
    },
    /// Another program changed a temporary file. Run the transfer again.
    #[error("another program changed {path} while it was received; run the transfer again")]
    Altered {
        /// The final path of the file.
        path: String,
    },

    /// The disk is full, or the transfer does not fit. Free space and run the transfer again; it resumes.
    #[error(
        "no space for {path}: {needed_bytes} bytes needed, {available_bytes} available; \
         free space and run the transfer again"
    )]
    NoSpace {
        /// The file.
        path: String,
        /// Bytes to write.
        needed_bytes: u64,
        /// Bytes that the file system has available; 0 if unknown.
        available_bytes: u64,
    },
    /// More files would be removed than without the user's consent. Check that both directories are the right ones.
    #[error("{files} of {of} files are not at the source and would be deleted; nothing was deleted")]
    MassDeletion {
        /// How many.
        files: u64,
        /// Of how many.
        of: u64,
    },
    /// There is more to keep track of than a deletion can. Copy, or delete, in parts.
    #[error("more than {max} paths are to be compared or deleted; nothing was deleted")]
    TooManyToDelete {
        /// The limit.
        max: usize,
    },
    /// The file system has too few free inodes for these files, however much space it has. Free some, or copy fewer files.
    #[error("{path} has inodes for {available} more files; {needed} are needed")]
    NoInodes {
        /// A directory on it.
        path: String,
        /// How many files are to be created.
        needed: u64,
        /// How many can be.
        available: u64,
    },
    /// The user's quota is exceeded. Free space and run the transfer again; it resumes.
    #[error("disk quota exceeded at {path}; free space and run the transfer again")]
    QuotaExceeded {
        /// The file.
        path: String,
    },
    /// Permission denied, or a read-only file system. Choose another destination.
    #[error("no permission to {operation} {path}: {source}")]
    PermissionDenied {
        /// The operation that failed.
        operation: Operation,
        /// Its path.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The owner, the access list or an attribute of a file could not be set; all else of it is here. Of each kind the first
    /// is named. Receive as the superuser, or onto another file system.
    #[error("cannot set the {kind} of {path}: {source}")]
    AttributesRefused {
        /// What of it.
        kind: AttributeKind,
        /// The file or directory.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The served directory was deleted, moved away or replaced.
    #[error("the served directory was removed or replaced")]
    Gone,
    /// The parent directory of the destination does not exist. Create it first.
    #[error("cannot create {path}: its parent directory does not exist; create it first")]
    ParentMissing {
        /// The destination as it was given.
        path: String,
    },
    /// A sync to disk failed. What it concerns is not published and its kept bytes are dropped, because a second sync could
    /// report success for lost bytes. Check the disk.
    #[error("cannot make {path} durable, so nothing more is published{}; check the disk", because(.source))]
    Poisoned {
        /// The file, or the directory whose file system was to be synced.
        path: String,
        /// The system's error; `None` on a later attempt to publish the file.
        source: Option<io::Error>,
    },
    /// Any other failure of the local system.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// The operation that failed.
        operation: Operation,
        /// Its path.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

impl DestinationError {
    /// Returns the class of this error.
    pub fn class(&self) -> FaultClass {
        self.class_and_reason().0
    }

    /// Why its path is left out, if that alone is concerned and everything else can go on; `None` if it ends the
    /// transfer. What stands in the way ends it unless it `goes_on` then.
    #[must_use]
    pub fn left_out_reason(&self, goes_on: bool) -> Option<LeftOutReason> {
        let is_in_the_way = matches!(self, Self::Exists { .. } | Self::WrongKind { .. });
        self.class_and_reason().1.filter(|_| goes_on || !is_in_the_way)
    }

    fn class_and_reason(&self) -> (FaultClass, Option<LeftOutReason>) {
        use FaultClass::{Integrity, LocalIo, Protocol, Refused};
        match self {
            Self::Exists { .. } | Self::WrongKind { .. } => (Refused, Some(LeftOutReason::InTheWay)),
            Self::NameRefused { .. } => (Refused, Some(LeftOutReason::Name)),
            Self::NameCollision { .. } => (Refused, Some(LeftOutReason::NameTaken)),
            Self::InLeftOut { reason, .. } | Self::LinkRefused { reason, .. } => (Refused, Some(*reason)),
            Self::TooManyHardLinks { .. } => (Refused, Some(LeftOutReason::HardLink)),
            Self::Busy { .. }
            | Self::NoMemory
            | Self::MassDeletion { .. }
            | Self::TooManyToDelete { .. }
            | Self::NotResumable { .. }
            | Self::TooLarge { .. } => (Refused, None),
            Self::Duplicate { .. }
            | Self::NoParent { .. }
            | Self::NotRequested { .. }
            | Self::NotWanted { .. }
            | Self::SpanOutside { .. }
            | Self::ChunkLength { .. }
            | Self::Unfinished { .. } => (Protocol, None),
            Self::Altered { .. } => (Integrity, Some(LeftOutReason::Changed)),
            Self::PermissionDenied { .. } => (LocalIo, Some(LeftOutReason::NotPermitted)),
            Self::AttributesRefused { .. } => (LocalIo, Some(LeftOutReason::Attributes)),
            // They say nothing of the path.
            Self::Io { operation: Operation::Sync | Operation::Lock, .. } => (LocalIo, None),
            Self::Io { source, .. } if platform::is_shortage(source) => (LocalIo, None),
            Self::Io { source, .. } => {
                let reason = match source.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LeftOutReason::Changed,
                    io::ErrorKind::DirectoryNotEmpty => LeftOutReason::NotEmpty,
                    _ => LeftOutReason::Failed,
                };
                (LocalIo, Some(reason))
            }
            Self::NoSpace { .. }
            | Self::NoInodes { .. }
            | Self::QuotaExceeded { .. }
            | Self::Gone
            | Self::ParentMissing { .. }
            | Self::Poisoned { .. } => (LocalIo, None),
        }
    }

    /// Converts a system error of `operation` on `path`. For a full disk, the available bytes are 0; the caller fills them
    /// in.
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

/// An operation on the local file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open a file or directory.
    Open,
    /// Read a file's metadata, or the available space.
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
    /// Rename a file to its final name.
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
    /// The requested path breaks a rule of SPEC 4.5.
    #[error("invalid path: {reason}")]
    PathRefused {
        /// The rule.
        reason: PathRefused,
    },
    /// The path goes through a symbolic link that leaves the served root, or through any link where none is allowed.
    #[error("{path} leaves the served root through a symbolic link")]
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
    #[error("{path} is {found}; only files and directories are served")]
    NotServable {
        /// The path.
        path: String,
        /// What it is.
        found: Kind,
    },
    /// The directory or file that is served was deleted, moved away or replaced.
    #[error("the served directory was removed or replaced")]
    Gone,
    /// The file changed since the scan. None of it may be sent; scan again.
    #[error("{path} changed while it was sent; try again")]
    Changed {
        /// The path.
        path: String,
    },
    /// The file was removed since the scan.
    #[error("{path} was removed while it was sent")]
    Vanished {
        /// The path.
        path: String,
    },
    /// The file cannot be read. Change its permissions, or serve another path.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The path.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

impl From<PathRefused> for SourceError {
    fn from(reason: PathRefused) -> Self {
        Self::PathRefused { reason }
    }
}

impl SourceError {
    /// The reason that is sent to the peer for a file that it wants (SPEC 4.3, *failed*).
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

    /// Converts a system error of opening `path` for the first time.
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

    /// Converts a system error of opening `path`, which the scan has listed.
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
