//! Publishes complete files under their final names, in groups.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use shiplane_wire::{Digest, RelPath, escape};

use crate::{
    dirs::DirHandle,
    error::{DestinationError, Operation},
    existing::{Existing, Suffix},
    handles::SharedFile,
    lock,
    names::{self, NameRefused},
    parallel,
    platform::{self, Kind, Names, Stat},
    policy::{FileEvent, Policy, RenameMode},
    site::Site,
    state::{ActiveFile, SeenPaths},
    store::ChunkStore,
};

/// A complete file and the number of its entry.
type Publishing = (u64, ActiveFile);

/// Files that failed, and why.
type Failed = Vec<(Publishing, DestinationError)>;

/// Gives files their names, and makes new names durable.
#[derive(Debug)]
pub(super) struct Publisher {
    site: Arc<Site>,
    store: Arc<ChunkStore>,
    state: Mutex<State>,
    /// Held while names are made durable. Whether the names on the way to the destination directory are.
    syncing: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    unsynced: Unsynced,
    /// On a file system that folds names: device and inode of what this run has created.
    own_inodes: SeenPaths,
    /// The system failed to make something durable: this run cannot end well any more.
    is_poisoned: bool,
}

/// Directories with names that are not durable yet, `None` being the root, and their file systems.
#[derive(Debug, Default)]
struct Unsynced {
    directories: HashMap<Option<RelPath>, u64>,
    len_bytes: usize,
}

impl Unsynced {
    fn insert(&mut self, path: Option<RelPath>, device: u64) {
        let len_bytes = path.as_ref().map_or(0, |path| path.as_bytes().len()) + UNSYNCED_COST_BYTES;
        if self.directories.insert(path, device).is_none() {
            self.len_bytes += len_bytes;
        }
    }

    fn remove(&mut self, path: &RelPath) {
        if self.directories.remove(&Some(path.clone())).is_some() {
            self.len_bytes -= path.as_bytes().len() + UNSYNCED_COST_BYTES;
        }
    }

    /// Whether they take so much memory that they are to be made durable now.
    fn are_many(&self) -> bool {
        self.len_bytes >= MAX_UNSYNCED_BYTES
    }

    fn take(&mut self) -> HashMap<Option<RelPath>, u64> {
        std::mem::take(self).directories
    }
}

