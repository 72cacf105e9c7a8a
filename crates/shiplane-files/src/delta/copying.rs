//! Copies blocks of the old version, hashing each.

use std::fs::File;
use std::sync::atomic::Ordering;

use shiplane_wire::DigestAlgorithm;

use super::super::blocks::Block;
use super::super::error::{DestinationError, Operation};
use super::super::record::KeptSpan;
use super::super::state::ActiveFile;
use super::super::{parallel, platform};
use super::{Copied, DeltaMatcher};

impl DeltaMatcher {
    /// Puts blocks of the old version into the temporary file and notes them as kept. Gives those that are
    /// what they are taken for.
    pub(super) fn copy(
        &self,
        index: u64,
        file: &ActiveFile,
        old: &File,
        copies: &[Copied],
    ) -> Result<Vec<Copied>, DestinationError> {
        let copied = self.examined(old, copies, |same, data| {
            // A temporary file is made only for what goes into it.
            self.store.begin([index])?;
            let temp = self.store.open_filling(index, file)?;
            temp.write_all_at(same.to.offset_bytes, data).map_err(|error| {
                self.site.failed_writing(Operation::Write, &file.target, data.len() as u64, error)
            })
        })?;
        if !copied.is_empty() {
            self.note_copied(index, file, &copied)?;
        }
        Ok(copied)
    }

    /// Those that are what they are taken for.
    pub(super) fn check(&self, old: &File, copies: &[Copied]) -> Result<Vec<Copied>, DestinationError> {
        self.examined(old, copies, |_, _| Ok(()))
    }

    /// Reads blocks of the old version and hands on those that have the digest that they are to have.
    fn examined(
        &self,
        old: &File,
        copies: &[Copied],
        take: impl Fn(&Copied, &[u8]) -> Result<(), DestinationError> + Sync,
    ) -> Result<Vec<Copied>, DestinationError> {
        let groups = groups(copies);
        let same = parallel::map(&groups, |group| {
            if self.site.is_abandoned.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
            let len_bytes = group.iter().map(|copied| copied.to.signature.len_bytes as usize).sum();
            self.buffers.with(len_bytes, |buffer| {
                let same = read_same(old, group, self.site.options.digest, buffer);
                same.iter().try_for_each(|(copied, data)| take(copied, data))?;
                Ok::<_, DestinationError>(same.into_iter().map(|(copied, _)| copied).collect())
            })
        });
        let same: Vec<Vec<_>> = same.into_iter().collect::<Result<_, _>>()?;
        Ok(same.concat())
    }

    fn note_copied(&self, index: u64, file: &ActiveFile, copied: &[Copied]) -> Result<(), DestinationError> {
        for blocks in copied.chunks(RECORDS_PER_WRITE) {
            self.store.record(|batch| {
                for Copied { to: Block { offset_bytes, signature }, .. } in blocks {
                    let len_bytes = u64::from(signature.len_bytes);
                    let span = KeptSpan { id: file.id, offset_bytes: *offset_bytes, len_bytes };
                    batch.kept(signature.digest, [span]);
                }
            })?;
        }
        let copied_bytes = self.store.keep(index, file, copied.iter().map(|copied| copied.to.range()));
        self.site.count(|summary| summary.copied_bytes += copied_bytes);
        Ok(())
    }
}

/// Neighbours that are read together.
fn groups(copies: &[Copied]) -> Vec<&[Copied]> {
    let mut groups = Vec::new();
    let (mut from, mut len_bytes) = (0, 0);
    for (at, copied) in copies.iter().enumerate() {
        let piece_bytes = copied.to.signature.len_bytes as usize;
        if len_bytes + piece_bytes > GROUP_LEN_BYTES && at > from {
            groups.push(&copies[from..at]);
            (from, len_bytes) = (at, 0);
        }
        len_bytes += piece_bytes;
    }
    groups.push(&copies[from..]);
    groups
}

/// Reads blocks; gives those that can be read, and have their digest, with their bytes.
fn read_same<'a>(
    old: &File,
    group: &[Copied],
    algorithm: DigestAlgorithm,
    buffer: &'a mut [u8],
) -> Vec<(Copied, &'a [u8])> {
    let mut read = Vec::with_capacity(group.len());
    let mut rest = buffer;
    for copied in group {
        let (data, later) = rest.split_at_mut(copied.to.signature.len_bytes as usize);
        rest = later;
        if platform::read_exact_at(old, copied.from_bytes, data).is_ok() {
            read.push((*copied, &*data));
        }
    }
    read.retain(|(copied, data)| copied.to.signature.digest == algorithm.digest(data));
    read
}

/// 1 MiB at a time, or one longer block: what was read is still in the processor's cache when it is hashed. Each of a
/// few threads holds as much.
const GROUP_LEN_BYTES: usize = 1 << 20;

/// Some 300 KiB of journal at a time.
const RECORDS_PER_WRITE: usize = 4096;
