//! Raw quinn, memory to memory: what the transport could do at best.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Contender, Found, Sample, Tools, Used};
use crate::bench::course::Course;
use crate::cargo;
use crate::process::{Lines, Running};

pub(in crate::bench) const NAME: &str = "raw quinn";

/// The bench program.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Raw {
    binary: PathBuf,
    mtu: Option<u16>,
    name: &'static str,
    options: &'static [&'static str],
}

impl Raw {
    /// Builds it. The inner error says that the benches have no such program.
    pub(in crate::bench) fn build(mtu: Option<u16>) -> Result<Result<Self, String>> {
        if !cargo::has_binary(PACKAGE, BINARY)? {
            return Ok(Err(format!("{PACKAGE} has no binary `{BINARY}`")));
        }
        let binary = cargo::build_release(PACKAGE, BINARY)?;
        Ok(Ok(Self { binary, mtu, name: NAME, options: &[] }))
    }

    /// The same program with more to do.
    pub(in crate::bench) fn with(&self, name: &'static str, options: &'static [&'static str]) -> Self {
        Self { name, options, ..self.clone() }
    }

    /// Carries as many bytes once, and says how long and what it used.
    pub(in crate::bench) fn carry(&self, course: &Course) -> Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.arg("--mib").arg((course.bytes >> 20).to_string()).args(self.options);
        if let Some(mtu) = self.mtu {
            command.arg("--mtu").arg(mtu.to_string());
        }
        let before = course.wire.carried_bytes();
        let mut running = Running::start(BINARY, command.stdout(Stdio::piped()))?;
        let stdout = Lines::of(running.take_stdout().context("raw quinn has no standard output")?);
        let exit = running.wait(LIMIT)?.expect_success(BINARY)?;
        let after = course.wire.carried_bytes();
        let lines = stdout.rest();
        let (time, packet_bytes) = said(&lines).with_context(|| format!("it printed {lines:?}"))?;
        let wire_bytes = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Sample { time, used: Used::Together { used: exit.used, packet_bytes }, wire_bytes })
    }
}

/// It needs nothing but itself.
pub(super) fn find(tools: &Tools, _: &Course) -> Result<Found> {
    Ok(tools.raw.clone().map(|raw| Box::new(raw) as Box<dyn Contender>))
}

impl Contender for Raw {
    fn name(&self) -> &'static str {
        self.name
    }

    fn checks(&self) -> &'static str {
        "nothing"
    }

    fn version(&self) -> String {
        "quinn 0.11, memory to memory, no handshake, both sides in one process".to_owned()
    }

    fn run(&mut self, course: &Course) -> Result<Sample> {
        self.carry(course)
    }
}

/// The transfer's own time, for the program starts and ends around it, and its packets' size.
fn said(lines: &[String]) -> Result<(Duration, u64)> {
    let last = lines.last().context("raw quinn printed nothing")?;
    let said: Value = serde_json::from_str(last).context("raw quinn printed no JSON")?;
    let seconds = said["seconds"].as_f64().context("raw quinn named no `seconds`")?;
    let time = Duration::try_from_secs_f64(seconds).context("raw quinn's `seconds` is no time")?;
    Ok((time, said["mtu"].as_u64().context("raw quinn named no `mtu`")?))
}

const PACKAGE: &str = "shiplane-benches";
const BINARY: &str = "raw_quinn";

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_seconds_and_packets() {
        let line = r#"{"seconds":1.25,"bytes":7,"mtu":8952}"#;
        let lines = ["warming up".to_owned(), line.to_owned()];
        assert_eq!(said(&lines).unwrap(), (Duration::from_millis(1250), 8952));
    }

    #[test]
    fn anything_else_is_no_measurement() {
        for line in ["", "1.25", r#"{"mtu":7}"#, r#"{"seconds":1.0}"#, r#"{"seconds":-1.0,"mtu":7}"#] {
            assert!(said(&[line.to_owned()]).is_err(), "{line}");
        }
        assert!(said(&[]).is_err());
    }
}
