//! Windows, by way of cap-std, whose lookups stay beneath the directory they start from.
//!
//! That a name is no link is looked at before it is opened; in the gap between, a link can at worst lead
//! elsewhere beneath the same directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::windows::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Dir, Metadata, OpenOptions, OpenOptionsExt, ReadDir};
use shiplane_wire::Mtime;

use super::{Kind, Locked, Owner, Stat};

/// Opens a directory that the local user named, through whatever links there are.
pub fn open_ambient_dir(path: &Path) -> io::Result<Dir> {
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
}

/// Opens the directory `path` beneath `root`.
pub fn open_dir(root: &Dir, path: &[u8]) -> io::Result<Dir> {
    refuse_links(root, path)?;
    open_dir_following(root, path)
}

/// Device and inode of what the local user's `path` leads to: not known here, but whether there is anything.
pub fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|_| (0, 0))
}

/// Opens the directory `path` beneath `root`, through links that stay beneath it.
pub fn open_dir_following(root: &Dir, path: &[u8]) -> io::Result<Dir> {
    root.open_dir(as_path(path)?)
}

/// Opens the file `path` beneath `root` for reading.
pub fn open_file(root: &Dir, path: &[u8]) -> io::Result<File> {
    refuse_links(root, path)?;
    open_file_following(root, path)
}

/// Like [`open_file`], but through links that stay beneath `root`.
pub fn open_file_following(root: &Dir, path: &[u8]) -> io::Result<File> {
    open(root, path, OpenOptions::new().read(true))
}

/// Creates the file `name` for reading and writing; fails if anything has the name.
pub fn create_file(dir: &Dir, name: &[u8], _mode: u32) -> io::Result<File> {
    open(dir, name, OpenOptions::new().read(true).write(true).create_new(true))
}

/// Opens the file `name` for reading and writing.
pub fn reopen_file(dir: &Dir, name: &[u8]) -> io::Result<File> {
    refuse_links(dir, name)?;
    open(dir, name, OpenOptions::new().read(true).write(true))
}

