//! Runs the peers that overload the server, in a process of their own: this program again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use xtask::driver::Server;
use xtask::process::Running;

use crate::peers::{Kind, name_of};

/// Peers of a kind, not yet started: they end when their standard input does.
pub(super) fn command(kind: Kind) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command
        .args(["peers", &name_of(kind)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(command)
}

/// Peers with keys that `server` knows.
pub(crate) fn command_to(kind: Kind, count: u64, server: &Server, keys: &Path) -> Result<Command> {
    let (id, address) = server.id_and_address()?;
    let mut command = command(kind)?;
    command.args(["--server", address, "--id", id, "--count", &count.to_string()]).arg("--keys").arg(keys);
    Ok(command)
}

/// A running load. Killed when dropped.
pub(super) struct PeerProcess {
    running: Running,
    told: Vec<String>,
}

impl PeerProcess {
    /// Starts it and waits until all peers are connected.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let running = Running::start(PEERS, command)?;
        let Some(ready) = running.next_line(READY_LIMIT)? else { bail!("the peers do not start") };
        Ok(Self { running, told: vec![ready] })
    }

    /// What it said when it was ready.
    pub(super) fn ready(&self) -> &str {
        &self.told[0]
    }

    /// Whether it has something to say before it is ended.
    pub(super) fn says_something_within(&mut self, limit: Duration) -> Result<bool> {
        let line = self.running.next_line(limit)?;
        let says = line.is_some();
        self.told.extend(line);
        Ok(says)
    }

    /// Ends it and returns its report.
    pub(super) fn stop(self) -> Result<String> {
        let Self { mut running, mut told } = self;
        running.close_stdin();
        told.extend(running.wait(END_LIMIT)?.expect_success(PEERS)?.lines);
        Ok(told.join(", "))
    }
}

const PEERS: &str = "the peers";

/// Ten thousand handshakes that are not answered take their time.
const READY_LIMIT: Duration = Duration::from_secs(180);

const END_LIMIT: Duration = Duration::from_secs(30);
