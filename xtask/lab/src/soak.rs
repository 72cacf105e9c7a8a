//! `cargo xtask soak`: keeps a server busy and checks that its resource use stays flat.
//!
//! One `shiplane serve --writable`, the real program in release, and two clients at a time that get, push, sync and
//! call, in an order and with content that the seed decides. Some are killed or interrupted on the way, and the server
//! is twice, early on. What ends in success is compared, byte by byte. All the while the server's memory,
//! descriptors and threads are looked at, and what lies in its directories; at the end the last quarter of its last
//! life must be as the first was. Needs Linux's `/proc`.

mod flat;
mod jobs;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use testlink::Rng;
use walkdir::WalkDir;
use xtask::dataset::{self, Size};
use xtask::driver::{Access, Server, Shiplane};
use xtask::process::Signal;
use xtask::scratch::Scratch;
use xtask::{interrupt, units};

use self::flat::Series;
use self::jobs::{Ended, Job, Kind, Workshop};
use crate::load;
use crate::stats::ProcessStats;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Duration
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Seed of the order, content and kill times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run for five seconds, without silent kills and without judging slow growth
    #[arg(long)]
    short: bool,
    /// Use this shiplane instead of building it
    #[arg(long)]
    shiplane: Option<PathBuf>,
}

/// Keeps the server busy, prints the table; an error if anything grew, differed or failed that should not have.
pub(crate) fn run(args: &Args) -> Result<()> {
    let shiplane = Shiplane::built(args.shiplane.as_deref())?;
    let scratch = Scratch::in_memory("shiplane-soak-")?;
    scratch.expect_room(ROOM_BYTES)?;
    let mut soak = Soak::set(args, &shiplane, &scratch)?;
    let length = if args.short { SHORT } else { Duration::from_secs(60 * args.minutes) };
    soak.run(length).map_err(|failure| soak.server.with_log(&failure))?;
    soak.judge()
}

/// A soak under way.
struct Soak<'a> {
    shiplane: &'a Shiplane,
    workshop: Workshop<'a>,
    server: Server,
    served: PathBuf,
    state: PathBuf,
    noise: Rng,
    series: Series,
    totals: Totals,
    /// The other side of a sync that was killed keeps its place until it finds out.
    sync_from: Instant,
    short: bool,
    before: ProcessStats,
    /// What has been told of.
    minutes: u64,
}

/// How the clients ended.
#[derive(Debug, Default)]
struct Totals {
    done: [u64; jobs::KINDS],
    killed: u64,
    interrupted: u64,
    with_server: u64,
    restarts: u64,
}

impl<'a> Soak<'a> {
    fn set(args: &Args, shiplane: &'a Shiplane, scratch: &'a Scratch) -> Result<Self> {
        let served = scratch.directory("served")?;
        let tree = served.join("tree");
        fs::create_dir(&tree).context("cannot make the tree that is served")?;
        dataset::make(&tree, TREE)?;
        let state = scratch.directory("server")?;
        let keys = scratch.path().join("keys");
        crate::peers::make_keys(&state, &keys, KEYS).map_err(|failure| anyhow!("{failure}"))?;
        let server = shiplane.serve(&served, &state, Access::Write)?;
        let before = ProcessStats::of(server.running().pid())?;
        Ok(Self {
            shiplane,
            workshop: Workshop::set(shiplane, scratch, &served, keys, !args.short)?,
            server,
            served,
            state,
            noise: Rng::new(args.seed),
            series: Series::default(),
            totals: Totals::default(),
            sync_from: Instant::now(),
            short: args.short,
            before,
            minutes: 0,
        })
    }

    fn run(&mut self, length: Duration) -> Result<()> {
        let started = Instant::now();
        // Early, so that one long life is left to be judged.
        let mut deaths = if self.short { Vec::new() } else { vec![length / 6, length / 12] };
        let mut look = started;
        let mut awake = started;
        let mut jobs: Vec<Job> = Vec::new();
        while started.elapsed() < length {
            interrupt::check()?;
            if awake.elapsed() > PAUSE {
                // We were stopped, and so were they: to each other they were gone.
                jobs.iter_mut().for_each(Job::expect_loss);
                self.sync_from = Instant::now() + SYNC_PAUSE;
                look = Instant::now() + LOOK_EVERY;
            }
            awake = Instant::now();
            while jobs.len() < CLIENTS {
                let busy: Vec<_> = jobs.iter().map(Job::place).collect();
                let may_sync = self.sync_from <= Instant::now();
                jobs.push(self.workshop.start(&self.server, &mut self.noise, &busy, may_sync)?);
            }
            if deaths.last().is_some_and(|at| started.elapsed() > *at) {
                deaths.pop();
                self.restart(&mut jobs)?;
            }
            self.reap(&mut jobs)?;
            if look <= Instant::now() {
                self.look(started.elapsed())?;
                look += LOOK_EVERY;
            }
            std::thread::sleep(POLL);
        }
        // None of those that are left dies any more.
        for job in jobs {
            let ended = job.end(&self.workshop)?;
            self.note(ended);
        }
        Ok(())
    }

