//! The settings that choose the paths that take part.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::SettingsError;
use crate::args::{FilterArgs, Pattern};

/// What takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FilterSettings {
    pub(crate) patterns: Vec<Pattern>,
    /// Only these paths.
    pub(crate) listed: Option<Vec<Vec<u8>>>,
    pub(crate) ignore: bool,
    pub(crate) one_file_system: bool,
}

impl FilterSettings {
    /// Interprets the arguments. `stdin` is read only for `--files-from -`; `None` if something else needs it.
    pub(super) fn from_args(args: &FilterArgs, stdin: Option<impl Read>) -> Result<Self, SettingsError> {
        let FilterArgs { patterns, files_from, null, ignore, one_file_system } = args;
        let listed = match files_from {
            None => None,
            Some(file) => {
                let from = file.display().to_string();
                let bytes = if file == Path::new("-") {
                    read(stdin.ok_or(SettingsError::StdinTwice)?)
                } else {
                    File::open(file).and_then(read)
                };
                let bytes = bytes.map_err(|source| SettingsError::FilesFrom { from, source })?;
                let end = if *null { 0 } else { b'\n' };
                let paths = bytes.split(|byte| *byte == end).filter(|path| !path.is_empty());
                Some(paths.map(<[u8]>::to_vec).collect())
            }
        };
        let patterns = patterns.clone();
        Ok(Self { patterns, listed, ignore: *ignore, one_file_system: *one_file_system })
    }
}

fn read(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_LIST_LEN_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// 4 MiB: more than a server takes, which then says how much that is.
const MAX_LIST_LEN_BYTES: u64 = 4 << 20;
