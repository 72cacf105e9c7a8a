//! Resolves the destination of a transfer, as `cp -r` does.

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
    /// | shape | `dest` is a directory | `dest` is something else or nothing |
    /// |---|---|---|
    /// | file | `dest/name` | `dest`, whose parent must exist |
    /// | directory | `dest/name` | `dest`, created |
    /// | root | `dest` | `dest`, created |
    ///
    /// A directory that an earlier run of the same job created as `dest` is `dest` again, not `dest/name`.
    pub(super) fn find(dest: &Path, shape: &Shape, key: JobKey) -> Result<Self, DestinationError> {
        let is_dir = match fs::metadata(dest) {
            Ok(found) => found.is_dir(),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                false
            }
            Err(error) => return Err(failed(Operation::Examine, dest, error)),
        };
        match (shape, is_dir) {
            (Shape::File { name }, true) => Self::file_in(dest, &checked_name(name)?, key),
            (Shape::File { .. }, false) => Self::file_as(dest, key),
            (Shape::Directory { name }, true) if !has_journal(dest, key) => {
                let name = checked_name(name)?;
                let parent = open(dest)?;
                Self::directory_in(parent, name.as_bytes(), dest.join(shown_name(name.as_bytes())), key)
            }
            (Shape::Directory { .. } | Shape::Contents, true) => {
                Self::of(open(dest)?, dest.into(), None, key, Vec::new(), false)
            }
            (Shape::Directory { .. } | Shape::Contents, false) => {
                let (parent, name) = split(dest)?;
                Self::directory_in(parent, name, dest.into(), key)
            }
        }
    }

    fn file_in(dest: &Path, name: &RelPath, key: JobKey) -> Result<Self, DestinationError> {
        let key = key.for_file(name.as_bytes());
        Self::of(open(dest)?, dest.into(), Some(name.clone()), key, Vec::new(), false)
    }

    fn file_as(dest: &Path, key: JobKey) -> Result<Self, DestinationError> {
        // `cp` does not make the file `a` when told `a/`, either.
        let bytes = dest.as_os_str().as_encoded_bytes();
        if bytes.last().is_some_and(|last| std::path::is_separator(char::from(*last))) {
            return Err(DestinationError::ParentMissing { path: shown(dest) });
        }
        let (parent, name) = split(dest)?;
        let name = checked_name(name)?;
        let shown = dest.parent().map(PathBuf::from).unwrap_or_default();
        let key = key.for_file(name.as_bytes());
        Self::of(parent, shown, Some(name), key, Vec::new(), false)
    }

    fn directory_in(parent: Dir, name: &[u8], shown: PathBuf, key: JobKey) -> Result<Self, DestinationError> {
        let is_new = match platform::make_dir(&parent, name, OWNER_DIRECTORY_MODE) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(Operation::Create, &shown, error)),
        };
        match platform::stat(&parent, name) {
            Ok(found) if found.kind != Kind::Directory => {
                let path = self::shown(&shown);
                return Err(DestinationError::WrongKind { path, found: found.kind, wanted: Kind::Directory });
            }
            Ok(_) => {}
            Err(error) => return Err(failed(Operation::Examine, &shown, error)),
        }
        let dir =
            platform::open_dir(&parent, name).map_err(|error| failed(Operation::Open, &shown, error))?;
        let created = is_new.then(|| Created { parent, name: name.into() });
        Self::of(dir, shown, None, key, created.into_iter().collect(), false)
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

fn open(path: &Path) -> Result<Dir, DestinationError> {
    platform::open_ambient_dir(path).map_err(|error| failed(Operation::Open, path, error))
}

/// The directory that `dest` is to be in, and its name there.
fn split(dest: &Path) -> Result<(Dir, &[u8]), DestinationError> {
    let refused = |reason| DestinationError::NameRefused { path: shown(dest), reason };
    let name = dest.file_name().ok_or_else(|| refused(NameRefused::NotOneName))?;
    let name = platform::bytes_of(name).ok_or_else(|| refused(NameRefused::NotUnicode))?;
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    match platform::open_ambient_dir(parent) {
        Ok(dir) => Ok((dir, name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DestinationError::ParentMissing { path: shown(dest) })
        }
        Err(error) => Err(failed(Operation::Open, parent, error)),
    }
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

fn has_journal(dest: &Path, key: JobKey) -> bool {
    fs::symlink_metadata(dest.join(key.journal_name())).is_ok_and(|found| found.is_file())
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
