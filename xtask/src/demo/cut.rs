//! Kills a receiver during a transfer and resumes it.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use walkdir::WalkDir;

use super::report::Act;
use super::{Fixture, GET, RUN_LIMIT, remove};
use crate::interrupt;
use crate::process::Running;
use crate::shiplane::{Outcome, Server};

/// What the second run did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// On the receiver's disk when it was killed.
    pub(super) had_bytes: u64,
    /// What the second run says of itself.
    pub(super) outcome: Outcome,
    /// The second run.
    pub(super) act: Act,
}

/// How often a receiver may end before it is killed, until we give up. Each attempt kills earlier.
pub(super) const ATTEMPTS: u32 = 4;

impl Fixture<'_> {
    /// Kills one run, finishes it with another, compares. `None` if every receiver was too fast.
    pub(super) fn get_cut(&self, server: &Server) -> Result<Option<Resumed>> {
        let destination = self.scratch.path().join("cut copy");
        for attempt in 0..ATTEMPTS {
            let enough_bytes = (self.survey.bytes / 10 * 6) >> attempt;
            if enough_bytes == 0 {
                return Ok(None);
            }
            if let Some(had_bytes) = self.get_until(server, &destination, enough_bytes)? {
                // A killed receiver leaves its bar standing, and the cursor at the end of it.
                let below_bar = if io::stderr().is_terminal() { "\n" } else { "" };
                println!("{below_bar}  killed; the same command again, to resume");
                let resumed = self.resume(server, &destination, had_bytes)?;
                self.expect_equal(self.source, &destination)?;
                remove(&destination)?;
                return Ok(Some(resumed));
            }
            remove(&destination)?;
        }
        Ok(None)
    }

    /// Kills the receiver once `enough_bytes` have landed and says how many had. `None` if it ended
    /// first.
    fn get_until(&self, server: &Server, destination: &Path, enough_bytes: u64) -> Result<Option<u64>> {
        let mut command = self.get(server, destination);
        let mut running = Running::start(GET, command.stdout(Stdio::null()))?;
        let started = Instant::now();
        while landed_bytes(destination) < enough_bytes {
            interrupt::check()?;
            if let Some(exit) = running.poll()? {
                exit.expect_success(GET)?;
                return Ok(None);
            }
            if started.elapsed() > RUN_LIMIT {
                bail!("what is to be killed has not come so far within {} s", RUN_LIMIT.as_secs());
            }
            std::thread::sleep(WATCH);
        }
        // Success here means that it ended between the last look and the signal.
        let was_killed = !running.kill()?.status.success();
        Ok(was_killed.then(|| landed_bytes(destination)))
    }

    fn resume(&self, server: &Server, destination: &Path, had_bytes: u64) -> Result<Resumed> {
        let mut command = self.get(server, destination);
        let (act, events) = self.run(GET, command.arg("--json"))?;
        let outcome = Outcome::of(&events)?;
        self.judge(outcome, had_bytes)?;
        Ok(Resumed { had_bytes, outcome, act })
    }

    /// Whether what was on the disk has been made use of.
    fn judge(&self, outcome: Outcome, had_bytes: u64) -> Result<()> {
        let Outcome { total_bytes, received_bytes, resumed_bytes } = outcome;
        let tree_bytes = self.survey.bytes;
        if total_bytes != tree_bytes || received_bytes + resumed_bytes != tree_bytes {
            bail!("{outcome:?} does not add up to the {tree_bytes} bytes of the tree");
        }
        if resumed_bytes + self.on_its_way.chunks * self.on_its_way.chunk_bytes < had_bytes {
            bail!("{had_bytes} bytes had landed, but only {resumed_bytes} were made use of");
        }
        // Of a tree of half a gigabyte, what was in flight is little.
        if tree_bytes >= 500_000_000
            && had_bytes >= tree_bytes / 10 * 6
            && received_bytes > tree_bytes / 20 * 9
        {
            bail!("killed at 60 % or later, and yet {received_bytes} of {tree_bytes} bytes came again");
        }
        Ok(())
    }
}

/// The content on disk beneath `root`, under whatever names. Files come and go while we look, so
/// what cannot be read counts as nothing.
fn landed_bytes(root: &Path) -> u64 {
    let entries = WalkDir::new(root).into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.filter_map(|file| written_bytes(file.path()).ok()).sum()
}

/// How much of a file has been written: one that was allocated at its full size holds nothing yet.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn written_bytes(path: &Path) -> io::Result<u64> {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path)?;
    let mut written_bytes = 0;
    let mut at = 0;
    // NXIO: nothing but a hole from here to the end.
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data))?;
        written_bytes += at - data;
    }
    Ok(written_bytes)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn written_bytes(path: &Path) -> io::Result<u64> {
    Ok(File::open(path)?.metadata()?.len())
}

/// Half of the smallest tree takes some tens of milliseconds.
const WATCH: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_what_was_written_has_landed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(landed_bytes(&root.path().join("absent")), 0);
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(root.path().join("d/full"), vec![1; 100_000]).unwrap();
        let half = File::create(root.path().join("half")).unwrap();
        half.set_len(10_000_000).unwrap();
        (&half).write_all(&[1; 1 << 20]).unwrap();
        let landed = landed_bytes(root.path());
        if cfg!(any(target_os = "linux", target_os = "macos")) {
            assert_eq!(landed, 100_000 + (1 << 20));
        } else {
            assert_eq!(landed, 10_100_000);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_only_allocated_has_not_landed() {
        use rustix::fs::{FallocateFlags, fallocate};
        let root = tempfile::tempdir().unwrap();
        let mut file = File::create(root.path().join("f")).unwrap();
        if fallocate(&file, FallocateFlags::empty(), 0, 10_000_000).is_err() {
            // This file system allocates nothing in advance.
            return;
        }
        assert_eq!(landed_bytes(root.path()), 0);
        file.write_all(&[1; 1 << 20]).unwrap();
        assert_eq!(landed_bytes(root.path()), 1 << 20);
    }
}
