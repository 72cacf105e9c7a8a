//! Writes the bytes of a chunk to the files that they belong to.

use std::sync::Arc;

use shiplane_wire::{Durability, Span, Stored, Verified};

use super::{ChunkStore, State};
use crate::{
    error::{DestinationError, Operation},
    handles::SharedFile,
    lock,
    record::KeptSpan,
    state::{ActiveFile, FileState},
};

/// Takes the bytes of one chunk, span after span, and puts them into temporary files.
///
/// Call [`write`](Self::write) with the bytes in order, as they come, and [`commit`](Self::commit) with the
/// proof that they were verified. One that is dropped, at any point, counts for nothing: the bytes are
/// asked for again and written over. `Send`: it may move between blocking threads.
#[derive(Debug)]
pub struct ChunkWriter {
    store: Arc<ChunkStore>,
    chunk: u64,
    pieces: Vec<Piece>,
    /// Where the next byte of `buffer` goes: in which piece, and how far into it.
    piece: usize,
    piece_at: u64,
    open: Option<Arc<SharedFile>>,
    /// Bytes of the current piece that are not written yet; packets are small, writes should not be.
    buffer: Vec<u8>,
    written_bytes: u64,
    len_bytes: u64,
}

/// A span, and what must be known of its file to write it.
#[derive(Debug)]
struct Piece {
    entry: u64,
    /// `None` if it was given up while the chunk was on its way: these bytes are dropped.
    file: Option<ActiveFile>,
    offset_bytes: u64,
    len_bytes: u64,
}

impl ChunkWriter {
    pub(crate) fn new(store: &Arc<ChunkStore>, chunk: u64, spans: &[Span]) -> Result<Self, DestinationError> {
        let pieces = {
            let state = lock(&store.state);
            let piece = |span: &Span| Piece::new(chunk, span, &state);
            spans.iter().map(piece).collect::<Result<Vec<_>, _>>()?
        };
        let is_fresh = |piece: &&Piece| piece.file.as_ref().is_some_and(|file| !file.is_begun);
        store.begin(pieces.iter().filter(is_fresh).map(|piece| piece.entry))?;
        let len_bytes = pieces.iter().map(|piece| piece.len_bytes).sum();
        Ok(Self {
            store: Arc::clone(store),
            chunk,
            pieces,
            piece: 0,
            piece_at: 0,
            open: None,
            buffer: Vec::new(),
            written_bytes: 0,
            len_bytes,
        })
    }

