//! Parses the command line and runs a programme.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::interrupt;

#[cfg(target_arch = "x86_64")]
use crate::crash;
use crate::measure::{bench, wan};
use crate::{load, races, simulate, soak};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The long programmes")]
struct Args {
    #[command(subcommand)]
    programme: Programme,
}

#[derive(Subcommand)]
enum Programme {
    /// Run the whole stack in virtual time, over a network and a disk with faults from a seed
    Sim(simulate::Args),
    /// Compare transfers with scp, rsync, curl, sendme and qcp
    Bench(Box<bench::Args>),
    /// Kill receivers at every file-changing call and at random, fail disks, cut the power; then resume
    #[cfg(target_arch = "x86_64")]
    Crash(crash::Args),
    /// Swap links that lead outside into directories while files arrive
    Races(races::Args),
    /// Compare with rsync, scp, curl and qcp over emulated wide-area links (root)
    Wan(wan::Args),
    /// Overload a server with many, stalled, flooding and lying peers; check its memory and an honest peer's speed
    Load(load::Args),
    /// Keep a server busy and kill clients; check that its resource use stays flat
    Soak(soak::Args),
    /// The peers of `load` and `soak`
    #[command(hide = true)]
    Peers(crate::peers::Args),
}

/// A programme cannot run on this machine.
#[derive(Debug, thiserror::Error)]
#[error("left out: {0}")]
pub(crate) struct Missing(pub(crate) String);

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = interrupt::install().and_then(|()| run(args.programme));
    if let Err(failure) = &outcome
        && let Some(missing) = failure.downcast_ref::<Missing>()
    {
        println!("{missing}");
        return ExitCode::from(SKIPPED);
    }
    interrupt::exit_code(outcome)
}

fn run(programme: Programme) -> Result<()> {
    match programme {
        Programme::Sim(args) => simulate::run(&args),
        Programme::Bench(args) => bench::run(&args),
        #[cfg(target_arch = "x86_64")]
        Programme::Crash(args) => crash::run(&args),
        Programme::Races(args) => races::run(&args),
        Programme::Wan(args) => wan::run(&args),
        Programme::Load(args) => load::run(&args),
        Programme::Soak(args) => soak::run(&args),
        Programme::Peers(args) => crate::peers::run(&args),
    }
}

/// What tells `cargo xtask ci` that a programme was left out.
const SKIPPED: u8 = 77;
