//! Filters: which paths of a tree take part in a transfer.

mod ignore_files;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use shiplane_wire::{Hasher, PathRefused, RelPath, escape};
use thiserror::Error;

use crate::{
    lock,
    platform::{self, Kind, Patterns, Stat},
};

pub(crate) use ignore_files::IgnoreFiles;
use ignore_files::IgnoreMemory;
pub use ignore_files::MAX_IGNORE_FILES_BYTES;

/// What filters are made of, as the two sides tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterRules {
    /// Lines as in a `.gitignore` at the top of the tree: a pattern excludes, one after `!` includes. The last that
    /// matches a path decides.
    pub patterns: Vec<String>,
    /// Only these paths, what is below them, and the directories above them.
    pub listed: Option<Vec<Vec<u8>>>,
    /// Whether the files `.gitignore` and `.shiplaneignore` of the tree count too, where no pattern decides.
    pub ignore_files: bool,
    /// Whether directories on other file systems are excluded.
    pub one_file_system: bool,
}

/// Decides which paths of a tree take part. An excluded directory is excluded with everything below it, and is not
/// listed. The top of the tree is never excluded, nor is a file that was asked for by its own path.
#[derive(Debug)]
pub struct Filters {
    rules: FilterRules,
    listed: Option<BTreeSet<Vec<u8>>>,
    patterns: Patterns,
}

/// Why rules are no filters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FiltersError {
    /// A pattern is broken.
    #[error("the pattern {pattern} is broken: {reason}")]
    Pattern {
        /// The pattern, escaped.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A listed path cannot be in a tree.
    #[error("the path {path} cannot be listed: {reason}; give paths relative to the source")]
    Path {
        /// The path, escaped.
        path: String,
        /// The rule that it breaks.
        reason: PathRefused,
    },
    /// There are more patterns than a peer is asked to keep.
    #[error("the patterns have {len_bytes} bytes, more than {max_bytes}; use fewer")]
    TooManyPatterns {
        /// The sum of their lengths.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The list of paths is longer than what fits into a call.
    #[error("the list of paths has {len_bytes} bytes, more than {max_bytes}; copy it in parts")]
    ListTooLong {
        /// The sum of their lengths.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
}

impl Default for Filters {
    /// Those that exclude nothing.
    fn default() -> Self {
        Self { rules: FilterRules::default(), listed: None, patterns: Patterns::default() }
    }
}

impl Filters {
    /// Checks the rules.
    ///
    /// # Errors
    /// [`FiltersError`].
    pub fn new(mut rules: FilterRules) -> Result<Self, FiltersError> {
        let (len_bytes, max_bytes) =
            (cost_bytes(rules.patterns.iter().map(String::len)), MAX_PATTERNS_LEN_BYTES);
        if len_bytes > max_bytes {
            return Err(FiltersError::TooManyPatterns { len_bytes, max_bytes });
        }
        let mut patterns = Patterns::default();
        for line in &rules.patterns {
            patterns.add(line.as_bytes()).map_err(|reason| broken(line, reason))?;
        }
        let listed = match rules.listed.take() {
            Some(listed) => parse_list(listed)?,
            None => None,
        };
        // One form of the same list, so that its digest is the same on both sides.
        rules.listed = listed.as_ref().map(|listed| listed.iter().cloned().collect());
        Ok(Self { rules, listed, patterns })
    }

    /// The line that excludes what `pattern` matches.
    ///
    /// # Errors
    /// [`FiltersError::Pattern`].
    pub fn excluding(pattern: &str) -> Result<String, FiltersError> {
        // A line that begins so would be a comment.
        let line = if pattern.starts_with('#') { format!("\\{pattern}") } else { pattern.to_owned() };
        Self::check_pattern(&line)?;
        Ok(line)
    }

    /// The line that includes what `pattern` matches.
    ///
    /// # Errors
    /// [`FiltersError::Pattern`].
    pub fn including(pattern: &str) -> Result<String, FiltersError> {
        let line = format!("!{pattern}");
        Self::check_pattern(&line)?;
        Ok(line)
    }

    /// Checks one line.
    ///
    /// # Errors
    /// [`FiltersError::Pattern`].
    pub fn check_pattern(line: &str) -> Result<(), FiltersError> {
        let mut pattern = Patterns::default();
        pattern.add(line.as_bytes()).map_err(|reason| broken(line, reason))?;
        if pattern.is_empty() { Err(broken(line, "it is empty")) } else { Ok(()) }
    }

    /// What they are made of.
    pub fn rules(&self) -> &FilterRules {
        &self.rules
    }

    /// Whether they exclude nothing.
    pub fn is_none(&self) -> bool {
        self.rules == FilterRules::default()
    }

    /// Tells these filters from others.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Hasher::blake3();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let FilterRules { patterns, listed, ignore_files, one_file_system } = &self.rules;
        part(&[u8::from(*ignore_files), u8::from(*one_file_system), u8::from(listed.is_some())]);
        part(&(patterns.len() as u64).to_le_bytes());
        patterns.iter().for_each(|pattern| part(pattern.as_bytes()));
        listed.iter().flatten().for_each(|path| part(path));
        *hasher.finish().as_bytes()
    }

    /// Whether the patterns or the list exclude `path`, whose parents they do not exclude. What ignore files and file
    /// systems exclude, only the side knows that has the tree.
    pub fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        self.decide(path, is_directory).unwrap_or(false)
    }

    /// The same; `None` if nothing is said of the path.
    fn decide(&self, path: &RelPath, is_directory: bool) -> Option<bool> {
        if self.listed.as_ref().is_some_and(|listed| !covers(listed, path.as_bytes(), is_directory)) {
            return Some(true);
        }
        self.patterns.decide(path.as_bytes(), is_directory)
    }
}

