//! The files `.gitignore` and `.shiplaneignore` of one directory.

use std::io::{self, Read};

use cap_std::fs::Dir;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::decision;
use crate::platform::{self, Kind};

/// The patterns of one directory's ignore files.
#[derive(Debug)]
pub(crate) struct IgnoreFiles(Gitignore);

impl IgnoreFiles {
    /// Reads them. A line that is no pattern is passed over, as git does.
    ///
    /// # Errors
    /// If one cannot be read, or is too long. What is in the directory cannot be told apart then.
    pub(super) fn of(dir: &Dir) -> io::Result<Option<Self>> {
        let mut builder = GitignoreBuilder::new("");
        let mut is_empty = true;
        for name in NAMES {
            let Some(text) = read(dir, name)? else { continue };
            for line in text.lines() {
                match builder.add_line(None, line) {
                    Ok(_) => is_empty = false,
                    Err(error) => tracing::warn!(%error, "an ignore file has a broken pattern"),
                }
            }
        }
        if is_empty {
            return Ok(None);
        }
        builder.build().map(Self).map(Some).map_err(io::Error::other)
    }

    /// Whether a path below the directory is excluded; `None` if nothing is said of it.
    pub(super) fn decide(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        decision(&self.0, path.strip_prefix(b"/").unwrap_or(path), is_directory)
    }
}

/// The text of a file; `None` if there is none. No link is followed.
fn read(dir: &Dir, name: &str) -> io::Result<Option<String>> {
    match platform::stat(dir, name.as_bytes()) {
        Ok(stat) if stat.kind == Kind::File && stat.size_bytes > MAX_LEN_BYTES => {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(stat) if stat.kind == Kind::File => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let file = match platform::open_file(dir, name.as_bytes()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The later ones overrule the earlier ones.
const NAMES: [&str; 2] = [".gitignore", ".shiplaneignore"];

/// 32 KiB, as many as patterns may be given on a command line: each directory on the way to a file may have them.
const MAX_LEN_BYTES: u64 = 32 << 10;
