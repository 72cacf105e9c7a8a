//! Linux first; other Unix systems resolve paths one component at a time.

mod attributes;
mod content;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use shiplane_wire::Mtime;

pub use self::attributes::*;
pub use self::content::{holes_of, sizes_of};
use super::{Kind, LOCKED_MODE, Locked, Stat, retry};
use crate::disk::{self, Change};

/// What is open, a file or a directory.
pub trait Opened: AsFd {}

impl<T: AsFd> Opened for T {}

/// Opens a directory that the local user named, through whatever links there are.
pub fn open_ambient_dir(path: &Path) -> io::Result<Dir> {
    let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
    dir_from(retry(|| rustix::fs::open(path, flags, Mode::empty())))
}

/// Device and inode of what the local user's `path` leads to, through whatever links there are.
pub fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let found = stat_from(&retry(|| rustix::fs::stat(path))?);
    Ok((found.device, found.inode))
}

/// Opens the directory `path` beneath `root`.
pub fn open_dir(root: &Dir, path: &[u8]) -> io::Result<Dir> {
    dir_from(open_beneath(root, path, DIRECTORY, Mode::empty()))
}

/// Opens the directory `path` beneath `root`, through links that stay beneath it.
pub fn open_dir_following(root: &Dir, path: &[u8]) -> io::Result<Dir> {
    let found = root.open_dir(as_path(path))?;
    // What that returns may be a handle for lookups only; this one can be listed and synced.
    dir_from(retry(|| rustix::fs::openat(&found, c".", DIRECTORY, Mode::empty())))
}

/// Opens the file `path` beneath `root` for reading. Never waits for a FIFO's other end.
pub fn open_file(root: &Dir, path: &[u8]) -> io::Result<File> {
    open_beneath(root, path, READ, Mode::empty()).map(File::from)
}

/// Like [`open_file`], but through links that stay beneath `root`.
pub fn open_file_following(root: &Dir, path: &[u8]) -> io::Result<File> {
    use cap_std::fs::OpenOptionsExt;

    let mut options = cap_std::fs::OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    root.open_with(as_path(path), &options).map(cap_std::fs::File::into_std)
}

/// Creates the file `name` for reading and writing; fails if anything has the name.
pub fn create_file(dir: &Dir, name: &[u8], mode: u32) -> io::Result<File> {
    let flags = WRITE.union(OFlags::CREATE).union(OFlags::EXCL);
    disk::before(Change::Name, dir)?;
    Ok(retry(|| rustix::fs::openat(dir, name, flags, mode_of(mode)))?.into())
}

/// Opens the file `name` for reading and writing.
pub fn reopen_file(dir: &Dir, name: &[u8]) -> io::Result<File> {
    Ok(retry(|| rustix::fs::openat(dir, name, WRITE, Mode::empty()))?.into())
}

/// Opens or creates the file `name` for reading and writing and takes an exclusive lock on it.
pub fn open_locked(dir: &Dir, name: &[u8]) -> io::Result<Locked> {
    let (file, is_new) = match create_file(dir, name, LOCKED_MODE) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (reopen_file(dir, name)?, false),
        Err(error) => return Err(error),
    };
    match retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) if is_new => Ok(Locked::New(file)),
        Ok(()) => Ok(Locked::Found(file)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Locked::Held),
        Err(error) => Err(error),
    }
}

/// Gives up the lock that [`open_locked`] took. Closing the file would, too, but not while a process that
/// was forked just now still has it open.
pub fn unlock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

/// Creates the directory `name`.
pub fn make_dir(dir: &Dir, name: &[u8], mode: u32) -> io::Result<()> {
    disk::before(Change::Name, dir)?;
    retry(|| rustix::fs::mkdirat(dir, name, mode_of(mode)))
}

