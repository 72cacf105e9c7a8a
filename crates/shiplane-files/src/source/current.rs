//! Reads one path of a source in its current state.

use std::sync::Arc;

use cap_std::fs::Dir;
use shiplane_wire::{Entry, EntryKind, Mtime, RelPath, Version};

use super::{Content, Served, Source, SourceFile, SourceRoot};
use crate::{
    error::SourceError,
    platform::{self, Kind},
    sparse,
};

/// A file, open in the state that it has now.
#[derive(Debug)]
pub(crate) struct Current {
    /// What a manifest says of it.
    pub(crate) entry: Entry,
    /// Whether it has other names.
    pub(crate) is_linked: bool,
    /// When the content, or anything about the file, was last changed, as far as the system tells.
    pub(crate) changed: Mtime,
    /// The file.
    pub(crate) file: SourceFile,
}

impl Source {
    /// Opens the file at `path` of a tree in the state that it has by now.
    ///
    /// # Errors
    ///
    /// [`SourceError::Vanished`], [`SourceError::Changed`] if it is no file any more,
    /// [`SourceError::Unreadable`].
    pub(crate) fn open_current(&self, path: &RelPath) -> Result<Current, SourceError> {
        let failed = |error| SourceError::reopening(path.as_bytes(), error);
        let root = self.tree(path)?;
        let file = platform::open_file(root, path.as_bytes()).map_err(failed)?;
        let stat = platform::stat_open(&file).map_err(failed)?;
        if stat.kind != Kind::File {
            return Err(SourceError::Changed { path: path.to_string() });
        }
        let mut entry = stat.entry(EntryKind::File, path.clone());
        if !platform::has_true_size(&file, &stat) {
            self.made_up.list(file, &mut entry).map_err(failed)?;
            let content =
                self.made_up.find(&entry).ok_or_else(|| SourceError::Changed { path: path.to_string() })?;
            let file = SourceFile::of_content(content, &entry);
            return Ok(Current { entry, is_linked: false, changed: stat.mtime.max(stat.ctime), file });
        }
        let file = SourceFile::new(file, entry.version, path.clone());
        Ok(Current { entry, is_linked: stat.links > 1, changed: stat.mtime.max(stat.ctime), file })
    }

    /// The file or directory at `path` of a tree, as a scan lists it, but for attributes.
    ///
    /// # Errors
    ///
    /// As [`open_current`](Self::open_current).
    pub(crate) fn entry_at(&self, path: &RelPath) -> Result<Entry, SourceError> {
        let (root, failed) = (self.tree(path)?, |error| SourceError::reopening(path.as_bytes(), error));
        if let Ok(dir) = platform::open_dir(root, path.as_bytes()) {
            let stat = platform::stat_open(&dir).map_err(failed)?;
            return Ok(stat.entry(EntryKind::Directory, path.clone()));
        }
        let entry = self.open_current(path)?.entry;
        let stat = platform::open_file(root, path.as_bytes()).and_then(|file| platform::stat_open(&file));
        let holes = stat.map(|stat| sparse::holes_of(&stat, || platform::open_file(root, path.as_bytes())));
        Ok(Entry { holes: holes.unwrap_or_default(), ..entry })
    }

    /// The next one to read the file at `path` gets what the disk has, as far as that can be done.
    pub(crate) fn forget_cached(&self, path: &RelPath) {
        if let Ok(root) = self.tree(path)
            && let Ok(file) = platform::open_file(root, path.as_bytes())
        {
            platform::forget_cached(&file);
        }
    }

    fn tree(&self, path: &RelPath) -> Result<&Arc<Dir>, SourceError> {
        match &self.content {
            Content::Tree(root) => Ok(root),
            _ => Err(SourceError::Vanished { path: path.to_string() }),
        }
    }
}

impl SourceRoot {
    /// What stands at `path` beneath the served directory, and in which state; `None` if nothing does. No
    /// link is followed.
    ///
    /// # Errors
    ///
    /// [`SourceError::LeavesServedRoot`] for a path with a link in it, [`SourceError::Unreadable`].
    pub(crate) fn state_at(&self, path: &[u8]) -> Result<Option<(Kind, Version)>, SourceError> {
        let Served::Directory(root) = &self.served else { return Ok(None) };
        let failed = |error| match SourceError::reopening(path, error) {
            SourceError::Vanished { .. } => Ok(None),
            SourceError::Changed { path } => Err(SourceError::LeavesServedRoot { path }),
            error => Err(error),
        };
        let stat = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => platform::open_dir(root, &path[..at])
                .and_then(|parent| platform::stat(&parent, &path[at + 1..])),
            None => platform::stat(root, path),
        };
        stat.map_or_else(failed, |stat| Ok(Some((stat.kind, stat.version()))))
    }
}
