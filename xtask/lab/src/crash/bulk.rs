//! Data sets for longer transfers: a large file, and many small ones of which some replace others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use filetime::FileTime;
use walkdir::WalkDir;
use xtask::dataset::{self, Size};
use xtask::driver::{ANY_PORT, Done, Server, Shiplane, Verb};
use xtask::process::{Ended, Running, Signal};
use xtask::scratch::Scratch;
use xtask::{interrupt, tree};

use crate::suspend::SuspendDetector;

/// The programs, what is sent, and where it lands.
pub(super) struct Bulk<'a> {
    shiplane: &'a Shiplane,
    new: PathBuf,
    old: PathBuf,
    homes: PathBuf,
    /// What lands goes into a directory in it.
    site: PathBuf,
    bytes: u64,
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
        let bytes = tree::survey(&new)?.bytes;
        Ok(Self { shiplane, new, old, homes, site: site.to_path_buf(), bytes })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts what is there before into the empty site.
    pub(super) fn fill_site(&self) -> Result<()> {
        tree::copy(&self.old, &self.landing())
    }

    /// As it was before any run.
    pub(super) fn reset(&self) -> Result<()> {
        tree::remove(&self.landing())?;
        self.fill_site()
    }

    /// Starts the server of a get or a push at the address `listen`, with the same key each time.
    pub(super) fn serve(&self, verb: Verb, listen: &str) -> Result<Server> {
        let root = if verb == Verb::Get { self.new.clone() } else { self.landing() };
        let server = self.shiplane.serve_at(listen, &root, &self.homes.join("server"), verb.access());
        server.map_err(|failure| BadEnd(format!("{failure:#}")).into())
    }

    /// Starts the client.
    pub(super) fn client(&self, verb: Verb, ticket: &str) -> Result<Running> {
        let local = if verb == Verb::Get { self.landing() } else { self.new.join(TREE) };
        let mut command = self.shiplane.client(verb, &local, ticket, &self.homes.join("client"));
        Running::heard("the client", command.args(["--overwrite", "--json"]))
    }

    /// Fails if a name stands for anything but what was there before or is sent, or outside of it for anything.
    pub(super) fn expect_old_or_new(&self) -> Result<()> {
        tree::expect_old_or_new(&self.landing(), &self.old, &self.new)
    }

    /// Fails unless all is there, and nothing else.
    pub(super) fn expect_done(&self) -> Result<()> {
        tree::expect_equal(&self.new, &self.landing())
    }

    /// Fails unless the file that an event tells of has arrived.
    pub(super) fn expect_arrived(&self, path: &Path) -> Result<()> {
        let has_arrived = tree::is_same_at(path, &self.new, &self.landing())?;
        ensure!(has_arrived, "{path:?} was said to be at its place, and is not");
        Ok(())
    }

    /// A run of the client to its end, which must be a good one, with nothing left behind. Gives what it had to
    /// send.
    pub(super) fn finish(&self, verb: Verb, ticket: &str) -> Result<u64> {
        let ended = expect_end(self.client(verb, ticket)?.wait(LIMIT)?, &[0])?;
        self.expect_done()?;
        Ok(Done::of(&ended.lines)?.moved_bytes())
    }

    /// How long a run takes to which nothing happens.
    pub(super) fn undisturbed(&self, verb: Verb) -> Result<Duration> {
        let server = self.serve(verb, ANY_PORT)?;
        let began = Instant::now();
        expect_end(self.client(verb, server.ticket())?.wait(LIMIT)?, &[0])?;
        server.end_by(Signal::Kill)?;
        Ok(began.elapsed())
    }

    fn landing(&self) -> PathBuf {
        self.site.join("landing")
    }
}

/// Fails unless the program ended with one of these.
pub(super) fn expect_end(ended: Ended, codes: &[i32]) -> Result<Ended> {
    ended.expect_code("it", codes).map_err(|failure| BadEnd(format!("{failure:#}")).into())
}

/// Something that befalls gets and pushes at a random moment.
pub(super) trait Mishap {
    /// How long an undisturbed run takes.
    fn measure(&mut self, verb: Verb) -> Result<Duration>;

    /// One run to which it happens, and the next one.
    fn happen(&mut self, number: u64, verb: Verb, length: Duration) -> Result<()>;
}

/// Lets it happen `count` times, to a get and a push in turn. If a program comes to a bad end while nothing here was
/// running, as when the machine slept, that says nothing: then it is done again. Wrong files are wrong whatever happened.
pub(super) fn repeat(mishap: &mut impl Mishap, count: u64) -> Result<()> {
    let watch = SuspendDetector::start();
    let mut length = [Duration::ZERO; 2];
    for number in 0..count {
        interrupt::check()?;
        let verb = if number % 2 == 0 { Verb::Get } else { Verb::Push };
        // The machine may be busier than it was.
        if number % 20 < 2 {
            length[verb as usize] = despite_suspension(&watch, || mishap.measure(verb))?;
        }
        despite_suspension(&watch, || mishap.happen(number, verb, length[verb as usize]))
            .with_context(|| format!("number {number}, {verb}"))?;
        if number % 50 == 49 {
            println!("  {} of {count}", number + 1);
        }
    }
    Ok(())
}

fn despite_suspension<T>(watch: &SuspendDetector, mut one: impl FnMut() -> Result<T>) -> Result<T> {
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
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadEnd(String);

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
            filetime::set_file_mtime(&target, FileTime::from_unix_time(900_000_000, 0))?;
        }
    }
    Ok(())
}

const TREE: &str = "tree";

/// Of one case: each suspension is minutes apart from the next.
const ATTEMPTS: usize = 3;

const MAX_OLDER_BYTES: u64 = 100_000;

/// Against a hang.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
