//! Operating-system specific functions.
//!
//! Two rules hold for all of them. A path is resolved beneath an open directory and never through a
//! symbolic link, save in the functions whose name says `following`, and those stay beneath it, too. A
//! name is one component.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shiplane_wire::{LinkTarget, Mtime};

mod common;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

pub use common::*;
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

/// Pauses for calls that failed because no descriptor was free: others close theirs soon.
pub fn shortage_pauses() -> Pauses {
    Pauses(FIRST_PAUSE)
}

/// Grow, and end.
#[derive(Debug)]
pub struct Pauses(Duration);

impl Pauses {
    /// Waits for a while; `false` if it was long enough in all.
    pub fn pause(&mut self) -> bool {
        if self.0 > LONGEST_PAUSE {
            return false;
        }
        std::thread::sleep(self.0);
        self.0 *= 2;
        true
    }
}

/// 10 ms, then twice as long each time: 1.3 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// Fills `buffer` with what is at `offset`; [`io::ErrorKind::UnexpectedEof`] if the file ends before that.
pub fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(file, offset + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

/// Renames `from` to `to`, which a file system may take for the same name; fails with `AlreadyExists` if something else has
/// it. Where the name does not change by that, it goes by way of another one.
pub fn respell(dir: &cap_std::fs::Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    let is_free = match (stat(dir, from)?, stat(dir, to)) {
        (found, Ok(other)) => found.inode != 0 && found.identity() == other.identity(),
        (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    rename_replacing(dir, from, to)?;
    let mut names = Names::of(dir)?;
    while let Some(is_it) = names.next(|name| name == to) {
        if is_it? {
            return Ok(());
        }
    }
    // After a power cut this file is either missing or complete.
    let between = [to, b".shiplane-rename"].concat();
    rename_new(dir, from, &between)?;
    rename_new(dir, &between, to).inspect_err(|_| {
        // The first error says more.
        let _ = rename_new(dir, &between, from);
    })
}

/// What has the name; `None` if nothing has. A link is not followed.
pub fn stat_if_there(dir: &cap_std::fs::Dir, name: &[u8]) -> io::Result<Option<Stat>> {
    match stat(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Removes the file `name`, if it is there.
pub fn remove_if_there(dir: &cap_std::fs::Dir, name: &[u8]) -> io::Result<()> {
    match remove_file(dir, name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the link `name` points to, as it can be sent.
pub fn link_target(dir: &cap_std::fs::Dir, name: &[u8]) -> io::Result<LinkTarget> {
    LinkTarget::parse(&read_link(dir, name)?).map_err(io::Error::other)
}

/// The time of the system's clock.
pub fn now() -> Mtime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Mtime { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

/// Whether the size of an open file is that of its content. What the kernel makes up occupies nothing.
pub fn has_true_size(file: &File, stat: &Stat) -> bool {
    stat.allocated_bytes > 0 || sizes_of(file).is_true(stat.size_bytes)
}
