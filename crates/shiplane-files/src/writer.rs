//! Writing the bytes of a chunk to the files they belong to.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shiplane_wire::{Durability, RelPath, Span, Stored, Verified};

use crate::{
    destination::Inner,
    error::{DestinationError, Operation},
    handles::SharedFile,
    lock,
    platform::{self, Kind},
    record::{Batch, KeptSpan},
    state::{ActiveFile, Stage, State},
};

/// Takes the bytes of one chunk, span after span, and puts them into temporary files.
///
/// Call [`write`](Self::write) with the bytes in order, as they come, and [`commit`](Self::commit) with the
/// proof that they were verified. One that is dropped, at any point, counts for nothing: the bytes are
/// asked for again and written over. `Send`: it may move between blocking threads.
#[derive(Debug)]
pub struct ChunkWriter {
    inner: Arc<Inner>,
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
    /// `None` if it was given up while the chunk was on its way: these bytes are for nobody.
    file: Option<ActiveFile>,
    offset_bytes: u64,
    len_bytes: u64,
}

impl ChunkWriter {
    pub(super) fn new(inner: &Arc<Inner>, chunk: u64, spans: &[Span]) -> Result<Self, DestinationError> {
        let pieces = {
            let state = lock(&inner.state);
            let piece = |span: &Span| Piece::new(chunk, span, &state);
            spans.iter().map(piece).collect::<Result<Vec<_>, _>>()?
        };
        let is_fresh = |piece: &&Piece| piece.file.as_ref().is_some_and(|file| !file.is_begun);
        inner.begin(pieces.iter().filter(is_fresh).map(|piece| piece.entry))?;
        let len_bytes = pieces.iter().map(|piece| piece.len_bytes).sum();
        Ok(Self {
            inner: Arc::clone(inner),
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
            let mut batch = Batch::default();
            batch.kept(verified.digest(), kept);
            self.inner.record(&batch)?;
        }
        let mut complete = Vec::new();
        let mut state = lock(&self.inner.state);
        for piece in &self.pieces {
            // It may have been discarded meanwhile.
            let Some(file) = state.files.get_mut(&piece.entry).filter(|file| piece.is_of(file)) else {
                continue;
            };
            file.kept.insert(piece.offset_bytes..piece.offset_bytes + piece.len_bytes);
            file.is_sealed |= piece.is_all_of(file) && file.keeps_creation_mode();
            if file.stage == Stage::Filling && file.kept.covers(file.size_bytes) {
                file.stage = Stage::Complete;
                complete.push(piece.entry);
            }
        }
        drop(state);
        Ok((verified.stored(Durability::Verified), complete))
    }

    /// Gives the chunk up; the same as dropping it.
    pub fn abandon(self) {}

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
        if let Some(file) = &piece.file {
            let open = match self.open.take() {
                Some(open) => open,
                None => self.inner.open_piece(piece, file)?,
            };
            open.write_all_at(piece.offset_bytes + self.piece_at, data).map_err(|error| {
                let len_bytes = data.len() as u64;
                self.inner.failed_writing(Operation::Write, &file.target, len_bytes, error)
            })?;
            self.open = Some(open);
        }
        self.piece_at += data.len() as u64;
        Ok(())
    }