/// What `name` is; links are not followed.
pub fn stat(dir: &Dir, name: &[u8]) -> io::Result<Stat> {
    Ok(stat_from(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// What `path` beneath `root` stands for, through links that stay beneath it.
pub fn kind_following(root: &Dir, path: &[u8]) -> io::Result<Kind> {
    let kind = root.metadata(as_path(path))?.file_type();
    Ok(match (kind.is_file(), kind.is_dir()) {
        (true, _) => Kind::File,
        (_, true) => Kind::Directory,
        _ => Kind::Special,
    })
}

/// What the open `file` or directory is.
pub fn stat_open(file: &impl AsFd) -> io::Result<Stat> {
    Ok(stat_from(&rustix::fs::fstat(file)?))
}

/// Renames within a directory; whatever has the name `to` is replaced, unless it is a directory.
pub fn rename_replacing(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    disk::before(Change::Name, dir)?;
    retry(|| rustix::fs::renameat(dir, from, dir, to))
}

/// Renames within a directory; fails with `AlreadyExists` if anything has the name `to`.
pub fn rename_new(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    disk::before(Change::Name, dir)?;
    match rename_exclusive(dir, from, to) {
        // This file system, or this kernel, has no such rename. A hard link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_new(dir, from, to),
        result => Ok(result?),
    }
}

/// Gives the file or link `from` the name `to` as well, or instead where there are no hard links; fails with
/// `AlreadyExists` if anything has that name.
pub fn name_again(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    disk::before(Change::Name, dir)?;
    match rustix::io::retry_on_intr(|| rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())) {
        // Nor does a system that protects hard links give them to those who do not own the file.
        Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => rename_new(dir, from, to),
        result => Ok(result?),
    }
}

/// Gives the file `from` the name `to` in `to_dir` as well; fails with `AlreadyExists` if anything has that name.
/// `false` if the file cannot have another name there.
pub fn link_file(from_dir: &Dir, from: &[u8], to_dir: &Dir, to: &[u8]) -> io::Result<bool> {
    disk::before(Change::Name, to_dir)?;
    match rustix::io::retry_on_intr(|| rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())) {
        Ok(()) => Ok(true),
        // Too many names, another file system, one without hard links, or a file that is not ours.
        Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the file or link `name`.
pub fn remove_file(dir: &Dir, name: &[u8]) -> io::Result<()> {
    disk::before(Change::Unname, dir)?;
    retry(|| rustix::fs::unlinkat(dir, name, AtFlags::empty()))
}

/// Removes the empty directory `name`.
pub fn remove_dir(dir: &Dir, name: &[u8]) -> io::Result<()> {
    disk::before(Change::Unname, dir)?;
    retry(|| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Dir) -> io::Result<()> {
    disk::synced(Change::Sync, dir, || match retry(|| rustix::fs::fsync(dir)) {
        // Some file systems cannot sync directories, and need not.
        Err(error) if is_unsupported(&error) => Ok(()),
        result => result,
    })
}

/// Makes the content of a file durable.
pub fn sync_file(file: &File) -> io::Result<()> {
    disk::synced(Change::Sync, file, || file.sync_all())
}

/// Gives `file` another size.
pub fn set_len(file: &File, size_bytes: u64) -> io::Result<()> {
    disk::before(Change::Resize, file)?;
    file.set_len(size_bytes)
}

/// Makes durable everything that was written to the file system of `dir`; `false` if this platform has
/// no such call.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "there is no such call"))]
pub fn sync_filesystem(dir: &Dir) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    disk::synced(Change::SyncAll, dir, || retry(|| rustix::fs::syncfs(dir)))?;
    Ok(cfg!(target_os = "linux"))
}

/// Gives `file` its size and, where the file system can, its space on the disk.
pub fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    disk::before(Change::Resize, file)?;
    if lives_in_memory(file) {
        return file.set_len(size_bytes);
    }
    match reserve_blocks(file, size_bytes) {
        Err(error) if is_unsupported(&error) => file.set_len(size_bytes),
        result => result,
    }
}

/// Whether its space is pages of memory. Reads and writes then never wait for a disk; and to set space aside would be
/// to fill it with zeros first, all at once and while every writer waits, a fifth of the time that a large file takes
/// to arrive.
#[cfg(target_os = "linux")]
pub fn lives_in_memory(file: &impl AsFd) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: u32 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type as u32 == TMPFS)
}

#[cfg(not(target_os = "linux"))]
pub fn lives_in_memory(_file: &impl AsFd) -> bool {
    false
}

/// How much may still be written to the file system of `dir`.
pub fn available_bytes(dir: &Dir) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// How many files may still be created on the file system of `dir`; `None` if it does not say.
pub fn available_files(dir: &Dir) -> io::Result<Option<u64>> {
    let stat = rustix::fs::fstatvfs(dir)?;
    Ok((stat.f_files > 0).then_some(stat.f_favail))
}

