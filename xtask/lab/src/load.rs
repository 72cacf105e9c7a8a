//! `cargo xtask load`: overloads a server and watches it from outside, and runs clients against servers that lie.
//!
//! Each scenario has a `shiplane serve` of its own, the real program in release, and peers that overload it or lie to it
//! (`crate::peers`) in another process. Beside them an honest peer gets a file, several times, and got it before as
//! often without them. A scenario passes if the server's memory stayed within the cap, its descriptors came back, every
//! copy is right and, where that is promised, the honest peer was hardly slower. All victims run with a limit on their
//! address space, so that one that is taken in harms nothing else here.

mod clients;
mod peers;
mod scenarios;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::driver::{Access, Server, Shiplane, Verb};
use xtask::process;
use xtask::scratch::Scratch;
use xtask::{dataset, interrupt, tree, units};

use self::peers::PeerProcess;
pub(crate) use self::peers::command_to;
use self::scenarios::{CAP_BYTES, SCENARIOS, Scenario};
use crate::stats::ProcessStats;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use a tenth of the numbers and do not judge speed
    #[arg(long)]
    short: bool,
    /// Run only this scenario, or `hostile` for all lying peers
    #[arg(long)]
    only: Option<String>,
    /// Use this shiplane instead of building it
    #[arg(long)]
    shiplane: Option<PathBuf>,
}

/// Runs them all and prints the tables; an error if any has failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).chain([HOSTILE]).collect();
    if let Some(only) = args.only.as_deref().filter(|only| !names.contains(only)) {
        bail!("there is no scenario {only}; there are {}", names.join(", "));
    }
    let is_wanted = |name: &str| args.only.as_ref().is_none_or(|only| only == name);
    let mut wanted = if is_wanted(HOSTILE) { scenarios::hostile(args.short) } else { Vec::new() };
    wanted.extend(SCENARIOS.into_iter().filter(|scenario| is_wanted(scenario.name)));
    let fixture = Fixture::set(args)?;
    let (clients, servers) = std::thread::scope(|scope| {
        let clients = is_wanted(HOSTILE).then(|| scope.spawn(|| clients::run(&fixture)));
        let clients = || clients.map_or(Ok(Vec::new()), clients::joined);
        // Side by side if there is no time: clients sleep for most of it, waiting for the other side's patience.
        if args.short {
            let servers = fixture.play_all(&wanted);
            (clients(), servers)
        } else {
            (clients(), fixture.play_all(&wanted))
        }
    });
    let (clients, servers) = (clients?, servers?);
    let mut failed = Vec::new();
    if !clients.is_empty() {
        let mut rows = vec![units::cells(clients::HEADING)];
        for (victim, outcome) in &clients {
            let verdict = outcome.verdict(victim);
            rows.push(outcome.row(victim, &verdict));
            failed.extend(verdict.err().map(|reason| format!("get, {}: {reason}", victim.lie.name())));
        }
        println!("\n{}\nbound {} for a client", units::table(&rows), units::bytes(CAP_BYTES));
    }
    let mut rows = vec![units::cells(HEADING)];
    for (scenario, seen) in wanted.iter().zip(servers) {
        let verdict = seen.as_ref().map_err(Clone::clone);
        let verdict = verdict.and_then(|seen| seen.verdict(scenario, args.short));
        rows.push(row(scenario, seen.as_ref().ok(), &verdict));
        failed.extend(verdict.err().map(|reason| format!("{}: {reason}", scenario.name)));
    }
    println!("\n{}", units::table(&rows));
    println!("speed is that of an honest get beside the load ÷ without it");
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{}", failed.join("; ")),
    }
}

/// What all scenarios share.
struct Fixture {
    shiplane: Shiplane,
    scratch: Scratch,
    /// What is served.
    file: PathBuf,
    keys: PathBuf,
    short: bool,
}

/// What was seen of one scenario.
#[derive(Debug)]
struct Seen {
    before: ProcessStats,
    /// With all the load, and an honest peer beside it.
    under_load: ProcessStats,
    after: ProcessStats,
    alone: Duration,
    beside: Duration,
    /// Whether the server has ended the load by itself, where it must.
    ended: bool,
    /// What the load says of itself.
    told: String,
}

