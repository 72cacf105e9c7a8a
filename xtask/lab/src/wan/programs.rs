//! The programs that carry files over the link, and the directories of their runs.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use xtask::driver::{Server, Shiplane, Verb};
use xtask::process::find_program;
use xtask::scratch::Scratch;

use super::link::{RECEIVER, SENDER, missing_tcp};
use super::rows::{Must, Row, Workload};
use crate::programs::{self, Job, Present, Programs, Serving as Other, version};

/// One way to carry files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The one of that number in [`Kit::shiplanes`].
    Shiplane(usize),
    RsyncBbr,
    RsyncCubic,
    Scp,
    CurlHttp,
    CurlHttps,
    Qcp,
}

/// What `--shiplane` takes: a program of ours and what the tables call it.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    pub(super) label: String,
    path: PathBuf,
}

/// All programs that are there.
pub(super) struct Kit {
    pub(super) shiplanes: Vec<(String, Shiplane)>,
    programs: Programs,
    /// How the names of the other programs begin that are wanted; all if empty.
    beside: Vec<String>,
}

/// The directories of one run of one program.
#[derive(Debug)]
pub(super) struct RunPaths {
    /// Holds the item `data` and nothing else.
    pub(super) source: PathBuf,
    /// Empty at first; ends up with a copy of the item.
    pub(super) destination: PathBuf,
    /// For the server's files and the client's.
    pub(super) state: PathBuf,
    /// Holds the last two.
    _scratch: Scratch,
}

/// A server that listens.
pub(super) enum Serving {
    Shiplane(Server),
    Other(Other),
}

impl std::str::FromStr for Labelled {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (label, path) = text.split_once('=').unwrap_or(("shiplane", text));
        Ok(Self { label: label.to_owned(), path: path.into() })
    }
}

impl RunPaths {
    /// Makes the directories of a run, in `scratch`.
    pub(super) fn new(source: PathBuf, scratch: &Scratch) -> Result<Self> {
        let own = Scratch::new("run-", Some(scratch.path()))?;
        let (destination, state) = (own.directory("copy")?, own.directory("state")?);
        Ok(Self { source, destination, state, _scratch: own })
    }
}

impl Program {
    /// TCP's congestion control, as the kernel calls it.
    pub(super) fn congestion_control(self) -> &'static str {
        if self == Self::RsyncCubic { "cubic" } else { "bbr" }
    }

    pub(super) fn is_ours(self) -> bool {
        self.other().is_none()
    }

    fn other(self) -> Option<programs::Program> {
        Some(match self {
            Self::Shiplane(_) => return None,
            Self::RsyncBbr | Self::RsyncCubic => programs::Program::RsyncDaemon,
            Self::Scp => programs::Program::Scp,
            Self::CurlHttp => programs::Program::CurlHttp,
            Self::CurlHttps => programs::Program::CurlHttps,
            Self::Qcp => programs::Program::Qcp,
        })
    }

    /// Whether a row has a figure of it.
    fn fits(self, row: &Row) -> bool {
        let is_get = row.verb == Verb::Get;
        match (self, row.workload) {
            (Self::Shiplane(_), _) => true,
            (Self::RsyncBbr, _) => is_get || row.must != Must::Nothing,
            (Self::RsyncCubic, Workload::Bulk { .. } | Workload::Tree) => is_get,
            (Self::Scp, Workload::Bulk { .. } | Workload::Small | Workload::Tree) => is_get,
            (Self::Qcp, Workload::Bulk { .. } | Workload::Small) => is_get,
            (Self::CurlHttp, Workload::Small | Workload::Cut) => true,
            (Self::CurlHttps, Workload::Small) => true,
            (Self::RsyncCubic | Self::Scp | Self::Qcp | Self::CurlHttp | Self::CurlHttps, _) => false,
        }
    }

    /// IP, UDP or TCP and, for QUIC, its own headers in a packet of data.
    pub(super) fn header_bytes(self) -> u64 {
        match self {
            Self::Shiplane(_) | Self::Qcp => 63,
            Self::RsyncBbr | Self::RsyncCubic | Self::Scp | Self::CurlHttp | Self::CurlHttps => 52,
        }
    }
}

impl Kit {
    /// Looks for all programs. Without a program of ours in `shiplanes`, that of this source is built.
    pub(super) fn gather(shiplanes: &[Labelled], beside: &[String], scratch: &Scratch) -> Result<Self> {
        let named = |one: &Labelled| Ok((one.label.clone(), Shiplane::built(Some(&one.path))?));
        let shiplanes = match shiplanes {
            [] => vec![("shiplane".to_owned(), Shiplane::built(None)?)],
            named_ones => named_ones.iter().map(named).collect::<Result<_>>()?,
        };
        let programs = Programs::prepare(None, scratch.path(), IpAddr::from([0, 0, 0, 0]), SENDER.parse()?)?;
        Ok(Self { shiplanes, programs, beside: beside.to_vec() })
    }

