//! `cargo xtask bench`: whole programs on loopback, shiplane beside every peer that is there.
//!
//! A *scenario* is what is carried: one large file, a tree of small ones, a tree that is there already, a
//! file that was edited. A *course* lays it out, a *contender* carries it, a *wire* counts the bytes that
//! loopback saw. Runs are interleaved, medians count, and what is judged are ratios within one run, since
//! absolute numbers drift from machine to machine. `ladder` takes the distance between bare QUIC and the
//! whole program apart, `cores` says what another core brings, `profile` where the processor's time goes,
//! `parts` what each part alone takes; `rpc` compares calls. Nothing here is an assertion: a slow machine
//! makes no red build.

mod contenders;
mod cores;
mod course;
mod ladder;
mod machine;
mod parts;
mod plot;
mod profile;
mod report;
mod rpc;
mod sample;
mod table;
mod targets;
mod wire;

use std::path::PathBuf;

use anyhow::Result;

use self::contenders::{Field, Tools};
use self::course::{Course, Scenario};
use self::report::Report;
use self::wire::Wire;
use crate::scratch::Scratch;

/// What the user typed.
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
    /// The same tree again, when all of it is there
    Unchanged(Options),
    /// A large file of which an older version is there
    Edited(Options),
    /// What lies between bare QUIC and the whole program
    Ladder(Options),
    /// One large file with both programs on one core, on two, and so on up to all (Linux)
    Cores(Options),
    /// Where the processor's time goes with one large file (perf)
    Profile(Options),
    /// The parts of shiplane, each alone, as criterion measures them
    Parts(parts::Args),
    /// Calls, beside bare quinn and tarpc, and beside a bulk transfer
    Rpc(rpc::Args),
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
    /// Measured runs of each program, after one that is not counted
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where everything lies; /dev/shm if it has room, else the temporary directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A directory of programs to look in before PATH: sendme, qcp
    #[arg(long, env = "SHIPLANE_BENCH_PEERS")]
    peer_dir: Option<PathBuf>,
    /// Only contenders whose name contains one of these; shiplane always runs
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The largest packet that raw quinn may try, in bytes
    #[arg(long)]
    raw_mtu: Option<u16>,
    /// Write the tables as Markdown and the plot as SVG into this directory too
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// Measures and prints the tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        None => compare(Scenario::File, &args.options),
        Some(What::File(options)) => compare(Scenario::File, options),
        Some(What::Small(options)) => compare(Scenario::Small, options),
        Some(What::Unchanged(options)) => compare(Scenario::Unchanged, options),
        Some(What::Edited(options)) => compare(Scenario::Edited, options),
        Some(What::Ladder(options)) => ladder::run(options),
        Some(What::Cores(options)) => cores::run(options),
        Some(What::Profile(options)) => profile::run(options),
        Some(What::Parts(args)) => parts::run(args),
        Some(What::Rpc(args)) => rpc::run(args),
    }
}

/// One scenario, with all contenders that can take part.
fn compare(scenario: Scenario, options: &Options) -> Result<()> {
    // Built before the wire may leave the machine's network behind.
    let tools = Tools::build(options)?;
    let (scratch, wire) = (scratch(scenario, options)?, Wire::open());
    let course = Course::lay(scenario, options, &scratch, wire)?;
    let mut field = Field::gather(&tools, &course, options)?;
    field.warm_up(&course)?;
    let measured = field.measure(options.runs, &course)?;
    let report = Report { scenario, course: &course, runs: options.runs, measured, missing: field.missing };
    print!("\n{}", report.text());
    match &options.docs {
        Some(directory) => report.write(directory),
        None => Ok(()),
    }
}

fn scratch(scenario: Scenario, options: &Options) -> Result<Scratch> {
    let room_bytes = scenario.room_bytes(options);
    let scratch = Scratch::new("shiplane-bench-", Some(&course::place(options.dir.as_deref(), room_bytes)))?;
    scratch.expect_room(room_bytes)?;
    Ok(scratch)
}
