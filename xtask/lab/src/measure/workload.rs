//! What is carried, and whether it arrived.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use walkdir::WalkDir;
use xtask::dataset::{self, make_directory};
use xtask::driver::Verb;
use xtask::scratch::{self, Scratch};
use xtask::{tree, units};

use super::machine;

/// What is carried, with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// One file of this size.
    File(u64),
    /// The same, of which an older version is there.
    Edited(u64),
    /// A tree of this number of small files.
    Tree(u32),
    /// The same, when all of it is there.
    Unchanged(u32),
}

impl Workload {
    pub(super) fn is_file(self) -> bool {
        matches!(self, Self::File(_) | Self::Edited(_))
    }

    pub(super) fn described(self) -> String {
        match self {
            Self::File(bytes) | Self::Edited(bytes) => format!("One file of {}", units::megabytes(bytes)),
            Self::Tree(files) | Self::Unchanged(files) => {
                format!("{} small files", units::count(files.into()))
            }
        }
    }

    /// More than all that will lie there at a time.
    pub(super) fn room_bytes(self) -> u64 {
        match self {
            // The file, its copy, what a program keeps beside them, and what is written before a run.
            Self::File(bytes) => 4 * bytes + (64 << 20),
            // And the older version, in two places.
            Self::Edited(bytes) => 6 * bytes + (64 << 20),
            Self::Tree(files) => 4 * SMALL_ROOM_BYTES * u64::from(files),
            // A copy for each contender.
            Self::Unchanged(files) => 8 * SMALL_ROOM_BYTES * u64::from(files),
        }
    }
}

#[derive(Debug)]
pub(super) struct Data {
    pub(super) workload: Workload,
    /// Holds the item and nothing else.
    pub(super) source: PathBuf,
    /// An older version of the file, if one is there before.
    older: Option<PathBuf>,
    runs: PathBuf,
    /// Of the item's content.
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct RunPaths {
    /// Where the item is copied to.
    pub(super) destination: PathBuf,
    /// For the server's files and the client's.
    pub(super) state: PathBuf,
}

impl Data {
    /// Makes the data, unless an earlier row has.
    pub(super) fn lay(workload: Workload, scratch: &Scratch) -> Result<Self> {
        let place = scratch.path().join(format!("{workload:?}"));
        let [source, older] = ["source", "older"].map(|name| place.join(name));
        let item = source.join(ITEM);
        if !place.exists() {
            println!("making it: {}", workload.described());
            make_directory(&source)?;
            match workload {
                Workload::File(bytes) => dataset::large_file(&item, bytes)?,
                Workload::Edited(bytes) => {
                    dataset::large_file(&older, bytes)?;
                    edit(&older, &item, bytes)?;
                }
                Workload::Tree(files) | Workload::Unchanged(files) => {
                    dataset::small_tree(&item, files as usize, DIRECTORIES)?;
                }
            }
        }
        Self::at(&place, workload)
    }

    /// What lies at a place.
    pub(super) fn at(place: &Path, workload: Workload) -> Result<Self> {
        let [source, older, runs] = ["source", "older", "runs"].map(|name| place.join(name));
        let older = older.exists().then_some(older);
        Ok(Self { workload, older, runs, bytes: tree::survey(&source)?.bytes, source })
    }

    /// The directories of a program, made if they are absent, with what it is to find there.
    pub(super) fn paths(&self, contender: &str) -> Result<RunPaths> {
        let [destination, state] = ["copy", "state"].map(|name| self.runs.join(contender).join(name));
        make_directory(&destination)?;
        make_directory(&state)?;
        if let Some(older) = &self.older {
            let there = destination.join(ITEM);
            fs::copy(older, &there).context("cannot put the older version in place")?;
            // No program may take it for the newer one by its time.
            let then = SystemTime::now() - Duration::from_secs(3600);
            filetime::set_file_mtime(&there, then.into()).context("cannot set the older version's time")?;
        }
        Ok(RunPaths { destination, state })
    }

    /// Leaves nothing for a run to do but its own work: the disk has written all, and a virtual machine has back the memory
    /// that its host takes from it after some seconds. Getting that again costs a program more than copying does.
    pub(super) fn settle(&self) -> Result<()> {
        if machine::file_system(&self.source) != "tmpfs" {
            rustix::fs::sync();
        }
        let directory = scratch::memory_or_disk(self.bytes);
        let mut file = tempfile::tempfile_in(directory).context("cannot write before a run")?;
        io::copy(&mut io::repeat(1).take(self.bytes), &mut file).context("cannot write before a run")?;
        Ok(())
    }

