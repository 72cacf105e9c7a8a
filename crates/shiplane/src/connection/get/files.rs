//! Reports each file of a fetch when it is complete.

use std::sync::Arc;

use shiplane_files::internals::{Destination, DestinationError, FileEvent, Policy};
use shiplane_wire::{DigestAlgorithm, RelPath};

use crate::tracker::Tracker;

/// An event for each file.
pub(super) struct FileEvents {
    destination: Destination,
    /// Whether each file's digest is reported too; the file is then read once more, most likely out of the system's
    /// memory.
    sha256: bool,
    tracker: Arc<Tracker>,
}

impl FileEvents {
    /// The same destination, with events.
    pub(super) fn of(destination: Destination, sha256: bool, tracker: Arc<Tracker>) -> Destination {
        let events = Self { destination: destination.clone(), sha256, tracker };
        destination.with_policy(Arc::new(events))
    }
}

impl Policy for FileEvents {
    fn on_file(&self, path: &RelPath, len_bytes: u64, event: FileEvent) -> Result<(), DestinationError> {
        let is_received = match event {
            FileEvent::Identical => false,
            FileEvent::Published => true,
            FileEvent::Removed { is_directory } => {
                self.tracker.deleted(path.to_string(), is_directory);
                return Ok(());
            }
            FileEvent::Unexpected | FileEvent::NotSent(_) | FileEvent::Failed(_) => return Ok(()),
        };
        let sha256 = match self.sha256 {
            true => Some(self.destination.digest_of(path, DigestAlgorithm::Sha256)?.to_string()),
            false => None,
        };
        self.tracker.file(path.to_string(), len_bytes, is_received, sha256);
        Ok(())
    }
}
