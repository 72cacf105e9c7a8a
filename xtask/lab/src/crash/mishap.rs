//! Longer transfers that something befalls at a random moment: one side is killed, or the receiver's power is cut.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testlink::Rng;
use xtask::dataset::{self, Size};
use xtask::driver::{ANY_PORT, Shiplane};
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use super::data;
use crate::fixture::{BadEnd, Fixture, Role};
use crate::suspend::SuspendDetector;

/// Transfers of a large file and many small ones, of which some replace others.
pub(super) struct Transfers<'a> {
    pub(super) fixture: Fixture<'a>,
    pub(super) noise: Rng,
    pub(super) bytes: u64,
    /// What the runs after those that were not done had to send.
    pub(super) again_bytes: Vec<u64>,
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
            data::fill(&new.join("of each kind"), &old.join("of each kind"))?;
            // The same names in both, and other content.
            dataset::small_tree(old, SIZE.small_files / 4, SIZE.directories)?;
            dataset::make(new, SIZE)
        })?;
        let bytes = tree::survey(&fixture.at("new"))?.bytes;
        Ok(Self { fixture, noise: Rng::new(seed), bytes, again_bytes: Vec::new() })
    }

    /// How long a run takes to which nothing happens.
    pub(super) fn measure(&self, role: Role) -> Result<Duration> {
        self.fixture.reset(role)?;
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

    /// How many were under way since the last time, what had to be sent again on average, and of how much.
    pub(super) fn figures(&mut self) -> [String; 3] {
        let again_bytes = std::mem::take(&mut self.again_bytes);
        let under_way = again_bytes.len() as u64;
        let average = again_bytes.iter().sum::<u64>() / under_way.max(1);
        [units::count(under_way), units::bytes(average), units::bytes(self.bytes)]
    }

    /// Lets it happen `count` times, to a get and a push in turn, and measures now and then how long undisturbed ones take. If a
    /// program comes to a bad end while nothing here was running, as when the machine slept, that says nothing: then it is
    /// done again. Wrong files are wrong whatever happened.
    pub(super) fn repeat(
        &mut self,
        count: u64,
        measure: impl Fn(&Self, Role) -> Result<Duration>,
        mut happen: impl FnMut(&mut Self, u64, Role, Duration) -> Result<()>,
    ) -> Result<()> {
        let watch = SuspendDetector::start();
        let mut length = [Duration::ZERO; 2];
        for number in 0..count {
            interrupt::check()?;
            let role = if number % 2 == 0 { Role::Get } else { Role::Push };
            // The machine may be busier than it was.
            if number % 20 < 2 {
                length[role as usize] = despite_suspension(&watch, || measure(self, role))?;
            }
            despite_suspension(&watch, || happen(self, number, role, length[role as usize]))
                .with_context(|| format!("number {number}, {}", role.name()))?;
            if number % 50 == 49 {
                println!("  {} of {count}", number + 1);
            }
        }
        Ok(())
    }
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

/// A tenth of a second and more. The moments are drawn from nearly all of it, so that size adds nothing but time.
const SIZE: Size = Size { large_bytes: 8 << 20, small_files: 150, directories: 10 };

/// Of one case: each suspension is minutes apart from the next.
const ATTEMPTS: usize = 3;
