//! What the calls of all platforms have in common.

use std::fmt;
use std::fs::File;
use std::io;

use shiplane_wire::{Digest, Entry, EntryKind, Holes, LinkTarget, Mtime, RelPath, Version};

/// Makes a call again for as long as it is interrupted: it has done nothing then. On a network file system any may
/// be, and the standard library sees to reads and writes only.
pub fn retry<T, E: Into<io::Error>>(mut call: impl FnMut() -> Result<T, E>) -> io::Result<T> {
    loop {
        match call().map_err(Into::into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What a name in the file system stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or FIFO.
    Special,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Special => "a special file",
        })
    }
}

/// Whom a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A user.
    User,
    /// A group.
    Group,
}

/// Which sizes that a file system tells are those of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All.
    True,
    /// All but those that are 0.
    TrueUnlessEmpty,
    /// The kernel makes up the content as it is read, and the size is 0 or a page.
    MadeUp,
}

impl Sizes {
    /// Whether this size is that of the content.
    pub fn is_true(self, size_bytes: u64) -> bool {
        self == Self::True || self == Self::TrueUnlessEmpty && size_bytes > 0
    }
}

/// The mode of a [`Locked`] file.
pub const LOCKED_MODE: u32 = 0o600;

/// A file that only one process may have open at a time.
#[derive(Debug)]
pub enum Locked {
    /// It was created.
    New(File),
    /// It was there.
    Found(File),
    /// It was there, and another process has it.
    Held,
}

/// What the system tells of a file. What a platform does not have is zero.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// How long it is.
    pub size_bytes: u64,
    /// What the file occupies on the disk.
    pub allocated_bytes: u64,
    /// When its content was last changed, or is said to have been.
    pub mtime: Mtime,
    /// When anything of the file's metadata last changed.
    pub ctime: Mtime,
    /// Which file system it is on.
    pub device: u64,
    /// Which file it is there.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// The user that it belongs to.
    pub user: u32,
    /// The group that it belongs to.
    pub group: u32,
}

impl Stat {
    /// Names this state of the file (SPEC 4.6): writing to it, replacing it or touching it changes
    /// the version.
    pub fn version(&self) -> Version {
        let mut bytes = [0; 48];
        let fields = [
            self.device,
            self.inode,
            self.size_bytes,
            self.mtime.secs.cast_unsigned(),
            self.ctime.secs.cast_unsigned(),
            (u64::from(self.mtime.nanos) << 32) | u64::from(self.ctime.nanos),
        ];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let mut version = [0; 16];
        version.copy_from_slice(&Digest::blake3(&bytes).as_bytes()[..16]);
        Version::from_bytes(version)
    }

    /// The metadata that is sent of the file or directory at `path`.
    pub fn entry(&self, kind: EntryKind, path: RelPath) -> Entry {
        let size_bytes = match kind {
            EntryKind::File => self.size_bytes,
            EntryKind::Directory | EntryKind::Symlink => 0,
        };
        Entry {
            kind,
            mode: self.mode,
            size_bytes,
            mtime: self.mtime,
            version: self.version(),
            path,
            target: None,
            first: None,
            holes: Holes::default(),
            attributes: None,
        }
    }

    /// Which file it is.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The metadata that is sent of the symbolic link at `path`.
    pub fn link_entry(&self, path: RelPath, target: LinkTarget) -> Entry {
        Entry { target: Some(target), ..self.entry(EntryKind::Symlink, path) }
    }
}