/// Opens or creates the file `name` so that no other process can open it.
pub fn open_locked(dir: &Dir, name: &[u8]) -> io::Result<Locked> {
    let mut options = OpenOptions::new();
    // The owner must still be able to remove it.
    options.read(true).write(true).share_mode(FILE_SHARE_DELETE);
    match open(dir, name, options.clone().create_new(true)) {
        Ok(file) => return Ok(Locked::New(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    refuse_links(dir, name)?;
    match open(dir, name, &options) {
        Ok(file) => Ok(Locked::Found(file)),
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(Locked::Held),
        Err(error) => Err(error),
    }
}

/// Closing the file is all it takes.
pub fn unlock(_file: &File) {}

/// Creates the directory `name`.
pub fn make_dir(dir: &Dir, name: &[u8], _mode: u32) -> io::Result<()> {
    dir.create_dir(as_path(name)?)
}

/// What `name` is; links are not followed.
pub fn stat(dir: &Dir, name: &[u8]) -> io::Result<Stat> {
    Ok(stat_from(&dir.symlink_metadata(as_path(name)?)?))
}

/// What `path` beneath `root` stands for, through links that stay beneath it.
pub fn kind_following(root: &Dir, path: &[u8]) -> io::Result<Kind> {
    Ok(stat_from(&root.metadata(as_path(path)?)?).kind)
}

/// What the open `file` or directory is.
pub fn stat_open(file: &impl Opened) -> io::Result<Stat> {
    Ok(stat_from(&file.metadata()?))
}

/// Renames within a directory; whatever has the name `to` is replaced, unless it is a directory.
pub fn rename_replacing(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    dir.rename(as_path(from)?, dir, as_path(to)?)
}

/// Renames within a directory; fails with `AlreadyExists` if anything has the name `to`.
pub fn rename_new(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    dir.hard_link(as_path(from)?, dir, as_path(to)?)?;
    remove_file(dir, from)
}

/// Gives the file `from` the name `to` as well; fails with `AlreadyExists` if anything has that name.
pub fn name_again(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    dir.hard_link(as_path(from)?, dir, as_path(to)?)
}

/// Removes the file or link `name`.
pub fn remove_file(dir: &Dir, name: &[u8]) -> io::Result<()> {
    dir.remove_file(as_path(name)?)
}

/// Removes the empty directory `name`.
pub fn remove_dir(dir: &Dir, name: &[u8]) -> io::Result<()> {
    dir.remove_dir(as_path(name)?)
}

/// Makes the content of a file durable.
pub fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Gives `file` another size.
pub fn set_len(file: &File, size_bytes: u64) -> io::Result<()> {
    file.set_len(size_bytes)
}

/// The file system keeps its names in a log of its own; there is nothing to ask for.
pub fn sync_dir(_dir: &Dir) -> io::Result<()> {
    Ok(())
}

/// Not without administrator's rights.
pub fn sync_filesystem(_dir: &Dir) -> io::Result<bool> {
    Ok(false)
}

/// Gives `file` its size.
pub fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    file.set_len(size_bytes)
}

/// The standard library does not tell; a full disk shows when a file is given its size.
pub fn available_bytes(_dir: &Dir) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// How many files may still be created: no file system here has a limit of its own.
pub fn available_files(_dir: &Dir) -> io::Result<Option<u64>> {
    Ok(None)
}

/// Sets when an open file was modified, as far as the file system can hold it.
pub fn set_mtime(file: &impl Opened, mtime: Mtime) -> io::Result<()> {
    let since = Duration::new(mtime.secs.unsigned_abs(), 0);
    let secs = if mtime.secs < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    let time = secs.and_then(|secs| secs.checked_add(Duration::from_nanos(mtime.nanos.into())));
    // A time that cannot be represented says nothing anybody could use.
    file.set_modified(time.unwrap_or(UNIX_EPOCH))
}

/// Files are copied instead.
pub fn link_file(_from_dir: &Dir, _from: &[u8], _to_dir: &Dir, _to: &[u8]) -> io::Result<bool> {
    Ok(false)
}

/// This system is not asked.
pub fn holes_of(_file: &File, _size_bytes: u64) -> io::Result<Vec<std::ops::Range<u64>>> {
    Ok(Vec::new())
}

/// No file system here makes up its files.
pub fn sizes_of<T>(_file: &T) -> Sizes {
    Sizes::True
}

/// Owners, access lists and extended attributes are of another kind here.
pub const HAS_OWNERS: bool = false;

/// Changes no owner.
pub fn may_give_away() -> bool {
    false
}

/// Owners have no numbers here.
pub fn name_of_owner(_owner: Owner, _id: u32) -> Option<Vec<u8>> {
    None
}

/// Owners have no numbers here.
pub fn owner_of_name(_owner: Owner, _name: &[u8]) -> Option<u32> {
    None
}

/// Owners have no numbers here.
pub fn set_owners<T>(_file: &T, _user: Option<u32>, _group: Option<u32>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Owners have no numbers here.
pub fn set_link_owners(_dir: &Dir, _name: &[u8], _user: Option<u32>, _group: Option<u32>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// None are carried from here.
pub fn extended_names<T>(_file: &T) -> io::Result<Vec<Vec<u8>>> {
    Ok(Vec::new())
}

/// None are carried from here.
pub fn extended<T>(_file: &T, _name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

/// None are carried to here.
pub fn set_extended<T>(_file: &T, _name: &[u8], _value: Option<&[u8]>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Symbolic links need administrator's rights.
pub const HAS_LINKS: bool = false;

/// Links are not carried from here.
pub fn read_link(_dir: &Dir, _name: &[u8]) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Links are not created here.
pub fn make_link(_dir: &Dir, _name: &[u8], _target: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Links are not created here.
pub fn set_link_mtime(_dir: &Dir, _name: &[u8], _mtime: Mtime) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no such modes here.
pub fn set_mode_at(_dir: &Dir, _name: &[u8], _mode: u32) -> io::Result<()> {
    Ok(())
}

/// There are no such modes here.
pub fn set_mode(_file: &impl Opened, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Whether reads and writes never wait for a disk: Windows cannot tell.
pub fn lives_in_memory<T>(_file: &T) -> bool {
    false
}

/// Reads once at `offset` what needs no disk: Windows cannot tell.
pub fn try_read_at(_file: &File, _offset: u64, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
    Ok(None)
}

/// Reads once at `offset`.
pub fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

/// Writes all of `data` at `offset`.
pub fn write_all_at(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < data.len() {
        match file.seek_write(&data[written..], offset + written as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            now => written += now,
        }
    }
    Ok(())
}

/// A local path as bytes, if it is Unicode.
pub fn bytes_of(path: &OsStr) -> Option<&[u8]> {
    path.to_str().map(str::as_bytes)
}

/// Whether an open failed because a name on the way, or the last one, is a link.
pub fn is_symlink_refused(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<LinkRefused>())
}

/// Whether the file system does not take a name, as far as the error of giving it tells.
pub fn is_name_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidFilename
}

/// Whether this process is out of memory: no path is the cause.
pub fn is_shortage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory
}

/// Whether a `following` function refused a path that leaves the root.
pub fn is_escape(error: &io::Error) -> bool {
    // The system's own refusals carry a number; cap-std's does not.
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// The names in an open directory, in the order the system gives them.
#[derive(Debug)]
pub struct Names(ReadDir);

/// A place in a directory. No directory can be entered at one here.
pub type Position = i64;

impl Names {
    /// None is ever given.
    pub fn at(_dir: &Dir, _position: Position) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Always `None`.
    pub fn position(&self) -> Option<Position> {
        None
    }

    /// Starts on a handle of its own.
    pub fn of(dir: &Dir) -> io::Result<Self> {
        Ok(Self(dir.entries()?))
    }

    /// Hands the next name to `visit`; `None` at the end. One that is not Unicode can be seen, not opened.
    pub fn next<T>(&mut self, visit: impl FnOnce(&[u8]) -> T) -> Option<io::Result<T>> {
        Some(self.0.next()?.map(|entry| visit(entry.file_name().as_encoded_bytes())))
    }
}

/// An open file or directory.
pub trait Opened {
    fn metadata(&self) -> io::Result<Metadata>;
    fn set_modified(&self, time: SystemTime) -> io::Result<()>;
}

impl Opened for File {
    fn metadata(&self) -> io::Result<Metadata> {
        Metadata::from_file(self)
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_modified(time)
    }
}

impl Opened for Dir {
    fn metadata(&self) -> io::Result<Metadata> {
        self.dir_metadata()
    }

    /// Directories are opened for lookups only, which does not include setting their times.
    fn set_modified(&self, _time: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

/// Somebody else has the file open in a way that excludes us.
const ERROR_SHARING_VIOLATION: i32 = 32;
const FILE_SHARE_DELETE: u32 = 4;

#[derive(Debug, thiserror::Error)]
#[error("the path contains a symbolic link")]
struct LinkRefused;

fn open(dir: &Dir, path: &[u8], options: &OpenOptions) -> io::Result<File> {
    dir.open_with(as_path(path)?, options).map(cap_std::fs::File::into_std)
}

fn refuse_links(root: &Dir, path: &[u8]) -> io::Result<()> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        if root.symlink_metadata(as_path(&path[..end])?)?.file_type().is_symlink() {
            return Err(io::Error::other(LinkRefused));
        }
    }
    Ok(())
}

fn as_path(path: &[u8]) -> io::Result<&Path> {
    std::str::from_utf8(path).map(Path::new).map_err(|_| io::ErrorKind::InvalidFilename.into())
}

fn stat_from(metadata: &Metadata) -> Stat {
    let kind = metadata.file_type();
    let kind = match (kind.is_symlink(), kind.is_dir(), kind.is_file()) {
        (true, _, _) => Kind::Symlink,
        (_, true, _) => Kind::Directory,
        (_, _, true) => Kind::File,
        _ => Kind::Special,
    };
    let time = |time: io::Result<cap_std::time::SystemTime>| {
        time.map_or(Mtime { secs: 0, nanos: 0 }, |time| mtime_of(time.into_std()))
    };
    Stat {
        kind,
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        size_bytes: metadata.len(),
        allocated_bytes: 0,
        mtime: time(metadata.modified()),
        // When it was created, which tells a file from one that replaced it.
        ctime: time(metadata.created()),
        device: 0,
        inode: 0,
        links: 1,
        user: u32::MAX,
        group: u32::MAX,
    }
}

fn mtime_of(time: SystemTime) -> Mtime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Mtime { secs: after.as_secs().cast_signed(), nanos: after.subsec_nanos() },
        // Whole seconds are rounded towards the past.
        Err(before) => {
            let before = before.duration();
            let has_rest = before.subsec_nanos() > 0;
            let nanos = if has_rest { 1_000_000_000 - before.subsec_nanos() } else { 0 };
            Mtime { secs: -before.as_secs().cast_signed() - i64::from(has_rest), nanos }
        }
    }
}
