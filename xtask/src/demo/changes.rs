//! Changes two copies of a tree, each in another way.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use walkdir::WalkDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Theirs,
}

impl Side {
    /// A file that is new on this side, with its own name as content.
    fn note(self) -> &'static str {
        match self {
            Self::Ours => "written here.txt",
            Self::Theirs => "written there.txt",
        }
    }
}

/// Writes a new file; then here the largest file is edited, and there the smallest removed.
pub(super) fn make(root: &Path, side: Side) -> Result<()> {
    let files = files_by_size(root)?;
    let note = root.join(side.note());
    fs::write(&note, side.note()).with_context(|| format!("cannot write {}", note.display()))?;
    // With fewer, the smallest may be the largest.
    let ([smallest, ..], [.., largest]) = (&files[..], &files[..]) else { return Ok(()) };
    match side {
        Side::Ours => edit(largest).with_context(|| format!("cannot edit {}", largest.display())),
        Side::Theirs if smallest == largest => Ok(()),
        Side::Theirs => {
            fs::remove_file(smallest).with_context(|| format!("cannot remove {}", smallest.display()))
        }
    }
}

/// Fails unless each side's new file is there.
pub(super) fn expect_both(root: &Path) -> Result<()> {
    for side in [Side::Ours, Side::Theirs] {
        let note = fs::read_to_string(root.join(side.note()));
        ensure!(note.ok().as_deref() == Some(side.note()), "{} has not come through", side.note());
    }
    Ok(())
}

/// Other bytes in the middle, and some more at the end.
fn edit(path: &Path) -> Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let len_bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(len_bytes / 2))?;
    file.write_all(b"edited in the middle")?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(b"and longer than before")?;
    Ok(())
}

/// All files beneath `root`, the smallest first.
fn files_by_size(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.context("cannot walk the copy")?;
        if entry.file_type().is_file() {
            files.push((entry.metadata()?.len(), entry.into_path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}
