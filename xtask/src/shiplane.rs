//! Drives the program under test by its command line, as a script would.

mod events;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::events::{Outcome, Pushed, Synced};
use crate::cargo;
use crate::process::{Exit, Lines, Running, Signal};

/// The built binary.
#[derive(Clone, Debug)]
pub(crate) struct Shiplane {
    binary: PathBuf,
    /// What watches it.
    perf: Option<PathBuf>,
    /// What it may map at most.
    address_space_bytes: Option<u64>,
}

impl Shiplane {
    /// Builds it in release.
    pub(crate) fn build() -> Result<Self> {
        cargo::build_release("shiplane-cli", "shiplane").map(Self::at)
    }

    /// Builds it for the demo.
    pub(crate) fn build_for_demo() -> Result<Self> {
        cargo::build_for_demo().map(Self::at)
    }

    /// The one at `binary` if that is given, else builds it in release.
    pub(crate) fn built(binary: Option<&Path>) -> Result<Self> {
        let Some(binary) = binary else {
            println!("building shiplane in release");
            return Self::build();
        };
        let binary = binary.canonicalize().with_context(|| format!("cannot find {}", binary.display()))?;
        Ok(Self::at(binary))
    }

    fn at(binary: PathBuf) -> Self {
        Self { binary, perf: None, address_space_bytes: None }
    }

    /// Where it is.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The one at `binary`, sampled by `perf` whenever it runs.
    pub(crate) fn profiled(binary: PathBuf, perf: PathBuf) -> Self {
        Self { binary, perf: Some(perf), address_space_bytes: None }
    }

    /// The same, which may map no more than so much whenever it runs (RLIMIT_AS).
    #[cfg(target_os = "linux")]
    pub(crate) fn within(self, address_space_bytes: u64) -> Self {
        Self { address_space_bytes: Some(address_space_bytes), ..self }
    }

    /// Where perf leaves what it saw of a program whose own directory is `state`.
    pub(crate) fn profile_in(state: &Path) -> PathBuf {
        state.join("perf.data")
    }

    /// Serves `directory` on loopback, for reading. `state` is a directory for its identity and its log.
    pub(crate) fn serve(&self, directory: &Path, state: &Path) -> Result<Server> {
        self.serve_at(ANY_PORT, directory, state, false)
    }

    /// As [`serve`](Self::serve), for writing too.
    pub(crate) fn serve_writable(&self, directory: &Path, state: &Path) -> Result<Server> {
        self.serve_at(ANY_PORT, directory, state, true)
    }

    /// As [`serve`](Self::serve), at an address of this machine.
    pub(crate) fn serve_at(
        &self,
        listen: &str,
        directory: &Path,
        state: &Path,
        is_writable: bool,
    ) -> Result<Server> {
        let log = state.join("serve.log");
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.command(state);
        command.arg("serve").arg(directory).args(["--listen", listen]);
        command.args(is_writable.then_some("--writable"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut running = Running::start("shiplane serve", &mut command)?;
        let stdout = Lines::of(running.take_stdout().context("the server has no standard output")?);
        let first = stdout.next_within(START_LIMIT)?;
        let is_sampled = self.perf.is_some();
        let server = Server { running, is_sampled, stdout, log, ticket: first.unwrap_or_default() };
        if !server.ticket.starts_with("shiplane://") {
            let said = format!("the server's first line is no ticket: {:?}", server.ticket);
            return Err(server.with_log(&said));
        }
        Ok(server)
    }

    /// A subcommand on what the server has at `path`, not yet started: `get TICKET local`, or `push` and `sync` the
    /// other way round. `state` is the client's own directory.
    #[cfg(target_os = "linux")]
    pub(crate) fn client(
        &self,
        verb: &str,
        server: &Server,
        path: &str,
        local: &Path,
        state: &Path,
    ) -> Command {
        let mut command = self.command(state);
        // A ticket names what it is for behind the address (SPEC 6.1).
        let ticket = server.ticket.replacen("/#", &format!("/{path}#"), 1);
        command.arg(verb).stdin(Stdio::null());
        match verb {
            "get" => command.arg(ticket).arg(local),
            _ => command.arg(local).arg(ticket),
        };
        command
    }

    /// `shiplane get TICKET DEST`, not yet started. `state` is the receiver's own directory.
    pub(crate) fn get(&self, server: &Server, destination: &Path, state: &Path) -> Command {
        let mut command = self.command(state);
        command.arg("get").arg(&server.ticket).arg(destination);
        command.stdin(Stdio::null());
        command
    }

    /// `shiplane push SOURCE TICKET`, not yet started. `state` is the sender's own directory.
    pub(crate) fn push(&self, source: &Path, server: &Server, state: &Path) -> Command {
        self.with_local("push", source, server, state)
    }

    /// `shiplane sync DIRECTORY TICKET`, not yet started. `state` is this side's own directory.
    pub(crate) fn sync(&self, directory: &Path, server: &Server, state: &Path) -> Command {
        self.with_local("sync", directory, server, state)
    }

    fn with_local(&self, verb: &str, path: &Path, server: &Server, state: &Path) -> Command {
        let mut command = self.command(state);
        command.arg(verb).arg(path).arg(&server.ticket).stdin(Stdio::null());
        command
    }

    /// `shiplane` with the directory `state` for its own, no arguments yet.
    pub(crate) fn command(&self, state: &Path) -> Command {
        let mut command = match (&self.perf, self.address_space_bytes) {
            (Some(perf), _) => sampled(perf, &Self::profile_in(state), &self.binary),
            (None, Some(bytes)) => limited(bytes, &self.binary),
            (None, None) => Command::new(&self.binary),
        };
        command.env("SHIPLANE_HOME", state).env_remove("SHIPLANE_TICKET");
        command
    }
}

/// `binary` beneath perf. Should perf be killed, the program is too.
fn sampled(perf: &Path, data: &Path, binary: &Path) -> Command {
    let mut command = Command::new(perf);
    command.args(["record", "--quiet"]).args(RECORDED).arg("--output").arg(data);
    command.args(["--", "setpriv", "--pdeathsig", "KILL"]).arg(binary);
    command
}

/// `binary`, limited by the shell that becomes it.
fn limited(address_space_bytes: u64, binary: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -v {} && exec \"$0\" \"$@\"", address_space_bytes >> 10);
    command.args(["-c", &script]).arg(binary);
    command
}

/// Ctrl-C for what perf runs: perf itself would end that without mercy.
#[cfg(unix)]
fn interrupt_sampled(perf_pid: u32) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};

    let children = fs::read_to_string(format!("/proc/{perf_pid}/task/{perf_pid}/children"))
        .context("cannot ask what perf runs")?;
    let child = children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    kill_process(child.context("perf runs nothing")?, Signal::INT).context("cannot signal what perf runs")
}

