//! The local changes of a sync: copies, removals, directories.
//!
//! Nothing here decides: whoever calls has looked, immediately before, whether what is there is still what
//! is to be changed.

use std::any::Any;
use std::io;
use std::sync::Arc;

use crate::{
    buffers::Scratch,
    destination::{Destination, Inner},
    dirs::DirHandle,
    error::{DestinationError, Operation},
    hash::{READ_LEN_BYTES, hash_parts},
    journal::Journal,
    landing::NEW_DIR_MODE,
    lock,
    names::{self, JobKey, NameRefused},
    platform::{self, Kind},
    record::Batch,
    source::SourceRoot,
    state::{ActiveFile, Stage},
};
use shiplane_wire::{Digest, DigestAlgorithm, Entry, EntryKind, RelPath};

/// Held while a dataset is synced, so that no other sync on this machine changes it at the same time.
#[derive(Debug)]
pub(super) struct DatasetLock(Option<Journal>);

impl DatasetLock {
    /// Takes the lock of the dataset that `root` is.
    ///
    /// # Errors
    /// [`DestinationError::Busy`] while another sync, of whichever process, holds it.
    fn take(root: &SourceRoot) -> Result<Self, DestinationError> {
        let failed = |error| DestinationError::io(Operation::Open, b".", error);
        let dir = root.directory().ok_or_else(|| failed(io::ErrorKind::NotADirectory.into()))?;
        let dir = DirHandle::new(dir.try_clone().map_err(failed)?).map_err(failed)?;
        let key = JobKey::new(b"the sync of a dataset", b"");
        Ok(Self(Some(Journal::open(&dir.into(), key, DigestAlgorithm::Blake3, ".".as_ref())?.journal)))
    }

    fn release(mut self) -> Result<(), DestinationError> {
        self.0.take().map_or(Ok(()), |journal| journal.remove())
    }
}

impl Drop for DatasetLock {
    fn drop(&mut self) {
        // A name that stays is no harm: it is the lock on it that counts, and the next sync removes it.
        let _ = self.0.take().map(|journal| journal.remove());
    }
}

/// What is to become of a name that a peer has and that is one of ours, or none that this system can hold.
///
/// # Errors
/// The rule it breaks.
pub fn check_name(path: &RelPath) -> Result<(), NameRefused> {
    path.components().try_for_each(names::check_component)
}

impl Destination {
    /// Takes the lock of the dataset that `root` is. It is held for as long as this destination or a writer of
    /// it is there, since until then something may be written.
    ///
    /// # Errors
    /// [`DestinationError::Busy`] while another sync, of whichever process, holds it.
    pub fn lock_dataset(&self, root: &SourceRoot) -> Result<(), DestinationError> {
        *lock(&self.inner.dataset) = Some(DatasetLock::take(root)?);
        Ok(())
    }

    /// Gives up the lock, after everything else, and what an unused destination has made for itself.
    ///
    /// # Errors
    /// If either cannot be removed.
    pub fn release(&self) -> Result<(), DestinationError> {
        let dataset = lock(&self.inner.dataset).take();
        dataset.map_or(Ok(()), DatasetLock::release)?;
        self.inner.leave_nothing()
    }

    /// Of our `own` files that were found beneath the root, remembers which an earlier run of this job has left:
    /// also one whose journal is lost.
    pub fn know_strays(&self, own: &[RelPath]) {
        let prefix = self.inner.key.temp_prefix();
        let strays = own.iter().filter(|path| path.file_name().starts_with(prefix.as_bytes()));
        let mut state = lock(&self.inner.state);
        state.strays.extend(strays.cloned());
        // As this run has been told of what is left, so is the next.
        state.is_findable = true;
    }

    /// Drops `held` once this destination and all its writers are gone.
    pub fn hold(&self, held: Arc<dyn Any + Send + Sync>) {
        *lock(&self.inner.held) = Some(held);
    }

    /// What stands at `path` now, as a provider would list it.
    pub fn entry_at(&self, path: &RelPath) -> Result<Entry, DestinationError> {
        let found = self.inner.examine(path)?;
        let missing = || self.inner.failed(Operation::Examine, path, io::ErrorKind::NotFound.into());
        let found = found.ok_or_else(missing)?;
        let kind = match found.kind {
            Kind::File => EntryKind::File,
            Kind::Directory => EntryKind::Directory,
            other => return Err(self.inner.wrong_kind(path, other, Kind::File)),
        };
        Ok(found.entry(kind, path.clone()))
    }

