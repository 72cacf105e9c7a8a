//! Kills a receiver during a transfer and resumes it.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use walkdir::WalkDir;
use xtask::driver::{Server, Verb};
use xtask::process::Running;
use xtask::{interrupt, tree, units};

use super::{Demo, RUN_LIMIT};

/// How often a receiver may end before it is killed, until we give up. Each attempt kills earlier.
pub(super) const ATTEMPTS: u32 = 4;

impl Demo<'_> {
    /// Kills one run, finishes it with another, compares. False if every receiver was too fast.
    pub(super) fn get_cut(&self, server: &Server) -> Result<bool> {
        let destination = self.scratch.path().join("cut copy");
        for attempt in 0..ATTEMPTS {
            let enough_bytes = (self.survey.bytes / 10 * 6) >> attempt;
            if enough_bytes == 0 {
                return Ok(false);
            }
            if let Some(had_bytes) = self.get_until(server, &destination, enough_bytes)? {
                // A killed receiver leaves its bar standing, and the cursor at the end of it.
                let below_bar = if io::stderr().is_terminal() { "\n" } else { "" };
                println!("{below_bar}  killed; the same command again, to resume");
                let had = format!("{} ({})", units::bytes(had_bytes), self.share(had_bytes));
                self.rows.borrow_mut().push(units::row(["killed, having", "", &had, "", "", ""]));
                self.resume(server, &destination, had_bytes)?;
                self.expect_equal(&self.source, &destination)?;
                tree::remove(&destination)?;
                return Ok(true);
            }
            tree::remove(&destination)?;
        }
        Ok(false)
    }

    /// Kills the receiver once `enough_bytes` have landed and says how many had. `None` if it ended
    /// first.
    fn get_until(&self, server: &Server, destination: &Path, enough_bytes: u64) -> Result<Option<u64>> {
        let mut command = self.client(Verb::Get, destination, server);
        let running = Running::start("shiplane get", command.stdout(Stdio::null()))?;
        let started = Instant::now();
        while landed_bytes(destination) < enough_bytes {
            interrupt::check()?;
            if running.ends_within(WATCH)? {
                running.wait(Duration::ZERO)?.expect_success("shiplane get")?;
                return Ok(None);
            }
            if started.elapsed() > RUN_LIMIT {
                bail!("what is to be killed has not come so far within {} s", RUN_LIMIT.as_secs());
            }
        }
        // Success here means that it ended between the last look and the signal.
        let was_killed = running.kill()?.code != Some(0);
        Ok(was_killed.then(|| landed_bytes(destination)))
    }

    /// What was on the disk must be made use of.
    fn resume(&self, server: &Server, destination: &Path, had_bytes: u64) -> Result<()> {
        let done = self.run("resumed", self.client(Verb::Get, destination, server))?;
        let (received_bytes, tree_bytes) = (done.received_bytes, self.survey.bytes);
        let sum_bytes = received_bytes + done.resumed_bytes;
        ensure!(
            done.total_bytes == tree_bytes && sum_bytes == tree_bytes,
            "{done:?} does not add up to the {tree_bytes} bytes of the tree"
        );
        let lost_bytes = self.under_way.chunks * self.under_way.chunk_bytes;
        ensure!(
            done.resumed_bytes + lost_bytes >= had_bytes,
            "{had_bytes} bytes had landed, but only {} were made use of",
            done.resumed_bytes
        );
        // Of a tree of half a gigabyte, what was under way is little.
        let is_large = tree_bytes >= 500_000_000 && had_bytes >= tree_bytes / 10 * 6;
        ensure!(
            !is_large || received_bytes <= tree_bytes / 20 * 9,
            "killed at 60 % or later, and yet {received_bytes} of {tree_bytes} bytes came again"
        );
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
}
