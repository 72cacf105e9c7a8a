//! Files with several names: which they are, at a provider, and what has become of them, at a receiver (SPEC 4.28).

use std::collections::HashMap;
use std::sync::Mutex;

use shiplane_wire::{Entry, LeftOutReason, RelPath, Version};

use crate::{
    buffers::{CountedMemory, room_for_more},
    error::DestinationError,
    lock,
    path_list::PathList,
    site::Site,
    state::HardLink,
};

/// The numbers of the entries that were the first with their file, by its state, until all of its names were seen.
#[derive(Debug)]
pub(super) struct FirstNames {
    by_version: HashMap<Version, FirstName>,
    memory: Box<dyn CountedMemory>,
}

#[derive(Debug)]
struct FirstName {
    entry: u64,
    /// How many names were not seen yet.
    left: u64,
}

impl FirstNames {
    pub(super) fn new(memory: Box<dyn CountedMemory>) -> Self {
        Self { by_version: HashMap::new(), memory }
    }

    /// The number of the entry that has the first name of a file with `links` names. It is `entry`, if there was none
    /// before; `None` if there is no memory for it.
    pub(super) fn of(&mut self, version: Version, links: u64, entry: u64) -> Option<u64> {
        if let Some(known) = self.by_version.get_mut(&version) {
            let first = known.entry;
            known.left = known.left.saturating_sub(1);
            if known.left == 0 {
                self.by_version.remove(&version);
            }
            return Some(first);
        }
        if self.by_version.len() == self.by_version.capacity() {
            let len = self.by_version.len();
            let more = room_for_more(&mut *self.memory, len, FIRST_NAMES, FIRST_NAME_BYTES)?;
            self.by_version.reserve(more);
        }
        self.by_version.insert(version, FirstName { entry, left: links - 1 });
        Some(entry)
    }
}

/// The files of a transfer that have several names here, and those names that are to be laid.
#[derive(Debug)]
pub(super) struct LinkedFiles(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By number of the entry.
    files: HashMap<u64, LinkedFile>,
    cost_bytes: u64,
    memory: Box<dyn CountedMemory>,
    counted_bytes: u64,
    /// Some file was forgotten.
    is_full: bool,
    links: PathList<HardLink>,
}

/// A file that has several names at the peer, under the first of them.
#[derive(Clone, Debug)]
pub(super) struct LinkedFile {
    /// Where it lands.
    pub(super) path: RelPath,
    version: Version,
    pub(super) state: LinkedFileState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkedFileState {
    /// It may still come.
    Expected,
    /// It has its name; which file it is, if that was looked at.
    Here(Option<(u64, u64)>),
    /// It does not come.
    LeftOut(LeftOutReason),
}

/// What an entry is to become.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// A file of its own.
    Own,
    /// Another name of this file.
    Of(LinkedFile),
    /// A file of its own, because the other one was forgotten.
    OfForgotten,
}

impl LinkedFiles {
    pub(super) fn new(memory: Box<dyn CountedMemory>) -> Self {
        Self(Mutex::new(State {
            files: HashMap::new(),
            cost_bytes: 0,
            memory,
            counted_bytes: 0,
            is_full: false,
            links: PathList::default(),
        }))
    }

    /// What the entry number `index` is to become; `None` if the peer may not say so.
    pub(super) fn name_of(&self, index: u64, entry: &Entry) -> Option<Name> {
        let Some(first) = entry.first.filter(|first| *first != index) else { return Some(Name::Own) };
        let state = lock(&self.0);
        match state.files.get(&first) {
            // A link refers to an earlier entry.
            _ if first > index => None,
            Some(file) if file.version != entry.version => None,
            Some(LinkedFile { state: LinkedFileState::LeftOut(_), .. }) => Some(Name::Own),
            Some(file) => Some(Name::Of(file.clone())),
            None => state.is_full.then_some(Name::OfForgotten),
        }
    }

    /// The file with the first name of an entry.
    pub(super) fn get(&self, first: u64) -> Option<LinkedFile> {
        lock(&self.0).files.get(&first).cloned()
    }

    /// Notes what has become of an entry that is the first name of a file with several.
    pub(super) fn note(&self, index: u64, entry: &Entry, path: &RelPath, now: LinkedFileState) {
        if entry.first == Some(index) {
            lock(&self.0).note(index, entry.version, path, now);
        }
    }

    /// Notes what has become of these entries, if they are among them.
    pub(super) fn settle(&self, entries: &[u64], now: LinkedFileState) {
        let mut state = lock(&self.0);
        if state.files.is_empty() {
            return;
        }
        for entry in entries {
            if let Some(file) = state.files.get_mut(entry) {
                file.state = now;
            }
        }
    }

    /// Lays a name at the end.
    pub(super) fn lay_at_end(
        &self,
        site: &Site,
        path: &RelPath,
        link: &HardLink,
    ) -> Result<(), DestinationError> {
        site.announce(&mut lock(&self.0).links, path, link)
    }

