//! One file of unknown length, each part of which is an entry (SPEC 4.32).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::{ChunkWriter, Destination, DestinationError, Plan};
use shiplane_wire::{Entry, Span, Stored, Verified};

use crate::lock;

/// Puts the parts together. A handle: clones share it.
#[derive(Clone, Debug)]
pub(super) struct PartedTarget {
    pub(super) destination: Destination,
    open: Arc<OpenParts>,
}

/// The parts that are wanted and not complete, by entry. The ledger bounds how many.
type OpenParts = Mutex<BTreeMap<u64, OpenPart>>;

#[derive(Debug)]
struct OpenPart {
    offset_bytes: u64,
    missing_bytes: u64,
}

/// Writes one chunk.
pub(in crate::transfer) struct PartWriter {
    writer: ChunkWriter,
    /// By their entries.
    spans: Vec<Span>,
    open: Arc<OpenParts>,
}

impl PartedTarget {
    pub(super) fn new(destination: Destination) -> Self {
        Self { destination, open: Arc::default() }
    }

    pub(super) fn plan(&self, index: u64, part: &Entry) -> Result<Plan, DestinationError> {
        let plan = self.destination.plan_part(part)?;
        let missing_bytes = plan.missing_bytes();
        if missing_bytes > 0 {
            let (_, offset_bytes) = part.version.part();
            lock(&self.open).insert(index, OpenPart { offset_bytes, missing_bytes });
        }
        Ok(plan)
    }

    /// A writer of these spans, by their places in the file.
    pub(super) fn writer(&self, chunk: u64, spans: &[Span]) -> Result<PartWriter, DestinationError> {
        let placed = {
            let open = lock(&self.open);
            let place = |span: &Span| {
                let part = open.get(&span.entry).ok_or(DestinationError::NotWanted { entry: span.entry })?;
                Ok(Span { entry: 0, offset_bytes: part.offset_bytes + span.offset_bytes, ..*span })
            };
            spans.iter().map(place).collect::<Result<Vec<_>, DestinationError>>()?
        };
        let writer = self.destination.chunk_writer(chunk, &placed)?;
        Ok(PartWriter { writer, spans: spans.to_vec(), open: Arc::clone(&self.open) })
    }
}

impl PartWriter {
    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), DestinationError> {
        self.writer.write(data)
    }

    /// Gives the parts that are complete now.
    pub(super) fn commit(self, verified: Verified) -> Result<(Stored, Vec<u64>), DestinationError> {
        let (stored, _) = self.writer.commit(verified)?;
        let (mut open, mut complete) = (lock(&self.open), Vec::new());
        for span in &self.spans {
            let Some(part) = open.get_mut(&span.entry) else { continue };
            part.missing_bytes = part.missing_bytes.saturating_sub(span.len_bytes);
            if part.missing_bytes == 0 {
                open.remove(&span.entry);
                complete.push(span.entry);
            }
        }
        Ok((stored, complete))
    }
}
