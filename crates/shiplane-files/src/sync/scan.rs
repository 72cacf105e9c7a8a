//! Scans a dataset.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use shiplane_wire::{
    Attributes, Digest, DigestAlgorithm, Entry, EntryKind, EscapedPath, LeftOutReason, Mtime, RelPath,
    Version,
};
use thiserror::Error;

use super::codec::MAX_ENTRIES;
use super::manifest::{FileState, LinkState, Manifest, Node, Stamp};
use super::stat_cache::{StatCache, StatKey, is_racy};
use crate::{
    error::SourceError,
    filters::Filters,
    parallel,
    platform::{ChangedPaths, Kind},
    policy::LinkPolicy,
    scan::Scanned as Found,
    source::{Current, Source, SourceRoot},
    state::{DIRECTORY_MODES, FILE_MODES},
};

/// How a dataset is scanned.
#[derive(Clone)]
pub struct ScanOptions {
    /// The most files and directories that are taken; [`MAX_ENTRIES`] is also what may be sent.
    pub max_entries: usize,
    /// What files are hashed with.
    pub digest: DigestAlgorithm,
    /// What is not part of the sync.
    pub filters: Arc<Filters>,
    /// Which symbolic links are listed; the others are left out.
    pub links: LinkPolicy,
    /// Whether owners, access lists and extended attributes are listed.
    pub attributes: bool,
    /// Told how many bytes were read and hashed, as it goes, from several threads; 0 at each entry. `false` ends the
    /// scan.
    pub go_on: GoOn,
    /// All files are read, from the disk: what is in memory may have been lost there.
    pub from_disk: bool,
}

/// Counts what was hashed, and says whether to go on.
pub type GoOn = Arc<dyn Fn(u64) -> bool + Send + Sync>;

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            max_entries: MAX_ENTRIES,
            digest: DigestAlgorithm::Blake3,
            filters: Arc::default(),
            links: LinkPolicy::All,
            attributes: false,
            go_on: Arc::new(|_| true),
            from_disk: false,
        }
    }
}

impl ScanOptions {
    fn hashed(&self, len_bytes: u64) -> Result<(), ScanError> {
        if (self.go_on)(len_bytes) { Ok(()) } else { Err(ScanError::Cancelled) }
    }
}

impl fmt::Debug for ScanOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanOptions")
            .field("digest", &self.digest)
            .field("filters", &self.filters)
            .finish_non_exhaustive()
    }
}

/// What a dataset consists of. Clones share what is large.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// All files, directories and links that can be synced.
    pub manifest: Arc<Manifest>,
    /// What is there besides and no other side can have, by its escaped path: its own path cannot be sent.
    pub unsendable: Vec<EscapedPath>,
    /// What is there besides, and why it is not in the manifest. It has not been deleted either:
    /// [`forget`](Manifest::forget) it in all three manifests before you `plan`.
    pub unknown: BTreeMap<RelPath, LeftOutReason>,
    /// What is there and excluded by ignore files or as another file system. The other side cannot know that:
    /// [`forget`](Manifest::forget) it as well.
    pub excluded: BTreeSet<RelPath>,
    /// The first path of which not all attributes can be carried.
    pub stripped: Option<RelPath>,
    /// This program's own temporary files and journals, which are not data.
    pub own: Vec<RelPath>,
    /// The first directory in each file system that it is on.
    pub(super) file_systems: BTreeMap<u64, RelPath>,
    /// What was read and hashed.
    pub hashed_bytes: u64,
    /// The number of files whose digest the cache knew.
    pub cached_files: u64,
    /// To find out later what has changed since.
    pub seen: Arc<SeenFiles>,
}

/// Why a dataset could not be scanned. There is no manifest then: half of one would look like a deletion of
/// the rest.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The path is no directory. Sync the directory that it is in.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// The path, escaped.
        path: String,
    },
    /// It cannot be served at all, or not be listed to its end.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is too large. Sync parts of it.
    #[error("the directory has more than {max_entries} files and directories")]
    TooManyEntries {
        /// [`ScanOptions::max_entries`].
        max_entries: usize,
    },
    /// [`ScanOptions::go_on`] said so.
    #[error("the scan was cancelled")]
    Cancelled,
}

