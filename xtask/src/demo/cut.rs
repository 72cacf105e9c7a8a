//! Kills a receiver during a transfer and resumes it.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::driver::{Server, Verb};
use xtask::process::Running;
use xtask::{tree, units};

use super::{Demo, RUN_LIMIT};

impl Demo<'_> {
    /// Kills one run, finishes it with another, compares. False if the tree is too small for that.
    pub(super) fn get_cut(&self, server: &Server) -> Result<bool> {
        let destination = self.scratch.path().join("cut copy");
        let Some(had_bytes) = self.get_until(server, &destination)? else { return Ok(false) };
        println!("  killed; the same command again, to resume");
        let had = format!("{} ({})", units::bytes(had_bytes), units::percent(had_bytes, self.survey.bytes));
        self.rows.borrow_mut().push(units::row(["killed, having", "", &had, "", "", ""]));
        let done = self.run("resumed", self.client(Verb::Get, &destination, server))?;
        ensure!(
            done.total_bytes == self.survey.bytes
                && done.received_bytes + done.resumed_bytes == self.survey.bytes,
            "{done:?} does not add up to the {} bytes of the tree",
            self.survey.bytes
        );
        ensure!(
            done.resumed_bytes >= had_bytes,
            "{had_bytes} bytes were shown as done, but only {} were made use of",
            done.resumed_bytes
        );
        self.expect_equal(&self.source, &destination)?;
        tree::remove(&destination)?;
        Ok(true)
    }

    /// Kills the receiver beyond 60 % and says how much it had said to have. `None` if it ended first.
    fn get_until(&self, server: &Server, destination: &Path) -> Result<Option<u64>> {
        let mut command = self.client(Verb::Get, destination, server);
        command.args(["--json", "--rate", &(self.survey.bytes / SECONDS).max(1).to_string()]);
        let running = Running::start("shiplane get", command.stdout(Stdio::piped()))?;
        while let Some(line) = running.next_line(RUN_LIMIT)? {
            let event: Value = serde_json::from_str(&line)?;
            let done_bytes = event["bytes_done"].as_u64().unwrap_or_default();
            if done_bytes > self.survey.bytes / 10 * 6 && event["phase"] == "receiving" {
                // Success here means that it ended between the event and the signal.
                return Ok((running.kill()?.code != Some(0)).then_some(done_bytes));
            }
        }
        running.wait(RUN_LIMIT)?.expect_success("shiplane get")?;
        tree::remove(destination)?;
        Ok(None)
    }
}

/// How long the run that is killed would take: events come four times a second.
const SECONDS: u64 = 2;
