//! Longer transfers that something befalls at a random moment: one side is killed, or the receiver's power is cut.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use filetime::FileTime;
use testlink::Rng;
use walkdir::WalkDir;
use xtask::dataset::{self, Size};
use xtask::driver::{ANY_PORT, Shiplane};
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use crate::fixture::{BadEnd, Fixture, Role};
use crate::suspend::SuspendDetector;

/// Transfers of a large file and many small ones, of which some replace others.
pub(super) struct Transfers<'a> {
    pub(super) fixture: Fixture<'a>,
    pub(super) noise: Rng,
    pub(super) totals: Totals,
    pub(super) bytes: u64,
}

/// What has become of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    /// It befell them before they were done.
    pub(super) under_way: u64,
    /// What the runs after those had to send.
    pub(super) again_bytes: u64,
}

impl<'a> Transfers<'a> {
    /// They take place in `run`, or else in the scratch directory.
    pub(super) fn new(
        shiplane: &'a Shiplane,
        scratch: &Scratch,
        run: Option<&Path>,
        seed: u64,
    ) -> Result<Self> {
        scratch.expect_room(6 * SIZE.room_bytes())?;
        let fixture = Fixture::new(shiplane, scratch, run, |new, old| {
            fs::create_dir_all(new).context("cannot make a directory")?;
            dataset::make(new, SIZE)?;
            add_names(new)?;
            write_older(new, old)
        })?;
        let bytes = tree::survey(&fixture.at("new"))?.bytes;
        Ok(Self { fixture, noise: Rng::new(seed), totals: Totals::default(), bytes })
    }

    /// How long a run takes to which nothing happens.
    pub(super) fn measure(&self, role: Role) -> Result<Duration> {
        let server = self.fixture.serve(role, ANY_PORT)?;
        let began = Instant::now();
        self.fixture.undisturbed(role, server.ticket())?;
        Ok(began.elapsed())
    }

    /// Until a moment in the first `percent` of a run of that length.
    pub(super) fn wait_within(&mut self, length: Duration, percent: u32) {
        let most_micros = (length * percent / 100).as_micros() as u64 + 1;
        std::thread::sleep(Duration::from_micros(self.noise.between(0, most_micros)));
    }

    /// Counts the run after one that was disturbed before it was done.
    pub(super) fn count(&mut self, sent_bytes: u64) {
        self.totals.under_way += 1;
        self.totals.again_bytes += sent_bytes;
    }

    /// How many were under way, what had to be sent again on average, and of how much.
    pub(super) fn figures(&self) -> [String; 3] {
        let Totals { under_way, again_bytes } = self.totals;
        let average = again_bytes / under_way.max(1);
        [units::count(under_way), units::bytes(average), units::bytes(self.bytes)]
    }
}

/// Lets it happen `count` times, to a get and a push in turn, and measures now and then how long undisturbed ones take. If a
/// program comes to a bad end while nothing here was running, as when the machine slept, that says nothing: then it is
/// done again. Wrong files are wrong whatever happened.
pub(super) fn repeat<T>(
    series: &mut T,
    count: u64,
    mut measure: impl FnMut(&mut T, Role) -> Result<Duration>,
    mut happen: impl FnMut(&mut T, u64, Role, Duration) -> Result<()>,
) -> Result<()> {
    let watch = SuspendDetector::start();
    let mut length = [Duration::ZERO; 2];
    for number in 0..count {
        interrupt::check()?;
        let role = if number % 2 == 0 { Role::Get } else { Role::Push };
        // The machine may be busier than it was.
        if number % 20 < 2 {
            length[role as usize] = despite_suspension(&watch, || measure(series, role))?;
        }
        despite_suspension(&watch, || happen(series, number, role, length[role as usize]))
            .with_context(|| format!("number {number}, {}", role.name()))?;
        if number % 50 == 49 {
            println!("  {} of {count}", number + 1);
        }
    }
    Ok(())
}

fn despite_suspension<T>(watch: &SuspendDetector, mut one: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match one() {
            Err(failure) if failure.is::<BadEnd>() && watch.was_suspended() => {
                println!("  again, as nothing was running for a while: {failure:#}");
            }
            ended => return ended,
        }
    }
    one()
}

/// A file with two names, symbolic links, attributes, and modes and times of directories.
fn add_names(tree: &Path) -> Result<()> {
    fs::hard_link(tree.join("program.sh"), tree.join("small/another name"))
        .context("cannot make a hard link")?;
    for (name, target) in [("small/link", "../program.sh"), ("empty directory/nowhere", "not/there")] {
        symlink(target, tree.join(name)).context("cannot make a link")?;
    }
    for name in ["program.sh", "large.bin", "empty file", "small", "empty directory"] {
        tree::set_attribute(&tree.join(name), "user.made", name.as_bytes())?;
    }
    for (name, mode) in [("empty directory", 0o2750), ("small", 0o711)] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(mode)).context("cannot set a mode")?;
        filetime::set_file_mtime(tree.join(name), FileTime::from_unix_time(1_100_000_000, 123_456_789))?;
    }
    Ok(())
}

/// Some of the small files, with other content and an older time.
fn write_older(new: &Path, old: &Path) -> Result<()> {
    let entries = WalkDir::new(new).sort_by_file_name().into_iter();
    let entries = entries.collect::<Result<Vec<_>, _>>().context("cannot walk the data set")?;
    let is_small = |path: &Path| path.metadata().is_ok_and(|found| found.len() < MAX_OLDER_BYTES);
    let small = entries.iter().filter(|entry| entry.file_type().is_file() && is_small(entry.path()));
    for entry in small.skip(3).step_by(4) {
        let target = old.join(entry.path().strip_prefix(new).context("walked out of the tree")?);
        let mut content = fs::read(entry.path()).context("cannot read the data set")?;
        content.reverse();
        content.push(b'.');
        fs::create_dir_all(target.parent().context("no parent")?).context("cannot make a directory")?;
        fs::write(&target, content).context("cannot write an older file")?;
        filetime::set_file_mtime(&target, FileTime::from_unix_time(900_000_000, 0))?;
    }
    Ok(())
}

/// A tenth of a second and more. The moments are drawn from nearly all of it, so that size adds nothing but time.
const SIZE: Size = Size { large_bytes: 8 << 20, small_files: 150, directories: 10 };

/// Of one case: each suspension is minutes apart from the next.
const ATTEMPTS: usize = 3;

const MAX_OLDER_BYTES: u64 = 100_000;
