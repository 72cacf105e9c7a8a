//! Reports each file of a fetch when it is complete, and refuses what was not offered.

use std::sync::Arc;

use shiplane_files::internals::{
    Admission, Destination, DestinationError, FileEvent, NameRefused, Policy, Shape,
};
use shiplane_wire::{DigestAlgorithm, Entry, RelPath, escape};

use crate::{connection::ByCode, error::Cause, tracker::Tracker};

/// What may land, if a sender has offered it by a code.
#[derive(Clone)]
pub(super) struct Expected {
    pub(super) by_code: Option<Arc<ByCode>>,
    /// Whether nothing may land whose name begins with a dot.
    pub(super) refuses_hidden: bool,
}

/// An event for each file, and the rules for what may land.
pub(super) struct FileEvents {
    destination: Destination,
    /// Whether there are events, and whether each file's digest is reported too; the file is then read once more, most
    /// likely out of the system's memory.
    sha256: Option<bool>,
    rules: Option<Expected>,
    tracker: Arc<Tracker>,
}

impl Expected {
    /// Checks the name by which it all lands.
    pub(super) fn check_top(&self, shape: &Shape) -> Result<(), Cause> {
        match shape {
            Shape::File { name } | Shape::Directory { name } => self.check(name).map_err(Cause::Destination),
            Shape::Contents => Ok(()),
        }
    }

    /// The rules for each entry, if what it is in has no name of its own.
    pub(super) fn rules(self, shape: &Shape) -> Option<Self> {
        let is_needed = self.refuses_hidden || self.by_code.is_some();
        (is_needed && matches!(shape, Shape::Contents)).then_some(self)
    }

    fn check(&self, name: &[u8]) -> Result<(), DestinationError> {
        if self.by_code.as_ref().is_some_and(|by_code| !by_code.offer.has(name)) {
            return Err(DestinationError::NotRequested { path: escape(name).to_string() });
        }
        if self.refuses_hidden && name.starts_with(b".") {
            let path = escape(name).to_string();
            return Err(DestinationError::NameRefused { path, reason: NameRefused::Hidden });
        }
        Ok(())
    }
}

impl FileEvents {
    /// The same destination, with events and rules.
    pub(super) fn of(
        destination: Destination,
        sha256: Option<bool>,
        rules: Option<Expected>,
        tracker: Arc<Tracker>,
    ) -> Destination {
        let events = Self { destination: destination.clone(), sha256, rules, tracker };
        destination.with_policy(Arc::new(events))
    }
}

impl Policy for FileEvents {
    fn admit(&self, entry: &Entry) -> Result<Admission, DestinationError> {
        if let (Some(rules), Some(top)) = (&self.rules, entry.path.components().next()) {
            rules.check(top)?;
        }
        Ok(Admission::Compare)
    }

    fn on_file(&self, path: &RelPath, len_bytes: u64, event: FileEvent) -> Result<(), DestinationError> {
        let Some(sha256) = self.sha256 else { return Ok(()) };
        let is_received = match event {
            FileEvent::Identical => false,
            FileEvent::Published => true,
            FileEvent::Removed { is_directory } => {
                self.tracker.deleted(path.to_string(), is_directory);
                return Ok(());
            }
            FileEvent::Unexpected | FileEvent::NotSent(_) | FileEvent::Failed(_) => return Ok(()),
        };
        let sha256 = match sha256 {
            true => Some(self.destination.digest_of(path, DigestAlgorithm::Sha256)?.to_string()),
            false => None,
        };
        self.tracker.file(path.to_string(), len_bytes, is_received, sha256);
        Ok(())
    }
}