/// Sets when an open file or directory was modified. The system clamps it to what the file system holds.
pub fn set_mtime(file: &impl AsFd, mtime: Mtime) -> io::Result<()> {
    disk::before(Change::Metadata, file)?;
    let times = times_of(mtime);
    ignore_unsupported(rustix::io::retry_on_intr(|| rustix::fs::futimens(file, &times)))
}

fn times_of(mtime: Mtime) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    // Above this the nanoseconds would be taken for a command such as "now".
    let nanos = mtime.nanos.min(NANOS_MAX);
    let modified = Timespec { tv_sec: mtime.secs, tv_nsec: nanos.into() };
    Timestamps { last_access: omit, last_modification: modified }
}

/// What the link `name` points to.
pub fn read_link(dir: &Dir, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(retry(|| rustix::fs::readlinkat(dir, name, Vec::new()))?.into_bytes())
}

/// Creates the symbolic link `name`, which is not followed.
pub fn make_link(dir: &Dir, name: &[u8], target: &[u8]) -> io::Result<()> {
    disk::before(Change::Name, dir)?;
    retry(|| rustix::fs::symlinkat(target, dir, name))
}

/// Sets when the link `name` itself was modified.
pub fn set_link_mtime(dir: &Dir, name: &[u8], mtime: Mtime) -> io::Result<()> {
    disk::before(Change::Metadata, dir)?;
    let times = times_of(mtime);
    let set = || rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    ignore_unsupported(rustix::io::retry_on_intr(set))
}

/// Sets the permission bits of the file or directory `name`, whether or not it can be opened.
#[cfg(target_os = "linux")]
pub fn set_mode_at(dir: &Dir, name: &[u8], mode: u32) -> io::Result<()> {
    let found = retry(|| rustix::fs::openat(dir, name, COMMON.union(OFlags::PATH), Mode::empty()))?;
    // With these flags a link is opened, not refused.
    if stat_open(&found)?.kind == Kind::Symlink {
        return Err(Errno::LOOP.into());
    }
    disk::before(Change::Metadata, &found)?;
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    has_set(&found, mode, rustix::io::retry_on_intr(|| rustix::fs::chmod(&path, mode_of(mode))))
}

/// Sets the permission bits of the file or directory `name`, if it can be opened.
#[cfg(not(target_os = "linux"))]
pub fn set_mode_at(dir: &Dir, name: &[u8], mode: u32) -> io::Result<()> {
    set_mode(&open_file(dir, name)?, mode)
}

/// Sets the permission bits of an open file or directory.
pub fn set_mode(file: &impl AsFd, mode: u32) -> io::Result<()> {
    disk::before(Change::Metadata, file)?;
    has_set(file, mode, rustix::io::retry_on_intr(|| rustix::fs::fchmod(file, mode_of(mode))))
}

/// Linux leaves the setgid bit out without an error where the caller is not in the group.
fn has_set(file: &impl AsFd, mode: u32, set: rustix::io::Result<()>) -> io::Result<()> {
    match set {
        Ok(()) if mode & SETGID != 0 && stat_open(file)?.mode & SETGID == 0 => Err(Errno::PERM.into()),
        set => ignore_unsupported(set),
    }
}

const SETGID: u32 = 0o2000;

/// Reads once at `offset`.
pub fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| file.read_at(buffer, offset))
}

/// Reads once at `offset` what needs no disk; `None` if it has to wait, or the system cannot tell.
#[cfg(target_os = "linux")]
pub fn try_read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut buffers = [io::IoSliceMut::new(buffer)];
    match rustix::io::preadv2(file, &mut buffers, offset, rustix::io::ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(Some(read)),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Other systems cannot tell.
#[cfg(not(target_os = "linux"))]
pub fn try_read_at(_file: &File, _offset: u64, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
    Ok(None)
}

/// Writes all of `data` at `offset`.
pub fn write_all_at(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    disk::before(Change::Write { offset_bytes: offset, data }, file)?;
    file.write_all_at(data, offset)
}

/// A local path as bytes.
pub fn bytes_of(path: &OsStr) -> Option<&[u8]> {
    Some(path.as_bytes())
}

/// Whether an open failed because a name on the way, or the last one, is a link.
pub fn is_symlink_refused(error: &io::Error) -> bool {
    // FreeBSD says EMLINK where POSIX says ELOOP.
    matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::MLINK))
}

