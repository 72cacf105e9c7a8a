//! Builds and runs the lab, `xtask/lab`: the long programmes, which need more than the checks of every day.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use xtask::cargo;
use xtask::process::{Running, Signal};

/// How a programme ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    Passed,
    /// It has said what this machine lacks.
    Skipped,
}

/// Runs a programme with its arguments. It is built as `cargo test --workspace` builds it, so that nothing is left to
/// build after that.
pub(crate) fn run(arguments: &[String]) -> Result<Ran> {
    if !is_programme(arguments) {
        bail!("no such task: {}; see cargo xtask --help", arguments.join(" "));
    }
    let mut command = cargo::cargo();
    command.args(["test", "--workspace", "--locked", "--no-run", "--test", TEST]);
    let mut command = Command::new(cargo::executable_of(&mut command, "lab")?);
    let name = format!("lab {}", arguments.join(" "));
    let running = Running::start(&name, command.args(arguments))?;
    if let Err(interrupted) = running.ends_within(Duration::MAX) {
        // It has servers to end and files to remove.
        running.signal(Signal::Terminate)?;
        while !running.has_ended()? {
            std::thread::sleep(LOOK);
        }
        return Err(interrupted);
    }
    match running.wait(Duration::ZERO)?.code {
        Some(0) => Ok(Ran::Passed),
        Some(SKIPPED) => Ok(Ran::Skipped),
        code => bail!("{name} ended with {code:?}"),
    }
}

/// Whether the first argument names a programme.
pub(crate) fn is_programme(arguments: &[String]) -> bool {
    let mut names = HELP.lines().filter_map(|line| line.trim().split(' ').next()).skip(1);
    arguments.first().is_some_and(|argument| names.any(|name| name == argument))
}

pub(crate) const HELP: &str = "\
Programmes of the lab (Linux; `cargo xtask NAME --help` describes each):
  sim    Run the whole stack in virtual time, over a network and a disk with faults from a seed
  crash  Kill receivers at every file-changing call and at random, fail disks, cut the power; then resume
  races  Swap links that lead outside into directories while files arrive
  load   Overload a server with many, stalled, flooding and lying peers
  soak   Keep a server busy and kill clients; check that its resource use stays flat
  wan    Compare with rsync, scp, curl and qcp over emulated wide-area links
  bench  Compare with scp, rsync, curl, sendme and qcp on loopback, or calls with bare quinn and tarpc";

/// An integration test of the package, whose build brings the program.
const TEST: &str = "seeds";

const LOOK: Duration = Duration::from_millis(50);

/// What the lab exits with where a programme cannot run.
const SKIPPED: i32 = 77;
