//! The destination of a transfer, with its state while it runs.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shiplane_wire::{
    Digest, DigestAlgorithm, Durability, Entry, EntryKind, FailReason, RelPath, Span, escape,
};

use crate::{
    buffers::Buffers,
    cuts::PlacedCut,
    dirs::{DirHandle, Dirs},
    error::{DestinationError, Operation},
    handles::Handles,
    journal::Journal,
    landing::{Created, Landing},
    leftovers::Leftovers,
    lock,
    names::JobKey,
    plan::Plan,
    platform::{self, Kind},
    policy::{Admission, FileEvent, Policy},
    rearrange::DatasetLock,
    record::Batch,
    shape::Shape,
    source::SourceRoot,
    state::{State, Summary},
    writer::ChunkWriter,
};

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveOptions {
    /// Whether different files that exist are replaced. Directories never are.
    pub overwrite: bool,
    /// What [`Destination::publish`] and [`Destination::finish`] reach: with [`Durability::Verified`]
    /// nothing is synced.
    pub durability: Durability,
    /// Whether files that look equal by size and time are compared by content.
    pub verify: bool,
    /// What digests are computed with, as agreed with the peer. What was kept under another one is begun anew.
    pub digest: DigestAlgorithm,
    /// The size from which a file has chunks of its own; its space is allocated when it is begun.
    pub chunk_len_bytes: u64,
}

/// Where a transfer lands. A handle: clones are the same destination, under the same rules.
///
/// The caller, on blocking threads:
///
/// 1. [`open`](Self::open), then [`plan`](Self::plan) each entry as it arrives. For [`Plan::Compare`] ask
///    the peer for the digest and [`compare`](Self::compare), for [`Plan::Delta`] for block signatures, and
///    [`follow`](Self::follow) them and take what the old version has by [`delta`](Self::delta); for [`Plan::Want`]
///    cut what is missing into chunks, or publish at once if nothing is.
/// 2. [`reserve`](Self::reserve) what is missing before the first byte.
/// 3. For each chunk [`chunk_writer`](Self::chunk_writer), write, and [`commit`](ChunkWriter::commit) when
///    it is verified; a writer that is dropped leaves nothing that counts.
/// 4. [`publish`](Self::publish) what a commit says is complete, many at a time;
///    [`discard`](Self::discard) what the peer cannot send after all.
/// 5. [`finish`](Self::finish).
///
/// Dropped before that, it leaves what the same job needs to go on, under temporary names. Nothing outside
/// of the landing root is ever touched and no link beneath it is followed.
#[derive(Clone)]
pub struct Destination {
    pub(super) inner: Arc<Inner>,
    policy: Arc<dyn Policy>,
}

impl Destination {
    /// Finds where `shape` lands when the user says `dest`, as with `cp -r`, creates the directory if need
    /// be and takes up what an earlier run of the same `job` left.
    ///
    /// A file lands in `dest` if that is a directory, else as `dest`; a directory likewise; the content of
    /// a served root lands in `dest`.
    ///
    /// # Errors
    ///
    /// [`DestinationError::Busy`] if another run of the job is at work, and what can be wrong with `dest`.
    pub fn open(
        dest: &Path,
        shape: &Shape,
        job: JobKey,
        options: ReceiveOptions,
    ) -> Result<Self, DestinationError> {
        Self::at(Landing::find(dest, shape, job)?, shape, options)
    }

    /// Finds where `shape` lands when a peer says `path`, in which nothing is trusted: a directory beneath
    /// `root`, or `root` itself if it is empty. A file or a directory lands in it by its name, the content
    /// of a served root without one.
    ///
    /// Directories on the way that are missing are created if `may_create`, asked with the path of each,
    /// says so. Nothing on the way is followed if it is a link.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NameRefused`] before anything is created, [`DestinationError::WrongKind`] for a
    /// file or link on the way, [`DestinationError::ParentMissing`] for what may not be created,
    /// [`DestinationError::Busy`] if another run of the job is at work, else what the system says.
    pub fn open_beneath(
        root: &SourceRoot,
        path: &[u8],
        shape: &Shape,
        job: JobKey,
        options: ReceiveOptions,
        may_create: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self, DestinationError> {
        let root = root.directory().ok_or_else(|| DestinationError::WrongKind {
            path: ".".to_owned(),
            found: Kind::File,
            wanted: Kind::Directory,
        })?;
        let is_durable = options.durability == Durability::Durable;
        Self::at(Landing::beneath(root, path, shape, job, is_durable, may_create)?, shape, options)
    }

    /// The same destination, under other rules.
    #[doc(hidden)]
    #[must_use]
    pub fn with_policy(self, policy: Arc<dyn Policy>) -> Self {
        Self { policy, ..self }
    }

    /// Has it share the buffers that old versions of files are read into.
    #[must_use]
    pub fn with_buffers(mut self, buffers: Buffers) -> Self {
        // It was just opened: there is no other handle.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.buffers = buffers;
        }
        self
    }

