//! The programs that are compared: what each needs, how its server is started and its client run. Each carries one item, a
//! file or a directory, to another place.

mod servers;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::driver::{ANY_PORT, Server, Shiplane, Verb};
use xtask::process::{Usage, find_program};

use self::servers::{Keys, Other};
use super::link::missing_tcp;
use super::report::Measured;
use super::workload::{Data, ITEM, RunPaths, Workload};
use super::{Conditions, LOOPBACK, RECEIVER, Row, SENDER};

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
        let label = text.split_once('=').map(|(label, _)| label.to_owned());
        let path = text.split_once('=').map_or(text, |(_, path)| path).into();
        Ok(Self { label, path })
    }
}

/// All programs, as far as they are installed.
pub(super) struct Programs {
    ours: Vec<Contender>,
    /// What the names of the other programs contain that are wanted; all if empty.
    only: Vec<String>,
    /// None if only our own are run.
    keys: Option<Keys>,
}

/// What is carried, and between which directories.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    verb: Verb,
    /// Holds the item and nothing else.
    source: &'a Path,
    workload: Workload,
    paths: &'a RunPaths,
    host: IpAddr,
    link: Option<Conditions>,
    /// Whether a later run goes on behind what is there.
    pub(super) goes_on: bool,
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

    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Shiplane(Way::OverSsh) | Self::Login => &["ssh", "sshd", "ssh-keygen"],
            Self::Shiplane(_) => &[],
            Self::Scp => &["scp", "ssh", "sshd", "ssh-keygen"],
            Self::RsyncSsh => &["rsync", "ssh", "sshd", "ssh-keygen"],
            Self::Rsync | Self::RsyncCubic => &["rsync"],
            Self::CurlHttp | Self::CurlHttps => &["curl", "nginx", "openssl"],
            Self::Sendme => &["sendme"],
            Self::Qcp => &["qcp", "ssh", "sshd", "ssh-keygen"],
        }
    }

    /// The programs whose versions count, and what else a reader must know.
    fn described(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Shiplane(_) => (&[], "it checks each chunk"),
            Self::Scp | Self::Login => (&["ssh"], "it checks nothing"),
            Self::RsyncSsh => (&["rsync", "ssh"], "it checks xxHash or MD5"),
            Self::Rsync | Self::RsyncCubic => (&["rsync"], "no encryption; it checks xxHash or MD5"),
            Self::CurlHttp | Self::CurlHttps => (&["curl", "nginx"], "it checks nothing"),
            Self::Sendme => (&["sendme"], "its import included; it checks BLAKE3"),
            Self::Qcp => (&["qcp"], "packets of 1,452 bytes; it checks nothing"),
        }
    }

    /// The client as it is typed, with names in braces for what differs between jobs; what comes out empty is left out.
    fn client(self) -> &'static str {
        match self {
            Self::Shiplane(_) => "shiplane get --ssh {shell} --remote-path {there} {remote} {copy}",
            Self::Scp => "scp -q -B -r -F {ssh_config} {remote} {destination}",
            Self::RsyncSsh => "rsync -a {whole} -e {shell} {remote} {destination}",
            Self::Rsync | Self::RsyncCubic => "rsync -a {whole} {from} {to}",
            Self::CurlHttp => "curl -q -sS --fail --noproxy * -C - -o {copy} http://{host}:{port}/{name}",
            Self::CurlHttps => {
                "curl -q -sS --fail --noproxy * -C - -o {copy} https://{host}:{port}/{name} --tlsv1.3 \
                 --tls13-ciphers TLS_AES_128_GCM_SHA256 --cacert {keys}/certificate.pem"
            }
            // No relays: both sides are here.
            Self::Sendme => {
                "sendme receive --relay disabled --magic-ipv4-addr 127.0.0.1:0 --no-progress {ticket}"
            }
            // Its own reading of the file finds the host, ssh's reading does the rest.
            Self::Qcp => {
                "qcp --quiet -4 --tx {rate} --rx {rate} --rtt {rtt} --remote-qcp-binary {qcp} --ssh {ssh} \
                 --ssh-config {ssh_config} -S -F -S {ssh_config} {recursive} {remote} {destination}"
            }
            Self::Login => "ssh -F {ssh_config} shiplane-bench true",
        }
    }

    /// The server, likewise; an sshd for all that travels over ssh.
    fn server(self) -> &'static str {
        match self {
            Self::Rsync | Self::RsyncCubic => "rsync --daemon --no-detach --config {state}/rsyncd.conf",
            Self::CurlHttp | Self::CurlHttps => "nginx -e stderr -p {state} -c {state}/nginx.conf",
            Self::Sendme => {
                "sendme send --relay disabled --magic-ipv4-addr 127.0.0.1:0 --no-progress --ticket-type addresses \
                 {item}"
            }
            // In the foreground, logging to standard error.
            Self::Shiplane(_) | Self::Scp | Self::RsyncSsh | Self::Qcp | Self::Login => {
                "sshd -D -e -f {state}/sshd_config"
            }
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
        if named.is_empty() {
            return Ok(vec![Self::of("shiplane", Shiplane::built(None)?)]);
        }
        let contender = |(number, one): (usize, &Labelled)| {
            let unnamed = match number {
                0 => "shiplane".to_owned(),
                _ => format!("shiplane {}", number + 1),
            };
            Ok(Self::of(&one.label.clone().unwrap_or(unnamed), Shiplane::built(Some(&one.path))?))
        };
        named.iter().enumerate().map(contender).collect()
    }

    pub(super) fn of(name: &str, shiplane: Shiplane) -> Self {
        let program = Program::Shiplane(Way::Durable);
        Self { name: name.to_owned(), program, shiplane: Some(shiplane) }
    }

    pub(super) fn other(program: Program) -> Self {
        Self { name: program.name().to_owned(), program, shiplane: None }
    }

    pub(super) fn is_ours(&self) -> bool {
        matches!(self.program, Program::Shiplane(_))
    }

    /// What it does in a row that says `verb`.
    pub(super) fn verb(&self, verb: Verb) -> Verb {
        if self.program == Program::Shiplane(Way::Sync) { Verb::Sync } else { verb }
    }

    pub(super) fn slug(&self) -> String {
        self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }

    fn version(&self) -> String {
        if let Some(shiplane) = &self.shiplane {
            return format!("{}, {}", version(shiplane.binary()), shiplane.binary().display());
        }
        let tools = self.program.described().0.iter().filter_map(|tool| find_program(tool));
        tools.map(|tool| version(&tool)).collect::<Vec<_>>().join(", ")
    }
}

