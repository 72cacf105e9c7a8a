//! The programs that are compared: what each needs, how its server is started and its client run. Each carries one item, a
//! file or a directory, to another place.

mod servers;
mod ssh;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::driver::{ANY_PORT, Server, Shiplane, Verb};
use xtask::process::{Usage, find_program};

use self::servers::{Other, certificate};
use self::ssh::{HOST, Ssh};
use super::link::missing_tcp;
use super::report::Measured;
use super::workload::{Data, ITEM, RunPaths, Workload};
use super::{Conditions, LOOPBACK, RECEIVER, Row, SENDER};

/// A program that carries files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Shiplane(Way),
    Scp,
    RsyncSsh,
    /// Its daemon, over TCP BBR where there is a link.
    Rsync,
    /// The same over Cubic.
    RsyncCubic,
    CurlHttp,
    CurlHttps,
    Sendme,
    Qcp,
    /// `ssh HOST true`, which carries nothing: what ssh itself takes.
    Login,
}

/// How our own program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With all of it on the disk.
    Durable,
    /// With every chunk's digest matched.
    Verified,
    /// `sync`, whatever the row says.
    Sync,
    /// From a server that ssh starts.
    OverSsh,
    /// For a second receiver of what the same server has sent before.
    Second,
}

/// A program, as the tables call it.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) program: Program,
    shiplane: Option<Shiplane>,
}

/// What `--shiplane` takes: a program of ours and what the tables call it.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    label: Option<String>,
    path: PathBuf,
}

impl std::str::FromStr for Labelled {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('=') {
            Some((label, path)) => Self { label: Some(label.to_owned()), path: path.into() },
            None => Self { label: None, path: text.into() },
        })
    }
}

/// All programs, as far as they are installed.
pub(super) struct Programs {
    ours: Vec<Contender>,
    /// What the names of the other programs contain that are wanted; all if empty.
    only: Vec<String>,
    /// Where servers listen, and where their clients find them.
    listen: IpAddr,
    /// Or why there is none.
    ssh: Result<Ssh, String>,
    /// The directory of the certificate, for HTTPS.
    certificate: Result<PathBuf, String>,
}

/// What is carried, and between which directories.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    verb: Verb,
    /// Holds the item and nothing else.
    source: &'a Path,
    workload: Workload,
    paths: &'a RunPaths,
    /// Where the server is found.
    host: IpAddr,
    /// On a link, Mbit/s and milliseconds: qcp wants to be told.
    link: Option<(f64, f64)>,
    /// Whether a later run goes on behind what is there.
    pub(super) goes_on: bool,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        link: Option<Conditions>,
        verb: Verb,
        data: &'a Data,
        paths: &'a RunPaths,
    ) -> Result<Self> {
        let host = match (link, verb) {
            (None, _) => LOOPBACK,
            (Some(_), Verb::Get) => SENDER.parse()?,
            (Some(_), Verb::Push | Verb::Sync) => RECEIVER.parse()?,
        };
        let link = link.map(|link| (link.rate_mbit, link.rtt_ms));
        let (source, workload) = (&data.source, data.workload);
        Ok(Self { verb, source, workload, paths, host, link, goes_on: false })
    }
}

/// A server that listens. Killed when dropped.
pub(super) enum Serving {
    Ours(Server),
    Other(Other),
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shiplane(Way::Durable) => "durable",
            Self::Shiplane(Way::Verified) => "verified",
            Self::Shiplane(Way::Sync) => "sync",
            Self::Shiplane(Way::Second) => "second receiver",
            Self::Shiplane(Way::OverSsh) => "over ssh",
            Self::Scp => "scp",
            Self::RsyncSsh => "rsync over ssh",
            Self::Rsync => "rsync daemon",
            Self::RsyncCubic => "rsync daemon, Cubic",
            Self::CurlHttp => "curl, HTTP",
            Self::CurlHttps => "curl, HTTPS",
            Self::Sendme => "sendme",
            Self::Qcp => "qcp",
            Self::Login => "ssh login",
        }
    }

    /// What it checks of what arrives.
    fn checks(self) -> &'static str {
        match self {
            Self::Shiplane(_) => "each chunk",
            Self::RsyncSsh | Self::Rsync | Self::RsyncCubic => "xxHash or MD5",
            Self::Sendme => "BLAKE3",
            Self::Scp | Self::CurlHttp | Self::CurlHttps | Self::Qcp | Self::Login => "nothing",
        }
    }

    /// TCP's congestion control on a link, as the kernel calls it.
    pub(super) fn congestion_control(self) -> Option<&'static str> {
        match self {
            Self::RsyncCubic => Some("cubic"),
            Self::Shiplane(way) if way != Way::OverSsh => None,
            _ => Some("bbr"),
        }
    }

    /// IP, UDP or TCP and, for QUIC, its own headers in a packet of data.
    pub(super) fn header_bytes(self) -> u64 {
        if matches!(self, Self::Shiplane(_) | Self::Qcp) { 63 } else { 52 }
    }
}

