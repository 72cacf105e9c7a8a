//! `cargo xtask sim`: builds and runs the simulation.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{cargo, process};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run each seed twice and compare
    #[arg(long)]
    check_replay: bool,
    /// Print each seed's scenario and result
    #[arg(long)]
    verbose: bool,
    /// Build without optimisation, like `cargo xtask ci`
    #[arg(long)]
    dev: bool,
}

impl Args {
    /// What `cargo xtask ci` runs, on what it has built by then.
    pub(crate) fn short() -> Self {
        Self { seeds: SHORT_SEEDS, from: 1, check_replay: false, verbose: false, dev: true }
    }
}

/// Builds the simulation and runs it. What fails is printed with how to run it again.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = build(args.dev)?;
    let mut command = Command::new(binary);
    command.arg("--seeds").arg(args.seeds.to_string()).arg("--from").arg(args.from.to_string());
    command.args(args.check_replay.then_some("--check-replay"));
    command.args(args.verbose.then_some("--verbose"));
    process::run(BINARY, &mut command).with_context(|| format!("{BINARY} found something"))
}

fn build(dev: bool) -> Result<PathBuf> {
    if !dev {
        return cargo::build_release(PACKAGE, BINARY);
    }
    let mut command = cargo::cargo();
    // Built by `cargo test --workspace`, with the features that the tests want: nothing is left to build after it.
    command.args(["test", "--workspace", "--locked", "--no-run", "--test", "seeds"]).stderr(Stdio::inherit());
    cargo::executable_of(&mut command, BINARY)
}

const PACKAGE: &str = "shiplane-sim";
const BINARY: &str = "shiplane-sim";

/// Some ten seconds of an unoptimised build.
const SHORT_SEEDS: u64 = 150;
