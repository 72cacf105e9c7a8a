//! Lists the files of a provider.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;
use shiplane_wire::{Attributes, Entry, EntryKind, EscapedPath, LeftOutReason, Mtime, RelPath};

use crate::{
    attributes::AttributesReader,
    buffers::CountedMemory,
    dirs::FileSystems,
    error::SourceError,
    filters::{Excluded, Filters, IgnoreFiles, Walk},
    hard_links::FirstNames,
    made_up::MadeUpFiles,
    names,
    platform::{self, ChangedPaths, Kind, Names, Position, Stat},
    policy::LinkPolicy,
    sparse,
};

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// The directory itself whose content follows.
    Top(TopDirectory),
    /// A file, directory or link to offer.
    Entry(Entry),
    /// Something that is there and cannot be offered.
    LeftOut {
        /// Why.
        reason: LeftOutReason,
        /// Which.
        path: EscapedPath,
    },
}

/// Mode, time and attributes of the directory that a transfer is the content of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopDirectory {
    /// The permission bits; the receiver masks them.
    pub mode: u32,
    /// When it was modified.
    pub mtime: Mtime,
    /// Its owners and attributes, if they are carried.
    pub attributes: Option<Attributes>,
}

/// Lists a source: depth first, parents before their children, otherwise in the order the system gives.
///
/// Streaming: it never holds a list of names, and of the directories from the root to the current one at most
/// 16 levels are open. Links are entries, and not followed. A path that cannot be examined, opened or listed is left out, with
/// everything below it, and the scan goes on; a directory that fails midway is left out after a part of what is in it was
/// given. What vanishes meanwhile was never there. Only an error of the root itself ends the scan: the listing is not
/// complete then.
#[derive(Debug)]
pub struct Scan {
    root: Option<Dir>,
    /// How much of each path is the name that the root is given by.
    prefix_len: usize,
    /// Further roots, each with a name or with its content alone.
    parts: VecDeque<Part>,
    /// From the root to the current directory.
    levels: Vec<Level>,
    /// How many of the first levels are closed.
    closed: usize,
    /// The path of the current name; each level knows how much of it is its own.
    path: Vec<u8>,
    /// What is given before the levels: the only entry, the top directory, or an error at the start.
    first: Option<Result<Scanned, SourceError>>,
    /// Given instead of levels: a list that was made before, and how much of it has been given.
    listed: Arc<[Entry]>,
    given: usize,
    /// What is excluded.
    filters: Option<Walk>,
    /// Our own files, if anybody wants to know.
    own: Option<Vec<RelPath>>,
    /// Paths that only this side can know to be excluded, if anybody wants to know.
    excluded: Option<Vec<RelPath>>,
    links: LinkPolicy,
    /// Reads owners and attributes, if they are carried.
    attributes: Option<AttributesReader>,
    /// How files with several names are listed.
    names_of_files: NamesOfFiles,
    /// The path of the first file with several names for which there was no memory.
    unlinked: Option<EscapedPath>,
    /// How many entries were given.
    entries: u64,
    pub(super) file_systems: FileSystems,
    made_up: MadeUpFiles,
    /// If only a part is listed: which.
    selected: Option<Arc<ChangedPaths>>,
}

/// One of several roots: a name, if it has one, and what has it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: Option<RelPath>,
    pub(super) content: PartContent,
}

/// What one of several roots is.
#[derive(Debug)]
pub(super) enum PartContent {
    Directory(Arc<Dir>),
    File(Result<Entry, SourceError>),
}

/// A directory that is being listed.
#[derive(Debug)]
struct Level {
    handle: Handle,
    path_len: usize,
    ignore_files: Option<IgnoreFiles>,
    /// The names that are looked at, if not all.
    selected: Option<VecDeque<Vec<u8>>>,
}

/// How files with several names are listed.
#[derive(Debug)]
enum NamesOfFiles {
    Untold,
    Marked,
    First(FirstNames),
}

#[derive(Debug)]
enum Handle {
    Open {
        dir: Dir,
        names: Names,
    },
    /// Closed for now, to be opened again at this position if it is still this directory.
    Closed {
        device: u64,
        inode: u64,
        position: Position,
    },
}

