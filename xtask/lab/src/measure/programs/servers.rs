//! The servers of the programs that others have written: their keys, their configuration (the files in this directory), a
//! free port, and nothing of the system's but the directory that sshd insists on.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::driver::{ANY_PORT, Verb};
use xtask::interrupt;
use xtask::process::{self, Running, Signal, Usage, find_program};

use super::{Contender, ITEM, Job, Program, Workload, found};

/// Keys of ssh and a certificate for HTTPS, as far as the programs for them are installed.
pub(in super::super) struct Keys {
    directory: PathBuf,
    listen: IpAddr,
}

/// A server that listens. Killed when dropped.
pub(in super::super) struct Serving {
    program: Program,
    pub(in super::super) running: Running,
    /// What a client must know of it.
    pub(super) port: u16,
    pub(super) ticket: String,
    /// How long it took until it could serve, if that counts.
    pub(in super::super) import: Duration,
}

/// What the names in braces of commands and configurations stand for.
pub(super) struct Names(Vec<(&'static str, String)>);

impl Names {
    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    /// The words of a command, of which those that come out empty are left out.
    pub(super) fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace().map(|word| self.fill(word)).filter(|word| !word.is_empty()).collect()
    }
}

impl Keys {
    /// For servers that listen at one address and are found at another.
    pub(super) fn make(directory: PathBuf, listen: IpAddr, host: IpAddr) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let keys = Self { directory, listen };
        if let Some(keygen) = find_program("ssh-keygen") {
            for key in ["host", "user"] {
                let mut command = Command::new(&keygen);
                command.args(["-q", "-t", "ed25519", "-N", "", "-f", key]).current_dir(&keys.directory);
                process::run("ssh-keygen", command.stdin(Stdio::null()))?;
            }
            let known = format!("{HOST} {}", fs::read_to_string(keys.directory.join("host.pub"))?);
            fs::write(keys.directory.join("known_hosts"), known)?;
            // As root, sshd does not start without it. The system's own service makes it.
            if is_root() {
                fs::create_dir_all("/run/sshd").context("cannot make what sshd needs")?;
            }
        }
        if let Some(openssl) = find_program("openssl") {
            let mut command = Command::new(openssl);
            command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
            command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]);
            command.arg(format!("subjectAltName=IP:{host}")).current_dir(&keys.directory);
            command.args(["-keyout", "certificate.key", "-out", "certificate.pem"]);
            process::run("openssl", command.stdin(Stdio::null()).stderr(Stdio::null()))?;
        }
        Ok(keys)
    }

    pub(super) fn names(
        &self,
        contender: &Contender,
        job: &Job<'_>,
        port: u16,
        ticket: &str,
    ) -> Result<Names> {
        let shown = |path: &Path| path.display().to_string();
        let [ssh, qcp] = ["ssh", "qcp"].map(|name| find_program(name).unwrap_or_default());
        let (ssh_config, item) = (job.paths.state.join("ssh_config"), job.source.join(ITEM));
        let module = format!("rsync://{}:{port}/files", job.host);
        let (from, to) = match job.verb {
            Verb::Get => (format!("{module}/{ITEM}"), shown(&job.paths.destination)),
            Verb::Push | Verb::Sync => (shown(&item), module),
        };
        let whole = match job.workload {
            _ if job.goes_on => "--append",
            Workload::Edited(_) => "",
            Workload::File(_) | Workload::Tree(_) | Workload::Unchanged(_) => "-W",
        };
        let (rate_mbit, rtt_ms) = job.link.map_or((8000.0, 10.0), |link| (link.rate_mbit, link.rtt_ms));
        let home = job.paths.home("server")?;
        let binary = contender.shiplane.as_ref().map(|shiplane| shown(shiplane.binary())).unwrap_or_default();
        Ok(Names(vec![
            ("listen", self.listen.to_string()),
            ("host", job.host.to_string()),
            ("port", port.to_string()),
            ("ticket", ticket.to_owned()),
            ("keys", shown(&self.directory)),
            ("state", shown(&job.paths.state)),
            ("source", shown(job.source)),
            ("served", shown(job.served())),
            ("copy", shown(&job.paths.destination.join(ITEM))),
            ("destination", shown(&job.paths.destination)),
            ("remote", format!("{HOST}:{}", item.display())),
            ("item", shown(&item)),
            ("name", ITEM.to_owned()),
            ("from", from),
            ("to", to),
            ("shell", format!("'{}' -F '{}'", ssh.display(), ssh_config.display())),
            ("there", format!("env SHIPLANE_HOME='{}' '{binary}'", home.display())),
            ("ssh", shown(&ssh)),
            ("ssh_config", shown(&ssh_config)),
            ("qcp", shown(&qcp)),
            ("whole", whole.to_owned()),
            ("recursive", if job.workload.is_file() { "" } else { "-r" }.to_owned()),
            ("rate", format!("{}k", rate_mbit * 125.0)),
            ("rtt", rtt_ms.to_string()),
            ("ssl", if contender.program == Program::CURL_HTTPS { " ssl" } else { "" }.to_owned()),
            // Without these rsync gives up root for the user `nobody`, which may not enter our directory.
            ("user", if is_root() { "uid = root\ngid = root" } else { "" }.to_owned()),
        ]))
    }

    /// Starts the server that a contender's client needs, and waits until it can serve.
    pub(in super::super) fn serve(&self, contender: &Contender, job: &Job<'_>) -> Result<Serving> {
        let (program, port) = (contender.program, free_port(self.listen)?);
        let names = self.names(contender, job, port, "")?;
        for (name, text) in CONFIGURATIONS {
            fs::write(job.paths.state.join(name), names.fill(text))?;
        }
        let listen = job.link.map_or(ANY_PORT, |_| "0.0.0.0:7514");
        let mut command = if let Some(shiplane) = contender.serves() {
            shiplane.serve_command(listen, job.served(), &job.paths.home("server")?, job.verb.access())
        } else {
            let words = names.words(program.row()[3]);
            let mut command = found(&words[0])?;
            command.args(&words[1..]).current_dir(&job.paths.state);
            command
        };
        let started = Instant::now();
        let running = Running::heard(&format!("the server of {}", contender.name), &mut command)?;
        let mut serving = Serving { program, running, port, ticket: String::new(), import: Duration::ZERO };
        let line = |begin| rest_of_line(begin, || serving.running.next_line(IMPORT_LIMIT));
        match program {
            Program::RSYNC | Program::RSYNC_CUBIC | Program::CURL_HTTP | Program::CURL_HTTPS => {
                serving.await_port(self.listen)?;
            }
            // It hashes before it serves, so its import counts.
            Program::SENDME => {
                serving.ticket = line("sendme receive ")?;
                serving.import = started.elapsed();
            }
            program if program.is_served_by_us() => serving.ticket = format!("{TICKET}{}", line(TICKET)?),
            _ => drop(rest_of_line("Server listening on", || serving.running.next_said(START_LIMIT))?),
        }
        Ok(serving)
    }
}

