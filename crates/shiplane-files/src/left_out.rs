//! Paths of a transfer that its receiver leaves out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use shiplane_wire::{EscapedPath, LeftOutReason, RelPath};

use crate::{error::DestinationError, lock};

/// A path that is left out; everything else goes on.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// The number of its entry; `None` for what fails after the entries are done with.
    pub entry: Option<u64>,
    /// Its path at the peer; `None` for the destination directory itself.
    pub path: Option<RelPath>,
    /// Why.
    pub reason: LeftOutReason,
    /// What has failed.
    pub error: Arc<DestinationError>,
    /// Whether the policy has been told.
    pub(super) is_told: bool,
}

impl LeftOut {
    /// The path in a form to print; `.` for the destination directory.
    pub fn shown(&self) -> EscapedPath {
        EscapedPath::new(self.path.as_ref().map_or(b".", RelPath::as_bytes))
    }
}

/// What is left out and was not taken notice of yet. Shared by the threads of a transfer.
#[derive(Debug, Default)]
pub(super) struct LeftOuts {
    list: Mutex<List>,
    /// Whether the list is not empty, so that looking costs no lock.
    has_some: AtomicBool,
}

#[derive(Debug, Default)]
struct List {
    named: Vec<LeftOut>,
    len_bytes: usize,
    unnamed: u64,
}

impl LeftOuts {
    pub(super) fn add(&self, left_out: LeftOut) {
        let mut list = lock(&self.list);
        let len_bytes = left_out.path.as_ref().map_or(0, |path| path.as_bytes().len()) + COST_BYTES;
        // What has an entry must be taken notice of; the engine takes those before more entries come.
        if left_out.entry.is_none() && list.len_bytes + len_bytes > MAX_LEN_BYTES {
            list.unnamed += 1;
        } else {
            list.len_bytes += len_bytes;
            list.named.push(left_out);
        }
        drop(list);
        self.has_some.store(true, Ordering::Release);
    }

    /// Takes the paths added since the last call, and the number of further ones that were not kept.
    pub(super) fn take(&self) -> (Vec<LeftOut>, u64) {
        if !self.has_some.swap(false, Ordering::Acquire) {
            return (Vec::new(), 0);
        }
        let List { named, unnamed, .. } = std::mem::take(&mut *lock(&self.list));
        (named, unnamed)
    }
}

/// 4 MiB of paths and what has failed there.
const MAX_LEN_BYTES: usize = 4 << 20;

/// What one takes beside its path: its error names the path once more.
const COST_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(entry: Option<u64>, name: &str) -> LeftOut {
        let path = RelPath::parse(name.as_bytes()).ok();
        let error = DestinationError::Altered { path: name.to_owned() };
        LeftOut { entry, path, reason: LeftOutReason::Changed, error: error.into(), is_told: true }
    }

    #[test]
    fn all_are_given_once_and_too_many_are_counted() {
        let left_outs = LeftOuts::default();
        assert_eq!(left_outs.take().0.len(), 0);
        for number in 0..20_000 {
            left_outs.add(left_out(None, &format!("directory-{number}")));
        }
        left_outs.add(left_out(Some(7), "file"));
        let (named, unnamed) = left_outs.take();
        assert!(named.len() > 1000 && named.len() < 10_000, "{}", named.len());
        assert_eq!(named.len() as u64 + unnamed, 20_001);
        assert_eq!(named.last().unwrap().entry, Some(7), "that one must be known");
        assert_eq!(left_outs.take().0.len(), 0);
    }
}
