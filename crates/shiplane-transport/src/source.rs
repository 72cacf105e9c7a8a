//! Sources: where a chunk's bytes are read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    blocking,
    buffer::BufferPool,
    error::{SendChunkError, SourceError},
};

/// What [`send_chunk_verified`](crate::PeerConnection::send_chunk_verified) sends.
#[derive(Debug, Clone)]
pub enum ChunkSource {
    /// Read from a file on disk, once, as it is sent.
    File(PathBuf),

    /// Data already in memory.
    Memory(Bytes),
}

impl ChunkSource {
    /// Opens it for reading. Blocking; a file's size is fixed here, and a change of it noticed later.
    ///
    /// # Errors
    /// `SourceError::Io` when the file is missing, unreadable or not a regular file.
    #[doc(hidden)]
    pub fn open(&self) -> Result<Box<dyn ChunkRead>, SourceError> {
        Ok(match self {
            Self::Memory(data) => Box::new(MemorySource::new(data.clone())),
            Self::File(path) => Box::new(FileSource::open(path)?),
        })
    }

    /// The same, on a blocking thread. Cancel-safe.
    ///
    /// # Errors
    /// As there, in [`SendChunkError::Source`].
    #[doc(hidden)]
    pub async fn opened(&self) -> Result<Box<dyn ChunkRead>, SendChunkError> {
        let source = self.clone();
        let opened = blocking::spawn(move || source.open()).await;
        Ok(opened.map_err(|_| SourceError::Abandoned)??)
    }
}

/// A source of exactly [`len_bytes`](Self::len_bytes) bytes, read once.
pub trait ChunkRead: Send + 'static {
    /// The size that goes into the frame's header; fixed from the start.
    fn len_bytes(&self) -> u64;

    /// The next bytes, at most `max_len_bytes` of them; empty at the end. Called on a thread that may block.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when it is no longer what it was.
    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError>;

    /// The same, if it can be had without waiting for a disk or a network: `None`, as by default, has
    /// [`read`](Self::read) called on another thread. Called on the connection's own thread, as is
    /// [`check_unchanged`](Self::check_unchanged) after a last read that did not wait.
    ///
    /// # Errors
    /// As `read`.
    fn try_read(&mut self, max_len_bytes: usize) -> Result<Option<Bytes>, SourceError> {
        let _ = max_len_bytes;
        Ok(None)
    }

    /// Called after the last byte and before the digest is sent: the last chance to say that what
    /// was read is no consistent whole.
    ///
    /// # Errors
    /// [`SourceError::Changed`]; the receiver then never sees a digest.
    fn check_unchanged(&mut self) -> Result<(), SourceError>;
}

impl<R: ChunkRead + ?Sized> ChunkRead for Box<R> {
    fn len_bytes(&self) -> u64 {
        (**self).len_bytes()
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        (**self).read(max_len_bytes)
    }

    fn try_read(&mut self, max_len_bytes: usize) -> Result<Option<Bytes>, SourceError> {
        (**self).try_read(max_len_bytes)
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        (**self).check_unchanged()
    }
}

/// Memory as a source: slices, no copy.
#[derive(Debug)]
pub(crate) struct MemorySource {
    rest: Bytes,
    len_bytes: u64,
}

impl MemorySource {
    pub(crate) fn new(data: Bytes) -> Self {
        Self { len_bytes: data.len() as u64, rest: data }
    }
}

impl ChunkRead for MemorySource {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        Ok(self.rest.split_to(max_len_bytes.min(self.rest.len())))
    }

    fn try_read(&mut self, max_len_bytes: usize) -> Result<Option<Bytes>, SourceError> {
        self.read(max_len_bytes).map(Some)
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// One whole file as a source. It is opened once; what its name leads to must be the same file in the
/// same state to the end.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: File,
    buffers: BufferPool,
    path: PathBuf,
    before: State,
}

impl FileSource {
    /// Blocking.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let mut options = OpenOptions::new();
        options.read(true);
        // A pipe without a writer would block for ever.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        );
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(SourceError::Io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        Ok(Self { before: State::of(&metadata), path: path.to_owned(), file, buffers: BufferPool::default() })
    }
}

impl ChunkRead for FileSource {
    fn len_bytes(&self) -> u64 {
        self.before.len_bytes
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        let Self { file, buffers, .. } = self;
        Ok(buffers.filled(max_len_bytes, |buffer| {
            loop {
                match file.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })?)
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        let unchanged = State::of(&self.file.metadata()?) == self.before;
        // Replaced by another file: what was read is whole, but not what the name stands for.
        let in_place = std::fs::metadata(&self.path).is_ok_and(|now| State::of(&now) == self.before);
        if unchanged && in_place { Ok(()) } else { Err(SourceError::Changed) }
    }
}

/// What must not change while a file is sent.
#[derive(Debug, PartialEq, Eq)]
struct State {
    len_bytes: u64,
    modified: Option<std::time::SystemTime>,
    identity: Identity,
}

impl State {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let identity = identity(metadata);
        Self { len_bytes: metadata.len(), modified: metadata.modified().ok(), identity }
    }
}

/// Device, inode, and the time of the last change, which no program can set back.
#[cfg(unix)]
type Identity = (u64, u64, i64, i64);

#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;

    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Elsewhere size and modification time have to do.
#[cfg(not(unix))]
type Identity = ();

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> Identity {}
