//! Publishes complete files under their final names, in groups.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use shiplane_wire::{Digest, RelPath};

use crate::{
    destination::Inner,
    dirs::DirHandle,
    error::{DestinationError, Operation},
    handles::SharedFile,
    lock, parallel,
    platform::{self, Kind},
    policy::{FileEvent, Place, Policy},
    record::Batch,
    state::{ActiveFile, Stage},
};

/// A complete file and the number of its entry.
type Publishing = (u64, ActiveFile);

impl Inner {
    /// Publishes what the policy says may be published. What it says of the others decides whether they are given up
    /// or this fails; then they stay complete.
    pub(super) fn publish(&self, entries: &[u64], policy: &dyn Policy) -> Result<(), DestinationError> {
        let mut files = self.take_complete(entries)?;
        let checked = self.drop_unexpected(&mut files, policy);
        if let Err(error) = checked.and_then(|()| self.prepare(&files)) {
            self.put_back(&files);
            return Err(error);
        }
        let (renamed, failed) = self.rename_all(&files, policy);
        self.put_back(failed.iter().map(|(file, _)| *file));
        let recorded = self.record_published(&renamed);
        let synced = if self.is_durable() { self.sync_dirs() } else { Ok(()) };
        recorded.and(synced)?;
        for ((entry, file), error) in failed {
            if !matches!(error, DestinationError::Exists { .. } | DestinationError::WrongKind { .. }) {
                return Err(error);
            }
            policy.on_file(&file.path, file.size_bytes, FileEvent::Failed(error))?;
            self.discard(*entry)?;
        }
        let mut published = renamed.iter().map(|(_, file)| (&file.path, file.size_bytes));
        published.try_for_each(|(path, len_bytes)| policy.on_file(path, len_bytes, FileEvent::Published))
    }

    /// Gives up the files that have not the digest that is expected of them.
    fn drop_unexpected(
        &self,
        files: &mut Vec<Publishing>,
        policy: &dyn Policy,
    ) -> Result<(), DestinationError> {
        let expected = |file: &ActiveFile| policy.expected_digest(&file.path);
        let checked: Vec<_> = files.iter().filter_map(|file| Some((file, expected(&file.1)?))).collect();
        let digests = parallel::map(&checked, |((_, file), _)| self.digest_of_complete(file));
        let mut unexpected = HashSet::new();
        for (((entry, file), expected), digest) in checked.into_iter().zip(digests) {
            if digest? != expected {
                unexpected.insert(*entry);
                self.discard(*entry)?;
                policy.on_file(&file.path, file.size_bytes, FileEvent::Unexpected)?;
            }
        }
        files.retain(|(entry, _)| !unexpected.contains(entry));
        Ok(())
    }

    fn digest_of_complete(&self, file: &ActiveFile) -> Result<Digest, DestinationError> {
        if file.size_bytes == 0 {
            return Ok(self.options.digest.digest(b""));
        }
        let parent = self.parent_of(&file.target)?;
        let temp = platform::open_file(&parent.dir, self.key.temp_name(file.id).as_bytes());
        temp.and_then(|temp| self.hash(&temp, self.options.digest))
            .map_err(|error| self.failed(Operation::Read, &file.target, error))
    }

    /// Marks the files so that nobody else publishes them at the same time; all of them or none.
    fn take_complete(&self, entries: &[u64]) -> Result<Vec<Publishing>, DestinationError> {
        let mut state = lock(&self.state);
        let mut seen = HashSet::new();
        for entry in entries {
            let file = state.files.get(entry);
            if let Some(file) = file.filter(|file| file.stage == Stage::Poisoned) {
                return Err(DestinationError::Poisoned { path: self.show(&file.target), source: None });
            }
            let is_complete = file.is_some_and(|file| file.stage == Stage::Complete);
            if !is_complete || !seen.insert(*entry) {
                return Err(DestinationError::NotWanted { entry: *entry });
            }
        }
        let mut take = |entry: &u64| {
            let file = state.files.get_mut(entry)?;
            file.stage = Stage::Publishing;
            Some((*entry, file.clone()))
        };
        Ok(entries.iter().filter_map(&mut take).collect())
    }

