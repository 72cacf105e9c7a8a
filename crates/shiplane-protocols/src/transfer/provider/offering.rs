//! Offers: the first chunks, sent without a want if invited (SPEC 4.24).

use shiplane_wire::{Entry, EntryKind, Piece, Span, limits};

use super::super::packer::Packer;

/// Packs the first files into chunks, in manifest order, as for a receiver that has nothing.
#[derive(Debug)]
pub(super) struct Offering {
    packer: Packer,
    offered_bytes: u64,
    offers: u64,
}

impl Offering {
    pub(super) fn new() -> Self {
        Self { packer: Packer::new(Piece::CELL_LEN_BYTES), offered_bytes: 0, offers: 0 }
    }

    /// The entry with this index has been listed.
    pub(super) fn listed(&mut self, index: u64, entry: &Entry) {
        // Files with holes and further names of files are sent when they are requested.
        let is_whole = entry.holes.is_empty() && entry.first.is_none_or(|first| first == index);
        if entry.kind == EntryKind::File && entry.size_bytes > 0 && is_whole {
            if entry.size_bytes >= Piece::CELL_LEN_BYTES {
                // It has chunks of its own, and those before it come first.
                self.packer.flush();
            }
            let whole = 0..entry.size_bytes;
            self.packer.add(index, entry.size_bytes, vec![whole]);
        }
    }

    /// No entry follows for now: an incomplete chunk is offered too.
    pub(super) fn flush(&mut self) {
        self.packer.flush();
    }

    /// The next chunk to offer, while there is one.
    pub(super) fn next(&mut self) -> Option<Vec<Span>> {
        if self.is_full() {
            return None;
        }
        let spans = self.packer.next()?;
        self.offered_bytes += len_bytes(&spans);
        self.offers += 1;
        Some(spans)
    }

    /// Whether nothing more may be offered.
    pub(super) fn is_full(&mut self) -> bool {
        let next_bytes = self.packer.peek().map_or(0, len_bytes);
        self.offers >= limits::MAX_OFFERS || self.offered_bytes + next_bytes > limits::MAX_OFFERED_BYTES
    }
}

fn len_bytes(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.len_bytes).sum()
}

#[cfg(test)]
mod tests {
    use shiplane_wire::{Holes, Mtime, RelPath, Version};

    use super::*;

    fn file(size_bytes: u64) -> Entry {
        Entry {
            kind: EntryKind::File,
            mode: 0o644,
            size_bytes,
            mtime: Mtime { secs: 0, nanos: 0 },
            version: Version::from_bytes([0; 16]),
            path: RelPath::parse(b"f").unwrap(),
            target: None,
            first: None,
            holes: Holes::default(),
            attributes: None,
        }
    }

    fn offers(sizes: &[u64]) -> Vec<Vec<Span>> {
        let mut offering = Offering::new();
        for (index, size_bytes) in sizes.iter().enumerate() {
            offering.listed(index as u64, &file(*size_bytes));
        }
        offering.flush();
        std::iter::from_fn(|| offering.next()).collect()
    }

    #[test]
    fn a_large_file_is_offered_in_pieces_up_to_the_limit() {
        let offers = offers(&[1 << 30]);
        assert_eq!(offers.len() as u64, limits::MAX_OFFERED_BYTES / Piece::CELL_LEN_BYTES);
        for (index, spans) in offers.iter().enumerate() {
            let offset_bytes = index as u64 * Piece::CELL_LEN_BYTES;
            assert_eq!(spans, &[Span { entry: 0, offset_bytes, len_bytes: Piece::CELL_LEN_BYTES }]);
        }
    }

    #[test]
    fn small_files_share_offers_and_empty_ones_have_none() {
        let offers = offers(&[10, 0, 20, 60 << 10, 1]);
        let entries: Vec<Vec<u64>> =
            offers.iter().map(|spans| spans.iter().map(|span| span.entry).collect()).collect();
        assert_eq!(entries, [vec![0, 2, 3, 4]]);
        let order: Vec<u64> =
            self::offers(&[1, 100 << 10, 2]).iter().flatten().map(|span| span.entry).collect();
        assert_eq!(order, [0, 1, 1, 2]);
        assert_eq!(self::offers(&[40 << 10; 100]).len() as u64, limits::MAX_OFFERED_BYTES / (40 << 10));
        assert_eq!(self::offers(&[32769; 100]).len() as u64, limits::MAX_OFFERS - 1);
    }

    #[test]
    fn a_file_whose_chunks_are_longer_than_all_offers_is_not_offered() {
        let mut offering = Offering::new();
        offering.listed(0, &file(1 << 40));
        assert_eq!((offering.next(), offering.is_full()), (None, true));
    }
}
