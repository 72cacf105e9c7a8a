//! Resolves the destination of a transfer on this machine.

use std::ffi::OsStr;
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
    platform::{self, Kind},
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
        match shape {
            Shape::File { name } if ends_in_separator(dest) || is_dir(dest)? => {
                let name = checked_name(name)?;
                Self::file_in(Found::or_create(dest, NEW_DIR_MODE, is_durable)?, dest, name, key)
            }
            Shape::File { .. } => {
                let name = checked_name(name_of(dest)?)?;
                let parent = parent_of(dest);
                Self::file_in(Found::or_create(parent, NEW_DIR_MODE, is_durable)?, parent, name, key)
            }
            Shape::Directory { name } if ends_in_separator(dest) => {
                let name = checked_name(name)?;
                let mut found = Found::or_create(dest, NEW_DIR_MODE, is_durable)?;
                let shown = dest.join(shown_name(name.as_bytes()));
                found.enter(name.as_bytes(), &shown, OWNER_DIRECTORY_MODE)?;
                Self::of(found.dir, shown, None, key, found.created, false)
            }
            Shape::Directory { .. } | Shape::Contents => {
                let found = Found::or_create(dest, OWNER_DIRECTORY_MODE, is_durable)?;
                Self::of(found.dir, dest.into(), None, key, found.created, false)
            }
        }
    }

    fn file_in(found: Found, parent: &Path, name: RelPath, key: JobKey) -> Result<Self, DestinationError> {
        let key = key.for_file(name.as_bytes());
        Self::of(found.dir, parent.into(), Some(name), key, found.created, false)
    }

    pub(super) fn of(
        dir: Dir,
        shown: PathBuf,
        file: Option<RelPath>,
        key: JobKey,
        created: Vec<Created>,
        is_beneath: bool,
    ) -> Result<Self, DestinationError> {
        let root = DirHandle::new(dir).map_err(|error| failed(Operation::Examine, &shown, error))?;
        Ok(Self { root: Arc::new(root), shown, file, key, created, is_beneath })
    }
}

/// As every program makes directories; the umask takes its part away.
pub(super) const NEW_DIR_MODE: u32 = 0o777;

/// Where [`ResolvedDestination::find`] finds the directory, and the name of a single file in it. Nothing is created.
pub(super) fn place_of(dest: &Path, shape: &Shape) -> Result<(PathBuf, Option<RelPath>), DestinationError> {
    Ok(match shape {
        Shape::File { name } if ends_in_separator(dest) || is_dir(dest)? => {
            (dest.to_owned(), Some(checked_name(name)?))
        }
        Shape::File { .. } => (parent_of(dest).to_owned(), Some(checked_name(name_of(dest)?)?)),
        Shape::Directory { name } if ends_in_separator(dest) => {
            (dest.join(shown_name(checked_name(name)?.as_bytes())), None)
        }
        Shape::Directory { .. } | Shape::Contents => (dest.to_owned(), None),
    })
}

/// A directory of this machine, and those above it that had to be created for it.
struct Found {
    dir: Dir,
    created: Vec<Created>,
}

impl Found {
    /// The directory that the user calls `path`, through links if it exists; else created with this mode.
    fn or_create(path: &Path, mode: u32, is_durable: bool) -> Result<Self, DestinationError> {
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
        let mut found = Self { dir, created: Vec::new() };
        while let Some((name, at)) = missing.pop() {
            let mode = if missing.is_empty() { mode } else { NEW_DIR_MODE };
            let entered =
                found.enter(name, at, mode).and_then(|parent| match is_durable && !missing.is_empty() {
                    true => platform::sync_dir(&parent).map_err(|error| failed(Operation::Sync, at, error)),
                    false => Ok(()),
                });
            if let Err(error) = entered {
                found.created.iter().rev().for_each(Created::undo);
                return Err(error);
            }
        }
        Ok(found)
    }

    /// Goes down to `name`, which is created if it is missing, and no link. Gives the directory above it.
    fn enter(&mut self, name: &[u8], shown: &Path, mode: u32) -> Result<Dir, DestinationError> {
        let failed = |operation| move |error| failed(operation, shown, error);
        let is_new = match platform::make_dir(&self.dir, name, mode) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(Operation::Create)(error)),
        };
        let found = platform::stat(&self.dir, name).map_err(failed(Operation::Examine))?.kind;
        if found != Kind::Directory {
            let path = self::shown(shown);
            return Err(DestinationError::WrongKind { path, found, wanted: Kind::Directory });
        }
        let dir = platform::open_dir(&self.dir, name).map_err(failed(Operation::Open))?;
        let parent = std::mem::replace(&mut self.dir, dir);
        if is_new {
            let parent = parent.try_clone().map_err(failed(Operation::Open))?;
            self.created.push(Created { parent, name: name.into() });
        }
        Ok(parent)
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

/// Checks the name of a single file or directory, which may be the peer's word.
pub(super) fn checked_name(name: &[u8]) -> Result<RelPath, DestinationError> {
    let refused = |reason| DestinationError::NameRefused { path: escape(name).to_string(), reason };
    let path = RelPath::parse(name).map_err(|reason| refused(reason.into()))?;
    if path.components().nth(1).is_some() {
        return Err(refused(NameRefused::NotOneName));
    }
    names::check_component(name).map_err(refused)?;
    Ok(path)
}

fn shown_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn shown(path: &Path) -> String {
    shown_bytes(path.as_os_str())
}

fn shown_bytes(path: &OsStr) -> String {
    escape(path.as_encoded_bytes()).to_string()
}

fn failed(operation: Operation, path: &Path, error: io::Error) -> DestinationError {
    DestinationError::io(operation, path.as_os_str().as_encoded_bytes(), error)
}