impl Serving {
    fn await_port(&self, listen: IpAddr) -> Result<()> {
        let local = if listen.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen };
        let started = Instant::now();
        while TcpStream::connect((local, self.port)).is_err() {
            interrupt::check()?;
            ensure!(!self.running.has_ended()?, "{} has ended", self.program.0);
            ensure!(started.elapsed() < START_LIMIT, "{} does not listen", self.program.0);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// One that forks has reaped by then what served: only then does what that used count as its own.
    pub(in super::super) fn stop(self) -> Result<Usage> {
        let (pid, started) = (self.running.pid(), Instant::now());
        let children = format!("/proc/{pid}/task/{pid}/children");
        // nginx has its worker as long as it lives.
        let is_busy = || fs::read_to_string(&children).is_ok_and(|children| !children.trim().is_empty());
        let is_single = self.program.is_served_by_us() || self.program == Program::SENDME;
        let is_forking = !(is_single || matches!(self.program, Program::CURL_HTTP | Program::CURL_HTTPS));
        while is_forking && is_busy() && started.elapsed() < START_LIMIT {
            interrupt::check()?;
            std::thread::sleep(LOOK);
        }
        self.running.signal(if is_single { Signal::Interrupt } else { Signal::Terminate })?;
        let ended = self.running.wait(START_LIMIT)?;
        let is_checked = self.program.is_served_by_us();
        Ok(if is_checked { ended.expect_success("shiplane serve")? } else { ended }.used)
    }
}

/// What stands behind `begin` in the first line that begins so.
fn rest_of_line(begin: &str, mut next: impl FnMut() -> Result<Option<String>>) -> Result<String> {
    while let Some(line) = next()? {
        if let Some(rest) = line.strip_prefix(begin) {
            return Ok(rest.trim().to_owned());
        }
    }
    bail!("the server never said `{begin}`")
}

/// A port that is free now. It is given back before the server takes it: a race, but only against programs that ask
/// for it by number.
fn free_port(listen: IpAddr) -> Result<u16> {
    Ok(TcpListener::bind((listen, 0)).context("no free port")?.local_addr()?.port())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How our tickets begin.
const TICKET: &str = "shiplane://";

/// What ssh calls the server.
const HOST: &str = "shiplane-bench";

const CONFIGURATIONS: [(&str, &str); 4] = [
    ("nginx.conf", include_str!("nginx.conf")),
    ("rsyncd.conf", include_str!("rsyncd.conf")),
    ("ssh_config", include_str!("ssh_config")),
    ("sshd_config", include_str!("sshd_config")),
];

/// A server only reads its configuration and binds a socket, and ends soon when asked.
const START_LIMIT: Duration = Duration::from_secs(40);

/// It hashes everything before.
const IMPORT_LIMIT: Duration = Duration::from_secs(120);

const LOOK: Duration = Duration::from_millis(1);
