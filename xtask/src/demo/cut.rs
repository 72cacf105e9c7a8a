//! A receiver that is killed half-way, and the run that finishes its work.

use std::fs::{self, Metadata};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use super::{GET, GET_LIMIT, Stage, remove};
use crate::interrupt;
use crate::process::{Lines, Running};
use crate::shiplane::{self, Outcome};

/// What the second run did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// On the receiver's disk when it was killed.
    pub(super) had_bytes: u64,
    /// What the second run says of itself.
    pub(super) outcome: Outcome,
    /// How long the second run took.
    pub(super) time: Duration,
}

/// How often a receiver may end before it is killed, until we give up. Each attempt kills earlier.
pub(super) const ATTEMPTS: u32 = 4;

impl Stage<'_> {
    /// Kills one run, finishes it with another, compares. `None` if every receiver was too fast.
    pub(super) fn get_cut(&self) -> Result<Option<Resumed>> {
        let destination = self.scratch.path().join("cut copy");
        for attempt in 1..=ATTEMPTS {
            let enough_bytes = self.survey.bytes >> attempt;
            if enough_bytes == 0 {
                return Ok(None);
            }
            if let Some(had_bytes) = self.get_until(&destination, enough_bytes)? {
                let resumed = self.resume(&destination, had_bytes)?;
                self.expect_equal(&destination)?;
                return Ok(Some(resumed));
            }
            remove(&destination)?;
        }
        Ok(None)
    }

    /// Kills the receiver once `enough_bytes` have landed and says how many had. `None` if it ended
    /// first.
    fn get_until(&self, destination: &Path, enough_bytes: u64) -> Result<Option<u64>> {
        let mut command = self.shiplane.get(self.server, destination, &self.receiver);
        let mut running = Running::start(GET, command.stdout(Stdio::null()))?;
        let started = Instant::now();
        while landed_bytes(destination) < enough_bytes {
            interrupt::check()?;
            if let Some(exit) = running.poll()? {
                exit.expect_success(GET)?;
                return Ok(None);
            }
            if started.elapsed() > GET_LIMIT {
                bail!(
                    "half of the tree has not landed within {} s",
                    GET_LIMIT.as_secs()
                );
            }
            std::thread::sleep(WATCH);
        }
        // Success here means that it ended between the last look and the signal.
        let was_killed = !running.kill()?.status.success();
        Ok(was_killed.then(|| landed_bytes(destination)))
    }

    fn resume(&self, destination: &Path, had_bytes: u64) -> Result<Resumed> {
        let mut command = self.shiplane.get(self.server, destination, &self.receiver);
        let started = Instant::now();
        let mut running = Running::start(GET, command.arg("--json").stdout(Stdio::piped()))?;
        let stdout = Lines::of(
            running
                .take_stdout()
                .context("the receiver has no standard output")?,
        );
        running.wait(GET_LIMIT)?.expect_success(GET)?;
        let time = started.elapsed();
        let outcome = shiplane::outcome(&stdout.rest())?;
        if outcome.resumed_bytes == 0 {
            bail!("nothing was resumed, though {had_bytes} bytes had landed");
        }
        if outcome.sent_bytes + outcome.resumed_bytes != self.survey.bytes {
            bail!(
                "{outcome:?} does not add up to the {} bytes of the tree",
                self.survey.bytes
            );
        }
        Ok(Resumed {
            had_bytes,
            outcome,
            time,
        })
    }
}

/// The content on disk beneath `root`, under whatever names. Files come and go while we look, so
/// what cannot be read counts as nothing.
fn landed_bytes(root: &Path) -> u64 {
    let entries = WalkDir::new(root).into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files
        .filter_map(|file| fs::symlink_metadata(file.path()).ok())
        .map(|found| on_disk(&found))
        .sum()
}

/// A file that was made at its full size but not yet filled occupies less than that.
#[cfg(unix)]
fn on_disk(metadata: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.len().min(metadata.blocks() * 512)
}

#[cfg(not(unix))]
fn on_disk(metadata: &Metadata) -> u64 {
    metadata.len()
}

/// Half of the smallest tree takes some tens of milliseconds.
const WATCH: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_holes_has_not_landed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(landed_bytes(&root.path().join("absent")), 0);
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(root.path().join("d/full"), vec![1; 100_000]).unwrap();
        let holes = fs::File::create(root.path().join("holes")).unwrap();
        holes.set_len(10_000_000).unwrap();
        assert_eq!(
            landed_bytes(root.path()),
            if cfg!(unix) { 100_000 } else { 10_100_000 }
        );
    }
}
