//! `cargo xtask demo`: the whole of shiplane on one machine. A tree is served by one process and got
//! by another, compared byte by byte, then got again by a receiver that is killed half-way and resumes.

mod cut;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::cut::Resumed;
use crate::compare::{self, Survey};
use crate::dataset::{self, Size};
use crate::process::Running;
use crate::scratch::Scratch;
use crate::shiplane::{Server, Shiplane};
use crate::units;

/// What the user typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to send; without it a data set is made
    path: Option<PathBuf>,
    /// Leave the trees and the server's log where they are, and say where that is
    #[arg(long)]
    keep: bool,
    /// Make a small data set: 32 MiB and 200 files
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
    println!("building shiplane in release");
    let shiplane = Shiplane::build()?;
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
    scratch.expect_room(survey.bytes + survey.bytes / 8)?;
    let server = shiplane.serve(&source, &scratch.directory("server")?)?;
    println!("serving {} on loopback", source.display());
    let stage = Stage {
        shiplane,
        server: &server,
        source: &source,
        survey,
        chunk_bytes: args.small.then_some(SMALL_CHUNK_BYTES),
        scratch,
        receiver: scratch.directory("receiver")?,
    };
    let acted = stage.act(args.path.is_none());
    // The log ends up in the scratch directory, which is about to go.
    let (first_run, resumed) = acted.map_err(|failure| server.with_log(&format!("{failure:#}")))?;
    server.stop()?;
    println!("{}", report::table(&survey, first_run, resumed.as_ref()));
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
    // The tree and one copy of it.
    scratch.expect_room(2 * size.room_bytes())?;
    println!(
        "making a data set: one file of {}, {} small ones, odd names",
        units::bytes(size.large_bytes),
        units::count(size.small_files as u64),
    );
    let source = scratch.directory("source")?;
    dataset::make(&source, size)?;
    Ok(source)
}

/// What both acts need.
struct Stage<'a> {
    shiplane: &'a Shiplane,
    server: &'a Server,
    source: &'a Path,
    survey: Survey,
    /// What is verified, kept and resumed as one, where that is not the default of `get`.
    chunk_bytes: Option<u64>,
    scratch: &'a Scratch,
    /// The receiver's own state, the same for all its runs, as a user's is.
    receiver: PathBuf,
}

impl Stage<'_> {
    /// A plain run, then one that is cut. `must_cut`: the tree is large enough for that by design.
    fn act(&self, must_cut: bool) -> Result<(Duration, Option<Resumed>)> {
        println!("getting it");
        let first_run = self.get_whole()?;
        println!("getting it again, into an empty directory, and killing the receiver half-way");
        let resumed = self.get_cut()?;
        if resumed.is_none() && must_cut {
            bail!("the receiver ended before it could be killed, {} times", cut::ATTEMPTS);
        }
        Ok((first_run, resumed))
    }

    /// One run from start to end; says how long it took.
    fn get_whole(&self) -> Result<Duration> {
        let destination = self.scratch.path().join("copy");
        let mut command = self.get(&destination);
        let started = Instant::now();
        let running = Running::start(GET, command.stdout(Stdio::null()))?;
        running.wait(GET_LIMIT)?.expect_success(GET)?;
        let time = started.elapsed();
        self.expect_equal(&destination)?;
        remove(&destination)?;
        Ok(time)
    }

    /// `shiplane get`, the same for every run: a run resumes what the same command left.
    fn get(&self, destination: &Path) -> Command {
        let mut command = self.shiplane.get(self.server, destination, &self.receiver);
        if let Some(bytes) = self.chunk_bytes {
            command.arg("--chunk").arg(bytes.to_string());
        }
        command
    }

    fn expect_equal(&self, destination: &Path) -> Result<()> {
        compare::expect_equal(self.source, destination)?;
        println!("  compared byte by byte: equal");
        Ok(())
    }
}

fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

const GET: &str = "shiplane get";

/// With the default, all of the small tree would be on its way at once and nothing kept.
const SMALL_CHUNK_BYTES: u64 = 256 << 10;

/// Only against a hang: a tree that a user gives may be large.
const GET_LIMIT: Duration = Duration::from_secs(3600);
