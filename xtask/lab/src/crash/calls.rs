//! The file-changing system calls, and the file that each of them changes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::libc;

use super::trace::Memory;

/// One call on a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) kind: Kind,
    /// The file; the new name of a link, the old one of a rename.
    pub(super) path: PathBuf,
}

impl Call {
    /// Whether it is on the cache of digests: without it the next sync reads files again, and no harm is done.
    pub(super) fn is_cache(&self) -> bool {
        self.path.parent().is_some_and(|directory| directory.ends_with("sync"))
    }
}

/// What it does; calls that do the same are one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Opens for reading, or for writing what is there.
    Open,
    Create,
    Mkdir,
    Write,
    Pwrite,
    Truncate,
    Allocate,
    Copy,
    Sync,
    SyncAll,
    Rename,
    Link,
    Unlink,
    Mode,
    Time,
    Owner,
    Attribute,
}

impl Kind {
    /// All but `Open` change something, or make it last.
    pub(super) fn is_change(self) -> bool {
        self != Self::Open
    }
}

/// The call with this `number`, if it is on files.
pub(super) fn of(number: u64, arguments: [u64; 4], memory: &Memory) -> Option<Call> {
    let number = i64::try_from(number).ok()?;
    let (mut kind, place) = kind_of(number)?;
    let flags = match number {
        libc::SYS_openat => Some(arguments[2]),
        libc::SYS_open => Some(arguments[1]),
        _ => None,
    };
    if flags.is_some_and(|flags| flags & CREATES != 0) {
        kind = Kind::Create;
    }
    Some(Call { kind, path: place.path(arguments, memory)? })
}

fn kind_of(number: i64) -> Option<(Kind, FileArgument)> {
    use FileArgument::{At, Open, Path};
    Some(match number {
        libc::SYS_open => (Kind::Open, Path(0)),
        libc::SYS_openat | libc::SYS_openat2 => (Kind::Open, At(0)),
        libc::SYS_creat => (Kind::Create, Path(0)),
        libc::SYS_mkdir => (Kind::Mkdir, Path(0)),
        libc::SYS_mkdirat => (Kind::Mkdir, At(0)),
        libc::SYS_write | libc::SYS_writev => (Kind::Write, Open(0)),
        libc::SYS_pwrite64 | libc::SYS_pwritev | libc::SYS_pwritev2 => (Kind::Pwrite, Open(0)),
        libc::SYS_ftruncate => (Kind::Truncate, Open(0)),
        libc::SYS_truncate => (Kind::Truncate, Path(0)),
        libc::SYS_fallocate => (Kind::Allocate, Open(0)),
        libc::SYS_sendfile => (Kind::Copy, Open(0)),
        libc::SYS_copy_file_range => (Kind::Copy, Open(2)),
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_sync_file_range => (Kind::Sync, Open(0)),
        libc::SYS_syncfs => (Kind::SyncAll, Open(0)),
        libc::SYS_rename => (Kind::Rename, Path(0)),
        libc::SYS_renameat | libc::SYS_renameat2 => (Kind::Rename, At(0)),
        libc::SYS_link | libc::SYS_symlink => (Kind::Link, Path(1)),
        libc::SYS_linkat => (Kind::Link, At(2)),
        libc::SYS_symlinkat => (Kind::Link, At(1)),
        libc::SYS_unlink | libc::SYS_rmdir => (Kind::Unlink, Path(0)),
        libc::SYS_unlinkat => (Kind::Unlink, At(0)),
        libc::SYS_fchown => (Kind::Owner, Open(0)),
        libc::SYS_fchownat => (Kind::Owner, At(0)),
        libc::SYS_fsetxattr | libc::SYS_fremovexattr => (Kind::Attribute, Open(0)),
        libc::SYS_fchmod => (Kind::Mode, Open(0)),
        libc::SYS_chmod => (Kind::Mode, Path(0)),
        libc::SYS_fchmodat => (Kind::Mode, At(0)),
        // Without a path it is about the open file.
        libc::SYS_utimensat => (Kind::Time, At(0)),
        _ => return None,
    })
}

/// Which arguments name the file.
#[derive(Clone, Copy)]
enum FileArgument {
    /// This one is an open file.
    Open(usize),
    /// This one is an open directory, and the next one a path beneath it.
    At(usize),
    /// This one is a path.
    Path(usize),
}

impl FileArgument {
    fn path(self, arguments: [u64; 4], memory: &Memory) -> Option<PathBuf> {
        // Only the lower half of the register counts.
        let file = |at: usize| memory.file(arguments[at] as u32 as i32);
        let (directory, at) = match self {
            Self::Open(at) => return file(at),
            Self::At(at) if arguments[at + 1] == 0 => return file(at),
            Self::At(at) => (file(at), at + 1),
            Self::Path(at) => (memory.file(AT_CWD), at),
        };
        // An absolute path stays what it is.
        Some(directory.unwrap_or_default().join(OsStr::from_bytes(&memory.text(arguments[at])?)))
    }
}

/// Stands for the working directory.
pub(super) const AT_CWD: i32 = libc::AT_FDCWD;

/// An open with one of these changes what is there.
const CREATES: u64 = (libc::O_CREAT | libc::O_TRUNC) as u64;
