//! Writes one file to a writer, in order: `get SOURCE -`.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use shiplane_files::internals::{DestinationError, Operation, Plan, Summary};
use shiplane_transport::internals::ChunkSink;
use shiplane_wire::{Digest, Durability, Entry, EntryKind, FailReason, Span, Stored, Verified, limits};

use super::Target;

/// Writes the bytes of a single file to a writer. Every chunk is verified before a byte of it is written;
/// those that come early are held back, as many as there are lanes.
pub struct StreamTarget<W> {
    /// Held while the writer takes what it is given, however long that is.
    shared: Arc<Mutex<Shared<W>>>,
    /// Known once the file is planned.
    size_bytes: Arc<OnceLock<u64>>,
}

struct Shared<W> {
    writer: W,
    /// The peer cannot send it.
    is_discarded: bool,
    written_bytes: u64,
    /// Verified chunks that wait for those before them, by offset.
    early: BTreeMap<u64, Vec<u8>>,
}

impl<W: Write + Send + 'static> StreamTarget<W> {
    /// Everything goes to `writer`, which is flushed at the end.
    pub fn new(writer: W) -> Self {
        let shared = Shared { writer, is_discarded: false, written_bytes: 0, early: BTreeMap::new() };
        Self { shared: Arc::new(Mutex::new(shared)), size_bytes: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shared<W>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Clone for StreamTarget<W> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), size_bytes: Arc::clone(&self.size_bytes) }
    }
}

impl<W> std::fmt::Debug for StreamTarget<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTarget").finish_non_exhaustive()
    }
}

impl<W: Write> Shared<W> {
    /// Writes what is in order now.
    fn accept(&mut self, offset_bytes: u64, data: Vec<u8>) -> Result<(), DestinationError> {
        self.early.insert(offset_bytes, data);
        while let Some(data) = self.early.remove(&self.written_bytes) {
            self.writer.write_all(&data).map_err(failed)?;
            self.written_bytes += data.len() as u64;
        }
        Ok(())
    }
}

impl<W: Write + Send + 'static> Target for StreamTarget<W> {
    type Writer = StreamWriter<W>;

    fn plan(&self, _index: u64, entry: &Entry) -> Result<Plan, DestinationError> {
        if entry.kind != EntryKind::File || self.size_bytes.set(entry.size_bytes).is_err() {
            return Err(DestinationError::NotRequested { path: entry.path.to_string() });
        }
        let whole = 0..entry.size_bytes;
        let missing = if whole.is_empty() { Vec::new() } else { vec![whole] };
        Ok(Plan::Want { missing, resumed_bytes: 0 })
    }

    fn compare(&self, index: u64, entry: &Entry, _theirs: Digest) -> Result<Plan, DestinationError> {
        self.plan(index, entry)
    }

    fn reserve(&self, _missing_bytes: u64) -> Result<(), DestinationError> {
        Ok(())
    }

    fn file_len_bytes(&self, _entry: u64) -> Option<u64> {
        self.size_bytes.get().copied()
    }

    fn writer(&self, _chunk: u64, spans: &[Span]) -> Result<StreamWriter<W>, DestinationError> {
        let offset_bytes = spans.first().map_or(0, |span| span.offset_bytes);
        Ok(StreamWriter { target: self.clone(), offset_bytes, data: Vec::new() })
    }

    fn publish(&self, _entries: &[u64]) -> Result<(), DestinationError> {
        Ok(())
    }

    fn discard(&self, _entry: u64, _reason: FailReason) -> Result<(), DestinationError> {
        self.lock().is_discarded = true;
        Ok(())
    }

    fn finish(self) -> Result<Summary, DestinationError> {
        let mut shared = self.lock();
        let size_bytes = self.size_bytes.get().copied().unwrap_or_default();
        if shared.written_bytes != size_bytes && !shared.is_discarded {
            return Err(DestinationError::Unfinished { files: 1 });
        }
        shared.writer.flush().map_err(failed)?;
        Ok(Summary { published_files: 1, published_bytes: shared.written_bytes, ..Summary::default() })
    }
}

/// One chunk, held until it is verified.
pub struct StreamWriter<W> {
    target: StreamTarget<W>,
    offset_bytes: u64,
    /// At most a chunk of the payload, 16 MiB.
    data: Vec<u8>,
}

impl<W: Write + Send + 'static> ChunkSink for StreamWriter<W> {
    type Output = Vec<u64>;
    type Error = DestinationError;

    fn write(&mut self, data: &[u8]) -> Result<(), DestinationError> {
        debug_assert!((self.data.len() + data.len()) as u64 <= limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn commit(self, verified: Verified) -> Result<(Stored, Vec<u64>), DestinationError> {
        self.target.lock().accept(self.offset_bytes, self.data)?;
        Ok((verified.stored(Durability::Verified), Vec::new()))
    }
}

fn failed(error: std::io::Error) -> DestinationError {
    let path = "the output stream".to_owned();
    DestinationError::Io { operation: Operation::Write, path, source: error }
}
