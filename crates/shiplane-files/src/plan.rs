//! Plans each entry: present, compare, or want.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::{
    error::{DestinationError, Operation},
    existing::Existing,
    hard_links::{LinkedFile, LinkedFileState, LinkedFiles, Name},
    lock,
    path_list::PathList,
    platform::{self, Kind, Stat},
    publish::Publisher,
    resolve::check_names,
    resume::ResumeState,
    scan::TopDirectory,
    site::Site,
    state::{
        ActiveFile, DIRECTORY_MODES, FileState, HardLink, Link, Metadata, OWNER_DIRECTORY_MODE, SeenPaths,
    },
    store::ChunkStore,
};
use shiplane_wire::{Digest, Entry, EntryKind, LeftOutReason, RelPath};

/// What is to be done for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the directory is there, or the file is, with the same content.
    Done,
    /// Nothing: another file is there, and stays.
    Kept,
    /// Nothing: it is a further name of an earlier file, and is created at the end.
    Linked,
    /// A file of the same size is there: ask the peer for the digest of its file and call
    /// [`Destination::compare`](crate::destination::Destination::compare).
    Compare {
        /// Its time is the same too.
        is_likely_same: bool,
    },
    /// The file is to be received.
    Want {
        /// The bytes to ask for, in order. If there are none (the file is empty, or an earlier run has
        /// kept all of it) it is ready for [`Destination::publish`](crate::destination::Destination::publish).
        missing: Vec<Range<u64>>,
        /// What of it is here: an earlier run has kept it, verified again, or it is in the old version.
        resumed_bytes: u64,
    },
    /// It is left out: [`Destination::take_left_out`](crate::destination::Destination::take_left_out) says why.
    LeftOut,
    /// An old version of the file is there: request the block signatures of these ranges (SPEC 4.13) and go on
    /// with [`Destination::delta`](crate::destination::Destination::delta).
    Delta {
        /// The ranges of the new version, in order.
        ranges: Vec<Range<u64>>,
        /// The average length of the blocks to request.
        average_bytes: u32,
    },
}

impl Plan {
    /// How much it wants.
    pub fn missing_bytes(&self) -> u64 {
        let Self::Want { missing, .. } = self else { return 0 };
        missing.iter().map(|range| range.end - range.start).sum()
    }
}

/// Decides about entries, in the order of the manifest.
#[derive(Debug)]
pub(super) struct Planner {
    site: Arc<Site>,
    store: Arc<ChunkStore>,
    publisher: Arc<Publisher>,
    pub(super) resume: ResumeState,
    linked: Arc<LinkedFiles>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: SeenPaths,
    /// The same in lower case, on a file system that folds names.
    seen_folded: SeenPaths,
    /// Directories that the peer announced, and which they were.
    directories: PathList<Metadata>,
    /// Symbolic links that are to be laid at the end.
    links: PathList<Link>,
    announced: SeenPaths,
    /// What the peer says of the destination directory.
    top: Option<TopDirectory>,
    /// Directories that were left out, and why: so is what is in them.
    left_out: BTreeMap<RelPath, LeftOutReason>,
    left_out_bytes: usize,
    /// A hard link to a file that was forgotten has arrived.
    has_forgotten_links: bool,
}

impl Planner {
    pub(super) fn new(
        site: &Arc<Site>,
        store: &Arc<ChunkStore>,
        publisher: &Arc<Publisher>,
        resume: ResumeState,
        linked: Arc<LinkedFiles>,
    ) -> Self {
        let (site, store, publisher) = (Arc::clone(site), Arc::clone(store), Arc::clone(publisher));
        Self { site, store, publisher, resume, linked, state: Mutex::default() }
    }

    pub(super) fn plan(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        let target = self.admit(index, entry)?;
        match entry.kind {
            EntryKind::Directory => self.plan_directory(entry, target),
            EntryKind::File => self.plan_file(index, entry, target),
            EntryKind::Symlink => self.plan_link(entry, target),
        }
    }

