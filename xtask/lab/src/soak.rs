//! `cargo xtask soak`: keeps a server busy and checks that its resource use stays flat.
//!
//! One `shiplane serve --writable`, the real program in release, and two clients at a time that get, push, sync and
//! call, in an order and with content that a seed decides. Some are killed or interrupted on the way, and the server
//! is twice, early on. What ends in success is compared, byte by byte. All the while the server's memory,
//! descriptors and threads are looked at, and what lies in its directories; at the end the last quarter of its last
//! life must be as the first was. Needs Linux's `/proc`.

mod client;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use testlink::Rng;
use walkdir::WalkDir;
use xtask::dataset::{self, Size};
use xtask::driver::{Access, Server, Shiplane};
use xtask::process::Signal;
use xtask::scratch::Scratch;
use xtask::{interrupt, units};

use self::client::Client;
use crate::load;
use crate::stats::ProcessStats;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Duration
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Run for five seconds, without silent kills and without judging slow growth
    #[arg(long)]
    short: bool,
    /// Use this shiplane instead of building it
    #[arg(long)]
    shiplane: Option<PathBuf>,
}

/// Keeps the server busy, prints the tables; an error if anything grew, differed or failed that should not have.
pub(crate) fn run(args: &Args) -> Result<()> {
    let shiplane = Shiplane::built(args.shiplane.as_deref())?;
    let scratch = Scratch::in_memory("shiplane-soak-")?;
    scratch.expect_room(ROOM_BYTES)?;
    let soak = Soak::set(args, shiplane, &scratch)?;
    let before = ProcessStats::of(soak.life.lock().server.running().pid())?;
    let watched = soak.run(args);
    let Soak { life, totals, .. } = soak;
    let server = life.into_inner().server;
    let looks = watched.map_err(|failure| server.with_log(&failure))?;
    let totals = totals.into_inner();
    let totals = totals.into_iter().map(|(how, count)| vec![how.to_owned(), units::count(count)]);
    println!("\n{}", units::table(&totals.collect::<Vec<_>>()));
    if args.short {
        // Until it has given back its descriptors.
        let (before, after) = (before.descriptors, load::settled(&server, before)?.descriptors);
        ensure!(after <= before + SLACK, "{before} descriptors before, {after} after");
    } else {
        let (rows, grown) = compare(&looks).context("too short a life to be judged")?;
        println!("\n{}", units::table(&rows));
        ensure!(grown.is_empty(), "not flat: {}", grown.join(", "));
    }
    let peak_bytes = ProcessStats::of(server.running().pid())?.peak_bytes;
    ensure!(peak_bytes <= load::CAP_BYTES, "the server came to hold {}", units::bytes(peak_bytes));
    server.stop().map(drop)
}

/// A soak under way.
struct Soak {
    shiplane: Shiplane,
    /// Where everything is.
    root: PathBuf,
    life: Mutex<Life>,
    /// How the clients ended.
    totals: Mutex<BTreeMap<&'static str, u64>>,
    is_over: AtomicBool,
    is_short: bool,
}

/// One life of the server.
struct Life {
    server: Server,
    number: u64,
}

impl Soak {
    fn set(args: &Args, shiplane: Shiplane, scratch: &Scratch) -> Result<Self> {
        let tree = scratch.directory(SERVED)?.join("tree");
        fs::create_dir(&tree).context("cannot make the tree that is served")?;
        dataset::make(&tree, TREE)?;
        let root = scratch.path().to_path_buf();
        crate::peers::make_keys(&root.join(STATE), &root.join("keys"), KEYS)?;
        let server = shiplane.serve(&root.join(SERVED), &root.join(STATE), Access::Write)?;
        let (life, totals) = (Life { server, number: 0 }.into(), Mutex::default());
        Ok(Self { shiplane, root, life, totals, is_over: AtomicBool::new(false), is_short: args.short })
    }

    /// Keeps the clients at work, and looks at the last life of the server.
    fn run(&self, args: &Args) -> Result<Vec<Look>> {
        let mut noise = Rng::new(SEED);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| (number, noise.fork()))
                .map(|(number, noise)| scope.spawn(move || Client::new(self, number, noise)?.run()))
                .collect();
            let length = if args.short { SHORT } else { Duration::from_secs(60 * args.minutes) };
            let watched = self.watch(length, &mut noise, &clients);
            self.is_over.store(true, Ordering::Relaxed);
            clients.into_iter().try_for_each(load::joined)?;
            watched
        })
    }

    fn watch(
        &self,
        length: Duration,
        noise: &mut Rng,
        clients: &[ScopedJoinHandle<'_, Result<()>>],
    ) -> Result<Vec<Look>> {
        let started = Instant::now();
        // Early, so that one long life is left to be judged.
        let mut deaths = if self.is_short { Vec::new() } else { vec![length / 6, length / 12] };
        let (mut looks, mut minutes) = (Vec::new(), 0);
        while started.elapsed() < length && !clients.iter().any(ScopedJoinHandle::is_finished) {
            interrupt::check()?;
            std::thread::sleep(LOOK_EVERY);
            if deaths.pop_if(|at| started.elapsed() > *at).is_some() {
                self.restart(noise)?;
                looks.clear();
            }
            let stats = ProcessStats::of(self.life.lock().server.running().pid())?;
            let ProcessStats { resident_bytes, descriptors, threads, .. } = stats;
            looks.push([resident_bytes, descriptors, threads, leftovers(&self.root.join(SERVED))]);
            if minutes < started.elapsed().as_secs() / 60 {
                minutes = started.elapsed().as_secs() / 60;
                let held = units::bytes(resident_bytes);
                println!("  minute {minutes}: {held}, {descriptors} descriptors, {threads} threads");
            }
        }
        Ok(looks)
    }

    /// Ends the server, in order or not, with clients at work, and starts it anew.
    fn restart(&self, noise: &mut Rng) -> Result<()> {
        let mut life = self.life.lock();
        life.server.running().signal(noise.pick(&[Signal::Kill, Signal::Interrupt]))?;
        ensure!(life.server.running().ends_within(END_LIMIT)?, "the server does not end");
        let (served, state) = (self.root.join(SERVED), self.root.join(STATE));
        life.server = self.shiplane.serve(&served, &state, Access::Write)?;
        life.number += 1;
        self.count("restarts of the server");
        Ok(())
    }

    fn count(&self, how: &'static str) {
        *self.totals.lock().entry(how).or_default() += 1;
    }
}

