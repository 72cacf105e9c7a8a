//! The files that are being received: what of each is kept, under a temporary name and in the journal.

mod writer;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shiplane_wire::{Mtime, RelPath};

pub use self::writer::ChunkWriter;
use crate::{
    buffers::CountedMemory,
    error::{DestinationError, Operation},
    handles::{Handles, SharedFile},
    journal::{Journal, Opened},
    journal_state::JournalState,
    lock,
    platform::{self, Kind, Need, Needs},
    record::Batch,
    resolve::Created,
    site::Site,
    state::{ActiveFile, FileState, NO_VERSION, UNKNOWN_SIZE},
};

/// Keeps chunks of files until they are published.
///
/// Locks are held for a look, never while a file is read, written or synced. Only the journal's is held while a record
/// is appended, and a slot of `handles` while its file is opened; both may look at the state.
#[derive(Debug)]
pub(super) struct ChunkStore {
    site: Arc<Site>,
    state: Mutex<State>,
    journal: Mutex<Journal>,
    /// What earlier runs of the job have left.
    pub(super) earlier: Mutex<JournalState>,
    /// For that.
    _memory: Box<dyn CountedMemory>,
    handles: Handles,
    needs: Mutex<Needs>,
    /// Sizes of the files that were given space.
    occupied_bytes: Arc<AtomicU64>,
    /// Of a sync: keeps other processes of this machine from changing the dataset.
    dataset: Mutex<Option<Journal>>,
    /// The last to go.
    held: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

/// Files that are not published yet, and of the rest only what later steps need.
#[derive(Debug, Default)]
struct State {
    /// By number of the entry.
    files: HashMap<u64, ActiveFile>,
    /// The entries below this one were planned. Those that are in `files` no more were published or given up; chunks
    /// with bytes of the latter may still be on their way.
    planned: u64,
    /// Temporary files that this run has made or taken up, by number, with the path that each is for: until they
    /// have that name, or are removed.
    temps: HashMap<u64, RelPath>,
    /// Whether there may be temporary files of this job that its journal does not know.
    may_have_orphaned_temps: bool,
    /// The first directories that this run has created in the root.
    new_tops: HashSet<RelPath>,
    /// The next run of this job finds what this one leaves, whatever becomes of the names in the root.
    is_findable: bool,
    /// This run has created or removed something under its own name.
    has_changes: bool,
    is_finished: bool,
}

impl ChunkStore {
    pub(super) fn new(site: &Arc<Site>, opened: Opened, memory: Box<dyn CountedMemory>) -> Self {
        let state = State { may_have_orphaned_temps: site.was_resumed, ..State::default() };
        Self {
            site: Arc::clone(site),
            state: Mutex::new(state),
            journal: Mutex::new(opened.journal),
            earlier: Mutex::new(opened.earlier),
            _memory: memory,
            handles: Handles::default(),
            needs: Mutex::default(),
            occupied_bytes: Arc::default(),
            dataset: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Takes a file that is wanted, in a directory on the file system `device`. One that has all its bytes is complete.
    pub(super) fn want(&self, entry: u64, file: ActiveFile, device: u64) -> Result<(), DestinationError> {
        let mut state = lock(&self.state);
        if state.files.contains_key(&entry) {
            return Err(DestinationError::NotWanted { entry });
        }
        if !file.is_created {
            let missing_bytes = file.known_bytes().saturating_sub(file.kept.len_bytes());
            lock(&self.needs).add(file.id, device, file.target.parent(), missing_bytes);
        }
        state.files.insert(entry, file);
        state.planned = state.planned.max(entry.saturating_add(1));
        Ok(())
    }

    /// What the wanted files still need, by file system.
    pub(super) fn needs(&self) -> Vec<(u64, Need)> {
        lock(&self.needs).iter().map(|(device, need)| (device, need.clone())).collect()
    }

    /// Takes a complete file that no chunk is received of.
    pub(super) fn complete(&self, entry: u64, file: ActiveFile) {
        lock(&self.state).files.insert(entry, file);
    }

    /// As it is now.
    pub(super) fn file(&self, entry: u64) -> Option<ActiveFile> {
        lock(&self.state).files.get(&entry).cloned()
    }

    /// Whether it is still the same that is received as this entry.
    pub(super) fn has(&self, entry: u64, file: &ActiveFile) -> bool {
        lock(&self.state).files.get(&entry).is_some_and(|now| now.id == file.id)
    }

    pub(super) fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        lock(&self.state).files.get(&entry).map(|file| file.size_bytes)
    }

    /// How many files are not published or given up.
    pub(super) fn len(&self) -> usize {
        lock(&self.state).files.len()
    }

    /// What is missing of a file, and how much is here. It is complete if nothing is missing.
    pub(super) fn settle(&self, entry: u64) -> Result<(Vec<Range<u64>>, u64), DestinationError> {
        let mut state = lock(&self.state);
        let file = state.files.get_mut(&entry).ok_or(DestinationError::NotWanted { entry })?;
        let missing = file.kept.missing(file.size_bytes);
        if missing.is_empty() {
            file.state = FileState::Complete;
        }
        Ok((missing, file.kept.len_bytes()))
    }

    /// The end of a file of unknown size is known. Gives whether it is complete, and `false` if it was left out.
    pub(super) fn end(&self, entry: u64, size_bytes: u64, mtime: Mtime) -> Result<bool, DestinationError> {
        let mut state = lock(&self.state);
        let file = state.files.get_mut(&entry).filter(|file| file.state == FileState::Filling);
        let Some(file) = file else { return Ok(false) };
        if !file.kept.covers(size_bytes) {
            return Err(DestinationError::Unfinished { files: 1 });
        }
        (file.size_bytes, file.mtime, file.state) = (size_bytes, mtime, FileState::Complete);
        Ok(true)
    }

    /// Notes bytes of a file that came from elsewhere than a chunk, unless it was given up meanwhile. Gives how many
    /// are new.
    pub(super) fn keep(
        &self,
        entry: u64,
        file: &ActiveFile,
        ranges: impl Iterator<Item = Range<u64>>,
    ) -> u64 {
        let mut state = lock(&self.state);
        let Some(file) = state.files.get_mut(&entry).filter(|now| now.id == file.id) else { return 0 };
        let before_bytes = file.kept.len_bytes();
        ranges.for_each(|range| file.kept.insert(range));
        file.kept.len_bytes() - before_bytes
    }

    /// Forgets a file of which nothing was begun.
    pub(super) fn forget(&self, entry: u64) {
        lock(&self.state).files.remove(&entry);
    }

    /// Marks complete files so that no other thread publishes them; all of them or none.
    pub(super) fn take_complete(&self, entries: &[u64]) -> Result<Vec<(u64, ActiveFile)>, DestinationError> {
        let mut state = lock(&self.state);
        let mut seen = HashSet::new();
        for entry in entries {
            let file = state.files.get(entry);
            if let Some(file) = file.filter(|file| file.state == FileState::Poisoned) {
                return Err(DestinationError::Poisoned { path: self.site.show(&file.target), source: None });
            }
            let is_complete = file.is_some_and(|file| file.state == FileState::Complete);
            if !is_complete || !seen.insert(*entry) {
                return Err(DestinationError::NotWanted { entry: *entry });
            }
        }
        let mut take = |entry: &u64| {
            let file = state.files.get_mut(entry)?;
            file.state = FileState::Publishing;
            Some((*entry, file.clone()))
        };
        Ok(entries.iter().filter_map(&mut take).collect())
    }

    /// The opposite.
    pub(super) fn put_back<'a>(&self, files: impl IntoIterator<Item = &'a (u64, ActiveFile)>) {
        let mut state = lock(&self.state);
        for (entry, _) in files {
            if let Some(file) = state.files.get_mut(entry).filter(|file| file.state == FileState::Publishing)
            {
                file.state = FileState::Complete;
            }
        }
    }

