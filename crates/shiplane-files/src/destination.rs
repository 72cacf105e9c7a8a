//! The destination of a transfer, with its parts.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shiplane_wire::{Digest, DigestAlgorithm, Durability, Entry, EntryKind, LeftOutReason, RelPath, Span};

use crate::{
    blocks::Block,
    buffers::{CountedMemory, SharedMemory},
    deletion::Deletion,
    delta::DeltaMatcher,
    error::{DestinationError, Operation, SourceError},
    filters::Filters,
    hard_links::{LinkedFileState, LinkedFiles},
    journal::Opened,
    left_out::LeftOut,
    names::JobKey,
    plan::{Plan, Planner},
    platform::{self, Kind},
    policy::{Admission, FileEvent, Policy},
    publish::Publisher,
    resolve::ResolvedDestination,
    resume::ResumeState,
    scan::TopDirectory,
    shape::Shape,
    site::{ReceiveOptions, Site},
    source::SourceRoot,
    state::PartedFile,
    store::{ChunkStore, ChunkWriter},
};

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
/// of the destination directory is ever touched and no link beneath it is followed.
#[derive(Clone)]
pub struct Destination {
    pub(super) parts: Arc<Parts>,
    policy: Arc<dyn Policy>,
    pub(super) filters: Option<Arc<Filters>>,
    deletion: Option<Arc<Deletion>>,
}

/// What a destination is made of. Each part has its own state, and knows only those before it; the store, which writers
/// hold too, is the last to go.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) site: Arc<Site>,
    pub(super) store: Arc<ChunkStore>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) planner: Planner,
    pub(super) matcher: DeltaMatcher,
    pub(super) linked: Arc<LinkedFiles>,
    pub(super) parted: Mutex<PartedFile>,
    /// Whether what this run finds here, and has not written, must be durable at its end too.
    relies_on_others: AtomicBool,
}

impl Destination {
    /// Finds where `shape` lands when the user says `dest`, creates missing directories and takes up what an
    /// earlier run of the same `job` left.
    ///
    /// A directory becomes `dest`. A file does too, unless `dest` is a directory: then it lands in it. If `dest` ends
    /// in a slash, both land in it by their names.
    ///
    /// # Errors
    ///
    /// [`DestinationError::Busy`] if another run of the job is running, and what can be wrong with `dest`.
    pub fn open(
        dest: &Path,
        shape: &Shape,
        job: JobKey,
        options: ReceiveOptions,
    ) -> Result<Self, DestinationError> {
        let is_durable = options.durability == Durability::Durable;
        let resolved = ResolvedDestination::find(dest, shape, job, is_durable)?;
        Self::at(resolved, shape, options, SharedMemory::default())
    }