    /// Takes the next bytes of the chunk.
    ///
    /// # Errors
    ///
    /// [`DestinationError::ChunkLength`] if there are more than the spans have,
    /// [`DestinationError::NoSpace`] and what else the system says. The writer is of no use then.
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), DestinationError> {
        let taken_bytes = self.written_bytes + data.len() as u64;
        if taken_bytes > self.len_bytes {
            return Err(self.wrong_length(taken_bytes));
        }
        self.written_bytes = taken_bytes;
        while let Some(piece) = self.pieces.get(self.piece).filter(|_| !data.is_empty()) {
            let left_bytes = piece.len_bytes - self.piece_at - self.buffer.len() as u64;
            let fits = left_bytes.min(data.len() as u64) as usize;
            let (now, later) = data.split_at(fits);
            data = later;
            self.put(now, fits as u64 == left_bytes)?;
        }
        Ok(())
    }

    /// Ends the chunk: notes in the journal that its bytes are kept, and gives the proof that earns the
    /// peer's success status, with the entries that have all their bytes now. Publish those.
    ///
    /// # Errors
    ///
    /// [`DestinationError::ChunkLength`] if bytes are missing or others were verified, or what the system
    /// says. Nothing counts then.
    pub fn commit(self, verified: Verified) -> Result<(Stored, Vec<u64>), DestinationError> {
        if self.written_bytes != self.len_bytes {
            return Err(self.wrong_length(self.written_bytes));
        }
        if verified.len_bytes() != self.len_bytes {
            return Err(self.wrong_length(verified.len_bytes()));
        }
        // The digest is of all the pieces: a later run can check them only if all of them are there.
        if let Some(kept) = self.pieces.iter().map(Piece::kept).collect::<Option<Vec<_>>>() {
            self.store.record(|batch| batch.kept(verified.digest(), kept))?;
        }
        let mut complete = Vec::new();
        let mut state = lock(&self.store.state);
        for piece in &self.pieces {
            // It may have been discarded meanwhile.
            let Some(file) = state.files.get_mut(&piece.entry).filter(|file| piece.is_of(file)) else {
                continue;
            };
            file.kept.insert(piece.offset_bytes..piece.offset_bytes + piece.len_bytes);
            file.is_sealed |= piece.is_all_of(file) && file.is_accessible();
            if file.state == FileState::Filling && file.kept.covers(file.size_bytes) {
                file.state = FileState::Complete;
                complete.push(piece.entry);
            }
        }
        drop(state);
        Ok((verified.stored(Durability::Verified), complete))
    }

    fn put(&mut self, data: &[u8], ends_piece: bool) -> Result<(), DestinationError> {
        if self.buffer.len() + data.len() > BUFFER_LEN_BYTES {
            self.flush()?;
        }
        if self.buffer.is_empty() && (ends_piece || data.len() >= BUFFER_LEN_BYTES) {
            self.write_out(data)?;
        } else {
            self.buffer.extend_from_slice(data);
        }
        if ends_piece {
            self.flush()?;
            self.end_piece()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DestinationError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.write_out(&buffer);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    fn write_out(&mut self, data: &[u8]) -> Result<(), DestinationError> {
        let Some(piece) = self.pieces.get(self.piece).filter(|_| !data.is_empty()) else {
            return Ok(());
        };
        let written = piece.file.as_ref().map(|file| self.write_piece(piece, file, data));
        self.open = match written.transpose() {
            Ok(open) => open,
            Err(error) => self.leave_out_piece(error).map(|()| None)?,
        };
        self.piece_at += data.len() as u64;
        Ok(())
    }

    fn write_piece(
        &self,
        piece: &Piece,
        file: &ActiveFile,
        data: &[u8],
    ) -> Result<Arc<SharedFile>, DestinationError> {
        let open = match &self.open {
            Some(open) => Arc::clone(open),
            None => self.open_piece(piece, file)?,
        };
        open.write_all_at(piece.offset_bytes + self.piece_at, data).map_err(|error| {
            let len_bytes = data.len() as u64;
            self.store.site.failed_writing(Operation::Write, &file.target, len_bytes, error)
        })?;
        Ok(open)
    }

    /// Drops the bytes of the current piece, whose file cannot be written, if that concerns no other file.
    fn leave_out_piece(&mut self, error: DestinationError) -> Result<(), DestinationError> {
        let Some(piece) = self.pieces.get_mut(self.piece) else { return Err(error) };
        let Some(file) = piece.file.take() else { return Err(error) };
        self.store.leave_out(piece.entry, &file, error)
    }

    fn open_piece(&self, piece: &Piece, file: &ActiveFile) -> Result<Arc<SharedFile>, DestinationError> {
        if piece.is_all_of(file) {
            return self.store.create_temp(file).map(|file| Arc::new(SharedFile::new(file)));
        }
        self.store.open_filling(piece.entry, file)
    }

    fn end_piece(&mut self) -> Result<(), DestinationError> {
        if let (Some(piece), Some(open)) = (self.pieces.get(self.piece), self.open.take())
            && let Some(file) = &piece.file
            && piece.is_all_of(file)
            && file.is_accessible()
        {
            let sealed = self.store.seal(file, open.file());
            sealed.or_else(|error| self.leave_out_piece(error))?;
        }
        self.piece += 1;
        self.piece_at = 0;
        Ok(())
    }

    fn wrong_length(&self, actual_bytes: u64) -> DestinationError {
        DestinationError::ChunkLength { chunk: self.chunk, actual_bytes, expected_bytes: self.len_bytes }
    }
}

impl Piece {
    fn new(chunk: u64, span: &Span, state: &State) -> Result<Self, DestinationError> {
        let &Span { entry, offset_bytes, len_bytes } = span;
        let is_given_up = |file: &ActiveFile| matches!(file.state, FileState::LeftOut | FileState::Poisoned);
        let file = state.files.get(&entry).filter(|file| !is_given_up(file));
        if file.is_none() && entry < state.planned {
            return Ok(Self { entry, file: None, offset_bytes, len_bytes });
        }
        let file = file.filter(|file| file.state == FileState::Filling);
        let file = file.ok_or(DestinationError::NotWanted { entry })?;
        let end = offset_bytes.checked_add(len_bytes).filter(|end| *end <= file.size_bytes && len_bytes > 0);
        if end.is_none() {
            return Err(DestinationError::SpanOutside { chunk, entry });
        }
        Ok(Self { entry, file: Some(file.clone()), offset_bytes, len_bytes })
    }

    fn is_of(&self, file: &ActiveFile) -> bool {
        self.file.as_ref().is_some_and(|ours| ours.id == file.id)
    }

    /// Whether this piece is the whole file, so that no other writer has it.
    fn is_all_of(&self, file: &ActiveFile) -> bool {
        self.offset_bytes == 0 && self.len_bytes == file.size_bytes
    }

    fn kept(&self) -> Option<KeptSpan> {
        let id = self.file.as_ref()?.id;
        Some(KeptSpan { id, offset_bytes: self.offset_bytes, len_bytes: self.len_bytes })
    }
}

/// Writes of this size cost little more than their bytes; sixteen chunks at once hold 2 MiB.
const BUFFER_LEN_BYTES: usize = 128 << 10;
