//! Continues files that an earlier run began.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use crate::{
    buffers::Scratch,
    error::{DestinationError, Operation},
    hash::{READ_LEN_BYTES, hash_parts},
    journal_state::{Left, Unverified},
    lock, parallel,
    platform::{self, Kind, RangeSet},
    record::KeptSpan,
    site::Site,
    state::ActiveFile,
    store::ChunkStore,
};
use shiplane_wire::{Hasher, RelPath};

/// What has become of what earlier runs of the job have left.
#[derive(Debug)]
pub(super) struct ResumeState {
    site: Arc<Site>,
    store: Arc<ChunkStore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Temporary files of earlier runs that were found.
    orphaned_temps: Vec<RelPath>,
    /// Space that files resumed by this run occupy already and have no content in.
    preallocated_bytes: u64,
}

impl ResumeState {
    pub(super) fn new(site: &Arc<Site>, store: &Arc<ChunkStore>) -> Self {
        Self { site: Arc::clone(site), store: Arc::clone(store), state: Mutex::default() }
    }

    pub(super) fn preallocated_bytes(&self) -> u64 {
        lock(&self.state).preallocated_bytes
    }

    pub(super) fn note_orphaned_temps(&self, orphaned_temps: impl IntoIterator<Item = RelPath>) {
        lock(&self.state).orphaned_temps.extend(orphaned_temps);
    }

    pub(super) fn has_orphaned_temps(&self) -> bool {
        !lock(&self.state).orphaned_temps.is_empty()
    }

    /// Gives `file` its number and what is left of it. Bytes count only if their chunk still has the
    /// digest that it was verified with; of another state of the source nothing counts.
    pub(super) fn resume(&self, file: &mut ActiveFile) -> Result<(), DestinationError> {
        let left = lock(&self.store.earlier).find(&file.target);
        let Some(left) = left else {
            file.id = self.store.fresh_id();
            return Ok(());
        };
        let is_same = left.size_bytes == file.size_bytes && left.version == file.version;
        // Before this file's bytes are given up: others may share chunks with it.
        self.verify(left.id, !is_same);
        if is_same { self.go_on(file, left) } else { self.drop_left(file, left) }
    }

    fn go_on(&self, file: &mut ActiveFile, left: Left) -> Result<(), DestinationError> {
        let good = {
            let mut earlier = lock(&self.store.earlier);
            earlier.settle(left.id);
            earlier.good_ranges(left.id)
        };
        file.id = left.id;
        file.is_begun = true;
        self.store.take_up(left.id, &file.target);
        let parent = self.site.parent_of(&file.target)?;
        let temp = platform::stat(&parent.dir, self.site.key.temp_name(left.id).as_bytes());
        // Whatever else has the name is replaced when the file is written.
        let Some(temp) = temp
            .ok()
            .filter(|temp| temp.kind == Kind::File && temp.links <= 1 && temp.size_bytes <= file.size_bytes)
        else {
            return Ok(());
        };
        let mut kept = RangeSet::default();
        good.into_iter().for_each(|range| kept.insert(range));
        file.is_created = !kept.is_empty();
        if file.is_created {
            let unused = temp.allocated_bytes.min(file.size_bytes).saturating_sub(kept.len_bytes());
            lock(&self.state).preallocated_bytes += unused;
        }
        file.kept = kept;
        Ok(())
    }

    fn drop_left(&self, file: &mut ActiveFile, left: Left) -> Result<(), DestinationError> {
        self.store.drop_temp(left.id, &file.target)?;
        let mut earlier = lock(&self.store.earlier);
        earlier.settle(left.id);
        file.id = earlier.fresh_id();
        Ok(())
    }

    /// Removes what earlier runs left of files that the peer did not mention this time, and what this run has
    /// begun and given up: as much of it as can be removed.
    pub(super) fn remove_temps(&self) -> Result<(), DestinationError> {
        let mut temps = lock(&self.store.earlier).take_unsettled();
        let (active, given_up) = self.store.given_up();
        temps.extend(given_up);
        let names: HashSet<_> = active.iter().map(|id| self.site.key.temp_name(*id).into_bytes()).collect();
        let orphaned_temps = std::mem::take(&mut lock(&self.state).orphaned_temps);
        let orphaned_temps = orphaned_temps.iter().filter(|path| !names.contains(path.file_name()));
        let removed = temps.iter().map(|(id, path)| self.store.remove_temp(*id, path));
        let removed = removed.chain(orphaned_temps.map(|path| self.remove_orphaned_temp(path)));
        removed.fold(Ok(()), Result::and)
    }

    fn remove_orphaned_temp(&self, path: &RelPath) -> Result<(), DestinationError> {
        let Ok(parent) = self.site.dirs.parent_of(path) else {
            return Ok(());
        };
        platform::remove_if_there(&parent.dir, path.file_name())
            .map_err(|error| self.site.failed(Operation::Remove, path, error))
    }

    fn verify(&self, id: u64, shared_only: bool) {
        let chunks = lock(&self.store.earlier).unverified(id, shared_only);
        let verdicts = parallel::map(&chunks, |chunk| self.is_good(chunk));
        let mut earlier = lock(&self.store.earlier);
        for (chunk, is_good) in chunks.iter().zip(verdicts) {
            earlier.judge(chunk.number, is_good);
        }
    }

    /// Reads the chunk again. What cannot be read is not kept.
    fn is_good(&self, chunk: &Unverified) -> bool {
        let mut hasher = self.site.options.digest.chunk_hasher(chunk.piece);
        let mut buffer = Scratch::new(READ_LEN_BYTES);
        let spans = chunk.kept.spans.iter().zip(&chunk.paths);
        let mut read = spans.map(|(span, path)| {
            let file = self.open_left(span.id, path)?;
            hash_span(&file, span, &mut hasher, &mut buffer)
        });
        read.all(|result| result.is_ok()) && hasher.finish() == chunk.kept.digest
    }

    /// Opens where the bytes of a kept file are: under its temporary name, or, if the run was cut off
    /// after it was published, under its own.
    fn open_left(&self, id: u64, path: &RelPath) -> io::Result<File> {
        let parent = self.site.dirs.parent_of(path)?;
        let file = match platform::open_file(&parent.dir, self.site.key.temp_name(id).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                platform::open_file(&parent.dir, path.file_name())?
            }
            result => result?,
        };
        match platform::stat_open(&file)?.kind {
            Kind::File => Ok(file),
            Kind::Directory | Kind::Symlink | Kind::Special => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn hash_span(file: &File, span: &KeptSpan, hasher: &mut Hasher, buffer: &mut [u8]) -> io::Result<()> {
    let range = span.offset_bytes..span.offset_bytes.saturating_add(span.len_bytes);
    let read = |at, buffer: &mut [u8]| platform::read_at(file, at, buffer);
    let len_bytes = hash_parts(hasher, range, buffer, read, |_| Ok(()))?;
    if len_bytes == span.len_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