/// Blocking. Walks the dataset at `path` beneath `root` (nothing is the root itself), hashes the files that
/// `cache` does not know, several at a time, and gives the manifest.
///
/// No link is followed, `path` included. Special files, what cannot be read and names that cannot be
/// sent are left out; this program's own temporary files and journals are told apart. A file that
/// changes while it is read is read again, three times at most; one that is gone by then was never there.
///
/// What was hashed is in the cache afterwards, whatever the outcome; it is for the caller to
/// [save](StatCache::save) it.
///
/// # Errors
/// [`ScanError`].
pub fn scan(
    root: &SourceRoot,
    path: &[u8],
    cache: &mut StatCache,
    options: &ScanOptions,
) -> Result<Scanned, ScanError> {
    scan_by(root, path, cache, options, SystemTime::now)
}

fn scan_by(
    root: &SourceRoot,
    path: &[u8],
    cache: &mut StatCache,
    options: &ScanOptions,
    now: fn() -> SystemTime,
) -> Result<Scanned, ScanError> {
    let source = source_of(root, path, options)?;
    let mut survey = Survey::new(path, options.digest);
    let unread = survey.walk(&source, cache, options)?;
    let outcome = survey.read(&source, unread, options, now);
    cache.learn(std::mem::take(&mut survey.known), outcome.is_ok());
    outcome.map(|()| survey.scanned)
}

fn source_of(root: &SourceRoot, path: &[u8], options: &ScanOptions) -> Result<Source, ScanError> {
    let source = root.resolve_unlinked(path)?.with_filters(Arc::clone(&options.filters));
    if !source.is_tree() {
        return Err(ScanError::NotDirectory { path: shiplane_wire::escape(path).to_string() });
    }
    Ok(source.with_attributes(options.attributes))
}

/// Lists what was `listed` before once more, and looks only at what has `changed` since. All that a [`scan`] would look at
/// again without a change is looked at too: what is unknown, and files that were written just before they were read.
/// `None` if only a scan can tell: of a file with several names, the others change with it.
pub(super) fn rescan(
    root: &SourceRoot,
    cache: &mut StatCache,
    options: &ScanOptions,
    listed: Scanned,
    mut changed: ChangedPaths,
    now: fn() -> SystemTime,
) -> Result<Option<Scanned>, ScanError> {
    let source = source_of(root, b"", options)?;
    let mut survey = Survey { scanned: listed, known: HashMap::new(), only: None, has_linked: false };
    survey.scanned.own.clear();
    (survey.scanned.hashed_bytes, survey.scanned.cached_files) = (0, 0);
    changed.extend(survey.scanned.unknown.keys().map(|path| (path.as_bytes().to_vec(), true)));
    for (path, seen) in &survey.scanned.seen.nodes {
        if let Seen::File { racy: Some(_), .. } = seen {
            changed.entry(path.as_bytes().to_vec()).or_default();
        }
    }
    for (path, is_deep) in &changed {
        let Ok(path) = RelPath::parse(path) else { return Ok(None) };
        if *is_deep || !survey.scanned.manifest.is_directory(&path) {
            survey.forget(&path);
        }
    }
    survey.only = Some(changed.into());
    let unread = survey.walk(&source, cache, options)?;
    let outcome = survey.read(&source, unread, options, now);
    let known = if outcome.is_ok() { survey.all_known() } else { std::mem::take(&mut survey.known) };
    cache.learn(known, outcome.is_ok());
    outcome.map(|()| (!survey.has_linked).then_some(survey.scanned))
}

/// The state in which a [`scan`] saw each file.
#[derive(Clone, Debug, Default)]
pub struct SeenFiles {
    /// Where the dataset is beneath the root.
    dataset: Vec<u8>,
    /// What the files were hashed with.
    algorithm: DigestAlgorithm,
    nodes: HashMap<RelPath, Seen>,
}

#[derive(Clone, Copy, Debug)]
enum Seen {
    Directory,
    Link(Version),
    File {
        version: Version,
        /// Of a file that was changed so shortly before that its version alone does not tell.
        racy: Option<Digest>,
        /// Of a file with several names: what becomes of the others changes its version.
        linked: Option<(Digest, Mtime)>,
    },
}