    /// After a failed sync the system may have dropped the bytes and call the file clean: a second sync would succeed and
    /// prove nothing. So these files are never published, and what was kept of them is removed, lest a later run find it
    /// unharmed in the cache.
    pub(super) fn poison(&self, files: &[(u64, ActiveFile)]) {
        let mut state = lock(&self.state);
        for (entry, _) in files {
            if let Some(file) = state.files.get_mut(entry) {
                file.state = FileState::Poisoned;
            }
        }
        drop(state);
        self.lose(files.iter().map(|(_, file)| (file.id, file.target.clone())));
    }

    /// The same for all that is here under a temporary name, also what earlier runs have left and this one has not asked for.
    pub(super) fn poison_all(&self) {
        let begun = |(entry, file): (&u64, &ActiveFile)| file.is_begun.then(|| (*entry, file.clone()));
        let begun: Vec<_> = lock(&self.state).files.iter().filter_map(begun).collect();
        self.poison(&begun);
        let left = lock(&self.earlier).forget_all();
        self.lose(left.into_iter());
        let _ = self.record(Batch::sync_failed);
    }

    /// Whether that has happened in an earlier run: a file counts as the same then only if the disk has it.
    pub(super) fn has_failed_sync(&self) -> bool {
        lock(&self.earlier).has_failed_sync
    }

