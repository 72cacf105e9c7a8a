//! The programs that are compared: each starts its server on loopback, carries the item once, and says what both
//! sides used. What is not installed is named, with what to install.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use xtask::driver::{Access, Shiplane, Verb};
use xtask::process::Usage;
use xtask::{interrupt, units};

use super::sample::{Measured, Sample};
use super::workload::{Scenario, Workload};
use super::{Options, Round};
use crate::programs::{self, Job, Present, Program, Programs};

/// `get`, with every chunk's digest matched.
pub(super) const VERIFIED: &str = "shiplane, verified";
/// `get`, with all of it on the disk too.
pub(super) const DURABLE: &str = "shiplane, durable";
/// `sync`.
pub(super) const SYNC: &str = "shiplane sync";

/// The programs that will run, and why others will not.
pub(super) struct Field<'a> {
    entrants: Vec<Entrant<'a>>,
    pub(super) missing: Vec<String>,
}

/// A program with what it carries.
struct Entrant<'a> {
    how: How<'a>,
    workload: &'a Workload,
    measured: Measured,
}

enum How<'a> {
    Ours { shiplane: &'a Shiplane, way: &'static str },
    Theirs { programs: &'a Programs, program: Program },
}

impl<'a> Field<'a> {
    /// Ours and the others; on a disk ours and those that matter there.
    pub(super) fn gather(
        shiplanes: &'a [Shiplane],
        programs: &'a Programs,
        workloads: &'a [Workload],
        options: &Options,
    ) -> Self {
        let mut field = Self { entrants: Vec::new(), missing: Vec::new() };
        for workload in workloads {
            let is_disk = !workload.suffix.is_empty();
            for (number, shiplane) in shiplanes.iter().enumerate() {
                let sync = (workload.scenario == Scenario::Unchanged).then_some(SYNC);
                for way in [VERIFIED, DURABLE].into_iter().chain(sync) {
                    let measured = Measured::of(name_of(way, number), "each chunk", ours(shiplane));
                    field.enter(How::Ours { shiplane, way }, workload, measured);
                }
            }
            for program in THEIRS.into_iter().filter(|program| options.includes(program.name())) {
                if is_disk && !ON_DISK.contains(&program) {
                    continue;
                }
                match unfit(program, workload.scenario).or_else(|| programs.missing(program)) {
                    Some(reason) if is_disk => drop(reason),
                    Some(reason) => field.missing.push(format!("left out: {}: {reason}", program.name())),
                    None => {
                        let (name, version) = (program.name().to_owned(), programs.version(program));
                        let measured = Measured::of(name, program.checks(), version);
                        field.enter(How::Theirs { programs, program }, workload, measured);
                    }
                }
            }
        }
        field
    }

    fn enter(&mut self, how: How<'a>, workload: &'a Workload, mut measured: Measured) {
        measured.name.push_str(&workload.suffix);
        self.entrants.push(Entrant { how, workload, measured });
    }

    /// Rounds in which every program has its turn, so that a slow minute of the machine hits all. A program that is
    /// not ours and fails in the first one, which is not counted, is missing from then on.
    pub(super) fn measure(&mut self, options: &Options) -> Result<Vec<Measured>> {
        options.rounds(|round| {
            for mut entrant in std::mem::take(&mut self.entrants) {
                interrupt::check()?;
                match entrant.run(round) {
                    Ok(()) => self.entrants.push(entrant),
                    Err(failure) if round.is_warm_up() && matches!(entrant.how, How::Theirs { .. }) => {
                        interrupt::check()?;
                        println!("  {round}  {failure}");
                        self.missing.push(format!("missing: {failure:#}"));
                        entrant.workload.clear(&slug(&entrant.measured.name))?;
                    }
                    Err(failure) => return Err(failure),
                }
            }
            Ok(())
        })?;
        Ok(std::mem::take(&mut self.entrants).into_iter().map(|entrant| entrant.measured).collect())
    }
}

impl Entrant<'_> {
    /// Carries the item once, looks at what arrived, and keeps the figures if they count.
    fn run(&mut self, round: Round) -> Result<()> {
        let Self { how, workload, measured } = self;
        let how = &*how;
        let name = slug(&measured.name);
        let run = || {
            let sample = match how {
                How::Ours { shiplane, way } => carry_ours(shiplane, way, &name, workload)?,
                How::Theirs { programs, program } => carry_theirs(programs, *program, &name, workload)?,
            };
            workload.judge(&name, round.is_warm_up())?;
            Ok::<_, anyhow::Error>(sample)
        };
        let sample = run().with_context(|| format!("{} failed", measured.name))?;
        measured.add(round, sample);
        Ok(())
    }
}

fn carry_ours(shiplane: &Shiplane, way: &str, name: &str, workload: &Workload) -> Result<Sample> {
    let destination = workload.destination(name)?;
    // The state of a sync must last from one run to the next, so each program and way has its own.
    let homes = [workload.state(&format!("{name}-server"))?, workload.state(&format!("{name}-client"))?];
    let verb = if way == SYNC { Verb::Sync } else { Verb::Get };
    // A server a run: what it used can only be asked once it has ended.
    let server = shiplane.serve(&workload.source, &homes[0], verb.access())?;
    let mut command = shiplane.client(verb, &destination, server.ticket(), &homes[1]);
    command.arg("--quiet").stdout(Stdio::null());
    if way == VERIFIED {
        command.args(["--durability", "verified"]);
    }
    command.args((workload.scenario == Scenario::Edited).then_some("--overwrite"));
    let received = workload.carry("shiplane", &mut command).map_err(|failure| server.with_log(&failure))?;
    Ok(received.served_by(server.stop()?.used))
}

