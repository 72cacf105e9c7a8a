//! What a bench transfers, and whether it arrived.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use xtask::process::{Running, Usage};
use xtask::scratch::{self, Scratch};
use xtask::{dataset, interrupt, tree, units};

use super::Options;
use super::sample::Sample;
use super::wire::Wire;
use crate::machine;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    /// One large file.
    File,
    /// A tree of small files.
    Small,
    /// The same tree, when all of it is there.
    Unchanged,
    /// A large file of which an older version is there.
    Edited,
}

impl Scenario {
    /// As a file name.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Small => "small",
            Self::Unchanged => "unchanged",
            Self::Edited => "edited",
        }
    }

    /// Whether it is one large file.
    pub(super) fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Edited)
    }

    /// Whether the disk has rows of its own: where it has to take what is carried.
    pub(super) fn has_disk_rows(self) -> bool {
        matches!(self, Self::File | Self::Small)
    }

    /// More than all that will lie there at a time.
    pub(super) fn room_bytes(self, options: &Options) -> u64 {
        match self {
            // The file, its copy, what a program keeps beside them, and what is written before a run.
            Self::File => 4 * (options.size_mib << 20) + (64 << 20),
            // And the older version, in two places.
            Self::Edited => 6 * (options.size_mib << 20) + (64 << 20),
            Self::Small => 4 * SMALL_ROOM_BYTES * u64::from(options.files),
            // A copy for each contender.
            Self::Unchanged => 8 * SMALL_ROOM_BYTES * u64::from(options.files),
        }
    }
}

/// The data, laid out.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) scenario: Scenario,
    /// Holds the item and nothing else.
    pub(super) source: PathBuf,
    /// What is carried: a file or a directory in `source`.
    pub(super) item: PathBuf,
    /// An older version of the file, for [`Scenario::Edited`].
    older: Option<PathBuf>,
    /// The type of the file system that it lies on.
    pub(super) file_system: String,
    /// What the names in its rows end with.
    pub(super) suffix: String,
    copies: PathBuf,
    state: PathBuf,
    /// Of the item's content.
    pub(super) bytes: u64,
    pub(super) files: u64,
    pub(super) wire: Rc<Wire>,
}

/// What the receiving program took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    time: Duration,
    wire_bytes: Option<u64>,
    used: Usage,
}

impl Received {
    /// With what the other side used.
    pub(super) fn served_by(self, sender: Usage) -> Sample {
        Sample { time: self.time, sender, receiver: self.used, wire_bytes: self.wire_bytes }
    }
}

impl Workload {
    /// Makes the data.
    pub(super) fn lay(
        scenario: Scenario,
        options: &Options,
        scratch: &Scratch,
        wire: Rc<Wire>,
    ) -> Result<Self> {
        let source = scratch.directory("source")?;
        let (item, older) = match scenario {
            Scenario::File | Scenario::Edited => {
                let item = source.join("file.bin");
                let bytes = options.size_mib << 20;
                println!("making a file of {}", units::bytes(bytes));
                dataset::large_file(&item, bytes)?;
                let older = scratch.path().join("older.bin");
                let is_edited = scenario == Scenario::Edited;
                if is_edited {
                    fs::rename(&item, &older).context("cannot put the older version aside")?;
                    edit(&older, &item, bytes)?;
                }
                (item, is_edited.then_some(older))
            }
            Scenario::Small | Scenario::Unchanged => {
                let item = source.join("tree");
                println!("making {} files", units::count(options.files.into()));
                dataset::small_tree(&item, options.files as usize, DIRECTORIES)?;
                (item, None)
            }
        };
        let held = tree::survey(&source)?;
        Ok(Self {
            scenario,
            source,
            item,
            older,
            file_system: machine::file_system(scratch.path()),
            suffix: String::new(),
            copies: scratch.directory("copies")?,
            state: scratch.directory("state")?,
            bytes: held.bytes,
            files: held.files,
            wire,
        })
    }

    fn is_on_disk(&self) -> bool {
        self.file_system != "tmpfs"
    }

    /// Where a program's own directory lies; made if it is absent.
    pub(super) fn state(&self, name: &str) -> Result<PathBuf> {
        make_directory(self.state.join(name))
    }

    /// The directory that a contender copies the item into, with what it is to find there; made if it is
    /// absent.
    pub(super) fn destination(&self, contender: &str) -> Result<PathBuf> {
        let directory = make_directory(self.copies.join(contender))?;
        if let Some(older) = &self.older {
            let there = self.copy_in(&directory);
            if !there.exists() {
                fs::copy(older, &there).context("cannot put the older version in place")?;
                age(&there)?;
            }
        }
        Ok(directory)
    }

