//! The project's tasks: `cargo xtask ci | tidy | demo | fuzz | screenshots`, and the programmes of the lab, which it builds and runs.

mod ci;
mod demo;
mod fuzz;
mod lab;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::interrupt;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Runs checks, tests and benchmarks of shiplane",
    after_help = lab::HELP
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Get a tree over loopback, kill and resume a second run, push and sync it; compare the results
    Demo {
        /// Directory to send [default: a generated data set]
        path: Option<PathBuf>,
        /// Generate a small data set: 32 MiB and 200 files
        #[arg(long, conflicts_with = "path")]
        small: bool,
    },
    /// Run every check that a change must pass
    Ci,
    /// Check the rules for docs, layers, lengths and words
    Tidy {
        /// Write the listings of the public surface, docs/api/, instead of comparing them
        #[arg(long)]
        bless: bool,
    },
    /// Take the pictures of the status page in the documents; needs Chromium and ChromeDriver
    Screenshots,
    /// Fuzz every decoder
    Fuzz {
        /// Minutes per target
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// Fuzz only this target; may be repeated
        #[arg(long)]
        target: Vec<String>,
    },
    #[command(external_subcommand)]
    Lab(Vec<String>),
}

/// Whether `cargo xtask` accepts these arguments; of a programme of the lab only its name is known here.
fn is_task(arguments: &[&str]) -> bool {
    let line = std::iter::once("cargo xtask").chain(arguments.iter().copied());
    match Args::try_parse_from(line) {
        Ok(Args { task: Task::Lab(arguments) }) => lab::is_programme(&arguments),
        parsed => parsed.is_ok(),
    }
}

fn main() -> ExitCode {
    if let Some(compiled) = fuzz::as_compiler() {
        return compiled;
    }
    let args = Args::parse();
    let outcome = interrupt::install().and_then(|()| match args.task {
        Task::Demo { path, small } => demo::run(path.as_deref(), small),
        Task::Ci => ci::run(),
        Task::Tidy { bless } => tidy::run(bless),
        Task::Screenshots => ci::screenshots(),
        Task::Fuzz { minutes, target } => fuzz::run(minutes, &target),
        Task::Lab(arguments) => lab::run(&arguments).map(drop),
    });
    interrupt::exit_code(outcome)
}