    /// Removes temporary files, and notes that nothing is kept of them.
    fn lose(&self, temps: impl Iterator<Item = (u64, RelPath)>) {
        let mut batch = Batch::default();
        for (id, path) in temps {
            self.handles.forget(id);
            lock(&self.needs).settle(id);
            match self.remove_temp(id, &path) {
                Ok(()) => batch.dropped(&[id]),
                // The next run removes it, as a file whose place another state of the same path has taken.
                Err(_) => batch.begun(self.fresh_id(), 0, NO_VERSION, &path),
            }
        }
        // The disk fails already; that it fails here, too, is no news.
        let _ = lock(&self.journal).append(&batch);
    }

    /// Notes files that have their names.
    pub(super) fn published(&self, files: &[(u64, ActiveFile)]) -> Result<(), DestinationError> {
        let mut state = lock(&self.state);
        for (entry, file) in files {
            state.files.remove(entry);
            state.temps.remove(&file.id);
        }
        drop(state);
        let ids: Vec<_> = files.iter().map(|(_, file)| file.id).collect();
        ids.iter().for_each(|id| self.handles.forget(*id));
        self.record(|batch| batch.published(&ids))
    }

    /// Notes files in the journal before anything of them is on the disk, so that whatever a run leaves
    /// can be found.
    pub(super) fn begin(&self, entries: impl IntoIterator<Item = u64>) -> Result<(), DestinationError> {
        // Held throughout: a file must be noted once, and before any chunk of it.
        let mut journal = lock(&self.journal);
        let mut batch = Batch::default();
        let mut state = lock(&self.state);
        let mut begun = Vec::new();
        for entry in entries {
            if let Some(file) = state.files.get_mut(&entry).filter(|file| !file.is_begun) {
                batch.begun(file.id, file.size_bytes, file.version, &file.target);
                file.is_begun = true;
                begun.push(entry);
            }
        }
        drop(state);
        if begun.is_empty() {
            return Ok(());
        }
        journal.append(&batch).map_err(|error| {
            let mut state = lock(&self.state);
            for entry in begun {
                if let Some(file) = state.files.get_mut(&entry) {
                    file.is_begun = false;
                }
            }
            self.site.with_space(error, 0)
        })
    }

    /// A number for a file that was never used in this journal.
    pub(super) fn fresh_id(&self) -> u64 {
        lock(&self.earlier).fresh_id()
    }

    /// Notes a temporary name of which nothing can be resumed. Gives its number.
    pub(super) fn begin_name(&self, path: &RelPath) -> Result<u64, DestinationError> {
        let id = self.fresh_id();
        self.record(|batch| batch.begun(id, 0, NO_VERSION, path))?;
        self.take_up(id, path);
        Ok(id)
    }

