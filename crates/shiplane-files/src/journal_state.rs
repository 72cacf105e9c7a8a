//! The state of earlier runs, read from their journal.

use std::collections::HashMap;
use std::sync::Arc;

use shiplane_wire::{Piece, RelPath, Version};

use crate::{
    record::{JournalRecord, KeptChunk},
    state::UNKNOWN_SIZE,
};

/// Files that were begun and chunks that were kept, none of it verified at first.
///
/// A chunk stays as long as one of its files is unpublished, and so do the files of such a chunk, because
/// its digest can be checked over all of them only. Everything else is forgotten while the journal is
/// read, so that memory is bounded by what was unfinished. Where that is more than any honest run leaves, all of it is
/// forgotten: its temporary files are removed at the end as those are that no journal knows.
#[derive(Debug, Default)]
pub(super) struct JournalState {
    cost_bytes: u64,
    files: HashMap<u64, OldFile>,
    ids: HashMap<RelPath, u64>,
    chunks: HashMap<u64, OldChunk>,
    next_chunk: u64,
    next_id: u64,
    /// Files whose place in `files` another state of the same path took.
    superseded: Vec<(u64, RelPath)>,
    /// What is here, by whomever, may be in the cache alone.
    pub(super) has_failed_sync: bool,
}

#[derive(Debug)]
struct OldFile {
    path: RelPath,
    size_bytes: u64,
    version: Version,
    state: OldFileState,
    /// Numbers of its chunks; some may be forgotten.
    chunks: Vec<u64>,
    /// How many of them are not.
    live_chunks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OldFileState {
    /// It has a temporary file that this run has not asked for.
    Left,
    /// It has its final name.
    Published,
    /// This run goes on with it, or has given it up.
    Settled,
}

#[derive(Debug)]
struct OldChunk {
    kept: Arc<KeptChunk>,
    is_good: Option<bool>,
    unpublished: usize,
}

/// A file that an earlier run began and did not publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) id: u64,
    pub(super) size_bytes: u64,
    pub(super) version: Version,
}

/// A chunk to verify, with the paths of the files that its spans are in.
#[derive(Clone, Debug)]
pub(super) struct Unverified {
    pub(super) number: u64,
    pub(super) kept: Arc<KeptChunk>,
    pub(super) paths: Vec<RelPath>,
    /// Which piece of its file it is, if it is one.
    pub(super) piece: Option<Piece>,
}

impl JournalState {
    /// Takes the next record of the journal; `None` if it contradicts those before, so that the journal
    /// cannot be ours.
    pub(super) fn apply(&mut self, record: JournalRecord) -> Option<()> {
        let applied = match record {
            JournalRecord::Begun { id, size_bytes, version, path } => {
                self.begun(id, size_bytes, version, path)
            }
            JournalRecord::Kept(chunk) => self.kept(chunk),
            JournalRecord::Published(ids) => self.each_known(&ids, Self::published),
            JournalRecord::Dropped(ids) => self.each_known(&ids, Self::dropped),
            JournalRecord::SyncFailed => {
                self.has_failed_sync = true;
                Some(())
            }
        };
        if self.cost_bytes > MAX_COST_BYTES {
            drop(self.forget_all());
        }
        applied
    }

    /// What all of it counts as.
    pub(super) fn cost_bytes(&self) -> u64 {
        self.cost_bytes
    }

    /// A number for a file that was never used in this journal.
    pub(super) fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// What is left of `path` and has not been settled yet.
    pub(super) fn find(&self, path: &RelPath) -> Option<Left> {
        let id = *self.ids.get(path)?;
        let file = self.files.get(&id)?;
        let left = Left { id, size_bytes: file.size_bytes, version: file.version };
        (file.state == OldFileState::Left).then_some(left)
    }

