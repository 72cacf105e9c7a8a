//! `cargo xtask ci`: everything that must be green before a change goes in, step by step, with the
//! time each took.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::{cargo, interrupt, process, units};

use crate::lab::{self, Ran};
use crate::{demo, fuzz, tidy};

/// Runs all steps in order and stops at the first that fails. Cheap ones come first. The table of what
/// was run stands at the end either way.
pub(crate) fn run() -> Result<()> {
    let mut rows = Vec::new();
    let started = Instant::now();
    let outcome = run_steps(&mut rows);
    let verdict = if outcome.is_ok() { "passed" } else { "failed" };
    rows.push(row("all", verdict, started.elapsed()));
    println!("\n{}", units::table(&rows));
    outcome
}

fn run_steps(rows: &mut Vec<Vec<String>>) -> Result<()> {
    for step in STEPS {
        interrupt::check()?;
        println!("\n== {}", step.name);
        let began = Instant::now();
        let outcome = (step.run)();
        let verdict = match &outcome {
            Ok(Note::Passed) => "passed",
            Ok(Note::Left(why)) => why,
            Err(_) => "failed",
        };
        rows.push(row(step.name, verdict, began.elapsed()));
        outcome.with_context(|| format!("ci: `{}` failed", step.name))?;
    }
    Ok(())
}

struct Step {
    name: &'static str,
    run: fn() -> Result<Note>,
}

/// What a step has to say when it did not fail.
enum Note {
    Passed,
    /// Not run, and why.
    Left(&'static str),
}

fn row(name: &str, verdict: &str, time: Duration) -> Vec<String> {
    units::row([name, &units::seconds(time), verdict])
}

const STEPS: [Step; 15] = [
    Step { name: "format", run: format },
    Step { name: "tidy", run: house_rules },
    Step { name: "clippy", run: clippy },
    Step { name: "each crate alone", run: each_alone },
    Step { name: "docs", run: docs },
    Step { name: "test", run: test },
    Step { name: "simulation, short", run: short_simulation },
    Step { name: "fuzz, short", run: short_fuzz },
    Step { name: "dependencies", run: dependencies },
    Step { name: "demo, small", run: small_demo },
    Step { name: "crash, short", run: || on_program("crash") },
    Step { name: "races, short", run: || on_program("races") },
    Step { name: "load, short", run: || on_program("load") },
    Step { name: "soak, short", run: || on_program("soak") },
    Step { name: "wan, short", run: || on_program("wan") },
];

fn format() -> Result<Note> {
    run_cargo(&mut cargo_with(&["fmt", "--all", "--check"]))
}

fn house_rules() -> Result<Note> {
    tidy::run(&tidy::Args::compare())?;
    Ok(Note::Passed)
}

fn clippy() -> Result<Note> {
    let mut command = cargo_with(&["clippy", "--workspace", "--all-targets", "--locked"]);
    run_cargo(command.args(["--", "--deny", "warnings"]))
}

/// As its users build it: without `internals`, and without what its neighbours bring or turn on.
fn each_alone() -> Result<Note> {
    for package in USED_ALONE {
        let mut command = cargo_with(&["clippy", "--locked", "--package", package]);
        run_cargo(command.args(["--", "--deny", "warnings"]))?;
    }
    // The program without what is optional.
    run_cargo(&mut cargo_with(&["check", "--locked", "--package", "shiplane-cli", "--no-default-features"]))
}

fn docs() -> Result<Note> {
    run_docs(&["--workspace"])?;
    // A link to what its users cannot name shows in a crate alone.
    for package in USED_ALONE {
        run_docs(&["--package", package])?;
    }
    Ok(Note::Passed)
}

fn run_docs(of: &[&str]) -> Result<Note> {
    let mut command = cargo_with(&["doc", "--no-deps", "--locked"]);
    run_cargo(command.args(of).env("RUSTDOCFLAGS", "--deny warnings"))
}

fn test() -> Result<Note> {
    run_cargo(&mut cargo_with(&["test", "--workspace", "--locked"]))
}

fn short_simulation() -> Result<Note> {
    programme(&["sim", "--seeds", SHORT_SEEDS])
}

/// The short form of a programme of the lab, on the demo's program, which has been built by then and is nearly as fast
/// as the one that is installed.
fn on_program(name: &str) -> Result<Note> {
    let program = cargo::build_for_demo()?;
    programme(&[name, "--short", "--shiplane", &program.to_string_lossy()])
}

fn programme(arguments: &[&str]) -> Result<Note> {
    if !cfg!(target_os = "linux") {
        return Ok(Note::Left("left out: the lab needs Linux"));
    }
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    Ok(match lab::run(&arguments)? {
        Ran::Passed => Note::Passed,
        Ran::Skipped => Note::Left("left out: this machine lacks something, see above"),
    })
}

fn short_fuzz() -> Result<Note> {
    if !fuzz::can_be_built() {
        return Ok(Note::Left("left out: libFuzzer needs a C++ compiler"));
    }
    fuzz::run(&fuzz::Args::short())?;
    Ok(Note::Passed)
}

fn dependencies() -> Result<Note> {
    if !is_installed("deny") {
        return Ok(Note::Left("left out: `cargo install cargo-deny --locked` first"));
    }
    run_cargo(&mut cargo_with(&["deny", "check", "bans", "licenses", "sources"]))?;
    advisories()
}

/// They come from a database on the network: without it the rest still counts.
fn advisories() -> Result<Note> {
    let output = cargo_with(&["deny", "check", "advisories"]).output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Note::Passed);
    }
    if said.contains(NO_DATABASE) {
        return Ok(Note::Left("passed; advisories left out: no network"));
    }
    eprintln!("{said}");
    bail!("cargo deny check advisories ended with {}", output.status)
}

fn small_demo() -> Result<Note> {
    demo::run(&demo::Args::small())?;
    Ok(Note::Passed)
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = cargo::cargo();
    command.args(arguments);
    command
}

fn run_cargo(command: &mut Command) -> Result<Note> {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let name = format!("cargo {}", arguments.join(" "));
    process::run(&name, command)?;
    Ok(Note::Passed)
}

fn is_installed(subcommand: &str) -> bool {
    let mut command = cargo_with(&[subcommand, "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Some ten seconds of an unoptimised build.
const SHORT_SEEDS: &str = "150";

/// What cargo-deny says when it cannot reach the advisories.
const NO_DATABASE: &str = "failed to fetch advisory database";

/// What somebody may depend on, or install. The others are parts of these, and have no public names.
const USED_ALONE: [&str; 7] = [
    "shiplane-wire",
    "shiplane-transport",
    "shiplane-rpc",
    "shiplane-protocols",
    "shiplane-octopii",
    "shiplane",
    "shiplane-cli",
];
