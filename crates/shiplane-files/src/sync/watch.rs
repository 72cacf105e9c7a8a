//! Watches a dataset for changes, so that it is listed again only where it has changed.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use shiplane_platform::internals::{ChangedPaths, TreeWatch, Unwatched, WatchRules, identity_of};
use shiplane_wire::{DigestAlgorithm, RelPath};

use super::scan::{ScanError, ScanOptions, Scanned, rescan, scan};
use super::stat_cache::StatCache;
use crate::{
    buffers::CountedMemory,
    error::SourceError,
    filters::{Filters, TreeFilters},
    lock, names, platform,
    policy::LinkPolicy,
    source::SourceRoot,
};

/// A dataset that is watched until this is dropped, and how it was listed last.
pub struct DatasetWatch {
    tree: TreeWatch,
    filters: [u8; 32],
    /// Which directory is watched; `None` if that is not sure.
    identity: Option<(u64, u64)>,
    listed: Mutex<Option<(ListedBy, Scanned)>>,
    /// What was not as it was listed.
    inexact: Mutex<ChangedPaths>,
    memory: Arc<Mutex<WatchMemory>>,
}

/// How a dataset was listed, beside the filters.
type ListedBy = (DigestAlgorithm, LinkPolicy, bool);

/// What a watch holds, in bytes: its watches, and the listing.
struct WatchMemory {
    counted: Box<dyn CountedMemory>,
    watches: u64,
    listing: u64,
}

/// How a dataset that is watched is listed again.
#[derive(Clone, Debug)]
pub struct Relisting {
    /// Its watch.
    pub watch: Arc<DatasetWatch>,
    /// Whether to look at everything all the same.
    pub is_full: bool,
}

/// Blocking. Watches the dataset at `path` beneath `root` until what this returns is dropped. What it keeps is counted in
/// `memory`. `on_change` is called after each change of what the `filters` and the tree's own ignore files do not exclude,
/// from another thread: what has changed, a listing finds that begins later.
///
/// # Errors
/// [`SourceError`], if there is no such directory.
pub fn watch(
    root: &SourceRoot,
    path: &[u8],
    filters: Arc<Filters>,
    memory: Box<dyn CountedMemory>,
    on_change: impl Fn() + Send + Sync + 'static,
) -> Result<DatasetWatch, SourceError> {
    let dataset = root.below(path)?;
    let place = root.place().ok_or(SourceError::Gone)?;
    let directory = dataset.directory().ok_or(SourceError::Gone)?;
    let digest = filters.digest();
    let filters = Arc::new(TreeFilters::new(filters, Arc::clone(directory)));
    let governing = Arc::clone(&filters);
    let excludes = move |path: &[u8], is_directory: bool| {
        path.split(|byte| *byte == b'/').any(names::is_own)
            || RelPath::parse(path).is_ok_and(|path| filters.excludes(&path, is_directory))
    };
    let memory = Arc::new(Mutex::new(WatchMemory { counted: memory, watches: 0, listing: 0 }));
    let counted = Arc::clone(&memory);
    let admit = move |len_bytes| {
        let mut memory = lock(&counted);
        memory.watches = len_bytes;
        memory.count()
    };
    let rules = WatchRules {
        excludes: Box::new(excludes),
        governs: Box::new(move |path| governing.is_changed_by(path)),
        admit: Box::new(admit),
        on_change: Box::new(on_change),
    };
    let tree = TreeWatch::start(place, path, rules);
    let is_watched =
        |identity: &(u64, u64)| identity_of(&platform::join(place, path)).ok() == Some(*identity);
    let identity = identity(&dataset).filter(is_watched);
    Ok(DatasetWatch {
        tree,
        filters: digest,
        identity,
        listed: Mutex::default(),
        inexact: Mutex::default(),
        memory,
    })
}

impl DatasetWatch {
    /// Why not all of it is watched; `None` if all is.
    pub fn unwatched(&self) -> Option<Unwatched> {
        self.tree.unwatched()
    }

    /// Looks at these paths again in the next listing, whether anything tells of a change there or not.
    pub fn look_again<'a>(&self, paths: impl Iterator<Item = &'a RelPath>) {
        let mut inexact = lock(&self.inexact);
        inexact.extend(paths.map(|path| (path.as_bytes().to_vec(), true)));
    }
}

impl fmt::Debug for DatasetWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatasetWatch").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl Relisting {
    /// Blocking. Lists the dataset at `root`: what has changed since it was listed last, or all of it. A listing that fails is
    /// followed by one of all of it.
    pub(super) fn list(
        &self,
        root: &SourceRoot,
        cache: &mut StatCache,
        options: &ScanOptions,
    ) -> Result<Scanned, ScanError> {
        let Self { watch, is_full } = self;
        let by = (options.digest, options.links, options.attributes);
        // First: what changes from now on is found by the next.
        let inexact = std::mem::take(&mut *lock(&watch.inexact));
        let changed = watch.tree.take_changes().map(|mut changed| {
            inexact.into_iter().for_each(|(path, is_deep)| *changed.entry(path).or_default() |= is_deep);
            changed
        });
        let listed = lock(&watch.listed).take();
        let is_same = watch.identity.is_some()
            && identity(root) == watch.identity
            && options.filters.digest() == watch.filters;
        let scanned = match (changed, listed) {
            (Some(changed), Some((listed_by, listed)))
                if is_same && listed_by == by && !is_full && !options.from_disk =>
            {
                rescan(root, cache, options, listed, changed, SystemTime::now)?
            }
            _ => None,
        };
        let scanned = scanned.map_or_else(|| scan(root, b"", cache, options), Ok)?;
        // Of paths that cannot be sent it is not known which change they came with.
        let is_plain = scanned.unsendable.is_empty() && scanned.stripped.is_none();
        let mut memory = lock(&watch.memory);
        memory.listing = if is_same && is_plain { scanned.manifest.cost_bytes() } else { 0 };
        if memory.listing > 0 && memory.count() {
            *lock(&watch.listed) = Some((by, scanned.clone()));
        } else {
            memory.listing = 0;
            memory.count();
        }
        Ok(scanned)
    }
}

impl WatchMemory {
    /// `false` if there is not as much.
    fn count(&mut self) -> bool {
        self.counted.resize(self.watches + self.listing)
    }
}

/// Device and inode.
fn identity(root: &SourceRoot) -> Option<(u64, u64)> {
    let stat = platform::stat_open(root.directory()?.as_ref()).ok()?;
    Some((stat.device, stat.inode))
}

#[cfg(test)]
mod tests;
