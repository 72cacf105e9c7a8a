//! Lists the files of a provider.

use std::sync::Arc;

use cap_std::fs::Dir;
use shiplane_wire::{Entry, EntryKind, EscapedPath, RelPath, SkipReason};

use crate::{
    error::SourceError,
    names,
    platform::{self, Kind, Names},
};

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A file or directory to offer.
    Entry(Entry),
    /// Something that is there and cannot be offered.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// Which.
        path: EscapedPath,
    },
}

/// Lists a source: depth first, parents before their children, otherwise in the order the system gives.
///
/// Streaming: it holds the directories from the root to where it is, at most as many as a path may have
/// components, and never a list of names. Links are reported, not followed. What vanishes meanwhile is
/// left out. After an error it ends; the listing is not complete then and must not be taken for one.
#[derive(Debug)]
pub struct Scan {
    levels: Vec<Level>,
    /// The path of the current name; each level knows how much of it is its own.
    path: Vec<u8>,
    /// What is given before the levels: the only entry, or an error at the start.
    first: Option<Result<Scanned, SourceError>>,
    /// Given instead of levels: a list that was made before, and how much of it has been given.
    listed: Arc<[Entry]>,
    given: usize,
    /// Our own files, if anybody wants to know.
    own: Option<Vec<RelPath>>,
}

#[derive(Debug)]
struct Level {
    dir: Dir,
    names: Names,
    path_len: usize,
}

impl Scan {
    pub(super) fn one(entry: Result<Entry, SourceError>) -> Self {
        Self { first: Some(entry.map(Scanned::Entry)), ..Self::listed(Arc::default()) }
    }

    pub(super) fn listed(listed: Arc<[Entry]>) -> Self {
        Self { levels: Vec::new(), path: Vec::new(), first: None, listed, given: 0, own: None }
    }

    pub(super) fn tree(root: &Dir) -> Self {
        let mut scan = Self::listed(Arc::default());
        let level = root.try_clone().and_then(|dir| Level::open(dir, 0));
        match level {
            Ok(level) => scan.levels.push(level),
            Err(error) => scan.first = Some(Err(SourceError::opening(b".", error))),
        }
        scan
    }

    /// The path of what was given last, unescaped. Some of what is skipped is skipped because of it.
    pub fn raw_path(&self) -> &[u8] {
        &self.path
    }

    /// Remembers where there are files of this program's own, which are not given.
    pub fn note_own(&mut self) {
        self.own = Some(Vec::new());
    }

    /// Those that were found.
    pub fn take_own(&mut self) -> Vec<RelPath> {
        self.own.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Looks at the name that `path` ends in, in the directory of the last level; `None` if it is not to
    /// be mentioned.
    fn look(&mut self, name_at: usize) -> Option<Scanned> {
        let name = &self.path[name_at..];
        if names::is_own(name) {
            if let Some(own) = &mut self.own {
                own.extend(RelPath::parse(&self.path));
            }
            return None;
        }
        let Ok(path) = RelPath::parse(&self.path) else {
            return Some(self.skipped(SkipReason::UnsafeName));
        };
        let dir = &self.levels.last()?.dir;
        let stat = match platform::stat(dir, name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(_) => return Some(self.skipped(SkipReason::Unreadable)),
        };
        match stat.kind {
            Kind::File => Some(Scanned::Entry(stat.entry(EntryKind::File, path))),
            Kind::Symlink => Some(self.skipped(SkipReason::Symlink)),
            Kind::Special => Some(self.skipped(SkipReason::SpecialFile)),
            Kind::Directory => {
                let level = platform::open_dir(dir, name).and_then(|dir| Level::open(dir, self.path.len()));
                match level {
                    Ok(level) => {
                        self.levels.push(level);
                        Some(Scanned::Entry(stat.entry(EntryKind::Directory, path)))
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                    Err(_) => Some(self.skipped(SkipReason::Unreadable)),
                }
            }
        }
    }

    fn skipped(&self, reason: SkipReason) -> Scanned {
        Scanned::Skipped { reason, path: EscapedPath::new(&self.path) }
    }
}

impl Iterator for Scan {
    type Item = Result<Scanned, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if let Some(entry) = self.listed.get(self.given) {
            self.given += 1;
            return Some(Ok(Scanned::Entry(entry.clone())));
        }
        loop {
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_len);
            let name_at = if level.path_len == 0 { 0 } else { level.path_len + 1 };
            let path = &mut self.path;
            let read = level.names.next(|name| {
                if name_at > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            });
            match read {
                Some(Ok(())) => {
                    if let Some(scanned) = self.look(name_at) {
                        return Some(Ok(scanned));
                    }
                }
                Some(Err(error)) => {
                    self.levels.clear();
                    return Some(Err(SourceError::opening(&self.path, error)));
                }
                None => {
                    self.levels.pop();
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Scan {}

impl Level {
    fn open(dir: Dir, path_len: usize) -> std::io::Result<Self> {
        let names = Names::of(&dir)?;
        Ok(Self { dir, names, path_len })
    }
}
