//! `cargo xtask races`: while files arrive, a directory among them is exchanged with a link that leads outside, as
//! fast as the kernel does it. Nothing outside may change, and nothing from outside may be sent.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use walkdir::WalkDir;
use xtask::driver::{ANY_PORT, Server, Shiplane, Verb, last_error};
use xtask::process::{Ended, Running};
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

/// The arguments.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Swap only a few times
    #[arg(long)]
    short: bool,
    /// Number of swaps of directory and link during transfers
    #[arg(long, default_value_t = SWAPS)]
    swaps: u64,
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
    for role in Role::ALL {
        let share = if args.short { SHORT_SWAPS } else { args.swaps }.div_ceil(Role::ALL.len() as u64);
        let totals = race.series(role, share).with_context(|| role.name())?;
        swaps += totals.swaps;
        let [runs, well, refused] =
            [totals.well + totals.refused, totals.well, totals.refused].map(units::count);
        rows.push(units::row([role.name(), &runs, &well, &refused, &units::count(totals.swaps)]));
    }
    println!("\n{}", units::table(&rows));
    println!("{} swaps: nothing outside has changed, and nothing from there was sent.", units::count(swaps));
    Ok(())
}

/// Where the directory is that is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Get,
    Push,
    Sync,
    /// In what is sent.
    Served,
}

impl Role {
    const ALL: [Self; 4] = [Self::Get, Self::Push, Self::Sync, Self::Served];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "what `get` writes",
            Self::Push => "what `push` writes",
            Self::Sync => "what `sync` writes",
            Self::Served => "what is served",
        }
    }
}

impl Role {
    fn verb(self) -> Verb {
        match self {
            Self::Get | Self::Served => Verb::Get,
            Self::Push => Verb::Push,
            Self::Sync => Verb::Sync,
        }
    }
}

#[derive(Default)]
struct Totals {
    well: u64,
    refused: u64,
    swaps: u64,
}

struct Race<'a> {
    shiplane: &'a Shiplane,
    root: PathBuf,
    /// Of what is outside, as it must stay.
    outside: BTreeMap<PathBuf, Seen>,
}

/// All of a file that can change: inode, mode, links, its times in seconds and nanoseconds, and its content.
type Seen = ([i64; 7], Vec<u8>);

impl<'a> Race<'a> {
    fn new(shiplane: &'a Shiplane, scratch: &Scratch) -> Result<Self> {
        let root = scratch.path().to_path_buf();
        write_files(&root.join("new").join(TREE), "new")?;
        write_files(&root.join("old").join(TREE), "old and shorter or longer")?;
        // The same names as in the directory that it takes the place of.
        write_files(&root.join("outside"), "outside")?;
        let outside = seen(&root.join("outside"))?;
        for directory in ["client", "server", "run", "parking"] {
            fs::create_dir(root.join(directory)).context("cannot make a directory")?;
        }
        symlink(root.join("outside").join(SWAPPED), root.join("parking/link")).context("cannot link")?;
        Ok(Self { shiplane, root, outside })
    }

    fn series(&self, role: Role, swaps: u64) -> Result<Totals> {
        println!("swapping links into {}", role.name());
        let mut totals = Totals::default();
        let began = Instant::now();
        // Each of the paces has its turns.
        let runs = (swaps / SWAPS_A_RUN).clamp(PAUSES.len() as u64, MAX_RUNS);
        while totals.swaps < swaps || totals.well + totals.refused < runs {
            interrupt::check()?;
            ensure!(began.elapsed() < SERIES_LIMIT, "only {} swaps in {:?}", totals.swaps, SERIES_LIMIT);
            let round = totals.well + totals.refused;
            self.reset()?;
            let server = self.serve(role)?;
            let swapper = Swapper::start(
                &self.swapped(role),
                &self.root.join("parking/link"),
                PAUSES[round as usize % PAUSES.len()],
            );
            let ended = Running::heard(role.name(), &mut self.client(role, server.ticket()))?.wait(LIMIT);
            totals.swaps += swapper.stop()?;
            let is_well = judge(&ended?)?;
            totals.well += u64::from(is_well);
            totals.refused += u64::from(!is_well);
            self.expect_untouched(role)?;
            ensure!(!server.running().has_ended()?, "the server has ended");
            server.stop()?;
            self.expect_untouched(role)?;
        }
        println!(
            "  {} runs, {} swaps, {}",
            totals.well + totals.refused,
            totals.swaps,
            units::seconds(began.elapsed())
        );
        Ok(totals)
    }

    fn reset(&self) -> Result<()> {
        let run = self.root.join("run");
        tree::remove(&run)?;
        for (from, to) in [("new", "sent"), ("old", "landing"), ("new", "ours")] {
            tree::copy(&self.root.join(from), &run.join(to))?;
        }
        Ok(())
    }