fn carry_theirs(programs: &Programs, program: Program, name: &str, workload: &Workload) -> Result<Sample> {
    let (destination, state) = (workload.destination(name)?, workload.state(name)?);
    let item = workload.item.file_name().unwrap_or_default().to_string_lossy();
    let job = Job {
        verb: Verb::Get,
        source: &workload.source,
        item: &item,
        is_file: workload.scenario.is_file(),
        destination: &destination,
        state: &state,
        host: LOOPBACK,
        present: if workload.scenario == Scenario::Edited { Present::Compare } else { Present::Whole },
        path: (8000.0, 10.0),
    };
    let serving = programs.serve(program, &job)?;
    let received = workload.carry(program.name(), &mut programs.client(program, &serving, &job)?)?;
    let import = serving.import;
    let sample = received.served_by(serving.stop()?);
    Ok(Sample { time: import + sample.time, ..sample })
}

/// How the tables call the `number`th program given, from 0, when it is run in this way.
pub(super) fn name_of(way: &str, number: usize) -> String {
    match number {
        0 => way.to_owned(),
        _ => way.replacen("shiplane", &format!("shiplane {}", number + 1), 1),
    }
}

/// Our own version.
pub(super) fn ours(shiplane: &Shiplane) -> String {
    let binary = shiplane.binary();
    format!("{}, {}", programs::version(binary, "--version"), binary.display())
}

/// Why a program has no place in a scenario.
fn unfit(program: Program, scenario: Scenario) -> Option<String> {
    let copies_all = matches!(program, Program::Scp | Program::Sendme | Program::Qcp);
    let why = match scenario {
        Scenario::Unchanged | Scenario::Edited if copies_all => "copies everything again",
        Scenario::Small | Scenario::Unchanged | Scenario::Edited if program == Program::CurlHttps => {
            "carries one file, from its beginning to its end"
        }
        Scenario::File | Scenario::Small | Scenario::Unchanged | Scenario::Edited => return None,
    };
    Some(why.to_owned())
}

/// A program's directory.
pub(super) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const THEIRS: [Program; 6] = [
    Program::Scp,
    Program::RsyncSsh,
    Program::RsyncDaemon,
    Program::CurlHttps,
    Program::Sendme,
    Program::Qcp,
];

const ON_DISK: [Program; 2] = [Program::RsyncDaemon, Program::CurlHttps];

/// One large file for two receivers of one server, one after the other: what the second one costs the server.
pub(super) fn second(shiplane: &Shiplane, workload: &Workload, options: &Options) -> Result<[Measured; 2]> {
    let mut measured =
        [FIRST, SECOND].map(|name| Measured::of(name.to_owned(), "each chunk", ours(shiplane)));
    options.rounds(|round| {
        let home = workload.state("server")?;
        let server = shiplane.serve(&workload.source, &home, Access::Read)?;
        let pid = server.running().pid();
        let mut before = Usage::default();
        for measured in &mut measured {
            let name = slug(&measured.name);
            // Of both: a ticket is for one key.
            let client = workload.state("client")?;
            let mut command: Command =
                shiplane.client(Verb::Get, &workload.destination(&name)?, server.ticket(), &client);
            command.args(["--quiet", "--durability", "verified"]).stdout(Stdio::null());
            let received =
                workload.carry("shiplane", &mut command).map_err(|failure| server.with_log(&failure))?;
            let stats = crate::stats::ProcessStats::of(pid)?;
            let until_now = Usage { cpu: crate::stats::cpu_time(pid)?, peak_rss_bytes: stats.peak_bytes };
            let used = Usage { cpu: until_now.cpu.saturating_sub(before.cpu), ..until_now };
            before = until_now;
            workload.judge(&name, round.is_warm_up())?;
            measured.add(round, received.served_by(used));
        }
        server.stop().map(drop)
    })?;
    Ok(measured)
}

pub(super) const FIRST: &str = "shiplane, first receiver";
pub(super) const SECOND: &str = "shiplane, second receiver";

impl Measured {
    fn add(&mut self, round: Round, sample: Sample) {
        println!("  {round}  {:28} {}", self.name, units::seconds(sample.time));
        self.samples.extend((!round.is_warm_up()).then_some(sample));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_copies_everything_has_no_place_where_there_is_nothing_to_copy() {
        let left = |scenario| {
            THEIRS.into_iter().filter(|&program| unfit(program, scenario).is_none()).collect::<Vec<_>>()
        };
        assert_eq!(left(Scenario::File), THEIRS);
        assert_eq!(left(Scenario::Small).len(), THEIRS.len() - 1);
        assert_eq!(left(Scenario::Edited), [Program::RsyncSsh, Program::RsyncDaemon]);
        assert_eq!(left(Scenario::Edited), left(Scenario::Unchanged));
        assert_eq!(
            (name_of(SYNC, 0).as_str(), name_of(VERIFIED, 1).as_str()),
            (SYNC, "shiplane 2, verified")
        );
    }
}
