//! Data sets for longer transfers: a large file, and many small ones of which some replace others.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use super::test_process::{Ended, TestProcess};
use super::tree::{self, Tree};
use crate::dataset::{self, Size};
use crate::scratch::Scratch;
use crate::shiplane::{Outcome, Pushed, START_LIMIT, Shiplane};
use crate::suspend::SuspendDetector;

/// Which way the files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the client.
    Get,
    /// To the server.
    Push,
}

/// The programs, what is sent, and where it lands.
pub(super) struct Bulk<'a> {
    shiplane: &'a Shiplane,
    new: PathBuf,
    old: PathBuf,
    homes: PathBuf,
    /// What lands goes into a directory in it.
    site: PathBuf,
    before: Tree,
    after: Tree,
}

impl<'a> Bulk<'a> {
    /// Makes the data set; it lands in `site`.
    pub(super) fn new(shiplane: &'a Shiplane, scratch: &Scratch, site: &Path, size: Size) -> Result<Self> {
        let new = scratch.directory("sent")?;
        let old = scratch.directory("there before")?;
        let homes = scratch.directory("homes")?;
        for home in ["client", "server"] {
            fs::create_dir(homes.join(home)).context("cannot make a directory")?;
        }
        let tree = new.join(TREE);
        fs::create_dir(&tree).context("cannot make a directory")?;
        dataset::make(&tree, size)?;
        write_older(&new, &old)?;
        let (before, after) = (Tree::read(&old)?, Tree::read(&new)?);
        Ok(Self { shiplane, new, old, homes, site: site.to_path_buf(), before, after })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.after.bytes()
    }

    /// Puts what is there before into the empty site.
    pub(super) fn fill_site(&self) -> Result<()> {
        tree::copy(&self.old, &self.landing())
    }

    /// As it was before any run.
    pub(super) fn reset(&self) -> Result<()> {
        match fs::remove_dir_all(self.landing()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot tidy up")?
            }
            _ => {}
        }
        self.fill_site()
    }

    /// Starts the server at the address `listen`, with the same key each time; gives the ticket.
    pub(super) fn serve(&self, way: Way, listen: &str) -> Result<(TestProcess, String)> {
        let mut command = self.shiplane.command(&self.homes.join("server"));
        match way {
            Way::Get => command.arg("serve").arg(&self.new),
            Way::Push => command.arg("serve").arg(self.landing()).arg("--writable"),
        };
        let server = TestProcess::plain("shiplane serve", command.args(["--listen", listen]))?;
        let ticket = server.first_line(START_LIMIT)?;
        Ok((server, ticket.ok_or_else(|| BadEnd("the server does not start".to_owned()))?))
    }

    /// Starts the client.
    pub(super) fn client(&self, way: Way, ticket: &str) -> Result<TestProcess> {
        let mut command = self.shiplane.command(&self.homes.join("client"));
        match way {
            Way::Get => command.arg("get").arg(ticket).arg(self.landing()),
            Way::Push => command.arg("push").arg(self.new.join(TREE)).arg(ticket),
        };
        TestProcess::plain("the client", command.args(["--overwrite", "--json"]))
    }

    /// Fails if a name stands for anything but what was there before or is sent, or outside of it for anything.
    pub(super) fn expect_old_or_new(&self) -> Result<()> {
        Tree::read(&self.landing())?.expect_old_or_new(&self.before, &self.after)
    }

    /// Fails unless all is there, and nothing else.
    pub(super) fn expect_done(&self) -> Result<()> {
        Tree::read(&self.landing())?.expect_same(&self.after)
    }

    /// Fails unless the file that an event tells of has arrived.
    pub(super) fn expect_arrived(&self, path: &Path) -> Result<()> {
        let there = Tree::read(&self.landing())?;
        if !there.has_as(path, &self.after) {
            bail!("{path:?} was said to be at its place, and is not");
        }
        Ok(())
    }

    /// A run of the client to its end, which must be a good one, with nothing left behind. Gives what it had to
    /// send.
    pub(super) fn finish(&self, way: Way, ticket: &str) -> Result<u64> {
        let ended = self.client(way, ticket)?.wait(LIMIT)?;
        expect_success(&ended)?;
        self.expect_done()?;
        Ok(match way {
            Way::Get => Outcome::of(&ended.lines)?.received_bytes,
            Way::Push => Pushed::of(&ended.lines)?.sent_bytes,
        })
    }

    fn landing(&self) -> PathBuf {
        self.site.join("landing")
    }
}

/// Fails unless the program ended well.
pub(super) fn expect_success(ended: &Ended) -> Result<()> {
    expect_end(ended, &[0])
}

/// Fails unless the program ended with one of these.
pub(super) fn expect_end(ended: &Ended, codes: &[i32]) -> Result<()> {
    if !ended.code.is_some_and(|code| codes.contains(&code)) {
        bail!(BadEnd(format!("it ended with {:?}: {} {:?}", ended.code, ended.said, ended.lines.last())));
    }
    Ok(())
}

/// Does `one` case. If a program in it came to a bad end while nothing here was running, as when the machine slept,
/// that says nothing: then it is done again. Wrong files are wrong whatever happened.
pub(super) fn despite_standstills<T>(
    watch: &SuspendDetector,
    mut one: impl FnMut() -> Result<T>,
) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match one() {
            Err(failure) if failure.is::<BadEnd>() && watch.was_suspended() => {
                println!("  again, as nothing was running for a while: {failure:#}");
            }
            ended => return ended,
        }
    }
    one()
}

/// How a program ended, or that it did not begin.
#[derive(Debug)]
struct BadEnd(String);

impl fmt::Display for BadEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadEnd {}

/// Some of the small files, with other content and an older time.
fn write_older(new: &Path, old: &Path) -> Result<()> {
    let mut count = 0;
    for entry in WalkDir::new(new).sort_by_file_name() {
        let entry = entry.context("cannot walk the data set")?;
        let is_small = entry.file_type().is_file() && entry.metadata()?.len() < MAX_OLDER_BYTES;
        if !is_small {
            continue;
        }
        count += 1;
        if count % 4 == 0 {
            let target = old.join(entry.path().strip_prefix(new).context("walked out of the tree")?);
            let mut content = fs::read(entry.path()).context("cannot read the data set")?;
            content.reverse();
            content.push(b'.');
            fs::create_dir_all(target.parent().context("no parent")?).context("cannot make a directory")?;
            fs::write(&target, content).context("cannot write an older file")?;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(900_000_000);
            File::options().write(true).open(&target).and_then(|file| file.set_modified(time))?;
        }
    }
    Ok(())
}

const TREE: &str = "tree";

/// Of one case: each standstill is minutes apart from the next.
const ATTEMPTS: usize = 3;

const MAX_OLDER_BYTES: u64 = 100_000;

/// Against a hang.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
