//! Opens the target of a push beneath a served directory.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cap_std::fs::Dir;
use shiplane_wire::{RelPath, escape};

use crate::{
    error::{DestinationError, Operation},
    names::{self, JobKey, NameRefused},
    platform::{self, Kind},
    resolve::{Created, NEW_DIR_MODE, ResolvedDestination, checked_name},
    shape::Shape,
    state::OWNER_DIRECTORY_MODE,
};

/// Asked with the path of each directory that a push needs and that is not there yet.
pub(super) type MayCreate<'a> = &'a dyn Fn(&[u8]) -> bool;

impl ResolvedDestination {
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
        root: &Arc<Dir>,
        path: &[u8],
        shape: &Shape,
        key: JobKey,
        is_durable: bool,
        may_create: MayCreate<'_>,
    ) -> Result<Self, DestinationError> {
        let (directory, file) = match shape {
            Shape::File { name } => {
                // Too long or too deep a path shows now, before the first directory is made.
                check(&joined(path, name)?)?;
                (optional(path)?, Some(checked_name(name)?))
            }
            Shape::Directory { name } => {
                checked_name(name)?;
                (Some(joined(path, name)?), None)
            }
            Shape::Contents => (optional(path)?, None),
        };
        if let Some(directory) = &directory {
            check(directory)?;
        }
        let mut walk = Walk::new(root, is_durable, file.is_none())?;
        if let Err(error) = walk.down(directory.as_ref(), may_create) {
            walk.created.iter().rev().for_each(Created::undo);
            return Err(error);
        }
        let shown = directory.map_or_else(|| ".".to_owned(), |path| lossy(path.as_bytes()));
        let key = file.as_ref().map_or(key, |name| key.for_file(name.as_bytes()));
        Self::of(walk.at, PathBuf::from(shown), file, key, walk.created, true)
    }
}

/// The way down from the root.
struct Walk {
    at: Dir,
    created: Vec<Created>,
    is_durable: bool,
    /// It leads to the top of a tree, and not to the directory of a file.
    is_tree: bool,
}

impl Walk {
    fn new(root: &Dir, is_durable: bool, is_tree: bool) -> Result<Self, DestinationError> {
        let at = root.try_clone().map_err(|error| DestinationError::io(Operation::Open, b".", error))?;
        Ok(Self { at, created: Vec::new(), is_durable, is_tree })
    }

    fn down(&mut self, path: Option<&RelPath>, may_create: MayCreate<'_>) -> Result<(), DestinationError> {
        let Some(path) = path else { return Ok(()) };
        let mut end = 0;
        for component in path.components() {
            end += component.len();
            let so_far = path.as_bytes().get(..end).unwrap_or_default();
            end += 1; // The separator.
            // The last one gets its mode at the end, when its content is complete.
            let is_top = self.is_tree && so_far.len() == path.as_bytes().len();
            let mode = if is_top { OWNER_DIRECTORY_MODE } else { NEW_DIR_MODE };
            self.enter(component, so_far, mode, may_create)?;
        }
        Ok(())
    }

    /// One step, to `name`, which is `path` as seen from the root.
    fn enter(
        &mut self,
        name: &[u8],
        path: &[u8],
        mode: u32,
        may_create: MayCreate<'_>,
    ) -> Result<(), DestinationError> {
        let failed = |operation| move |error| DestinationError::io(operation, path, error);
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
            Ok(found) if found.kind != Kind::Directory => DestinationError::WrongKind {
                path: escape(path).to_string(),
                found: found.kind,
                wanted: Kind::Directory,
            },
            _ => failed(Operation::Open)(error),
        })?;
        if self.is_durable {
            // Another push may have created it a moment ago: each push that relies on it makes it durable.
            platform::sync_dir(&self.at).map_err(failed(Operation::Sync))?;
        }
        self.at = next;
        Ok(())
    }

    fn create(&mut self, name: &[u8], mode: u32) -> io::Result<()> {
        let parent = self.at.try_clone()?;
        match platform::make_dir(&parent, name, mode) {
            Ok(()) => {
                self.created.push(Created { parent, name: name.into() });
                Ok(())
            }
            // Another push was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
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

fn check(path: &RelPath) -> Result<(), DestinationError> {
    path.components().try_for_each(names::check_component).map_err(|reason| refused(path.as_bytes(), reason))
}

fn refused(path: &[u8], reason: NameRefused) -> DestinationError {
    DestinationError::NameRefused { path: escape(path).to_string(), reason }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
