//! The programs that are compared: what each needs, how its server is started and its client run. Each carries one item, a
//! file or a directory, to another place.

mod servers;

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use xtask::driver::{Shiplane, Verb};
use xtask::process::find_program;

use self::servers::Keys;
pub(super) use self::servers::Serving;
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

/// All programs, as far as they are installed.
pub(super) struct Programs {
    ours: Vec<Contender>,
    /// What the names of the other programs contain that are wanted; all if empty.
    only: Vec<String>,
    keys: Keys,
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

impl Program {
    /// As the tables call it; the client and the server as they are typed, with names in braces for what differs between
    /// jobs, where what comes out empty is left out; what a reader must know.
    fn row(self) -> [&'static str; 4] {
        let ours = |name| {
            let client = "shiplane get --ssh {shell} --remote-path {there} {remote} {copy}";
            [name, client, SSHD, "it checks each chunk"]
        };
        match self {
            Self::Shiplane(Way::Durable) => ours("durable"),
            Self::Shiplane(Way::Verified) => ours("verified"),
            Self::Shiplane(Way::Sync) => ours("sync"),
            Self::Shiplane(Way::Second) => ours("second receiver"),
            Self::Shiplane(Way::OverSsh) => ours("over ssh"),
            Self::Scp => {
                ["scp", "scp -q -B -r -F {ssh_config} {remote} {destination}", SSHD, "it checks nothing"]
            }
            Self::RsyncSsh => [
                "rsync over ssh",
                "rsync -a {whole} -e {shell} {remote} {destination}",
                SSHD,
                "it checks xxHash or MD5",
            ],
            Self::Rsync => ["rsync daemon", RSYNC, RSYNCD, "no encryption; it checks xxHash or MD5"],
            Self::RsyncCubic => ["rsync daemon, Cubic", RSYNC, RSYNCD, Self::Rsync.row()[3]],
            Self::CurlHttp => [
                "curl, HTTP",
                "curl -q -sS --fail --noproxy * -C - -o {copy} http://{host}:{port}/{name}",
                NGINX,
                "it checks nothing",
            ],
            Self::CurlHttps => [
                "curl, HTTPS",
                "curl -q -sS --fail --noproxy * -C - -o {copy} https://{host}:{port}/{name} --tlsv1.3 \
                 --tls13-ciphers TLS_AES_128_GCM_SHA256 --cacert {keys}/certificate.pem",
                NGINX,
                "it checks nothing",
            ],
            // No relays: both sides are here.
            Self::Sendme => [
                "sendme",
                "sendme receive --relay disabled --magic-ipv4-addr 127.0.0.1:0 --no-progress {ticket}",
                "sendme send --relay disabled --magic-ipv4-addr 127.0.0.1:0 --no-progress --ticket-type addresses \
                 {item}",
                "its import included; it checks BLAKE3",
            ],
            // Its own reading of the file finds the host, ssh's reading does the rest.
            Self::Qcp => [
                "qcp",
                "qcp --quiet -4 --tx {rate} --rx {rate} --rtt {rtt} --remote-qcp-binary {qcp} --ssh {ssh} \
                 --ssh-config {ssh_config} -S -F -S {ssh_config} {recursive} {remote} {destination}",
                SSHD,
                "packets of 1,452 bytes; it checks nothing",
            ],
            Self::Login => {
                ["ssh login", "ssh -F {ssh_config} shiplane-bench true", SSHD, "it checks nothing"]
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.row()[0]
    }

    /// The programs of others that it needs.
    fn tools(self) -> Vec<&'static str> {
        let [_, client, server, _] = self.row();
        let mut tools: Vec<_> = [client, server].iter().filter_map(|line| line.split(' ').next()).collect();
        tools.extend((self == Self::CurlHttps).then_some("openssl"));
        tools.retain(|tool| *tool != "shiplane");
        tools.dedup();
        if self.is_served_by_us() { Vec::new() } else { tools }
    }

    /// Whether our program is the server as well.
    fn is_served_by_us(self) -> bool {
        matches!(self, Self::Shiplane(way) if way != Way::OverSsh)
    }

    /// TCP's congestion control on a link, as the kernel calls it.
    pub(super) fn congestion_control(self) -> Option<&'static str> {
        match self {
            Self::RsyncCubic => Some("cubic"),
            _ if self.is_served_by_us() => None,
            _ => Some("bbr"),
        }
    }

