//! Encodes the records of a journal.
//!
//! A record is `body length u32 | body | first 8 bytes of BLAKE3 of the body`, little-endian. The body
//! begins with its type.

use std::io::{self, Read};

use shiplane_wire::{Digest, RelPath, Version};

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JournalRecord {
    /// From here on `id` stands for this state of this file, and a temporary file of that number may
    /// exist beside it.
    Begun { id: u64, size_bytes: u64, version: Version, path: RelPath },
    /// A chunk was written.
    Kept(KeptChunk),
    /// These files have their final names.
    Published(Vec<u64>),
    /// These files were given up and their temporary files removed.
    Dropped(Vec<u64>),
    /// A sync of a whole file system has failed: what is here may be in the cache alone.
    SyncFailed,
}

/// A chunk that was written and the digest of its bytes, span after span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptChunk {
    pub(crate) digest: Digest,
    pub(crate) spans: Box<[KeptSpan]>,
}

/// Bytes of one file in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptSpan {
    pub(crate) id: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) len_bytes: u64,
}

/// Records to append in one write.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<u8>);

impl Batch {
    pub(crate) fn begun(&mut self, id: u64, size_bytes: u64, version: Version, path: &RelPath) {
        self.put(BEGUN, |body| {
            body.extend_from_slice(&id.to_le_bytes());
            body.extend_from_slice(&size_bytes.to_le_bytes());
            body.extend_from_slice(version.as_bytes());
            body.extend_from_slice(path.as_bytes());
        });
    }

    pub(crate) fn kept(&mut self, digest: Digest, spans: impl IntoIterator<Item = KeptSpan>) {
        self.put(KEPT, |body| {
            body.extend_from_slice(digest.as_bytes());
            for span in spans {
                for field in [span.id, span.offset_bytes, span.len_bytes] {
                    body.extend_from_slice(&field.to_le_bytes());
                }
            }
        });
    }

    pub(crate) fn published(&mut self, ids: &[u64]) {
        self.put_ids(PUBLISHED, ids);
    }

    pub(crate) fn dropped(&mut self, ids: &[u64]) {
        self.put_ids(DROPPED, ids);
    }

    pub(crate) fn sync_failed(&mut self) {
        self.put(SYNC_FAILED, |_| ());
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn put_ids(&mut self, tag: u8, ids: &[u64]) {
        for ids in ids.chunks(MAX_IDS) {
            self.put(tag, |body| body.extend(ids.iter().flat_map(|id| id.to_le_bytes())));
        }
    }

    fn put(&mut self, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; LEN_LEN_BYTES]);
        self.0.push(tag);
        fill(&mut self.0);
        let body_start = start + LEN_LEN_BYTES;
        let check = check_of(&self.0[body_start..]);
        // Bodies are below MAX_BODY_LEN_BYTES: a chunk has at most 1,024 spans, a path 32 KiB.
        let len = (self.0.len() - body_start) as u32;
        self.0[start..body_start].copy_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(&check);
    }
}

/// What comes next in a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record that is as it was written.
    Record {
        record: JournalRecord,
        /// What it takes in the file.
        len_bytes: u64,
    },
    /// Nothing, or what a write that was cut off leaves.
    End,
    /// Bytes that were written so and that this program does not write.
    Malformed,
}

/// Reads one record; `body` is scratch space.
pub(super) fn read_next(input: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Next> {
    let mut len = [0; LEN_LEN_BYTES];
    if !fill(input, &mut len)? {
        return Ok(Next::End);
    }
    let len = u32::from_le_bytes(len);
    if len == 0 || len > MAX_BODY_LEN_BYTES {
        return Ok(Next::End);
    }
    body.clear();
    body.resize(len as usize, 0);
    let mut check = [0; CHECK_LEN_BYTES];
    if !fill(input, body)? || !fill(input, &mut check)? || check != check_of(body) {
        return Ok(Next::End);
    }
    let len_bytes = (LEN_LEN_BYTES + CHECK_LEN_BYTES) as u64 + u64::from(len);
    Ok(match decode(body) {
        Some(record) => Next::Record { record, len_bytes },
        None => Next::Malformed,
    })
}

/// Appends a record whose body may be none.
pub(super) fn put_raw(journal: &mut Vec<u8>, body: &[u8]) {
    journal.extend_from_slice(&(body.len() as u32).to_le_bytes());
    journal.extend_from_slice(body);
    journal.extend_from_slice(&check_of(body));
}

/// Most bytes of a body. The largest honest one is a chunk of 1,024 spans, some 24 KiB.
const MAX_BODY_LEN_BYTES: u32 = 64 << 10;

/// Most ids in one record; larger sets are split.
const MAX_IDS: usize = 4096;

const LEN_LEN_BYTES: usize = 4;
const CHECK_LEN_BYTES: usize = 8;

const BEGUN: u8 = 1;
const KEPT: u8 = 2;
const PUBLISHED: u8 = 3;
const DROPPED: u8 = 4;
const SYNC_FAILED: u8 = 5;

/// `false` if the input ends before `buffer` is full.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_of(body: &[u8]) -> [u8; CHECK_LEN_BYTES] {
    let mut check = [0; CHECK_LEN_BYTES];
    check.copy_from_slice(&Digest::blake3(body).as_bytes()[..CHECK_LEN_BYTES]);
    check
}

