//! A disk with faults from the seed, and its state after a power cut.
//!
//! The files are real ones, in memory. What goes wrong is decided before each call that changes one. What was
//! synced is remembered as it was then, so that a cut can put together what a disk may have by that moment: of
//! each directory the names as they were after its last sync, or after any change since; of each file that content,
//! or what was written since, or some pages of either; of both the mode, time and attributes of then or of now.

mod image;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::io::Errno;
use shiplane_files::internals::disk::{self, Change};
use testlink::Rng;
use tokio::{sync::Notify, time::Instant};

use crate::sim::tree::Metadata;

/// What goes wrong, and until when. Shares are of a million calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// There is no space left: part of what was to be written is, perhaps.
    pub no_space: u32,
    /// The disk says that it failed.
    pub io_error: u32,
    /// It says so when it is to make something durable; that never is then.
    pub sync_error: u32,
    /// Before this call the power is cut.
    pub crash_at: Option<u64>,
    /// It says that something is durable that is not: a bug that the oracle has to find.
    pub lies: bool,
}

impl DiskFaults {
    /// What the seed says: nothing at all in most of them.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut share = |of_seeds: u32, max: u64| match rng.chance(of_seeds) {
            true => rng.spread(100, max) as u32,
            false => 0,
        };
        let (no_space, io_error) = (share(100_000, 200_000), share(100_000, 100_000));
        let sync_error = share(100_000, 500_000);
        let crash_at = rng.chance(200_000).then(|| rng.spread(1, 400));
        Self { no_space, io_error, sync_error, crash_at, lies: false }
    }
}

/// Has this thread find a simulated disk where there is one.
pub(crate) fn begin() {
    disk::simulate(Some(Arc::new(Disks)));
}

/// One machine's disk, from its start to a power cut.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    began: Instant,
    heal_at: Duration,
    faults: DiskFaults,
    state: Mutex<State>,
    /// The power was cut.
    pub(crate) cut: Notify,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    calls: u64,
    is_cut: bool,
    /// What was last synced of each file, by its inode, ...
    files: HashMap<u64, Vec<u8>>,
    /// ... and of each file and directory beside its content and names.
    metadata: HashMap<u64, Metadata>,
    /// Of each directory, the names after its last sync and before each change since.
    directories: HashMap<u64, Vec<Names>>,
    /// A sync of them has failed: no later one makes them durable.
    lost: HashSet<u64>,
}

type Names = BTreeMap<PathBuf, Inode>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    number: u64,
    is_directory: bool,
}

impl Disk {
    /// The disk that has all below `root`, durable as it is. It works for as long as it is held.
    pub(crate) fn new(root: &Path, faults: DiskFaults, heal_at: Duration, rng: Rng) -> io::Result<Arc<Self>> {
        let state = State {
            rng,
            calls: 0,
            is_cut: false,
            files: HashMap::new(),
            metadata: HashMap::new(),
            directories: HashMap::new(),
            lost: HashSet::new(),
        };
        let (root, began, state) = (root.to_owned(), Instant::now(), state.into());
        let disk = Arc::new(Self { root, began, heal_at, faults, state, cut: Notify::new() });
        disk.adopt()?;
        DISKS.lock().push(Arc::clone(&disk));
        Ok(disk)
    }

    /// Takes all that is there for durable, such as what others than shiplane have written.
    pub(crate) fn adopt(&self) -> io::Result<()> {
        self.state.lock().sync_below(&self.root)
    }

    /// Cuts the power now, if it is not cut yet.
    pub(crate) fn cut_power(&self) {
        self.state.lock().is_cut = true;
        self.cut.notify_one();
    }

    /// Puts what is left after the power cut below `target`.
    pub(crate) fn leave_at(&self, target: &Path) -> io::Result<()> {
        image::build(&mut self.state.lock(), &self.root, target)
    }

    /// Its faults are over, or it is not to have any again.
    pub(crate) fn retire(&self) {
        DISKS.lock().retain(|disk| !std::ptr::eq(&raw const **disk, self));
    }

    fn before(&self, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_cut {
            return Err(Errno::IO.into());
        }
        state.calls += 1;
        if self.faults.crash_at.is_some_and(|at| state.calls >= at) {
            state.is_cut = true;
            self.cut.notify_one();
            return Err(Errno::IO.into());
        }
        if self.began.elapsed() < self.heal_at {
            self.fail(&mut state, change, at)?;
        }
        if matches!(change, Change::Name | Change::Unname) {
            state.note_names(at)?;
        }
        Ok(())
    }

