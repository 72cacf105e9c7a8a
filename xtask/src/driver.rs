//! The one driver of the program under test: builds it, starts servers and clients, reads their events.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cargo;
use crate::process::{Ended, Running, Signal};

/// The built program.
#[derive(Clone, Debug)]
pub struct Shiplane {
    binary: PathBuf,
    address_space_bytes: Option<u64>,
}

/// A subcommand that moves files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `get`
    Get,
    /// `push`
    Push,
    /// `sync`
    Sync,
}

/// What may be done to what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Get.
    Read,
    /// Push and sync too.
    Write,
}

impl Shiplane {
    /// The one at `binary` if that is given, else builds it in release.
    pub fn built(binary: Option<&Path>) -> Result<Self> {
        if let Some(binary) = binary {
            let found = binary.canonicalize();
            return found.map(Self::at).with_context(|| format!("cannot find {}", binary.display()));
        }
        println!("building shiplane in release");
        cargo::build_release("shiplane-cli", "shiplane").map(Self::at)
    }

    /// Builds it for the demo, without what the demo does not run.
    pub fn build_for_demo() -> Result<Self> {
        let arguments = ["build", "--profile", "demo", "--no-default-features", "--package", "shiplane-cli"];
        cargo::executable_of(cargo::cargo().args(arguments), "shiplane").map(Self::at)
    }

    fn at(binary: PathBuf) -> Self {
        Self { binary, address_space_bytes: None }
    }

    /// Where it is.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The same, which may map no more than so much whenever it runs (RLIMIT_AS).
    pub fn within(&self, address_space_bytes: u64) -> Self {
        Self { address_space_bytes: Some(address_space_bytes), ..self.clone() }
    }

    /// `shiplane` with the directory `home` for its own, no arguments yet.
    pub fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(bytes) = self.address_space_bytes {
            // The shell becomes the program.
            command = Command::new("sh");
            let script = format!("ulimit -v {} && exec \"$0\" \"$@\"", bytes >> 10);
            command.args(["-c", &script]).arg(&self.binary);
        }
        command.env("SHIPLANE_HOME", home).env_remove("SHIPLANE_TICKET");
        command
    }

    /// `shiplane serve`, not yet started. `home` is its own directory.
    pub fn serve_command(&self, listen: &str, root: &Path, home: &Path, access: Access) -> Command {
        let mut command = self.command(home);
        command.arg("serve").arg(root).args(["--listen", listen]);
        command.args((access == Access::Write).then_some("--writable"));
        command
    }

    /// Serves `root` on loopback.
    pub fn serve(&self, root: &Path, home: &Path, access: Access) -> Result<Server> {
        Server::start(&mut self.serve_command(ANY_PORT, root, home, access))
    }

    /// A client, not yet started: `get TICKET LOCAL`, `push LOCAL TICKET` or `sync LOCAL TICKET`. `home` is its own
    /// directory.
    pub fn client(&self, verb: Verb, local: &Path, ticket: &str, home: &Path) -> Command {
        let mut command = self.command(home);
        command.arg(verb.to_string());
        match verb {
            Verb::Get => command.arg(ticket).arg(local),
            Verb::Push | Verb::Sync => command.arg(local).arg(ticket),
        };
        // A server that dies here is not started again for the same client.
        command.args(["--give-up-after", "0s"]).stdin(std::process::Stdio::null());
        command
    }
}