impl Contender {
    /// Our own programs: those that are named, or else the one that is built here.
    pub(super) fn ours(named: &[Labelled]) -> Result<Vec<Self>> {
        let contender = |(number, one): (usize, &Labelled)| {
            let unnamed =
                || if number == 0 { "shiplane".to_owned() } else { format!("shiplane {}", number + 1) };
            let name = one.label.clone().unwrap_or_else(unnamed);
            Ok(Self::of(&name, Shiplane::built(Some(&one.path))?))
        };
        match named {
            [] => Ok(vec![Self::of("shiplane", Shiplane::built(None)?)]),
            named => named.iter().enumerate().map(contender).collect(),
        }
    }

    pub(super) fn of(name: &str, shiplane: Shiplane) -> Self {
        let program = Program::Shiplane(Way::Durable);
        Self { name: name.to_owned(), program, shiplane: Some(shiplane) }
    }

    #[cfg(test)]
    pub(super) fn for_tests(program: Program) -> Self {
        Self { name: "x".to_owned(), program, shiplane: None }
    }

    pub(super) fn is_ours(&self) -> bool {
        matches!(self.program, Program::Shiplane(_))
    }

    /// What it does in a row that says `verb`.
    pub(super) fn verb(&self, verb: Verb) -> Verb {
        if self.program == Program::Shiplane(Way::Sync) { Verb::Sync } else { verb }
    }

    /// As the name of a directory.
    pub(super) fn slug(&self) -> String {
        self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }
}

impl Programs {
    /// Looks for them, and makes keys and a certificate in `state` for servers that listen at one address and are found
    /// at another.
    pub(super) fn prepare(
        ours: Vec<Contender>,
        only: Vec<String>,
        state: &Path,
        listen: IpAddr,
        host: IpAddr,
    ) -> Result<Self> {
        let ssh = match Ssh::prepare(&state.join("ssh"), listen, host) {
            Ok(Some(ssh)) => Ok(ssh),
            Ok(None) => Err("install openssh-client and openssh-server".to_owned()),
            Err(failure) => Err(format!("{failure:#}")),
        };
        let certificate = certificate(state.join("certificate"), host)?;
        Ok(Self { ours, only, listen, ssh, certificate })
    }

    /// For those who run nothing but our own.
    pub(super) fn without_others() -> Self {
        let nothing = || "nobody asked for it".to_owned();
        let (ours, only, listen) = (Vec::new(), Vec::new(), LOOPBACK);
        Self { ours, only, listen, ssh: Err(nothing()), certificate: Err(nothing()) }
    }

    /// The programs that a row compares, as far as they are wanted and can run.
    pub(super) fn contenders(&self, row: &Row) -> Vec<Contender> {
        let ours = self.ours.iter().flat_map(|ours| {
            let programs = row.ways.iter().map(|way| Program::Shiplane(*way));
            let can_run = |program: &Program| self.missing(*program, row.link.is_some()).is_none();
            programs.filter(can_run).map(move |program| Contender {
                name: format!("{}, {}", ours.name, program.name()),
                program,
                ..ours.clone()
            })
        });
        ours.chain(self.others(row.others, row.link.is_some())).collect()
    }

