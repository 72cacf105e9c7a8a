//! Resolves the destination of a transfer: on this machine, or beneath a served directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use shiplane_wire::{RelPath, escape};

use crate::{
    dirs::DirHandle,
    error::{DestinationError, Operation},
    names::{self, JobKey, NameRefused},
    platform::{self, Kind, Stat},
    shape::Shape,
    state::OWNER_DIRECTORY_MODE,
};

/// The directory that everything is put beneath, and what is known of it.
#[derive(Debug)]
pub(super) struct ResolvedDestination {
    pub(super) root: Arc<DirHandle>,
    /// Its path, for messages.
    pub(super) shown: PathBuf,
    /// The name of the file, if the transfer is one.
    pub(super) file: Option<RelPath>,
    pub(super) key: JobKey,
    /// The directories that this run created for it, from the top down.
    pub(super) created: Vec<Created>,
    /// It lies beneath a directory that is held open, and the names on the way to it are durable if that
    /// was promised; its path means nothing to this system.
    pub(super) is_beneath: bool,
}

/// A directory that was created, by its parent.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) parent: Dir,
    pub(super) name: Vec<u8>,
}

impl Created {
    /// Removes the directory, unless something is in it.
    pub(super) fn undo(&self) {
        // That it stays is no harm worth another error.
        let _ = platform::remove_dir(&self.parent, &self.name);
    }
}

/// Asked with the path of each directory that a transfer needs and that is not there yet.
pub(super) type MayCreate<'a> = &'a dyn Fn(&[u8]) -> bool;

impl ResolvedDestination {
    /// Finds, and if need be creates, the directory in which `shape` lands when the user says `dest`:
    ///
    /// | shape | `dest` ends in a slash | `dest` is a directory | else |
    /// |---|---|---|---|
    /// | file | `dest/name` | `dest/name` | `dest` |
    /// | directory | `dest/name` | `dest` | `dest` |
    /// | content | `dest` | `dest` | `dest` |
    ///
    /// So the same command finds the same place again. Missing directories are created. With `is_durable`, the names
    /// of the directories that are created above the last one are durable when this returns.
    pub(super) fn find(
        dest: &Path,
        shape: &Shape,
        key: JobKey,
        is_durable: bool,
    ) -> Result<Self, DestinationError> {
        let location = Location::of(dest, shape)?;
        let shown = location.shown();
        let Location { base, directory, file } = location;
        let is_top = directory.is_none() && file.is_none();
        let mode = if is_top { OWNER_DIRECTORY_MODE } else { NEW_DIR_MODE };
        let mut walk = Walk::to(base, mode, is_durable)?;
        if let Some(name) = directory {
            let path = shown.as_os_str().as_encoded_bytes();
            walk.enter(name.as_bytes(), path, OWNER_DIRECTORY_MODE, &|_| true, false)?;
        }
        Self::of(walk, shown, file, key, false)
    }

    /// Finds, and if need be creates, the directory beneath `root` in which `shape` lands when a peer asks
    /// for `path`, which is always taken for a directory:
    ///
    /// | shape | lands in |
    /// |---|---|
    /// | file | `path/name` |
    /// | directory | `path/name`, created |
    /// | root | `path` |
    ///
    /// The whole path is checked before anything is created, and no component of it is followed if it is a
    /// link. With `is_durable` the names of all these directories are durable when this returns, no matter who
    /// created them.
    pub(super) fn beneath(
        root: &Dir,
        path: &[u8],
        shape: &Shape,
        key: JobKey,
        is_durable: bool,
        may_create: MayCreate<'_>,
    ) -> Result<Self, DestinationError> {
        let (directory, file) = match shape {
            Shape::File { name } => {
                // Too long or too deep a path shows now, before the first directory is made.
                check_names(&joined(path, name)?)?;
                (optional(path)?, Some(checked_name(name)?))
            }
            Shape::Directory { name } => {
                checked_name(name)?;
                (Some(joined(path, name)?), None)
            }
            Shape::Contents => (optional(path)?, None),
        };
        directory.iter().try_for_each(check_names)?;
        let at = root.try_clone().map_err(|error| DestinationError::io(Operation::Open, b".", error))?;
        let mut walk = Walk { at, created: Vec::new() };
        let way: Vec<_> = std::iter::successors(directory.clone(), RelPath::parent).collect();
        for (left, path) in way.iter().enumerate().rev() {
            // The last one gets its mode at the end, when its content is complete.
            let is_top = left == 0 && file.is_none();
            let mode = if is_top { OWNER_DIRECTORY_MODE } else { NEW_DIR_MODE };
            // Another push may have created it a moment ago: each push that relies on it makes it durable.
            walk.enter(path.file_name(), path.as_bytes(), mode, may_create, is_durable)?;
        }
        let shown = directory.map_or_else(|| ".".to_owned(), |path| lossy(path.as_bytes()));
        Self::of(walk, PathBuf::from(shown), file, key, true)
    }