impl Fixture {
    fn set(args: &Args) -> Result<Self> {
        let shiplane = Shiplane::built(args.shiplane.as_deref())?.within(ADDRESS_SPACE_BYTES);
        let scratch = Scratch::in_memory("shiplane-load-")?;
        let bytes = if args.short { SHORT_FILE_BYTES } else { FILE_BYTES };
        scratch.expect_room(3 * bytes + ROOM_FOR_PUSHES_BYTES)?;
        let file = scratch.path().join("large");
        dataset::large_file(&file, bytes)?;
        let keys = scratch.path().join("keys");
        Ok(Self { shiplane, scratch, file, keys, short: args.short })
    }

    fn play_all(&self, scenarios: &[Scenario]) -> Result<Vec<Result<Seen, String>>> {
        let play = |scenario: &Scenario| {
            interrupt::check()?;
            println!("  {}: {}", scenario.name, scenario.what);
            let seen = self.play(scenario);
            interrupt::check()?;
            Ok(seen.map_err(|failure| format!("{failure:#}")))
        };
        scenarios.iter().map(play).collect()
    }

    fn play(&self, scenario: &Scenario) -> Result<Seen> {
        let home = self.scratch.directory(&format!("server of {}", scenario.name))?;
        crate::peers::make_keys(&home, &self.keys, KEYS).map_err(|failure| anyhow!("{failure}"))?;
        let served = self.scratch.directory(&format!("served to {}", scenario.name))?;
        fs::hard_link(&self.file, served.join("large"))
            .context("cannot link the file into what is served")?;
        let server = self.shiplane.serve(&served, &home, Access::Write)?;
        let seen = self.watch(scenario, &server).map_err(|failure| server.with_log(&failure))?;
        server.stop()?;
        fs::remove_dir_all(&served).context("cannot remove what was pushed")?;
        Ok(seen)
    }

    fn watch(&self, scenario: &Scenario, server: &Server) -> Result<Seen> {
        let alone = self.get(server)?;
        let before = ProcessStats::of(server.running().pid())?;
        let count = if self.short { scenario.short_count } else { scenario.count };
        let mut command = command_to(scenario.kind, count, server, &self.keys)?;
        command.args(scenario.lies.iter().flat_map(|lie| ["--lie", lie]));
        command.args(["--entries", if self.short { SHORT_ENTRIES } else { ENTRIES }]);
        let mut peers = PeerProcess::start(&mut command)?;
        let beside = self.get(server)?;
        let under_load = ProcessStats::of(server.running().pid())?;
        let ended = scenario.ends_within.map_or(Ok(true), |limit| peers.says_something_within(limit))?;
        let told = peers.stop()?;
        let after = settled(server, before)?;
        Ok(Seen { before, under_load, after, alone, beside, ended, told })
    }

    /// The median of how long an honest `get` takes.
    fn get(&self, server: &Server) -> Result<Duration> {
        let mut times = Vec::new();
        let home = self.scratch.path().join("honest");
        for _ in 0..if self.short { 1 } else { RUNS } {
            interrupt::check()?;
            let copy = self.scratch.path().join("copy");
            // Nothing else of what is served: it may have been pushed meanwhile.
            let mut command = self.shiplane.client(Verb::Get, &copy, &server.ticket_for("large"), &home);
            command.args(["--durability", "verified", "--quiet"]).stdout(Stdio::null());
            let started = Instant::now();
            process::Running::start(GET, &mut command)?.wait(GET_LIMIT)?.expect_success(GET)?;
            times.push(started.elapsed());
            tree::expect_same_content(&self.file, &copy)?;
            fs::remove_file(&copy).context("cannot remove the copy")?;
        }
        times.sort();
        Ok(times[times.len() / 2])
    }
}

