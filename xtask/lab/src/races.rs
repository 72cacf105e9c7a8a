//! `cargo xtask races`: while files arrive, a directory among them is exchanged with a link that leads outside, as
//! fast as the kernel does it. Nothing outside may change, and nothing from outside may be sent.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use walkdir::WalkDir;
use xtask::driver::{ANY_PORT, Shiplane, last_error};
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use crate::fixture::{Fixture, LIMIT, OURS, Role, THEIRS, TREE, expect_end};
use crate::load::joined;

/// The arguments.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Swap only a few times
    #[arg(long)]
    short: bool,
    /// Program to test [default: the release build of this tree]
    #[arg(long, value_name = "PATH")]
    shiplane: Option<PathBuf>,
}

/// Runs each of the four until there were enough swaps, and prints what they came to.
pub(crate) fn run(args: &Args) -> Result<()> {
    let shiplane = Shiplane::built(args.shiplane.as_deref())?;
    let scratch = Scratch::new("shiplane-races-", None)?;
    let race = Race::new(&shiplane, &scratch)?;
    let mut rows = vec![units::row(["links swapped into", "runs", "ended well", "refused", "swaps"])];
    let mut swaps = 0;
    for (name, role, side) in EXPOSED {
        let share = if args.short { SHORT_SWAPS } else { SWAPS }.div_ceil(EXPOSED.len() as u64);
        println!("swapping links into {name}");
        let [runs, well, swapped] = race.series(role, side, share).context(name)?;
        swaps += swapped;
        let [runs, well, refused, swapped] = [runs, well, runs - well, swapped].map(units::count);
        rows.push(units::row([name, &runs, &well, &refused, &swapped]));
    }
    println!("\n{}", units::table(&rows));
    println!("{} swaps: nothing outside has changed, and nothing from there was sent.", units::count(swaps));
    Ok(())
}

/// On which side the directory is that is exchanged, or else in what is served.
const EXPOSED: [(&str, Role, Option<&str>); 4] = [
    ("what `get` writes", Role::Get, Some(OURS)),
    ("what `push` writes", Role::Push, Some(THEIRS)),
    ("what `sync` writes", Role::SyncAsked, Some(THEIRS)),
    ("what is served", Role::Get, None),
];

struct Race<'a> {
    fixture: Fixture<'a>,
    /// When each name outside was last changed in any way (ctime, which no program can set).
    outside: BTreeMap<PathBuf, (i64, i64)>,
}

impl<'a> Race<'a> {
    fn new(shiplane: &'a Shiplane, scratch: &Scratch) -> Result<Self> {
        let fixture = Fixture::new(shiplane, scratch, None, |new, old| {
            write_files(new, "new")?;
            write_files(old, "old and shorter or longer")
        })?;
        // The two have never met: of each file both versions stay, on both sides.
        tree::copy(&fixture.at("fresh"), &fixture.at("synced"))?;
        tree::remove(&fixture.at("synced").join(OURS))?;
        tree::copy(&fixture.at("new"), &fixture.at("synced").join(OURS))?;
        // The same names as in the directory that it takes the place of.
        write_files(&fixture.at("outside"), "outside")?;
        symlink(fixture.at("outside").join(SWAPPED), fixture.at("link")).context("cannot link")?;
        let outside = changes(&fixture.at("outside"))?;
        Ok(Self { fixture, outside })
    }

