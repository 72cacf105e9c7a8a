//! Files that the kernel makes up as they are read, as below `/proc`: their size says nothing of their content.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shiplane_wire::{Digest, Entry, Version};

/// The content of such files as it was when they were listed: the last ones, since their content may differ when they
/// are sent. A handle: clones share it.
#[derive(Clone, Debug, Default)]
pub struct MadeUpFiles(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    files: VecDeque<(Version, Arc<[u8]>)>,
    len_bytes: usize,
}

impl MadeUpFiles {
    /// Reads such a file to its end and gives its entry the size and the version of what was there.
    pub fn list(&self, file: File, entry: &mut Entry) -> io::Result<()> {
        let content = read(file)?;
        entry.size_bytes = content.len() as u64;
        entry.version = version_of(&content);
        let mut held = self.lock();
        if held.files.iter().any(|(version, _)| *version == entry.version) {
            return Ok(());
        }
        held.len_bytes += content.len();
        held.files.push_back((entry.version, content));
        while held.len_bytes > MAX_HELD_BYTES
            && let Some((_, content)) = held.files.pop_front()
        {
            held.len_bytes -= content.len();
        }
        Ok(())
    }

    /// What was read when the entry was listed, if it is still held.
    pub fn find(&self, entry: &Entry) -> Option<Arc<[u8]>> {
        let held = self.lock();
        let (_, content) = held.files.iter().find(|(version, _)| *version == entry.version)?;
        Some(Arc::clone(content))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Of a file that is missing here, only the comparison fails.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads such a file again; `None` if it is not any more what was listed.
pub fn read_again(file: File, entry: &Entry) -> io::Result<Option<Arc<[u8]>>> {
    let content = read(file)?;
    Ok((version_of(&content) == entry.version).then_some(content))
}

fn read(file: File) -> io::Result<Arc<[u8]>> {
    let mut content = Vec::new();
    file.take(MAX_LEN_BYTES + 1).read_to_end(&mut content)?;
    // There may be no end.
    if content.len() as u64 > MAX_LEN_BYTES {
        Err(io::ErrorKind::FileTooLarge.into())
    } else {
        Ok(content.into())
    }
}

fn version_of(content: &[u8]) -> Version {
    let mut version = [0; 16];
    version.copy_from_slice(&Digest::blake3(&[b"made up", content].concat()).as_bytes()[..16]);
    Version::from_bytes(version)
}

/// 4 MiB: the longest text files there have less.
const MAX_LEN_BYTES: u64 = 4 << 20;

/// 8 MiB.
const MAX_HELD_BYTES: usize = 8 << 20;
