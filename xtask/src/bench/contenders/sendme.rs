//! sendme, of iroh. It hashes before it serves, so its import counts.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Contender, Found, START_LIMIT, Sample, Tools, slug, version_line};
use crate::bench::workload::Workload;
use crate::process::{Lines, Running, Signal};

pub(super) const NAME: &str = "sendme";

#[derive(Debug)]
pub(super) struct Sendme {
    sendme: PathBuf,
    directory: PathBuf,
}

impl Sendme {
    pub(super) fn find(tools: &Tools, workload: &Workload) -> Result<Found> {
        let Some(sendme) = tools.find("sendme") else {
            return Ok(Err("`cargo install --locked sendme`".to_owned()));
        };
        Ok(Ok(Box::new(Self { sendme, directory: workload.state("sendme")? })))
    }

    /// Imports, and says the ticket.
    fn start(&self, workload: &Workload) -> Result<(Running, Lines, String)> {
        let mut command = self.command("send");
        command.args(["--ticket-type", "addresses"]).arg(&workload.item).current_dir(&self.directory);
        let mut running = Running::start(NAME, command.stdout(Stdio::piped()))?;
        let said = Lines::of(running.take_stdout().context("sendme has no standard output")?);
        while let Some(line) = said.next_within(IMPORT_LIMIT)? {
            if let Some(ticket) = line.strip_prefix("sendme receive ") {
                return Ok((running, said, ticket.trim().to_owned()));
            }
        }
        bail!("sendme printed no ticket")
    }

    /// No relays: both sides are here.
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.sendme);
        command.args([verb, "--relay", "disabled", "--magic-ipv4-addr", "127.0.0.1:0", "--no-progress"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Contender for Sendme {
    fn name(&self) -> &str {
        NAME
    }

    fn checks(&self) -> &'static str {
        "BLAKE3"
    }

    fn version(&self) -> String {
        format!("{}, its import included", version_line(&self.sendme, "--version"))
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(NAME))?;
        let started = Instant::now();
        let (server, _said, ticket) = self.start(workload)?;
        let import = started.elapsed();
        let mut command = self.command("receive");
        let received = workload.carry(NAME, command.arg(ticket).current_dir(destination))?;
        server.signal(Signal::Interrupt)?;
        let sender = server.wait(START_LIMIT)?;
        let sample = received.served_by(sender);
        Ok(Sample { time: import + sample.time, ..sample })
    }
}

/// It hashes everything before.
const IMPORT_LIMIT: Duration = Duration::from_secs(120);