    fn of(
        walk: Walk,
        shown: PathBuf,
        file: Option<RelPath>,
        key: JobKey,
        is_beneath: bool,
    ) -> Result<Self, DestinationError> {
        let root = DirHandle::new(walk.at).map_err(|error| failed(Operation::Examine, &shown, error))?;
        let key = file.as_ref().map_or(key, |name| key.for_file(name.as_bytes()));
        Ok(Self { root: Arc::new(root), shown, file, key, created: walk.created, is_beneath })
    }
}

/// As every program makes directories; the umask takes its part away.
const NEW_DIR_MODE: u32 = 0o777;

/// Where [`ResolvedDestination::find`] finds the directory. Nothing is created.
pub(super) struct Location<'a> {
    base: &'a Path,
    /// The directory in it, whose name may be the peer's word.
    directory: Option<RelPath>,
    /// The name of a single file.
    pub(super) file: Option<RelPath>,
}

impl<'a> Location<'a> {
    pub(super) fn of(dest: &'a Path, shape: &Shape) -> Result<Self, DestinationError> {
        Ok(match shape {
            Shape::File { name } if ends_in_separator(dest) || is_dir(dest)? => {
                Self { base: dest, directory: None, file: Some(checked_name(name)?) }
            }
            Shape::File { .. } => {
                Self { base: parent_of(dest), directory: None, file: Some(checked_name(name_of(dest)?)?) }
            }
            Shape::Directory { name } if ends_in_separator(dest) => {
                Self { base: dest, directory: Some(checked_name(name)?), file: None }
            }
            Shape::Directory { .. } | Shape::Contents => Self { base: dest, directory: None, file: None },
        })
    }

    /// The path of the directory.
    pub(super) fn shown(&self) -> PathBuf {
        let name = self.directory.as_ref().map(|name| lossy(name.as_bytes()));
        name.map_or_else(|| self.base.to_owned(), |name| self.base.join(name))
    }
}

/// The way down to a directory, and what had to be created for it.
struct Walk {
    at: Dir,
    created: Vec<Created>,
}

