//! `cargo xtask load`: overloads a server and watches it from outside, and runs clients against servers that lie.
//!
//! Each scenario has a `shiplane serve` of its own, the real program in release, and peers that overload it or lie to it
//! (`crate::peers`) in another process. Beside them an honest peer gets a file, several times, and got it before as
//! often without them. A scenario passes if the server's memory stayed within the cap, its descriptors came back, every
//! copy is right and, where that is promised, the honest peer was hardly slower. All victims run with a limit on their
//! address space, so that one that is taken in harms nothing else here.

mod clients;
mod scenarios;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::driver::{Access, Server, Shiplane, Verb};
use xtask::process::Running;
use xtask::scratch::Scratch;
use xtask::{dataset, interrupt, tree, units};

pub(crate) use self::scenarios::CAP_BYTES;
use self::scenarios::Scenario;
use crate::peers::{Kind, name_of};
use crate::stats::ProcessStats;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use a tenth of the numbers and do not judge speed
    #[arg(long)]
    short: bool,
    /// Run only this scenario, or `hostile` for all lying peers, or one lie of the pushers
    #[arg(long)]
    only: Option<String>,
    /// Use this shiplane instead of building it
    #[arg(long)]
    shiplane: Option<PathBuf>,
}

/// Runs them all and prints the tables; an error if any has failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let is_wanted = |name: &str| args.only.as_ref().is_none_or(|only| only == name);
    let is_hostile = is_wanted(HOSTILE);
    let mut wanted = scenarios::hostile(args.short);
    wanted.retain(|scenario| is_hostile || is_wanted(&scenario.name()));
    wanted.extend(scenarios::others().into_iter().filter(|scenario| is_wanted(&scenario.name())));
    let names = scenarios::others().iter().map(Scenario::name).collect::<Vec<_>>().join(", ");
    ensure!(!wanted.is_empty(), "there is no such scenario; there are {HOSTILE}, their lies, {names}");
    let fixture = Fixture::set(args)?;
    let reports: Result<Vec<Report>> = std::thread::scope(|scope| {
        let clients = is_hostile.then(|| scope.spawn(|| clients::run(&fixture)));
        // Side by side if there is no time: clients sleep for most of it, waiting for the other side's patience.
        let early = if args.short { Some(fixture.play_all(&wanted)?) } else { None };
        let clients = clients.map(joined).transpose()?;
        let servers = early.map_or_else(|| fixture.play_all(&wanted), Ok)?;
        Ok(clients.into_iter().chain([servers]).collect())
    });
    let mut failed = Vec::new();
    for report in reports? {
        println!("\n{}", units::table(&report.rows));
        failed.extend(report.failed);
    }
    println!("a client may hold {}", units::bytes(CAP_BYTES));
    println!("speed is that of an honest get beside the load ÷ without it");
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// A table of what has become of each, and all that has failed.
struct Report {
    rows: Vec<Vec<String>>,
    failed: Vec<String>,
}

impl Report {
    fn new(heading: &str) -> Self {
        Self { rows: vec![units::cells(heading)], failed: Vec::new() }
    }

    fn add(&mut self, name: &str, verdict: Result<(), String>, cells: impl IntoIterator<Item = String>) {
        let shown = if verdict.is_ok() { "passed" } else { "failed" };
        self.rows.push(units::row([name, shown]).into_iter().chain(cells).collect());
        self.failed.extend(verdict.err().map(|reason| format!("{name}: {reason}")));
    }
}

pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Peers of a kind, not yet started: they end when their standard input does.
fn command(kind: Kind) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command
        .args(["peers", &name_of(kind)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(command)
}

/// Peers with keys that `server` knows.
pub(crate) fn command_to(kind: Kind, count: u64, server: &Server, keys: &Path) -> Result<Command> {
    let (id, address) = server.id_and_address()?;
    let mut command = command(kind)?;
    command.args(["--server", address, "--id", id, "--count", &count.to_string()]).arg("--keys").arg(keys);
    Ok(command)
}

/// A running load. Killed when dropped.
struct PeerProcess {
    running: Running,
    told: Vec<String>,
}

impl PeerProcess {
    /// Starts it and waits until all peers are connected.
    fn start(command: &mut Command) -> Result<Self> {
        let running = Running::start(PEERS, command)?;
        let Some(ready) = running.next_line(READY_LIMIT)? else { bail!("the peers do not start") };
        Ok(Self { running, told: vec![ready] })
    }

    /// What it said when it was ready.
    fn ready(&self) -> &str {
        &self.told[0]
    }

    /// Whether it has something to say before it is ended.
    fn says_something_within(&mut self, limit: Duration) -> Result<bool> {
        let line = self.running.next_line(limit)?;
        let says = line.is_some();
        self.told.extend(line);
        Ok(says)
    }

    /// Ends it and returns its report.
    fn stop(self) -> Result<String> {
        let Self { mut running, mut told } = self;
        running.close_stdin();
        told.extend(running.wait(END_LIMIT)?.expect_success(PEERS)?.lines);
        Ok(told.join(", "))
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
        let bytes = FILE_BYTES[usize::from(args.short)];
        scratch.expect_room(3 * bytes + ROOM_FOR_PUSHES_BYTES)?;
        let file = scratch.path().join("large");
        dataset::large_file(&file, bytes)?;
        let keys = scratch.path().join("keys");
        Ok(Self { shiplane, scratch, file, keys, short: args.short })
    }

    fn play_all(&self, scenarios: &[Scenario]) -> Result<Report> {
        let mut report = Report::new(HEADING);
        for scenario in scenarios {
            let name = scenario.name();
            println!("  {name}");
            let seen = self.play(scenario, &name);
            interrupt::check()?;
            match seen {
                Ok(seen) => report.add(&name, seen.verdict(scenario, self.short), seen.row(scenario)),
                Err(failure) => report.add(&name, Err(format!("{failure:#}")), []),
            }
        }
        Ok(report)
    }

    fn play(&self, scenario: &Scenario, name: &str) -> Result<Seen> {
        let home = self.scratch.directory(&format!("server of {name}"))?;
        crate::peers::make_keys(&home, &self.keys, KEYS)?;
        let served = self.scratch.directory(&format!("served to {name}"))?;
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
        let count = scenario.counts[usize::from(self.short)];
        let mut command = command_to(scenario.kind, count, server, &self.keys)?;
        command.args(scenario.lies.iter().flat_map(|lie| ["--lie".to_owned(), name_of(*lie)]));
        command.args(["--entries", ENTRIES[usize::from(self.short)]]);
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
            Running::start(GET, &mut command)?.wait(GET_LIMIT)?.expect_success(GET)?;
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

    fn row(&self, scenario: &Scenario) -> [String; 8] {
        let Self { before, under_load, after, .. } = self;
        [
            units::bytes(scenario.cap_bytes),
            units::bytes(before.peak_bytes),
            units::bytes(after.peak_bytes),
            units::bytes(after.resident_bytes),
            format!("{}, {}", before.descriptors, after.descriptors),
            format!("{}, {}", before.threads, under_load.threads),
            format!("{:.0} %", 100.0 * self.speed()),
            self.told.clone(),
        ]
    }
}

const HEADING: &str = "scenario|verdict|cap|peak before|peak|held after|descriptors before, after|\
    threads before, under load|speed|the load";

/// What `--only` calls all peers that lie.
const HOSTILE: &str = "hostile";

/// What a victim may map at most. Far more than its memory: each thread has address space set aside.
const ADDRESS_SPACE_BYTES: u64 = 4 << 30;

/// Of each push that lies about entries; and if there is no time.
const ENTRIES: [&str; 2] = ["4000", "1000"];

/// Four fifths of what it has alone.
const MUST_SPEED: f64 = 0.8;

/// A log, a socket of the runtime.
const DESCRIPTOR_SLACK: u64 = 2;

/// With at most 16 connections each, more than the thousand that come.
const KEYS: usize = 80;

const FILE_BYTES: [u64; 2] = [256 << 20, 32 << 20];

/// What unfinished pushes set aside.
const ROOM_FOR_PUSHES_BYTES: u64 = 1 << 30;

/// Honest runs, of which the median counts.
const RUNS: usize = 3;

const GET: &str = "an honest get";

/// Many times what it takes.
const GET_LIMIT: Duration = Duration::from_secs(60);

/// The idle timeout and some more: until then a peer that has gone may pass for a quiet one.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);

const PEERS: &str = "the peers";

/// Ten thousand handshakes that are not answered take their time.
const READY_LIMIT: Duration = Duration::from_secs(180);

const END_LIMIT: Duration = Duration::from_secs(30);
