//! Finishes a transfer: directories' modes and times, journal, temporary files.

use std::io;

use cap_std::fs::Dir;
use shiplane_wire::{LeftOutReason, RelPath};

use crate::{
    destination::{Destination, Parts},
    dirs::DirHandle,
    error::{DestinationError, Operation},
    platform::{self, Kind, Names},
    policy::RenameMode,
    scan::TopDirectory,
    state::{Link, Metadata, Summary},
};

impl Destination {
    /// Ends the transfer: sets the times of directories, removes what this and earlier runs of the job left
    /// under temporary names, and the journal. With [`Durability::Durable`], everything is durable then, also
    /// the files that were found identical.
    ///
    /// # Errors
    ///
    /// [`DestinationError::Unfinished`] if a wanted file was neither published nor discarded,
    /// [`DestinationError::Poisoned`] if something could not be made durable, else what the system says.
    /// The journal stays then, and the same job can be run again.
    pub fn finish(self) -> Result<Summary, DestinationError> {
        let parts = &*self.parts;
        self.check_complete()?;
        if let Some(deletion) = self.deletion() {
            self.remove_surplus(deletion)?;
        }
        parts.planner.resume.remove_temps()?;
        self.remove_orphaned_temps()?;
        self.lay_hard_links()?;
        self.lay_links()?;
        parts.planner.each_directory(|path, directory| {
            if let Err(error) = self.settle_directory(path, directory) {
                parts.site.leave_out(None, path, error)?;
            }
            parts.publisher.sync_many()
        })?;
        if parts.site.is_durable() {
            self.make_durable()?;
        }
        let summary = parts.site.count(|_| ());
        // What earlier runs left in a directory that was left out is the next run's to find, by the journal.
        parts.store.finish(!parts.site.was_resumed || !parts.planner.has_left_out_directories())?;
        // Until then there are names in it that change.
        self.settle_top()?;
        if parts.site.is_durable() {
            // A journal that comes back after a power cut would only cost time, but it is ours to clear.
            platform::sync_dir(&parts.site.root().dir)
                .map_err(|error| parts.site.failed_at_root(Operation::Sync, error))?;
        }
        Ok(summary)
    }

    fn check_complete(&self) -> Result<(), DestinationError> {
        self.parts.publisher.check_not_poisoned()?;
        match self.parts.store.len() {
            0 => Ok(()),
            files => Err(DestinationError::Unfinished { files }),
        }
    }

    /// Removes temporary files of this job that its journal does not know, where there may be any.
    fn remove_orphaned_temps(&self) -> Result<(), DestinationError> {
        if !self.parts.store.may_have_orphaned_temps() {
            return Ok(());
        }
        self.remove_orphaned_temps_in(&self.parts.site.root().dir)?;
        self.parts.planner.each_directory(|path, _| {
            let handle = self.parts.site.dirs.open(Some(path));
            let handle = handle.map_err(|error| self.parts.site.failed(Operation::Open, path, error))?;
            self.remove_orphaned_temps_in(&handle.dir)
        })
    }

    fn remove_orphaned_temps_in(&self, dir: &Dir) -> Result<(), DestinationError> {
        let prefix = self.parts.site.key.temp_prefix();
        let failed = |operation| move |error| self.parts.site.failed_at_root(operation, error);
        let mut names = Names::of(dir).map_err(failed(Operation::Read))?;
        let mut orphaned_temps = Vec::new();
        let own = |name: &[u8]| {
            (name.starts_with(prefix.as_bytes()) && crate::names::is_own(name)).then(|| name.to_vec())
        };
        while let Some(name) = names.next(own) {
            orphaned_temps.extend(name.map_err(failed(Operation::Read))?);
        }
        for name in orphaned_temps {
            platform::remove_if_there(dir, &name).map_err(failed(Operation::Remove))?;
        }
        Ok(())
    }