/// What interrupted pushes and syncs have left beside the files.
fn leftovers(root: &Path) -> u64 {
    // What vanishes while it is looked at is no leftover.
    let entries = WalkDir::new(root).into_iter().filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(OURS)).count() as u64
}

/// A look at a server: what each of [`FIGURES`] is.
type Look = [u64; FIGURES.len()];

/// What is looked at: its name, how it is shown, and what may come on top of a tenth.
type Figure = (&'static str, fn(u64) -> String, u64);

/// Of the looks at one life of a server, a table of the medians of the quarters, and the figures whose median in the last
/// quarter is over that in the first by more than a tenth and its slack. None if the life was too short to say anything.
/// The first tenth of it does not count: a server warms up.
fn compare(looks: &[Look]) -> Option<(Vec<Vec<String>>, Vec<&'static str>)> {
    let warm = &looks[looks.len() / 10..];
    let quarter = warm.len() / 4;
    if quarter < MIN_LOOKS {
        return None;
    }
    let mut rows = vec![units::row(["", "first quarter", "last quarter", "most", "verdict"])];
    let mut grown = Vec::new();
    for (number, (name, show, slack)) in FIGURES.into_iter().enumerate() {
        let sorted = |looks: &[Look]| {
            let mut figures: Vec<_> = looks.iter().map(|look| look[number]).collect();
            figures.sort_unstable();
            figures
        };
        let [first, last] =
            [&warm[..quarter], &warm[warm.len() - quarter..]].map(|looks| sorted(looks)[quarter / 2]);
        let most = sorted(looks).last().copied().unwrap_or_default();
        let is_flat = last <= first + first / 10 + slack;
        let [first, last, most] = [first, last, most].map(show);
        rows.push(units::row([name, &first, &last, &most, if is_flat { "flat" } else { "grew" }]));
        grown.extend((!is_flat).then_some(name));
    }
    Some((rows, grown))
}

/// 4 MiB: what an allocator keeps differs from hour to hour. 8: as many things as two clients have under way.
const FIGURES: [Figure; 4] = [
    ("memory", units::bytes, 4 << 20),
    ("descriptors", units::count, 8),
    ("threads", units::count, 8),
    ("leftovers", units::count, 8),
];

/// In a quarter: below that a median says little.
const MIN_LOOKS: usize = 5;

/// How our journals and temporary files begin.
const OURS: &str = ".shiplane-";

const SERVED: &str = "served";
const STATE: &str = "server";

/// Some files, so that a transfer is many chunks and short enough for many transfers.
const TREE: Size = Size { large_bytes: 12 << 20, small_files: 100, directories: 5 };

const ROOM_BYTES: u64 = 512 << 20;

/// In `cargo xtask ci`.
const SHORT: Duration = Duration::from_secs(5);

/// Draining waits for running transfers, whose clients it tells.
const END_LIMIT: Duration = Duration::from_secs(40);

/// A log, a socket of the runtime.
const SLACK: u64 = 2;

const KEYS: usize = 4;

/// Of the order, the content and the times of kills.
const SEED: u64 = 1;

/// At a time.
const CLIENTS: u64 = 2;

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(seconds: u64, resident_bytes: impl Fn(u64) -> u64) -> Option<Vec<&'static str>> {
        let looks: Vec<_> = (0..seconds).map(|second| [resident_bytes(second), 20, 0, 3]).collect();
        compare(&looks).map(|(_, grown)| grown)
    }

    #[test]
    fn what_stays_or_swings_is_flat_and_what_grows_is_named_however_slowly() {
        assert_eq!(grown(400, |_| 30 << 20), Some(vec![]));
        assert_eq!(grown(400, |second| (30 << 20) + ((second % 7) << 20)), Some(vec![]));
        // It warms up.
        assert_eq!(grown(400, |second| (second.min(30) + 5) << 20), Some(vec![]));
        assert_eq!(grown(400, |second| (30 << 20) + (second << 15)), Some(vec!["memory"]));
        assert_eq!(grown(10, |_| 0), None);
    }
}