#[cfg(not(unix))]
fn interrupt_sampled(_perf_pid: u32) -> Result<()> {
    bail!("there is no perf here")
}

/// `shiplane serve`, listening. Killed when dropped; [`stop`](Self::stop) ends it in order.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    /// Then `running` is perf.
    is_sampled: bool,
    stdout: Lines,
    log: PathBuf,
    ticket: String,
}

impl Server {
    /// Ctrl-C: it drains and ends with code 0, and its standard output held the ticket and nothing
    /// else; anything else is an error that shows its log.
    pub(crate) fn stop(self) -> Result<Exit> {
        let Self { running, is_sampled, stdout, log, ticket: _ } = self;
        match is_sampled {
            true => interrupt_sampled(running.pid())?,
            false => running.signal(Signal::Interrupt)?,
        }
        let ended = running.wait(STOP_LIMIT).and_then(|exit| exit.expect_success("shiplane serve"));
        let exit = ended.map_err(|failure| with_log(&format!("{failure:#}"), &log))?;
        let more = stdout.rest();
        if !more.is_empty() {
            bail!("the server printed more than its ticket: {more:?}");
        }
        Ok(exit)
    }

    /// Ends it as if by accident, or in order, whatever it is busy with.
    #[cfg(target_os = "linux")]
    pub(crate) fn end_by(&mut self, signal: Signal) -> Result<()> {
        self.running.signal(signal)?;
        self.running.expect_end(STOP_LIMIT)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it has used of the processor until now.
    #[cfg(target_os = "linux")]
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        crate::process_stats::cpu_time(self.running.pid())
    }

    /// What the kernel says of it.
    #[cfg(target_os = "linux")]
    pub(crate) fn process_stats(&self) -> Result<crate::process_stats::ProcessStats> {
        crate::process_stats::ProcessStats::of(self.running.pid())
    }

    /// Its id and its address, as the ticket has them.
    #[cfg(target_os = "linux")]
    pub(crate) fn id_and_address(&self) -> Result<(&str, &str)> {
        let parts = self.ticket.strip_prefix("shiplane://").and_then(|rest| rest.split_once('@'));
        let parts = parts.and_then(|(id, rest)| Some((id, rest.split_once('/')?.0)));
        parts.with_context(|| format!("the ticket names no server: {:?}", self.ticket))
    }

    /// A failure of the whole run, with what the server has to say about it.
    pub(crate) fn with_log(&self, failure: &str) -> anyhow::Error {
        with_log(failure, &self.log)
    }
}

fn with_log(failure: &str, log: &Path) -> anyhow::Error {
    anyhow::anyhow!("{failure}\n{}", log_text(log))
}

fn log_text(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
    match shown {
        [] => "the server logged nothing".to_owned(),
        _ => format!("the server's log ends:\n  {}", shown.join("\n  ")),
    }
}

/// What perf is to record: samples by the clock, which every machine has, often enough to tell per cents.
pub(crate) const RECORDED: [&str; 6] = ["--event", "cpu-clock", "--freq", "999", "--call-graph", "fp"];

/// Of loopback, whichever is free.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// It only binds a socket; a cold disk and a busy machine are allowed for.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(20);

/// Draining waits for running transfers, of which there are none by then.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Enough to see the cause.
const LOG_LINES: usize = 20;
