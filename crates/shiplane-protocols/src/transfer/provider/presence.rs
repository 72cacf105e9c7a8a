//! Estimates how much the receiver has already. Pure.

use std::collections::VecDeque;

use shiplane_wire::Span;

/// A provider does not learn what it need not send. But wants come in the order of the entries, nearly: so
/// what they have passed by and did not want is there. Exact once the receiver wants no more.
#[derive(Debug, Default)]
pub(super) struct Presence {
    released: u64,
    /// For each unreleased entry, the sizes of all before it.
    starts: VecDeque<u64>,
    listed_bytes: u64,
    passed_bytes: u64,
    wanted_bytes: u64,
    /// What [`news`](Self::news) last said.
    reported_bytes: u64,
}

impl Presence {
    /// The next entry.
    pub(super) fn list(&mut self, size_bytes: u64) {
        self.starts.push_back(self.listed_bytes);
        self.listed_bytes += size_bytes;
    }

    /// This is wanted, and has been checked to lie within its entry.
    pub(super) fn want(&mut self, span: &Span) {
        self.wanted_bytes += span.len_bytes;
        if let Some(start) = self.start_of(span.entry) {
            self.pass(start + span.offset_bytes + span.len_bytes);
        }
    }

    /// Nothing below this entry will be wanted again.
    pub(super) fn release(&mut self, below: u64) {
        let start = self.start_of(below).unwrap_or(self.listed_bytes);
        self.pass(start);
        let released = usize::try_from(below.saturating_sub(self.released)).unwrap_or(usize::MAX);
        self.starts.drain(..released.min(self.starts.len()));
        self.released = below;
    }

    /// Nothing at all will be.
    pub(super) fn end(&mut self) {
        self.pass(self.listed_bytes);
    }

    /// How much is there, if that is more than was said before: what is wanted a second time, or late, does
    /// not take anything back.
    pub(super) fn news(&mut self) -> Option<u64> {
        let present_bytes = self.passed_bytes.saturating_sub(self.wanted_bytes);
        let is_more = present_bytes > self.reported_bytes;
        self.reported_bytes = self.reported_bytes.max(present_bytes);
        is_more.then_some(present_bytes)
    }

    /// Whether nothing that is listed was left to be wanted.
    pub(super) fn is_passed(&self) -> bool {
        self.passed_bytes >= self.listed_bytes
    }

    fn pass(&mut self, at_bytes: u64) {
        self.passed_bytes = self.passed_bytes.max(at_bytes);
    }

    fn start_of(&self, entry: u64) -> Option<u64> {
        let at = usize::try_from(entry.checked_sub(self.released)?).ok()?;
        self.starts.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(sizes: &[u64]) -> Presence {
        let mut presence = Presence::default();
        sizes.iter().for_each(|&size_bytes| presence.list(size_bytes));
        presence
    }

    fn span(entry: u64, offset_bytes: u64, len_bytes: u64) -> Span {
        Span { entry, offset_bytes, len_bytes }
    }

    #[test]
    fn the_first_want_of_a_resumed_file_shows_the_bytes_before_it_are_present() {
        let mut presence = listed(&[100]);
        assert_eq!(presence.news(), None);
        presence.want(&span(0, 60, 10));
        assert_eq!(presence.news(), Some(60));
        presence.want(&span(0, 70, 30));
        assert_eq!(presence.news(), None);
        presence.end();
        assert_eq!(presence.news(), None);
    }

    #[test]
    fn entries_released_without_a_want_are_present() {
        let mut presence = listed(&[10, 20, 30]);
        presence.release(2);
        assert_eq!(presence.news(), Some(30));
        presence.want(&span(2, 5, 25));
        assert_eq!(presence.news(), Some(35));
        presence.release(3);
        assert_eq!(presence.news(), None);
    }

    #[test]
    fn a_second_want_of_the_same_bytes_takes_nothing_back() {
        let mut presence = listed(&[100]);
        presence.want(&span(0, 50, 50));
        assert_eq!(presence.news(), Some(50));
        presence.want(&span(0, 50, 50));
        presence.end();
        assert_eq!(presence.news(), None);
    }
}