    fn others<'a>(&'a self, others: &'a [Program], has_link: bool) -> impl Iterator<Item = Contender> + 'a {
        let can_run = move |one: &&Program| self.is_wanted(**one) && self.missing(**one, has_link).is_none();
        let other = |one: &Program| Contender { name: one.name().to_owned(), program: *one, shiplane: None };
        others.iter().filter(can_run).map(other)
    }

    /// Our own programs, and those of the others that are wanted and can run over a link.
    pub(super) fn ours_and(&self, others: &[Program]) -> Vec<Contender> {
        self.ours.iter().cloned().chain(self.others(others, true)).collect()
    }

    fn is_wanted(&self, program: Program) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| program.name().contains(only.as_str()))
    }

    /// Those of a row that are wanted and cannot run, and why.
    pub(super) fn all_missing(&self, row: &Row) -> Vec<String> {
        let wanted = row.others.iter().filter(|program| self.is_wanted(**program));
        let missing = |&program: &Program| {
            Some(format!("{}: {}", program.name(), self.missing(program, row.link.is_some())?))
        };
        wanted.filter_map(missing).collect()
    }

    fn missing(&self, program: Program, has_link: bool) -> Option<String> {
        let ssh = || self.ssh.as_ref().err().cloned();
        let needs = |name: &str, install: &str| find_program(name).is_none().then(|| install.to_owned());
        let tcp = program.congestion_control().filter(|_| has_link).and_then(missing_tcp);
        tcp.or_else(|| match program {
            Program::Shiplane(Way::OverSsh) | Program::Login => ssh(),
            Program::Shiplane(_) => None,
            Program::Scp => needs("scp", "install openssh-client").or_else(ssh),
            Program::RsyncSsh => needs("rsync", "install rsync").or_else(ssh),
            Program::Rsync | Program::RsyncCubic => needs("rsync", "install rsync"),
            Program::CurlHttp | Program::CurlHttps => self.certificate.as_ref().err().cloned(),
            Program::Sendme => needs("sendme", "`cargo install --locked sendme`"),
            Program::Qcp => needs("qcp", "`cargo install --locked qcp`").or_else(ssh),
        })
    }

    /// The programs that were measured, each with its version and what it checks, and those that are missing.
    pub(super) fn described(&self, row: &Row, measured: &[Measured]) -> String {
        let line = |one: &Measured| {
            let contender = one.contender.as_ref()?;
            let (version, checks) = (self.version(contender), contender.program.checks());
            Some(format!("- {}: {version}; it checks {checks}\n", contender.name))
        };
        let missing = self.all_missing(row).into_iter().map(|missing| format!("- missing: {missing}\n"));
        measured.iter().filter_map(line).chain(missing).collect()
    }

    /// As it calls itself.
    fn version(&self, contender: &Contender) -> String {
        let of =
            |name: &str, option| find_program(name).map_or_else(String::new, |path| version(&path, option));
        match contender.program {
            Program::Shiplane(_) => contender.shiplane.as_ref().map_or_else(String::new, |shiplane| {
                format!("{}, {}", version(shiplane.binary(), "--version"), shiplane.binary().display())
            }),
            Program::Scp | Program::Login => of("ssh", "-V"),
            Program::RsyncSsh => format!("{}, {}", of("rsync", "--version"), of("ssh", "-V")),
            Program::Rsync | Program::RsyncCubic => format!("{}, no encryption", of("rsync", "--version")),
            Program::CurlHttp | Program::CurlHttps => {
                format!("{}, {}", of("curl", "--version"), of("nginx", "-v"))
            }
            Program::Sendme => format!("{}, its import included", of("sendme", "--version")),
            Program::Qcp => format!("{}, packets of 1,452 bytes", of("qcp", "--version")),
        }
    }

    /// Starts the server, from the thread whose network it is to run in.
    pub(super) fn serve(&self, contender: &Contender, job: &Job<'_>) -> Result<Serving> {
        // On loopback nothing but a get is measured, and a sync of both sides of it.
        let is_source = job.verb == Verb::Get || job.link.is_none();
        let served = if is_source { job.source } else { &job.paths.destination };
        let is_over_ssh = contender.program == Program::Shiplane(Way::OverSsh);
        if let Some(shiplane) = contender.shiplane.as_ref().filter(|_| !is_over_ssh) {
            let listen = job.link.map_or(ANY_PORT, |_| "0.0.0.0:7514");
            let home = job.paths.home("server")?;
            return Ok(Serving::Ours(shiplane.serve_at(listen, served, &home, job.verb.access())?));
        }
        Ok(Serving::Other(match contender.program {
            Program::Rsync | Program::RsyncCubic => self.rsync_daemon(served, job)?,
            Program::CurlHttp => self.nginx(job, false)?,
            Program::CurlHttps => self.nginx(job, true)?,
            Program::Sendme => self.sendme_send(job)?,
            _ => Other::new(self.ssh()?.start()?, 0, true),
        }))
    }

    /// The client, not yet started. A later run continues what an earlier one left.
    pub(super) fn client(&self, contender: &Contender, serving: &Serving, job: &Job<'_>) -> Result<Command> {
        match (&contender.shiplane, serving) {
            (Some(shiplane), Serving::Ours(server)) => {
                let local = match job.verb {
                    Verb::Get => job.paths.destination.clone(),
                    Verb::Push => job.source.join(ITEM),
                    Verb::Sync if job.link.is_some() => job.source.to_path_buf(),
                    Verb::Sync => job.paths.destination.clone(),
                };
                let mut command =
                    shiplane.client(job.verb, &local, server.ticket(), &job.paths.home("client")?);
                command.arg(if job.link.is_some() { "--json" } else { "--quiet" });
                if matches!(contender.program, Program::Shiplane(Way::Verified | Way::Second)) {
                    command.args(["--durability", "verified"]);
                }
                command.args(matches!(job.workload, Workload::Edited(_)).then_some("--overwrite"));
                Ok(command)
            }
            (Some(shiplane), Serving::Other(_)) => {
                let ssh = self.ssh()?;
                let (program, config) = (ssh.program().display(), ssh.client_config());
                let (home, binary) = (job.paths.home("server")?, shiplane.binary().display());
                let there = format!("env SHIPLANE_HOME='{}' '{binary}'", home.display());
                let mut command = shiplane.command(&job.paths.home("client")?);
                command.args(["get", "--ssh", &format!("'{program}' -F '{}'", config.display())]);
                command.args(["--remote-path", &there]);
                command.arg(format!("{HOST}:{}", job.source.join(ITEM).display()));
                command.arg(job.paths.destination.join(ITEM));
                Ok(command)
            }
            (None, Serving::Other(other)) => self.other_client(contender.program, other, job),
            _ => bail!("{} has another's server", contender.name),
        }
    }

    fn other_client(&self, program: Program, serving: &Other, job: &Job<'_>) -> Result<Command> {
        let item = job.source.join(ITEM);
        let remote = format!("{HOST}:{}", item.display());
        let mut command = match program {
            Program::Scp => {
                let mut command = found("scp")?;
                command.args(["-q", "-B", "-r", "-F"]).arg(self.ssh()?.client_config()).arg(remote);
                command
            }
            Program::RsyncSsh => {
                let ssh = self.ssh()?;
                let shell = format!("'{}' -F '{}'", ssh.program().display(), ssh.client_config().display());
                let mut command = rsync(job)?;
                command.arg("-e").arg(shell).arg(remote);
                command
            }
            Program::Rsync | Program::RsyncCubic => {
                let module = format!("rsync://{}:{}/{MODULE}", job.host, serving.port);
                let mut command = rsync(job)?;
                if job.verb != Verb::Get {
                    command.arg(item).arg(module);
                    return Ok(command);
                }
                command.arg(format!("{module}/{ITEM}"));
                command
            }
            Program::CurlHttp => return curl("http", serving, job),
            Program::CurlHttps => {
                let mut command = curl("https", serving, job)?;
                command.args(["--tlsv1.3", "--tls13-ciphers", CIPHER, "--cacert"]);
                command.arg(self.certificate()?.join("certificate.pem"));
                return Ok(command);
            }
            Program::Sendme => {
                let mut command = sendme("receive")?;
                command.arg(&serving.ticket).current_dir(&job.paths.destination);
                return Ok(command);
            }
            Program::Qcp => {
                let (qcp, ssh) = (find_program("qcp").context("qcp is not installed")?, self.ssh()?);
                let (rate_mbit, rtt_ms) = job.link.unwrap_or((8000.0, 10.0));
                let (rate, rtt) = (format!("{}k", rate_mbit * 125.0), rtt_ms.to_string());
                let mut command = Command::new(&qcp);
                command.args(["--quiet", "-4", "--tx", &rate, "--rx", &rate, "--rtt", &rtt]);
                command.arg("--remote-qcp-binary").arg(&qcp).arg("--ssh").arg(ssh.program());
                // Its own reading of the file finds the host, ssh's reading does the rest.
                command.arg("--ssh-config").arg(ssh.client_config());
                command.args(["-S", "-F", "-S"]).arg(ssh.client_config());
                command.args((!job.workload.is_file()).then_some("-r")).arg(remote);
                command
            }
            Program::Login => {
                let ssh = self.ssh()?;
                let mut command = Command::new(ssh.program());
                command.arg("-F").arg(ssh.client_config()).args([HOST, "true"]);
                return Ok(command);
            }
            Program::Shiplane(_) => bail!("that is ours"),
        };
        command.arg(&job.paths.destination);
        Ok(command)
    }

    fn ssh(&self) -> Result<&Ssh> {
        self.ssh.as_ref().map_err(|reason| anyhow!("no ssh: {reason}"))
    }

    fn certificate(&self) -> Result<&Path> {
        self.certificate.as_deref().map_err(|reason| anyhow!("no HTTPS: {reason}"))
    }
}