    fn at(landing: Landing, shape: &Shape, options: ReceiveOptions) -> Result<Self, DestinationError> {
        let opened = Journal::open(&landing.root, landing.key, options.digest, &landing.shown)
            .inspect_err(|_| landing.created.iter().rev().for_each(Created::undo))?;
        let requested = match shape {
            Shape::File { name } => Some(name.clone()),
            Shape::Directory { .. } | Shape::Root => None,
        };
        let folds = folds_names(&landing.root, &opened.journal);
        let was_resumed = opened.was_there;
        let is_immediate = platform::lives_in_memory(&landing.root.dir);
        let state = State { has_strays: was_resumed, ..State::default() };
        Ok(Self {
            policy: Arc::new(()),
            inner: Arc::new(Inner {
                dirs: Dirs::new(landing.root),
                shown: landing.shown,
                file: landing.file.zip(requested),
                key: landing.key,
                created: landing.created,
                is_beneath: landing.is_beneath,
                occupied_bytes: Arc::default(),
                options,
                was_resumed,
                is_immediate,
                folds,
                state: Mutex::new(state),
                journal: Mutex::new(opened.journal),
                leftovers: Mutex::new(opened.leftovers),
                handles: Handles::default(),
                buffers: Buffers::default(),
                is_abandoned: AtomicBool::new(false),
                dataset: Mutex::default(),
                held: Mutex::default(),
            }),
        })
    }

    /// The directory that everything lands beneath.
    pub fn root(&self) -> &Path {
        &self.inner.shown
    }