/// Looks until the server has no more descriptors than at `before`, or for as long as it may take a server to notice
/// that a peer has gone; what it has then.
pub(crate) fn settled(server: &Server, before: ProcessStats) -> Result<ProcessStats> {
    let started = Instant::now();
    loop {
        interrupt::check()?;
        let now = ProcessStats::of(server.running().pid())?;
        if now.descriptors <= before.descriptors || started.elapsed() > SETTLE_LIMIT {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Seen {
    fn speed(&self) -> f64 {
        self.alone.as_secs_f64() / self.beside.as_secs_f64().max(1e-9)
    }

    fn verdict(&self, scenario: &Scenario, short: bool) -> Result<(), String> {
        if self.after.peak_bytes > scenario.cap_bytes {
            return Err(format!("the server came to hold {}", units::bytes(self.after.peak_bytes)));
        }
        if self.after.descriptors > self.before.descriptors + DESCRIPTOR_SLACK {
            let (before, after) = (self.before.descriptors, self.after.descriptors);
            return Err(format!("{before} descriptors before, {after} after"));
        }
        if let Some(limit) = scenario.ends_within.filter(|_| !self.ended) {
            return Err(format!("some go on after {} s", limit.as_secs()));
        }
        // A tenth of the load on a machine that does other things too says nothing of speed.
        if scenario.keeps_speed && !short && self.speed() < MUST_SPEED {
            return Err(format!("an honest peer had {:.0} % of its speed", 100.0 * self.speed()));
        }
        Ok(())
    }
}

fn row(scenario: &Scenario, seen: Option<&Seen>, verdict: &Result<(), String>) -> Vec<String> {
    let verdict = if verdict.is_ok() { "passed" } else { "failed" };
    let mut row = vec![scenario.name.to_owned(), verdict.to_owned(), units::bytes(scenario.cap_bytes)];
    if let Some(seen) = seen {
        row.extend([
            units::bytes(seen.before.peak_bytes),
            units::bytes(seen.after.peak_bytes),
            units::bytes(seen.after.resident_bytes),
            format!("{}, {}", seen.before.descriptors, seen.after.descriptors),
            format!("{}, {}", seen.before.threads, seen.under_load.threads),
            format!("{:.0} %", 100.0 * seen.speed()),
            seen.told.clone(),
        ]);
    }
    row
}

const HEADING: &str = "scenario|verdict|cap|peak before|peak|held after|descriptors before, after|\
    threads before, under load|speed|the load";

/// What `--only` calls all peers that lie.
const HOSTILE: &str = "hostile";

/// What a victim may map at most. Far more than its memory: each thread has address space set aside.
const ADDRESS_SPACE_BYTES: u64 = 4 << 30;

/// Of each push that lies about entries.
const ENTRIES: &str = "4000";
const SHORT_ENTRIES: &str = "1000";

/// Four fifths of what it has alone.
const MUST_SPEED: f64 = 0.8;

/// A log, a socket of the runtime.
const DESCRIPTOR_SLACK: u64 = 2;

/// With at most 16 connections each, more than the thousand that come.
const KEYS: usize = 80;

const FILE_BYTES: u64 = 256 << 20;
const SHORT_FILE_BYTES: u64 = 32 << 20;

/// What unfinished pushes set aside.
const ROOM_FOR_PUSHES_BYTES: u64 = 1 << 30;

/// Honest runs, of which the median counts.
const RUNS: usize = 3;

const GET: &str = "an honest get";

/// Many times what it takes.
const GET_LIMIT: Duration = Duration::from_secs(60);

/// The idle timeout and some more: until then a peer that has gone may pass for a quiet one.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let process_stats =
            ProcessStats { peak_bytes: 1 << 20, resident_bytes: 1 << 20, descriptors: 10, threads: 3 };
        let second = Duration::from_secs(1);
        Seen {
            before: process_stats,
            under_load: process_stats,
            after: process_stats,
            alone: second,
            beside: second,
            ended: true,
            told: String::new(),
        }
    }

    fn scenario(keeps_speed: bool) -> Scenario {
        Scenario { keeps_speed, ..SCENARIOS[0] }
    }

    #[test]
    fn memory_descriptors_and_speed_are_judged() {
        assert_eq!(seen().verdict(&scenario(true), false), Ok(()));
        let mut large = seen();
        large.after.peak_bytes = CAP_BYTES + 1;
        assert!(large.verdict(&scenario(false), true).unwrap_err().contains("hold"));
        let mut leaky = seen();
        leaky.after.descriptors += DESCRIPTOR_SLACK + 1;
        assert!(leaky.verdict(&scenario(false), true).unwrap_err().contains("descriptors"));
        let hostile = scenarios::hostile(true)[0];
        assert_eq!(large.verdict(&hostile, true), Ok(()));
        let endless = Seen { ended: false, ..seen() };
        assert!(endless.verdict(&hostile, true).unwrap_err().contains("go on"));
        assert_eq!(endless.verdict(&scenario(false), true), Ok(()));
        let slow = Seen { beside: Duration::from_millis(1300), ..seen() };
        assert!(slow.verdict(&scenario(true), false).unwrap_err().contains("77 %"));
        assert_eq!(slow.verdict(&scenario(false), false), Ok(()));
        assert_eq!(slow.verdict(&scenario(true), true), Ok(()));
    }
}