/// Whether the file system does not take a name, as far as the error of giving it tells.
pub fn is_name_refused(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::ILSEQ | Errno::NAMETOOLONG))
}

/// Whether this process, or the whole system, is out of descriptors or memory: no path is the cause.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Whether a `following` function refused a path that leaves the root.
pub fn is_escape(error: &io::Error) -> bool {
    // The system's own refusals carry a number; cap-std's does not.
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// The names in an open directory, in the order the system gives them.
#[derive(Debug)]
pub struct Names {
    dir: rustix::fs::Dir,
    position: Position,
}

/// A place in a directory, behind the name that was given last.
pub type Position = i64;

impl Names {
    /// Starts on a handle of its own.
    pub fn of(dir: &Dir) -> io::Result<Self> {
        Ok(Self { dir: rustix::fs::Dir::read_from(dir)?, position: 0 })
    }

    /// Starts behind the name that was given last at `position`, of the same directory.
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    pub fn at(dir: &Dir, position: Position) -> io::Result<Self> {
        let mut names = Self::of(dir)?;
        retry(|| names.dir.seek(position))?;
        names.position = position;
        Ok(names)
    }

    /// Other systems have no such call, or do not tell positions.
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    pub fn at(_dir: &Dir, _position: Position) -> io::Result<Self> {
        Err(Errno::NOTSUP.into())
    }

    /// Where it is, if a directory can be entered there again.
    pub fn position(&self) -> Option<Position> {
        cfg!(all(target_os = "linux", target_pointer_width = "64")).then_some(self.position)
    }

    /// Hands the next name to `visit`; `None` at the end.
    pub fn next<T>(&mut self, visit: impl FnOnce(&[u8]) -> T) -> Option<io::Result<T>> {
        loop {
            return match self.dir.read()? {
                Ok(entry) => {
                    self.position = position_of(&entry);
                    match entry.file_name().to_bytes() {
                        b"." | b".." => continue,
                        name => Some(Ok(visit(name))),
                    }
                }
                Err(error) => Some(Err(error.into())),
            };
        }
    }
}

#[cfg(target_os = "linux")]
fn position_of(entry: &rustix::fs::DirEntry) -> Position {
    entry.offset()
}

/// Other systems do not tell.
#[cfg(not(target_os = "linux"))]
fn position_of(_entry: &rustix::fs::DirEntry) -> Position {
    0
}

const COMMON: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);
const DIRECTORY: OFlags = COMMON.union(OFlags::RDONLY).union(OFlags::DIRECTORY);
/// Without `NONBLOCK` the open of a FIFO waits for somebody to write to it.
const READ: OFlags = COMMON.union(OFlags::RDONLY).union(OFlags::NONBLOCK);
const WRITE: OFlags = COMMON.union(OFlags::RDWR).union(OFlags::NONBLOCK);

const NANOS_MAX: u32 = 999_999_999;

/// Symbolic links can be created here.
pub const HAS_LINKS: bool = true;

/// 4,000: `PATH_MAX` is 4,096, the end of the text included, and a name has at most 255.
const LOOKUP_LEN_BYTES: usize = 4000;

/// How often a lookup is repeated that the kernel gave up because of a rename at the same time.
#[cfg(target_os = "linux")]
const LOOKUP_ATTEMPTS: u32 = 16;

/// Opens `path` beneath `root`, through no link. One that is too long for a single lookup is opened piece by piece.
fn open_beneath(root: &Dir, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let (mut rest, mut held): (_, Option<OwnedFd>) = (path, None);
    while rest.len() > LOOKUP_LEN_BYTES
        && let Some(end) = rest[..LOOKUP_LEN_BYTES].iter().rposition(|byte| *byte == b'/')
    {
        let at = held.as_ref().map_or_else(|| root.as_fd(), AsFd::as_fd);
        held = Some(look_up(at, &rest[..end], DIRECTORY, Mode::empty())?);
        rest = &rest[end + 1..];
    }
    look_up(held.as_ref().map_or_else(|| root.as_fd(), AsFd::as_fd), rest, flags, mode)
}

