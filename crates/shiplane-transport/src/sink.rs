//! Sinks: where a chunk's bytes are written.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use shiplane_wire::{Durability, Stored, Verified};

use crate::error::SinkError;

/// Takes a chunk's bytes in order and keeps them once they are verified.
///
/// A sink that is dropped without a commit keeps nothing under a final name.
pub trait ChunkSink: Send + 'static {
    /// The result of a commit, in addition to the proof that the chunk is stored.
    type Output: Send + 'static;
    /// The sink's own failures.
    type Error: std::error::Error + Send + 'static;

    /// Whether [`write`](Self::write) and [`commit`](Self::commit) never wait for a disk or a network. Then they are
    /// called on the connection's own thread; else, as by default, on one that may block.
    fn is_immediate(&self) -> bool {
        false
    }

    /// The next bytes, about a buffer's worth. They are *not verified yet*: they must not become visible under a
    /// final name.
    ///
    /// # Errors
    /// The receiver then answers with status 2.
    fn write(&mut self, data: &[u8]) -> Result<(), Self::Error>;

    /// All bytes have been written and their digest matched: keep them.
    ///
    /// # Errors
    /// The receiver then answers with status 2; success can only be sent with the [`Stored`].
    fn commit(self, verified: Verified) -> Result<(Stored, Self::Output), Self::Error>;
}

/// Collects a chunk in memory.
#[derive(Debug, Default)]
pub(crate) struct MemorySink {
    data: BytesMut,
}

impl ChunkSink for MemorySink {
    type Output = Bytes;
    type Error = SinkError;

    fn is_immediate(&self) -> bool {
        true
    }

    /// Grows with received data, never with an announced size.
    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn commit(self, verified: Verified) -> Result<(Stored, Bytes), SinkError> {
        Ok((verified.stored(Durability::Verified), self.data.freeze()))
    }
}

/// Hands a chunk on to a writer as it arrives: its user sees bytes before they are verified, and must
/// wait for the result before it acts on them.
#[derive(Debug)]
pub(crate) struct WriterSink<W>(pub(crate) W);

impl<W: Write + Send + 'static> ChunkSink for WriterSink<W> {
    type Output = W;
    type Error = SinkError;

    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        Ok(self.0.write_all(data)?)
    }

    fn commit(mut self, verified: Verified) -> Result<(Stored, W), SinkError> {
        self.0.flush()?;
        Ok((verified.stored(Durability::Verified), self.0))
    }
}

/// Writes a chunk to a new file: under a temporary name, verified, synced, then linked to its final
/// name, which must not exist.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: BufWriter<File>,
    temporary: TemporaryName,
    path: PathBuf,
}

impl FileSink {
    /// Blocking. Fails at once when the final name exists.
    pub(crate) fn create(path: &Path) -> Result<Self, SinkError> {
        if path.symlink_metadata().is_ok() {
            return Err(SinkError::Exists { path: path.to_owned() });
        }
        // Not made from the final name, which may be as long as a name can be.
        let temporary = path.with_file_name(format!(".shiplane-{:016x}.part", random_u64()?));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let file = BufWriter::with_capacity(WRITE_LEN_BYTES, file);
        Ok(Self { file, temporary: TemporaryName(temporary), path: path.to_owned() })
    }
}

impl ChunkSink for FileSink {
    type Output = ();
    type Error = SinkError;

    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        Ok(self.file.write_all(data)?)
    }

    fn commit(mut self, verified: Verified) -> Result<(Stored, ()), SinkError> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        // A hard link, unlike a rename, never replaces what appeared meanwhile; the temporary name
        // goes when `temporary` is dropped.
        match std::fs::hard_link(&self.temporary.0, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(SinkError::Exists { path: self.path });
            }
            other => other?,
        }
        if let Some(parent) = self.path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        Ok((verified.stored(Durability::Durable), ()))
    }
}

/// Removed when dropped.
#[derive(Debug)]
struct TemporaryName(PathBuf);

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = ?self.0, %error, "temporary file left behind");
        }
    }
}

fn random_u64() -> Result<u64, SinkError> {
    let random = ring::rand::generate::<[u8; 8]>(&ring::rand::SystemRandom::new())
        .map_err(|_| SinkError::Io(io::Error::other("the system's random source failed")))?;
    Ok(u64::from_le_bytes(random.expose()))
}

/// Writes of this size cost little more than their bytes.
const WRITE_LEN_BYTES: usize = 128 * 1024;