    fn fail(&self, state: &mut State, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
        match change {
            Change::Write { offset_bytes, data } if state.rng.chance(self.faults.no_space) => {
                let written = state.rng.between(0, data.len() as u64) as usize;
                rustix::io::pwrite(at, &data[..written], offset_bytes)?;
                Err(Errno::NOSPC.into())
            }
            Change::Name | Change::Resize if state.rng.chance(self.faults.no_space) => {
                Err(Errno::NOSPC.into())
            }
            Change::Sync | Change::SyncAll if state.rng.chance(self.faults.sync_error) => {
                state.lose(change, at, &self.root)?;
                Err(Errno::IO.into())
            }
            _ if state.rng.chance(self.faults.io_error) => Err(Errno::IO.into()),
            _ => Ok(()),
        }
    }

    fn synced(&self, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
        if self.faults.lies {
            return Ok(());
        }
        match change {
            Change::SyncAll => self.state.lock().sync_below(&self.root),
            _ => self.state.lock().sync_one(&path_of(at)),
        }
    }
}

impl State {
    /// Remembers the names of a directory as they are before a change.
    fn note_names(&mut self, at: BorrowedFd<'_>) -> io::Result<()> {
        let path = path_of(at);
        let names = names_in(&path)?;
        // A directory that was not seen before is new, and no name in it is durable.
        let seen = self.directories.entry(fs::metadata(&path)?.ino()).or_insert_with(|| vec![Names::new()]);
        if seen.last() != Some(&names) {
            seen.push(names);
        }
        Ok(())
    }

    fn sync_one(&mut self, path: &Path) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if self.lost.contains(&metadata.ino()) {
            return Ok(());
        }
        self.metadata.insert(metadata.ino(), Metadata::of(path)?);
        if metadata.is_dir() {
            self.directories.insert(metadata.ino(), vec![names_in(path)?]);
        } else {
            self.files.insert(metadata.ino(), fs::read(path)?);
        }
        Ok(())
    }

    fn sync_below(&mut self, path: &Path) -> io::Result<()> {
        self.sync_one(path)?;
        if fs::symlink_metadata(path)?.is_dir() {
            for name in names_in(path)?.into_keys() {
                let path = path.join(name);
                if !fs::symlink_metadata(&path)?.is_symlink() {
                    self.sync_below(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Data that is not durable now never will be.
    fn lose(&mut self, change: Change<'_>, at: BorrowedFd<'_>, root: &Path) -> io::Result<()> {
        let mut open = match change {
            Change::SyncAll => vec![root.to_owned()],
            _ => vec![path_of(at)],
        };
        while let Some(path) = open.pop() {
            let metadata = fs::metadata(&path)?;
            let durable = self.files.get(&metadata.ino());
            if metadata.is_file()
                && durable.is_none_or(|durable| fs::read(&path).ok().as_ref() != Some(durable))
            {
                self.lost.insert(metadata.ino());
            }
            if metadata.is_dir() && change == Change::SyncAll {
                let names = names_in(&path)?.into_keys().map(|name| path.join(name));
                open.extend(names.filter(|path| !path.is_symlink()));
            }
        }
        Ok(())
    }
}

/// Those of all machines; of which a file is on is told by its path.
struct Disks;

static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

impl Disks {
    fn of(at: BorrowedFd<'_>) -> Option<Arc<Disk>> {
        let path = path_of(at);
        let disks = DISKS.lock();
        let Ok(path) = fs::read_link(path) else { return None };
        disks.iter().find(|disk| path.starts_with(&disk.root)).map(Arc::clone)
    }
}

impl disk::Disk for Disks {
    fn before(&self, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
        Self::of(at).map_or(Ok(()), |disk| disk.before(change, at))
    }

    fn synced(&self, change: Change<'_>, at: BorrowedFd<'_>) {
        if let Some(disk) = Self::of(at)
            && let Err(error) = disk.synced(change, at)
        {
            panic!("the simulated disk cannot look at what was synced: {error}");
        }
    }
}

/// A path that leads to what is open, also when it has no name any more.
fn path_of(at: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", at.as_raw_fd()))
}

fn names_in(directory: &Path) -> io::Result<Names> {
    let mut names = Names::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let inode = Inode { number: entry.metadata()?.ino(), is_directory: entry.file_type()?.is_dir() };
        names.insert(entry.file_name().into(), inode);
    }
    Ok(names)
}