#[cfg(target_os = "linux")]
fn look_up(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;

    let beneath = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
    for _ in 0..LOOKUP_ATTEMPTS {
        match rustix::fs::openat2(root, path, flags, mode, beneath) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // An old kernel, or a sandbox that filters the call.
            Err(Errno::NOSYS | Errno::PERM) => break,
            result => return Ok(result?),
        }
    }
    open_by_component(root, path, flags, mode)
}

#[cfg(not(target_os = "linux"))]
fn look_up(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    open_by_component(root, path, flags, mode)
}

fn open_by_component(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let mut components = path.split(|byte| *byte == b'/');
    let last = components.next_back().unwrap_or_default();
    let mut held: Option<OwnedFd> = None;
    for component in components {
        let at = held.as_ref().map_or(root, AsFd::as_fd);
        held = Some(retry(|| rustix::fs::openat(at, checked(component)?, DIRECTORY, Mode::empty()))?);
    }
    let at = held.as_ref().map_or(root, AsFd::as_fd);
    retry(|| rustix::fs::openat(at, checked(last)?, flags, mode))
}

/// `openat` would follow these out of the root; a checked path has none.
fn checked(component: &[u8]) -> Result<&[u8], Errno> {
    match component {
        b"" | b"." | b".." => Err(Errno::INVAL),
        name => Ok(name),
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_exclusive(dir: &Dir, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    let new_only = rustix::fs::RenameFlags::NOREPLACE;
    rustix::io::retry_on_intr(|| rustix::fs::renameat_with(dir, from, dir, to, new_only))
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_exclusive(_dir: &Dir, _from: &[u8], _to: &[u8]) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

fn link_new(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())) {
        Ok(()) => remove_file(dir, from),
        // Nor hard links, as on FAT. What remains is to look first; the gap is the file system's.
        Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => match stat(dir, to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => rename_replacing(dir, from, to),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
fn reserve_blocks(file: &File, size_bytes: u64) -> io::Result<()> {
    retry(|| rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size_bytes))
}

#[cfg(not(target_os = "linux"))]
fn reserve_blocks(_file: &File, _size_bytes: u64) -> io::Result<()> {
    Err(Errno::NOTSUP.into())
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS))
}

/// File systems without modes or with coarse times (FAT, some network ones) refuse to set them; the
/// content is what matters.
fn ignore_unsupported(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

fn dir_from(opened: io::Result<OwnedFd>) -> io::Result<Dir> {
    opened.map(|fd| Dir::from_std_file(fd.into()))
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn mode_of(mode: u32) -> Mode {
    /// The type of a mode differs between platforms; permission bits fit in all of them.
    fn narrow<T: TryFrom<u32> + Default>(mode: u32) -> T {
        mode.try_into().unwrap_or_default()
    }
    // Never setuid.
    Mode::from_raw_mode(narrow(mode & 0o3777))
}

/// The types of the fields differ between platforms; a value that does not fit is no honest one.
fn stat_from(stat: &rustix::fs::Stat) -> Stat {
    fn wide<T: TryInto<u64>>(value: T) -> u64 {
        value.try_into().unwrap_or_default()
    }
    fn secs<T: TryInto<i64>>(value: T) -> i64 {
        value.try_into().unwrap_or_default()
    }
    fn nanos<T: TryInto<u32>>(value: T) -> u32 {
        value.try_into().unwrap_or_default().min(NANOS_MAX)
    }
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    };
    let mode = u32::try_from(wide(stat.st_mode)).unwrap_or_default();
    Stat {
        kind,
        mode: mode & 0o7777,
        size_bytes: wide(stat.st_size),
        allocated_bytes: wide(stat.st_blocks).saturating_mul(512),
        mtime: Mtime { secs: secs(stat.st_mtime), nanos: nanos(stat.st_mtime_nsec) },
        ctime: Mtime { secs: secs(stat.st_ctime), nanos: nanos(stat.st_ctime_nsec) },
        device: wide(stat.st_dev),
        inode: wide(stat.st_ino),
        links: wide(stat.st_nlink),
        user: stat.st_uid,
        group: stat.st_gid,
    }
}