    /// IP, UDP or TCP and, for QUIC, its own headers in a packet of data.
    pub(super) fn header_bytes(self) -> u64 {
        if matches!(self, Self::Shiplane(_) | Self::Qcp) { 63 } else { 52 }
    }
}

impl Contender {
    /// Our own programs: those at `[LABEL=]PATH`, or else the one that is built here.
    pub(super) fn ours(named: &[String]) -> Result<Vec<Self>> {
        if named.is_empty() {
            return Ok(vec![Self::of("shiplane", Shiplane::built(None)?)]);
        }
        let contender = |one: &String| {
            let (label, path) = one.split_once('=').unwrap_or(("shiplane", one));
            Ok(Self::of(label, Shiplane::built(Some(Path::new(path)))?))
        };
        named.iter().map(contender).collect()
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

    /// Our program, where it is the server as well.
    fn serves(&self) -> Option<&Shiplane> {
        self.shiplane.as_ref().filter(|_| self.program.is_served_by_us())
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
        // scp does not tell, and sshd is of the same version.
        let tools = self.program.tools().into_iter().filter(|tool| *tool != "scp").filter_map(find_program);
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
        Ok(Self { ours, only, keys: Keys::make(state.join("keys"), listen, host)? })
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
        let lines =
            contenders.map(|one| format!("- {}: {}; {}\n", one.name, one.version(), one.program.row()[3]));
        let missing = row.others.iter().filter(|program| self.is_wanted(**program)).filter_map(|program| {
            let why = missing(*program, row.link.is_some())?;
            Some(format!("- missing: {}: {why}\n", program.name()))
        });
        lines.chain(missing).collect()
    }

    /// Starts the server, from the thread whose network it is to run in.
    pub(super) fn serve(&self, contender: &Contender, job: &Job<'_>) -> Result<Serving> {
        self.keys.serve(contender, job)
    }

    /// The client, not yet started. A later run continues what an earlier one left.
    pub(super) fn client(&self, contender: &Contender, serving: &Serving, job: &Job<'_>) -> Result<Command> {
        if let Some(shiplane) = contender.serves() {
            return our_client(contender, shiplane, &serving.ticket, job);
        }
        let names = self.keys.names(contender, job, serving.port, &serving.ticket)?;
        let words = names.words(contender.program.row()[1]);
        let mut command = match &contender.shiplane {
            Some(shiplane) => shiplane.command(&job.paths.home("client")?),
            None => found(&words[0])?,
        };
        command.args(&words[1..]).current_dir(&job.paths.destination);
        Ok(command)
    }
}

fn our_client(contender: &Contender, shiplane: &Shiplane, ticket: &str, job: &Job<'_>) -> Result<Command> {
    let local = match job.verb {
        Verb::Get => job.paths.destination.clone(),
        Verb::Push => job.source.join(ITEM),
        Verb::Sync if job.link.is_some() => job.source.to_path_buf(),
        Verb::Sync => job.paths.destination.clone(),
    };
    let mut command = shiplane.client(job.verb, &local, ticket, &job.paths.home("client")?);
    command.arg(if job.link.is_some() { "--json" } else { "--quiet" });
    if matches!(contender.program, Program::Shiplane(Way::Verified | Way::Second)) {
        command.args(["--durability", "verified"]);
    }
    command.args(matches!(job.workload, Workload::Edited(_)).then_some("--overwrite"));
    Ok(command)
}

fn missing(program: Program, has_link: bool) -> Option<String> {
    let tcp = program.congestion_control().filter(|_| has_link).and_then(missing_tcp);
    let absent = || program.tools().into_iter().find(|name| find_program(name).is_none());
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

fn found(program: &str) -> Result<Command> {
    find_program(program).map(Command::new).with_context(|| format!("{program} is not installed"))
}

/// The first line that a program prints when asked, on whichever output.
fn version(program: &Path) -> String {
    let option = match program.file_name().and_then(|name| name.to_str()) {
        Some("ssh" | "sshd") => "-V",
        Some("nginx") => "-v",
        Some("openssl") => "version",
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

/// In the foreground, logging to standard error.
const SSHD: &str = "sshd -D -e -f {state}/sshd_config";
const RSYNC: &str = "rsync -a {whole} {from} {to}";
const RSYNCD: &str = "rsync --daemon --no-detach --config {state}/rsyncd.conf";
const NGINX: &str = "nginx -e stderr -p {state} -c {state}/nginx.conf";