    /// The chunks with bytes of `id` that were not verified yet; `shared_only`: those that have bytes of
    /// other files, too.
    pub(super) fn unverified(&self, id: u64, shared_only: bool) -> Vec<Unverified> {
        let Some(file) = self.files.get(&id) else {
            return Vec::new();
        };
        let chunks = file.chunks.iter().filter_map(|number| Some((*number, self.chunks.get(number)?)));
        chunks
            .filter(|(_, chunk)| chunk.is_good.is_none())
            .filter(|(_, chunk)| !shared_only || chunk.kept.spans.iter().any(|span| span.id != id))
            .filter_map(|(number, chunk)| {
                let path_of = |id| self.files.get(&id).map(|file| file.path.clone());
                let paths: Option<Vec<_>> = chunk.kept.spans.iter().map(|span| path_of(span.id)).collect();
                let piece = match &chunk.kept.spans[..] {
                    [span] if file.size_bytes != UNKNOWN_SIZE => {
                        Piece::of_file(span.offset_bytes, span.len_bytes, file.size_bytes)
                    }
                    // Those of a file in parts are hashed plainly (SPEC 4.32).
                    _ => None,
                };
                Some(Unverified { number, kept: Arc::clone(&chunk.kept), paths: paths?, piece })
            })
            .collect()
    }

    /// Notes whether a chunk's bytes are still what they were.
    pub(super) fn judge(&mut self, number: u64, is_good: bool) {
        if let Some(chunk) = self.chunks.get_mut(&number) {
            chunk.is_good = Some(is_good);
        }
    }

    /// The byte ranges of `id` that are in chunks found good.
    pub(super) fn good_ranges(&self, id: u64) -> Vec<std::ops::Range<u64>> {
        let chunks = self.files.get(&id).into_iter().flat_map(|file| &file.chunks);
        chunks
            .filter_map(|number| self.chunks.get(number))
            .filter(|chunk| chunk.is_good == Some(true))
            .flat_map(|chunk| chunk.kept.spans.iter().filter(|span| span.id == id))
            .map(|span| span.offset_bytes..span.offset_bytes + span.len_bytes)
            .collect()
    }

    /// This run goes on with the file, or has removed it: [`find`](Self::find) does not give it again.
    pub(super) fn settle(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            file.state = OldFileState::Settled;
        }
    }

    /// The files that were not settled: their temporary files are to be removed at the end.
    pub(super) fn take_unsettled(&mut self) -> Vec<(u64, RelPath)> {
        let mut unsettled = std::mem::take(&mut self.superseded);
        for (id, file) in &mut self.files {
            if file.state == OldFileState::Left {
                file.state = OldFileState::Settled;
                unsettled.push((*id, file.path.clone()));
            }
        }
        unsettled
    }

    /// The files that may have a temporary file, settled or not, all of which are forgotten.
    pub(super) fn forget_all(&mut self) -> Vec<(u64, RelPath)> {
        // A number is not used twice.
        let Self { next_id, next_chunk, has_failed_sync, .. } = *self;
        let none = Self { next_id, next_chunk, has_failed_sync, ..Self::default() };
        let Self { files, superseded, .. } = std::mem::replace(self, none);
        let files = files.into_iter().filter(|(_, file)| file.state != OldFileState::Published);
        superseded.into_iter().chain(files.map(|(id, file)| (id, file.path))).collect()
    }

    fn begun(&mut self, id: u64, size_bytes: u64, version: Version, path: RelPath) -> Option<()> {
        if self.files.contains_key(&id) || id > MAX_ID {
            return None;
        }
        // Files are begun in the order of their chunks, not of their numbers.
        self.next_id = self.next_id.max(id + 1);
        if let Some(old) = self.ids.insert(path.clone(), id) {
            let is_left = self.files.get(&old).is_some_and(|file| file.state == OldFileState::Left);
            if is_left {
                self.superseded.push((old, path.clone()));
                self.cost_bytes += file_cost_bytes(&path);
                self.dropped(old);
            }
        }
        self.cost_bytes += file_cost_bytes(&path);
        let file = OldFile {
            path,
            size_bytes,
            version,
            state: OldFileState::Left,
            chunks: Vec::new(),
            live_chunks: 0,
        };
        self.files.insert(id, file);
        Some(())
    }

    fn kept(&mut self, kept: KeptChunk) -> Option<()> {
        for span in &kept.spans {
            if span.id >= self.next_id {
                return None;
            }
            let Some(file) = self.files.get(&span.id) else {
                // Of a file that was given up while the chunk was written: it cannot be verified.
                return Some(());
            };
            let end = span.offset_bytes.checked_add(span.len_bytes)?;
            if span.len_bytes == 0 || end > file.size_bytes {
                return None;
            }
        }
        let number = self.next_chunk;
        self.next_chunk += 1;
        let mut unpublished = 0;
        for span in &kept.spans {
            if let Some(file) = self.files.get_mut(&span.id)
                && file.chunks.last() != Some(&number)
            {
                file.chunks.push(number);
                file.live_chunks += 1;
                unpublished += usize::from(file.state == OldFileState::Left);
            }
        }
        self.cost_bytes += chunk_cost_bytes(&kept);
        self.chunks.insert(number, OldChunk { kept: Arc::new(kept), is_good: None, unpublished });
        Some(())
    }

    fn each_known(&mut self, ids: &[u64], settle: impl Fn(&mut Self, u64)) -> Option<()> {
        for id in ids {
            if *id >= self.next_id {
                return None;
            }
            settle(self, *id);
        }
        Some(())
    }

    fn published(&mut self, id: u64) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        if file.state == OldFileState::Published {
            return;
        }
        file.state = OldFileState::Published;
        for number in file.chunks.clone() {
            if let Some(chunk) = self.chunks.get_mut(&number) {
                chunk.unpublished = chunk.unpublished.saturating_sub(1);
                if chunk.unpublished == 0 {
                    self.forget_chunk(number);
                }
            }
        }
        self.forget_if_unused(id);
    }

    fn dropped(&mut self, id: u64) {
        let chunks = self.files.get(&id).map(|file| file.chunks.clone());
        for number in chunks.into_iter().flatten() {
            self.forget_chunk(number);
        }
        self.forget_file(id);
    }

    fn forget_chunk(&mut self, number: u64) {
        let Some(chunk) = self.chunks.remove(&number) else {
            return;
        };
        self.cost_bytes -= chunk_cost_bytes(&chunk.kept);
        let mut last = None;
        for span in &chunk.kept.spans {
            if last.replace(span.id) == Some(span.id) {
                continue;
            }
            if let Some(file) = self.files.get_mut(&span.id) {
                file.live_chunks = file.live_chunks.saturating_sub(1);
            }
            self.forget_if_unused(span.id);
        }
    }

    fn forget_if_unused(&mut self, id: u64) {
        let unused = |file: &OldFile| file.state == OldFileState::Published && file.live_chunks == 0;
        if self.files.get(&id).is_some_and(unused) {
            self.forget_file(id);
        }
    }

    fn forget_file(&mut self, id: u64) {
        let Some(file) = self.files.remove(&id) else { return };
        self.cost_bytes -= file_cost_bytes(&file.path);
        if self.ids.get(&file.path) == Some(&id) {
            self.ids.remove(&file.path);
        }
    }
}

