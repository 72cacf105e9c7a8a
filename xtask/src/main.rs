//! The project's tasks: `cargo xtask ci | tidy | demo | fuzz | screenshots`, and the programmes of the lab, which it builds and runs.

mod ci;
mod demo;
mod fuzz;
mod lab;
mod screenshots;
mod tidy;

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
    Demo(demo::Args),
    /// Run every check that a change must pass
    Ci,
    /// Check the rules for docs, layers, lengths and words
    Tidy(tidy::Args),
    /// Take the pictures of the status page in the documents; needs Chromium and ChromeDriver
    Screenshots,
    /// Fuzz every decoder
    Fuzz(fuzz::Args),
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
        Task::Demo(args) => demo::run(&args),
        Task::Ci => ci::run(),
        Task::Tidy(args) => tidy::run(&args),
        Task::Screenshots => screenshots::run(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Lab(arguments) => lab::run(&arguments).map(drop),
    });
    interrupt::exit_code(outcome)
}
