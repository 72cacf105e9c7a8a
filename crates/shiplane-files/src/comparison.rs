//! Compares a peer's list with what is here, and changes nothing: a dry run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shiplane_wire::{Digest, DigestAlgorithm, Entry, EntryKind, RelPath};

use crate::{
    deletion::Deletion,
    dirs::{DirHandle, Dirs},
    error::{DestinationError, Operation},
    filters::Filters,
    lock,
    plan::Plan,
    platform::{self, Kind},
    resolve::Location,
    scan::{Scan, Scanned},
    shape::Shape,
    source::Source,
    sparse,
};

/// Takes the part of a destination that only looks. A handle: clones share what was found.
#[derive(Clone, Debug)]
pub struct Comparison(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` if nothing is here.
    dirs: Option<Dirs>,
    shown: PathBuf,
    /// Of a single file: its name here, and at the peer.
    file: Option<(RelPath, Vec<u8>)>,
    filters: Arc<Filters>,
    digest: DigestAlgorithm,
    listed: Deletion,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    differences: Vec<Different>,
    unnamed: u64,
}

/// A path that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Different {
    /// The path, by the names that it has here.
    pub path: RelPath,
    /// Whether it is a directory, where it is.
    pub is_directory: bool,
    /// In what it differs.
    pub how: Difference,
}

/// How the two sides differ at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the peer has it.
    OnlyThere,
    /// Only this side has it.
    OnlyHere,
    /// Both are files, with different content.
    Content,
    /// One is a directory and the other is not, or one is no file at all.
    Kind,
}

impl Comparison {
    /// With what is at `dest`, where a [`Destination`](crate::destination::Destination) would put it.
    ///
    /// # Errors
    /// What can be wrong with `dest`.
    pub fn at(
        dest: &Path,
        shape: &Shape,
        filters: Arc<Filters>,
        digest: DigestAlgorithm,
    ) -> Result<Self, DestinationError> {
        let location = Location::of(dest, shape)?;
        let (shown, file) = (location.shown(), location.file);
        let requested = match shape {
            Shape::File { name } => name.clone(),
            Shape::Directory { .. } | Shape::Contents => Vec::new(),
        };
        let failed =
            |error| DestinationError::io(Operation::Open, shown.as_os_str().as_encoded_bytes(), error);
        let dirs = match platform::open_ambient_dir(&shown) {
            Ok(dir) => Some(Dirs::new(Arc::new(DirHandle::new(dir).map_err(failed)?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Self::of_dirs(dirs, shown, file.map(|name| (name, requested)), filters, digest))
    }

    /// With a source on this side, of which the peer may have a copy. `None` for an open file without a location.
    ///
    /// # Errors
    /// What the system says.
    pub fn with_source(
        source: &Source,
        filters: Arc<Filters>,
        digest: DigestAlgorithm,
    ) -> Result<Option<Self>, DestinationError> {
        let Some((dir, file)) = source.place() else { return Ok(None) };
        let failed = |error| DestinationError::io(Operation::Open, b".", error);
        let dir = dir.try_clone().and_then(DirHandle::new).map_err(failed)?;
        let file = file.map(|(path, name)| (path, name.as_bytes().to_vec()));
        Ok(Some(Self::of_dirs(Some(Dirs::new(Arc::new(dir))), PathBuf::new(), file, filters, digest)))
    }

    fn of_dirs(
        dirs: Option<Dirs>,
        shown: PathBuf,
        file: Option<(RelPath, Vec<u8>)>,
        filters: Arc<Filters>,
        digest: DigestAlgorithm,
    ) -> Self {
        let (listed, found) = (Deletion::new(true, Box::new(())), Mutex::default());
        Self(Arc::new(Shared { dirs, shown, file, filters, digest, listed, found }))
    }

    /// Compares an entry as far as sizes and times tell; then [`Plan::Compare`].
    ///
    /// # Errors
    /// If the peer may not send it, or what the system says.
    pub fn plan(&self, entry: &Entry) -> Result<Plan, DestinationError> {
        let not_requested = || DestinationError::NotRequested { path: entry.path.to_string() };
        let is_directory = entry.kind == EntryKind::Directory;
        let path = match &self.0.file {
            Some((_, requested)) if entry.path.as_bytes() != &requested[..] => return Err(not_requested()),
            Some((path, _)) => path.clone(),
            None if self.0.filters.excludes(&entry.path, is_directory) => return Err(not_requested()),
            None => entry.path.clone(),
        };
        self.0.listed.sent(&path, false);
        let Some(found) = self.examine(&path)? else {
            return Ok(self.found(path, is_directory, Difference::OnlyThere));
        };
        if let Some(target) = &entry.target {
            let dirs = self.0.dirs.as_ref();
            let parent = dirs.and_then(|dirs| dirs.parent_of(&path).ok());
            let points_to = parent.and_then(|parent| platform::read_link(&parent.dir, path.file_name()).ok());
            return Ok(match (found.kind, points_to) {
                (Kind::Symlink, Some(here)) if here == target.as_bytes() => Plan::Done,
                (Kind::Symlink, _) => self.found(path, false, Difference::Content),
                _ => self.found(path, false, Difference::Kind),
            });
        }
        match (found.kind, is_directory) {
            (Kind::Directory, true) => Ok(Plan::Done),
            (Kind::File, false) if found.size_bytes != entry.size_bytes => {
                Ok(self.found(path, false, Difference::Content))
            }
            (Kind::File, false) if found.mtime == entry.mtime || entry.size_bytes == 0 => Ok(Plan::Done),
            (Kind::File, false) => Ok(Plan::Compare { is_likely_same: false }),
            _ => Ok(self.found(path, is_directory, Difference::Kind)),
        }
    }

    /// Goes on with the digest of the peer's file.
    ///
    /// # Errors
    /// What the system says.
    pub fn compare(&self, entry: &Entry, theirs: Digest) -> Result<Plan, DestinationError> {
        let path = self.0.file.as_ref().map_or(&entry.path, |(path, _)| path);
        let failed = |error| DestinationError::io(Operation::Read, path.as_bytes(), error);
        let Some(dirs) = &self.0.dirs else { return Ok(Plan::Done) };
        let file = dirs.parent_of(path).and_then(|parent| platform::open_file(&parent.dir, path.file_name()));
        let file = file.map_err(failed)?;
        let Entry { holes, size_bytes, .. } = entry;
        let read = |at, buffer: &mut [u8]| platform::read_at(&file, at, buffer);
        let is_same = || {
            Ok(sparse::are_zeros(&file, holes, *size_bytes)?
                && sparse::digest_of_data(self.0.digest, holes, *size_bytes, read)? == theirs)
        };
        if !is_same().map_err(failed)? {
            self.found(path.clone(), false, Difference::Content);
        }
        Ok(Plan::Done)
    }

    /// Everything of the peer's was compared, or it has nothing: finds what only this side has.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&self) -> Result<(), DestinationError> {
        let Some(dirs) = &self.0.dirs else { return Ok(()) };
        self.0.listed.check_complete()?;
        if let Some((path, _)) = &self.0.file {
            if !self.0.listed.was_sent(path, false) && self.examine(path)?.is_some() {
                self.found(path.clone(), false, Difference::OnlyHere);
            }
            return Ok(());
        }
        let mut scan = Scan::tree(&dirs.root().dir, Some(&self.0.filters), None);
        scan.note_own();
        for scanned in scan {
            let failed = |error: crate::error::SourceError| io::Error::other(error.to_string());
            let scanned = scanned.map_err(|error| {
                let shown = self.0.shown.as_os_str().as_encoded_bytes();
                DestinationError::io(Operation::Read, shown, failed(error))
            })?;
            let Scanned::Entry(entry) = scanned else { continue };
            if !self.0.listed.was_sent(&entry.path, false) {
                let is_directory = entry.kind == EntryKind::Directory;
                self.found(entry.path, is_directory, Difference::OnlyHere);
            }
        }
        Ok(())
    }

    /// What was found, and how many more differences there are than are named.
    pub fn take(&self) -> (Vec<Different>, u64) {
        let Found { differences, unnamed } = std::mem::take(&mut *lock(&self.0.found));
        (differences, unnamed)
    }

    fn examine(&self, path: &RelPath) -> Result<Option<platform::Stat>, DestinationError> {
        let Some(dirs) = &self.0.dirs else { return Ok(None) };
        let parent = match dirs.parent_of(path) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Something else has the name of the directory above: that was found already.
            Err(error)
                if error.kind() == io::ErrorKind::NotADirectory || platform::is_symlink_refused(&error) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(DestinationError::io(Operation::Open, path.as_bytes(), error)),
        };
        let found = platform::stat_if_there(&parent.dir, path.file_name());
        found.map_err(|error| DestinationError::io(Operation::Examine, path.as_bytes(), error))
    }

    fn found(&self, path: RelPath, is_directory: bool, how: Difference) -> Plan {
        let mut found = lock(&self.0.found);
        if found.differences.len() < MAX_DIFFERENCES {
            found.differences.push(Different { path, is_directory, how });
        } else {
            found.unnamed += 1;
        }
        Plan::Done
    }
}

/// 100,000: more than a person reads.
const MAX_DIFFERENCES: usize = 100_000;
