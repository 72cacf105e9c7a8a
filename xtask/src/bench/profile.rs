//! `cargo xtask bench profile`: profiles the CPU time of one large file with `perf`.

mod category;
mod flame;
mod stacks;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
#[cfg(target_os = "linux")]
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::category::Category;
use self::stacks::Sample;
use super::contenders::{Contender as _, Ours, VERIFIED, slug};
use super::workload::{Scenario, Workload};
use super::{Options, lay_one, report, scratch};
#[cfg(target_os = "linux")]
use crate::process::Running;
#[cfg(target_os = "linux")]
use crate::shiplane::RECORDED;
use crate::shiplane::Shiplane;
use crate::{cargo, process, units};

/// Measures and prints the table.
pub(super) fn run(options: &Options) -> Result<()> {
    let perf = process::find_program("perf").context(MISSING)?;
    process::find_program("setpriv").context("setpriv is not installed: it is in the package util-linux")?;
    let binary = options.shiplane.first().cloned().map_or_else(build, Ok)?;
    let shiplane = Shiplane::profiled(binary, perf.clone());
    let scratch = scratch(Scenario::File, options)?;
    let workload = lay_one(Scenario::File, options, &scratch)?;
    let mut ours = Ours::verified(&shiplane);
    let mut sides = SIDES.map(|_| Vec::new());
    options.rounds(|round| {
        let sample = ours.run(&workload)?;
        workload.judge(&slug(VERIFIED), round.is_warm_up())?;
        println!("  {round}  {}", units::seconds(sample.time));
        if !round.is_warm_up() {
            for (side, samples) in SIDES.iter().zip(&mut sides) {
                let state = workload.state(&format!("{}-{}", slug(VERIFIED), side.state))?;
                samples.extend(recorded(&perf, &Shiplane::profile_in(&state))?);
            }
        }
        Ok(())
    })?;
    let heading = heading(&workload, options.runs, &sides);
    let rows = rows(&sides, options.runs);
    println!("\n{heading}\n\n{}", units::table(&rows));
    match &options.docs {
        Some(docs) => write(docs, &heading, &rows, &sides),
        None => Ok(()),
    }
}

/// perf, looking at a program that was running already.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct SuspendDetector {
    perf: PathBuf,
    running: Running,
    data: PathBuf,
}

