//! `cargo xtask demo`: the whole of shiplane on one machine. A tree is served by one process and got by another,
//! compared byte by byte, then got again by a receiver that is killed beyond half-way and resumes; pushed to a
//! second server; and, changed on both sides, brought together again.

mod cut;
mod push;
mod report;
mod sync;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::report::{Act, Report};
use crate::compare::{self, Survey};
use crate::dataset::{self, Size};
use crate::process::{Exit, Lines, Running};
use crate::scratch::Scratch;
use crate::shiplane::{Server, Shiplane};
use crate::units;

/// What the user typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory to send [default: a generated data set]
    path: Option<PathBuf>,
    /// Keep the trees and the servers' logs, and print where they are
    #[arg(long)]
    keep: bool,
    /// Generate a small data set: 32 MiB and 200 files
    #[arg(long, conflicts_with = "path")]
    small: bool,
}

impl Args {
    /// `--small`.
    pub(crate) fn small() -> Self {
        Self { path: None, keep: false, small: true }
    }
}

/// Shows it. Every difference, wrong exit code or overdue end is an error; nothing stays behind.
pub(crate) fn run(args: &Args) -> Result<()> {
    println!("building shiplane; the first time takes some minutes");
    let shiplane = Shiplane::build_for_demo()?;
    let scratch = Scratch::new("shiplane-demo-", None)?;
    let shown = show(args, &shiplane, &scratch);
    if args.keep {
        println!("kept in {}", scratch.keep().display());
    }
    shown
}

fn show(args: &Args, shiplane: &Shiplane, scratch: &Scratch) -> Result<()> {
    let source = source(args, scratch)?;
    let survey = compare::survey(&source)?;
    // Two copies at a time, and what a change of the largest file takes.
    scratch.expect_room(3 * survey.bytes + survey.bytes / 8)?;
    let fixture = Fixture {
        shiplane,
        source: &source,
        survey,
        on_its_way: if args.small { SMALL_ON_ITS_WAY } else { DEFAULT_ON_ITS_WAY },
        scratch,
        home: scratch.directory("home")?,
    };
    let report = fixture.act(args.path.is_none())?;
    println!("{}", report.text());
    Ok(())
}

fn source(args: &Args, scratch: &Scratch) -> Result<PathBuf> {
    if let Some(path) = &args.path {
        let source = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        if !source.is_dir() {
            bail!("{} is not a directory; give the one that holds it", path.display());
        }
        return Ok(source);
    }
    let size = if args.small { Size::SMALL } else { Size::FULL };
    // The tree and its copies.
    scratch.expect_room(4 * size.room_bytes())?;
    println!(
        "making a data set: one file of {}, {} small ones, odd names",
        units::bytes(size.large_bytes),
        units::count(size.small_files as u64),
    );
    let source = scratch.directory("source")?;
    dataset::make(&source, size)?;
    Ok(source)
}

/// What is on its way at most at a time: so much may be on the disk when a receiver is killed, and not be kept.
#[derive(Clone, Copy, Debug)]
struct OnItsWay {
    /// `--jobs`.
    chunks: u64,
    /// `--chunk`.
    chunk_bytes: u64,
}

/// What all acts need.
struct Fixture<'a> {
    shiplane: &'a Shiplane,
    source: &'a Path,
    survey: Survey,
    on_its_way: OnItsWay,
    scratch: &'a Scratch,
    /// The user's own state, the same for all runs but the servers'.
    home: PathBuf,
}

impl Fixture<'_> {
    /// All acts. `must_cut`: the tree is large enough for that by design.
    fn act(&self, must_cut: bool) -> Result<Report> {
        let server = self.shiplane.serve(self.source, &self.scratch.directory("server")?)?;
        println!("serving {} on loopback", self.source.display());
        // The log ends up in the scratch directory, which is about to go.
        let got = self.get_twice(&server, must_cut);
        let (got, resumed) = got.map_err(|failure| server.with_log(&format!("{failure:#}")))?;
        let served = server.stop()?.used.peak_rss_bytes;

        let theirs = self.scratch.directory("theirs")?;
        let server = self.shiplane.serve_writable(&theirs, &self.scratch.directory("writable server")?)?;
        println!("serving an empty directory, for writing");
        let both = self.push(&server, &theirs).and_then(|pushed| Ok((pushed, self.sync(&server, &theirs)?)));
        let (pushed, synced) = both.map_err(|failure| server.with_log(&format!("{failure:#}")))?;
        let served = served.max(server.stop()?.used.peak_rss_bytes);
        let report = Report { survey: self.survey, got, resumed, pushed, synced, served_rss_bytes: served };
        report.expect_memory_within(MAX_RSS_BYTES)?;
        Ok(report)
    }

    /// A plain run, then one that is cut.
    fn get_twice(&self, server: &Server, must_cut: bool) -> Result<(Act, Option<cut::Resumed>)> {
        println!("getting it");
        let copy = self.copy();
        let (act, _) = self.run(GET, &mut self.get(server, &copy))?;
        self.expect_equal(self.source, &copy)?;
        println!("getting it again, into an empty directory, and killing the receiver on the way");
        let resumed = self.get_cut(server)?;
        if resumed.is_none() && must_cut {
            bail!("the receiver ended before it could be killed, {} times", cut::ATTEMPTS);
        }
        Ok((act, resumed))
    }

    /// Where the first run puts it. It is what is synced later.
    fn copy(&self) -> PathBuf {
        self.scratch.path().join("copy")
    }

    /// `shiplane get`, the same for every run: a run resumes what the same command left.
    fn get(&self, server: &Server, destination: &Path) -> Command {
        self.in_chunks(self.shiplane.get(server, destination, &self.home))
    }

    fn in_chunks(&self, mut command: Command) -> Command {
        command.arg("--chunk").arg(self.on_its_way.chunk_bytes.to_string());
        command.arg("--jobs").arg(self.on_its_way.chunks.to_string());
        command
    }

    /// Runs a command to its end, with events instead of a bar where `--json` is among its arguments.
    fn run(&self, name: &str, command: &mut Command) -> Result<(Act, Vec<String>)> {
        let started = Instant::now();
        let mut running = Running::start(name, command.stdout(Stdio::piped()))?;
        let stdout = Lines::of(running.take_stdout().context("it has no standard output")?);
        let exit: Exit = running.wait(RUN_LIMIT)?.expect_success(name)?;
        let act = Act { time: started.elapsed(), peak_rss_bytes: exit.used.peak_rss_bytes };
        Ok((act, stdout.rest()))
    }

    fn expect_equal(&self, original: &Path, copy: &Path) -> Result<()> {
        compare::expect_equal(original, copy)?;
        println!("  compared byte by byte: equal");
        Ok(())
    }
}

fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

const GET: &str = "shiplane get";

/// What `get` and `push` do unless told otherwise.
const DEFAULT_ON_ITS_WAY: OnItsWay = OnItsWay { chunks: 32, chunk_bytes: 4 << 20 };

/// With the defaults, all of the small tree would be on its way at once and nothing kept.
const SMALL_ON_ITS_WAY: OnItsWay = OnItsWay { chunks: 8, chunk_bytes: 256 << 10 };

/// Only against a hang: a tree that a user gives may be large.
const RUN_LIMIT: Duration = Duration::from_secs(3600);

/// What no process needs more than, however large the tree.
const MAX_RSS_BYTES: u64 = 64 << 20;