    /// Decides what is to be done for entry number `index`; a directory is created at once.
    ///
    /// What an earlier run kept of the file is read and hashed here, which takes its time with large ones. Where much of
    /// it is wanted and there is an old version, the plan is [`Plan::Delta`].
    ///
    /// # Errors
    ///
    /// Of class [`Protocol`](super::FaultClass::Protocol) if the peer may not send this entry here,
    /// [`Refused`](super::FaultClass::Refused) if something is in the way or the name cannot be used,
    /// else what the system says. Only this entry is affected.
    pub fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        let planned = match self.policy.admit(entry)? {
            Admission::Skip => return Ok(Plan::Done),
            Admission::Compare => self.inner.plan(index, entry),
            Admission::Replace => self.inner.plan_anew(index, entry),
        };
        let planned = planned.and_then(|plan| self.inner.offer_delta(index, entry, plan));
        planned.map_or_else(
            |error| {
                let failed = FileEvent::Failed(error);
                self.policy.on_file(&entry.path, entry.size_bytes, failed).map(|()| Plan::Done)
            },
            |plan| self.noted(entry, plan),
        )
    }

    /// Goes on after [`Plan::Compare`], now that the peer's digest of the whole file is known: reads the
    /// local file and gives [`Plan::Done`] or [`Plan::Want`].
    ///
    /// # Errors
    ///
    /// [`DestinationError::Exists`] if the content differs and may not be overwritten, else as for
    /// [`plan`](Self::plan).
    pub fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        let plan = self.inner.compare(index, entry, theirs)?;
        self.noted(entry, self.inner.offer_delta(index, entry, plan)?)
    }

    /// Takes from the old version what a part of the peer's block signatures says of the ranges that [`Plan::Delta`]
    /// named. Parts come in order, and together are what [`delta`](Self::delta) is given.
    ///
    /// # Errors
    ///
    /// What the system says when it is written.
    pub fn follow(&self, index: u64, theirs: &[PlacedCut]) -> Result<(), DestinationError> {
        self.inner.follow(index, theirs)
    }

    /// Goes on after [`Plan::Delta`] with all of the peer's block signatures of the ranges that it named.
    ///
    /// # Errors
    ///
    /// As for [`plan`](Self::plan).
    pub fn delta(&self, index: u64, entry: &Entry, theirs: &[PlacedCut]) -> Result<Plan, DestinationError> {
        self.noted(entry, self.inner.delta(index, entry, theirs)?)
    }

    fn noted(&self, entry: &Entry, plan: Plan) -> Result<Plan, DestinationError> {
        if plan == Plan::Done && entry.kind == EntryKind::File {
            self.policy.on_file(&entry.path, entry.size_bytes, FileEvent::Identical)?;
        }
        Ok(plan)
    }

    /// The digest of the local file that the peer calls `path`, which is read for it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn digest_of(&self, path: &RelPath, algorithm: DigestAlgorithm) -> Result<Digest, DestinationError> {
        self.inner.digest_of(path, algorithm)
    }

    /// Checks that `missing_bytes` more fit, beyond what files resumed by this run occupy already.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NoSpace`] with what is needed and available.
    pub fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        let inner = &self.inner;
        let needed_bytes = missing_bytes.saturating_sub(lock(&inner.state).preallocated_bytes);
        let available_bytes = platform::available_bytes(&inner.root().dir)
            .map_err(|error| inner.failed_at_root(Operation::Examine, error))?;
        if needed_bytes > available_bytes {
            let path = name_of_root(&inner.shown, inner.is_beneath);
            return Err(DestinationError::NoSpace { path, needed_bytes, available_bytes });
        }
        Ok(())
    }

    /// The size of a file that was [planned](Self::plan) and is wanted; `None` once it was given up.
    pub fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        lock(&self.inner.state).files.get(&entry).map(|file| file.size_bytes)
    }

    /// Whether it all lands in a file system that is memory, where a write never waits for a disk.
    pub fn is_immediate(&self) -> bool {
        self.inner.is_immediate
    }

    /// Whether everything that comes needs new space: no earlier run has left anything, and nothing is there
    /// that the peer might have as well.
    ///
    /// # Errors
    ///
    /// What the system says when it is asked for the file of a single-file transfer.
    pub fn is_fresh(&self) -> Result<bool, DestinationError> {
        let inner = &self.inner;
        Ok(!inner.was_resumed
            && match &inner.file {
                Some((target, _)) => inner.examine(target)?.is_none(),
                None => !inner.created.is_empty(),
            })
    }

    /// Says that what is found here counts as much as what this run writes: [`finish`](Self::finish) makes it
    /// durable as well.
    pub fn rely_on_what_is_here(&self) {
        lock(&self.inner.state).relies_on_others = true;
    }

    /// Whether there is something to finish though this run writes nothing: an earlier run was cut, or what is
    /// here may not be durable yet.
    pub fn is_unsettled(&self) -> bool {
        let state = lock(&self.inner.state);
        self.inner.was_resumed || state.relies_on_others || !state.strays.is_empty()
    }

    /// How much of a transfer's payload is a chunk, as was asked for.
    pub fn chunk_len_bytes(&self) -> u64 {
        self.inner.options.chunk_len_bytes
    }

    /// The file system that everything lands on, as a number that tells it from others.
    pub fn device(&self) -> u64 {
        self.inner.root().device
    }

    /// A counter of the bytes that the files begun by this run were given on the disk. It keeps nothing of
    /// the destination alive.
    pub fn occupied_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.occupied_bytes)
    }

    /// Starts to write chunk number `chunk`, whose bytes are those of `spans`, one after another.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NotWanted`] and [`DestinationError::SpanOutside`] if the spans are not of files
    /// that are being received, else what the system says of the journal.
    pub fn chunk_writer(&self, chunk: u64, spans: &[Span]) -> Result<ChunkWriter, DestinationError> {
        ChunkWriter::new(&self.inner, chunk, spans)
    }

    /// Gives complete files their final names: those a [`commit`](ChunkWriter::commit) reported, and those
    /// planned with nothing missing. With [`Durability::Durable`] they are durable first, and their names
    /// after; that costs a few waits for the disk however many files there are, so call it with many.
    ///
    /// After an error, those of the files that could be published are; the others stay as they were.
    ///
    /// # Errors
    ///
    /// The first of: [`DestinationError::NotWanted`] if one is not complete,
    /// [`DestinationError::Poisoned`] if the system could not make one durable (nothing is renamed then),
    /// [`DestinationError::Exists`] if something took a name meanwhile, or what the system says.
    pub fn publish(&self, entries: &[u64]) -> Result<(), DestinationError> {
        self.inner.publish(entries, &*self.policy)
    }

    /// As [`publish`](Self::publish), by the rules of `policy` for these files.
    ///
    /// # Errors
    ///
    /// The same.
    #[doc(hidden)]
    pub fn publish_by(&self, entries: &[u64], policy: &dyn Policy) -> Result<(), DestinationError> {
        self.inner.publish(entries, policy)
    }

    /// Gives up a file that was wanted: the peer cannot send it any more, for this reason. What there is of it is
    /// removed.
    ///
    /// # Errors
    ///
    /// What the system says when it is removed.
    pub fn discard(&self, entry: u64, reason: FailReason) -> Result<(), DestinationError> {
        let file = self.inner.discard(entry)?;
        self.policy.on_file(&file.path, file.size_bytes, FileEvent::NotSent(reason))
    }

    /// Lets the comparison of a large file that is under way fail soon: nobody waits for it any more.
    pub fn abandon(&self) {
        self.inner.is_abandoned.store(true, Ordering::Relaxed);
    }

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
        self.inner.finish()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// What the clones of a [`Destination`] and its writers share.
