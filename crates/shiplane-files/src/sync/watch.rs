//! Watches a dataset for changes.

use std::sync::Arc;

use shiplane_platform::internals::{TreeWatch, WatchRules};
use shiplane_wire::RelPath;

use crate::{buffers::CountedMemory, error::SourceError, filters::Filters, names, source::SourceRoot};

/// Blocking. Watches the dataset at `path` beneath `root` until what this returns is dropped. What it keeps is counted in
/// `memory`. `on_change` is called after each change of what is not excluded by the `filters`, from another thread: what
/// has changed, a scan finds that begins later. Changes of files that only the tree's own ignore files exclude are told too.
///
/// # Errors
/// [`SourceError`], if there is no such directory.
pub fn watch(
    root: &SourceRoot,
    path: &[u8],
    filters: Arc<Filters>,
    mut memory: Box<dyn CountedMemory>,
    on_change: impl Fn() + Send + Sync + 'static,
) -> Result<TreeWatch, SourceError> {
    root.below(path)?;
    let place = root.place().ok_or(SourceError::Gone)?;
    let excludes = move |path: &[u8], is_directory: bool| {
        path.split(|byte| *byte == b'/').any(names::is_own)
            || RelPath::parse(path).is_ok_and(|path| filters.excludes(&path, is_directory))
    };
    let rules = WatchRules {
        excludes: Box::new(excludes),
        admit: Box::new(move |len_bytes| memory.resize(len_bytes)),
        on_change: Box::new(on_change),
    };
    Ok(TreeWatch::start(place, path, rules))
}