#[cfg(target_os = "linux")]
impl SuspendDetector {
    /// Begins. What perf sees is written into `directory`.
    pub(super) fn of(pid: u32, perf: &Path, directory: &Path) -> Result<Self> {
        let (perf, data) = (perf.to_owned(), Shiplane::profile_in(directory));
        let mut command = Command::new(&perf);
        command.args(["record", "--quiet"]).args(RECORDED).arg("--output").arg(&data);
        command.args(["--pid", &pid.to_string()]).stdin(Stdio::null());
        let mut running = Running::start("perf", &mut command)?;
        // It writes once it looks.
        while std::fs::metadata(&data).map_or(0, |metadata| metadata.len()) == 0 {
            crate::interrupt::check()?;
            if let Some(exit) = running.poll()? {
                bail!("perf ended with {}", exit.status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { perf, running, data })
    }

    /// How long the program, which has ended, was hashing.
    pub(super) fn hashed_s(self) -> Result<f64> {
        self.running.wait(PERF_END_LIMIT)?;
        let samples = recorded(&self.perf, &self.data)?;
        let hashing = [Category::Blake3, Category::Sha256];
        let hashing = samples.iter().filter(|sample| hashing.contains(&Category::of(&sample.frames)));
        Ok(hashing.map(|sample| sample.ns).sum::<u64>() as f64 / 1e9)
    }
}

/// One of the two programs.
struct Side {
    verb: &'static str,
    /// How its directory ends.
    state: &'static str,
}

const SIDES: [Side; 2] = [Side { verb: "serve", state: "server" }, Side { verb: "get", state: "receiver" }];

/// Apart from what everybody else runs: frame pointers cost a register.
fn build() -> Result<PathBuf> {
    println!("building shiplane with frame pointers, in a directory of its own");
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut command = cargo::cargo();
    command.args([
        "build",
        "--profile",
        "profiling",
        "--package",
        "shiplane-cli",
        "--bin",
        BINARY,
        "--target-dir",
    ]);
    command.arg(cargo::workspace_root().join("target/profile"));
    // This one would go before the other.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("RUSTFLAGS", format!("{given} -Cforce-frame-pointers=yes"));
    cargo::executable_of(&mut command, BINARY)
}

/// The samples of one program's run.
fn recorded(perf: &Path, data: &Path) -> Result<Vec<Sample>> {
    let mut command = Command::new(perf);
    command.args(["script", "--no-inline", "--fields", "period,ip,sym,dso", "--input"]).arg(data);
    // Of names that it cannot resolve it says much.
    let output = command.stdin(Stdio::null()).output().context("cannot run perf script")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("perf script ended with {}: {said}", output.status);
    }
    stacks::read(&String::from_utf8_lossy(&output.stdout))
}

/// The time of each category, by side.
fn rows(sides: &[Vec<Sample>; 2], runs: u32) -> Vec<Vec<String>> {
    let seconds = |samples: &[Sample], of: &dyn Fn(&Sample) -> bool| {
        let ns: u64 = samples.iter().filter(|sample| of(sample)).map(|sample| sample.ns).sum();
        ns as f64 / 1e9 / f64::from(runs)
    };
    let all: f64 = sides.iter().map(|side| seconds(side, &|_| true)).sum();
    let row = |name: &str, of: &dyn Fn(&Sample) -> bool| {
        let [serving, getting] = [&sides[0], &sides[1]].map(|side| seconds(side, of));
        let both = serving + getting;
        let cells = [serving, getting, both].map(|seconds| format!("{seconds:.2} s"));
        let share = format!("{:.0} %", 100.0 * both / all.max(f64::MIN_POSITIVE));
        [vec![name.to_owned()], cells.to_vec(), vec![share]].concat()
    };
    let mut rows = vec![["", "serve", "get", "both", "share"].map(str::to_owned).to_vec()];
    rows.extend(
        Category::ALL.iter().map(|category| {
            row(category.name(), &|sample: &Sample| Category::of(&sample.frames) == *category)
        }),
    );
    rows.push(row("all", &|_| true));
    rows
}

fn heading(workload: &Workload, runs: u32, sides: &[Vec<Sample>; 2]) -> String {
    let sees_kernel = sides.iter().flatten().any(|sample| sample.frames.iter().any(|frame| frame.is_kernel));
    let unseen = if sees_kernel { "" } else { " The kernel's part is not seen: that takes root." };
    format!(
        "Processor's time of `serve` and `get`, verified, for {} over loopback, start and end included: what perf has seen \
         999 times a second of all threads, means of {runs} runs. What an allocator or a library without a row takes counts \
         as its caller's.{unseen} {}",
        units::megabytes(workload.bytes),
        report::taken(workload),
    )
}

fn write(docs: &Path, heading: &str, rows: &[Vec<String>], sides: &[Vec<Sample>; 2]) -> Result<()> {
    let mut text = format!("# Where the processor's time goes\n\n{heading}\n\n{}", report::markdown(rows));
    for (side, samples) in SIDES.iter().zip(sides) {
        let file = format!("flame-{}.svg", side.verb);
        text.push_str(&format!("\n![flame graph of {}]({file})\n", side.verb));
        let title = format!("shiplane {}: functions above their callers, as wide as their time", side.verb);
        report::write(docs, &file, &flame::draw(&title, samples))?;
    }
    report::write(docs, "profile.md", &text)
}

const BINARY: &str = "shiplane";

/// It ends with the program, once it has written what it saw.
#[cfg(target_os = "linux")]
const PERF_END_LIMIT: Duration = Duration::from_secs(20);

const MISSING: &str = "perf is not installed: it is in the package linux-perf (Debian), linux-tools-generic (Ubuntu) \
                       or perf (Fedora, Arch)";

#[cfg(test)]
mod tests {
    use super::stacks::Frame;
    use super::*;

    #[test]
    fn times_are_means_of_all_runs() {
        let sample = |name: &str, ms: u64| Sample {
            ns: ms * 1_000_000,
            frames: vec![Frame { name: name.to_owned(), is_kernel: false }],
        };
        let sides = [vec![sample("sha256", 600)], vec![sample("sha256", 200), sample("memcpy", 1200)]];
        let rows = rows(&sides, 2);
        let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap()[1..].join("|");
        assert_eq!(row("SHA-256"), "0.30 s|0.10 s|0.40 s|40 %");
        assert_eq!(row("copies in memory"), "0.00 s|0.60 s|0.60 s|60 %");
        assert_eq!(row("all"), "0.30 s|0.70 s|1.00 s|100 %");
    }
}
