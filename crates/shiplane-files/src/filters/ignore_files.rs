//! The files `.gitignore` and `.shiplaneignore` of one directory.

use std::io::{self, Read};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap_std::fs::Dir;
use shiplane_wire::escape;

use crate::platform::{self, Kind, Patterns};

/// The patterns of one directory's ignore files.
#[derive(Debug)]
pub(crate) struct IgnoreFiles {
    patterns: Patterns,
    memory: IgnoreMemory,
}

/// What the ignore files take in memory of the directories that a walk is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct IgnoreMemory(Arc<AtomicUsize>);

impl Drop for IgnoreFiles {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.patterns.cost_bytes(), Ordering::Relaxed);
    }
}

impl IgnoreFiles {
    /// Reads them. A line that is no pattern is passed over, as git does.
    ///
    /// # Errors
    /// If one cannot be read, is too long, or has too many patterns with those of the directories above. What is in
    /// the directory cannot be told apart then.
    pub(super) fn of(dir: &Dir, memory: &IgnoreMemory) -> io::Result<Option<Self>> {
        let mut patterns = Patterns::default();
        for name in NAMES {
            let Some(text) = read(dir, name)? else { continue };
            for line in text.split(|byte| *byte == b'\n') {
                if let Err(reason) = patterns.add(line) {
                    tracing::warn!(pattern = %escape(line), reason, "an ignore file has a broken pattern");
                }
            }
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        let cost_bytes = patterns.cost_bytes();
        let all = memory.0.fetch_add(cost_bytes, Ordering::Relaxed) + cost_bytes;
        // Given back when it is dropped.
        let files = Self { patterns, memory: memory.clone() };
        if all > MAX_IGNORE_FILES_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(files)) }
    }

    /// Whether a path below the directory is excluded; `None` if nothing is said of it.
    pub(super) fn decide(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        self.patterns.decide(path.strip_prefix(b"/").unwrap_or(path), is_directory)
    }
}

/// Whether this is the name of one.
pub(super) fn is_one(name: &[u8]) -> bool {
    NAMES.iter().any(|known| known.as_bytes() == name)
}

/// The text of a file; `None` if there is none. No link is followed.
fn read(dir: &Dir, name: &str) -> io::Result<Option<Vec<u8>>> {
    let stat = platform::stat_if_there(dir, name.as_bytes())?;
    let Some(stat) = stat.filter(|stat| stat.kind == Kind::File) else { return Ok(None) };
    if stat.size_bytes > MAX_LEN_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let file = match platform::open_file(dir, name.as_bytes()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The later ones overrule the earlier ones.
const NAMES: [&str; 2] = [".gitignore", ".shiplaneignore"];

/// 32 KiB, as many as patterns may be given on a command line.
const MAX_LEN_BYTES: u64 = 32 << 10;

/// 2 MiB: what the ignore files of all directories on the way to a path take in memory.
pub const MAX_IGNORE_FILES_BYTES: usize = 2 << 20;