impl SeenFiles {
    /// The version of a file with several names. All names of it have the same, and no other file has it.
    pub(super) fn version_of_linked(&self, path: &RelPath) -> Option<Version> {
        match self.nodes.get(path)? {
            Seen::File { version, linked: Some(_), .. } => Some(*version),
            Seen::File { .. } | Seen::Link(_) | Seen::Directory => None,
        }
    }

    /// Blocking. Whether what is at `path` in the dataset is still what the scan saw there: the same file in
    /// the same state, a directory, or nothing at all. `root` is that of the scan.
    ///
    /// Costs a look at it, or the reading of a file that was written within two seconds before the scan.
    ///
    /// Ask this before something is overwritten or removed, and also before a path that is missing from the
    /// manifest is taken for deleted: a file that is renamed during a scan can be overlooked under both
    /// names.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`]: then it must be taken for changed.
    pub fn is_unchanged(&self, root: &SourceRoot, path: &RelPath) -> Result<bool, SourceError> {
        let full = match &self.dataset[..] {
            b"" => path.as_bytes().to_vec(),
            dataset => [dataset, b"/", path.as_bytes()].concat(),
        };
        let found = match root.state_at(&full) {
            Err(error @ SourceError::Unreadable { .. }) => return Err(error),
            // Something stands there that no scan lists.
            Err(_) => return Ok(false),
            Ok(found) => found,
        };
        match (self.nodes.get(path), found) {
            (None, None) | (Some(Seen::Directory), Some((Kind::Directory, _))) => Ok(true),
            (Some(Seen::Link(version)), Some((Kind::Symlink, found))) => Ok(*version == found),
            (Some(Seen::File { version, racy, .. }), Some((Kind::File, found))) if *version == found => {
                let is_it = |read: &Read, digest| read.entry.version == *version && read.digest == digest;
                racy.map_or(Ok(true), |digest| self.reads(root, path, |read| is_it(read, digest)))
            }
            (Some(Seen::File { linked: Some((digest, mtime)), .. }), Some((Kind::File, _))) => {
                self.reads(root, path, |read| read.digest == *digest && read.entry.mtime == *mtime)
            }
            _ => Ok(false),
        }
    }

    /// What was at `from`, with all beneath it, has been moved to `to`.
    pub(super) fn respell(&mut self, root: &SourceRoot, from: &RelPath, to: &RelPath) {
        let moved = self.nodes.keys().filter_map(|path| Some((path.clone(), path.moved(from, to)?)));
        for (path, moved) in moved.collect::<Vec<_>>() {
            let Some(mut seen) = self.nodes.remove(&path) else { continue };
            // The rename is a change of the file itself.
            if let (true, Ok(Some((_, now)))) = (path == *from, root.state_at(moved.as_bytes()))
                && let Seen::File { version, .. } | Seen::Link(version) = &mut seen
            {
                *version = now;
            }
            self.nodes.insert(moved, seen);
        }
    }