/// Filters on their way through a tree.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    filters: Arc<Filters>,
    /// The file system of the top.
    device: u64,
    /// Listed paths that were not found yet.
    missing: BTreeSet<Vec<u8>>,
    ignore_memory: IgnoreMemory,
}

/// Who excludes a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excluded {
    /// The patterns or the list: the other side knows it too.
    ByRules,
    /// An ignore file or the file system: the other side cannot know it.
    ByTree,
}

impl Walk {
    pub(crate) fn new(filters: Arc<Filters>, device: u64) -> Self {
        let missing = filters.listed.clone().unwrap_or_default();
        Self { filters, device, missing, ignore_memory: IgnoreMemory::default() }
    }

    /// Another root begins, which is on this file system.
    pub(crate) fn stay_on(&mut self, device: u64) {
        self.device = device;
    }

    /// The ignore files of a directory, if they count.
    pub(crate) fn enter(&self, dir: &Dir) -> io::Result<Option<IgnoreFiles>> {
        if self.filters.rules.ignore_files { IgnoreFiles::of(dir, &self.ignore_memory) } else { Ok(None) }
    }

    /// Whether a path is excluded. `levels` has the ignore files of the directories above it, the nearest first, with
    /// the length of the directory's path.
    pub(crate) fn excludes<'a>(
        &mut self,
        path: &RelPath,
        stat: &Stat,
        mut levels: impl Iterator<Item = (usize, &'a IgnoreFiles)>,
    ) -> Option<Excluded> {
        let is_directory = stat.kind == Kind::Directory;
        let excluded = match self.filters.decide(path, is_directory) {
            Some(true) => Some(Excluded::ByRules),
            _ if self.filters.rules.one_file_system && stat.device != self.device => Some(Excluded::ByTree),
            Some(false) => None,
            None => levels
                .find_map(|(len, files)| files.decide(&path.as_bytes()[len..], is_directory))
                .and_then(|is_excluded| is_excluded.then_some(Excluded::ByTree)),
        };
        if !self.missing.is_empty() {
            self.found(path.as_bytes(), excluded.is_some());
        }
        excluded
    }

    /// Listed paths that are nowhere in the tree, one after another.
    pub(crate) fn next_missing(&mut self) -> Option<Vec<u8>> {
        self.missing.pop_first()
    }

    /// Missing listed paths are not reported.
    pub(crate) fn forget_missing(&mut self) {
        self.missing.clear();
    }

    /// Of a path that is excluded, nothing below is missing either.
    fn found(&mut self, path: &[u8], is_excluded: bool) {
        self.missing.remove(path);
        if is_excluded {
            let below: Vec<_> = below(&self.missing, path).cloned().collect();
            below.iter().for_each(|path| _ = self.missing.remove(path));
        }
    }
}

/// What filters exclude of a tree, path by path and in no order, ignore files included. Remembers some of those.
#[derive(Debug)]
pub(crate) struct TreeFilters {
    filters: Arc<Filters>,
    root: Arc<Dir>,
    /// By their directories.
    ignore_files: Mutex<HashMap<Vec<u8>, Option<IgnoreFiles>>>,
    memory: IgnoreMemory,
}

impl TreeFilters {
    pub(crate) fn new(filters: Arc<Filters>, root: Arc<Dir>) -> Self {
        Self { filters, root, ignore_files: Mutex::default(), memory: IgnoreMemory::default() }
    }

