//! Changes two copies of a tree, each in another way.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

/// Writes a new file on each side; then here the largest file is edited, and there the smallest removed.
pub(super) fn make(ours: &Path, theirs: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in WalkDir::new(ours).sort_by_file_name() {
        let entry = entry.context("cannot walk the copy")?;
        if entry.file_type().is_file() {
            files.push((entry.metadata()?.len(), entry.path().strip_prefix(ours)?.to_path_buf()));
        }
    }
    files.sort();
    for (root, note) in [ours, theirs].into_iter().zip(NOTES) {
        fs::write(root.join(note), note).context("cannot write a new file")?;
    }
    if let [(_, smallest), .., (_, largest)] = &files[..] {
        edit(&ours.join(largest)).context("cannot edit the largest file")?;
        fs::remove_file(theirs.join(smallest)).context("cannot remove the smallest file")?;
    }
    Ok(())
}

/// Fails unless each side's new file is there.
pub(super) fn expect_both(root: &Path) -> Result<()> {
    let is_missing = |note: &&&str| fs::read_to_string(root.join(note)).ok().as_deref() != Some(**note);
    let missing = NOTES.iter().find(is_missing);
    missing.map_or(Ok(()), |note| bail!("{note} has not come through"))
}

/// Other bytes in the middle, and some more at the end.
fn edit(path: &Path) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let len_bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(len_bytes / 2))?;
    file.write_all(b"edited in the middle")?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(b"and longer than before")
}

/// The new files, with their own names as content.
const NOTES: [&str; 2] = ["written here.txt", "written there.txt"];