/// With its path, in two maps.
fn file_cost_bytes(path: &RelPath) -> u64 {
    256 + path.as_bytes().len() as u64
}

/// With its number at each of its files.
fn chunk_cost_bytes(kept: &KeptChunk) -> u64 {
    192 + 32 * kept.spans.len() as u64
}

/// 32 MiB: the chunks of two files of a terabyte, or a hundred thousand small files that were begun and not finished; a
/// run has twenty thousand under way at most.
const MAX_COST_BYTES: u64 = 32 << 20;

/// Numbers are given from 0 on: a journal with a larger one is not ours, and there is always a next one.
const MAX_ID: u64 = u64::MAX / 2;

#[cfg(test)]
mod tests {
    use shiplane_wire::Digest;

    use super::*;
    use crate::record::KeptSpan;

    fn path(id: u64) -> RelPath {
        RelPath::parse(format!("f{id}").as_bytes()).unwrap()
    }

    fn begun(id: u64) -> JournalRecord {
        JournalRecord::Begun { id, size_bytes: 10, version: Version::from_bytes([0; 16]), path: path(id) }
    }

    fn kept(spans: &[(u64, u64, u64)]) -> JournalRecord {
        let spans =
            spans.iter().map(|&(id, offset_bytes, len_bytes)| KeptSpan { id, offset_bytes, len_bytes });
        JournalRecord::Kept(KeptChunk { digest: Digest::blake3(b""), spans: spans.collect() })
    }

    fn replay(records: impl IntoIterator<Item = JournalRecord>) -> Option<JournalState> {
        let mut earlier = JournalState::default();
        records.into_iter().try_for_each(|record| earlier.apply(record))?;
        Some(earlier)
    }

