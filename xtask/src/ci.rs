//! `cargo xtask ci`: everything that must be green before a change goes in, step by step, with the
//! time each took.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use xtask::driver::Shiplane;
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
    rows.push(units::row(["all", &units::seconds(started.elapsed()), verdict]));
    println!("\n{}", units::table(&rows));
    outcome
}

/// Has the test of the status page write what it sees into `docs`.
pub(crate) fn screenshots() -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--package", "shiplane-cli", "--test", "it", "--", "page::", "--nocapture"]);
    command.env("SHIPLANE_SCREENSHOTS", cargo::workspace_root().join("docs"));
    process::run("the test of the status page", &mut command).map(drop)
}

fn run_steps(rows: &mut Vec<Vec<String>>) -> Result<()> {
    for (name, run) in STEPS {
        interrupt::check()?;
        println!("\n== {name}");
        let began = Instant::now();
        let outcome = run();
        let verdict = outcome.as_ref().map_or("failed", |left_out| left_out.unwrap_or("passed"));
        rows.push(units::row([name, &units::seconds(began.elapsed()), verdict]));
        outcome.with_context(|| format!("ci: `{name}` failed"))?;
    }
    Ok(())
}

type Step = fn() -> Outcome;

/// A step that did not fail may say why it, or a part of it, was left out.
type Outcome = Result<Option<&'static str>>;

const STEPS: [(&str, Step); 15] = [
    ("format", || cargo_with(&["fmt", "--all", "--check"])),
    ("tidy", || tidy::run(false).map(|()| None)),
    ("clippy", || clippy(&["--workspace", "--all-targets"])),
    ("each crate alone", each_alone),
    ("docs", docs),
    ("test", || cargo_with(&["test", "--workspace", "--locked"])),
    ("simulation, short", || programme(&["sim", "--seeds", SHORT_SEEDS])),
    ("fuzz, short", short_fuzz),
    ("dependencies", dependencies),
    ("demo, small", || demo::run(None, true).map(|()| None)),
    ("crash, short", || on_program("crash")),
    ("races, short", || on_program("races")),
    ("load, short", || on_program("load")),
    ("soak, short", || on_program("soak")),
    ("wan, short", || on_program("wan")),
];

fn clippy(of: &[&str]) -> Outcome {
    cargo_with(&[&["clippy", "--locked"], of, &["--", "--deny", "warnings"]].concat())
}

/// As its users build it: without `internals`, and without what its neighbours bring or turn on.
fn each_alone() -> Outcome {
    for package in USED_ALONE {
        clippy(&["--package", package])?;
    }
    // The program without what is optional.
    cargo_with(&["check", "--locked", "--package", "shiplane-cli", "--no-default-features"])
}

/// A link to what its users cannot name shows in a crate alone.
fn docs() -> Outcome {
    let alone = USED_ALONE.map(|package| vec!["--package", package]);
    for of in [vec!["--workspace"]].into_iter().chain(alone) {
        let mut command = cargo::cargo();
        command.args(["doc", "--no-deps", "--locked"]).args(of).env("RUSTDOCFLAGS", "--deny warnings");
        process::run("cargo doc", &mut command)?;
    }
    Ok(None)
}

/// The short form of a programme of the lab, on the demo's program, which has been built by then and is nearly as fast
/// as the one that is installed.
fn on_program(name: &str) -> Outcome {
    let shiplane = Shiplane::build_for_demo()?;
    programme(&[name, "--short", "--shiplane", &shiplane.binary().to_string_lossy()])
}

fn programme(arguments: &[&str]) -> Outcome {
    if !cfg!(target_os = "linux") {
        return Ok(Some("left out: the lab needs Linux"));
    }
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    let lacks = lab::run(&arguments)? == Ran::Skipped;
    Ok(lacks.then_some("left out: this machine lacks something, see above"))
}

fn short_fuzz() -> Outcome {
    if !fuzz::can_be_built() {
        return Ok(Some("left out: libFuzzer needs a C++ compiler"));
    }
    fuzz::run(SHORT_FUZZ_MINUTES, &[]).map(|()| None)
}

fn dependencies() -> Outcome {
    if cargo::cargo().args(["deny", "--version"]).output().is_ok_and(|output| !output.status.success()) {
        return Ok(Some("left out: `cargo install cargo-deny --locked` first"));
    }
    cargo_with(&["deny", "check", "bans", "licenses", "sources"])?;
    // They come from a database on the network: without it the rest still counts.
    let output = cargo::cargo().args(["deny", "check", "advisories"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(None);
    }
    ensure!(said.contains(NO_DATABASE), "cargo deny check advisories ended with {}: {said}", output.status);
    Ok(Some("passed; advisories left out: no network"))
}

fn cargo_with(arguments: &[&str]) -> Outcome {
    process::run(&format!("cargo {}", arguments.join(" ")), cargo::cargo().args(arguments))?;
    Ok(None)
}

/// Some ten seconds of an unoptimised build.
const SHORT_SEEDS: &str = "150";

/// Enough to notice that a target is broken, and what a few thousand inputs show.
const SHORT_FUZZ_MINUTES: f64 = 1.0 / 60.0;

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