    /// Finds where `shape` lands when a peer says `path`, in which nothing is trusted: a directory beneath
    /// what is `served`, or that itself if it is empty. A file or a directory lands in it by its name, the content
    /// of a served root without one.
    ///
    /// Directories on the way that are missing are created if `may_create`, asked with the path of each,
    /// says so. Nothing on the way is followed if it is a link. Memory is that of `shared`.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NameRefused`] before anything is created, [`DestinationError::WrongKind`] for a
    /// file or link on the way, [`DestinationError::ParentMissing`] for what may not be created,
    /// [`DestinationError::Busy`] if another run of the job is running, [`DestinationError::NoMemory`] if what an earlier
    /// run left finds none of it now, else what the system says.
    pub fn open_beneath(
        served: &SourceRoot,
        path: &[u8],
        shape: &Shape,
        job: JobKey,
        options: ReceiveOptions,
        shared: SharedMemory,
        may_create: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self, DestinationError> {
        let root = served.directory().ok_or_else(|| DestinationError::WrongKind {
            path: ".".to_owned(),
            found: Kind::File,
            wanted: Kind::Directory,
        })?;
        served.check_there().map_err(|error| match error {
            SourceError::Unreadable { source, .. } => DestinationError::io(Operation::Open, b".", source),
            _ => DestinationError::Gone,
        })?;
        let is_durable = options.durability == Durability::Durable;
        let resolved = ResolvedDestination::beneath(root, path, shape, job, is_durable, may_create)?;
        Self::at(resolved, shape, options, shared)
    }

    /// The same destination, under other rules.
    #[doc(hidden)]
    #[must_use]
    pub fn with_policy(self, policy: Arc<dyn Policy>) -> Self {
        Self { policy, ..self }
    }

    /// The same destination, which refuses what `filters` exclude: a peer that knows them and sends it all the same
    /// breaks the protocol.
    #[must_use]
    pub fn with_filters(self, filters: Arc<Filters>) -> Self {
        Self { filters: (!filters.is_none()).then_some(filters), ..self }
    }

    /// The same destination, where [`finish`](Self::finish) removes what the peer has not sent, except what filters
    /// exclude. `consent` says whether it may be most of what is there. What was sent is remembered in `memory`. Nothing
    /// is planned yet.
    #[must_use]
    pub fn deleting(self, consent: bool, memory: Box<dyn CountedMemory>) -> Self {
        Self { deletion: Some(Deletion::new(consent, memory).into()), ..self }
    }

    pub(super) fn deletion(&self) -> Option<&Deletion> {
        self.deletion.as_deref()
    }

    pub(super) fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    pub(super) fn on_file(
        &self,
        path: &RelPath,
        len_bytes: u64,
        event: FileEvent,
    ) -> Result<(), DestinationError> {
        self.policy.on_file(path, len_bytes, event)
    }

    fn at(
        resolved: ResolvedDestination,
        shape: &Shape,
        options: ReceiveOptions,
        mut shared: SharedMemory,
    ) -> Result<Self, DestinationError> {
        let (site, opened) = Site::open(resolved, shape, options, &mut *shared.journal)?;
        Ok(Self::of(site, opened, shared))
    }

    pub(super) fn of(site: Site, opened: Opened, shared: SharedMemory) -> Self {
        let site = Arc::new(site);
        let store = Arc::new(ChunkStore::new(&site, opened, shared.journal));
        let publisher = Arc::new(Publisher::new(&site, &store));
        let resume = ResumeState::new(&site, &store);
        let linked = Arc::new(LinkedFiles::new(shared.links));
        let parts = Parts {
            planner: Planner::new(&site, &store, &publisher, resume, Arc::clone(&linked)),
            linked,
            matcher: DeltaMatcher::new(&site, &store, shared.buffers),
            parted: Mutex::default(),
            relies_on_others: AtomicBool::new(false),
            site,
            store,
            publisher,
        };
        Self { parts: Arc::new(parts), policy: Arc::new(()), filters: None, deletion: None }
    }

    /// The directory that everything lands beneath.
    pub fn root(&self) -> &Path {
        &self.parts.site.shown
    }

    /// Takes what the peer says of the directory that all of it is in. Comes before all entries, once.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NotRequested`] if it comes late or twice, or for a transfer of one file.
    pub fn plan_top(&self, top: TopDirectory) -> Result<(), DestinationError> {
        self.parts.planner.plan_top(top)
    }

    /// The file or the directory that the transfer becomes.
    pub fn landing(&self) -> PathBuf {
        let site = &self.parts.site;
        match &site.file {
            Some((target, _)) => site.shown.join(&*String::from_utf8_lossy(target.as_bytes())),
            None => site.shown.clone(),
        }
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
        self.check_wanted(entry)?;
        if let Some(deletion) = &self.deletion {
            deletion.sent(&entry.path, self.parts.site.folds);
        }
        let planned = match self.policy.admit(entry)? {
            Admission::Skip => {
                // Which file that is is not known here.
                let not_here = LinkedFileState::LeftOut(LeftOutReason::InTheWay);
                self.parts.linked.note(index, entry, &entry.path, not_here);
                return Ok(Plan::Done);
            }
            Admission::Compare => self.parts.planner.plan(index, entry),
            Admission::Replace if self.may_be_linked(entry) => self.parts.planner.plan_anew(index, entry),
            Admission::Replace => {
                self.parts.planner.plan_anew(index, &Entry { first: None, ..entry.clone() })
            }
        };
        let planned = planned.and_then(|plan| self.offer_delta(index, entry, plan));
        self.planned(index, entry, planned)
    }

    fn check_wanted(&self, entry: &Entry) -> Result<(), DestinationError> {
        let Some(filters) = self.filters.as_ref().filter(|_| self.parts.site.file.is_none()) else {
            return Ok(());
        };
        match filters.excludes(&entry.path, entry.kind == EntryKind::Directory) {
            true => Err(DestinationError::NotRequested { path: entry.path.to_string() }),
            false => Ok(()),
        }
    }

    /// Leaves the entry out if it alone has failed.
    pub(super) fn planned(
        &self,
        index: u64,
        entry: &Entry,
        planned: Result<Plan, DestinationError>,
    ) -> Result<Plan, DestinationError> {
        let Parts { site, store, planner, matcher, linked, .. } = &*self.parts;
        let mut error = match planned {
            Ok(plan) => return self.noted(index, entry, plan),
            Err(error) => error,
        };
        if let Some(reason) = error.left_out_reason(site.options.existing.goes_on()) {
            linked.note(index, entry, &entry.path, LinkedFileState::LeftOut(reason));
        }
        if entry.kind == EntryKind::Directory {
            error = planner.leave_out_directory(&entry.path, error)?;
        }
        let error = site.leave_out(Some(index), &entry.path, error)?;
        matcher.forget(index);
        store.discard(index)?;
        self.policy.on_file(&entry.path, entry.size_bytes, FileEvent::Failed(error))?;
        Ok(Plan::LeftOut)
    }

    /// Goes on after [`Plan::Compare`], now that the peer's digest of the whole file is known: reads the
    /// local file and gives [`Plan::Done`] or [`Plan::Want`].
    ///
    /// # Errors
    ///
    /// [`DestinationError::Exists`] if the content differs and may not be overwritten, else as for
    /// [`plan`](Self::plan).
    pub fn compare(&self, index: u64, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        let plan = self.parts.planner.compare(index, entry, theirs);
        let plan = plan.and_then(|plan| self.offer_delta(index, entry, plan));
        self.planned(index, entry, plan)
    }

    /// Takes from the old version what a part of the peer's block signatures says of the ranges that [`Plan::Delta`]
    /// named. Parts come in order, and together are what [`delta`](Self::delta) is given.
    ///
    /// [`delta`](Self::delta) reports failures.
    pub fn follow(&self, index: u64, theirs: &[Block]) {
        self.parts.matcher.follow(index, theirs);
    }

    /// Goes on after [`Plan::Delta`] with all of the peer's block signatures of the ranges that it named.
    ///
    /// # Errors
    ///
    /// As for [`plan`](Self::plan).
    pub fn delta(&self, index: u64, entry: &Entry, theirs: &[Block]) -> Result<Plan, DestinationError> {
        let plan = self.parts.matcher.delta(index, entry, theirs);
        self.planned(index, entry, plan.map(|plan| plan.unwrap_or_else(|| self.parts.planner.identical())))
    }

    fn offer_delta(&self, index: u64, entry: &Entry, plan: Plan) -> Result<Plan, DestinationError> {
        self.parts.matcher.offer(&self.parts.planner, index, entry, plan)
    }

    fn noted(&self, index: u64, entry: &Entry, plan: Plan) -> Result<Plan, DestinationError> {
        self.note_first(index, entry, &plan)?;
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
        self.parts.site.digest_of(path, algorithm)
    }

    /// Checks that `missing_bytes` more fit, beyond what files resumed by this run occupy already, and the files that
    /// were planned, each on the file system of its directory.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NoSpace`] or [`DestinationError::NoInodes`] with what is needed and available.
    pub fn reserve(&self, missing_bytes: u64) -> Result<(), DestinationError> {
        let Parts { site, store, planner, .. } = &*self.parts;
        let needs = store.needs();
        let root = site.root().device;
        let is_spread = needs.iter().any(|(device, _)| *device != root);
        for (device, need) in needs.iter().filter(|(_, need)| need.files > 0) {
            let (at, path) = (need.at.as_ref(), || site.show_in(need.at.as_ref()));
            let failed = |error| site.failed_in(Operation::Examine, at, error);
            let dir = site.dirs.open(at.filter(|_| *device != root)).map_err(failed)?;
            let available = platform::available_files(&dir.dir).map_err(failed)?;
            if let Some(available) = available.filter(|available| need.files > *available) {
                let (path, needed) = (path(), need.files);
                return Err(DestinationError::NoInodes { path, needed, available });
            }
            if is_spread {
                check_space(need.bytes, platform::available_bytes(&dir.dir).map_err(failed)?, path)?;
            }
        }
        if is_spread {
            return Ok(());
        }
        let needed_bytes = missing_bytes.saturating_sub(planner.resume.preallocated_bytes());
        let available_bytes = platform::available_bytes(&site.root().dir)
            .map_err(|error| site.failed_at_root(Operation::Examine, error))?;
        check_space(needed_bytes, available_bytes, || site.name())
    }

    /// The size of a file that was [planned](Self::plan) and is wanted; `None` once it was given up.
    pub fn file_len_bytes(&self, entry: u64) -> Option<u64> {
        self.parts.store.file_len_bytes(entry)
    }

    /// Whether it all lands in a file system that is memory, where a write never waits for a disk.
    pub fn is_immediate(&self) -> bool {
        self.parts.site.is_immediate
    }

    /// Whether everything that comes needs new space: no earlier run has left anything, and nothing is there
    /// that the peer might have as well.
    ///
    /// # Errors
    ///
    /// What the system says when it is asked for the file of a single-file transfer.
    pub fn is_fresh(&self) -> Result<bool, DestinationError> {
        let site = &self.parts.site;
        Ok(!site.was_resumed
            && match &site.file {
                Some((target, _)) => site.examine(target)?.is_none(),
                None => !site.created.is_empty(),
            })
    }

    /// Says that what is found here counts as much as what this run writes: [`finish`](Self::finish) makes it
    /// durable as well.
    pub fn rely_on_what_is_here(&self) {
        self.parts.relies_on_others.store(true, Ordering::Relaxed);
    }

    /// Says that the file system of the directory at `path` has some of what is here.
    pub(crate) fn note_file_system(&self, path: &RelPath) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        match site.dirs.open(Some(path)) {
            // It was listed before, and is unmounted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened.map(drop).map_err(|error| site.failed(Operation::Open, path, error)),
        }
    }

