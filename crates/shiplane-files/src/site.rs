//! The directory and the options of a transfer, which do not change while it runs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use shiplane_wire::{
    Attributes, Digest, DigestAlgorithm, Durability, Entry, LeftOutReason, LinkTarget, RelPath, escape,
};

use crate::{
    attributes::{AttributeKind, AttributesWriter, Given},
    buffers::CountedMemory,
    dirs::{DirHandle, Dirs},
    error::{DestinationError, Operation},
    existing::Existing,
    hash::{WHOLE_FILE, digest_of},
    journal::{Journal, Opened},
    left_out::{LeftOut, LeftOuts},
    lock,
    names::{JobKey, NameRefused},
    path_list::{Item, PathList},
    platform::{self, Kind, LOCKED_MODE, Stat},
    policy::LinkPolicy,
    resolve::{Created, ResolvedDestination},
    shape::Shape,
    sparse,
    state::{DIRECTORY_MODES, FILE_MODES, Link, Metadata, OWNER_DIRECTORY_MODE, Summary},
};

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveOptions {
    /// What becomes of different files that exist.
    pub existing: Existing,
    /// What [`Destination::publish`](crate::destination::Destination::publish) and
    /// [`Destination::finish`](crate::destination::Destination::finish) promise: with [`Durability::Verified`]
    /// nothing is synced.
    pub durability: Durability,
    /// Whether files that look equal by size and time are compared by content.
    pub verify: bool,
    /// What digests are computed with, as agreed with the peer. What was kept under another one is begun anew.
    pub digest: DigestAlgorithm,
    /// Which symbolic links are created.
    pub links: LinkPolicy,
    /// Whether owners, access lists and extended attributes are taken; otherwise the peer sends none.
    pub attributes: bool,
    /// The size from which a file has chunks of its own; its space is allocated when it is begun.
    pub chunk_len_bytes: u64,
}

/// What all parts of a [`Destination`](crate::destination::Destination) know.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) dirs: Dirs,
    /// The destination directory as the user knows it.
    pub(super) shown: PathBuf,
    /// For a transfer of one file: the name it gets, and the one it was requested by.
    pub(super) file: Option<(RelPath, Vec<u8>)>,
    pub(super) key: JobKey,
    pub(super) created: Vec<Created>,
    pub(super) is_beneath: bool,
    pub(super) options: ReceiveOptions,
    /// An earlier run may have published files whose names are not durable yet.
    pub(super) was_resumed: bool,
    /// The destination directory lives in memory.
    pub(super) is_immediate: bool,
    /// Names that differ only in case are the same here.
    pub(super) folds: bool,
    /// Whether it keeps the modes that files are given.
    pub(super) keeps_modes: bool,
    /// Whether the peer says what mode and time the destination directory gets.
    pub(super) settles_top: bool,
    /// The mode of the destination directory, if it had to be changed so that it can be written.
    pub(super) loosened: Option<u32>,
    pub(super) is_abandoned: AtomicBool,
    pub(super) attributes: AttributesWriter,
    /// The result of the transfer so far.
    summary: Mutex<Summary>,
    /// What of it is left out, until the caller takes it.
    pub(super) left_outs: LeftOuts,
}

impl Site {
    /// Takes up what an earlier run of the same job has left there.
    pub(super) fn open(
        resolved: ResolvedDestination,
        shape: &Shape,
        options: ReceiveOptions,
        memory: &mut dyn CountedMemory,
    ) -> Result<(Self, Opened), DestinationError> {
        let ResolvedDestination { root, key, shown, .. } = &resolved;
        let settles_top = match shape {
            Shape::File { .. } => false,
            Shape::Directory { .. } => true,
            // A peer has no say in what is served itself, only in what is beneath it.
            Shape::Contents => !resolved.is_beneath || shown != Path::new("."),
        };
        let loosened = if settles_top { loosen(root) } else { None };
        let opened = Journal::open(root, *key, options.digest, shown, memory)
            .inspect_err(|_| resolved.created.iter().rev().for_each(Created::undo))?;
        let requested = match shape {
            Shape::File { name } => Some(name.clone()),
            Shape::Directory { .. } | Shape::Contents => None,
        };
        let site = Self {
            keeps_modes: keeps_modes(&resolved.root, &opened.journal),
            settles_top,
            loosened,
            folds: folds_names(&resolved.root, &opened.journal),
            is_immediate: platform::lives_in_memory(&resolved.root.dir),
            dirs: Dirs::new(resolved.root),
            shown: resolved.shown,
            file: resolved.file.zip(requested),
            key: resolved.key,
            created: resolved.created,
            is_beneath: resolved.is_beneath,
            options,
            was_resumed: opened.was_there,
            is_abandoned: AtomicBool::new(false),
            attributes: AttributesWriter::default(),
            summary: Mutex::default(),
            left_outs: LeftOuts::default(),
        };
        Ok((site, opened))
    }