impl Scan {
    pub(super) fn one(entry: Result<Entry, SourceError>) -> Self {
        Self { first: Some(entry.map(Scanned::Entry)), ..Self::listed(Arc::default()) }
    }

    pub(super) fn listed(listed: Arc<[Entry]>) -> Self {
        Self {
            root: None,
            prefix_len: 0,
            parts: VecDeque::new(),
            levels: Vec::new(),
            closed: 0,
            path: Vec::new(),
            first: None,
            listed,
            given: 0,
            filters: None,
            own: None,
            excluded: None,
            links: LinkPolicy::All,
            attributes: None,
            names_of_files: NamesOfFiles::Untold,
            unlinked: None,
            entries: 0,
            file_systems: FileSystems::default(),
            made_up: MadeUpFiles::default(),
            selected: None,
        }
    }

    /// Reads owners and attributes with this.
    pub(super) fn reading(self, attributes: Option<AttributesReader>) -> Self {
        Self { attributes, ..self }
    }

    /// Keeps here what files contain that the kernel makes up.
    pub(super) fn holding(self, made_up: &MadeUpFiles) -> Self {
        Self { made_up: made_up.clone(), ..self }
    }

    pub(super) fn tree(
        root: &Dir,
        filters: Option<&Arc<Filters>>,
        mut attributes: Option<AttributesReader>,
    ) -> Self {
        let mut scan = Self::listed(Arc::default());
        let opened = root.try_clone().and_then(|dir| {
            let top = platform::stat_open(&dir)?;
            let filters = filters.map(|filters| Walk::new(Arc::clone(filters), top.device));
            let level = Level::open(dir.try_clone()?, 0, filters.as_ref())?;
            let attributes = attributes.as_mut().and_then(|reader| reader.of_open(&dir, &top, b"."));
            Ok((TopDirectory { mode: top.mode, mtime: top.mtime, attributes }, dir, level, filters))
        });
        scan.attributes = attributes;
        match opened {
            Ok((top, root, level, filters)) => {
                scan.first = Some(Ok(Scanned::Top(top)));
                scan.root = Some(root);
                scan.levels.push(level);
                scan.filters = filters;
            }
            Err(error) => scan.first = Some(Err(SourceError::opening(b".", error))),
        }
        scan
    }

    pub(super) fn several(parts: impl Iterator<Item = Part>, filters: Option<&Arc<Filters>>) -> Self {
        let mut scan = Self::listed(Arc::default());
        scan.parts = parts.collect();
        // Each of them says on which file system it is when it begins.
        scan.filters = filters.map(|filters| Walk::new(Arc::clone(filters), 0));
        scan
    }

    /// The path of what was given last, unescaped. Some of what is left out is left out because of it.
    pub fn raw_path(&self) -> &[u8] {
        &self.path
    }

    /// Which links are given; the others are left out.
    pub fn take_links(&mut self, links: LinkPolicy) {
        self.links = links;
    }

    /// Tells of files with several names which entry has the first of them. They are remembered in `memory`.
    pub fn link_names(&mut self, memory: Box<dyn CountedMemory>) {
        self.names_of_files = NamesOfFiles::First(FirstNames::new(memory));
    }

    /// Marks files with several names: each is said to be its own first.
    pub(super) fn mark_linked(&mut self) {
        self.names_of_files = NamesOfFiles::Marked;
    }

    /// Remembers what is not given: files of this program's own, and what this side alone knows to be excluded. That a
    /// listed path is missing is not told.
    pub fn note_own(&mut self) {
        self.own = Some(Vec::new());
        self.excluded = Some(Vec::new());
        self.filters.iter_mut().for_each(Walk::forget_missing);
    }

    /// Lists only these paths, the directories above them, and what is below those that are to be listed with that. They are
    /// not looked for in directories that are none any more.
    pub(super) fn select(&mut self, paths: Arc<ChangedPaths>) {
        self.selected = Some(paths);
        let selected = self.selected_in(b"", false);
        self.levels.iter_mut().for_each(|level| level.selected = selected.clone());
    }

