//! Finishes a transfer: directories' modes and times, journal, temporary files.

use std::collections::HashSet;
use std::io;

use cap_std::fs::Dir;
use shiplane_wire::{RelPath, escape};

use crate::{
    destination::Inner,
    error::{DestinationError, Operation},
    lock,
    platform::{self, Names},
    state::{Directory, Summary},
};

impl Inner {
    pub(super) fn finish(&self) -> Result<Summary, DestinationError> {
        self.check_complete()?;
        self.remove_temps()?;
        self.remove_strays()?;
        self.settle_directories()?;
        if self.is_durable() {
            self.make_all_durable()?;
        }
        let mut state = lock(&self.state);
        state.is_finished = true;
        let summary = state.summary;
        drop(state);
        lock(&self.journal).remove()?;
        if self.is_durable() {
            // A journal that comes back after a power cut would only cost time, but it is ours to clear.
            platform::sync_dir(&self.root().dir)
                .map_err(|error| self.failed_at_root(Operation::Sync, error))?;
        }
        Ok(summary)
    }

    fn check_complete(&self) -> Result<(), DestinationError> {
        let state = lock(&self.state);
        if state.is_poisoned {
            let path = escape(self.shown.as_os_str().as_encoded_bytes()).to_string();
            return Err(DestinationError::Poisoned { path, source: None });
        }
        if !state.files.is_empty() {
            return Err(DestinationError::Unfinished { files: state.files.len() });
        }
        Ok(())
    }

    /// Removes what earlier runs left of files that the peer did not mention this time, and what this run has
    /// begun and given up: as much of it as can be removed.
    pub(super) fn remove_temps(&self) -> Result<(), DestinationError> {
        let mut temps = lock(&self.leftovers).take_unsettled();
        let strays = {
            let mut state = lock(&self.state);
            let active: HashSet<_> = state.files.values().map(|file| file.id).collect();
            let given_up = state.temps.iter().filter(|(id, _)| !active.contains(id));
            temps.extend(given_up.map(|(id, path)| (*id, path.clone())));
            let names: HashSet<_> = active.iter().map(|id| self.key.temp_name(*id).into_bytes()).collect();
            state.strays.retain(|path| !names.contains(path.file_name()));
            std::mem::take(&mut state.strays)
        };
        let removed = temps.iter().map(|(id, path)| self.remove_temp(*id, path));
        let removed = removed.chain(strays.iter().map(|path| self.remove_stray(path)));
        removed.fold(Ok(()), Result::and)
    }

    fn remove_stray(&self, path: &RelPath) -> Result<(), DestinationError> {
        let Ok(parent) = self.dirs.parent_of(path) else {
            return Ok(());
        };
        match platform::remove_file(&parent.dir, path.file_name()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed(Operation::Remove, path, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes temporary files of this job that its journal does not know, where there may be any.
    fn remove_strays(&self) -> Result<(), DestinationError> {
        if !lock(&self.state).has_strays {
            return Ok(());
        }
        self.remove_strays_in(&self.root().dir)?;
        self.each_directory(|path, _| {
            let handle = self.dirs.open(Some(path));
            let handle = handle.map_err(|error| self.failed(Operation::Open, path, error))?;
            self.remove_strays_in(&handle.dir)
        })
    }

    fn remove_strays_in(&self, dir: &Dir) -> Result<(), DestinationError> {
        let prefix = self.key.temp_prefix();
        let failed = |operation| move |error| self.failed_at_root(operation, error);
        let mut names = Names::of(dir).map_err(failed(Operation::Read))?;
        let mut strays = Vec::new();
        let own = |name: &[u8]| {
            (name.starts_with(prefix.as_bytes()) && crate::names::is_own(name)).then(|| name.to_vec())
        };
        while let Some(name) = names.next(own) {
            strays.extend(name.map_err(failed(Operation::Read))?);
        }
        for name in strays {
            match platform::remove_file(dir, &name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(Operation::Remove)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the peer announced, children before their parents: a directory may lose the right to be entered.
    fn each_directory(
        &self,
        mut visit: impl FnMut(&RelPath, &Directory) -> Result<(), DestinationError>,
    ) -> Result<(), DestinationError> {
        // Nothing is announced any more.
        let announced = std::mem::take(&mut lock(&self.state).directories);
        let visited = announced.newest_first(|path, directory| visit(path, directory).map_err(Visit::Failed));
        lock(&self.state).directories = announced;
        visited.map_err(|error| match error {
            Visit::Failed(error) => error,
            Visit::Unreadable(error) => self.failed_at_root(Operation::Read, error),
        })
    }

    fn settle_directories(&self) -> Result<(), DestinationError> {
        self.each_directory(|path, directory| {
            self.settle_directory(path, directory)?;
            self.sync_many()
        })
    }

    /// Sets a directory's time, and takes away from a new one's mode what was added to fill it.
    fn settle_directory(&self, path: &RelPath, directory: &Directory) -> Result<(), DestinationError> {
        let failed = |error| self.failed(Operation::SetMetadata, path, error);
        let handle = self.dirs.open(Some(path)).map_err(|error| self.failed(Operation::Open, path, error))?;
        // One that an interrupted run created is not new any more, but ours all the same.
        if (directory.is_new || self.was_resumed) && directory.mode & 0o700 != 0o700 {
            let mode = platform::stat_open(&handle.dir).map_err(failed)?.mode & directory.mode;
            platform::set_mode(&handle.dir, mode).map_err(failed)?;
        }
        platform::set_mtime(&handle.dir, directory.mtime).map_err(failed)?;
        lock(&self.state).unsynced.insert(Some(path.clone()), handle.device);
        Ok(())
    }

    fn make_all_durable(&self) -> Result<(), DestinationError> {
        self.sync_dirs()?;
        let relies_on_others = {
            let state = lock(&self.state);
            self.was_resumed || state.relies_on_others || state.summary.identical_files > 0
        };
        if relies_on_others {
            // Found, not written by this run: whoever wrote them may not have synced them.
            platform::sync_filesystem(&self.root().dir)
                .map_err(|error| self.failed_at_root(Operation::Sync, error))?;
        }
        for created in &self.created {
            platform::sync_dir(&created.parent)
                .map_err(|error| self.failed_at_root(Operation::Sync, error))?;
        }
        // An interrupted run may have created it; if the parent cannot be opened, it was not us.
        let parent = (self.was_resumed && self.created.is_empty() && !self.is_beneath)
            .then(|| platform::open_ambient_dir(&self.shown.join("..")).ok())
            .flatten();
        if let Some(parent) = parent {
            platform::sync_dir(&parent).map_err(|error| self.failed_at_root(Operation::Sync, error))?;
        }
        Ok(())
    }
}

/// Why not every directory was visited.
enum Visit {
    Failed(DestinationError),
    Unreadable(io::Error),
}

impl From<io::Error> for Visit {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}
