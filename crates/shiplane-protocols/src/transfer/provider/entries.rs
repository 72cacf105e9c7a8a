//! The entries that the receiver has not released.

use std::collections::VecDeque;

use shiplane_wire::{Entry, EntryKind, RelPath, Span, limits};

use super::{super::error::ProtocolFault, spans::FileSpan};

/// Entries by index, from the first unreleased one on.
#[derive(Debug)]
pub(super) struct Entries {
    released: u64,
    /// What all that were added count as, and may.
    sent_bytes: u64,
    admitted_bytes: u64,
    kept: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// What may still be asked about it.
    may_ask_digest: bool,
    signature_bytes_left: u64,
}

impl Default for Entries {
    fn default() -> Self {
        let admitted_bytes = limits::FIRST_ENTRY_BYTES;
        Self { released: 0, sent_bytes: 0, admitted_bytes, kept: VecDeque::new() }
    }
}

impl Entries {
    pub(super) fn add(&mut self, entry: Entry) {
        self.sent_bytes += entry.cost_bytes();
        let signature_bytes_left = entry.size_bytes.saturating_mul(MAX_SIGNATURE_ROUNDS);
        self.kept.push_back(Kept { entry, may_ask_digest: true, signature_bytes_left });
    }

    /// The receiver admits entries of this cost in all.
    pub(super) fn admit(&mut self, bytes: u64) {
        self.admitted_bytes = self.admitted_bytes.max(bytes);
    }

    /// SPEC 4.10: whether an entry of this cost may be sent.
    pub(super) fn admits(&self, cost_bytes: u64) -> bool {
        self.sent_bytes.saturating_add(cost_bytes) <= self.admitted_bytes
    }

    /// How many have been added in all.
    pub(super) fn count(&self) -> u64 {
        self.released + self.kept.len() as u64
    }

    /// Returns how many are released by that, and what they count as.
    pub(super) fn release(&mut self, below: u64) -> Result<(u64, u64), ProtocolFault> {
        if below < self.released || below > self.count() {
            return Err(ProtocolFault::UnknownEntry { entry: below });
        }
        let count = below - self.released;
        let released = usize::try_from(count).unwrap_or(usize::MAX);
        let released = self.kept.drain(..released.min(self.kept.len()));
        let freed_bytes = released.map(|kept| kept.entry.cost_bytes()).sum();
        self.released = below;
        Ok((count, freed_bytes))
    }

    /// The file whose digest is asked for, which may happen once.
    pub(super) fn ask_digest(&mut self, entry: u64) -> Result<Entry, ProtocolFault> {
        self.file(entry)?;
        let kept = self.get_mut(entry).ok_or(ProtocolFault::UnknownEntry { entry })?;
        if !std::mem::take(&mut kept.may_ask_digest) {
            return Err(ProtocolFault::TooManyWants);
        }
        Ok(kept.entry.clone())
    }

    /// The file whose block signatures are requested for a checked span: in all, at most twice its size.
    pub(super) fn request_signatures(&mut self, span: &Span) -> Result<Entry, ProtocolFault> {
        let unknown = ProtocolFault::UnknownEntry { entry: span.entry };
        let kept = self.get_mut(span.entry).ok_or(unknown)?;
        let left = kept.signature_bytes_left.checked_sub(span.len_bytes);
        kept.signature_bytes_left = left.ok_or(ProtocolFault::TooManyWants)?;
        Ok(kept.entry.clone())
    }

    pub(super) fn file(&self, entry: u64) -> Result<&Entry, ProtocolFault> {
        let found = self.get(entry).ok_or(ProtocolFault::UnknownEntry { entry })?;
        match found.kind {
            EntryKind::File => Ok(found),
            EntryKind::Directory | EntryKind::Symlink => Err(ProtocolFault::OutsideEntry { entry }),
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
        let kept = self.kept.get(usize::try_from(entry.checked_sub(self.released)?).ok()?)?;
        Some(&kept.entry)
    }

    fn get_mut(&mut self, entry: u64) -> Option<&mut Kept> {
        self.kept.get_mut(usize::try_from(entry.checked_sub(self.released)?).ok()?)
    }
}

/// Large pieces of all of a file, then small ones of what was not found.
const MAX_SIGNATURE_ROUNDS: u64 = 2;

#[cfg(test)]
mod tests {
    use shiplane_wire::{Holes, Mtime, RelPath, Version};

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
                target: None,
                first: None,
                holes: Holes::default(),
                attributes: None,
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
    fn no_more_is_sent_than_the_receiver_admits() {
        let mut entries = entries(&[1]);
        let left = limits::FIRST_ENTRY_BYTES - (limits::ENTRY_COST_BYTES + 2);
        assert!(entries.admits(left) && !entries.admits(left + 1));
        entries.admit(limits::FIRST_ENTRY_BYTES + 1);
        entries.admit(1);
        assert!(entries.admits(left + 1) && !entries.admits(left + 2), "it never falls");
    }

    #[test]
    fn a_digest_is_requested_once_and_signatures_for_twice_the_file() {
        let mut entries = entries(&[10]);
        assert!(entries.ask_digest(0).is_ok());
        assert_eq!(entries.ask_digest(0), Err(ProtocolFault::TooManyWants));
        let whole = Span { entry: 0, offset_bytes: 0, len_bytes: 10 };
        assert!(entries.request_signatures(&whole).is_ok() && entries.request_signatures(&whole).is_ok());
        let byte = Span { len_bytes: 1, ..whole };
        assert_eq!(entries.request_signatures(&byte), Err(ProtocolFault::TooManyWants));
    }

    #[test]
    fn a_released_entry_is_gone_and_nothing_is_released_twice_or_ahead() {
        let mut entries = entries(&[1, 2, 3]);
        assert_eq!(entries.release(2), Ok((2, 2 * (limits::ENTRY_COST_BYTES + 2))));
        assert_eq!(entries.file(1).unwrap_err(), ProtocolFault::UnknownEntry { entry: 1 });
        assert_eq!(entries.file(2).unwrap().size_bytes, 3);
        assert!(entries.release(1).is_err());
        assert!(entries.release(4).is_err());
        assert_eq!(entries.count(), 3);
    }
}
