//! `cargo xtask crash`: what is left of a receiver's files when it dies, when the disk fails it, and when the power
//! goes. After each: under every name the old file or the new one, whole; and the next run finishes the work. And what
//! has to be sent again over a slow link.

mod calls;
mod data;
mod errno;
mod mishap;
mod points;
mod power;
mod trace;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use xtask::driver::Shiplane;
use xtask::scratch::Scratch;
use xtask::units;

use self::mishap::Victim;
use crate::measure::slow;
use crate::run::Missing;

/// The arguments.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Run only this series
    #[arg(long)]
    only: Option<Series>,
    /// Run a few of each, in half a minute
    #[arg(long)]
    short: bool,
    /// Number of random kills of receivers, and of senders
    #[arg(long, default_value_t = KILLS)]
    kills: u64,
    /// Victims of random kills [default: receivers, then senders]
    #[arg(long)]
    victim: Option<Victim>,
    /// Number of power cuts
    #[arg(long, default_value_t = CUTS)]
    cuts: u64,
    /// Seed of the random moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Program to test [default: the release build of this tree]
    #[arg(long, value_name = "PATH")]
    shiplane: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Series {
    /// SIGKILL in place of every file-changing call of the receiver
    Points,
    /// Each kind of call fails with each error
    Errno,
    /// SIGKILL at random moments, of receivers and senders
    Random,
    /// Power cuts of receivers (root, loop devices)
    Power,
    /// SIGKILL of clients over slow links (root, iproute2)
    Slow,
}

/// Why nothing can be traced here, if that is so.
fn missing() -> Option<String> {
    let traced = trace::start(&Command::new("true"), Path::new("/"), None);
    traced.and_then(|(running, _)| running.wait(TRACED_LIMIT)).err().map(|failure| format!("{failure:#}"))
}

/// Runs the series, and prints what they came to.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(why) = missing() {
        bail!(Missing(why));
    }
    let shiplane = Shiplane::built(args.shiplane.as_deref())?;
    let mut rows = Vec::new();
    let outcome = run_series(args, &shiplane, &mut rows);
    println!("\n{}", units::table(&rows));
    outcome
}

fn run_series(args: &Args, shiplane: &Shiplane, rows: &mut Vec<Vec<String>>) -> Result<()> {
    let few = |count: u64| if args.short { count.min(SHORT_COUNT) } else { count };
    let is_wanted = |series: &&Series| args.only.is_none_or(|only| only == **series);
    for series in Series::value_variants().iter().filter(is_wanted) {
        let missing = match series {
            Series::Points | Series::Errno | Series::Random => None,
            Series::Power => power::missing(),
            Series::Slow => slow::missing(),
        };
        if let Some(why) = missing {
            println!("{series:?} is left out: {why}");
            continue;
        }
        let began = Instant::now();
        let scratch = Scratch::new("shiplane-crash-", None)?;
        let fixture = || data::fixture(shiplane, &scratch).context("cannot prepare");
        rows.extend(match series {
            Series::Points => points::run(&fixture()?, args.short)?,
            Series::Errno => errno::run(&fixture()?, args.short)?,
            Series::Random => mishap::run(shiplane, few(args.kills), args.victim, args.seed)?,
            Series::Power => power::run(shiplane, few(args.cuts), args.seed)?,
            Series::Slow => slow::run(shiplane, args.short)?,
        });
        println!("  {}", units::seconds(began.elapsed()));
        rows.push(Vec::new());
    }
    Ok(())
}

/// `true` takes a millisecond or two.
const TRACED_LIMIT: Duration = Duration::from_secs(20);

/// Of each role.
const KILLS: u64 = 500;

const CUTS: u64 = 100;

/// Of kills and of cuts.
const SHORT_COUNT: u64 = 3;
