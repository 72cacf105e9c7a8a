//! The project's tasks: `cargo xtask demo | ci | tidy | fuzz | sim | crash | races | bench | wan | load | soak`.
//!
//! `cargo xtask --help` describes each; its module has the same name. They share `process` (child processes that cannot
//! outlive us), `dataset` (what is sent), `compare` (whether it arrived) and `shiplane` (drives the program under test).

mod bench;
mod busy;
mod cargo;
mod ci;
mod compare;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod crash;
mod dataset;
mod demo;
mod fuzz;
mod interrupt;
#[cfg(target_os = "linux")]
mod load;
mod process;
#[cfg(target_os = "linux")]
mod process_stats;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod races;
mod scratch;
mod shiplane;
mod sim;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(target_os = "linux")]
mod suspend;
mod tidy;
mod units;
#[cfg(target_os = "linux")]
mod wan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Runs checks, tests and benchmarks of shiplane"
)]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Get a tree over loopback, kill and resume a second run, push and sync it; compare the results
    Demo(demo::Args),
    /// Run every check that a change must pass
    Ci,
    /// Check the house rules: docs, layers, lengths, words
    Tidy(tidy::Args),
    /// Fuzz every decoder
    Fuzz(fuzz::Args),
    /// Run the whole stack in virtual time, over a network and a disk with faults from a seed
    Sim(sim::Args),
    /// Compare transfers with scp, rsync, curl, sendme and qcp, or calls with bare quinn and tarpc
    Bench(Box<bench::Args>),
    /// Kill receivers at every file-changing call and at random, fail disks, cut the power; then resume
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Crash(crash::Args),
    /// Swap links that lead outside into directories while files arrive
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Races(races::Args),
    /// Compare with rsync, scp, curl and qcp over emulated wide-area links (root)
    #[cfg(target_os = "linux")]
    Wan(wan::Args),
    /// Overload a server with many, stalled and flooding peers; check its memory and an honest peer's speed
    #[cfg(target_os = "linux")]
    Load(load::Args),
    /// Keep a server busy and kill clients; check that its resource use stays flat
    #[cfg(target_os = "linux")]
    Soak(soak::Args),
}

/// Whether `cargo xtask` accepts these arguments.
fn is_chore(arguments: &[&str]) -> bool {
    let line = std::iter::once("cargo xtask").chain(arguments.iter().copied());
    Args::try_parse_from(line).is_ok()
}

fn main() -> ExitCode {
    if let Some(compiled) = fuzz::as_compiler() {
        return compiled;
    }
    let args = Args::parse();
    let outcome = interrupt::install().and_then(|()| match args.chore {
        Chore::Demo(args) => demo::run(&args),
        Chore::Ci => ci::run(),
        Chore::Tidy(args) => tidy::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Sim(args) => sim::run(&args),
        Chore::Bench(args) => bench::run(&args),
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Chore::Crash(args) => crash::run(&args),
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Chore::Races(args) => races::run(&args),
        #[cfg(target_os = "linux")]
        Chore::Wan(args) => wan::run(&args),
        #[cfg(target_os = "linux")]
        Chore::Load(args) => load::run(&args),
        #[cfg(target_os = "linux")]
        Chore::Soak(args) => soak::run(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure:#}");
            // Not told by the failure itself: a child that died of the same Ctrl-C may report first.
            ExitCode::from(if interrupt::check().is_err() { 130 } else { 1 })
        }
    }
}
