//! Settings of a job that choose which paths take part.

use std::{fs, path::PathBuf, sync::Arc};

use shiplane_files::internals::{FilterRules, Filters, FiltersError};

use crate::error::ChoiceError;

/// The patterns of a job, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilterSettings {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) listed: Option<Vec<Vec<u8>>>,
    pub(crate) ignore_files: bool,
    pub(crate) one_file_system: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    Exclude(String),
    Include(String),
    /// Lines as in a `.gitignore`.
    File(PathBuf),
}

impl FilterSettings {
    /// Reads the files and checks everything. Blocking.
    pub(crate) fn settle(self) -> Result<Arc<Filters>, ChoiceError> {
        let Self { patterns, listed, ignore_files, one_file_system } = self;
        let mut lines = Vec::new();
        for pattern in patterns {
            match pattern {
                Pattern::Exclude(pattern) => lines.push(Filters::excluding(&pattern)?),
                Pattern::Include(pattern) => lines.push(Filters::including(&pattern)?),
                Pattern::File(path) => read(&path, &mut lines)?,
            }
        }
        let rules = FilterRules { patterns: lines, listed, ignore_files, one_file_system };
        Ok(Filters::new(rules)?.into())
    }
}

fn read(path: &PathBuf, lines: &mut Vec<String>) -> Result<(), ChoiceError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| ChoiceError::PatternFile { path: path.clone(), source })?;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_end().is_empty() || line.starts_with('#') {
            continue;
        }
        let broken = |error: FiltersError| ChoiceError::PatternLine { path: path.clone(), number, error };
        Filters::check_pattern(line).map_err(broken)?;
        lines.push(line.to_owned());
    }
    Ok(())
}
