//! `cargo xtask ci`: everything that must be green before a change goes in, step by step, with the
//! time each took.

#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::{cargo, crash, demo, fuzz, interrupt, process, races, sim, tidy, units};
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
use crate::{cargo, demo, fuzz, interrupt, process, sim, tidy, units};
#[cfg(target_os = "linux")]
use crate::{load, soak, wan};

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
    vec![name.to_owned(), units::seconds(time), verdict.to_owned()]
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
    Step { name: "crash, short", run: short_crash },
    Step { name: "races, short", run: short_races },
    Step { name: "load, short", run: short_load },
    Step { name: "soak, short", run: short_soak },
    Step { name: "wan, short", run: short_wan },
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
    for package in CRATES {
        let mut command = cargo_with(&["clippy", "--locked", "--package", package]);
        run_cargo(command.args(["--", "--deny", "warnings"]))?;
    }
    // The program without what is optional.
    run_cargo(&mut cargo_with(&["check", "--locked", "--package", "shiplane-cli", "--no-default-features"]))
}

fn docs() -> Result<Note> {
    run_docs(&["--workspace"])?;
    // A link to what its users cannot name shows in a crate alone.
    for package in CRATES {
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
    if !cfg!(target_os = "linux") {
        return Ok(Note::Left("left out: its random numbers need Linux"));
    }
    sim::run(&sim::Args::short())?;
    Ok(Note::Passed)
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

/// What the steps below run: the demo's program, which has been built by then and is nearly as fast as the
/// one that is installed.
#[cfg(target_os = "linux")]
fn program() -> Result<PathBuf> {
    cargo::build_for_demo()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn short_crash() -> Result<Note> {
    if let Some(why) = crash::missing() {
        println!("  {why}");
        return Ok(Note::Left("left out: nothing can be traced here"));
    }
    crash::run(&crash::Args::short(program()?))?;
    Ok(Note::Passed)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn short_races() -> Result<Note> {
    races::run(&races::Args::short(program()?))?;
    Ok(Note::Passed)
}

/// With the hostile peers that the tests have built.
#[cfg(target_os = "linux")]
fn short_load() -> Result<Note> {
    load::run(&load::Args::short(program()?))?;
    Ok(Note::Passed)
}

#[cfg(target_os = "linux")]
fn short_soak() -> Result<Note> {
    soak::run(&soak::Args::short(program()?))?;
    Ok(Note::Passed)
}

#[cfg(target_os = "linux")]
fn short_wan() -> Result<Note> {
    if let Some(why) = wan::missing() {
        println!("  {why}");
        return Ok(Note::Left("left out: there can be no emulated links here"));
    }
    wan::run(&wan::Args::short(program()?))?;
    Ok(Note::Passed)
}

#[cfg(not(target_os = "linux"))]
fn short_wan() -> Result<Note> {
    Ok(Note::Left("left out: it needs Linux's network namespaces"))
}

#[cfg(not(target_os = "linux"))]
fn short_load() -> Result<Note> {
    Ok(Note::Left("left out: it needs Linux's /proc"))
}

#[cfg(not(target_os = "linux"))]
fn short_soak() -> Result<Note> {
    Ok(Note::Left("left out: it needs Linux's /proc"))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn short_crash() -> Result<Note> {
    Ok(Note::Left("left out: it traces as Linux does on x86-64"))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn short_races() -> Result<Note> {
    Ok(Note::Left("left out: it swaps as Linux does"))
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

/// What cargo-deny says when it cannot reach the advisories.
const NO_DATABASE: &str = "failed to fetch advisory database";

const CRATES: [&str; 8] = [
    "shiplane-wire",
    "shiplane-transport",
    "shiplane-rpc",
    "shiplane-files",
    "shiplane-protocols",
    "shiplane-octopii",
    "shiplane",
    "shiplane-cli",
];