    /// Creates the symbolic links, now that nothing more is written beneath any name.
    fn lay_links(&self) -> Result<(), DestinationError> {
        let parts = &*self.parts;
        parts.planner.each_link(|path, link| {
            if let Err(error) = self.lay_link(path, link, parts.site.options.existing.replaces()) {
                parts.site.leave_out(None, path, error)?;
            }
            // A link itself cannot be synced.
            self.rely_on_what_is_here();
            parts.publisher.sync_many()
        })
    }

    /// Creates a symbolic link, in place of what is there if it `replaces` it.
    pub(super) fn lay_link(
        &self,
        path: &RelPath,
        link: &Link,
        replaces: bool,
    ) -> Result<(), DestinationError> {
        let Parts { site, store, publisher, .. } = &*self.parts;
        let parent = site.parent_of(path)?;
        let id = store.begin_name(path)?;
        let laid = self.lay_temporary_link(&parent, id, path, link, replaces);
        store.drop_temp(id, path)?;
        laid?;
        publisher.changed(path.parent(), parent.device);
        site.count(|summary| summary.links += 1);
        Ok(())
    }

    fn lay_temporary_link(
        &self,
        parent: &DirHandle,
        id: u64,
        path: &RelPath,
        link: &Link,
        replaces: bool,
    ) -> Result<(), DestinationError> {
        let Parts { site, publisher, .. } = &*self.parts;
        let name = site.key.temp_name(id);
        let temp = name.as_bytes();
        let failed = |operation| move |error| site.failed_naming(operation, path, error);
        // A file with our temporary name is an abandoned one.
        platform::remove_if_there(&parent.dir, temp).map_err(failed(Operation::Remove))?;
        platform::make_link(&parent.dir, temp, link.target.as_bytes()).map_err(|error| {
            match error.kind() {
                io::ErrorKind::Unsupported => DestinationError::LinkRefused {
                    path: site.show(path),
                    reason: LeftOutReason::Symlink,
                    source: Some(error),
                },
                _ => failed(Operation::Create)(error),
            }
        })?;
        site.describe_link(&parent.dir, temp, path, link)?;
        let mode = if replaces { RenameMode::Replace } else { RenameMode::New };
        publisher.rename_temp(parent, temp, path, mode, replaces, Kind::Symlink)
    }

    /// Gives the destination directory the mode and time of the peer's, else the mode that it had.
    fn settle_top(&self) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        let dir = &site.root().dir;
        let settled = match (self.parts.planner.top(), site.loosened) {
            (Some(TopDirectory { mode, mtime, attributes }), _) => {
                let wanted = Metadata { mode: Some(mode), mtime, attributes };
                site.give_attributes(None, dir, wanted.attributes.as_ref())?;
                site.settle_directory(dir, &wanted).map(drop)
            }
            (None, Some(mode)) => platform::set_mode(dir, mode),
            (None, None) => Ok(()),
        };
        site.settled(None, None, settled)
    }

    /// Gives a directory its mode, time and attributes.
    fn settle_directory(&self, path: &RelPath, wanted: &Metadata) -> Result<(), DestinationError> {
        let Parts { site, publisher, .. } = &*self.parts;
        let handle = site.dirs.open(Some(path)).map_err(|error| site.failed(Operation::Open, path, error))?;
        let is_given = site.give_attributes(Some(path), &handle.dir, wanted.attributes.as_ref())?;
        let settled = site.settle_directory(&handle.dir, wanted);
        if is_given || matches!(settled, Ok(true)) {
            publisher.changed(Some(path.clone()), handle.device);
        }
        site.settled(Some(path), Some(path), settled.map(drop))
    }

    /// Makes durable what this run has written and, if it relies on that, what it has found.
    pub(super) fn make_durable(&self) -> Result<(), DestinationError> {
        let Parts { site, publisher, .. } = &*self.parts;
        publisher.sync()?;
        if self.relies_on_others() || site.count(|_| ()).identical_files > 0 {
            // Found, not written by this run: their writer may not have synced them.
            publisher.sync_file_systems(|_| true)?;
        }
        Ok(())
    }
}