impl Serving {
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Ours(server) => server.running().pid(),
            Self::Other(other) => other.running.pid(),
        }
    }

    /// What it had to do before it could serve.
    pub(super) fn import(&self) -> Duration {
        match self {
            Self::Ours(_) => Duration::ZERO,
            Self::Other(other) => other.import,
        }
    }

    /// The end of its log, if it has one.
    pub(super) fn said(&self) -> String {
        match self {
            Self::Ours(server) => format!("; the server: {}", server.running().said_until_now().join("\n")),
            Self::Other(_) => String::new(),
        }
    }

    /// Ends it, and says what it used.
    pub(super) fn stop(self) -> Result<Usage> {
        match self {
            Self::Ours(server) => Ok(server.stop()?.used),
            Self::Other(other) => other.stop(),
        }
    }
}

/// Whole files where nothing is there before.
fn rsync(job: &Job<'_>) -> Result<Command> {
    let mut command = found("rsync")?;
    command.arg("-a").args(match job.workload {
        _ if job.goes_on => Some("--append"),
        Workload::Edited(_) => None,
        Workload::File(_) | Workload::Tree(_) | Workload::Unchanged(_) => Some("-W"),
    });
    Ok(command)
}

fn curl(scheme: &str, serving: &Other, job: &Job<'_>) -> Result<Command> {
    let mut command = found("curl")?;
    command.args(["-q", "-sS", "--fail", "--noproxy", "*", "-C", "-", "-o"]);
    command.arg(job.paths.destination.join(ITEM));
    command.arg(format!("{scheme}://{}:{}/{ITEM}", job.host, serving.port));
    Ok(command)
}

/// No relays: both sides are here.
fn sendme(verb: &str) -> Result<Command> {
    let mut command = found("sendme")?;
    command.args([verb, "--relay", "disabled", "--magic-ipv4-addr", "127.0.0.1:0", "--no-progress"]);
    Ok(quiet(command))
}

fn found(program: &str) -> Result<Command> {
    find_program(program).map(Command::new).with_context(|| format!("{program} is not installed"))
}

/// The first line that a program prints with `option`, on whichever output.
fn version(program: &Path, option: &str) -> String {
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output();
    let Ok(output) = output else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    // What else it was built with is of no interest.
    line.split(['(', ',']).next().unwrap_or_default().trim().chars().take(60).collect()
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const MODULE: &str = "files";

/// What the other programs encrypt with, too.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// A server only reads its configuration and binds a socket, and ends at once when asked.
const START_LIMIT: Duration = Duration::from_secs(10);