    /// Copies the file at `from` so that it can be published as `to`, as entry number `index`. `false`, and
    /// nothing is left of it, if it has not the digest `expected`.
    pub fn copy_within(
        &self,
        index: u64,
        from: &RelPath,
        to: &RelPath,
        expected: Digest,
    ) -> Result<bool, DestinationError> {
        let entry = Entry { path: to.clone(), ..self.entry_at(from)? };
        if entry.kind != EntryKind::File {
            return Ok(false);
        }
        self.inner.copy_within(index, from, &entry, expected)
    }

    /// Removes what earlier runs left of files that were not mentioned this time, now that all have been, and
    /// what this one has given up.
    pub fn remove_leftovers(&self) -> Result<(), DestinationError> {
        self.inner.remove_temps()
    }

    /// Removes the file at `path`.
    pub fn remove_file(&self, path: &RelPath) -> Result<(), DestinationError> {
        self.inner.remove(path, platform::remove_file)
    }

    /// Removes the directory at `path`; fails if there is anything in it.
    pub fn remove_directory(&self, path: &RelPath) -> Result<(), DestinationError> {
        self.inner.dirs.forget(path);
        self.inner.remove(path, platform::remove_dir)
    }

    /// Creates the directory at `path`. One that is there already will do.
    pub fn create_directory(&self, path: &RelPath) -> Result<(), DestinationError> {
        self.inner.create_directory(path)
    }
}

impl Inner {
    fn copy_within(
        &self,
        index: u64,
        from: &RelPath,
        entry: &Entry,
        expected: Digest,
    ) -> Result<bool, DestinationError> {
        let reading = |error| self.failed(Operation::Read, from, error);
        let source = self.parent_of(from)?;
        let source = platform::open_file(&source.dir, from.file_name()).map_err(reading)?;
        let to = &entry.path;
        let mut file = ActiveFile::new(entry, to.clone(), lock(&self.leftovers).fresh_id());
        file.is_begun = true;
        let mut batch = Batch::default();
        batch.begun(file.id, file.size_bytes, file.version, to);
        self.record(&batch)?;
        let temp = self.create_temp(&file)?;
        lock(&self.state).has_changes = true;
        let mut hasher = self.options.digest.hasher();
        let read = |at, buffer: &mut [u8]| platform::read_at(&source, at, buffer).map_err(reading);
        let mut copied_bytes = 0;
        let copy = |part: &[u8]| {
            let at = copied_bytes;
            copied_bytes += part.len() as u64;
            platform::write_all_at(&temp, at, part)
                .map_err(|error| self.failed_writing(Operation::Write, to, file.size_bytes, error))
        };
        // A byte more than is due, so that a longer file is found out.
        let range = 0..file.size_bytes.saturating_add(1);
        let len_bytes = hash_parts(&mut hasher, range, &mut Scratch::new(READ_LEN_BYTES), read, copy)?;
        if len_bytes != file.size_bytes || hasher.finish() != expected {
            self.drop_files(&[&file])?;
            return Ok(false);
        }
        self.seal(&file, &temp)?;
        file.is_sealed = true;
        file.kept.insert(0..file.size_bytes);
        file.stage = Stage::Complete;
        lock(&self.state).files.insert(index, file);
        Ok(true)
    }

    fn remove(
        &self,
        path: &RelPath,
        remove: impl Fn(&cap_std::fs::Dir, &[u8]) -> io::Result<()>,
    ) -> Result<(), DestinationError> {
        let parent = self.parent_of(path)?;
        remove(&parent.dir, path.file_name()).map_err(|error| self.failed(Operation::Remove, path, error))?;
        let mut state = lock(&self.state);
        state.has_changes = true;
        // The directory's own name may go next: then there is nothing to be made durable in it.
        state.unsynced.remove(path);
        state.unsynced.insert(path.parent(), parent.device);
        drop(state);
        self.sync_many()
    }

    fn create_directory(&self, path: &RelPath) -> Result<(), DestinationError> {
        names::check_component(path.file_name())
            .map_err(|reason| DestinationError::NameRefused { path: path.to_string(), reason })?;
        let parent = self.parent_of(path)?;
        match platform::make_dir(&parent.dir, path.file_name(), NEW_DIR_MODE) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return match self.examine(path)? {
                    Some(found) if found.kind == Kind::Directory => Ok(()),
                    Some(found) => Err(self.wrong_kind(path, found.kind, Kind::Directory)),
                    None => Err(self.failed(Operation::Create, path, error)),
                };
            }
            Err(error) => return Err(self.failed(Operation::Create, path, error)),
        }
        let mut state = lock(&self.state);
        state.has_changes = true;
        state.unsynced.insert(path.parent(), parent.device);
        state.unsynced.insert(Some(path.clone()), parent.device);
        drop(state);
        self.sync_many()
    }
}
