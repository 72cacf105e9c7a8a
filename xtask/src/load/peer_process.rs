//! Runs the peers that overload the server, in a process of their own.

use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo;
use crate::process::{Lines, Running};
use crate::shiplane::Server;

/// The built program.
#[derive(Clone, Debug)]
pub(crate) struct Program(PathBuf);

impl Program {
    /// The one at `program`.
    pub(crate) fn built(program: &Path) -> Result<Self> {
        Ok(Self(program.canonicalize().with_context(|| format!("cannot find {}", program.display()))?))
    }

    /// As the tests build it: it is the server that is measured.
    pub(crate) fn build() -> Result<Self> {
        let mut command = cargo::cargo();
        command.args(["build", "--package", PACKAGE]);
        Ok(Self(cargo::executable_of(&mut command, PACKAGE)?))
    }

    /// The one that `cargo test --workspace` has built, with the features that the tests want: nothing is left to
    /// build after it.
    pub(crate) fn as_tested() -> Result<Self> {
        let mut command = cargo::cargo();
        command
            .args(["test", "--workspace", "--locked", "--no-run", "--test", "keys"])
            .stderr(Stdio::inherit());
        Ok(Self(cargo::executable_of(&mut command, PACKAGE)?))
    }

    /// The program, no arguments yet.
    pub(super) fn command(&self) -> Command {
        Command::new(&self.0)
    }

    /// Calls of a peer with a key, not yet started: it ends when it has made them.
    pub(crate) fn calls(&self, server: &Server, keys: &Path) -> Result<Command> {
        let (id, address) = server.id_and_address()?;
        let mut command = Command::new(&self.0);
        command.args(["streams", "--server", address, "--count", "1000", "--id", id]).arg("--keys").arg(keys);
        Ok(command)
    }

    /// Makes keys that the server with this state will know; those that are there already stay.
    pub(crate) fn make_keys(&self, state: &Path, keys: &Path, count: usize) -> Result<()> {
        let mut command = Command::new(&self.0);
        command.arg("keys").arg("--home").arg(state).arg("--keys").arg(keys);
        command.args(["--count", &count.to_string()]);
        Running::start(PACKAGE, &mut command)?.wait(END_LIMIT)?.expect_success(PACKAGE)?;
        Ok(())
    }
}

/// A running load. Killed when dropped.
#[derive(Debug)]
pub(crate) struct PeerProcess {
    running: Running,
    stdout: Lines,
    /// It runs until this is closed.
    stdin: ChildStdin,
    told: Vec<String>,
}

impl PeerProcess {
    /// Starts it and waits until all peers are connected.
    pub(crate) fn start(
        program: &Program,
        kind: &str,
        count: u64,
        server: &Server,
        keys: &Path,
        options: &[&str],
    ) -> Result<Self> {
        let (id, address) = server.id_and_address()?;
        let mut command = program.command();
        command.args([kind, "--server", address, "--count", &count.to_string()]).args(options);
        if !NAMELESS.contains(&kind) {
            command.args(["--id", id]).arg("--keys").arg(keys);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::start(PACKAGE, &mut command)?;
        let stdin = running.take_stdin().context("the load has no standard input")?;
        let stdout = Lines::of(running.take_stdout().context("the load has no standard output")?);
        let ready = stdout.next_within(READY_LIMIT)?;
        let Some(ready) = ready else { bail!("the load `{kind}` did not start") };
        Ok(Self { running, stdout, stdin, told: figures(&ready)? })
    }

    /// Whether it has something to say before it is ended.
    pub(super) fn says_something_within(&mut self, limit: Duration) -> Result<bool> {
        let line = self.stdout.next_within(limit)?;
        self.told.extend(line.as_deref().map(figures).transpose()?.unwrap_or_default());
        Ok(line.is_some())
    }

    /// Stops it and returns its report.
    pub(crate) fn stop(self) -> Result<String> {
        let Self { running, stdout, stdin, mut told } = self;
        drop(stdin);
        running.wait(END_LIMIT)?.expect_success(PACKAGE)?;
        for line in stdout.rest() {
            told.extend(figures(&line)?);
        }
        Ok(told.join(", "))
    }
}

/// The figures of a line, in words.
fn figures(line: &str) -> Result<Vec<String>> {
    let value: Value = serde_json::from_str(line).context("the load printed no JSON")?;
    let figures = value.as_object().context("the load printed no figures")?.iter();
    let figures = figures.filter(|(name, _)| *name != "event");
    Ok(figures.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect())
}

const PACKAGE: &str = "shiplane-load";

/// Those that need no key.
const NAMELESS: [&str; 3] = ["half-open", "spoofed", "garbage"];

/// Ten thousand handshakes that are not answered take their time.
const READY_LIMIT: Duration = Duration::from_secs(180);

const END_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_words() {
        let line = r#"{"event":"ready","connections":3,"sequential_ms":7}"#;
        assert_eq!(figures(line).unwrap(), ["connections 3", "sequential ms 7"]);
        assert!(figures("ready").is_err());
    }
}