    pub(super) fn record(&self, fill: impl FnOnce(&mut Batch)) -> Result<(), DestinationError> {
        let mut batch = Batch::default();
        fill(&mut batch);
        lock(&self.journal).append(&batch).map_err(|error| self.site.with_space(error, 0))
    }

    /// The temporary file of an entry that is written in parts.
    pub(super) fn open_filling(
        &self,
        entry: u64,
        file: &ActiveFile,
    ) -> Result<Arc<SharedFile>, DestinationError> {
        self.handles.get(file.id, || {
            let is_created = lock(&self.state).files.get(&entry).is_some_and(|file| file.is_created);
            if is_created {
                return self.reopen_temp(file);
            }
            let open = self.create_temp(file)?;
            self.allocate(file, &open)?;
            if let Some(file) = lock(&self.state).files.get_mut(&entry) {
                file.is_created = true;
            }
            Ok(open)
        })
    }

    /// The temporary file as it was written, opened if it is not. The handle that was written through sees an error of
    /// writing back that a new one may miss.
    pub(super) fn written(&self, file: &ActiveFile) -> Result<Arc<SharedFile>, DestinationError> {
        self.handles.get(file.id, || self.reopen_temp(file))
    }

    /// Creates the temporary file. A file that has its name is of a failed attempt, or abandoned:
    /// the name is ours and so is the job's lock.
    pub(super) fn create_temp(&self, file: &ActiveFile) -> Result<File, DestinationError> {
        let parent = self.site.parent_of(&file.target)?;
        let name = self.site.key.temp_name(file.id);
        self.make_findable(&file.target)?;
        let create = || {
            lock(&self.state).temps.insert(file.id, file.target.clone());
            platform::create_file(&parent.dir, name.as_bytes(), file.creation_mode())
        };
        let created = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_temp(file.id, &file.target)?;
                create()
            }
            result => result,
        };
        lock(&self.needs).settle(file.id);
        self.occupied_bytes.fetch_add(file.known_bytes(), Ordering::Relaxed);
        created.map_err(|error| {
            self.site.failed_writing(Operation::Create, &file.target, file.known_bytes(), error)
        })
    }

    /// A temporary file in a directory that was there before may outlast a power cut that takes the journal's
    /// name, and no journal would name it any more: so that name is made durable first.
    fn make_findable(&self, target: &RelPath) -> Result<(), DestinationError> {
        let Some(top) = std::iter::successors(target.parent(), RelPath::parent).last() else {
            return Ok(());
        };
        {
            let mut state = lock(&self.state);
            // A new directory is no more durable than the journal.
            let is_new = state.new_tops.contains(&top);
            if !self.site.is_durable() || is_new || std::mem::replace(&mut state.is_findable, true) {
                return Ok(());
            }
        }
        platform::sync_dir(&self.site.root().dir).map_err(|error| {
            lock(&self.state).is_findable = false;
            self.site.failed_at_root(Operation::Sync, error)
        })
    }

    /// Notes a directory that is no more durable than the journal, if it is one in the root.
    pub(super) fn is_new_top(&self, path: &RelPath) {
        let mut state = lock(&self.state);
        if path.parent().is_none() && state.new_tops.len() < MAX_NEW_TOPS {
            state.new_tops.insert(path.clone());
        }
    }

    /// The next run will be told of what this one leaves.
    pub(super) fn is_findable(&self) {
        lock(&self.state).is_findable = true;
    }

    /// Something was created or removed under its own name.
    pub(super) fn changed(&self) {
        lock(&self.state).has_changes = true;
    }

    /// Opens a temporary file that has kept bytes in it, if it is still what we made.
    fn reopen_temp(&self, file: &ActiveFile) -> Result<File, DestinationError> {
        let altered = || DestinationError::Altered { path: self.site.show(&file.target) };
        let parent = self.site.parent_of(&file.target)?;
        let open = match platform::reopen_file(&parent.dir, self.site.key.temp_name(file.id).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(altered()),
            Err(error) if platform::is_symlink_refused(&error) => return Err(altered()),
            result => result.map_err(|error| self.site.failed(Operation::Open, &file.target, error))?,
        };
        let found = platform::stat_open(&open)
            .map_err(|error| self.site.failed(Operation::Examine, &file.target, error))?;
        if found.kind != Kind::File || found.links > 1 || found.size_bytes > file.size_bytes {
            return Err(altered());
        }
        if found.size_bytes < file.size_bytes {
            self.allocate(file, &open)?;
        }
        Ok(open)
    }

    /// Asks for all of a large file's space at once: a full disk shows now, and the file is in one piece.
    fn allocate(&self, file: &ActiveFile, open: &File) -> Result<(), DestinationError> {
        if file.size_bytes == UNKNOWN_SIZE {
            return Ok(());
        }
        let is_large = file.size_bytes >= self.site.options.chunk_len_bytes;
        // Space that is set aside would fill the holes.
        let allocated = if is_large && file.hole_bytes == 0 {
            platform::allocate(open, file.size_bytes)
        } else {
            platform::set_len(open, file.size_bytes)
        };
        allocated
            .map_err(|error| self.site.failed_writing(Operation::Write, &file.target, file.size_bytes, error))
    }

    /// Sets the attributes, the final mode and the time of a temporary file that has all its bytes.
    pub(super) fn seal(&self, file: &ActiveFile, open: &File) -> Result<(), DestinationError> {
        self.site.give_attributes(Some(&file.path), open, file.attributes.as_ref())?;
        // The umask may have taken something away, and we may have added something.
        let set = platform::stat_open(open).and_then(|found| match found.mode == file.mode {
            false if self.site.keeps_modes => platform::set_mode(open, file.mode),
            _ => Ok(()),
        });
        let set = set.and_then(|()| platform::set_mtime(open, file.mtime));
        self.site.settled(Some(&file.path), Some(&file.target), set)
    }

    /// Notes a temporary file of an earlier run that this one goes on with.
    pub(super) fn take_up(&self, id: u64, target: &RelPath) {
        lock(&self.state).temps.insert(id, target.clone());
    }

    /// Removes a temporary file, if it is there.
    pub(super) fn remove_temp(&self, id: u64, target: &RelPath) -> Result<(), DestinationError> {
        // Else its directory is gone or is another thing now, and the file with it.
        if let Ok(parent) = self.site.dirs.parent_of(target) {
            platform::remove_if_there(&parent.dir, self.site.key.temp_name(id).as_bytes())
                .map_err(|error| self.site.failed(Operation::Remove, target, error))?;
        }
        lock(&self.state).temps.remove(&id);
        Ok(())
    }

    /// The same, and notes that. If it cannot be removed, the next run that finds the journal knows of it.
    pub(super) fn drop_temp(&self, id: u64, target: &RelPath) -> Result<(), DestinationError> {
        self.remove_temp(id, target)?;
        self.record(|batch| batch.dropped(&[id]))
    }

    /// The numbers of files that are being received, and the temporary files of this run that are of no other.
    pub(super) fn given_up(&self) -> (HashSet<u64>, Vec<(u64, RelPath)>) {
        let state = lock(&self.state);
        let active: HashSet<_> = state.files.values().map(|file| file.id).collect();
        let given_up = state.temps.iter().filter(|(id, _)| !active.contains(id));
        let given_up = given_up.map(|(id, path)| (*id, path.clone())).collect();
        drop(state);
        (active, given_up)
    }

    /// Leaves out a file that is being written, if the error concerns nothing else. What there is of it stays until it is
    /// [discarded](Self::discard): chunks of it may still be on their way.
    pub(super) fn leave_out(
        &self,
        entry: u64,
        file: &ActiveFile,
        error: DestinationError,
    ) -> Result<(), DestinationError> {
        if error.left_out_reason(self.site.options.existing.goes_on()).is_none() {
            return Err(error);
        }
        let mut state = lock(&self.state);
        let now =
            state.files.get_mut(&entry).filter(|now| now.id == file.id && now.state == FileState::Filling);
        // Else another writer has told the same, or the peer has given it up.
        let Some(now) = now else { return Ok(()) };
        now.state = FileState::LeftOut;
        drop(state);
        self.site.leave_out_as(Some(entry), Some(&file.path), error, false).map(drop)
    }

    pub(super) fn may_have_orphaned_temps(&self) -> bool {
        lock(&self.state).may_have_orphaned_temps
    }

    /// Gives up a file that was wanted; gives it, unless it is given up already.
    pub(super) fn discard(&self, entry: u64) -> Result<Option<ActiveFile>, DestinationError> {
        let file = lock(&self.state).files.remove(&entry);
        file.iter().try_for_each(|file| self.drop_file(file)).map(|()| file)
    }

    /// Removes what there is of a file that will not be published, and notes that.
    pub(super) fn drop_file(&self, file: &ActiveFile) -> Result<(), DestinationError> {
        self.handles.forget(file.id);
        lock(&self.needs).settle(file.id);
        // A writer may be about to create it again.
        lock(&self.state).may_have_orphaned_temps = true;
        if file.is_begun {
            self.drop_temp(file.id, &file.target)
        } else {
            self.remove_temp(file.id, &file.target)
        }
    }

    pub(super) fn occupied_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.occupied_bytes)
    }

    pub(super) fn is_finished(&self) -> bool {
        lock(&self.state).is_finished
    }

    /// Everything is done: removes the journal if it is the `last` run that needs it.
    pub(super) fn finish(&self, last: bool) -> Result<(), DestinationError> {
        let mut state = lock(&self.state);
        state.is_finished = true;
        // What could not be removed is the next run's to find.
        let is_needed = !last || !state.temps.is_empty();
        drop(state);
        if is_needed { Ok(()) } else { lock(&self.journal).remove() }
    }

    /// Holds the lock of the dataset that this is one side of.
    pub(super) fn hold_dataset(&self, journal: Journal) {
        *lock(&self.dataset) = Some(journal);
    }

    /// Drops `held` after everything else.
    pub(super) fn hold(&self, held: Arc<dyn Any + Send + Sync>) {
        *lock(&self.held) = Some(held);
    }

    /// Gives up the lock of the dataset, and what an unused destination has made for itself.
    pub(super) fn release(&self) -> Result<(), DestinationError> {
        // Its name would keep a directory that was created for nothing.
        let dataset = lock(&self.dataset).take();
        let released = dataset.map_or(Ok(()), |journal| journal.remove());
        released.and_then(|()| self.leave_nothing())
    }

    /// Removes what a run has made for itself that has kept nothing; else nothing is done.
    fn leave_nothing(&self) -> Result<(), DestinationError> {
        let journal = lock(&self.journal);
        let mut state = lock(&self.state);
        let has_filled = state.has_changes && !self.site.created.is_empty();
        if state.is_finished || has_filled || self.site.was_resumed || !journal.is_pristine() {
            return Ok(());
        }
        journal.remove()?;
        state.is_finished = true;
        self.site.created.iter().rev().for_each(Created::undo);
        Ok(())
    }
}

impl Drop for ChunkStore {
    /// A run that has kept nothing leaves nothing of its own: neither its journal nor the directory it
    /// created, unless there is something in it. Then the journal is what tells the next run that the
    /// directory is its own.
    fn drop(&mut self) {
        if let Some(mode) = self.site.loosened.filter(|_| !lock(&self.state).is_finished) {
            // That it stays so is no harm worth an error.
            let _ = platform::set_mode(&self.site.root().dir, mode);
        }
        // A name that stays is no harm: it is the lock on it that counts, and the next sync removes it.
        let _ = lock(&self.dataset).take().map(|journal| journal.remove());
        // There is no caller left for this error, and the next run of the job does it again.
        let _ = self.leave_nothing();
    }
}

/// 1,024: the others are not known to be new, which costs a wait for the disk.
const MAX_NEW_TOPS: usize = 1 << 10;
