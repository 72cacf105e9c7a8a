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

/// A program that is compared, by its name in `programs.txt`, which says how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Program(&'static str);

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
    /// They start servers too.
    pub(super) keys: Keys,
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
    /// Ours, with all of it on the disk.
    pub(super) const DURABLE: Self = Self("durable");
    /// With every chunk's digest matched.
    pub(super) const VERIFIED: Self = Self("verified");
    /// `sync`, whatever the row says.
    pub(super) const SYNC: Self = Self("sync");
    /// From a server that ssh starts.
    pub(super) const OVER_SSH: Self = Self("over ssh");
    /// For a second receiver of what the same server has sent before.
    pub(super) const SECOND: Self = Self("second receiver");
    pub(super) const SCP: Self = Self("scp");
    pub(super) const RSYNC_SSH: Self = Self("rsync over ssh");
    /// Over TCP BBR where there is a link.
    pub(super) const RSYNC: Self = Self("rsync daemon");
    pub(super) const RSYNC_CUBIC: Self = Self("rsync daemon, Cubic");
    pub(super) const CURL_HTTP: Self = Self("curl, HTTP");
    pub(super) const CURL_HTTPS: Self = Self("curl, HTTPS");
    pub(super) const SENDME: Self = Self("sendme");
    pub(super) const QCP: Self = Self("qcp");
    /// `ssh HOST true`, which carries nothing: what ssh itself takes.
    pub(super) const LOGIN: Self = Self("ssh login");

    /// Its line in the table: name, TCP's congestion control on a link, client, server, note.
    fn row(self) -> [&'static str; 5] {
        let rows = TABLE
            .lines()
            .filter_map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().try_into().ok());
        rows.into_iter().find(|row: &[&str; 5]| row[0] == self.0).unwrap_or_default()
    }

    /// The programs of others that it needs.
    fn tools(self) -> Vec<&'static str> {
        let [_, _, client, server, _] = self.row();
        let mut tools: Vec<_> = [client, server].iter().filter_map(|line| line.split(' ').next()).collect();
        tools.extend((self == Self::CURL_HTTPS).then_some("openssl"));
        tools.retain(|tool| !["", "shiplane"].contains(tool));
        tools.dedup();
        tools
    }

    /// Whether our program is the server as well.
    fn is_served_by_us(self) -> bool {
        self.row()[3].is_empty()
    }

    /// TCP's congestion control on a link, as the kernel calls it.
    pub(super) fn congestion_control(self) -> Option<&'static str> {
        Some(self.row()[1]).filter(|control| !control.is_empty())
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
        Self { name: name.to_owned(), program: Program::DURABLE, shiplane: Some(shiplane) }
    }

    pub(super) fn other(program: Program) -> Self {
        Self { name: program.0.to_owned(), program, shiplane: None }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.program.is_served_by_us() || self.program == Program::OVER_SSH
    }

    /// Our program, where it is the server as well.
    fn serves(&self) -> Option<&Shiplane> {
        self.shiplane.as_ref().filter(|_| self.program.is_served_by_us())
    }

    /// IP, UDP or TCP and, for QUIC, its own headers in a packet of data.
    pub(super) fn header_bytes(&self) -> u64 {
        if self.is_ours() || self.program == Program::QCP { 63 } else { 52 }
    }

    /// What it does in a row that says `verb`.
    pub(super) fn verb(&self, verb: Verb) -> Verb {
        if self.program == Program::SYNC { Verb::Sync } else { verb }
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

    /// The programs of these that are wanted and can run: each of ours in all its ways, then the others.
    pub(super) fn contenders(&self, ways: &[Program], others: &[Program], has_link: bool) -> Vec<Contender> {
        let can_run = |program: &&Program| missing(**program, has_link).is_none();
        let ours = self.ours.iter().flat_map(|ours| {
            ways.iter().filter(can_run).map(|program| Contender {
                name: format!("{}, {}", ours.name, program.0),
                program: *program,
                ..ours.clone()
            })
        });
        let others = others.iter().filter(|one| self.is_wanted(**one)).filter(can_run);
        ours.chain(others.map(|one| Contender::other(*one))).collect()
    }

    fn is_wanted(&self, program: Program) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| program.0.contains(only.as_str()))
    }

    /// The programs that were measured, each with its version and what it checks, and those that are missing.
    pub(super) fn described(&self, row: &Row, measured: &[Measured]) -> String {
        let contenders = measured.iter().filter_map(|one| one.contender.as_ref());
        let lines =
            contenders.map(|one| format!("- {}: {}; {}\n", one.name, one.version(), one.program.row()[4]));
        let missing = row.others.iter().filter(|program| self.is_wanted(**program)).filter_map(|program| {
            let why = missing(*program, row.link.is_some())?;
            Some(format!("- missing: {}: {why}\n", program.0))
        });
        lines.chain(missing).collect()
    }

    /// The client, not yet started. A later run continues what an earlier one left.
    pub(super) fn client(&self, contender: &Contender, serving: &Serving, job: &Job<'_>) -> Result<Command> {
        if let Some(shiplane) = contender.serves() {
            return our_client(contender, shiplane, &serving.ticket, job);
        }
        let names = self.keys.names(contender, job, serving.port, &serving.ticket)?;
        let words = names.words(contender.program.row()[2]);
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
    if matches!(contender.program, Program::VERIFIED | Program::SECOND) {
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

/// Names in braces stand for what differs between jobs; what comes out empty is left out.
const TABLE: &str = include_str!("programs/programs.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_row() {
        let unlike = |program: Program| program.row()[4].is_empty();
        let all = [Program::DURABLE, Program::VERIFIED, Program::SYNC, Program::OVER_SSH, Program::SECOND];
        let others = [Program::SCP, Program::RSYNC_SSH, Program::RSYNC, Program::RSYNC_CUBIC, Program::QCP];
        let rest = [Program::CURL_HTTP, Program::CURL_HTTPS, Program::SENDME, Program::LOGIN];
        assert!(!all.into_iter().chain(others).chain(rest).any(unlike));
        assert_eq!(Program::CURL_HTTPS.tools(), ["curl", "nginx", "openssl"]);
        assert!(Program::DURABLE.tools().is_empty() && Program::OVER_SSH.tools() == ["sshd"]);
    }
}
