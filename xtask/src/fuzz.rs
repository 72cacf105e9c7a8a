//! `cargo xtask fuzz`: runs every decoder and wire state machine under libFuzzer.
//!
//! It works with the stable compiler: what libFuzzer needs to see which code an input reaches is a pass of
//! LLVM that any compiler has. What is interesting is kept in `target/fuzz` and gone on with the next time;
//! an input that breaks a law goes to the committed corpus, where `cargo test` replays it from then on.

mod coverage;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use xtask::process::{self, Ended, Running};
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
            outcomes.lock().insert(&target.1, outcome);
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
        let inputs = figure(&outcome.said, "stat::number_of_executed_units:");
        let places = format!("{} places", figure(&outcome.said, "cov:"));
        let held = outcome.code == Some(0);
        rows.push(units::row([name, &inputs, &places, if held { "held" } else { "broken" }]));
        if !held {
            let said: Vec<_> = outcome.said.lines().collect();
            eprintln!("{name}: {}", said[said.len().saturating_sub(TAIL_LINES)..].join("\n"));
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

/// A package and the name of one of its targets.
type Target = (String, String);

fn build() -> Result<PathBuf> {
    ensure!(can_be_built(), "libFuzzer needs a C++ compiler: install g++ or clang++");
    let mut command = cargo::cargo();
    command.args(["build", "--locked", "--package", PACKAGE, "--bin", PACKAGE, "--features", "libfuzzer"]);
    coverage::measure(&mut command)?;
    cargo::executable_of(&mut command, PACKAGE)
}

fn targets(fuzzer: &Path) -> Result<Vec<Target>> {
    let listed = process::output("the fuzzer", Command::new(fuzzer).env_remove(CHOICE))?;
    let target =
        |line: &str| line.split_once(' ').map(|(package, name)| (package.to_owned(), name.to_owned()));
    listed.lines().map(target).collect::<Option<_>>().context("the fuzzer lists no targets")
}

fn chosen(targets: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    let known: Vec<_> = targets.iter().map(|(_, name)| name.as_str()).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "there is no target {name}; there are {}", known.join(", "));
    }
    Ok(targets.into_iter().filter(|(_, name)| names.is_empty() || names.contains(name)).collect())
}

fn fuzz(fuzzer: &Path, (package, name): &Target, time: Duration) -> Result<Ended> {
    let root = cargo::workspace_root();
    let seeds = root.join("crates").join(package).join("corpus").join(name);
    let kept = root.join("target/fuzz").join(name);
    fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
    let mut command = Command::new(fuzzer);
    command.env(CHOICE, name).args([
        format!("-max_total_time={}", time.as_secs()),
        format!("-artifact_prefix={}/found-", seeds.display()),
        format!("-timeout={HANG_SECS}"),
        format!("-rss_limit_mb={MAX_RSS_MIB}"),
        "-print_final_stats=1".to_owned(),
    ]);
    command.args([&kept, &seeds]).stdout(Stdio::null()).stderr(Stdio::piped());
    Running::start(&format!("fuzzing {name}"), &mut command)?.wait(time + SILENCE)
}

/// The last number that libFuzzer's report has behind this word.
fn figure(report: &str, name: &str) -> String {
    let words: Vec<_> = report.split_whitespace().collect();
    let mut figures = words.windows(2).filter(|pair| pair[0] == name).filter_map(|pair| pair[1].parse().ok());
    units::count(figures.next_back().unwrap_or(0))
}

const PACKAGE: &str = "shiplane-fuzz";

/// What tells the fuzzer its target.
const CHOICE: &str = "SHIPLANE_FUZZ_TARGET";

/// Every input takes microseconds.
const HANG_SECS: u32 = 10;

/// An input has 4 KiB at first and rarely more: what takes this much memory takes a peer's word for a size.
const MAX_RSS_MIB: u32 = 512;

/// It ends by itself when its time is over.
const SILENCE: Duration = Duration::from_secs(600);

/// A panic and its backtrace.
const TAIL_LINES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood() {
        let report = "#2\tINITED cov: 33 ft: 34 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                      #511\tNEW    cov: 57 ft: 80 corp: 9/31b lim: 8 exec/s: 0 rss: 41Mb L: 4/4 MS: 1 ChangeByte-\n\
                      stat::number_of_executed_units: 123456\na line that says cov: nothing";
        assert_eq!(figure(report, "stat::number_of_executed_units:"), "123,456");
        assert_eq!(figure(report, "cov:"), "57");
    }

    #[test]
    fn a_target_that_is_not_there_is_not_skipped_in_silence() {
        let all = || {
            let target = |name: &str| ("p".to_owned(), name.to_owned());
            vec![target("a"), target("b")]
        };
        let names = |names: &[&str]| -> Result<Vec<String>> {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(chosen(all(), &names)?.into_iter().map(|(_, name)| name).collect())
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        assert!(names(&["b", "c"]).is_err());
    }
}
