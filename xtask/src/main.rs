//! The project's own chores: `cargo xtask demo | ci | tidy | fuzz | sim | crash | races | bench | wan | load | soak`.
//!
//! Reading order: `demo` is what a newcomer runs; `ci` is what must be green; `tidy` holds the house
//! rules as failing checks; `fuzz` gives every decoder bytes that nobody thought of; `sim` runs
//! the whole stack in virtual time; `crash` and `races` disturb receivers in every way that a machine can; `bench` compares whole programs; `load`
//! overloads a server, `soak` keeps one busy, `wan`
//! runs whole programs over long, slow and lossy links. Beneath them: `process` (children that cannot outlive us), `dataset`
//! (what is sent), `compare` (whether it arrived), `shiplane` (the program under trial, driven by its
//! command-line contract only).

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
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod races;
mod scratch;
mod shiplane;
mod sim;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(target_os = "linux")]
mod standstill;
mod tidy;
mod units;
#[cfg(target_os = "linux")]
mod vitals;
#[cfg(target_os = "linux")]
mod wan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Shiplane's chores")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Get a tree over loopback, kill a second run and resume it, push it, sync it; compare each time
    Demo(demo::Args),
    /// Everything that must be green before a change goes in
    Ci,
    /// The house rules: docs, layers, lengths, words that must not stand in the code
    Tidy,
    /// Give every decoder bytes that nobody thought of
    Fuzz(fuzz::Args),
    /// The whole stack in virtual time, over a network and a disk that fail by a seed
    Sim(sim::Args),
    /// Files and trees beside scp, rsync, curl, sendme and qcp, or calls beside bare quinn and tarpc
    Bench(Box<bench::Args>),
    /// Kill receivers at every file-changing call and at random, fail their disks, cut their power; then resume
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Crash(crash::Args),
    /// Swap links that lead outside into directories while files arrive
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Races(races::Args),
    /// Whole programs over emulated wide-area links, compared with rsync, scp, curl and qcp (root)
    #[cfg(target_os = "linux")]
    Wan(wan::Args),
    /// A server under crowds, stalls and floods: its memory, and the speed of an honest peer beside them
    #[cfg(target_os = "linux")]
    Load(load::Args),
    /// A server kept busy for so many minutes, clients killed on the way: whether it stays as it was
    #[cfg(target_os = "linux")]
    Soak(soak::Args),
}

/// Whether `cargo xtask` takes these arguments.
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
        Chore::Tidy => tidy::run(),
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