impl Verb {
    /// What the server of it must allow.
    pub fn access(self) -> Access {
        match self {
            Self::Get => Access::Read,
            Self::Push | Self::Sync => Access::Write,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// `shiplane serve`, listening. Killed when dropped; [`stop`](Self::stop) ends it in order.
pub struct Server {
    running: Running,
    ticket: String,
}

impl Server {
    /// Starts a `serve` command and waits for its ticket.
    pub fn start(command: &mut Command) -> Result<Self> {
        let running = Running::heard(SERVE, command)?;
        let ticket = running.next_line(START_LIMIT)?.unwrap_or_default();
        if !ticket.starts_with("shiplane://") {
            let ended = running.kill()?;
            bail!("the server's first line is no ticket: {ticket:?}; it said: {}", ended.said);
        }
        Ok(Self { running, ticket })
    }

    /// For everything that it serves.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// For what it has at `path` (SPEC 6.1).
    pub fn ticket_for(&self, path: &str) -> String {
        self.ticket.replacen("/#", &format!("/{path}#"), 1)
    }

    /// Its id and its address, as the ticket has them.
    pub fn id_and_address(&self) -> Result<(&str, &str)> {
        let parts = self.ticket.strip_prefix("shiplane://").and_then(|rest| rest.split_once('@'));
        let parts = parts.and_then(|(id, rest)| Some((id, rest.split_once('/')?.0)));
        parts.with_context(|| format!("the ticket names no server: {:?}", self.ticket))
    }

    /// The process.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Ctrl-C: it drains and ends with code 0, and its standard output held the ticket and nothing else.
    pub fn stop(self) -> Result<Ended> {
        let ended = self.running.stop(STOP_LIMIT)?.expect_success(SERVE)?;
        ensure!(ended.lines.is_empty(), "the server printed more than its ticket: {:?}", ended.lines);
        Ok(ended)
    }

    /// Ends it by a signal, whatever it is busy with.
    pub fn end_by(self, signal: Signal) -> Result<Ended> {
        self.running.signal(signal)?;
        self.running.wait(STOP_LIMIT)
    }

    /// A failure of the whole run, with what the server has to say about it.
    pub fn with_log(&self, failure: &anyhow::Error) -> anyhow::Error {
        let said = self.running.said_until_now();
        let shown = &said[said.len().saturating_sub(LOG_LINES)..];
        anyhow::anyhow!("{failure:#}\nthe server's log ends:\n  {}", shown.join("\n  "))
    }
}

/// What a finished `get`, `push` or `sync` says of itself. What does not apply is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Content of all files.
    pub total_bytes: u64,
    /// What of it crossed the network in this run, by direction.
    pub sent_bytes: u64,
    /// To this side.
    pub received_bytes: u64,
    /// What of it was there from a run before.
    pub resumed_bytes: u64,
    /// What a sync had to do, on both sides.
    pub actions: u64,
}

impl Done {
    /// Reads all events of one run, each of which must be one.
    pub fn of(lines: &[String]) -> Result<Self> {
        let mut done = Value::Null;
        for line in lines {
            done = serde_json::from_str(line).with_context(|| format!("this event is no JSON: {line:?}"))?;
        }
        ensure!(done["event"] == "done", "the last event is not `done` but {done}");
        let has_left = done["left_out"].as_u64().is_some_and(|left| left > 0);
        ensure!(done["durable"] != false && !has_left, "not durable, or something was left out: {done}");
        let number = |field: &str| done[field].as_u64().unwrap_or_default();
        Ok(Self {
            total_bytes: number("bytes_total"),
            sent_bytes: number("bytes_sent"),
            received_bytes: number("bytes_received"),
            resumed_bytes: number("bytes_resumed"),
            actions: number("actions"),
        })
    }

    /// What crossed the network, either way.
    pub fn moved_bytes(&self) -> u64 {
        self.sent_bytes + self.received_bytes
    }
}

/// What a failed run says at its end, as the last of its events.
pub fn last_error(lines: &[String]) -> Result<String> {
    let last = lines.last().map_or("", String::as_str);
    let event: Value =
        serde_json::from_str(last).with_context(|| format!("no event at the end: {last:?}"))?;
    ensure!(event["event"] == "error", "the last event is no error: {last}");
    Ok(event["message"].as_str().context("the error has no message")?.to_owned())
}

const SERVE: &str = "shiplane serve";

/// Of loopback, whichever is free.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// It only binds a socket; a cold disk and a busy machine are allowed for.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// Draining waits for running transfers, of which there are none by then.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Enough to see the cause.
const LOG_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn done(lines: &[&str]) -> Result<Done> {
        Done::of(&lines.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_event_tells_how_it_went() {
        let told = done(&[
            r#"{"event":"progress","bytes_done":5}"#,
            r#"{"event":"done","bytes_total":16,"bytes_received":7,"bytes_resumed":9,"seconds":0.5}"#,
        ]);
        let expected = Done { total_bytes: 16, received_bytes: 7, resumed_bytes: 9, ..Done::default() };
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn anything_less_than_a_durable_end_is_an_error() {
        for line in [
            r#"{"event":"progress"}"#,
            "done",
            r#"{"event":"done","durable":false}"#,
            r#"{"event":"done","left_out":1}"#,
        ] {
            assert!(done(&[line]).is_err(), "{line}");
        }
        assert!(done(&[]).is_err());
    }
}