    /// As [`plan`](Self::plan), but a file is known not to be the one that is here: nothing is compared.
    pub(super) fn plan_anew(&self, index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        if entry.kind != EntryKind::File {
            return self.plan(index, entry);
        }
        let target = self.admit(index, entry)?;
        if let Some(found) = self.site.examine(&target)? {
            self.publisher.check_collision(&target, &found, true)?;
            if found.kind == Kind::Directory {
                return Err(self.site.wrong_kind(&target, found.kind, Kind::File));
            }
        }
        match self.name_of(index, entry)? {
            Some(_) => self.link(index, entry, target, false),
            None => self.want(index, entry, target),
        }
    }

    pub(super) fn compare(
        &self,
        index: u64,
        entry: &Entry,
        theirs: Digest,
    ) -> Result<Plan, DestinationError> {
        let target = self.site.target_of(&entry.path);
        match self.open_same_size(entry, &target)? {
            Found::Gone => self.want_or_link(index, entry, target),
            Found::Different => self.replace(index, entry, target),
            Found::SameSize(file) => {
                let failed = |error| self.site.failed(Operation::Read, &target, error);
                if self.site.hash_as(&file, entry).map_err(failed)? != Some(theirs) {
                    return self.replace(index, entry, target);
                }
                self.site.mend(&entry.into(), &target, &file)?;
                let found = platform::stat_open(&file).map_err(failed)?;
                self.identical_as(index, entry, target, &found)
            }
        }
    }

    /// Takes what the peer says of the destination directory, before anything in it.
    pub(super) fn plan_top(&self, top: TopDirectory) -> Result<(), DestinationError> {
        let mut state = lock(&self.state);
        let is_unwanted = top.attributes.is_some() && !self.site.options.attributes;
        if is_unwanted || self.site.file.is_some() || state.top.is_some() || !state.seen.is_empty() {
            return Err(DestinationError::NotRequested { path: ".".to_owned() });
        }
        state.top = Some(top);
        Ok(())
    }

    /// What the destination directory gets in the end, if it is the peer's to say.
    pub(super) fn top(&self) -> Option<TopDirectory> {
        lock(&self.state).top.clone().filter(|_| self.site.settles_top)
    }

    /// Notes a directory that is left out. What is in it, and comes later, is left out as well.
    ///
    /// # Errors
    /// The error itself once there are very many of them.
    pub(super) fn leave_out_directory(
        &self,
        path: &RelPath,
        error: DestinationError,
    ) -> Result<DestinationError, DestinationError> {
        let Some(reason) = error.left_out_reason(self.site.options.existing.goes_on()) else {
            return Err(error);
        };
        let mut state = lock(&self.state);
        state.announced.insert(path.as_bytes());
        if matches!(error, DestinationError::InLeftOut { .. }) {
            return Ok(error);
        }
        state.left_out_bytes += path.as_bytes().len() + LEFT_OUT_COST_BYTES;
        if state.left_out_bytes > MAX_LEFT_OUT_BYTES {
            return Err(error);
        }
        state.left_out.insert(path.clone(), reason);
        Ok(error)
    }

    /// Whether any of them is there, as far as can be found out.
    pub(super) fn has_left_out_directories(&self) -> bool {
        let left_out = lock(&self.state).left_out.clone();
        left_out.keys().any(|path| !matches!(self.site.examine(path), Ok(None)))
    }

    fn check_not_in_left_out(&self, path: &RelPath) -> Result<(), DestinationError> {
        let state = lock(&self.state);
        if state.left_out.is_empty() {
            return Ok(());
        }
        let mut above = std::iter::successors(path.parent(), RelPath::parent);
        match above.find_map(|above| state.left_out.get(&above)) {
            Some(reason) => Err(DestinationError::InLeftOut { path: path.to_string(), reason: *reason }),
            None => Ok(()),
        }
    }

    /// Checks the entry against those before it (SPEC 4.5) and gives the path it lands under.
    fn admit(&self, index: u64, entry: &Entry) -> Result<RelPath, DestinationError> {
        let path = &entry.path;
        check_names(path)?;
        if self.store.is_finished() {
            return Err(DestinationError::NotWanted { entry: index });
        }
        // A provider that was not asked for them does not send them.
        if entry.attributes.is_some() && !self.site.options.attributes {
            return Err(DestinationError::NotRequested { path: path.to_string() });
        }
        if let Some((target, requested)) = &self.site.file {
            let mut state = lock(&self.state);
            let is_it =
                entry.kind == EntryKind::File && path.as_bytes() == requested && state.seen.is_empty();
            if !is_it {
                return Err(DestinationError::NotRequested { path: path.to_string() });
            }
            state.seen.insert(path.as_bytes());
            return Ok(target.clone());
        }
        self.check_parent(path)?;
        self.check_not_in_left_out(path)?;
        let mut state = lock(&self.state);
        if !state.seen.insert(path.as_bytes()) {
            return Err(DestinationError::Duplicate { path: path.to_string() });
        }
        if self.site.folds && !state.seen_folded.insert(fold(path).as_bytes()) {
            return Err(DestinationError::NameCollision { path: path.to_string() });
        }
        Ok(path.clone())
    }