    /// Adds to the result of the transfer; returns all of it.
    pub(super) fn count(&self, add: impl FnOnce(&mut Summary)) -> Summary {
        let mut summary = lock(&self.summary);
        add(&mut summary);
        *summary
    }

    pub(super) fn root(&self) -> &DirHandle {
        self.dirs.root()
    }

    pub(super) fn is_durable(&self) -> bool {
        self.options.durability == Durability::Durable
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

    /// Keeps a path with what is to be done there at the end.
    pub(super) fn announce<T: Item>(
        &self,
        announced: &mut PathList<T>,
        path: &RelPath,
        item: &T,
    ) -> Result<(), DestinationError> {
        let name = self.key.temp_name(LIST_ID);
        let kept = announced.push(path, item, &self.root().dir, name.as_bytes());
        kept.map_err(|error| self.failed_at_root(Operation::Write, error))
    }

    /// Checks that a symbolic link of the peer's may be created at `path`.
    pub(super) fn check_link(&self, path: &RelPath, target: &LinkTarget) -> Result<(), DestinationError> {
        let impossible = (!platform::HAS_LINKS).then_some(LeftOutReason::Symlink);
        match self.options.links.refusal(path, target).or(impossible) {
            Some(reason) => {
                Err(DestinationError::LinkRefused { path: self.show(path), reason, source: None })
            }
            None => Ok(()),
        }
    }

    pub(super) fn target_of(&self, path: &RelPath) -> RelPath {
        self.file.as_ref().map_or(path, |(target, _)| target).clone()
    }

    /// What has the name now; links are not followed.
    pub(super) fn examine(&self, target: &RelPath) -> Result<Option<Stat>, DestinationError> {
        let parent = self.parent_of(target)?;
        let found = platform::stat_if_there(&parent.dir, target.file_name());
        found.map_err(|error| self.failed_naming(Operation::Examine, target, error))
    }

    pub(super) fn digest_of(
        &self,
        path: &RelPath,
        algorithm: DigestAlgorithm,
    ) -> Result<Digest, DestinationError> {
        let target = self.target_of(path);
        let parent = self.parent_of(&target)?;
        let file = platform::open_file(&parent.dir, target.file_name());
        file.and_then(|file| self.hash(&file, algorithm))
            .map_err(|error| self.failed(Operation::Read, &target, error))
    }

    pub(super) fn hash(&self, file: &File, algorithm: DigestAlgorithm) -> io::Result<Digest> {
        digest_of(algorithm, [WHOLE_FILE], |at, buffer| self.read_at(file, at, buffer))
    }

    /// The digest of a file of `size_bytes` in the list of a sync.
    pub(super) fn hash_sparse(&self, file: &File, size_bytes: u64) -> io::Result<Digest> {
        let read = |at, buffer: &mut [u8]| self.read_at(file, at, buffer);
        let holes = sparse::holes_in(file, size_bytes);
        sparse::hash_content(self.options.digest, &holes, size_bytes, read, |_, _| Ok(()))
    }

    /// The digest of a file that is to be compared with that of an entry: without its holes, which must be zeros here. `None` if they
    /// are not.
    pub(super) fn hash_as(&self, file: &File, entry: &Entry) -> io::Result<Option<Digest>> {
        let algorithm = self.options.digest;
        if entry.holes.is_empty() {
            return self.hash(file, algorithm).map(Some);
        }
        if !sparse::are_zeros(file, &entry.holes, entry.size_bytes)? {
            return Ok(None);
        }
        let read = |at, buffer: &mut [u8]| self.read_at(file, at, buffer);
        sparse::digest_of_data(algorithm, &entry.holes, entry.size_bytes, read).map(Some)
    }

    fn read_at(&self, file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_abandoned.load(Ordering::Relaxed) {
            return Err(io::Error::other("the transfer has failed meanwhile"));
        }
        platform::read_at(file, at, buffer)
    }

    /// Gives a file whose content is the peer's the mode and the time that it has there.
    pub(super) fn mend(
        &self,
        wanted: &Metadata,
        target: &RelPath,
        file: &File,
    ) -> Result<(), DestinationError> {
        self.give_attributes(Some(target), file, wanted.attributes.as_ref())?;
        let set = platform::stat_open(file).and_then(|found| {
            self.other_mode(wanted, &found).map_or(Ok(()), |mode| platform::set_mode(file, mode))?;
            if found.mtime == wanted.mtime { Ok(()) } else { platform::set_mtime(file, wanted.mtime) }
        });
        self.settled(Some(target), Some(target), set)
    }

    /// Gives the link `name`, which is or becomes that at `path`, the owners and the time of the peer's.
    pub(super) fn describe_link(
        &self,
        dir: &Dir,
        name: &[u8],
        path: &RelPath,
        link: &Link,
    ) -> Result<(), DestinationError> {
        let found =
            platform::stat(dir, name).map_err(|error| self.failed(Operation::Examine, path, error))?;
        if let Some(wanted) = &link.attributes {
            self.given(Some(path), self.attributes.give_link(dir, name, &found, wanted))?;
        }
        if found.mtime == link.mtime {
            return Ok(());
        }
        self.settled(Some(path), Some(path), platform::set_link_mtime(dir, name, link.mtime))
    }

    /// What came of setting the mode or time of a path, by its name at the peer and here; `None` is the destination directory.
    /// If that is not permitted, it is named; the content is here all the same.
    pub(super) fn settled(
        &self,
        path: Option<&RelPath>,
        target: Option<&RelPath>,
        set: io::Result<()>,
    ) -> Result<(), DestinationError> {
        let Err(error) = set else { return Ok(()) };
        let is_not_permitted = error.kind() == io::ErrorKind::PermissionDenied;
        let error = self.failed_in(Operation::SetMetadata, target, error);
        if !is_not_permitted {
            return Err(error);
        }
        // A sync has to know of each.
        self.leave_out_as(None, path, error, !self.attributes.names_each()).map(drop)
    }

    /// Gives an open file or directory the attributes that it is to have, if they are carried; `None` is the destination
    /// directory. What cannot be set is named. Whether anything was changed.
    pub(super) fn give_attributes(
        &self,
        path: Option<&RelPath>,
        file: &impl platform::Opened,
        wanted: Option<&Attributes>,
    ) -> Result<bool, DestinationError> {
        let Some(wanted) = wanted else { return Ok(false) };
        let found =
            platform::stat_open(file).map_err(|error| self.failed_in(Operation::Examine, path, error))?;
        self.given(path, self.attributes.give(file, &found, wanted))
    }

    /// Names what could not be set. Whether anything was changed.
    pub(super) fn given(&self, path: Option<&RelPath>, given: Given) -> Result<bool, DestinationError> {
        for (kind, source) in given.refused {
            if self.attributes.is_to_be_named(kind) {
                let error = DestinationError::AttributesRefused { kind, path: self.show_in(path), source };
                self.leave_out_as(None, path, error, !self.attributes.names_each())?;
            }
        }
        Ok(given.has_changed)
    }

    /// The same for one that has the peer's time already.
    pub(super) fn mend_mode(
        &self,
        wanted: &Metadata,
        target: &RelPath,
        found: &Stat,
    ) -> Result<(), DestinationError> {
        if wanted.attributes.is_some() {
            let parent = self.parent_of(target)?;
            match platform::open_file(&parent.dir, target.file_name()) {
                Ok(file) => return self.mend(wanted, target, &file),
                Err(error) => {
                    let refused = vec![(AttributeKind::Extended, error)];
                    self.given(Some(target), Given { refused, ..Given::default() })?;
                }
            }
        }
        let Some(mode) = self.other_mode(wanted, found) else { return Ok(()) };
        let parent = self.parent_of(target)?;
        let set = platform::set_mode_at(&parent.dir, target.file_name(), mode);
        self.settled(Some(target), Some(target), set)
    }

    /// The mode that a file is to get, if it has another one and can have it.
    fn other_mode(&self, wanted: &Metadata, found: &Stat) -> Option<u32> {
        let mode = wanted.mode? & FILE_MODES;
        (self.keeps_modes && found.mode & FILE_MODES != mode).then_some(mode)
    }

    /// Gives a directory its mode and time. Whether anything was changed.
    pub(super) fn settle_directory(&self, dir: &Dir, wanted: &Metadata) -> io::Result<bool> {
        let found = platform::stat_open(dir)?;
        let Metadata { mode, mtime, .. } = *wanted;
        // Also without the setgid bit that it may have from the directory that it is in.
        let mode = mode.map_or(found.mode, |mode| mode & DIRECTORY_MODES);
        let (has_other_mode, has_other_time) = (self.keeps_modes && found.mode != mode, found.mtime != mtime);
        if has_other_time {
            platform::set_mtime(dir, mtime)?;
        }
        // Of the two, what may not be permitted though the directory is ours.
        if has_other_mode {
            platform::set_mode(dir, mode)?;
        }
        Ok(has_other_mode || has_other_time)
    }

    /// Leaves a path out, if the error concerns nothing else.
    ///
    /// # Errors
    /// The error itself, if it ends the transfer.
    pub(super) fn leave_out(
        &self,
        entry: Option<u64>,
        path: &RelPath,
        error: DestinationError,
    ) -> Result<Arc<DestinationError>, DestinationError> {
        self.leave_out_as(entry, Some(path), error, true)
    }

    /// The same, also of the destination directory, and whether the policy `is_told`.
    pub(super) fn leave_out_as(
        &self,
        entry: Option<u64>,
        path: Option<&RelPath>,
        error: DestinationError,
        is_told: bool,
    ) -> Result<Arc<DestinationError>, DestinationError> {
        let Some(reason) = error.left_out_reason(self.options.existing.goes_on()) else { return Err(error) };
        let (error, path) = (Arc::new(error), path.cloned());
        self.left_outs.add(LeftOut { entry, path, reason, error: Arc::clone(&error), is_told });
        Ok(error)
    }

    /// Like [`failed`](Self::failed), for something that was to get this name.
    pub(super) fn failed_naming(
        &self,
        operation: Operation,
        path: &RelPath,
        error: io::Error,
    ) -> DestinationError {
        if platform::is_name_refused(&error) {
            return DestinationError::NameRefused { path: self.show(path), reason: NameRefused::FileSystem };
        }
        self.failed(operation, path, error)
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

    /// The same at a path; `None` is the destination directory.
    pub(super) fn failed_in(
        &self,
        operation: Operation,
        path: Option<&RelPath>,
        error: io::Error,
    ) -> DestinationError {
        match path {
            Some(path) => self.failed(operation, path, error),
            None => self.failed_at_root(operation, error),
        }
    }

    /// As the user knows it; `None` is the destination directory.
    pub(super) fn show_in(&self, path: Option<&RelPath>) -> String {
        path.map_or_else(|| self.name(), |path| self.show(path))
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

    /// What a person knows the destination directory by. A peer is not told where on this machine it is.
    pub(super) fn name(&self) -> String {
        name_of_root(&self.shown, self.is_beneath)
    }
}

/// The number of the files of announced paths, which no file that is received has.
const LIST_ID: u64 = u64::MAX;

fn name_of_root(shown: &Path, is_beneath: bool) -> String {
    let is_here = shown.as_os_str().is_empty() || shown == Path::new(".");
    let shown = match (is_here, is_beneath) {
        (true, true) => return "the shared directory".to_owned(),
        (true, false) => std::path::absolute(".").unwrap_or_else(|_| shown.to_owned()),
        (false, _) => shown.to_owned(),
    };
    escape(shown.as_os_str().as_encoded_bytes()).to_string()
}

/// Whether a name in another case finds the same file. Not every file system shows that it is the same.
fn folds_names(root: &DirHandle, journal: &Journal) -> bool {
    platform::stat(&root.dir, journal.name().to_ascii_uppercase().as_bytes()).is_ok()
}

/// Whether the file system keeps the modes that files are given: the journal was created with this one.
fn keeps_modes(root: &DirHandle, journal: &Journal) -> bool {
    platform::stat(&root.dir, journal.name().as_bytes()).is_ok_and(|stat| stat.mode == LOCKED_MODE)
}

/// Makes sure that the directory can be filled, if it is ours. Gives the mode that it had.
fn loosen(root: &DirHandle) -> Option<u32> {
    let found = platform::stat_open(&root.dir).ok()?;
    if found.mode & OWNER_DIRECTORY_MODE == OWNER_DIRECTORY_MODE {
        return None;
    }
    // Whether it can be written shows when it is.
    platform::set_mode(&root.dir, found.mode | OWNER_DIRECTORY_MODE).ok()?;
    Some(found.mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_directory_has_a_name_wherever_it_is() {
        let here = std::env::current_dir().unwrap().display().to_string();
        for shown in ["", "."] {
            assert_eq!(name_of_root(Path::new(shown), false), here);
            assert_eq!(name_of_root(Path::new(shown), true), "the shared directory");
        }
        assert_eq!(name_of_root(Path::new("a/b"), false), "a/b");
        assert_eq!(name_of_root(Path::new("a/b"), true), "a/b");
    }
}