    /// Says once a minute what it has seen.
    fn look(&mut self, elapsed: Duration) -> Result<()> {
        let process_stats = ProcessStats::of(self.server.running().pid())?;
        self.series.push(process_stats, leftovers(&self.served));
        if self.minutes < elapsed.as_secs() / 60 {
            self.minutes = elapsed.as_secs() / 60;
            let (minutes, held) = (self.minutes, units::bytes(process_stats.resident_bytes));
            let (descriptors, threads) = (process_stats.descriptors, process_stats.threads);
            println!("  minute {minutes}: {held}, {descriptors} descriptors, {threads} threads");
        }
        Ok(())
    }

    fn reap(&mut self, jobs: &mut Vec<Job>) -> Result<()> {
        let mut at = 0;
        while at < jobs.len() {
            if jobs[at].has_ended()? {
                let ended = jobs.swap_remove(at).end(&self.workshop)?;
                self.note(ended);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    fn note(&mut self, ended: Ended) {
        match ended {
            Ended::Done(kind) => self.totals.done[kind as usize] += 1,
            Ended::Died(kind, signal) => {
                if kind == Kind::Sync {
                    self.sync_from = Instant::now() + SYNC_PAUSE;
                }
                let is_kill = signal == Signal::Kill;
                *if is_kill { &mut self.totals.killed } else { &mut self.totals.interrupted } += 1;
            }
            Ended::WithServer => self.totals.with_server += 1,
        }
    }

    /// Ends the server, in order or not, with clients at work, and starts it anew.
    fn restart(&mut self, jobs: &mut Vec<Job>) -> Result<()> {
        jobs.iter_mut().for_each(Job::expect_loss);
        let signal = if self.noise.between(0, 2) == 0 { Signal::Kill } else { Signal::Interrupt };
        self.server.running().signal(signal)?;
        ensure!(self.server.running().ends_within(END_LIMIT)?, "the server does not end");
        for job in jobs.drain(..) {
            let ended = job.end(&self.workshop)?;
            self.note(ended);
        }
        self.server = self.shiplane.serve(&self.served, &self.state, Access::Write)?;
        self.totals.restarts += 1;
        self.series = Series::default();
        Ok(())
    }

    fn judge(self) -> Result<()> {
        let Self { server, series, totals, workshop, .. } = self;
        println!("{totals}");
        let equal = workshop.compare_syncs(&server);
        let judged = if self.short {
            settle(&server, self.before)
        } else {
            println!("\n{}", units::table(&series.rows()));
            series.judge()
        };
        server.stop()?;
        judged?;
        equal
    }
}

/// Waits until the server has given back its descriptors, and looks at the most that it has held.
fn settle(server: &Server, before: ProcessStats) -> Result<()> {
    let now = load::settled(server, before)?;
    let (before, after) = (before.descriptors, now.descriptors);
    ensure!(after <= before + SLACK, "{before} descriptors before, {after} after");
    flat::expect_within_cap(now)
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { done: [get, push, sync, calls], killed, interrupted, with_server, restarts } = self;
        write!(
            f,
            "whole and equal: {get} gets, {push} pushes, {sync} syncs, and {calls} times 1,000 calls and 3,200 at a \
             time by 64; {killed} clients killed, {interrupted} interrupted, {with_server} lost with the server in {restarts} restarts, or in pauses"
        )
    }
}

/// What interrupted pushes and syncs have left beside the files.
fn leftovers(root: &Path) -> u64 {
    // What vanishes while it is looked at is no leftover.
    let entries = WalkDir::new(root).into_iter().filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(OURS)).count() as u64
}

/// How our journals and temporary files begin.
const OURS: &str = ".shiplane-";

/// Some files, so that a transfer is many chunks and short enough for many transfers.
const TREE: Size = Size { large_bytes: 12 << 20, small_files: 100, directories: 5 };

const ROOM_BYTES: u64 = 512 << 20;

/// In `cargo xtask ci`.
const SHORT: Duration = Duration::from_secs(5);

/// Draining waits for running transfers, whose clients it tells.
const END_LIMIT: Duration = Duration::from_secs(40);

/// Longer than any step of ours: the machine slept, or somebody stopped us.
const PAUSE: Duration = Duration::from_secs(5);

/// A log, a socket of the runtime.
const SLACK: u64 = 2;

const KEYS: usize = 4;

/// At a time.
const CLIENTS: usize = 2;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The idle timeout and some more.
const SYNC_PAUSE: Duration = Duration::from_secs(33);

const POLL: Duration = Duration::from_millis(5);
