//! Taking up a file that an earlier run began.

use std::fs::File;
use std::io;

use crate::{
    buffers::Scratch,
    destination::Inner,
    error::{DestinationError, Operation},
    hash::{READ_LEN_BYTES, hash_parts},
    leftovers::{Left, Unverified},
    lock, parallel,
    platform::{self, Kind},
    ranges::RangeSet,
    record::{Batch, KeptSpan},
    state::ActiveFile,
};
use shiplane_wire::{Hasher, RelPath};

impl Inner {
    /// Gives `file` its number and what is left of it. Bytes count only if their chunk still has the
    /// digest that it was verified with; of another state of the source nothing counts.
    pub(super) fn resume(&self, file: &mut ActiveFile) -> Result<(), DestinationError> {
        let left = lock(&self.leftovers).find(&file.target);
        let Some(left) = left else {
            file.id = lock(&self.leftovers).fresh_id();
            return Ok(());
        };
        let is_same = left.size_bytes == file.size_bytes && left.version == file.version;
        // Before this file's bytes are given up: others may share chunks with it.
        self.verify(left.id, !is_same);
        if is_same { self.go_on(file, left) } else { self.drop_left(file, left) }
    }

    fn go_on(&self, file: &mut ActiveFile, left: Left) -> Result<(), DestinationError> {
        let good = {
            let mut leftovers = lock(&self.leftovers);
            leftovers.settle(left.id);
            leftovers.good_ranges(left.id)
        };
        file.id = left.id;
        file.is_begun = true;
        lock(&self.state).temps.insert(left.id, file.target.clone());
        let parent = self.parent_of(&file.target)?;
        let temp = platform::stat(&parent.dir, self.key.temp_name(left.id).as_bytes());
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
        self.remove_temp(left.id, &file.target)?;
        let mut batch = Batch::default();
        batch.dropped(&[left.id]);
        self.record(&batch)?;
        let mut leftovers = lock(&self.leftovers);
        leftovers.settle(left.id);
        file.id = leftovers.fresh_id();
        Ok(())
    }

    /// Removes a temporary file, if it is there.
    pub(super) fn remove_temp(&self, id: u64, target: &RelPath) -> Result<(), DestinationError> {
        // Else its directory is gone or is another thing now, and the file with it.
        let Ok(parent) = self.dirs.parent_of(target) else {
            return Ok(());
        };
        match platform::remove_file(&parent.dir, self.key.temp_name(id).as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed(Operation::Remove, target, error))
            }
            _ => {
                lock(&self.state).temps.remove(&id);
                Ok(())
            }
        }
    }

    fn verify(&self, id: u64, shared_only: bool) {
        let chunks = lock(&self.leftovers).unverified(id, shared_only);
        let verdicts = parallel::map(&chunks, |chunk| self.is_good(chunk));
        let mut leftovers = lock(&self.leftovers);
        for (chunk, is_good) in chunks.iter().zip(verdicts) {
            leftovers.judge(chunk.number, is_good);
        }
    }

    /// Reads the chunk again. What cannot be read is not kept.
    fn is_good(&self, chunk: &Unverified) -> bool {
        let mut hasher = self.options.digest.chunk_hasher(chunk.piece);
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
        let parent = self.dirs.parent_of(path)?;
        let file = match platform::open_file(&parent.dir, self.key.temp_name(id).as_bytes()) {
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
