//! `cargo xtask bench`: compares whole programs on loopback.
//!
//! A *scenario* is what is carried: one large file, a tree of small ones, the same tree again, a file that was
//! edited. A *workload* is its data, `contenders` carry it, a *wire* counts the bytes on loopback. Runs are
//! interleaved and judged by ratios within one run, since absolute numbers drift from machine to machine. `second`
//! serves one file to two receivers. Nothing here is an assertion: a slow machine makes no red build.

mod contenders;
mod report;
mod sample;
mod targets;
mod wire;
mod workload;

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use xtask::driver::Shiplane;
use xtask::interrupt;
use xtask::scratch::Scratch;

use self::contenders::Field;
use self::report::Report;
use self::wire::Wire;
use self::workload::{Scenario, Workload};
use crate::busy::Busy;
use crate::machine;
use crate::programs::Programs;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

/// What is measured.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// One large file (the default)
    File(Options),
    /// A tree of small files
    Small(Options),
    /// The same tree again, unchanged
    Unchanged(Options),
    /// A large file, edited since the last transfer
    Edited(Options),
    /// Two receivers of one large file from one server, one after the other
    Second(Options),
}

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
struct Options {
    /// Size of a large file, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    size_mib: u64,
    /// Number of small files
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    files: u32,
    /// Measured runs of each program, after one warm-up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure this program instead of a build of this tree; repeat to compare several. The first one is
    /// judged by the targets
    #[arg(long)]
    shiplane: Vec<PathBuf>,
    /// Keep all cores busy with other programs of the same priority
    #[arg(long)]
    busy: bool,
    /// Directory for all files [default: /dev/shm if it has room, else the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Directory on a disk, for further rows [default: the program's, if its file system differs from --dir's]
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Directory to search for sendme and qcp before PATH
    #[arg(long, env = "SHIPLANE_BENCH_PEERS")]
    peer_dir: Option<PathBuf>,
    /// Compare only with programs whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also write the tables below this directory, by kind of machine
    #[arg(long)]
    docs: Option<PathBuf>,
}

impl Options {
    /// The programs that were named, or else the one that is built here.
    fn shiplanes(&self) -> Result<Vec<Shiplane>> {
        match self.shiplane.as_slice() {
            [] => Ok(vec![Shiplane::built(None)?]),
            named => named.iter().map(|binary| Shiplane::built(Some(binary))).collect(),
        }
    }

    fn includes(&self, contender: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| contender.contains(only.as_str()))
    }

    /// Runs a round that is not counted, then those that are.
    fn rounds(&self, mut run: impl FnMut(Round) -> Result<()>) -> Result<()> {
        let mut busy = None;
        for number in 0..=self.runs {
            interrupt::check()?;
            if number == 1 && self.busy {
                busy = Some(Busy::start()?);
            }
            run(Round { number, of: self.runs })?;
        }
        drop(busy);
        Ok(())
    }

    /// How the runs were made, for the head of a table.
    fn described(&self) -> String {
        let runs = format!("{} interleaved runs, medians", self.runs);
        match self.busy {
            true => {
                format!("{runs}, beside one other program of the same priority on each core that never rests")
            }
            false => runs,
        }
    }
}

/// One of several runs of everything.
#[derive(Clone, Copy, Debug)]
struct Round {
    number: u32,
    of: u32,
}

impl Round {
    /// Then it is not counted.
    fn is_warm_up(self) -> bool {
        self.number == 0
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_warm_up() {
            true => f.write_str("warming up"),
            false => write!(f, "run {} of {}", self.number, self.of),
        }
    }
}

/// Measures and prints the tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        None => compare(Scenario::File, &args.options),
        Some(What::File(options)) => compare(Scenario::File, options),
        Some(What::Small(options)) => compare(Scenario::Small, options),
        Some(What::Unchanged(options)) => compare(Scenario::Unchanged, options),
        Some(What::Edited(options)) => compare(Scenario::Edited, options),
        Some(What::Second(options)) => second(options),
    }
}

/// One scenario, with all programs that can take part.
fn compare(scenario: Scenario, options: &Options) -> Result<()> {
    // Built before the wire may leave the machine's network behind.
    let shiplanes = options.shiplanes()?;
    let mut scratches = vec![scratch(scenario, options)?];
    if scenario.has_disk_rows() {
        scratches.extend(disk_scratch(scenario, options, scratches[0].path())?);
    }
    let wire = Rc::new(Wire::open());
    let lay = |scratch| Workload::lay(scenario, options, scratch, Rc::clone(&wire));
    let mut workloads: Vec<Workload> = scratches.iter().map(lay).collect::<Result<_>>()?;
    for disk in workloads.iter_mut().skip(1) {
        disk.suffix = format!(" on {}", disk.file_system);
    }
    let loopback = contenders::LOOPBACK;
    let programs = Programs::prepare(options.peer_dir.clone(), scratches[0].path(), loopback, loopback)?;
    let mut field = Field::gather(&shiplanes, &programs, &workloads, options);
    let measured = field.measure(options)?;
    let report = Report {
        options,
        workloads: &workloads,
        targets: targets::of(scenario, machine::Kind::here(), &measured),
        measured: &measured,
        missing: &field.missing,
        slug: scenario.slug(),
        title: report::title(&workloads[0]),
    };
    report.publish()
}

/// One file for two receivers.
fn second(options: &Options) -> Result<()> {
    let shiplanes = options.shiplanes()?;
    let scratch = scratch(Scenario::File, options)?;
    let workloads = [Workload::lay(Scenario::File, options, &scratch, Rc::new(Wire::open()))?];
    let measured = contenders::second(&shiplanes[0], &workloads[0], options)?;
    let report = Report {
        options,
        workloads: &workloads,
        targets: targets::of_second(&measured),
        measured: &measured,
        missing: &[],
        slug: "second",
        title: "The second receiver of a file: `get`, verified, twice from one `serve`".to_owned(),
    };
    report.publish()
}

fn scratch(scenario: Scenario, options: &Options) -> Result<Scratch> {
    let room_bytes = scenario.room_bytes(options);
    scratch_in(&workload::place(options.dir.as_deref(), room_bytes), room_bytes)
}

/// None if the only disk that we know of is what everything else uses too.
fn disk_scratch(scenario: Scenario, options: &Options, other: &Path) -> Result<Option<Scratch>> {
    let room_bytes = scenario.room_bytes(options);
    if let Some(disk) = &options.disk {
        return scratch_in(disk, room_bytes).map(Some);
    }
    let here = std::env::current_exe().context("cannot find this program")?;
    let here = here.parent().unwrap_or(other);
    let is_same = machine::file_system(here) == machine::file_system(other);
    if is_same { Ok(None) } else { scratch_in(here, room_bytes).map(Some) }
}

fn scratch_in(directory: &Path, room_bytes: u64) -> Result<Scratch> {
    let scratch = Scratch::new("shiplane-bench-", Some(directory))?;
    scratch.expect_room(room_bytes)?;
    Ok(scratch)
}