    /// The names that are to be laid, which are forgotten.
    pub(super) fn take_links(&self) -> PathList<HardLink> {
        std::mem::take(&mut lock(&self.0).links)
    }
}

impl State {
    fn note(&mut self, index: u64, version: Version, path: &RelPath, state: LinkedFileState) {
        if let Some(file) = self.files.get_mut(&index) {
            file.state = state;
            return;
        }
        let cost_bytes = self.cost_bytes + LINKED_FILE_BYTES + path.as_bytes().len() as u64;
        if cost_bytes > self.counted_bytes {
            let more_bytes = (2 * cost_bytes).clamp(LEAST_LINKED_BYTES, MAX_LINKED_BYTES);
            if more_bytes < cost_bytes || !self.memory.resize(more_bytes) {
                self.is_full = true;
                return;
            }
            self.counted_bytes = more_bytes;
        }
        self.cost_bytes = cost_bytes;
        self.files.insert(index, LinkedFile { path: path.clone(), version, state });
    }
}

/// What one takes in its map.
const FIRST_NAME_BYTES: u64 = 48;

/// 12 KiB to 16 MiB of them: a backup with hard links to the one before has no more files at once, or they become copies,
/// which is told.
const FIRST_NAMES: (usize, usize) = (1 << 8, (16 << 20) / FIRST_NAME_BYTES as usize);

/// What one takes in its map, beside its path.
const LINKED_FILE_BYTES: u64 = 160;

/// 16 MiB: a hundred thousand with usual paths.
const MAX_LINKED_BYTES: u64 = 16 << 20;

/// 16 KiB.
const LEAST_LINKED_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use shiplane_wire::{EntryKind, Holes, Mtime};

    use super::*;

    /// So much, and no more.
    #[derive(Debug)]
    struct Most(u64);

    impl CountedMemory for Most {
        fn resize(&mut self, len_bytes: u64) -> bool {
            len_bytes <= self.0
        }
    }

    fn version(number: u64) -> Version {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Version::from_bytes(bytes)
    }

    #[test]
    fn the_first_name_is_known_until_the_last_was_seen() {
        let mut names = FirstNames::new(Box::new(()));
        assert_eq!(names.of(version(1), 3, 10), Some(10));
        assert_eq!(names.of(version(2), 2, 11), Some(11));
        assert_eq!(names.of(version(1), 3, 12), Some(10));
        assert_eq!(names.of(version(1), 3, 13), Some(10));
        assert_eq!(names.by_version.len(), 1);
        assert_eq!(names.of(version(1), 3, 14), Some(14), "it was forgotten");
    }

    #[test]
    fn a_provider_without_memory_says_that_it_forgets() {
        let mut names = FirstNames::new(Box::new(Most(20 << 10)));
        let known = (0..2000).filter(|number| names.of(version(*number), 2, *number).is_some()).count();
        assert!((FIRST_NAMES.0..1000).contains(&known), "{known}");
        assert_eq!(names.of(version(0), 2, 5000), Some(0), "those that are known stay so");
    }

    fn entry(path: &str, first: u64, number: u64) -> Entry {
        Entry {
            kind: EntryKind::File,
            mode: 0o644,
            size_bytes: 1,
            mtime: Mtime { secs: 0, nanos: 0 },
            version: version(number),
            path: RelPath::parse(path.as_bytes()).unwrap(),
            target: None,
            first: Some(first),
            holes: Holes::default(),
            attributes: None,
        }
    }

    #[test]
    fn a_receiver_takes_links_of_earlier_files_in_the_same_state_only() {
        let files = LinkedFiles::new(Box::new(()));
        let first = entry("a", 3, 7);
        assert!(matches!(files.name_of(3, &first), Some(Name::Own)));
        files.note(3, &first, &first.path, LinkedFileState::Expected);
        files.note(4, &first, &first.path, LinkedFileState::Expected);
        assert!(matches!(files.name_of(5, &entry("b", 3, 7)), Some(Name::Of(_))));
        for (index, first, number) in [(5, 3, 8), (5, 4, 7), (5, 6, 7), (2, 3, 7), (5, u64::MAX, 7)] {
            assert!(files.name_of(index, &entry("b", first, number)).is_none(), "{index} of {first}");
        }
        files.settle(&[3, 9], LinkedFileState::LeftOut(LeftOutReason::Changed));
        assert!(matches!(files.name_of(5, &entry("b", 3, 7)), Some(Name::Own)));
    }

    #[test]
    fn a_receiver_without_memory_takes_links_as_files() {
        let files = LinkedFiles::new(Box::new(Most(20 << 10)));
        for number in 0..1000 {
            let first = entry(&format!("f{number}"), number, number);
            files.note(number, &first, &first.path, LinkedFileState::Here(None));
        }
        assert!(matches!(files.name_of(2000, &entry("x", 0, 0)), Some(Name::Of(_))));
        assert!(matches!(files.name_of(2000, &entry("x", 999, 999)), Some(Name::OfForgotten)));
        assert!(lock(&files.0).cost_bytes <= 20 << 10);
    }
}