impl Walk {
    /// To the directory that the user calls `path`, through links if it exists; else created with this mode.
    fn to(path: &Path, mode: u32, is_durable: bool) -> Result<Self, DestinationError> {
        let mut missing = Vec::new();
        let mut at = path;
        let dir = loop {
            match platform::open_ambient_dir(at) {
                Ok(dir) => break dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push((name_of(at)?, at));
                    at = parent_of(at);
                }
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(not_a_directory(at));
                }
                Err(error) => return Err(failed(Operation::Open, at, error)),
            }
        };
        let mut walk = Self { at: dir, created: Vec::new() };
        while let Some((name, at)) = missing.pop() {
            let is_last = missing.is_empty();
            let mode = if is_last { mode } else { NEW_DIR_MODE };
            let path = at.as_os_str().as_encoded_bytes();
            walk.enter(name, path, mode, &|_| true, is_durable && !is_last)?;
        }
        Ok(walk)
    }

    /// Goes down to `name`, which is no link, and is created if it is missing and may be. `path` names it. With
    /// `is_durable` its name is durable then. After an error, what was created on the way is gone.
    fn enter(
        &mut self,
        name: &[u8],
        path: &[u8],
        mode: u32,
        may_create: MayCreate<'_>,
        is_durable: bool,
    ) -> Result<(), DestinationError> {
        let failed = |operation| move |error| DestinationError::io(operation, path, error);
        let mut step = || {
            let opened = match platform::open_dir(&self.at, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !may_create(path) {
                        return Err(DestinationError::ParentMissing { path: escape(path).to_string() });
                    }
                    self.create(name, mode).map_err(failed(Operation::Create))?;
                    platform::open_dir(&self.at, name)
                }
                opened => opened,
            };
            let next = opened.map_err(|error| match platform::stat(&self.at, name) {
                Ok(Stat { kind: found, .. }) if found != Kind::Directory => {
                    let path = escape(path).to_string();
                    DestinationError::WrongKind { path, found, wanted: Kind::Directory }
                }
                _ => failed(Operation::Open)(error),
            })?;
            if is_durable {
                platform::sync_dir(&self.at).map_err(failed(Operation::Sync))?;
            }
            self.at = next;
            Ok(())
        };
        let entered = step();
        entered.inspect_err(|_| self.created.iter().rev().for_each(Created::undo))
    }

    fn create(&mut self, name: &[u8], mode: u32) -> io::Result<()> {
        let parent = self.at.try_clone()?;
        match platform::make_dir(&parent, name, mode) {
            Ok(()) => {
                self.created.push(Created { parent, name: name.into() });
                Ok(())
            }
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether there is a directory, through links.
fn is_dir(dest: &Path) -> Result<bool, DestinationError> {
    match fs::metadata(dest) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(failed(Operation::Examine, dest, error)),
    }
}

fn ends_in_separator(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().last();
    last.is_some_and(|last| std::path::is_separator(char::from(*last)))
}

/// The last component of what the user calls `path`.
fn name_of(path: &Path) -> Result<&[u8], DestinationError> {
    let refused = |reason| DestinationError::NameRefused { path: shown(path), reason };
    let name = path.file_name().ok_or_else(|| refused(NameRefused::NotOneName))?;
    platform::bytes_of(name).ok_or_else(|| refused(NameRefused::NotUnicode))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn not_a_directory(path: &Path) -> DestinationError {
    let found = match fs::symlink_metadata(path).map(|found| found.file_type()) {
        Ok(found) if found.is_symlink() => Kind::Symlink,
        Ok(found) if found.is_file() => Kind::File,
        Ok(_) => Kind::Special,
        // Something above it is no directory.
        Err(_) => Kind::File,
    };
    DestinationError::WrongKind { path: shown(path), found, wanted: Kind::Directory }
}

/// What is to become of a name that a peer has and that is one of ours, or none that this system can hold.
///
/// # Errors
/// The rule it breaks.
pub fn check_name(path: &RelPath) -> Result<(), NameRefused> {
    path.components().try_for_each(names::check_component)
}

/// The same, as an error of the destination.
pub(super) fn check_names(path: &RelPath) -> Result<(), DestinationError> {
    check_name(path).map_err(|reason| DestinationError::NameRefused { path: path.to_string(), reason })
}

/// Checks the name of a single file or directory, which may be the peer's word.
fn checked_name(name: &[u8]) -> Result<RelPath, DestinationError> {
    let path = parse(name)?;
    if path.components().nth(1).is_some() {
        return Err(refused(name, NameRefused::NotOneName));
    }
    check_names(&path)?;
    Ok(path)
}

fn optional(path: &[u8]) -> Result<Option<RelPath>, DestinationError> {
    if path.is_empty() { Ok(None) } else { parse(path).map(Some) }
}

fn joined(path: &[u8], name: &[u8]) -> Result<RelPath, DestinationError> {
    if path.is_empty() { parse(name) } else { parse(&[path, b"/", name].concat()) }
}

fn parse(path: &[u8]) -> Result<RelPath, DestinationError> {
    RelPath::parse(path).map_err(|reason| refused(path, reason.into()))
}

fn refused(path: &[u8], reason: NameRefused) -> DestinationError {
    DestinationError::NameRefused { path: escape(path).to_string(), reason }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes()).to_string()
}

fn failed(operation: Operation, path: &Path, error: io::Error) -> DestinationError {
    DestinationError::io(operation, path.as_os_str().as_encoded_bytes(), error)
}
