//! The local changes of a sync: copies, removals, directories.
//!
//! Nothing here decides: the caller has looked, immediately before, whether what is there is still what
//! is to be changed.

use std::io;

use crate::{
    destination::Destination,
    dirs::DirHandle,
    error::{DestinationError, Operation},
    journal::Journal,
    names::JobKey,
    platform::{self, Kind, Stat},
    resolve::check_names,
    source::SourceRoot,
    sparse,
    state::{ActiveFile, DIRECTORY_MODES, FileState as ActiveState, Link, Metadata, OWNER_DIRECTORY_MODE},
    sync::{FileState, LinkState, Stamp},
};
use shiplane_wire::{Attributes, Digest, DigestAlgorithm, Entry, EntryKind, LinkTarget, RelPath};

impl Destination {
    /// Takes the lock of the dataset that `root` is. It is held for as long as this destination or a writer of
    /// it is there, since until then something may be written.
    ///
    /// # Errors
    /// [`DestinationError::Busy`] while another sync, of whichever process, holds it.
    pub fn lock_dataset(&self, root: &SourceRoot) -> Result<(), DestinationError> {
        let failed = |error| DestinationError::io(Operation::Open, b".", error);
        let dir = root.directory().ok_or_else(|| failed(io::ErrorKind::NotADirectory.into()))?;
        let dir = DirHandle::new(dir.try_clone().map_err(failed)?).map_err(failed)?;
        let key = JobKey::new(b"the sync of a dataset", b"");
        let opened = Journal::open(&dir.into(), key, DigestAlgorithm::Blake3, ".".as_ref(), &mut ())?;
        self.parts.store.hold_dataset(opened.journal);
        self.parts.site.attributes.name_each();
        Ok(())
    }

    /// Of our `own` files that were found beneath the root, remembers which an earlier run of this job has left:
    /// also one whose journal is lost.
    pub fn note_orphaned_temps(&self, own: &[RelPath]) {
        let prefix = self.parts.site.key.temp_prefix();
        let orphaned_temps = own.iter().filter(|path| path.file_name().starts_with(prefix.as_bytes()));
        self.parts.planner.resume.note_orphaned_temps(orphaned_temps.cloned());
        // As this run has been told of what is left, so is the next.
        self.parts.store.is_findable();
    }

    /// What stands at `path` now, as a provider would list it.
    pub fn entry_at(&self, path: &RelPath) -> Result<Entry, DestinationError> {
        let found = self.parts.site.examine(path)?;
        let missing = || self.parts.site.failed(Operation::Examine, path, io::ErrorKind::NotFound.into());
        let found = found.ok_or_else(missing)?;
        let kind = match found.kind {
            Kind::File => EntryKind::File,
            Kind::Directory => EntryKind::Directory,
            other => return Err(self.parts.site.wrong_kind(path, other, Kind::File)),
        };
        let mut entry = found.entry(kind, path.clone());
        if kind == EntryKind::File {
            let parent = self.parts.site.parent_of(path)?;
            entry.holes = sparse::holes_of(&found, || platform::open_file(&parent.dir, path.file_name()));
        }
        Ok(entry)
    }

    /// Copies the file at `from` so that it can be published as `to`, as entry number `index`, with what `expected` says.
    /// `false`, and nothing is left of it, if it has another digest.
    pub fn copy_within(
        &self,
        index: u64,
        from: &RelPath,
        to: &RelPath,
        expected: &FileState,
        attributes: Option<&Attributes>,
    ) -> Result<bool, DestinationError> {
        let mut entry = Entry { path: to.clone(), ..self.entry_at(from)? };
        if entry.kind != EntryKind::File {
            return Ok(false);
        }
        expected.stamp.apply(&mut entry);
        entry.attributes = attributes.cloned();
        self.copy_entry(index, from, &entry, Some(expected.digest))
    }