    fn put_back<'a>(&self, files: impl IntoIterator<Item = &'a Publishing>) {
        let mut state = lock(&self.state);
        for (entry, _) in files {
            if let Some(file) = state.files.get_mut(entry).filter(|file| file.stage == Stage::Publishing) {
                file.stage = Stage::Complete;
            }
        }
    }

    /// Everything before the rename: empty files are created, modes and times set, content made durable.
    fn prepare(&self, files: &[Publishing]) -> Result<(), DestinationError> {
        self.begin(files.iter().map(|(entry, _)| *entry))?;
        if !self.is_durable() {
            return files.iter().try_for_each(|(_, file)| self.settle(file).map(drop));
        }
        if files.len() > MAX_SINGLE_SYNCS {
            for (_, file) in files {
                self.settle(file)?;
            }
            if self.sync_filesystems_of(files)? {
                return Ok(());
            }
        }
        let synced = parallel::map(files, |(_, file)| {
            let open = match self.settle(file)? {
                Some(open) => open,
                None => Arc::new(SharedFile::new(self.open_sealed(file)?)),
            };
            platform::sync_file(open.file()).map_err(Failure::Sync)
        });
        let mut failures = files.iter().zip(synced).filter_map(|(file, result)| Some((file, result.err()?)));
        match failures.next() {
            None => Ok(()),
            Some((_, Failure::Other(error))) => Err(error),
            Some((first, Failure::Sync(error))) => {
                let others = failures.filter(|(_, failure)| failure.is_sync()).map(|(file, _)| file);
                Err(self.poison(first, others, error))
            }
        }
    }

    /// Creates the file if it is an empty one, and sets its mode and time unless the writer has. Gives the
    /// handle if it needed one.
    fn settle(&self, file: &ActiveFile) -> Result<Option<Arc<SharedFile>>, DestinationError> {
        if file.is_sealed {
            return Ok(None);
        }
        let open = if file.size_bytes == 0 {
            Arc::new(SharedFile::new(self.create_temp(file)?))
        } else {
            // The handle that was written through sees an error of writing back that a new one may miss.
            self.handles.get(file.id, || self.reopen_temp(file))?
        };
        let found = platform::stat_open(open.file())
            .map_err(|error| self.failed(Operation::Examine, &file.target, error))?;
        if found.size_bytes != file.size_bytes {
            return Err(DestinationError::Altered { path: self.show(&file.target) });
        }
        self.seal(file, open.file())?;
        Ok(Some(open))
    }

    fn open_sealed(&self, file: &ActiveFile) -> Result<File, DestinationError> {
        let parent = self.parent_of(&file.target)?;
        platform::reopen_file(&parent.dir, self.key.temp_name(file.id).as_bytes())
            .map_err(|error| self.failed(Operation::Open, &file.target, error))
    }

    /// One call for each file system, however many files there are; `false` if there is no such call.
    fn sync_filesystems_of(&self, files: &[Publishing]) -> Result<bool, DestinationError> {
        let mut synced = HashSet::new();
        for (_, file) in files {
            let parent = self.parent_of(&file.target)?;
            if !synced.insert(parent.device) {
                continue;
            }
            match platform::sync_filesystem(&self.handle_for_sync(&parent).dir) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // It does not say whose bytes were lost.
                Err(error) => {
                    return match files.split_first() {
                        Some((first, others)) => Err(self.poison(first, others, error)),
                        None => Ok(true),
                    };
                }
            }
        }
        Ok(true)
    }

    /// The root's handle was opened before anything was written, so that it is told of every error since.
    fn handle_for_sync<'a>(&'a self, dir: &'a DirHandle) -> &'a DirHandle {
        if dir.device == self.root().device { self.root() } else { dir }
    }

    /// After a failed sync the system may have dropped the bytes and call the file clean: a second sync
    /// would succeed and prove nothing. So these files are never published, and what was kept of them is
    /// removed, lest a later run find it unharmed in the cache.
    fn poison<'a>(
        &self,
        first: &'a Publishing,
        others: impl IntoIterator<Item = &'a Publishing>,
        source: io::Error,
    ) -> DestinationError {
        let all: Vec<_> = std::iter::once(first).chain(others).collect();
        {
            let mut state = lock(&self.state);
            state.is_poisoned = true;
            for (entry, _) in &all {
                if let Some(file) = state.files.get_mut(entry) {
                    file.stage = Stage::Poisoned;
                }
            }
        }
        let files: Vec<_> = all.iter().map(|(_, file)| file).collect();
        // The disk fails already; that it fails here, too, is no news.
        let _ = self.drop_files(&files);
        DestinationError::Poisoned { path: self.show(&first.1.target), source: Some(source) }
    }

    /// Renames what can be renamed, and tells what could not.
    fn rename_all<'a>(
        &self,
        files: &'a [Publishing],
        policy: &dyn Policy,
    ) -> (Vec<&'a Publishing>, Vec<(&'a Publishing, DestinationError)>) {
        let (mut renamed, mut failed) = (Vec::with_capacity(files.len()), Vec::new());
        let mut parents: HashMap<Option<RelPath>, u64> = HashMap::new();
        for file in files {
            match self.rename(&file.1, policy) {
                Ok(device) => {
                    renamed.push(file);
                    parents.insert(file.1.target.parent(), device);
                }
                Err(error) => failed.push((file, error)),
            }
        }
        let mut state = lock(&self.state);
        parents.into_iter().for_each(|(parent, device)| state.unsynced.insert(parent, device));
        for (entry, file) in &renamed {
            state.files.remove(entry);
            state.temps.remove(&file.id);
            state.summary.published_files += 1;
            state.summary.published_bytes += file.size_bytes;
        }
        drop(state);
        renamed.iter().for_each(|(_, file)| self.handles.forget(file.id));
        (renamed, failed)
    }

    /// Gives the file its name, and tells the file system it is on.
    fn rename(&self, file: &ActiveFile, policy: &dyn Policy) -> Result<u64, DestinationError> {
        let parent = self.parent_of(&file.target)?;
        let (from, to) = (self.key.temp_name(file.id), file.target.file_name());
        if self.folds {
            self.claim_name(file, &parent, from.as_bytes())?;
        }
        let by_options = if self.options.overwrite { Place::Replaced } else { Place::Free };
        let renamed = match policy.place(&file.path).unwrap_or(by_options) {
            Place::Replaced => platform::rename_replacing(&parent.dir, from.as_bytes(), to),
            Place::Free => platform::rename_new(&parent.dir, from.as_bytes(), to),
            Place::Taken => return Err(self.exists(&file.target)),
        };
        renamed.map(|()| parent.device).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => self.in_the_way(&file.target),
            io::ErrorKind::NotFound => DestinationError::Altered { path: self.show(&file.target) },
            _ => self.failed(Operation::Rename, &file.target, error),
        })
    }

    fn in_the_way(&self, target: &RelPath) -> DestinationError {
        match self.examine(target) {
            Ok(Some(found)) if found.kind == Kind::Directory => {
                self.wrong_kind(target, found.kind, Kind::File)
            }
            Ok(_) => self.exists(target),
            Err(error) => error,
        }
    }

    /// On a file system that folds names: refuses to replace a file that this run has published under
    /// another spelling, and remembers this one.
    fn claim_name(&self, file: &ActiveFile, parent: &DirHandle, temp: &[u8]) -> Result<(), DestinationError> {
        if let Some(found) = self.examine(&file.target)? {
            self.check_collision(&file.target, &found, true)?;
        }
        let own = platform::stat(&parent.dir, temp)
            .map_err(|error| self.failed(Operation::Examine, &file.target, error))?;
        self.check_collision(&file.target, &own, false)
    }

    fn record_published(&self, renamed: &[&Publishing]) -> Result<(), DestinationError> {
        let ids: Vec<_> = renamed.iter().map(|(_, file)| file.id).collect();
        let mut batch = Batch::default();
        batch.published(&ids);
        self.record(&batch)
    }

    /// Makes durable the names in every directory that got new ones since the last time.
    pub(super) fn sync_dirs(&self) -> Result<(), DestinationError> {
        let unsynced = lock(&self.state).unsynced.take();
        let result = self.sync_each(unsynced);
        if result.is_err() {
            // They are forgotten now, so that a later attempt would prove nothing.
            lock(&self.state).is_poisoned = true;
        }
        result
    }

    /// The same if there are so many that they take memory. Where nothing is to be durable they are forgotten.
    pub(super) fn sync_many(&self) -> Result<(), DestinationError> {
        if !lock(&self.state).unsynced.are_many() {
            return Ok(());
        }
        if self.is_durable() {
            return self.sync_dirs();
        }
        drop(lock(&self.state).unsynced.take());
        Ok(())
    }

    fn sync_each(&self, unsynced: HashMap<Option<RelPath>, u64>) -> Result<(), DestinationError> {
        let mut paths: Vec<_> = unsynced.iter().collect();
        if paths.len() > MAX_SINGLE_SYNCS {
            let mut synced = HashSet::new();
            let mut is_supported = true;
            for (path, device) in &paths {
                if is_supported && synced.insert(**device) {
                    let dir = self.dirs.open(path.as_ref()).map_err(|error| self.failed_at(path, error))?;
                    is_supported = platform::sync_filesystem(&self.handle_for_sync(&dir).dir)
                        .map_err(|error| self.failed_at(path, error))?;
                }
            }
            if is_supported {
                return Ok(());
            }
        }
        // Shortest first: a directory before what is in it.
        paths.sort_unstable_by_key(|(path, _)| path.as_ref().map_or(0, |path| path.as_bytes().len()));
        let synced = parallel::map(&paths, |(path, _)| {
            let dir = self.dirs.open(path.as_ref())?;
            platform::sync_dir(&dir.dir)
        });
        for ((path, _), result) in paths.iter().zip(synced) {
            result.map_err(|error| self.failed_at(path, error))?;
        }
        Ok(())
    }

    fn failed_at(&self, dir: &Option<RelPath>, error: io::Error) -> DestinationError {
        match dir {
            Some(path) => self.failed(Operation::Sync, path, error),
            None => self.failed_at_root(Operation::Sync, error),
        }
    }
}

/// Up to here each file or directory is synced by itself, a few at a time; above it, one call for the
/// whole file system is cheaper, though it may wait for what others wrote, too.
const MAX_SINGLE_SYNCS: usize = 16;

enum Failure {
    /// The disk did not take the bytes.
    Sync(io::Error),
    /// It was not asked to.
    Other(DestinationError),
}

impl Failure {
    fn is_sync(&self) -> bool {
        matches!(self, Self::Sync(_))
    }
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        Self::Other(error)
    }
}
