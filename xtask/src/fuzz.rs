//! `cargo xtask fuzz`: runs every decoder and wire state machine under libFuzzer.
//!
//! It works with the stable compiler: what libFuzzer needs to see which code an input reaches is a pass of
//! LLVM that any compiler has. What is interesting is kept in `target/fuzz` and gone on with the next time;
//! an input that breaks a law goes to the committed corpus, where `cargo test` replays it from then on.

mod coverage;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use xtask::process::{self, Running};
use xtask::{cargo, units};

pub(crate) use self::coverage::as_compiler;

/// Runs the targets, or those that are named, one on each core at a time, each to its first failure at most.
pub(crate) fn run(minutes: f64, names: &[String]) -> Result<()> {
    let time = Duration::try_from_secs_f64(minutes * 60.0).context("that is no number of minutes")?;
    let fuzzer = build()?;
    let targets = chosen(targets(&fuzzer)?, names)?;
    let (waiting, outcomes) = (Mutex::new(targets.iter()), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(target) = { waiting.lock().next() } {
            let outcome = fuzz(&fuzzer, target, time.max(Duration::from_secs(1)));
            outcomes.lock().insert(&target.name, outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(work);
        }
    });
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for (name, outcome) in outcomes.into_inner() {
        let outcome = outcome?;
        let places = format!("{} places", units::count(outcome.covered));
        let end = if outcome.failure.is_some() { "broken" } else { "held" };
        rows.push(units::row([name, &units::count(outcome.inputs), &places, end]));
        if let Some(last_words) = outcome.failure {
            eprintln!("{name}: {last_words}");
            broken.push(name.as_str());
        }
    }
    println!("{}", units::table(&rows));
    let all_hold = broken.is_empty();
    ensure!(all_hold, "broken: {}; what breaks them is in crates/*/corpus/*/found-*", broken.join(", "));
    Ok(())
}

/// Whether there is what libFuzzer itself is built with.
pub(crate) fn can_be_built() -> bool {
    std::env::var_os("CXX").is_some()
        || ["c++", "g++", "clang++"].into_iter().any(|compiler| process::find_program(compiler).is_some())
}

struct Target {
    package: String,
    name: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    inputs: u64,
    covered: u64,
    failure: Option<String>,
}

fn build() -> Result<PathBuf> {
    ensure!(can_be_built(), "libFuzzer needs a C++ compiler: install g++ or clang++");
    let mut command = cargo::cargo();
    command.args(["build", "--locked", "--package", PACKAGE, "--bin", PACKAGE, "--features", "libfuzzer"]);
    coverage::measure(&mut command)?;
    cargo::executable_of(&mut command, PACKAGE)
}

fn targets(fuzzer: &Path) -> Result<Vec<Target>> {
    let listed = process::output("the fuzzer", Command::new(fuzzer).env_remove(CHOICE))?;
    let target = |line: &str| {
        let (package, name) = line.split_once(' ')?;
        Some(Target { package: package.to_owned(), name: name.to_owned() })
    };
    listed.lines().map(target).collect::<Option<_>>().context("the fuzzer lists no targets")
}

fn chosen(targets: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    let known: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "there is no target {name}; there are {}", known.join(", "));
    }
    Ok(targets.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

fn fuzz(fuzzer: &Path, target: &Target, time: Duration) -> Result<Outcome> {
    let root = cargo::workspace_root();
    let seeds = root.join("crates").join(&target.package).join("corpus").join(&target.name);
    let kept = root.join("target/fuzz").join(&target.name);
    fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
    let mut command = Command::new(fuzzer);
    command.env(CHOICE, &target.name).args([
        format!("-max_total_time={}", time.as_secs()),
        format!("-artifact_prefix={}/found-", seeds.display()),
        format!("-timeout={HANG_SECS}"),
        format!("-rss_limit_mb={MAX_RSS_MIB}"),
        "-print_final_stats=1".to_owned(),
    ]);
    command.args([&kept, &seeds]).stdout(Stdio::null()).stderr(Stdio::piped());
    let running = Running::start(&format!("fuzzing {}", target.name), &mut command)?;
    let mut outcome = Outcome::default();
    let mut tail = VecDeque::new();
    while let Some(line) = running.next_said(SILENCE)? {
        outcome.note(&line);
        tail.truncate(TAIL_LINES - 1);
        tail.push_front(line);
    }
    if running.wait(SILENCE)?.code != Some(0) {
        outcome.failure = Some(tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(outcome)
}

impl Outcome {
    /// Takes what a line of libFuzzer's report says.
    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[1].parse() else { continue };
            match pair[0] {
                "stat::number_of_executed_units:" => self.inputs = number,
                "cov:" => self.covered = number,
                _ => {}
            }
        }
    }
}

const PACKAGE: &str = "shiplane-fuzz";

/// What tells the fuzzer its target.
const CHOICE: &str = "SHIPLANE_FUZZ_TARGET";

/// Every input takes microseconds.
const HANG_SECS: u32 = 10;

/// An input has 4 KiB at first and rarely more: what takes this much memory takes a peer's word for a size.
const MAX_RSS_MIB: u32 = 512;

/// libFuzzer reports at least that often while it lives.
const SILENCE: Duration = Duration::from_secs(600);

/// A panic and its backtrace.
const TAIL_LINES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood() {
        let mut outcome = Outcome::default();
        for line in [
            "#2\tINITED cov: 33 ft: 34 corp: 1/1b exec/s: 0 rss: 40Mb",
            "#511\tNEW    cov: 57 ft: 80 corp: 9/31b lim: 8 exec/s: 0 rss: 41Mb L: 4/4 MS: 1 ChangeByte-",
            "stat::number_of_executed_units: 123456",
            "a line that says cov: nothing",
        ] {
            outcome.note(line);
        }
        assert_eq!(outcome, Outcome { inputs: 123_456, covered: 57, failure: None });
    }

    #[test]
    fn a_target_that_is_not_there_is_not_skipped_in_silence() {
        let all = || {
            let target = |name: &str| Target { package: "p".to_owned(), name: name.to_owned() };
            vec![target("a"), target("b")]
        };
        let names = |names: &[&str]| -> Result<Vec<String>> {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(chosen(all(), &names)?.into_iter().map(|target| target.name).collect())
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        assert!(names(&["b", "c"]).is_err());
    }
}