    /// Whether a path, or a directory above it, is excluded. Of very deep paths that is not found out.
    pub(crate) fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        let above: Vec<_> = std::iter::successors(path.parent(), RelPath::parent).collect();
        if above.len() > MAX_DEPTH {
            return false;
        }
        above.iter().rev().any(|above| self.excludes_itself(above, true))
            || self.excludes_itself(path, is_directory)
    }

    /// Whether the file at a path decides what is excluded. What was remembered is forgotten then.
    pub(crate) fn is_changed_by(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next();
        let governs = self.filters.rules.ignore_files && name.is_some_and(ignore_files::is_one);
        if governs {
            lock(&self.ignore_files).clear();
        }
        governs
    }

    fn excludes_itself(&self, path: &RelPath, is_directory: bool) -> bool {
        if let Some(is_excluded) = self.filters.decide(path, is_directory) {
            return is_excluded;
        }
        let (bytes, mut known) = (path.as_bytes(), lock(&self.ignore_files));
        let levels = (0..bytes.len()).rev().filter(|at| *at == 0 || bytes[*at] == b'/');
        let mut levels = levels.filter(|_| self.filters.rules.ignore_files);
        let decided = levels.find_map(|len| {
            if known.len() >= MAX_REMEMBERED {
                known.clear();
            }
            let files = known.entry(bytes[..len].to_vec()).or_insert_with(|| self.read(&bytes[..len]));
            files.as_ref()?.decide(&bytes[len..], is_directory)
        });
        decided.unwrap_or(false)
    }

    /// What cannot be read excludes nothing.
    fn read(&self, path: &[u8]) -> Option<IgnoreFiles> {
        let opened =
            if path.is_empty() { self.root.try_clone() } else { platform::open_dir(&self.root, path) };
        IgnoreFiles::of(&opened.ok()?, &self.memory).ok()?
    }
}

/// Whether a list has the path, one above it or, for a directory, one below it.
fn covers(listed: &BTreeSet<Vec<u8>>, path: &[u8], is_directory: bool) -> bool {
    let mut separators = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    listed.contains(path)
        || separators.any(|at| listed.contains(&path[..at]))
        || (is_directory && below(listed, path).next().is_some())
}

/// Those of the paths that are below one.
fn below<'a>(paths: &'a BTreeSet<Vec<u8>>, path: &[u8]) -> impl Iterator<Item = &'a Vec<u8>> {
    let prefix = [path, b"/"].concat();
    paths.range(prefix.clone()..).take_while(move |other| other.starts_with(&prefix))
}

/// `None` for a list that covers everything.
fn parse_list(listed: Vec<Vec<u8>>) -> Result<Option<BTreeSet<Vec<u8>>>, FiltersError> {
    let (len_bytes, max_bytes) = (cost_bytes(listed.iter().map(Vec::len)), MAX_LIST_LEN_BYTES);
    if len_bytes > max_bytes {
        return Err(FiltersError::ListTooLong { len_bytes, max_bytes });
    }
    let mut paths = BTreeSet::new();
    for typed in &listed {
        // As `find` and shells write them.
        let mut path = &typed[..];
        while let Some(rest) = path.strip_prefix(b"./") {
            path = rest;
        }
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if path == b"." || path.is_empty() && !typed.is_empty() {
            return Ok(None);
        }
        let refused = |reason| FiltersError::Path { path: escape(typed).to_string(), reason };
        RelPath::parse(path).map_err(refused)?;
        paths.insert(path.to_vec());
    }
    Ok(Some(paths))
}

/// What texts of these lengths count as.
fn cost_bytes(lens: impl Iterator<Item = usize>) -> usize {
    lens.map(|len| len + TEXT_COST_BYTES).sum()
}

fn broken(line: &str, reason: &str) -> FiltersError {
    let pattern = line.strip_prefix('!').unwrap_or(line);
    FiltersError::Pattern { pattern: escape(pattern.as_bytes()).to_string(), reason: reason.to_owned() }
}

/// 32 KiB: some thousand usual patterns. A peer compares each name with all of them.
const MAX_PATTERNS_LEN_BYTES: usize = 32 << 10;

/// 768 KiB: with the rest of the call, below the 1 MiB of an envelope.
const MAX_LIST_LEN_BYTES: usize = 768 << 10;

/// 64: the work grows with the third power of it.
const MAX_DEPTH: usize = 64;

/// 1,024 directories: those of the paths that change at a time.
const MAX_REMEMBERED: usize = 1024;

/// The length of a text in a call.
const TEXT_COST_BYTES: usize = 8;

#[cfg(test)]
mod tests;
