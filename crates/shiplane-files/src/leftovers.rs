//! Finds and removes what abandoned jobs have left in a directory.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::Dir;
use shiplane_wire::{RelPath, escape};

use crate::{
    error::SourceError,
    names::{self, OwnName},
    platform::{self, Locked, Names},
    source::SourceRoot,
};

/// A temporary file or a journal of a job that is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is below the directory.
    pub path: RelPath,
    /// What it occupies.
    pub allocated_bytes: u64,
}

/// What was found of abandoned jobs.
#[derive(Debug, Default)]
pub struct CleanReport {
    /// Removed, or to be removed in a dry run.
    pub removed: Vec<Leftover>,
    /// What could not be removed, escaped, and why.
    pub failed: Vec<(String, io::Error)>,
    /// How many files belong to jobs that are running, or are not old enough.
    pub kept: u64,
}

/// Blocking. Removes the temporary files and journals below `path` that no running job uses and that nothing has changed
/// for `older_than`. With `dry_run` it only says what it would remove. No link is followed.
///
/// A job that was interrupted less long ago can still be resumed. A running job holds the lock of its journal, in the
/// directory that it writes to: here, or above.
///
/// # Errors
/// [`SourceError`] if the directory cannot be listed. That single files cannot be removed is none.
pub fn clean(path: &Path, older_than: Duration, dry_run: bool) -> Result<CleanReport, SourceError> {
    let root = SourceRoot::open(path)?;
    let Some(dir) = root.directory() else {
        let path = escape(path.as_os_str().as_encoded_bytes()).to_string();
        return Err(SourceError::NotServable { path, found: platform::Kind::File });
    };
    let mut scan = root.resolve(b"")?.scan();
    scan.note_own();
    for next in scan.by_ref() {
        next?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = i64::try_from(now.saturating_sub(older_than).as_secs()).unwrap_or(i64::MAX);
    let mut cleaning = Cleaning {
        dir,
        oldest,
        dry_run,
        in_use: in_use_above(path),
        locked: Vec::new(),
        found: CleanReport::default(),
    };
    let is_journal = |path: &RelPath| names::own_kind(path.file_name()) == Some(OwnName::Journal);
    let (journals, temps): (Vec<_>, Vec<_>) = scan.take_own().into_iter().partition(is_journal);
    let journals: Vec<_> = journals.into_iter().filter(|journal| cleaning.take(journal)).collect();
    // A journal last: without it, the owner of the others would be unknown.
    temps.iter().chain(&journals).for_each(|path| cleaning.remove(path));
    Ok(cleaning.found)
}

struct Cleaning<'a> {
    dir: &'a Dir,
    /// Seconds since 1970: what was changed later stays.
    oldest: i64,
    dry_run: bool,
    /// Directories (`None` is all of them) and the prefixes of jobs whose files in them stay.
    in_use: Vec<(Option<Vec<u8>>, Vec<u8>)>,
    /// Held until everything is done, so that no such job begins meanwhile.
    locked: Vec<File>,
    found: CleanReport,
}

impl Cleaning<'_> {
    /// Locks a journal; `false` if its job is running, or may still be resumed.
    fn take(&mut self, journal: &RelPath) -> bool {
        let directory = journal.parent().map(|parent| parent.as_bytes().to_vec()).unwrap_or_default();
        let prefix = names::job_prefix(journal.file_name()).to_vec();
        let locked =
            self.open(journal).and_then(|parent| platform::open_locked(&parent, journal.file_name()));
        let is_old = self.is_old(journal);
        match locked {
            Ok(Locked::Found(file)) if is_old => {
                self.locked.push(file);
                return true;
            }
            // The job has ended a moment ago: what was created just now is all there is.
            Ok(Locked::New(file)) => {
                let parent = self.open(journal);
                let _ = parent.and_then(|parent| platform::remove_file(&parent, journal.file_name()));
                drop(file);
                return false;
            }
            Ok(Locked::Found(file)) => platform::unlock(&file),
            Ok(Locked::Held) | Err(_) => {}
        }
        self.in_use.push((Some(directory), prefix));
        self.found.kept += 1;
        false
    }

    fn remove(&mut self, path: &RelPath) {
        let prefix = names::job_prefix(path.file_name());
        let is_in_use = self.in_use.iter().any(|(directory, of)| {
            of == prefix && directory.as_ref().is_none_or(|directory| is_within(path, directory))
        });
        if is_in_use || !self.is_old(path) {
            self.found.kept += 1;
            return;
        }
        let removed = self.open(path).and_then(|parent| {
            let allocated_bytes = platform::stat(&parent, path.file_name())?.allocated_bytes;
            if !self.dry_run {
                platform::remove_file(&parent, path.file_name())?;
            }
            Ok(Leftover { path: path.clone(), allocated_bytes })
        });
        match removed {
            Ok(leftover) => self.found.removed.push(leftover),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.found.failed.push((path.to_string(), error)),
        }
    }

    fn is_old(&self, path: &RelPath) -> bool {
        let stat = self.open(path).and_then(|parent| platform::stat(&parent, path.file_name()));
        // Its time of modification may be that of the source.
        stat.is_ok_and(|stat| stat.ctime.secs <= self.oldest)
    }

    fn open(&self, path: &RelPath) -> io::Result<Dir> {
        match path.parent() {
            Some(parent) => platform::open_dir(self.dir, parent.as_bytes()),
            None => self.dir.try_clone(),
        }
    }
}

/// The jobs that are running in a directory above `path`, and may write to `path` too.
fn in_use_above(path: &Path) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
    let Ok(path) = path.canonicalize() else { return Vec::new() };
    let mut in_use = Vec::new();
    for above in path.ancestors().skip(1) {
        // This process writes to nothing that it cannot list.
        let Ok(dir) = platform::open_ambient_dir(above) else { continue };
        let Ok(mut names) = Names::of(&dir) else { continue };
        let journal = |name: &[u8]| (names::own_kind(name) == Some(OwnName::Journal)).then(|| name.to_vec());
        while let Some(name) = names.next(journal) {
            let Ok(Some(name)) = name else { continue };
            match platform::open_locked(&dir, &name) {
                Ok(Locked::Found(file) | Locked::New(file)) => platform::unlock(&file),
                Ok(Locked::Held) | Err(_) => in_use.push((None, names::job_prefix(&name).to_vec())),
            }
        }
    }
    in_use
}

fn is_within(path: &RelPath, directory: &[u8]) -> bool {
    let rest = path.as_bytes().strip_prefix(directory);
    directory.is_empty() || rest.is_some_and(|rest| rest.starts_with(b"/"))
}