impl Programs {
    /// Makes keys in `state` for servers that listen at one address and are found at another.
    pub(super) fn prepare(
        ours: Vec<Contender>,
        only: Vec<String>,
        state: &Path,
        listen: IpAddr,
        host: IpAddr,
    ) -> Result<Self> {
        Ok(Self { ours, only, keys: Some(Keys::make(state.join("keys"), listen, host)?) })
    }

    /// For those who run nothing but our own.
    pub(super) fn without_others() -> Self {
        Self { ours: Vec::new(), only: Vec::new(), keys: None }
    }

    /// The programs that a row compares, as far as they are wanted and can run.
    pub(super) fn contenders(&self, row: &Row) -> Vec<Contender> {
        let ours = self.ours.iter().flat_map(|ours| {
            let programs = row.ways.iter().map(|way| Program::Shiplane(*way));
            let can_run = |program: &Program| missing(*program, row.link.is_some()).is_none();
            programs.filter(can_run).map(move |program| Contender {
                name: format!("{}, {}", ours.name, program.name()),
                program,
                ..ours.clone()
            })
        });
        ours.chain(self.others(row.others, row.link.is_some())).collect()
    }

    /// Our own programs, and those of the others that are wanted and can run over a link.
    pub(super) fn ours_and(&self, others: &[Program]) -> Vec<Contender> {
        self.ours.iter().cloned().chain(self.others(others, true)).collect()
    }

    fn others<'a>(&'a self, others: &'a [Program], has_link: bool) -> impl Iterator<Item = Contender> + 'a {
        let can_run = move |one: &&Program| missing(**one, has_link).is_none();
        others.iter().filter(|one| self.is_wanted(**one)).filter(can_run).map(|one| Contender::other(*one))
    }