    /// Looks at the copy, at every byte of it if `closely`. Not every program keeps times and rights.
    pub(super) fn expect_copy(&self, paths: &RunPaths, closely: bool) -> Result<()> {
        let (item, copy) = (self.source.join(ITEM), paths.destination.join(ITEM));
        if closely && self.workload.is_file() {
            return tree::expect_same_content(&item, &copy);
        }
        if closely {
            let found = tree::differences(&item, &copy)?;
            let wrong = found.iter().find(|(_, difference)| difference.is_content());
            return wrong.map_or(Ok(()), |(path, what)| bail!("the copy differs: {path:?}: {what:?}"));
        }
        let arrived = tree::survey(&paths.destination)?.bytes;
        ensure!(arrived == self.bytes, "{arrived} bytes arrived instead of {}", self.bytes);
        Ok(())
    }
}

impl RunPaths {
    /// The directory of one side's own.
    pub(super) fn home(&self, side: &str) -> Result<PathBuf> {
        let home = self.state.join(side);
        make_directory(&home)?;
        Ok(home)
    }

    /// Removes what the next run is not to find: that of a sync would find neither side changed.
    pub(super) fn clear(&self, workload: Workload, verb: Verb) -> Result<()> {
        if matches!(workload, Workload::Unchanged(_)) {
            return Ok(());
        }
        if verb == Verb::Sync {
            tree::remove(&self.state)?;
        }
        tree::remove(&self.destination)
    }

    /// Removes the file that has arrived, for another receiver.
    pub(super) fn clear_file(&self) -> Result<()> {
        fs::remove_file(self.destination.join(ITEM)).context("cannot remove what the first receiver has got")
    }
}

/// What is on the disk beneath `directory`; space that was only set aside does not count.
pub(super) fn present_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in WalkDir::new(directory) {
        let metadata = entry.and_then(|entry| entry.metadata()).context("cannot look at the destination")?;
        if metadata.is_file() {
            bytes += metadata.len().min(metadata.blocks() * 512);
        }
    }
    Ok(bytes)
}

/// Writes a newer version: two bytes more at the front, and 4 KiB that differ at [`EDITS`] places.
fn edit(older: &Path, newer: &Path, bytes: u64) -> Result<()> {
    let cannot = || format!("cannot write {}", newer.display());
    let mut from = File::open(older).context("cannot read the older version")?;
    let mut to = File::options().create_new(true).read(true).write(true).open(newer).with_context(cannot)?;
    to.write_all(b"!!").with_context(cannot)?;
    io::copy(&mut from, &mut to).with_context(cannot)?;
    let step_bytes = bytes / (EDITS + 1);
    let mut piece = vec![0; EDIT_LEN_BYTES.min(usize::try_from(step_bytes).unwrap_or(usize::MAX))];
    for at in 1..=EDITS {
        let offset = SeekFrom::Start(at * step_bytes);
        to.seek(offset).and_then(|_| to.read_exact(&mut piece)).with_context(cannot)?;
        piece.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3) ^ at as u8 ^ 0x55);
        to.seek(offset).and_then(|_| to.write_all(&piece)).with_context(cannot)?;
    }
    Ok(())
}

/// A file or a directory.
pub(super) const ITEM: &str = "data";

/// How many places of the edited file differ, besides its front.
pub(super) const EDITS: u64 = 100;

/// What differs at each.
const EDIT_LEN_BYTES: usize = 4096;

/// Over which the small files are spread.
pub(super) const DIRECTORIES: usize = 100;

/// More than a small file takes on average, blocks and all.
const SMALL_ROOM_BYTES: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_file_is_two_bytes_longer_and_differs_at_a_hundred_places() {
        let scratch = tempfile::tempdir().unwrap();
        let (older, newer) = (scratch.path().join("older"), scratch.path().join("newer"));
        let bytes = 8 << 20;
        dataset::large_file(&older, bytes).unwrap();
        edit(&older, &newer, bytes).unwrap();
        let (older, newer) = (fs::read(older).unwrap(), fs::read(newer).unwrap());
        assert_eq!(newer.len(), older.len() + 2);
        let blocks = older.chunks(EDIT_LEN_BYTES).zip(newer[2..].chunks(EDIT_LEN_BYTES));
        let differing = blocks.filter(|(older, newer)| older != newer).count();
        // Each edit touches one block or two.
        assert!((100..=200).contains(&differing), "{differing}");
    }

    #[test]
    fn holes_of_a_file_are_not_present() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), [7; 1000]).unwrap();
        File::create(directory.path().join("b")).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(present_bytes(directory.path()).unwrap(), 1000);
    }
}
