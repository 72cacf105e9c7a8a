//! Errors in the settings that choose files to copy, replace and keep.

use std::{io, path::PathBuf};

use shiplane_files::internals::{FiltersError, SuffixRefused};
use shiplane_wire::escape;

/// Why a job cannot do as it is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChoiceError {
    #[error(transparent)]
    Filters(#[from] FiltersError),
    #[error("cannot read the patterns of {}: {source}", escape(path.as_os_str().as_encoded_bytes()))]
    PatternFile { path: PathBuf, source: io::Error },
    #[error("{}, line {number}: {error}", escape(path.as_os_str().as_encoded_bytes()))]
    PatternLine { path: PathBuf, number: usize, error: FiltersError },
    #[error(transparent)]
    Suffix(#[from] SuffixRefused),
    #[error("existing files can be kept or replaced, but not both")]
    KeepOrReplace,
    #[error("a dry run compares directories and files with names, not streams")]
    DryRunOutput,
}

impl ChoiceError {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Filters(_) | Self::PatternLine { .. } => {
                "correct the pattern; patterns are written as in a .gitignore"
            }
            Self::PatternFile { .. } => "give a text file with one pattern on each line",
            Self::Suffix(_) => "give the end of a name, e.g. ~ or .old",
            Self::DryRunOutput => "omit --dry-run, or give a path",
            Self::KeepOrReplace => "use either --keep-existing, or --overwrite or --backup",
        }
    }
}