    fn serve(&self, role: Role) -> Result<Server> {
        let run = self.root.join("run");
        let side = if role.verb() == Verb::Get { "sent" } else { "landing" };
        let (root, home) = (run.join(side), self.root.join("server"));
        let mut command = self.shiplane.serve_command(ANY_PORT, &root, &home, role.verb().access());
        command.args((role.verb() != Verb::Get).then_some("--attributes"));
        Server::start(&mut command)
    }

    fn client(&self, role: Role, ticket: &str) -> Command {
        let run = self.root.join("run");
        let local = match role.verb() {
            Verb::Get => run.join("landing"),
            Verb::Push => run.join("sent").join(TREE),
            // The two have never met: of each file both versions stay, on both sides.
            Verb::Sync => run.join("ours"),
        };
        let mut command = self.shiplane.client(role.verb(), &local, ticket, &self.root.join("client"));
        command.args((role.verb() != Verb::Sync).then_some("--overwrite"));
        command.args(["--json", "--attributes", "--chunk", "64K"]);
        command
    }

    fn swapped(&self, role: Role) -> PathBuf {
        let side = if role == Role::Served { "sent" } else { "landing" };
        self.root.join("run").join(side).join(TREE).join(SWAPPED)
    }

    /// Outside all is as it was, and what has arrived is not from there.
    fn expect_untouched(&self, role: Role) -> Result<()> {
        let now = seen(&self.root.join("outside"))?;
        if now != self.outside {
            let changed = now.iter().filter(|(path, seen)| self.outside.get(*path) != Some(*seen));
            let changed: Vec<_> = changed.map(|(path, _)| path).collect();
            bail!("outside, these have changed or are new: {changed:?}; {} were there", self.outside.len());
        }
        if role == Role::Served {
            let [landing, old, new] = ["run/landing", "old", "new"].map(|name| self.root.join(name));
            tree::expect_old_or_new(&landing, &old, &new).context("what was sent")?;
        }
        Ok(())
    }
}

/// Whether the run ended well. One that ended otherwise must say why.
fn judge(ended: &Ended) -> Result<bool> {
    ensure!(!ended.said.contains("panicked"), "it panicked: {}", ended.said);
    match ended.code {
        Some(0) => return Ok(true),
        Some(1 | 5 | 6 | 7 | 9) => {}
        code => bail!("it ended with {code:?}: {}", ended.said),
    }
    last_error(&ended.lines)?;
    Ok(false)
}

/// Exchanges a directory with a link, over and over.
struct Swapper {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Swapper {
    fn start(directory: &Path, link: &Path, pause: Duration) -> Self {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let (directory, link) = (directory.to_path_buf(), link.to_path_buf());
        let thread = std::thread::spawn(move || {
            // An even number, so that the directory is back in the end.
            while !stopped.load(Ordering::Relaxed) || counted.load(Ordering::Relaxed) % 2 == 1 {
                let swapped = renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE);
                swapped.context("cannot exchange a directory and a link")?;
                counted.fetch_add(1, Ordering::Relaxed);
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
            Ok(())
        });
        Self { stop, count, thread }
    }

    /// How often it has.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the swapping thread panicked"))??;
        Ok(self.count.load(Ordering::Relaxed))
    }
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

fn seen(root: &Path) -> Result<BTreeMap<PathBuf, Seen>> {
    let mut all = BTreeMap::new();
    for entry in WalkDir::new(root) {
        let entry = entry.context("cannot look outside")?;
        let found = entry.metadata().context("cannot look outside")?;
        let content = match found.is_file() {
            true => fs::read(entry.path()).context("cannot look outside")?,
            false => Vec::new(),
        };
        let [inode, links] = [found.ino(), found.nlink()].map(u64::cast_signed);
        let (mode, [mtime, ctime]) = (found.mode().into(), [found.mtime(), found.ctime()]);
        let numbers = [inode, mode, links, mtime, found.mtime_nsec(), ctime, found.ctime_nsec()];
        all.insert(entry.into_path(), (numbers, content));
    }
    Ok(all)
}

const TREE: &str = "tree";

/// In the tree.
const SWAPPED: &str = "within";

/// In each directory: as many as take some lookups.
const FILES: usize = 20;

/// As fast as it goes, and slow enough that a lookup meets but one.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_micros(20), Duration::from_micros(200), Duration::from_millis(1)];

const SWAPS: u64 = 100_000;

const SHORT_SWAPS: u64 = 4_000;

/// For so many of the swaps there is one run at least.
const SWAPS_A_RUN: u64 = 250;

/// Per place: more are not asked for.
const MAX_RUNS: u64 = 100;

/// Against a hang.
const LIMIT: Duration = Duration::from_secs(600);

/// Against a machine that swaps nothing.
const SERIES_LIMIT: Duration = Duration::from_secs(1800);
