//! Raw quinn, memory to memory, both sides in one process: the lowest layers of the ladder.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Contender, Sample, Used};
use crate::bench::workload::Workload;
use crate::cargo;
use crate::process::{Lines, Running};

/// The bench program.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Raw {
    binary: PathBuf,
    name: &'static str,
    options: &'static [&'static str],
}

impl Raw {
    pub(in crate::bench) fn build() -> Result<Self> {
        let binary = cargo::build_release("shiplane-benches", BINARY)?;
        Ok(Self { binary, name: BINARY, options: &[] })
    }

    /// The same program with more to do.
    pub(in crate::bench) fn with(&self, name: &'static str, options: &'static [&'static str]) -> Self {
        Self { name, options, ..self.clone() }
    }
}

impl Contender for Raw {
    fn name(&self) -> &str {
        self.name
    }

    fn checks(&self) -> &'static str {
        "nothing"
    }

    fn version(&self) -> String {
        "quinn 0.11".to_owned()
    }

    /// The time is that of the transfer alone, without the start and the end of the program.
    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.arg("--mib").arg((workload.bytes >> 20).to_string()).args(self.options);
        let before = workload.wire.carried_bytes();
        let mut running = Running::start(BINARY, command.stdout(Stdio::piped()))?;
        let stdout = Lines::of(running.take_stdout().context("raw quinn has no standard output")?);
        let exit = running.wait(LIMIT)?.expect_success(BINARY)?;
        let after = workload.wire.carried_bytes();
        let lines = stdout.rest();
        let time = measured(&lines).with_context(|| format!("it printed {lines:?}"))?;
        let wire_bytes = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Sample { time, used: Used::Together(exit.used), wire_bytes })
    }
}

/// The time that the last line names.
fn measured(lines: &[String]) -> Result<Duration> {
    let last = lines.last().context("raw quinn printed nothing")?;
    let said: Value = serde_json::from_str(last).context("raw quinn printed no JSON")?;
    let seconds = said["seconds"].as_f64().context("raw quinn named no `seconds`")?;
    Duration::try_from_secs_f64(seconds).context("raw quinn's `seconds` is no time")
}

const BINARY: &str = "raw_quinn";

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_the_seconds() {
        let line = r#"{"seconds":1.25,"bytes":7,"mtu":8952}"#;
        let lines = ["warming up".to_owned(), line.to_owned()];
        assert_eq!(measured(&lines).unwrap(), Duration::from_millis(1250));
    }

    #[test]
    fn anything_else_is_no_measurement() {
        for line in ["", "1.25", r#"{"mtu":7}"#, r#"{"seconds":-1.0,"mtu":7}"#] {
            assert!(measured(&[line.to_owned()]).is_err(), "{line}");
        }
        assert!(measured(&[]).is_err());
    }
}