    /// Whether there is something to finish though this run writes nothing: an earlier run was cut, or what is
    /// here may not be durable yet.
    pub fn is_unsettled(&self) -> bool {
        self.relies_on_others() || self.parts.planner.resume.has_orphaned_temps()
    }

    /// Whether an earlier run has left files that this one takes up or removes, wherever they are.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.parts.site.was_resumed || self.parts.planner.resume.has_orphaned_temps()
    }

    pub(super) fn relies_on_others(&self) -> bool {
        self.parts.site.was_resumed || self.parts.relies_on_others.load(Ordering::Relaxed)
    }

    /// What [`finish`](Self::finish) promises.
    pub fn durability(&self) -> Durability {
        self.parts.site.options.durability
    }

    /// How much of a transfer's payload is a chunk, as was asked for.
    pub fn chunk_len_bytes(&self) -> u64 {
        self.parts.site.options.chunk_len_bytes
    }

    /// Whether names that differ in case only are the same there.
    pub fn folds(&self) -> bool {
        self.parts.site.folds
    }

    /// Whether the modes that files are given last there.
    pub fn keeps_modes(&self) -> bool {
        self.parts.site.keeps_modes
    }

    /// The file system that everything lands on, as a number that tells it from others.
    pub fn device(&self) -> u64 {
        self.parts.site.root().device
    }

    /// A counter of the bytes that the files begun by this run were given on the disk. It keeps nothing of
    /// the destination alive.
    pub fn occupied_bytes(&self) -> Arc<AtomicU64> {
        self.parts.store.occupied_bytes()
    }

    /// Starts to write chunk number `chunk`, whose bytes are those of `spans`, one after another.
    ///
    /// # Errors
    ///
    /// [`DestinationError::NotWanted`] and [`DestinationError::SpanOutside`] if the spans are not of files
    /// that are being received, else what the system says of the journal.
    pub fn chunk_writer(&self, chunk: u64, spans: &[Span]) -> Result<ChunkWriter, DestinationError> {
        ChunkWriter::new(&self.parts.store, chunk, spans)
    }

    /// Gives complete files their final names: those a [`commit`](ChunkWriter::commit) reported, and those
    /// planned with nothing missing. With [`Durability::Durable`] they are durable first, and their names
    /// after; that costs a few waits for the disk however many files there are, so call it with many.
    ///
    /// Gives those that have their names now; the others were [left out](Self::take_left_out).
    ///
    /// After an error, those of the files that could be published are; the others stay as they were.
    ///
    /// # Errors
    ///
    /// The first of: [`DestinationError::NotWanted`] if one is not complete,
    /// [`DestinationError::Poisoned`] if the system could not make one durable (nothing is renamed then),
    /// [`DestinationError::Exists`] if something took a name meanwhile, or what the system says.
    pub fn publish(&self, entries: &[u64]) -> Result<Vec<u64>, DestinationError> {
        self.publish_by(entries, &*self.policy)
    }

    /// As [`publish`](Self::publish), by the rules of `policy` for these files.
    ///
    /// # Errors
    ///
    /// The same.
    #[doc(hidden)]
    pub fn publish_by(&self, entries: &[u64], policy: &dyn Policy) -> Result<Vec<u64>, DestinationError> {
        let published = self.parts.publisher.publish(entries, policy)?;
        self.parts.linked.settle(&published, LinkedFileState::Here(None));
        Ok(published)
    }

    /// Gives up a file that was wanted: the peer cannot send it any more, for this reason. What there is of it is
    /// removed.
    ///
    /// # Errors
    ///
    /// What the system says when it is removed.
    pub fn discard(&self, entry: u64, reason: LeftOutReason) -> Result<(), DestinationError> {
        let file = self.parts.store.discard(entry);
        self.parts.matcher.forget(entry);
        self.parts.linked.settle(&[entry], LinkedFileState::LeftOut(reason));
        let file = file?.ok_or(DestinationError::NotWanted { entry })?;
        self.policy.on_file(&file.path, file.size_bytes, FileEvent::NotSent(reason))
    }

    /// Takes what was left out since the last time: paths that this side cannot write, while everything else goes on. Also
    /// gives how many more there were than are named. Entries among them were planned before; for each that was wanted,
    /// call [`discard_left_out`](Self::discard_left_out) once nothing more of it is asked for.
    ///
    /// # Errors
    ///
    /// Those of the policy.
    pub fn take_left_out(&self) -> Result<(Vec<LeftOut>, u64), DestinationError> {
        let (left_out, unnamed) = self.parts.site.left_outs.take();
        for LeftOut { entry, path, error, .. } in left_out.iter().filter(|left_out| !left_out.is_told) {
            let Some(path) = path else { continue };
            let len_bytes = entry.and_then(|entry| self.file_len_bytes(entry)).unwrap_or_default();
            self.policy.on_file(path, len_bytes, FileEvent::Failed(Arc::clone(error)))?;
        }
        Ok((left_out, unnamed))
    }

    /// Removes what there is of a file that was left out.
    ///
    /// # Errors
    ///
    /// What the system says when it is removed.
    pub fn discard_left_out(&self, entry: u64) -> Result<(), DestinationError> {
        self.parts.matcher.forget(entry);
        self.parts.linked.settle(&[entry], LinkedFileState::LeftOut(LeftOutReason::Failed));
        self.parts.store.discard(entry).map(drop)
    }

    /// Lets the comparison of a large file fail soon, because its result is not needed any more.
    pub fn abandon(&self) {
        self.parts.site.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Drops `held` once this destination and all its writers are gone.
    pub fn hold(&self, held: Arc<dyn Any + Send + Sync>) {
        self.parts.store.hold(held);
    }

    /// Gives up the lock of the dataset, after everything else, and what an unused destination has made for itself.
    ///
    /// # Errors
    ///
    /// If either cannot be removed.
    pub fn release(&self) -> Result<(), DestinationError> {
        self.parts.store.release()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("parts", &self.parts).finish_non_exhaustive()
    }
}

fn check_space(
    needed_bytes: u64,
    available_bytes: u64,
    path: impl Fn() -> String,
) -> Result<(), DestinationError> {
    if needed_bytes > available_bytes {
        return Err(DestinationError::NoSpace { path: path(), needed_bytes, available_bytes });
    }
    Ok(())
}