    fn end_piece(&mut self) -> Result<(), DestinationError> {
        if let (Some(piece), Some(open)) = (self.pieces.get(self.piece), self.open.take())
            && let Some(file) = &piece.file
            && piece.is_all_of(file)
            && file.keeps_creation_mode()
        {
            self.inner.seal(file, open.file())?;
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
        let file = state.files.get(&entry);
        if file.is_none() && entry < state.planned {
            return Ok(Self { entry, file: None, offset_bytes, len_bytes });
        }
        let file = file.filter(|file| file.stage == Stage::Filling);
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

    /// Whether nobody else writes to that file.
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

impl Inner {
    /// Notes files in the journal before anything of them is on the disk, so that whatever a run leaves
    /// can be found.
    pub(super) fn begin(&self, entries: impl IntoIterator<Item = u64>) -> Result<(), DestinationError> {
        // Held throughout: a file must be noted once, and before any chunk of it.
        let mut journal = lock(&self.journal);
        let mut batch = Batch::default();
        let mut state = lock(&self.state);
        let mut begun = Vec::new();
        for entry in entries {
            if let Some(file) = state.files.get_mut(&entry).filter(|file| !file.is_begun) {
                batch.begun(file.id, file.size_bytes, file.version, &file.target);
                file.is_begun = true;
                begun.push(entry);
            }
        }
        drop(state);
        if begun.is_empty() {
            return Ok(());
        }
        journal.append(&batch).map_err(|error| {
            let mut state = lock(&self.state);
            for entry in begun {
                if let Some(file) = state.files.get_mut(&entry) {
                    file.is_begun = false;
                }
            }
            self.with_space(error, 0)
        })
    }

    fn open_piece(&self, piece: &Piece, file: &ActiveFile) -> Result<Arc<SharedFile>, DestinationError> {
        if piece.is_all_of(file) {
            return self.create_temp(file).map(|file| Arc::new(SharedFile::new(file)));
        }
        self.open_filling(piece.entry, file)
    }

    /// The temporary file of an entry that is written in parts.
    pub(super) fn open_filling(
        &self,
        entry: u64,
        file: &ActiveFile,
    ) -> Result<Arc<SharedFile>, DestinationError> {
        self.handles.get(file.id, || {
            let is_created = lock(&self.state).files.get(&entry).is_some_and(|file| file.is_created);
            if is_created {
                return self.reopen_temp(file);
            }
            let open = self.create_temp(file)?;
            self.allocate(file, &open)?;
            if let Some(file) = lock(&self.state).files.get_mut(&entry) {
                file.is_created = true;
            }
            Ok(open)
        })
    }

    /// Creates the temporary file. What has its name is of an attempt that came to nothing, or of nobody:
    /// the name is ours and so is the job's lock.
    pub(super) fn create_temp(&self, file: &ActiveFile) -> Result<File, DestinationError> {
        let parent = self.parent_of(&file.target)?;
        let name = self.key.temp_name(file.id);
        self.make_findable(&file.target)?;
        let create = || {
            lock(&self.state).temps.insert(file.id, file.target.clone());
            platform::create_file(&parent.dir, name.as_bytes(), file.creation_mode())
        };
        let created = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_temp(file.id, &file.target)?;
                create()
            }
            result => result,
        };
        self.occupied_bytes.fetch_add(file.size_bytes, Ordering::Relaxed);
        created.map_err(|error| self.failed_writing(Operation::Create, &file.target, file.size_bytes, error))
    }

    /// A temporary file in a directory that was there before may outlast a power cut that takes the journal's
    /// name, and nobody would know of it any more: so that name is made durable first.
    fn make_findable(&self, target: &RelPath) -> Result<(), DestinationError> {
        let Some(top) = std::iter::successors(target.parent(), RelPath::parent).last() else {
            return Ok(());
        };
        {
            let mut state = lock(&self.state);
            // A new directory is no more durable than the journal.
            let is_new = state.new_tops.contains(&top);
            if !self.is_durable() || is_new || std::mem::replace(&mut state.is_findable, true) {
                return Ok(());
            }
        }
        platform::sync_dir(&self.root().dir).map_err(|error| {
            lock(&self.state).is_findable = false;
            self.failed_at_root(Operation::Sync, error)
        })
    }

    /// Opens a temporary file that has kept bytes in it, if it is still what we made.
    pub(super) fn reopen_temp(&self, file: &ActiveFile) -> Result<File, DestinationError> {
        let altered = || DestinationError::Altered { path: self.show(&file.target) };
        let parent = self.parent_of(&file.target)?;
        let open = match platform::reopen_file(&parent.dir, self.key.temp_name(file.id).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(altered()),
            Err(error) if platform::is_symlink_refused(&error) => return Err(altered()),
            result => result.map_err(|error| self.failed(Operation::Open, &file.target, error))?,
        };
        let found = platform::stat_open(&open)
            .map_err(|error| self.failed(Operation::Examine, &file.target, error))?;
        if found.kind != Kind::File || found.links > 1 || found.size_bytes > file.size_bytes {
            return Err(altered());
        }
        if found.size_bytes < file.size_bytes {
            self.allocate(file, &open)?;
        }
        Ok(open)
    }

    /// Asks for all of a large file's space at once: a full disk shows now, and the file is in one piece.
    fn allocate(&self, file: &ActiveFile, open: &File) -> Result<(), DestinationError> {
        let allocated = if file.size_bytes >= self.options.chunk_len_bytes {
            platform::allocate(open, file.size_bytes)
        } else {
            platform::set_len(open, file.size_bytes)
        };
        allocated.map_err(|error| self.failed_writing(Operation::Write, &file.target, file.size_bytes, error))
    }

    /// Sets the final mode and time of a temporary file that has all its bytes.
    pub(super) fn seal(&self, file: &ActiveFile, open: &File) -> Result<(), DestinationError> {
        let failed = |error| self.failed(Operation::SetMetadata, &file.target, error);
        if !file.keeps_creation_mode() {
            // What the umask left of the mode it was created with, without what we added to that.
            let mode = platform::stat_open(open).map_err(failed)?.mode & file.mode;
            platform::set_mode(open, mode).map_err(failed)?;
        }
        platform::set_mtime(open, file.mtime).map_err(failed)
    }

    /// Gives the file that was given up.
    pub(super) fn discard(&self, entry: u64) -> Result<ActiveFile, DestinationError> {
        let file = {
            let mut state = lock(&self.state);
            state.deltas.remove(&entry);
            state.files.remove(&entry)
        };
        let Some(file) = file else {
            return Err(DestinationError::NotWanted { entry });
        };
        self.drop_files(&[&file]).map(|()| file)
    }

    /// Removes what there is of files that will not be published, and notes that.
    pub(super) fn drop_files(&self, files: &[&ActiveFile]) -> Result<(), DestinationError> {
        let (mut first_error, mut ids) = (None, Vec::new());
        for file in files {
            self.handles.forget(file.id);
            match self.remove_temp(file.id, &file.target) {
                Ok(()) if file.is_begun => ids.push(file.id),
                Ok(()) => {}
                // Who finds the journal has to know of it.
                Err(error) => _ = first_error.get_or_insert(error),
            }
        }
        // A writer may be about to create one of them again.
        lock(&self.state).has_strays = true;
        let mut batch = Batch::default();
        batch.dropped(&ids);
        let recorded = self.record(&batch);
        first_error.map_or(recorded, Err)
    }
}
