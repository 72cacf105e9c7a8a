//! Changes two copies of the tree on both sides and syncs them.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use super::Fixture;
use super::report::Act;
use crate::shiplane::{Server, Synced};
use crate::units;

/// The sync that had something to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reunited {
    /// Content on each side, once they are equal.
    pub(super) files: u64,
    pub(super) moved_bytes: u64,
    pub(super) act: Act,
}

impl Fixture<'_> {
    /// Syncs what `get` has brought with what was pushed into `theirs`: first as they are, then changed.
    pub(super) fn sync(&self, server: &Server, theirs: &Path) -> Result<Reunited> {
        let name = self.source.file_name().context("the tree has no name")?;
        // Beneath one directory each, as it is `theirs` that is served.
        let ours = self.scratch.directory("ours")?;
        fs::rename(self.copy(), ours.join(name)).context("cannot move the copy")?;
        println!("syncing the two copies");
        let (_, same) = self.sync_once(&ours, server)?;
        if (same.sent_bytes, same.received_bytes) != (0, 0) {
            bail!("the copies are equal, and yet {same:?}");
        }
        println!("changing both, and syncing again");
        change(&ours.join(name), Side::Ours)?;
        change(&theirs.join(name), Side::Theirs)?;
        let (act, synced) = self.sync_once(&ours, server)?;
        self.expect_equal(&ours, theirs)?;
        self.expect_both_kept(&ours.join(name))?;
        let moved_bytes = synced.sent_bytes + synced.received_bytes;
        println!(
            "  {} actions, {} to the server, {} from it",
            units::count(synced.actions),
            units::bytes(synced.sent_bytes),
            units::bytes(synced.received_bytes),
        );
        let (_, again) = self.sync_once(&ours, server)?;
        if again != (Synced { actions: 0, sent_bytes: 0, received_bytes: 0 }) {
            bail!("there was nothing left to do, and yet {again:?}");
        }
        println!("  synced again: nothing to do");
        Ok(Reunited { files: crate::compare::survey(&ours)?.files, moved_bytes, act })
    }

    fn sync_once(&self, ours: &Path, server: &Server) -> Result<(Act, Synced)> {
        let mut command: Command = self.in_chunks(self.shiplane.sync(ours, server, &self.home));
        let (act, events) = self.run("shiplane sync", command.arg("--json"))?;
        Ok((act, Synced::of(&events)?))
    }

    /// Each side's new file is there, and what either removed is not.
    fn expect_both_kept(&self, root: &Path) -> Result<()> {
        for side in [Side::Ours, Side::Theirs] {
            let note = fs::read_to_string(root.join(side.note()));
            if note.ok().as_deref() != Some(side.note()) {
                bail!("{} has not come through", side.note());
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
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
fn change(root: &Path, side: Side) -> Result<()> {
    let note = root.join(side.note());
    fs::write(&note, side.note()).with_context(|| format!("cannot write {}", note.display()))?;
    let files = files_by_size(root)?;
    // With fewer, the smallest may be the largest, or one of the notes.
    let ([smallest, ..], [.., largest]) = (&files[..], &files[..]) else { return Ok(()) };
    match side {
        Side::Ours => edit(largest).with_context(|| format!("cannot edit {}", largest.display())),
        Side::Theirs if smallest == largest => Ok(()),
        Side::Theirs => {
            fs::remove_file(smallest).with_context(|| format!("cannot remove {}", smallest.display()))
        }
    }
}

/// Other bytes in the middle, and some more at the end.
fn edit(path: &Path) -> Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    let len_bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(len_bytes / 2))?;
    file.write_all(b"edited in the middle")?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(b"and longer than before")?;
    Ok(())
}

/// All files beneath `root` but the notes, the smallest first.
fn files_by_size(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.context("cannot walk the copy")?;
        let is_note = [Side::Ours, Side::Theirs].iter().any(|side| entry.path() == root.join(side.note()));
        if entry.file_type().is_file() && !is_note {
            files.push((entry.metadata()?.len(), entry.into_path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_edits_the_largest_and_the_other_removes_the_smallest() {
        let root = tempfile::tempdir().unwrap();
        for (name, len) in [("a", 10), ("b", 1000), ("c", 100)] {
            fs::write(root.path().join(name), vec![7; len]).unwrap();
        }
        change(root.path(), Side::Ours).unwrap();
        let edited = fs::read(root.path().join("b")).unwrap();
        assert!(edited.len() > 1000 && edited[500..].starts_with(b"edited"));
        change(root.path(), Side::Theirs).unwrap();
        assert!(!root.path().join("a").exists() && root.path().join("c").exists());
        for side in [Side::Ours, Side::Theirs] {
            assert_eq!(fs::read_to_string(root.path().join(side.note())).unwrap(), side.note());
        }
    }

    #[test]
    fn a_single_file_is_edited_here_and_not_removed_there() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "only").unwrap();
        change(root.path(), Side::Theirs).unwrap();
        assert!(root.path().join("a").exists());
    }
}