    fn reads(
        &self,
        root: &SourceRoot,
        path: &RelPath,
        is_it: impl Fn(&Read) -> bool,
    ) -> Result<bool, SourceError> {
        let read = root
            .resolve_unlinked(&self.dataset)
            .map_err(ScanError::from)
            .and_then(|source| read(&source, path, self.algorithm, SystemTime::now, &|_| Ok(())));
        match read {
            Ok(read) => Ok(is_it(&read)),
            Err(ScanError::Source(error @ SourceError::Unreadable { .. })) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// What is known so far.
struct Survey {
    scanned: Scanned,
    /// For the cache.
    known: HashMap<StatKey, Digest>,
    /// What is looked at, if not everything: the rest is known.
    only: Option<Arc<ChangedPaths>>,
    /// Whether a file with several names was looked at, or was one before.
    has_linked: bool,
}

impl Survey {
    fn new(dataset: &[u8], algorithm: DigestAlgorithm) -> Self {
        let seen = SeenFiles { dataset: dataset.into(), algorithm, nodes: HashMap::new() }.into();
        let scanned = Scanned { seen, ..Scanned::default() };
        Self { scanned, known: HashMap::new(), only: None, has_linked: false }
    }

    /// Gives the files that are to be read.
    fn walk(
        &mut self,
        source: &Source,
        cache: &StatCache,
        options: &ScanOptions,
    ) -> Result<Vec<Unread>, ScanError> {
        // With their sizes.
        let mut unread = Vec::new();
        let mut entries = 0;
        let mut found = source.scan();
        found.note_own();
        found.mark_linked();
        found.take_links(options.links);
        self.only.iter().for_each(|paths| found.select(Arc::clone(paths)));
        while let Some(next) = found.next() {
            options.hashed(0)?;
            let entry = match next? {
                Found::Entry(entry) => entry,
                Found::Top(_) => continue,
                Found::LeftOut { reason: LeftOutReason::Attributes, .. } => {
                    self.scanned.stripped = RelPath::parse(found.raw_path()).ok();
                    continue;
                }
                Found::LeftOut { reason, path } => {
                    match RelPath::parse(found.raw_path()) {
                        Ok(path) => self.leave_out(path, reason),
                        Err(_) => self.scanned.unsendable.push(path),
                    }
                    count(&mut entries, options)?;
                    continue;
                }
            };
            count(&mut entries, options)?;
            if let Some(target) = entry.target {
                let link = LinkState { target, mtime: entry.mtime };
                self.insert(entry.path, Node::Link(link), Seen::Link(entry.version), entry.attributes);
                continue;
            }
            if entry.kind == EntryKind::Directory {
                let stamp = Stamp { mode: entry.mode & DIRECTORY_MODES, mtime: entry.mtime };
                self.insert(entry.path, Node::Directory(stamp), Seen::Directory, entry.attributes);
                continue;
            }
            let key = StatKey::new(&entry.path, entry.version);
            match cache.get(&key).filter(|_| !options.from_disk) {
                Some(digest) => {
                    self.scanned.cached_files += 1;
                    self.known.insert(key, digest);
                    let is_linked = entry.first.is_some();
                    self.file(entry, digest, None, is_linked);
                }
                None => unread.push((entry.size_bytes, (entry.path, entry.attributes))),
            }
        }
        self.scanned.own = found.take_own();
        self.scanned.file_systems.extend(found.file_systems.take());
        for path in found.take_excluded() {
            if self.only.is_some() {
                self.forget(&path);
            }
            self.scanned.excluded.insert(path);
        }
        if self.only.is_some() {
            entries = self.scanned.manifest.len() + self.scanned.unknown.len() + unread.len();
        }
        check_count(entries + self.scanned.excluded.len(), options)?;
        // So that each thread gets its share of the large ones.
        unread.sort_unstable_by(|one, other| other.cmp(one));
        Ok(unread.into_iter().map(|(_, unread)| unread).collect())
    }

    /// Reads files.
    fn read(
        &mut self,
        source: &Source,
        unread: Vec<Unread>,
        options: &ScanOptions,
        now: fn() -> SystemTime,
    ) -> Result<(), ScanError> {
        let on_bytes = |len_bytes| options.hashed(len_bytes);
        let read = parallel::map(&unread, |(path, _)| {
            if options.from_disk {
                source.forget_cached(path);
            }
            read_settled(source, path, options.digest, now, &on_bytes)
        });
        let mut outcome = Ok(());
        for ((path, attributes), read) in unread.into_iter().zip(read) {
            let read = read.map(|read| Read { entry: Entry { attributes, ..read.entry }, ..read });
            // Files that were read before and after a failure need not be read again.
            let taken = self.take(path, read);
            outcome = outcome.and(taken);
        }
        outcome
    }

    /// Digests of all files that need not be read again.
    fn all_known(&self) -> HashMap<StatKey, Digest> {
        let Scanned { manifest, seen, .. } = &self.scanned;
        let known = seen.nodes.iter().filter_map(|(path, seen)| match seen {
            Seen::File { version, racy: None, .. } => {
                Some((StatKey::new(path, *version), manifest.file(path)?.digest))
            }
            _ => None,
        });
        known.collect()
    }

    /// Takes out what stands at `path`, with all beneath it.
    fn forget(&mut self, path: &RelPath) {
        let Scanned { manifest, seen, unknown, excluded, .. } = &mut self.scanned;
        let nodes = &mut Arc::make_mut(seen).nodes;
        for path in Arc::make_mut(manifest).forget(path).iter().chain([path]) {
            let seen = nodes.remove(path);
            self.has_linked |= matches!(seen, Some(Seen::File { linked: Some(_), .. }));
        }
        let is_elsewhere = |other: &RelPath| other.moved(path, path).is_none();
        unknown.retain(|other, _| is_elsewhere(other));
        excluded.retain(is_elsewhere);
    }

    /// Takes the result of reading a file.
    fn take(&mut self, path: RelPath, read: Result<Read, ScanError>) -> Result<(), ScanError> {
        match read {
            Ok(Read { entry, digest, is_racy, is_linked }) => {
                self.scanned.hashed_bytes += entry.size_bytes;
                if !is_racy {
                    self.known.insert(StatKey::new(&entry.path, entry.version), digest);
                }
                self.file(entry, digest, is_racy.then_some(digest), is_linked);
                Ok(())
            }
            Err(ScanError::Source(SourceError::Vanished { .. })) => Ok(()),
            Err(ScanError::Source(error)) => {
                self.leave_out(path, error.left_out_reason());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn file(&mut self, entry: Entry, digest: Digest, racy: Option<Digest>, is_linked: bool) {
        let stamp = Stamp { mode: entry.mode & FILE_MODES, mtime: entry.mtime };
        self.has_linked |= is_linked;
        let state = FileState { size_bytes: entry.size_bytes, digest, stamp };
        let linked = is_linked.then_some((digest, entry.mtime));
        let seen = Seen::File { version: entry.version, racy, linked };
        self.insert(entry.path, Node::File(state), seen, entry.attributes);
    }

    fn insert(&mut self, path: RelPath, node: Node, seen: Seen, attributes: Option<Attributes>) {
        let manifest = Arc::make_mut(&mut self.scanned.manifest);
        if manifest.insert(path.clone(), node) {
            manifest.describe(&path, attributes);
            Arc::make_mut(&mut self.scanned.seen).nodes.insert(path, seen);
        } else {
            // The listing gave the name twice, for a file and for a directory: it is being exchanged.
            self.leave_out(path, LeftOutReason::Changed);
        }
    }

    fn leave_out(&mut self, path: RelPath, reason: LeftOutReason) {
        if self.only.is_some() {
            self.forget(&path);
        }
        self.scanned.unknown.insert(path, reason);
    }
}

/// A file that is to be read, and its attributes as they were when it was listed.
type Unread = (RelPath, Option<Attributes>);

fn count(entries: &mut usize, options: &ScanOptions) -> Result<(), ScanError> {
    *entries += 1;
    check_count(*entries, options)
}

fn check_count(entries: usize, options: &ScanOptions) -> Result<(), ScanError> {
    let max_entries = options.max_entries;
    if entries > max_entries { Err(ScanError::TooManyEntries { max_entries }) } else { Ok(()) }
}

/// A file that was read whole, in one state.
struct Read {
    entry: Entry,
    digest: Digest,
    is_racy: bool,
    is_linked: bool,
}

/// Reads a file that may be changing.
fn read_settled(
    source: &Source,
    path: &RelPath,
    digest: DigestAlgorithm,
    now: fn() -> SystemTime,
    on_bytes: &OnBytes<'_>,
) -> Result<Read, ScanError> {
    let mut more = 1..READ_ATTEMPTS;
    loop {
        match read(source, path, digest, now, on_bytes) {
            Err(ScanError::Source(SourceError::Changed { .. })) if more.next().is_some() => {}
            outcome => return outcome,
        }
    }
}

/// Told how much has been read; may end it.
type OnBytes<'a> = dyn Fn(u64) -> Result<(), ScanError> + Sync + 'a;

fn read(
    source: &Source,
    path: &RelPath,
    digest: DigestAlgorithm,
    now: fn() -> SystemTime,
    on_bytes: &OnBytes<'_>,
) -> Result<Read, ScanError> {
    // Before the file is looked at: later writes stamp it with no earlier time.
    let read_at = now();
    let Current { entry, is_linked, changed, file } = source.open_current(path)?;
    let digest = file.digest(entry.size_bytes, digest, on_bytes)?;
    file.check_unchanged().map_err(|error| match error {
        // Another file may have taken its name.
        SourceError::Vanished { path } => SourceError::Changed { path },
        error => error,
    })?;
    Ok(Read { digest, is_racy: is_racy(changed, read_at), is_linked, entry })
}

/// A file that is written all the time is not caught between two writes by trying more often.
const READ_ATTEMPTS: usize = 3;

#[cfg(test)]
mod tests;