    /// SPEC 4.5: a directory comes before what is in it. Of very many, it is enough that it is there.
    fn check_parent(&self, path: &RelPath) -> Result<(), DestinationError> {
        let no_parent = || DestinationError::NoParent { path: path.to_string() };
        let Some(parent) = path.parent() else { return Ok(()) };
        {
            let state = lock(&self.state);
            if state.announced.contains(parent.as_bytes()) {
                return Ok(());
            }
            if !state.announced.has_forgotten() {
                return Err(no_parent());
            }
        }
        match self.site.dirs.open(Some(&parent)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_parent()),
            // Other errors are reported where the directory is needed.
            _ => Ok(()),
        }
    }

    fn plan_directory(&self, entry: &Entry, target: RelPath) -> Result<Plan, DestinationError> {
        let parent = self.site.parent_of(&target)?;
        // Its content is private until it has its final mode.
        let is_new = match platform::make_dir(&parent.dir, target.file_name(), OWNER_DIRECTORY_MODE) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(self.site.failed_naming(Operation::Create, &target, error)),
        };
        if !is_new || self.site.folds {
            let found = self.site.examine(&target)?;
            if let Some(found) = found.filter(|found| found.kind != Kind::Directory) {
                return Err(self.site.wrong_kind(&target, found.kind, Kind::Directory));
            }
            if let Some(found) = found {
                self.publisher.check_collision(&target, &found, !is_new)?;
                if found.mode & OWNER_DIRECTORY_MODE != OWNER_DIRECTORY_MODE {
                    // However little its owner may do, we must be able to fill it. Whether we are shows when we do.
                    let mode = found.mode | OWNER_DIRECTORY_MODE;
                    let _ = platform::set_mode_at(&parent.dir, target.file_name(), mode);
                }
            }
        }
        if is_new {
            self.store.is_new_top(&target);
            self.publisher.created(&target, parent.device)?;
        }
        self.site.count(|summary| summary.directories += 1);
        lock(&self.state).announced.insert(target.as_bytes());
        let wanted = Metadata { mode: Some(entry.mode & DIRECTORY_MODES), ..entry.into() };
        self.settle_at_end(&target, &wanted)?;
        Ok(Plan::Done)
    }

    /// A link is laid at the end, so that nothing is ever written through it.
    fn plan_link(&self, entry: &Entry, target: RelPath) -> Result<Plan, DestinationError> {
        let not_requested = || DestinationError::NotRequested { path: entry.path.to_string() };
        let points_to = entry.target.as_ref().ok_or_else(not_requested)?;
        self.site.check_link(&target, points_to)?;
        let attributes = entry.attributes.clone();
        let link = Link { target: points_to.clone(), mtime: entry.mtime, attributes };
        if let Some(found) = self.site.examine(&target)? {
            self.publisher.check_collision(&target, &found, true)?;
            if found.kind == Kind::Directory {
                return Err(self.site.wrong_kind(&target, found.kind, Kind::Symlink));
            }
            if found.kind == Kind::Symlink && self.mend_link(&link, &target)? {
                self.site.count(|summary| summary.links += 1);
                return Ok(Plan::Done);
            }
            match self.site.options.existing {
                Existing::Refuse => return Err(self.site.exists(&target)),
                Existing::Keep => return Ok(self.kept()),
                Existing::Replace | Existing::BackUp(_) => {}
            }
        }
        self.lay_at_end(&target, &link)?;
        Ok(Plan::Done)
    }

    /// Whether the link that is there leads to the same; then it gets the owners and the time of the peer's.
    fn mend_link(&self, link: &Link, target: &RelPath) -> Result<bool, DestinationError> {
        let parent = self.site.parent_of(target)?;
        let failed = |operation| move |error| self.site.failed(operation, target, error);
        let points_to = match platform::read_link(&parent.dir, target.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            read => read.map_err(failed(Operation::Read))?,
        };
        if points_to != link.target.as_bytes() {
            return Ok(false);
        }
        if self.site.options.existing != Existing::Keep {
            self.site.describe_link(&parent.dir, target.file_name(), target, link)?;
        }
        Ok(true)
    }

    /// Lays a link at the end.
    pub(super) fn lay_at_end(&self, target: &RelPath, link: &Link) -> Result<(), DestinationError> {
        self.site.announce(&mut lock(&self.state).links, target, link)
    }

    /// The links that are to be laid, which are forgotten.
    pub(super) fn each_link(
        &self,
        visit: impl FnMut(&RelPath, &Link) -> Result<(), DestinationError>,
    ) -> Result<(), DestinationError> {
        let links = std::mem::take(&mut lock(&self.state).links);
        links.newest_first(|error| self.site.failed_at_root(Operation::Read, error), visit)
    }

    /// Gives a directory this mode and time at the end. Those in it must come later.
    pub(super) fn settle_at_end(
        &self,
        target: &RelPath,
        directory: &Metadata,
    ) -> Result<(), DestinationError> {
        self.site.announce(&mut lock(&self.state).directories, target, directory)
    }

    /// Forgets the directories that were to be settled at the end.
    pub(super) fn forget_directories(&self) {
        lock(&self.state).directories = PathList::default();
    }

    fn plan_file(&self, index: u64, entry: &Entry, target: RelPath) -> Result<Plan, DestinationError> {
        let Some(found) = self.site.examine(&target)? else {
            return self.want_or_link(index, entry, target);
        };
        self.publisher.check_collision(&target, &found, true)?;
        if self.name_of(index, entry)?.is_some_and(|first| is_this(&first, &found)) {
            return Ok(self.identical());
        }
        match found.kind {
            Kind::Directory => Err(self.site.wrong_kind(&target, found.kind, Kind::File)),
            Kind::File if found.size_bytes == entry.size_bytes => {
                let keeps = self.site.options.existing == Existing::Keep;
                if found.mtime == entry.mtime && keeps {
                    return Ok(self.identical());
                }
                let verifies = self.site.options.verify || self.store.has_failed_sync();
                if found.mtime == entry.mtime && !verifies {
                    self.site.mend_mode(&entry.into(), &target, &found)?;
                    return self.identical_as(index, entry, target, &found);
                }
                if keeps {
                    return Ok(self.kept());
                }
                if entry.size_bytes > 0 {
                    return Ok(Plan::Compare { is_likely_same: found.mtime == entry.mtime });
                }
                // There is nothing to compare in two empty files.
                match self.open_same_size(entry, &target)? {
                    Found::SameSize(file) => {
                        self.site.mend(&entry.into(), &target, &file)?;
                        self.identical_as(index, entry, target, &found)
                    }
                    Found::Gone | Found::Different => self.replace(index, entry, target),
                }
            }
            Kind::File | Kind::Symlink | Kind::Special => self.replace(index, entry, target),
        }
    }

    fn replace(&self, index: u64, entry: &Entry, target: RelPath) -> Result<Plan, DestinationError> {
        match self.site.options.existing {
            Existing::Refuse => Err(self.site.exists(&target)),
            Existing::Keep => Ok(self.kept()),
            Existing::Replace | Existing::BackUp(_) => self.want_or_link(index, entry, target),
        }
    }

    /// The file that the entry is another name of; `None` if it is a file of its own.
    fn name_of(&self, index: u64, entry: &Entry) -> Result<Option<LinkedFile>, DestinationError> {
        let not_requested = || DestinationError::NotRequested { path: entry.path.to_string() };
        match self.linked.name_of(index, entry).ok_or_else(not_requested)? {
            Name::Own => Ok(None),
            Name::Of(first) => Ok(Some(first)),
            Name::OfForgotten => {
                if !std::mem::replace(&mut lock(&self.state).has_forgotten_links, true) {
                    let error = DestinationError::TooManyHardLinks { path: self.site.show(&entry.path) };
                    self.site.leave_out(None, &entry.path, error)?;
                }
                Ok(None)
            }
        }
    }

    fn want_or_link(&self, index: u64, entry: &Entry, target: RelPath) -> Result<Plan, DestinationError> {
        match self.name_of(index, entry)? {
            Some(_) => self.link(index, entry, target, false),
            None => self.want(index, entry, target),
        }
    }

    /// A file with the same content is there: one of its own, or another name, as the peer has it.
    fn identical_as(
        &self,
        index: u64,
        entry: &Entry,
        target: RelPath,
        found: &Stat,
    ) -> Result<Plan, DestinationError> {
        match self.name_of(index, entry)? {
            Some(first) if !is_this(&first, found) => self.link(index, entry, target, true),
            Some(_) | None => Ok(self.identical()),
        }
    }

    /// Creates a further name of a file at the end, when the file has arrived.
    fn link(
        &self,
        index: u64,
        entry: &Entry,
        target: RelPath,
        replaces_same: bool,
    ) -> Result<Plan, DestinationError> {
        let first = entry.first.unwrap_or(index);
        let link = HardLink { entry: index, first, size_bytes: entry.size_bytes, replaces_same };
        self.linked.lay_at_end(&self.site, &target, &link)?;
        Ok(Plan::Linked)
    }

    pub(super) fn want(&self, index: u64, entry: &Entry, target: RelPath) -> Result<Plan, DestinationError> {
        let mut file = ActiveFile::new(entry, target, 0);
        self.resume.resume(&mut file)?;
        let resumed_bytes = file.kept.len_bytes();
        entry.holes.ranges().iter().for_each(|hole| file.kept.insert(hole.clone()));
        let missing = file.kept.missing(file.size_bytes);
        if missing.is_empty() {
            file.state = FileState::Complete;
        }
        let device = self.site.parent_of(&file.target)?.device;
        self.store.want(index, file, device)?;
        if resumed_bytes > 0 {
            self.site.count(|summary| summary.resumed_bytes += resumed_bytes);
        }
        Ok(Plan::Want { missing, resumed_bytes })
    }

    fn open_same_size(&self, entry: &Entry, target: &RelPath) -> Result<Found, DestinationError> {
        let parent = self.site.parent_of(target)?;
        let file = match platform::open_file(&parent.dir, target.file_name()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Gone),
            Err(error) if platform::is_symlink_refused(&error) => return Ok(Found::Different),
            Err(error) => return Err(self.site.failed(Operation::Open, target, error)),
        };
        let found = platform::stat_open(&file)
            .map_err(|error| self.site.failed(Operation::Examine, target, error))?;
        if self.store.has_failed_sync() {
            platform::forget_cached(&file);
        }
        let is_same = found.kind == Kind::File && found.size_bytes == entry.size_bytes;
        Ok(if is_same { Found::SameSize(file) } else { Found::Different })
    }

    pub(super) fn identical(&self) -> Plan {
        self.site.count(|summary| summary.identical_files += 1);
        Plan::Done
    }

    fn kept(&self) -> Plan {
        self.site.count(|summary| summary.kept_files += 1);
        Plan::Kept
    }

    /// What the peer announced, children before their parents: a directory may lose the right to be entered.
    pub(super) fn each_directory(
        &self,
        visit: impl FnMut(&RelPath, &Metadata) -> Result<(), DestinationError>,
    ) -> Result<(), DestinationError> {
        // Nothing is announced any more.
        let announced = std::mem::take(&mut lock(&self.state).directories);
        let unreadable = |error| self.site.failed_at_root(Operation::Read, error);
        let visited = announced.newest_first(unreadable, visit);
        lock(&self.state).directories = announced;
        visited
    }
}

enum Found {
    Gone,
    SameSize(File),
    Different,
}

/// Whether that file is the one that was found.
fn is_this(first: &LinkedFile, found: &Stat) -> bool {
    found.inode != 0 && first.state == LinkedFileState::Here(Some(found.identity()))
}

/// The spelling that folding file systems take for the same, in most cases.
pub(crate) fn fold(path: &RelPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).to_lowercase()
}

/// 1 MiB: some ten thousand directories with usual paths. Only those count that fail by themselves.
const MAX_LEFT_OUT_BYTES: usize = 1 << 20;

/// What a directory takes beside its path.
const LEFT_OUT_COST_BYTES: usize = 64;

#[cfg(test)]
mod tests;