    /// The programs that a row compares.
    pub(super) fn programs(&self, row: &Row) -> Vec<Program> {
        let ours = (0..self.shiplanes.len()).map(Program::Shiplane);
        let is_wanted = |program: &Program| {
            let name = self.name(*program);
            self.beside.is_empty() || self.beside.iter().any(|begin| name.starts_with(begin.as_str()))
        };
        let theirs = THEIRS.into_iter().filter(is_wanted);
        ours.chain(theirs).filter(|program| program.fits(row) && self.missing(*program).is_none()).collect()
    }

    /// What is not there, and why.
    pub(super) fn all_missing(&self) -> Vec<String> {
        let missing =
            |&program: &Program| Some(format!("{}: {}", self.name(program), self.missing(program)?));
        THEIRS.iter().filter_map(missing).collect()
    }

    /// As the tables call it.
    pub(super) fn name(&self, program: Program) -> &str {
        match program {
            Program::Shiplane(number) => self.shiplanes.get(number).map_or("shiplane", |(label, _)| label),
            Program::RsyncBbr => "rsync, BBR",
            Program::RsyncCubic => "rsync, Cubic",
            Program::Scp => "scp",
            Program::CurlHttp => "curl, HTTP",
            Program::CurlHttps => "curl, HTTPS",
            Program::Qcp => "qcp",
        }
    }

    /// The versions of the programs that are not ours.
    pub(super) fn versions(&self) -> String {
        let of = |(program, option): (&str, &str)| Some(version(&find_program(program)?, option));
        let programs = [("rsync", "--version"), ("ssh", "-V"), ("nginx", "-v"), ("curl", "--version")];
        programs.into_iter().filter_map(of).collect::<Vec<_>>().join("; ")
    }

    /// Starts the server; to be called in the namespace where it is to run.
    pub(super) fn serve(&self, program: Program, row: &Row, place: &RunPaths) -> Result<Serving> {
        let Some(other) = program.other() else {
            let shiplane = self.shiplane(program)?;
            let root = if row.verb == Verb::Get { &place.source } else { &place.destination };
            let home = place.state.join("server");
            fs::create_dir_all(&home)?;
            let server = shiplane.serve_at("0.0.0.0:7514", root, &home, row.verb.access())?;
            return Ok(Serving::Shiplane(server));
        };
        Ok(Serving::Other(self.programs.serve(other, &job(row, place)?)?))
    }

    /// The client, not yet started. A later run continues what an earlier one left.
    pub(super) fn client(
        &self,
        program: Program,
        row: &Row,
        serving: &Serving,
        place: &RunPaths,
    ) -> Result<Command> {
        match (program.other(), serving) {
            (Some(other), Serving::Other(serving)) => self.programs.client(other, serving, &job(row, place)?),
            (None, Serving::Shiplane(server)) => {
                let local = match row.verb {
                    Verb::Get => place.destination.clone(),
                    Verb::Push => place.source.join(ITEM),
                    Verb::Sync => place.source.clone(),
                };
                let home = place.state.join("client");
                let mut command = self.shiplane(program)?.client(row.verb, &local, server.ticket(), &home);
                command.arg("--json");
                Ok(command)
            }
            _ => bail!("{} has another's server", self.name(program)),
        }
    }

    fn shiplane(&self, program: Program) -> Result<&Shiplane> {
        let Program::Shiplane(number) = program else { bail!("that is not ours") };
        Ok(&self.shiplanes.get(number).context("no such program")?.1)
    }

    /// Why a program cannot run here, if so.
    fn missing(&self, program: Program) -> Option<String> {
        let other = program.other()?;
        missing_tcp(program.congestion_control()).or_else(|| self.programs.missing(other))
    }
}

fn job<'a>(row: &Row, place: &'a RunPaths) -> Result<Job<'a>> {
    Ok(Job {
        verb: row.verb,
        source: &place.source,
        item: ITEM,
        is_file: row.workload != Workload::Tree,
        destination: &place.destination,
        state: Path::new(&place.state),
        host: if row.verb == Verb::Get { SENDER } else { RECEIVER }.parse()?,
        present: if row.workload == Workload::Cut { Present::Append } else { Present::Whole },
        path: (row.link.rate_mbit, row.link.rtt_ms),
    })
}

/// What is carried: a file or a directory.
pub(super) const ITEM: &str = "data";

const THEIRS: [Program; 6] = [
    Program::RsyncBbr,
    Program::RsyncCubic,
    Program::Scp,
    Program::CurlHttp,
    Program::CurlHttps,
    Program::Qcp,
];