    /// Runs the receiving program to its end, by the clock and the wire. It ends within `LIMIT` or is
    /// killed.
    pub(super) fn carry(&self, name: &str, command: &mut Command) -> Result<Received> {
        if self.is_on_disk() {
            // Or this run would write what the one before has left.
            scratch::sync_disks();
        }
        touch_memory(&place(None, self.bytes), self.bytes)?;
        let before = self.wire.carried_bytes();
        let started = Instant::now();
        let ended = Running::start(name, command)?.wait(LIMIT)?;
        let time = started.elapsed();
        let after = self.wire.carried_bytes();
        let wire_bytes = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let used = ended.expect_success(name)?.used;
        Ok(Received { time, wire_bytes, used })
    }

    /// Looks at the copy, every byte of it if `closely`, and removes it unless the next run is to find it.
    pub(super) fn judge(&self, contender: &str, closely: bool) -> Result<()> {
        let directory = self.copies.join(contender);
        if !directory.exists() {
            return Ok(());
        }
        let copy = self.copy_in(&directory);
        if closely && self.scenario.is_file() {
            tree::expect_same_content(&self.item, &copy)?;
        } else if closely {
            self.expect_same_tree(&copy)?;
        }
        if self.scenario == Scenario::Unchanged {
            return Ok(());
        }
        self.clear(contender)
    }

    /// Removes what a contender has copied.
    pub(super) fn clear(&self, contender: &str) -> Result<()> {
        tree::remove(&self.copies.join(contender))
    }

    fn copy_in(&self, directory: &Path) -> PathBuf {
        directory.join(self.item.file_name().unwrap_or_default())
    }

    /// Not every program keeps times and rights.
    fn expect_same_tree(&self, copy: &Path) -> Result<()> {
        let found = tree::differences(&self.item, copy)?;
        match found.iter().find(|(_, difference)| difference.is_content()) {
            Some((path, difference)) => bail!("the copy differs: {path:?} {difference}"),
            None => Ok(()),
        }
    }
}

/// Writes so many bytes into `directory` and removes them. A virtual machine gives its host back what it has not used
/// for some seconds, and getting that again costs a program more than copying does: whoever comes after a pause
/// would pay for it.
fn touch_memory(directory: &Path, bytes: u64) -> Result<()> {
    let mut file = tempfile::tempfile_in(directory).context("cannot write before a run")?;
    let piece = vec![1; TOUCHED_AT_ONCE_BYTES];
    let mut left_bytes = bytes;
    while left_bytes > 0 {
        interrupt::check()?;
        let len = piece.len().min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
        file.write_all(&piece[..len]).context("cannot write before a run")?;
        left_bytes -= len as u64;
    }
    Ok(())
}

/// Where to put everything: what the user said, or memory if it has room.
pub(super) fn place(directory: Option<&Path>, room_bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let has_room = || scratch::free_bytes(memory).is_ok_and(|free| free >= room_bytes);
    match directory {
        Some(directory) => directory.to_path_buf(),
        None if memory.is_dir() && has_room() => memory.to_path_buf(),
        None => std::env::temp_dir(),
    }
}

/// Writes a newer version: two bytes more at the front, and 4 KiB that differ at [`EDITS`] places.
fn edit(older: &Path, newer: &Path, bytes: u64) -> Result<()> {
    let cannot = || format!("cannot write {}", newer.display());
    let mut from = File::open(older).context("cannot read the older version")?;
    let mut to = File::options().create_new(true).read(true).write(true).open(newer).with_context(cannot)?;
    to.write_all(b"!!").with_context(cannot)?;
    std::io::copy(&mut from, &mut to).with_context(cannot)?;
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

/// No program may take it for the newer one by its time.
fn age(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path).context("cannot open the older version")?;
    let then = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(then).context("cannot set the time of the older version")
}

fn make_directory(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// How many places of the edited file differ, besides its front.
pub(super) const EDITS: u64 = 100;

/// What differs at each.
const EDIT_LEN_BYTES: usize = 4096;

/// Over which the small files are spread.
pub(super) const DIRECTORIES: usize = 100;

/// More than a small file takes on average, blocks and all.
const SMALL_ROOM_BYTES: u64 = 20_000;

/// Few calls, and little beside the rest of the bench.
const TOUCHED_AT_ONCE_BYTES: usize = 256 << 10;

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(600);

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
}