    /// Gives the file at `path` another mode and time, and these attributes, if there are any.
    pub fn set_metadata(
        &self,
        path: &RelPath,
        stamp: Stamp,
        attributes: Option<&Attributes>,
    ) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        let parent = site.parent_of(path)?;
        let file = platform::open_file(&parent.dir, path.file_name())
            .map_err(|error| site.failed(Operation::Open, path, error))?;
        site.mend(&Metadata { attributes: attributes.cloned(), ..stamp.into() }, path, &file)?;
        // It is made durable with all that was found here.
        self.rely_on_what_is_here();
        Ok(())
    }

    /// Checks that a symbolic link of the other side may be created at `path`.
    pub fn check_link(&self, path: &RelPath, target: &LinkTarget) -> Result<(), DestinationError> {
        check_names(path)?;
        self.parts.site.check_link(path, target)
    }

    /// What is said of something that is there and is not to be replaced.
    pub fn exists(&self, path: &RelPath) -> DestinationError {
        self.parts.site.exists(path)
    }

    /// Creates a symbolic link at `path`, in place of the file or link that is there if it `replaces` it.
    pub fn create_link(
        &self,
        path: &RelPath,
        link: &LinkState,
        attributes: Option<&Attributes>,
        replaces: bool,
    ) -> Result<(), DestinationError> {
        self.lay_link(path, &described(link, attributes), replaces)?;
        self.rely_on_what_is_here();
        Ok(())
    }

    /// Gives the link at `path` another time, and these owners, if there are any.
    pub fn set_link_metadata(
        &self,
        path: &RelPath,
        link: &LinkState,
        attributes: Option<&Attributes>,
    ) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        let parent = site.parent_of(path)?;
        site.describe_link(&parent.dir, path.file_name(), path, &described(link, attributes))?;
        self.rely_on_what_is_here();
        Ok(())
    }

    /// Gives these directories, parents before their children, their modes and times at the end, and no others.
    pub fn settle_directories<'a>(
        &self,
        directories: impl Iterator<Item = (&'a RelPath, Stamp, Option<Attributes>)>,
    ) -> Result<(), DestinationError> {
        let planner = &self.parts.planner;
        planner.forget_directories();
        for (path, stamp, attributes) in directories {
            planner.settle_at_end(path, &Metadata { attributes, ..stamp.into() })?;
        }
        Ok(())
    }

    /// What is at `path`, as far as it can be told.
    pub fn stat_at(&self, path: &RelPath) -> Option<Stat> {
        self.parts.site.examine(path).ok()?
    }

    /// Lets files be created and removed in the directory at `path`, if it is ours.
    pub fn make_writable(&self, path: &RelPath) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        let Some(found) = site.examine(path)?.filter(|found| found.kind == Kind::Directory) else {
            return Ok(());
        };
        let parent = site.parent_of(path)?;
        match platform::set_mode_at(&parent.dir, path.file_name(), found.mode | OWNER_DIRECTORY_MODE) {
            // It is not ours. Whether we may write to it shows when we do.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            set => set.map_err(|error| site.failed(Operation::SetMetadata, path, error)),
        }
    }

    /// Gives the destination directory this mode, if this run has created it.
    pub fn set_new_root_mode(&self, mode: u32) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        if site.created.is_empty() || !site.keeps_modes {
            return Ok(());
        }
        platform::set_mode(&site.root().dir, (mode & DIRECTORY_MODES) | OWNER_DIRECTORY_MODE)
            .map_err(|error| site.failed_at_root(Operation::SetMetadata, error))
    }

    /// Removes what earlier runs left of files that were not mentioned this time, now that all have been, and
    /// what this one has given up.
    pub fn remove_unfinished(&self) -> Result<(), DestinationError> {
        self.parts.planner.resume.remove_temps()
    }

    /// Renames the file or directory at `from` to `to`, in the same directory, though this file system may take both names
    /// for the same.
    pub fn respell(&self, from: &RelPath, to: &RelPath) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        check_names(to)?;
        let parent = site.parent_of(to)?;
        platform::respell(&parent.dir, from.file_name(), to.file_name()).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists => site.exists(to),
                _ => site.failed_naming(Operation::Rename, to, error),
            }
        })?;
        site.dirs.forget(from);
        self.parts.publisher.removed(from, parent.device)
    }

    /// Removes the file at `path`.
    pub fn remove_file(&self, path: &RelPath) -> Result<(), DestinationError> {
        self.remove(path, platform::remove_file)
    }

    /// Removes the directory at `path`; fails if there is anything in it.
    pub fn remove_directory(&self, path: &RelPath) -> Result<(), DestinationError> {
        self.parts.site.dirs.forget(path);
        self.remove(path, platform::remove_dir)
    }

    /// Creates the directory at `path`, with this mode. One that is there already will do.
    pub fn create_directory(&self, path: &RelPath, stamp: Stamp) -> Result<(), DestinationError> {
        check_names(path)?;
        let parent = self.parts.site.parent_of(path)?;
        match platform::make_dir(&parent.dir, path.file_name(), OWNER_DIRECTORY_MODE) {
            Ok(()) => {
                let site = &self.parts.site;
                if site.keeps_modes {
                    let usual = || {
                        // With what it has from the directory that it is in.
                        let found = platform::stat(&parent.dir, path.file_name());
                        USUAL_DIRECTORY_MODE | found.map_or(0, |found| found.mode)
                    };
                    // From the start: if this sync is cut, the next one finds it as it is to be.
                    let mode = Metadata::from(stamp).mode.unwrap_or_else(usual) & DIRECTORY_MODES;
                    let mode = mode | OWNER_DIRECTORY_MODE;
                    let set = platform::set_mode_at(&parent.dir, path.file_name(), mode);
                    site.settled(Some(path), Some(path), set)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return match self.parts.site.examine(path)? {
                    Some(found) if found.kind == Kind::Directory => Ok(()),
                    Some(found) => Err(self.parts.site.wrong_kind(path, found.kind, Kind::Directory)),
                    None => Err(self.parts.site.failed(Operation::Create, path, error)),
                };
            }
            Err(error) => return Err(self.parts.site.failed_naming(Operation::Create, path, error)),
        }
        self.parts.publisher.created(path, parent.device)
    }

    /// Copies the file at `from` so that it can be published as this entry; `false` if it is not as long, or has another
    /// digest.
    pub(super) fn copy_entry(
        &self,
        index: u64,
        from: &RelPath,
        entry: &Entry,
        expected: Option<Digest>,
    ) -> Result<bool, DestinationError> {
        let reading = |error| self.parts.site.failed(Operation::Read, from, error);
        let source = self.parts.site.parent_of(from)?;
        let source = platform::open_file(&source.dir, from.file_name()).map_err(reading)?;
        let to = &entry.path;
        let mut file = ActiveFile::new(entry, to.clone(), self.parts.store.fresh_id());
        let store = &self.parts.store;
        file.is_begun = true;
        store.record(|batch| batch.begun(file.id, file.size_bytes, file.version, to))?;
        let temp = store.create_temp(&file)?;
        let is_as_long = || Ok(platform::stat_open(&source).map_err(reading)?.size_bytes == file.size_bytes);
        let was_as_long = is_as_long()?;
        let read = |at, buffer: &mut [u8]| platform::read_at(&source, at, buffer).map_err(reading);
        // Holes are not written, and read as zeros.
        let sized = platform::set_len(&temp, file.size_bytes);
        sized
            .map_err(|error| self.parts.site.failed_writing(Operation::Write, to, file.size_bytes, error))?;
        let copy = |at, part: &[u8]| {
            platform::write_all_at(&temp, at, part)
                .map_err(|error| self.parts.site.failed_writing(Operation::Write, to, file.size_bytes, error))
        };
        let (algorithm, holes) = (self.parts.site.options.digest, sparse::holes_in(&source, file.size_bytes));
        let digest = sparse::hash_content(algorithm, &holes, file.size_bytes, read, copy)?;
        if !was_as_long || !is_as_long()? || expected.is_some_and(|expected| expected != digest) {
            store.drop_file(&file)?;
            return Ok(false);
        }
        store.seal(&file, &temp)?;
        file.is_sealed = true;
        file.kept.insert(0..file.size_bytes);
        file.state = ActiveState::Complete;
        store.complete(index, file);
        Ok(true)
    }

    fn remove(
        &self,
        path: &RelPath,
        remove: impl Fn(&cap_std::fs::Dir, &[u8]) -> io::Result<()>,
    ) -> Result<(), DestinationError> {
        let parent = self.parts.site.parent_of(path)?;
        remove(&parent.dir, path.file_name())
            .map_err(|error| self.parts.site.failed(Operation::Remove, path, error))?;
        self.parts.publisher.removed(path, parent.device)
    }
}

fn described(link: &LinkState, attributes: Option<&Attributes>) -> Link {
    let LinkState { target, mtime } = link.clone();
    Link { target, mtime, attributes: attributes.cloned() }
}

/// Of a directory whose mode is unknown: what most umasks leave.
const USUAL_DIRECTORY_MODE: u32 = 0o755;
