//! The entries that may still be asked for.

use std::collections::VecDeque;

use shiplane_wire::{Entry, EntryKind, RelPath, Span, limits};

use super::{super::error::ProtocolFault, spans::FileSpan};

/// Entries by index, from the first unreleased one on.
#[derive(Debug, Default)]
pub(super) struct Entries {
    released: u64,
    kept: VecDeque<Entry>,
}

impl Entries {
    pub(super) fn add(&mut self, entry: Entry) {
        self.kept.push_back(entry);
    }

    /// SPEC 4.10: at the mark the scan waits for the receiver.
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() < limits::MAX_UNRELEASED_ENTRIES as usize - SCAN_MARGIN
    }

    /// How many have been added in all.
    pub(super) fn count(&self) -> u64 {
        self.released + self.kept.len() as u64
    }

    pub(super) fn release(&mut self, below: u64) -> Result<(), ProtocolFault> {
        if below < self.released || below > self.count() {
            return Err(ProtocolFault::UnknownEntry { entry: below });
        }
        let released = usize::try_from(below - self.released).unwrap_or(usize::MAX);
        self.kept.drain(..released.min(self.kept.len()));
        self.released = below;
        Ok(())
    }

    pub(super) fn file(&self, entry: u64) -> Result<&Entry, ProtocolFault> {
        let found = self.get(entry).ok_or(ProtocolFault::UnknownEntry { entry })?;
        match found.kind {
            EntryKind::File => Ok(found),
            EntryKind::Directory => Err(ProtocolFault::OutsideEntry { entry }),
        }
    }

    /// The wire has checked that the span is not empty and its end does not overflow.
    pub(super) fn check(&self, span: &Span) -> Result<(), ProtocolFault> {
        let file = self.file(span.entry)?;
        if span.offset_bytes + span.len_bytes > file.size_bytes {
            return Err(ProtocolFault::OutsideEntry { entry: span.entry });
        }
        Ok(())
    }

    /// A checked span with its file.
    pub(super) fn resolve(&self, span: &Span) -> Option<FileSpan> {
        Some(FileSpan { span: *span, entry: self.get(span.entry)?.clone() })
    }

    pub(super) fn path(&self, entry: u64) -> Option<&RelPath> {
        self.get(entry).map(|entry| &entry.path)
    }

    fn get(&self, entry: u64) -> Option<&Entry> {
        self.kept.get(usize::try_from(entry.checked_sub(self.released)?).ok()?)
    }
}

/// Entries that come in one batch after the mark has been reached.
const SCAN_MARGIN: usize = 1024;

#[cfg(test)]
mod tests {
    use shiplane_wire::{Mtime, RelPath, Version};

    use super::*;

    fn entries(sizes: &[u64]) -> Entries {
        let mut entries = Entries::default();
        for (i, &size_bytes) in sizes.iter().enumerate() {
            entries.add(Entry {
                kind: EntryKind::File,
                mode: 0o644,
                size_bytes,
                mtime: Mtime { secs: 0, nanos: 0 },
                version: Version::from_bytes([0; 16]),
                path: RelPath::parse(format!("f{i}").as_bytes()).unwrap(),
            });
        }
        entries
    }

    #[test]
    fn spans_lie_within_their_file() {
        let entries = entries(&[10]);
        let span = |entry, offset_bytes, len_bytes| Span { entry, offset_bytes, len_bytes };
        assert_eq!(entries.check(&span(0, 0, 10)), Ok(()));
        assert_eq!(entries.check(&span(0, 1, 10)), Err(ProtocolFault::OutsideEntry { entry: 0 }));
        assert_eq!(entries.check(&span(1, 0, 1)), Err(ProtocolFault::UnknownEntry { entry: 1 }));
    }

    #[test]
    fn a_released_entry_is_gone_and_nothing_is_released_twice_or_ahead() {
        let mut entries = entries(&[1, 2, 3]);
        entries.release(2).unwrap();
        assert_eq!(entries.file(1).unwrap_err(), ProtocolFault::UnknownEntry { entry: 1 });
        assert_eq!(entries.file(2).unwrap().size_bytes, 3);
        assert!(entries.release(1).is_err());
        assert!(entries.release(4).is_err());
        assert_eq!(entries.count(), 3);
    }
}
