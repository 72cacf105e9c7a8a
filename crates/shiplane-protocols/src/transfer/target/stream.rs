//! Writes one file to a writer, in order: `get SOURCE -`.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use shiplane_files::internals::{DestinationError, Operation, Plan, Summary};
use shiplane_wire::{Durability, Entry, EntryKind, Span, Stored, Verified, limits};

/// Writes the bytes of a single file to a writer. A handle: clones share it.
#[derive(Clone)]
pub(super) struct OutputStream(Arc<Shared>);

struct Shared {
    /// Known once the file is planned.
    size_bytes: OnceLock<u64>,
    /// Held while the writer takes what it is given, however long that is.
    state: Mutex<State>,
}

struct State {
    writer: Box<dyn Write + Send>,
    /// The peer cannot send it.
    is_discarded: bool,
    written_bytes: u64,
    /// Verified chunks that wait for those before them, by offset.
    early: BTreeMap<u64, Vec<u8>>,
}

impl OutputStream {
    pub(super) fn new(writer: impl Write + Send + 'static) -> Self {
        let writer = Box::new(writer);
        let state = State { writer, is_discarded: false, written_bytes: 0, early: BTreeMap::new() };
        Self(Arc::new(Shared { size_bytes: OnceLock::new(), state: Mutex::new(state) }))
    }

    pub(super) fn plan(&self, entry: &Entry) -> Result<Plan, DestinationError> {
        if entry.kind != EntryKind::File || self.0.size_bytes.set(entry.size_bytes).is_err() {
            return Err(DestinationError::NotRequested { path: entry.path.to_string() });
        }
        let whole = 0..entry.size_bytes;
        let missing = if whole.is_empty() { Vec::new() } else { vec![whole] };
        Ok(Plan::Want { missing, resumed_bytes: 0 })
    }

    pub(super) fn file_len_bytes(&self) -> Option<u64> {
        self.0.size_bytes.get().copied()
    }

    pub(super) fn writer(&self, spans: &[Span]) -> StreamWriter {
        let offset_bytes = spans.first().map_or(0, |span| span.offset_bytes);
        StreamWriter { stream: self.clone(), offset_bytes, data: Vec::new() }
    }

    pub(super) fn discard(&self) {
        self.lock().is_discarded = true;
    }

    pub(super) fn finish(self) -> Result<Summary, DestinationError> {
        let mut state = self.lock();
        if state.written_bytes != self.file_len_bytes().unwrap_or_default() && !state.is_discarded {
            return Err(DestinationError::Unfinished { files: 1 });
        }
        state.writer.flush().map_err(failed)?;
        Ok(Summary { published_files: 1, published_bytes: state.written_bytes, ..Summary::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputStream").finish_non_exhaustive()
    }
}

/// One chunk, held until it is verified.
pub(in crate::transfer) struct StreamWriter {
    stream: OutputStream,
    offset_bytes: u64,
    /// At most a chunk of the payload, 16 MiB.
    data: Vec<u8>,
}

impl StreamWriter {
    pub(super) fn write(&mut self, data: &[u8]) {
        debug_assert!((self.data.len() + data.len()) as u64 <= limits::MAX_PAYLOAD_CHUNK_LEN_BYTES);
        self.data.extend_from_slice(data);
    }

    /// Writes what is in order now.
    pub(super) fn commit(self, verified: Verified) -> Result<(Stored, Vec<u64>), DestinationError> {
        let State { writer, written_bytes, early, .. } = &mut *self.stream.lock();
        early.insert(self.offset_bytes, self.data);
        while let Some(data) = early.remove(written_bytes) {
            writer.write_all(&data).map_err(failed)?;
            *written_bytes += data.len() as u64;
        }
        Ok((verified.stored(Durability::Verified), Vec::new()))
    }
}

fn failed(error: io::Error) -> DestinationError {
    let path = "the output stream".to_owned();
    DestinationError::Io { operation: Operation::Write, path, source: error }
}