impl Publisher {
    pub(super) fn new(site: &Arc<Site>, store: &Arc<ChunkStore>) -> Self {
        Self {
            site: Arc::clone(site),
            store: Arc::clone(store),
            state: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    /// Notes a directory with names that are not durable yet, `None` being the root.
    pub(super) fn changed(&self, directory: Option<RelPath>, device: u64) {
        lock(&self.state).unsynced.insert(directory, device);
    }

    /// Notes a directory that this run has created.
    pub(super) fn created(&self, path: &RelPath, device: u64) -> Result<(), DestinationError> {
        self.store.changed();
        self.changed(path.parent(), device);
        self.changed(Some(path.clone()), device);
        self.sync_many()
    }

    /// Notes that what was at `path` is gone.
    pub(super) fn removed(&self, path: &RelPath, device: u64) -> Result<(), DestinationError> {
        self.store.changed();
        // The directory's own name may go next: then there is nothing to be made durable in it.
        lock(&self.state).unsynced.remove(path);
        self.changed(path.parent(), device);
        self.sync_many()
    }

    /// Fails if something could not be made durable: a later attempt would prove nothing.
    pub(super) fn check_not_poisoned(&self) -> Result<(), DestinationError> {
        if !lock(&self.state).is_poisoned {
            return Ok(());
        }
        let path = escape(self.site.shown.as_os_str().as_encoded_bytes()).to_string();
        Err(DestinationError::Poisoned { path, source: None })
    }

    /// Publishes what can be published; gives the entries. A file that fails alone is left out. Any other failure is an
    /// error; those that it concerns stay complete.
    pub(super) fn publish(&self, entries: &[u64], policy: &dyn Policy) -> Result<Vec<u64>, DestinationError> {
        let mut files = self.store.take_complete(entries)?;
        let mut failed = Vec::new();
        let prepared = self
            .create_holes(&mut files, &mut failed)
            .and_then(|()| self.drop_unexpected(&mut files, &mut failed, policy))
            .and_then(|()| self.prepare(&mut files, &mut failed));
        if let Err(error) = prepared {
            self.store.put_back(files.iter().chain(failed.iter().map(|(file, _)| file)));
            return Err(error);
        }
        let renamed = self.rename_all(files, &mut failed, policy);
        self.store.put_back(failed.iter().map(|(file, _)| file));
        let recorded = self.store.published(&renamed);
        let synced = if self.site.is_durable() { self.sync() } else { Ok(()) };
        recorded.and(synced)?;
        for ((entry, file), error) in failed {
            let error = self.site.leave_out(Some(entry), &file.path, error)?;
            self.store.discard(entry)?;
            policy.on_file(&file.path, file.size_bytes, FileEvent::Failed(error))?;
        }
        for (_, file) in &renamed {
            policy.on_file(&file.path, file.size_bytes, FileEvent::Published)?;
        }
        Ok(renamed.into_iter().map(|(entry, _)| entry).collect())
    }

    /// Creates the files of which no byte has arrived.
    fn create_holes(&self, files: &mut Vec<Publishing>, failed: &mut Failed) -> Result<(), DestinationError> {
        if !files.iter().any(|(_, file)| file.is_all_hole()) {
            return Ok(());
        }
        self.store.begin(files.iter().filter(|(_, file)| file.is_all_hole()).map(|(entry, _)| *entry))?;
        let create = |(entry, file): &Publishing| match file.is_all_hole() {
            true => self.store.open_filling(*entry, file).map(drop),
            false => Ok(()),
        };
        let created = files.iter().map(create).collect();
        set_failed_aside(files, created, failed);
        Ok(())
    }

    /// Gives up the files that have not the digest that is expected of them.
    fn drop_unexpected(
        &self,
        files: &mut Vec<Publishing>,
        failed: &mut Failed,
        policy: &dyn Policy,
    ) -> Result<(), DestinationError> {
        let expected = |file: &ActiveFile| policy.expected_digest(&file.path);
        let checked: Vec<_> = files.iter().filter_map(|file| Some((file, expected(&file.1)?))).collect();
        let digests = parallel::map(&checked, |((_, file), _)| self.digest_of_complete(file));
        let mut outcomes = HashMap::new();
        for (((entry, file), expected), digest) in checked.into_iter().zip(digests) {
            if digest.as_ref().is_ok_and(|digest| *digest != expected) {
                self.store.discard(*entry)?;
                policy.on_file(&file.path, file.size_bytes, FileEvent::Unexpected)?;
            } else if digest.is_ok() {
                continue;
            }
            outcomes.insert(*entry, digest.err());
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        for file in std::mem::take(files) {
            match outcomes.remove(&file.0) {
                None => files.push(file),
                Some(None) => {}
                Some(Some(error)) => failed.push((file, error)),
            }
        }
        Ok(())
    }

    fn digest_of_complete(&self, file: &ActiveFile) -> Result<Digest, DestinationError> {
        if file.size_bytes == 0 {
            return Ok(self.site.options.digest.digest(b""));
        }
        let parent = self.site.parent_of(&file.target)?;
        let temp = platform::open_file(&parent.dir, self.site.key.temp_name(file.id).as_bytes());
        temp.and_then(|temp| self.site.hash_sparse(&temp, file.size_bytes))
            .map_err(|error| self.site.failed(Operation::Read, &file.target, error))
    }

    /// Everything before the rename: empty files are created, modes and times set, content made durable.
    fn prepare(&self, files: &mut Vec<Publishing>, failed: &mut Failed) -> Result<(), DestinationError> {
        self.store.begin(files.iter().map(|(entry, _)| *entry))?;
        if !self.site.is_durable() || files.len() > MAX_SINGLE_SYNCS {
            let settled = files.iter().map(|(_, file)| self.settle(file).map(drop)).collect();
            set_failed_aside(files, settled, failed);
        }
        if !self.site.is_durable() {
            return Ok(());
        }
        if files.len() > MAX_SINGLE_SYNCS {
            let device = |(_, file): &Publishing| Ok(self.site.parent_of(&file.target)?.device);
            let devices = files.iter().map(device).collect::<Result<HashSet<_>, DestinationError>>()?;
            if self.sync_file_systems(|dir| devices.contains(&dir.device))? {
                return Ok(());
            }
        }
        let synced = parallel::map(files, |(_, file)| {
            let open = match self.settle(file)? {
                Some(open) => open,
                None => Arc::new(SharedFile::new(self.open_sealed(file)?)),
            };
            Ok(platform::sync_file(open.file()))
        });
        let (mut unsynced, mut first_error, mut settled) = (Vec::new(), None, Vec::new());
        for (file, synced) in files.iter().zip(synced) {
            settled.push(synced.map(|synced| {
                if let Err(error) = synced {
                    unsynced.push(file.clone());
                    first_error.get_or_insert(error);
                }
            }));
        }
        if let Some(error) = first_error {
            self.store.poison(&unsynced);
            return Err(self.poisoned(unsynced.first().map(|(_, file)| &file.target), error));
        }
        set_failed_aside(files, settled, failed);
        Ok(())
    }

    /// Creates the file if it is an empty one, and sets its mode and time unless the writer has. Gives the
    /// handle if it needed one.
    fn settle(&self, file: &ActiveFile) -> Result<Option<Arc<SharedFile>>, DestinationError> {
        if file.is_sealed {
            return Ok(None);
        }
        let open = if file.size_bytes == 0 {
            Arc::new(SharedFile::new(self.store.create_temp(file)?))
        } else {
            self.store.written(file)?
        };
        let found = platform::stat_open(open.file())
            .map_err(|error| self.site.failed(Operation::Examine, &file.target, error))?;
        if found.size_bytes != file.size_bytes {
            return Err(DestinationError::Altered { path: self.site.show(&file.target) });
        }
        self.store.seal(file, open.file())?;
        Ok(Some(open))
    }

    fn open_sealed(&self, file: &ActiveFile) -> Result<File, DestinationError> {
        let parent = self.site.parent_of(&file.target)?;
        platform::reopen_file(&parent.dir, self.site.key.temp_name(file.id).as_bytes())
            .map_err(|error| self.site.failed(Operation::Open, &file.target, error))
    }

    /// One call for each file system that any directory of this run is on, if it `is_meant`; `false` if there is no such call.
    pub(super) fn sync_file_systems(
        &self,
        is_meant: impl Fn(&DirHandle) -> bool,
    ) -> Result<bool, DestinationError> {
        for dir in self.site.dirs.file_systems().iter().filter(|dir| is_meant(dir)) {
            match platform::sync_filesystem(&dir.dir) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // It does not say whose bytes were lost.
                Err(error) => {
                    self.store.poison_all();
                    return Err(self.poisoned(None, error));
                }
            }
        }
        Ok(true)
    }

    fn poisoned(&self, path: Option<&RelPath>, source: io::Error) -> DestinationError {
        lock(&self.state).is_poisoned = true;
        DestinationError::Poisoned { path: self.site.show_in(path), source: Some(source) }
    }

    /// Renames what can be renamed; gives that.
    fn rename_all(
        &self,
        files: Vec<Publishing>,
        failed: &mut Failed,
        policy: &dyn Policy,
    ) -> Vec<Publishing> {
        let mut renamed = Vec::with_capacity(files.len());
        let mut parents: HashMap<Option<RelPath>, u64> = HashMap::new();
        for file in files {
            match self.rename(&file.1, policy) {
                Ok(device) => {
                    parents.insert(file.1.target.parent(), device);
                    renamed.push(file);
                }
                Err(error) => failed.push((file, error)),
            }
        }
        parents.into_iter().for_each(|(parent, device)| self.changed(parent, device));
        self.site.count(|summary| {
            summary.published_files += renamed.len() as u64;
            summary.published_bytes += renamed.iter().map(|(_, file)| file.size_bytes).sum::<u64>();
        });
        renamed
    }

    /// Gives the file its name, and tells the file system it is on.
    fn rename(&self, file: &ActiveFile, policy: &dyn Policy) -> Result<u64, DestinationError> {
        let parent = self.site.parent_of(&file.target)?;
        let from = self.site.key.temp_name(file.id);
        if self.site.folds {
            self.claim_name(file, &parent, from.as_bytes())?;
        }
        let by_options =
            if self.site.options.existing.replaces() { RenameMode::Replace } else { RenameMode::New };
        let mode = policy.rename_mode(&file.path).unwrap_or(by_options);
        self.rename_temp(&parent, from.as_bytes(), &file.target, mode, true, Kind::File)?;
        Ok(parent.device)
    }

    /// Gives a temporary file or link its name. What is replaced is backed up, if the options say so and it `backs_up`.
    pub(super) fn rename_temp(
        &self,
        parent: &DirHandle,
        temp: &[u8],
        target: &RelPath,
        mode: RenameMode,
        backs_up: bool,
        kind: Kind,
    ) -> Result<(), DestinationError> {
        if let (RenameMode::Replace, true, Existing::BackUp(suffix)) =
            (mode, backs_up, self.site.options.existing)
        {
            self.back_up(target, parent, suffix)?;
        }
        let renamed = match mode {
            RenameMode::Replace => platform::rename_replacing(&parent.dir, temp, target.file_name()),
            RenameMode::New => platform::rename_new(&parent.dir, temp, target.file_name()),
            RenameMode::Refuse => return Err(self.site.exists(target)),
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => self.in_the_way(target, kind),
            io::ErrorKind::NotFound => self.not_renamed(target, parent, temp),
            _ => self.site.failed_naming(Operation::Rename, target, error),
        })
    }

    /// Gives what is about to be replaced, or removed, another name: its own with the suffix, and a number if something
    /// else has that. It has both names until then, where the file system can do that.
    pub(super) fn back_up(
        &self,
        target: &RelPath,
        parent: &DirHandle,
        suffix: Suffix,
    ) -> Result<(), DestinationError> {
        let found = platform::stat_if_there(&parent.dir, target.file_name());
        let found = found.map_err(|error| self.site.failed(Operation::Examine, target, error))?;
        // The attempt to replace a directory reports the error.
        let Some(found) = found.filter(|found| found.kind != Kind::Directory) else { return Ok(()) };
        let is_it = |name: &[u8]| {
            platform::stat(&parent.dir, name)
                .is_ok_and(|other| (other.device, other.inode) == (found.device, found.inode))
        };
        let base = [target.file_name(), suffix.as_bytes()].concat();
        for number in 1..=MAX_BACKUPS {
            let name =
                if number == 1 { base.clone() } else { [&base[..], number.to_string().as_bytes()].concat() };
            if names::is_own(&name) {
                let path = self.site.show(target);
                return Err(DestinationError::NameRefused { path, reason: NameRefused::Own });
            }
            match platform::name_again(&parent.dir, target.file_name(), &name) {
                Ok(()) => return Ok(()),
                // An interrupted run came as far.
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && found.inode != 0 && is_it(&name) =>
                {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.site.failed_naming(Operation::Rename, target, error)),
            }
        }
        Err(self.site.exists(target))
    }

    /// Something was not found at a rename. A file system that does not take a name may say so as well.
    fn not_renamed(&self, target: &RelPath, parent: &DirHandle, temp: &[u8]) -> DestinationError {
        let path = self.site.show(target);
        match platform::stat(&parent.dir, temp) {
            Ok(_) => DestinationError::NameRefused { path, reason: NameRefused::FileSystem },
            Err(_) => DestinationError::Altered { path },
        }
    }

    pub(super) fn in_the_way(&self, target: &RelPath, wanted: Kind) -> DestinationError {
        match self.site.examine(target) {
            Ok(Some(found)) if found.kind == Kind::Directory => {
                self.site.wrong_kind(target, found.kind, wanted)
            }
            Ok(_) if self.is_another_spelling(target) => {
                DestinationError::NameCollision { path: self.site.show(target) }
            }
            Ok(_) => self.site.exists(target),
            Err(error) => error,
        }
    }

    /// Whether what the file system finds by this name has another one: then no name is exactly this.
    fn is_another_spelling(&self, target: &RelPath) -> bool {
        let names = || Names::of(&self.site.dirs.parent_of(target)?.dir);
        let Some(mut names) = self.site.folds.then(names).and_then(io::Result::ok) else { return false };
        loop {
            match names.next(|name| name == target.file_name()) {
                Some(Ok(false)) => {}
                Some(Ok(true) | Err(_)) => return false,
                None => return true,
            }
        }
    }

    /// On a file system that folds names: refuses to replace a file that this run has published under
    /// another spelling, and remembers this one.
    fn claim_name(&self, file: &ActiveFile, parent: &DirHandle, temp: &[u8]) -> Result<(), DestinationError> {
        if let Some(found) = self.site.examine(&file.target)? {
            self.check_collision(&file.target, &found, true)?;
        }
        let own = platform::stat(&parent.dir, temp)
            .map_err(|error| self.site.failed(Operation::Examine, &file.target, error))?;
        self.check_collision(&file.target, &own, false)
    }

    /// On a file system that folds names: whether what is there was put there by this very run, under
    /// another spelling of the name. Catches what lower case does not tell, such as normal forms.
    pub(super) fn check_collision(
        &self,
        target: &RelPath,
        found: &Stat,
        was_there: bool,
    ) -> Result<(), DestinationError> {
        if !self.site.folds || found.inode == 0 {
            return Ok(());
        }
        let inode = [found.device.to_le_bytes(), found.inode.to_le_bytes()].concat();
        let mut state = lock(&self.state);
        if was_there && state.own_inodes.contains(&inode) {
            return Err(DestinationError::NameCollision { path: self.site.show(target) });
        }
        if !was_there {
            state.own_inodes.insert(&inode);
        }
        Ok(())
    }

    /// Makes durable the names in every directory that got new ones since the last time, and those on the way there.
    pub(super) fn sync(&self) -> Result<(), DestinationError> {
        // Another thread may be at it, with the names of this one too: they are durable only when it is done.
        let mut is_way_durable = lock(&self.syncing);
        self.check_not_poisoned()?;
        let unsynced = lock(&self.state).unsynced.take();
        let way = if *is_way_durable { Ok(()) } else { self.sync_way() };
        let synced = way.and_then(|()| self.sync_each(unsynced));
        *is_way_durable = true;
        // They are forgotten then.
        synced.inspect_err(|_| lock(&self.state).is_poisoned = true)
    }

    fn sync_way(&self) -> Result<(), DestinationError> {
        let site = &self.site;
        let sync = |dir: &Dir| platform::sync_dir(dir).map_err(|error| self.failed_at(&None, error));
        site.created.iter().try_for_each(|created| sync(&created.parent))?;
        if !site.was_resumed || !site.created.is_empty() || site.is_beneath {
            return Ok(());
        }
        // An interrupted run may have created it; if the parent cannot be opened, it was not us.
        let parent = platform::open_ambient_dir(&site.shown.join("..")).ok();
        parent.map_or(Ok(()), |parent| sync(&parent))
    }

    /// The same if there are enough of them to take memory. Where nothing is to be durable they are forgotten.
    pub(super) fn sync_many(&self) -> Result<(), DestinationError> {
        if !lock(&self.state).unsynced.are_many() {
            return Ok(());
        }
        if self.site.is_durable() {
            return self.sync();
        }
        drop(lock(&self.state).unsynced.take());
        Ok(())
    }

    fn sync_each(&self, unsynced: HashMap<Option<RelPath>, u64>) -> Result<(), DestinationError> {
        let mut paths: Vec<_> = unsynced.iter().collect();
        if paths.len() > MAX_SINGLE_SYNCS {
            let devices: HashSet<_> = unsynced.values().copied().collect();
            if self.sync_file_systems(|dir| devices.contains(&dir.device))? {
                return Ok(());
            }
        }
        // Shortest first: a directory before what is in it.
        paths.sort_unstable_by_key(|(path, _)| path.as_ref().map_or(0, |path| path.as_bytes().len()));
        let synced = parallel::map(&paths, |(path, _)| {
            let dir = self.site.dirs.open(path.as_ref())?;
            platform::sync_dir(&dir.dir)
        });
        for ((path, _), result) in paths.iter().zip(synced) {
            result.map_err(|error| self.failed_at(path, error))?;
        }
        Ok(())
    }

    fn failed_at(&self, dir: &Option<RelPath>, error: io::Error) -> DestinationError {
        self.site.failed_in(Operation::Sync, dir.as_ref(), error)
    }
}

/// Moves files to those that have failed, by what has become of each.
fn set_failed_aside(
    files: &mut Vec<Publishing>,
    outcomes: Vec<Result<(), DestinationError>>,
    failed: &mut Failed,
) {
    if outcomes.iter().all(Result::is_ok) {
        return;
    }
    for (file, outcome) in std::mem::take(files).into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => files.push(file),
            Err(error) => failed.push((file, error)),
        }
    }
}

/// Up to here each file or directory is synced by itself, a few at a time; above it, one call for the
/// whole file system is cheaper, though it may wait for what others wrote, too.
const MAX_SINGLE_SYNCS: usize = 16;

/// 1,000: a file that is replaced more often than that does not need all its backups.
const MAX_BACKUPS: u32 = 1000;

/// 256 KiB: some two thousand directories with usual paths.
const MAX_UNSYNCED_BYTES: usize = 256 << 10;

/// What a directory takes beside its path.
const UNSYNCED_COST_BYTES: usize = 64;