    /// The names that are looked at in a directory; `None` for all.
    fn selected_in(&self, directory: &[u8], is_within: bool) -> Option<VecDeque<Vec<u8>>> {
        let paths = self.selected.as_ref().filter(|_| !is_within)?;
        if paths.get(directory) == Some(&true) {
            return None;
        }
        let prefix = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let below = paths.range(prefix.clone()..).map_while(|(path, _)| path.strip_prefix(&prefix[..]));
        let names = below.filter_map(|path| path.split(|byte| *byte == b'/').next());
        let names: BTreeSet<_> = names.filter(|name| !name.is_empty()).collect();
        Some(names.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// The own files that were found.
    pub fn take_own(&mut self) -> Vec<RelPath> {
        self.own.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The paths that ignore files and other file systems exclude.
    pub fn take_excluded(&mut self) -> Vec<RelPath> {
        self.excluded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The next name in the current directory, which becomes the end of the path; `None` at the end of the directory.
    /// Gives where in the path the name begins.
    fn next_name(&mut self) -> io::Result<Option<usize>> {
        self.reopen()?;
        let Some(Level { handle: Handle::Open { names, .. }, path_len, selected, .. }) =
            self.levels.last_mut()
        else {
            return Ok(None);
        };
        self.path.truncate(*path_len);
        let name_at = if *path_len == 0 { 0 } else { *path_len + 1 };
        let path = &mut self.path;
        let mut push = |name: &[u8]| {
            if name_at > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        };
        let read = match selected {
            Some(selected) => selected.pop_front().map(|name| {
                push(&name);
                Ok(())
            }),
            None => names.next(push),
        };
        Ok(read.transpose()?.map(|()| name_at))
    }

    /// Looks at the name that the path ends in, in the current directory; `None` if it is not to be mentioned.
    fn look(&mut self, name_at: usize) -> Option<Scanned> {
        let name = &self.path[name_at..];
        if names::is_own(name) {
            if let Some(own) = &mut self.own {
                own.extend(RelPath::parse(&self.path));
            }
            return None;
        }
        let Ok(path) = RelPath::parse(&self.path) else {
            return Some(self.left_out(LeftOutReason::Name));
        };
        let Handle::Open { dir, .. } = &self.levels.last()?.handle else { return None };
        let stat = match platform::stat(dir, name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => return Some(self.left_out(LeftOutReason::Unreadable)),
        };
        if self.is_excluded(&path, &stat) {
            return None;
        }
        match stat.kind {
            Kind::File => Some(self.look_at_file(name_at, &stat, path)),
            Kind::Symlink => self.look_at_link(name_at, &stat, path),
            Kind::Special => Some(self.left_out(LeftOutReason::SpecialFile)),
            Kind::Directory => match self.enter(name_at) {
                Ok(()) => Some(Scanned::Entry(self.entered(&stat, path))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(_) => Some(self.left_out(LeftOutReason::Unreadable)),
            },
        }
    }

    fn is_excluded(&mut self, path: &RelPath, stat: &Stat) -> bool {
        let Some(filters) = &mut self.filters else { return false };
        let levels = self.levels.iter().rev();
        let ignore_files =
            levels.filter_map(|level| level.ignore_files.as_ref().map(|files| (level.path_len, files)));
        let excluded = filters.excludes(path, stat, ignore_files);
        if let (Some(Excluded::ByTree), Some(noted)) = (excluded, &mut self.excluded) {
            noted.push(path.clone());
        }
        excluded.is_some()
    }

    /// The directory that was entered just now.
    fn entered(&mut self, stat: &Stat, path: RelPath) -> Entry {
        self.file_systems.enter(&path, stat);
        let mut entry = stat.entry(EntryKind::Directory, path);
        if let (Some(reader), Some(Level { handle: Handle::Open { dir, .. }, .. })) =
            (&mut self.attributes, self.levels.last())
        {
            entry.attributes = reader.of_open(dir, stat, &self.path);
        }
        entry
    }

    /// The file whose name the path ends in.
    fn look_at_file(&mut self, name_at: usize, stat: &Stat, path: RelPath) -> Scanned {
        let mut entry = stat.entry(EntryKind::File, path);
        let Some(Level { handle: Handle::Open { dir, .. }, .. }) = self.levels.last() else {
            return Scanned::Entry(entry);
        };
        if let Some(reader) = &mut self.attributes {
            entry.attributes = reader.of_file(dir, &self.path[name_at..], stat, &self.path);
        }
        let open = || platform::open_file(dir, &self.path[name_at..]);
        if !self.file_systems.has_true_size(dir, stat) {
            return match open().and_then(|file| self.made_up.list(file, &mut entry)) {
                Ok(()) => Scanned::Entry(entry),
                Err(_) => self.left_out(LeftOutReason::Unreadable),
            };
        }
        entry.holes = sparse::holes_of(stat, open);
        match &mut self.names_of_files {
            _ if stat.links < 2 => {}
            NamesOfFiles::Untold => {}
            NamesOfFiles::Marked => entry.first = Some(self.entries),
            NamesOfFiles::First(first_names) => {
                entry.first = first_names.of(entry.version, stat.links, self.entries);
                if entry.first.is_none() && self.unlinked.is_none() {
                    self.unlinked = Some(EscapedPath::new(&self.path));
                }
            }
        }
        Scanned::Entry(entry)
    }

    /// The link whose name the path ends in.
    fn look_at_link(&mut self, name_at: usize, stat: &Stat, path: RelPath) -> Option<Scanned> {
        let Handle::Open { dir, .. } = &self.levels.last()?.handle else { return None };
        match platform::link_target(dir, &self.path[name_at..]) {
            Ok(target) => Some(match self.links.refusal(&path, &target) {
                Some(reason) => self.left_out(reason),
                None => {
                    let attributes = self.attributes.as_mut().and_then(|reader| reader.of_link(stat));
                    Scanned::Entry(Entry { attributes, ..stat.link_entry(path, target) })
                }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Some(self.left_out(LeftOutReason::Symlink))
            }
            Err(_) => Some(self.left_out(LeftOutReason::Unreadable)),
        }
    }

    /// Opens the directory whose name the path ends in. Closes others where there are too many.
    fn enter(&mut self, name_at: usize) -> io::Result<()> {
        let name = self.path[name_at..].to_vec();
        if self.levels.len() - self.closed >= MAX_OPEN_LEVELS {
            self.close(1);
        }
        let mut pauses = platform::shortage_pauses();
        loop {
            let Some(Level { handle: Handle::Open { dir, .. }, .. }) = self.levels.last() else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let entered = platform::open_dir(dir, &name)
                .and_then(|dir| Level::open(dir, self.path.len(), self.filters.as_ref()));
            match entered {
                Ok(mut level) => {
                    let is_within = self.levels.last().is_some_and(|above| above.selected.is_none());
                    level.selected = self.selected_in(&self.path, is_within);
                    self.levels.push(level);
                    return Ok(());
                }
                // Our own descriptors first; then those of whatever else is at work.
                Err(error) if platform::is_shortage(&error) => {
                    if self.close(usize::MAX) == 0 && !pauses.pause() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes up to this number of the first open levels, but not the current one. Returns how many.
    fn close(&mut self, most: usize) -> usize {
        let before = self.closed;
        let last = self.levels.len().saturating_sub(1);
        for level in &mut self.levels[self.closed..last] {
            if self.closed - before == most || !level.close() {
                break;
            }
            self.closed += 1;
        }
        self.closed - before
    }

    /// Opens the current level again if it was closed.
    fn reopen(&mut self) -> io::Result<()> {
        let (Some(level), Some(root)) = (self.levels.last_mut(), &self.root) else { return Ok(()) };
        let Handle::Closed { device, inode, position } = level.handle else { return Ok(()) };
        self.closed -= 1;
        let mut pauses = platform::shortage_pauses();
        let dir = loop {
            let opened = match level.path_len {
                len if len == self.prefix_len => root.try_clone(),
                len => {
                    let from = if self.prefix_len == 0 { 0 } else { self.prefix_len + 1 };
                    platform::open_dir(root, &self.path[from..len])
                }
            };
            match opened {
                Err(error) if platform::is_shortage(&error) && pauses.pause() => {}
                opened => break opened?,
            }
        };
        let stat = platform::stat_open(&dir)?;
        if (stat.device, stat.inode) != (device, inode) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = Names::at(&dir, position)?;
        level.handle = Handle::Open { dir, names };
        Ok(())
    }

    /// Begins with the next root. Gives the entry of its name, if it has one.
    fn begin(&mut self, part: Part) -> Option<Result<Scanned, SourceError>> {
        let Part { name, content } = part;
        self.path = name.as_ref().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
        self.prefix_len = self.path.len();
        let dir = match content {
            PartContent::Directory(dir) => dir,
            PartContent::File(Ok(entry)) => return Some(Ok(Scanned::Entry(entry))),
            PartContent::File(Err(_)) => return Some(Ok(self.left_out(LeftOutReason::Unreadable))),
        };
        let opened = dir.try_clone().and_then(|root| {
            let stat = platform::stat_open(&root)?;
            self.filters.iter_mut().for_each(|filters| filters.stay_on(stat.device));
            let level = Level::open(root.try_clone()?, self.prefix_len, self.filters.as_ref())?;
            Ok((stat, root, level))
        });
        let (stat, root, level) = match opened {
            Ok(opened) => opened,
            Err(error) if name.is_none() => return Some(Err(SourceError::opening(b".", error))),
            Err(_) => return Some(Ok(self.left_out(LeftOutReason::Unreadable))),
        };
        self.root = Some(root);
        self.closed = 0;
        self.levels.push(level);
        name.map(|name| Ok(Scanned::Entry(self.entered(&stat, name))))
    }

    fn left_out(&self, reason: LeftOutReason) -> Scanned {
        Scanned::LeftOut { reason, path: EscapedPath::new(&self.path) }
    }

    /// The current directory cannot be listed any further: it is left out, and the scan goes on behind it.
    fn give_up_level(&mut self, error: io::Error) -> Result<Scanned, SourceError> {
        let level = self.levels.pop();
        self.closed = self.closed.min(self.levels.len());
        self.path.truncate(level.map_or(0, |level| level.path_len));
        if self.path.is_empty() {
            self.levels.clear();
            return Err(SourceError::opening(b".", error));
        }
        let gone = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        Ok(self.left_out(if gone { LeftOutReason::Changed } else { LeftOutReason::Unreadable }))
    }
}

impl Iterator for Scan {
    type Item = Result<Scanned, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        self.entries += u64::from(matches!(next, Some(Ok(Scanned::Entry(_)))));
        next
    }
}

impl Scan {
    fn step(&mut self) -> Option<Result<Scanned, SourceError>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if let Some(entry) = self.listed.get(self.given) {
            self.given += 1;
            return Some(Ok(Scanned::Entry(entry.clone())));
        }
        while !self.levels.is_empty() {
            match self.next_name() {
                Ok(Some(name_at)) => {
                    if let Some(scanned) = self.look(name_at) {
                        return Some(Ok(scanned));
                    }
                }
                Ok(None) => {
                    self.levels.pop();
                }
                Err(error) => return Some(self.give_up_level(error)),
            }
        }
        if let Some(part) = self.parts.pop_front() {
            return self.begin(part).or_else(|| self.step());
        }
        if let Some(path) = self.unlinked.take() {
            return Some(Ok(Scanned::LeftOut { reason: LeftOutReason::HardLink, path }));
        }
        if let Some(path) = self.attributes.as_mut().and_then(AttributesReader::take_stripped) {
            self.path = path;
            return Some(Ok(self.left_out(LeftOutReason::Attributes)));
        }
        // What was asked for by its path and is nowhere.
        let missing = self.filters.as_mut().and_then(Walk::next_missing)?;
        self.path = missing;
        Some(Ok(self.left_out(LeftOutReason::Vanished)))
    }
}

impl std::iter::FusedIterator for Scan {}

impl Level {
    fn open(dir: Dir, path_len: usize, filters: Option<&Walk>) -> io::Result<Self> {
        let names = Names::of(&dir)?;
        let ignore_files = filters.map_or(Ok(None), |filters| filters.enter(&dir))?;
        Ok(Self { handle: Handle::Open { dir, names }, path_len, ignore_files, selected: None })
    }

    /// Closes it so that it can be opened again, if the platform can do that.
    fn close(&mut self) -> bool {
        let Handle::Open { dir, names } = &self.handle else { return true };
        let (Some(position), Ok(stat)) = (names.position(), platform::stat_open(dir)) else { return false };
        self.handle = Handle::Closed { device: stat.device, inode: stat.inode, position };
        true
    }
}

/// 16, each of which takes two descriptors: few trees are deeper, and a server lists for many.
const MAX_OPEN_LEVELS: usize = 16;
