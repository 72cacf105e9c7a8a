//! Our lane alone, memory to memory, in two processes: one layer of the ladder.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Contender, START_LIMIT, Sample, apart};
use crate::bench::workload::Workload;
use crate::cargo;
use crate::process::{Lines, Running};

/// The bench program.
#[derive(Debug)]
pub(in crate::bench) struct Lane {
    binary: PathBuf,
    name: &'static str,
}

impl Lane {
    /// Builds it; the tables call it `name`.
    pub(in crate::bench) fn build(name: &'static str) -> Result<Self> {
        Ok(Self { binary: cargo::build_release("shiplane-benches", BINARY)?, name })
    }
}

impl Contender for Lane {
    fn name(&self) -> &str {
        self.name
    }

    fn checks(&self) -> &'static str {
        "each chunk"
    }

    fn version(&self) -> String {
        format!("shiplane-transport {}", env!("CARGO_PKG_VERSION"))
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.args(["receive", "--bind", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut receiver = Running::start(BINARY, &mut command)?;
        let stdout = Lines::of(receiver.take_stdout().context("the lane has no standard output")?);
        let address = stdout.next_within(START_LIMIT)?.context("the lane named no address")?;
        let mut command = Command::new(&self.binary);
        command.arg("send").arg(address).arg("--mib").arg((workload.bytes >> 20).to_string());
        // As `get` has them.
        command.args(["--streams", "32", "--chunk-kib", "512"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let before = workload.wire.carried_bytes();
        let mut sender = Running::start(BINARY, &mut command)?;
        let stdout = Lines::of(sender.take_stdout().context("the lane has no standard output")?);
        let sender = sender.wait(LIMIT)?.expect_success(BINARY)?;
        let after = workload.wire.carried_bytes();
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