    /// Gives how many runs there were, how many ended well, and how many swaps.
    fn series(&self, role: Role, side: Option<&str>, most_swaps: u64) -> Result<[u64; 3]> {
        let fixture = &self.fixture;
        let root = side.map_or_else(|| fixture.at("new"), |side| fixture.run().join(side));
        let (directory, link) = (root.join(TREE).join(SWAPPED), fixture.at("link"));
        let (mut runs, mut well, mut swaps) = (0, 0, 0);
        let began = Instant::now();
        // Each of the paces has its turns.
        let most_runs = (most_swaps / SWAPS_A_RUN).clamp(PAUSES.len() as u64, MAX_RUNS);
        while swaps < most_swaps || runs < most_runs {
            interrupt::check()?;
            ensure!(began.elapsed() < SERIES_LIMIT, "only {swaps} swaps in {SERIES_LIMIT:?}");
            fixture.reset(role)?;
            let server = fixture.serve(role, ANY_PORT)?;
            let (pause, stop) = (PAUSES[runs as usize % PAUSES.len()], AtomicBool::new(false));
            let (ended, swapped) = std::thread::scope(|scope| {
                let swapping = scope.spawn(|| swap(&directory, &link, pause, &stop));
                let client = fixture.start_client(role, server.ticket());
                let ended = client.and_then(|client| client.wait(LIMIT));
                stop.store(true, Ordering::Relaxed);
                (ended, joined(swapping))
            });
            swaps += swapped?;
            // One that does not end well must say why.
            let ended = expect_end(ended?, &[0, 1, 5, 6, 7, 9])?;
            match ended.code {
                Some(0) => well += 1,
                _ => drop(last_error(&ended.lines)?),
            }
            runs += 1;
            self.expect_untouched()?;
            if side.is_none() {
                fixture.expect_old_or_new(role).context("what was sent")?;
            }
            ensure!(!server.running().has_ended()?, "the server has ended");
            server.stop()?;
            self.expect_untouched()?;
        }
        let time = units::seconds(began.elapsed());
        println!("  {runs} runs, {swaps} swaps, {time}");
        Ok([runs, well, swaps])
    }

    /// Outside all is as it was.
    fn expect_untouched(&self) -> Result<()> {
        let now = changes(&self.fixture.at("outside"))?;
        if now != self.outside {
            let changed = now.iter().filter(|(path, at)| self.outside.get(*path) != Some(*at));
            let changed: Vec<_> = changed.map(|(path, _)| path).collect();
            bail!("outside, these have changed or are new: {changed:?}; {} were there", self.outside.len());
        }
        Ok(())
    }
}

/// Exchanges a directory with a link, over and over; how often it has.
fn swap(directory: &Path, link: &Path, pause: Duration, stop: &AtomicBool) -> Result<u64> {
    let mut swaps = 0_u64;
    // An even number, so that the directory is back in the end.
    while !stop.load(Ordering::Relaxed) || !swaps.is_multiple_of(2) {
        let swapped = renameat_with(CWD, directory, CWD, link, RenameFlags::EXCHANGE);
        swapped.context("cannot exchange a directory and a link")?;
        swaps += 1;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    Ok(swaps)
}

/// Files in the directory that is exchanged, beneath it and beside it.
fn write_files(root: &Path, text: &str) -> Result<()> {
    for directory in [SWAPPED.to_owned(), format!("{SWAPPED}/deeper/still"), "beside".to_owned()] {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).context("cannot make a directory")?;
        for number in 0..FILES {
            let content = format!("{text} {number} ").repeat(100 + number * 10);
            let file = directory.join(format!("{number}.txt"));
            fs::write(&file, content).context("cannot write a file")?;
            tree::set_attribute(&file, "user.text", text.as_bytes())?;
        }
        tree::set_attribute(&directory, "user.text", text.as_bytes())?;
        fs::write(directory.join("large.bin"), text.repeat(40_000)).context("cannot write a file")?;
    }
    Ok(())
}

fn changes(root: &Path) -> Result<BTreeMap<PathBuf, (i64, i64)>> {
    let changed = |entry: walkdir::Result<walkdir::DirEntry>| {
        let entry = entry?;
        let found = entry.metadata()?;
        Ok((entry.into_path(), (found.ctime(), found.ctime_nsec())))
    };
    WalkDir::new(root).into_iter().map(changed).collect::<Result<_>>().context("cannot look outside")
}

/// In the tree.
const SWAPPED: &str = "within";

/// In each directory: as many as take some lookups.
const FILES: usize = 20;

/// As fast as it goes, and slow enough that a lookup meets but one.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_micros(20), Duration::from_micros(200), Duration::from_millis(1)];

const SWAPS: u64 = 100_000;

const SHORT_SWAPS: u64 = 4_000;

/// There is at least one run for this number of swaps.
const SWAPS_A_RUN: u64 = 250;

/// Per place: more are not asked for.
const MAX_RUNS: u64 = 100;

/// Against a machine that swaps nothing.
const SERIES_LIMIT: Duration = Duration::from_secs(1800);
