//! Operating-system specific functions.
//!
//! Two rules hold for all of them. A path is resolved beneath an open directory and never through a
//! symbolic link, save in the functions whose name says `following`, and those stay beneath it, too. A
//! name is one component.

use std::fmt;
use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shiplane_wire::{Digest, Entry, EntryKind, Holes, LinkTarget, Mtime, RelPath, Version};

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

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

/// Pauses for calls that failed because no descriptor was free: others close theirs soon.
pub fn shortage_pauses() -> Pauses {
    Pauses(FIRST_PAUSE)
}

/// Grow, and end.
#[derive(Debug)]
pub struct Pauses(Duration);

impl Pauses {
    /// Waits for a while; `false` if it was long enough in all.
    pub fn pause(&mut self) -> bool {
        if self.0 > LONGEST_PAUSE {
            return false;
        }
        std::thread::sleep(self.0);
        self.0 *= 2;
        true
    }
}

/// 10 ms, then twice as long each time: 1.3 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// Fills `buffer` with what is at `offset`; [`io::ErrorKind::UnexpectedEof`] if the file ends before that.
pub fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(file, offset + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

/// Renames `from` to `to`, which a file system may take for the same name; fails with `AlreadyExists` if something else has
/// it. Where the name does not change by that, it goes by way of another one.
pub fn respell(dir: &cap_std::fs::Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    let is_free = match (stat(dir, from)?, stat(dir, to)) {
        (found, Ok(other)) => found.inode != 0 && found.identity() == other.identity(),
        (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    rename_replacing(dir, from, to)?;
    let mut names = Names::of(dir)?;
    while let Some(is_it) = names.next(|name| name == to) {
        if is_it? {
            return Ok(());
        }
    }
    // After a power cut this file is either missing or complete.
    let between = [to, b".shiplane-rename"].concat();
    rename_new(dir, from, &between)?;
    rename_new(dir, &between, to).inspect_err(|_| {
        // The first error says more.
        let _ = rename_new(dir, &between, from);
    })
}

/// What has the name; `None` if nothing has. A link is not followed.
pub fn stat_if_there(dir: &cap_std::fs::Dir, name: &[u8]) -> io::Result<Option<Stat>> {
    match stat(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Removes the file `name`, if it is there.
pub fn remove_if_there(dir: &cap_std::fs::Dir, name: &[u8]) -> io::Result<()> {
    match remove_file(dir, name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the link `name` points to, as it can be sent.
pub fn link_target(dir: &cap_std::fs::Dir, name: &[u8]) -> io::Result<LinkTarget> {
    LinkTarget::parse(&read_link(dir, name)?).map_err(io::Error::other)
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

/// The time of the system's clock.
pub fn now() -> Mtime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Mtime { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

/// Whether the size of an open file is that of its content. What the kernel makes up occupies nothing.
pub fn has_true_size(file: &File, stat: &Stat) -> bool {
    stat.allocated_bytes > 0 || sizes_of(file).is_true(stat.size_bytes)
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
