//! Our lane alone, memory to memory, two processes: a rung of the ladder.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Contender, START_LIMIT, Sample, apart};
use crate::bench::course::Course;
use crate::cargo;
use crate::process::{Lines, Running};

/// The bench program.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Lane {
    binary: PathBuf,
    name: &'static str,
    options: &'static [&'static str],
}

impl Lane {
    pub(in crate::bench) fn build() -> Result<Self> {
        let binary = cargo::build_release("shiplane-benches", BINARY)?;
        Ok(Self { binary, name: BINARY, options: &[] })
    }

    /// The same program under another name, with options for both sides.
    pub(in crate::bench) fn with(&self, name: &'static str, options: &'static [&'static str]) -> Self {
        Self { name, options, ..self.clone() }
    }
}

impl Contender for Lane {
    fn name(&self) -> &'static str {
        self.name
    }

    fn checks(&self) -> &'static str {
        "SHA-256"
    }

    fn version(&self) -> String {
        format!("shiplane-transport {}", env!("CARGO_PKG_VERSION"))
    }

    fn run(&mut self, course: &Course) -> Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.args(["receive", "--bind", "127.0.0.1:0"]).args(self.options);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut receiver = Running::start(BINARY, &mut command)?;
        let stdout = Lines::of(receiver.take_stdout().context("the lane has no standard output")?);
        let address = stdout.next_within(START_LIMIT)?.context("the lane named no address")?;
        let mut command = Command::new(&self.binary);
        command.arg("send").arg(address).arg("--mib").arg((course.bytes >> 20).to_string());
        // As `get` has them.
        command.args(["--streams", "32", "--chunk-kib", "512"]).args(self.options);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let before = course.wire.carried_bytes();
        let mut sender = Running::start(BINARY, &mut command)?;
        let stdout = Lines::of(sender.take_stdout().context("the lane has no standard output")?);
        let sender = sender.wait(LIMIT)?.expect_success(BINARY)?;
        let after = course.wire.carried_bytes();
        let said: Value =
            serde_json::from_str(&stdout.rest().concat()).context("the lane printed no JSON")?;
        let seconds = said["seconds"].as_f64().context("the lane named no `seconds`")?;
        let receiver = receiver.wait(START_LIMIT)?.expect_success(BINARY)?;
        let wire_bytes = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Sample { time: Duration::try_from_secs_f64(seconds)?, used: apart(sender, receiver), wire_bytes })
    }
}

const BINARY: &str = "lane_flow";

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(600);