    fn is_wanted(&self, program: Program) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| program.name().contains(only.as_str()))
    }

    /// The programs that were measured, each with its version and what it checks, and those that are missing.
    pub(super) fn described(&self, row: &Row, measured: &[Measured]) -> String {
        let contenders = measured.iter().filter_map(|one| one.contender.as_ref());
        let lines = contenders
            .map(|one| format!("- {}: {}; {}\n", one.name, one.version(), one.program.described().1));
        let missing = row.others.iter().filter(|program| self.is_wanted(**program)).filter_map(|program| {
            let why = missing(*program, row.link.is_some())?;
            Some(format!("- missing: {}: {why}\n", program.name()))
        });
        lines.chain(missing).collect()
    }

    /// Starts the server, from the thread whose network it is to run in.
    pub(super) fn serve(&self, contender: &Contender, job: &Job<'_>) -> Result<Serving> {
        let is_over_ssh = contender.program == Program::Shiplane(Way::OverSsh);
        if let Some(shiplane) = contender.shiplane.as_ref().filter(|_| !is_over_ssh) {
            let listen = job.link.map_or(ANY_PORT, |_| "0.0.0.0:7514");
            let home = job.paths.home("server")?;
            return Ok(Serving::Ours(shiplane.serve_at(listen, job.served(), &home, job.verb.access())?));
        }
        Ok(Serving::Other(self.keys()?.serve(contender, job)?))
    }

    /// The client, not yet started. A later run continues what an earlier one left.
    pub(super) fn client(&self, contender: &Contender, serving: &Serving, job: &Job<'_>) -> Result<Command> {
        let other = match serving {
            Serving::Ours(server) => return our_client(contender, server, job),
            Serving::Other(other) => other,
        };
        let names = self.keys()?.names(contender, job, other.port, &other.ticket)?;
        let words = names.words(contender.program.client());
        let mut command = match &contender.shiplane {
            Some(shiplane) => shiplane.command(&job.paths.home("client")?),
            None => found(&words[0])?,
        };
        command.args(&words[1..]).current_dir(&job.paths.destination);
        Ok(command)
    }

    fn keys(&self) -> Result<&Keys> {
        self.keys.as_ref().context("only our own program was asked for")
    }
}

fn our_client(contender: &Contender, server: &Server, job: &Job<'_>) -> Result<Command> {
    let shiplane = contender.shiplane.as_ref().context("a client of ours without a program")?;
    let local = match job.verb {
        Verb::Get => job.paths.destination.clone(),
        Verb::Push => job.source.join(ITEM),
        Verb::Sync if job.link.is_some() => job.source.to_path_buf(),
        Verb::Sync => job.paths.destination.clone(),
    };
    let mut command = shiplane.client(job.verb, &local, server.ticket(), &job.paths.home("client")?);
    command.arg(if job.link.is_some() { "--json" } else { "--quiet" });
    if matches!(contender.program, Program::Shiplane(Way::Verified | Way::Second)) {
        command.args(["--durability", "verified"]);
    }
    command.args(matches!(job.workload, Workload::Edited(_)).then_some("--overwrite"));
    Ok(command)
}

fn missing(program: Program, has_link: bool) -> Option<String> {
    let tcp = program.congestion_control().filter(|_| has_link).and_then(missing_tcp);
    let absent = || program.needs().iter().find(|name| find_program(name).is_none());
    tcp.or_else(|| absent().map(|name| format!("{name} is not installed")))
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
        let (source, workload) = (&data.source, data.workload);
        Ok(Self { verb, source, workload, paths, host, link, goes_on: false })
    }

    /// On loopback nothing but a get is measured, and a sync of both sides of it.
    fn served(&self) -> &Path {
        let is_source = self.verb == Verb::Get || self.link.is_none();
        if is_source { self.source } else { &self.paths.destination }
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

    pub(super) fn stop(self) -> Result<Usage> {
        match self {
            Self::Ours(server) => Ok(server.stop()?.used),
            Self::Other(other) => other.stop(),
        }
    }
}

fn found(program: &str) -> Result<Command> {
    find_program(program).map(Command::new).with_context(|| format!("{program} is not installed"))
}

/// The first line that a program prints when asked, on whichever output.
fn version(program: &Path) -> String {
    let option = match program.file_name().and_then(|name| name.to_str()) {
        Some("ssh") => "-V",
        Some("nginx") => "-v",
        _ => "--version",
    };
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output();
    let Ok(output) = output else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    // What else it was built with is of no interest.
    line.split(['(', ',']).next().unwrap_or_default().trim().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_before_the_path() {
        let parsed = |text: &str| text.parse::<Labelled>().map(|one| (one.label, one.path)).unwrap();
        assert_eq!(parsed("old=/a/b"), (Some("old".to_owned()), "/a/b".into()));
        assert_eq!(parsed("/a/b"), (None, "/a/b".into()));
    }
}