fn decode(body: &[u8]) -> Option<JournalRecord> {
    let (&tag, mut rest) = body.split_first()?;
    match tag {
        BEGUN => {
            let (id, size_bytes) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            let version = Version::from_bytes(take(&mut rest)?);
            Some(JournalRecord::Begun { id, size_bytes, version, path: RelPath::parse(rest).ok()? })
        }
        KEPT => {
            let digest = Digest::from_bytes(take(&mut rest)?);
            let mut spans = Vec::with_capacity(rest.len() / SPAN_LEN_BYTES);
            while !rest.is_empty() {
                let (id, offset_bytes) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
                let len_bytes = take_u64(&mut rest)?;
                spans.push(KeptSpan { id, offset_bytes, len_bytes });
            }
            Some(JournalRecord::Kept(KeptChunk { digest, spans: spans.into() }))
        }
        PUBLISHED => take_ids(rest).map(JournalRecord::Published),
        DROPPED => take_ids(rest).map(JournalRecord::Dropped),
        SYNC_FAILED if rest.is_empty() => Some(JournalRecord::SyncFailed),
        _ => None,
    }
}

const SPAN_LEN_BYTES: usize = 24;

fn take_ids(mut rest: &[u8]) -> Option<Vec<u64>> {
    let mut ids = Vec::with_capacity(rest.len() / 8);
    while !rest.is_empty() {
        ids.push(take_u64(&mut rest)?);
    }
    Some(ids)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = JournalRecord> {
        let span = any::<(u64, u64, u64)>().prop_map(|(id, offset_bytes, len_bytes)| KeptSpan {
            id,
            offset_bytes,
            len_bytes,
        });
        prop_oneof![
            (any::<(u64, u64, [u8; 16])>(), "[a-z]{1,9}(/[a-z]{1,9}){0,3}").prop_map(
                |((id, size_bytes, version), path)| JournalRecord::Begun {
                    id,
                    size_bytes,
                    version: Version::from_bytes(version),
                    path: RelPath::parse(path.as_bytes()).unwrap(),
                }
            ),
            (any::<[u8; 32]>(), prop::collection::vec(span, 0..5)).prop_map(|(digest, spans)| {
                JournalRecord::Kept(KeptChunk { digest: Digest::from_bytes(digest), spans: spans.into() })
            }),
            prop::collection::vec(any::<u64>(), 0..9).prop_map(JournalRecord::Published),
            prop::collection::vec(any::<u64>(), 0..9).prop_map(JournalRecord::Dropped),
            Just(JournalRecord::SyncFailed),
        ]
    }

    fn put(batch: &mut Batch, record: &JournalRecord) {
        match record {
            JournalRecord::Begun { id, size_bytes, version, path } => {
                batch.begun(*id, *size_bytes, *version, path)
            }
            JournalRecord::Kept(chunk) => batch.kept(chunk.digest, chunk.spans.iter().copied()),
            JournalRecord::Published(ids) => batch.published(ids),
            JournalRecord::Dropped(ids) => batch.dropped(ids),
            JournalRecord::SyncFailed => batch.sync_failed(),
        }
    }

    fn read_all(mut bytes: &[u8]) -> (Vec<JournalRecord>, Next) {
        let (mut records, mut body) = (Vec::new(), Vec::new());
        loop {
            match read_next(&mut bytes, &mut body).unwrap() {
                Next::Record { record, .. } => records.push(record),
                end => return (records, end),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_up_to_any_cut(records in prop::collection::vec(record(), 0..6), cut in 0.0..1.0) {
            let mut batch = Batch::default();
            let mut ends = vec![0];
            // An empty set of ids is no record.
            let empty = |record: &JournalRecord| {
                matches!(record, JournalRecord::Published(ids) | JournalRecord::Dropped(ids) if ids.is_empty())
            };
            let records: Vec<_> = records.into_iter().filter(|record| !empty(record)).collect();
            for record in &records {
                put(&mut batch, record);
                ends.push(batch.as_bytes().len());
            }
            prop_assert_eq!(read_all(batch.as_bytes()), (records.clone(), Next::End));

            let cut = (batch.as_bytes().len() as f64 * cut) as usize;
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (read, end) = read_all(&batch.as_bytes()[..cut]);
            prop_assert_eq!((read.as_slice(), end), (&records[..whole], Next::End));
        }

        #[test]
        fn a_flipped_bit_ends_the_journal_there(records in prop::collection::vec(record(), 1..4), at: prop::sample::Index, bit in 0_u32..8) {
            let mut batch = Batch::default();
            records.iter().for_each(|record| put(&mut batch, record));
            prop_assume!(!batch.as_bytes().is_empty());
            let (before, _) = read_all(batch.as_bytes());
            let mut bytes = batch.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let (after, end) = read_all(&bytes);
            prop_assert_eq!(end, Next::End);
            prop_assert!(after.len() < before.len() && after[..] == before[..after.len()]);
        }

        #[test]
        fn garbage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (records, _) = read_all(&bytes);
            prop_assert!(records.len() <= bytes.len());
            if let Some(body) = bytes.get(..) {
                let _ = decode(body);
            }
        }
    }

    #[test]
    fn many_ids_are_split_and_a_record_of_an_unknown_type_is_malformed() {
        let ids: Vec<u64> = (0..10_000).collect();
        let mut batch = Batch::default();
        batch.published(&ids);
        let (records, _) = read_all(batch.as_bytes());
        let read: Vec<u64> = records
            .into_iter()
            .flat_map(|record| match record {
                JournalRecord::Published(ids) => ids,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(read, ids);

        let mut batch = Batch::default();
        batch.put(99, |_| ());
        assert_eq!(read_all(batch.as_bytes()), (vec![], Next::Malformed));
    }
}