    #[test]
    fn records_that_contradict_each_other_are_not_ours() {
        for records in [
            vec![begun(0), begun(0)],
            vec![begun(u64::MAX)],
            // Found by the fuzzer: there was no number left for the next file.
            vec![begun(u64::MAX - 1)],
            vec![kept(&[(0, 0, 1)])],
            vec![begun(0), kept(&[(1, 0, 1)])],
            vec![begun(0), kept(&[(0, 5, 6)])],
            vec![begun(0), kept(&[(0, u64::MAX, 2)])],
            vec![begun(0), kept(&[(0, 3, 0)])],
            vec![JournalRecord::Published(vec![0])],
            vec![begun(0), JournalRecord::Dropped(vec![0, 1])],
        ] {
            assert!(replay(records.clone()).is_none(), "{records:?}");
        }
    }

    #[test]
    fn what_is_published_is_forgotten_once_its_chunks_are() {
        let records = [begun(0), begun(1), kept(&[(0, 0, 10), (1, 0, 4)]), kept(&[(1, 4, 6)])];
        let published = |ids: &[u64]| JournalRecord::Published(ids.to_vec());
        let mut one = replay(records.iter().cloned().chain([published(&[0])])).unwrap();
        // The other file's chunk cannot be verified without it.
        assert_eq!((one.files.len(), one.chunks.len()), (2, 2));
        assert!(one.find(&path(0)).is_none() && one.find(&path(1)).is_some());
        assert_eq!(one.unverified(1, false).len(), 2);
        assert_eq!(one.unverified(1, true).len(), 1);
        assert_eq!(one.take_unsettled(), [(1, path(1))]);

        let both = replay(records.into_iter().chain([published(&[0]), published(&[0, 1])])).unwrap();
        assert!(both.files.is_empty() && both.chunks.is_empty() && both.ids.is_empty());
        assert_eq!(both.cost_bytes, 0);
        assert_eq!(both.next_id, 2);
    }

    #[test]
    fn a_file_that_was_given_up_takes_its_chunks_along() {
        let dropped = JournalRecord::Dropped(vec![0]);
        let records = [begun(0), begun(1), kept(&[(0, 0, 10), (1, 0, 4)]), kept(&[(1, 4, 6)]), dropped];
        // Such a chunk may be written after the file was given up.
        let late = kept(&[(0, 0, 1), (1, 0, 1)]);
        let mut earlier = replay(records.into_iter().chain([late])).unwrap();
        assert!(earlier.find(&path(0)).is_none());
        let [chunk] = earlier.unverified(1, false).try_into().unwrap();
        earlier.judge(chunk.number, true);
        let good = 4..10;
        assert_eq!(earlier.good_ranges(1), [good]);
        assert!(earlier.unverified(1, false).is_empty());
        earlier.settle(1);
        assert!(earlier.find(&path(1)).is_none() && earlier.take_unsettled().is_empty());
    }

    #[test]
    fn more_than_any_honest_run_leaves_is_forgotten_and_no_number_is_used_twice() {
        const FILES: u64 = 300_000;
        let mut earlier = JournalState::default();
        for id in 0..FILES {
            earlier.apply(begun(id)).unwrap();
            assert!(earlier.cost_bytes <= MAX_COST_BYTES);
        }
        assert!((1..FILES as usize / 2).contains(&earlier.files.len()), "{}", earlier.files.len());
        assert_eq!(earlier.files.len(), earlier.ids.len());
        assert!(earlier.find(&path(0)).is_none() && earlier.find(&path(FILES - 1)).is_some());
        // Records of forgotten files change nothing.
        earlier.apply(kept(&[(0, 0, 1), (FILES - 1, 0, 1)])).unwrap();
        earlier.apply(JournalRecord::Published(vec![0, FILES - 1])).unwrap();
        assert_eq!(earlier.fresh_id(), FILES);
    }

    #[test]
    fn another_state_of_a_file_supersedes_the_first() {
        let again = JournalRecord::Begun {
            id: 5,
            size_bytes: 3,
            version: Version::from_bytes([1; 16]),
            path: path(0),
        };
        let mut earlier = replay([begun(0), kept(&[(0, 0, 10)]), again]).unwrap();
        let left = earlier.find(&path(0)).unwrap();
        assert_eq!((left.id, left.size_bytes), (5, 3));
        assert_eq!(earlier.take_unsettled(), [(0, path(0)), (5, path(0))]);
        assert_eq!(earlier.fresh_id(), 6);
    }
}