///
/// Locks are held for a look, never while a file is read, written or synced; only the journal's is held
/// while a record is appended. Whoever needs two takes the journal's first.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dirs: Dirs,
    pub(super) shown: PathBuf,
    /// For a transfer of one file: the name it gets, and the one it was requested by.
    pub(super) file: Option<(RelPath, Vec<u8>)>,
    pub(super) key: JobKey,
    pub(super) created: Vec<Created>,
    pub(super) is_beneath: bool,
    /// Sizes of the files that were given space.
    pub(super) occupied_bytes: Arc<AtomicU64>,
    pub(super) options: ReceiveOptions,
    /// An earlier run may have published files whose names are not durable yet.
    pub(super) was_resumed: bool,
    /// The landing root lives in memory.
    is_immediate: bool,
    /// Names that differ only in case are the same here.
    pub(super) folds: bool,
    pub(super) state: Mutex<State>,
    pub(super) journal: Mutex<Journal>,
    pub(super) leftovers: Mutex<Leftovers>,
    pub(super) handles: Handles,
    /// For pieces of old versions.
    pub(super) buffers: Buffers,
    pub(super) is_abandoned: AtomicBool,
    /// Of a sync: nobody else on this machine changes the dataset.
    pub(super) dataset: Mutex<Option<DatasetLock>>,
    /// The last to go.
    pub(super) held: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Inner {
    pub(super) fn root(&self) -> &DirHandle {
        self.dirs.root()
    }

    pub(super) fn is_durable(&self) -> bool {
        self.options.durability == Durability::Durable
    }

    /// Removes what a run has made for itself that has kept nothing; else nothing is done.
    pub(super) fn leave_nothing(&self) -> Result<(), DestinationError> {
        let journal = lock(&self.journal);
        let mut state = lock(&self.state);
        let has_filled = state.has_changes && !self.created.is_empty();
        if state.is_finished || has_filled || self.was_resumed || !journal.is_pristine() {
            return Ok(());
        }
        journal.remove()?;
        state.is_finished = true;
        self.created.iter().rev().for_each(Created::undo);
        Ok(())
    }

    pub(super) fn record(&self, batch: &Batch) -> Result<(), DestinationError> {
        lock(&self.journal).append(batch).map_err(|error| self.with_space(error, 0))
    }

    pub(super) fn parent_of(&self, path: &RelPath) -> Result<Arc<DirHandle>, DestinationError> {
        self.dirs.parent_of(path).map_err(|error| {
            let Some(parent) = path.parent() else {
                return self.failed_at_root(Operation::Open, error);
            };
            if platform::is_symlink_refused(&error) {
                return self.wrong_kind(&parent, Kind::Symlink, Kind::Directory);
            }
            if error.kind() == io::ErrorKind::NotADirectory {
                return self.wrong_kind(&parent, Kind::File, Kind::Directory);
            }
            self.failed(Operation::Open, &parent, error)
        })
    }

    /// `path` as the user knows it, safe to print.
    pub(super) fn show(&self, path: &RelPath) -> String {
        escape(&self.path_of(path)).to_string()
    }

    pub(super) fn exists(&self, path: &RelPath) -> DestinationError {
        DestinationError::Exists { path: self.show(path) }
    }

    pub(super) fn wrong_kind(&self, path: &RelPath, found: Kind, wanted: Kind) -> DestinationError {
        DestinationError::WrongKind { path: self.show(path), found, wanted }
    }

    pub(super) fn failed(&self, operation: Operation, path: &RelPath, error: io::Error) -> DestinationError {
        self.failed_writing(operation, path, 0, error)
    }

    /// Like [`failed`](Self::failed), for something that needed `needed_bytes` of space.
    pub(super) fn failed_writing(
        &self,
        operation: Operation,
        path: &RelPath,
        needed_bytes: u64,
        error: io::Error,
    ) -> DestinationError {
        self.with_space(DestinationError::io(operation, &self.path_of(path), error), needed_bytes)
    }

    pub(super) fn failed_at_root(&self, operation: Operation, error: io::Error) -> DestinationError {
        DestinationError::io(operation, self.shown.as_os_str().as_encoded_bytes(), error)
    }

    fn path_of(&self, path: &RelPath) -> Vec<u8> {
        let mut bytes = self.shown.as_os_str().as_encoded_bytes().to_vec();
        if bytes.last().is_some_and(|last| *last != b'/') {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(path.as_bytes());
        bytes
    }

    pub(super) fn with_space(&self, error: DestinationError, needed_bytes: u64) -> DestinationError {
        match error {
            DestinationError::NoSpace { path, .. } => {
                let available_bytes = platform::available_bytes(&self.root().dir).unwrap_or_default();
                DestinationError::NoSpace { path, needed_bytes, available_bytes }
            }
            other => other,
        }
    }
}

impl Drop for Inner {
    /// A run that has kept nothing leaves nothing of its own: neither its journal nor the directory it
    /// created, unless there is something in it. Then the journal is what tells the next run that the
    /// directory is its own.
    fn drop(&mut self) {
        // Its name would keep a directory that was created for nothing.
        *lock(&self.dataset) = None;
        // Nobody is left to tell if this fails, and the next run of the job does it again.
        let _ = self.leave_nothing();
    }
}

/// What a person knows the landing root by. A peer is not told where on this machine it is.
fn name_of_root(shown: &Path, is_beneath: bool) -> String {
    let is_here = shown.as_os_str().is_empty() || shown == Path::new(".");
    let shown = match (is_here, is_beneath) {
        (true, true) => return "the shared directory".to_owned(),
        (true, false) => std::path::absolute(".").unwrap_or_else(|_| shown.to_owned()),
        (false, _) => shown.to_owned(),
    };
    escape(shown.as_os_str().as_encoded_bytes()).to_string()
}

/// Whether a name in another case finds the same file.
fn folds_names(root: &DirHandle, journal: &Journal) -> bool {
    let name = journal.name();
    let same = |name: &str| platform::stat(&root.dir, name.as_bytes()).map(|stat| (stat.device, stat.inode));
    match (same(name), same(&name.to_ascii_uppercase())) {
        (Ok(own), Ok(other)) => own == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_landing_root_has_a_name_wherever_it_is() {
        let here = std::env::current_dir().unwrap().display().to_string();
        for shown in ["", "."] {
            assert_eq!(name_of_root(Path::new(shown), false), here);
            assert_eq!(name_of_root(Path::new(shown), true), "the shared directory");
        }
        assert_eq!(name_of_root(Path::new("a/b"), false), "a/b");
        assert_eq!(name_of_root(Path::new("a/b"), true), "a/b");
    }
}
