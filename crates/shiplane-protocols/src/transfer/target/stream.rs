//! Writes one file to a writer, in order: `get SOURCE -`.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use shiplane_files::internals::{DestinationError, Operation, Plan, Summary};
use shiplane_wire::{Durability, Entry, EntryKind, Span, Stored, Verified, Version, limits};

use crate::lock;

/// Writes the bytes of a single file to a writer, in one transfer or several after each other: each goes on where the one
/// before ended. A handle: clones share it.
#[derive(Clone)]
pub struct OutputStream(Arc<Shared>);

struct Shared {
    /// Which file it is, from the first time it is planned.
    file: OnceLock<(u64, Version)>,
    /// Held while the writer takes what it is given, however long that is.
    state: Mutex<State>,
}

struct State {
    writer: Box<dyn Write + Send>,
    /// Whether this transfer has named its file.
    is_planned: bool,
    /// The peer cannot send it.
    is_discarded: bool,
    written_bytes: u64,
    /// Verified chunks that wait for those before them, by offset.
    early: BTreeMap<u64, Vec<u8>>,
}

impl OutputStream {
    /// Nothing has been written yet.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        let state = State {
            writer: Box::new(writer),
            is_planned: false,
            is_discarded: false,
            written_bytes: 0,
            early: BTreeMap::new(),
        };
        Self(Arc::new(Shared { file: OnceLock::new(), state: Mutex::new(state) }))
    }

    /// Another transfer begins.
    pub(super) fn begin(&self) {
        let mut state = lock(&self.0.state);
        state.is_planned = false;
        state.early.clear();
    }

    pub(super) fn plan(&self, entry: &Entry) -> Result<Plan, DestinationError> {
        let mut state = lock(&self.0.state);
        if entry.kind != EntryKind::File || state.is_planned {
            return Err(DestinationError::NotRequested { path: entry.path.to_string() });
        }
        state.is_planned = true;
        let file = (entry.size_bytes, entry.version);
        if *self.0.file.get_or_init(|| file) != file {
            return Err(DestinationError::Altered { path: entry.path.to_string() });
        }
        let resumed_bytes = state.written_bytes;
        let rest = resumed_bytes..entry.size_bytes;
        let missing = if rest.is_empty() { Vec::new() } else { vec![rest] };
        Ok(Plan::Want { missing, resumed_bytes })
    }

    pub(super) fn file_len_bytes(&self) -> Option<u64> {
        self.0.file.get().map(|(size_bytes, _)| *size_bytes)
    }

    pub(super) fn writer(&self, spans: &[Span]) -> StreamWriter {
        let offset_bytes = spans.first().map_or(0, |span| span.offset_bytes);
        StreamWriter { stream: self.clone(), offset_bytes, data: Vec::new() }
    }

    pub(super) fn discard(&self) {
        lock(&self.0.state).is_discarded = true;
    }

    pub(super) fn finish(self) -> Result<Summary, DestinationError> {
        let mut state = lock(&self.0.state);
        if state.written_bytes != self.file_len_bytes().unwrap_or_default() && !state.is_discarded {
            return Err(DestinationError::Unfinished { files: 1 });
        }
        state.writer.flush().map_err(failed)?;
        Ok(Summary { published_files: 1, published_bytes: state.written_bytes, ..Summary::default() })
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
        let State { writer, written_bytes, early, .. } = &mut *lock(&self.stream.0.state);
        if self.offset_bytes >= *written_bytes {
            early.insert(self.offset_bytes, self.data);
        }
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
