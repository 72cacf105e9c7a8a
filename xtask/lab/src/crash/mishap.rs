//! Longer transfers that something befalls at a random moment: the receiver's power is cut, or, in the series that is here,
//! one side is killed (SIGKILL).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testlink::Rng;
use xtask::dataset::{self, Size};
use xtask::driver::{ANY_PORT, Shiplane};
use xtask::process::Signal;
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use super::data;
use crate::fixture::{BadEnd, Fixture, LIMIT, Role, expect_end};
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
    /// program fails while nothing here was running, as when the machine slept, that proves nothing: then it is
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

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Victim {
    /// The client of a get, the server of a push
    Receiver,
    /// The server of a get, the client of a push
    Sender,
}

/// Kills each role `kills` times, or `only` this one.
pub(super) fn run(
    shiplane: &Shiplane,
    kills: u64,
    only: Option<Victim>,
    seed: u64,
) -> Result<Vec<Vec<String>>> {
    // In memory, as far as there is such a place: the moments are what counts, not the disk.
    let scratch = Scratch::in_memory("shiplane-kills-")?;
    let mut transfers = Transfers::new(shiplane, &scratch, None, seed)?;
    println!("killing receivers and senders of {} at random moments", units::bytes(transfers.bytes));
    let mut rows =
        vec![units::row(["killed at random", "kills", "under way", "sent again", "of", "noticed in"])];
    for victim in only.map_or_else(|| vec![Victim::Receiver, Victim::Sender], |only| vec![only]) {
        let mut silent = Duration::ZERO;
        let killed = transfers.repeat(kills, Transfers::measure, |transfers, number, role, length| {
            let (sent_bytes, noticed) = kill(transfers, victim, role, length, number % 10 < 2)?;
            transfers.again_bytes.extend((sent_bytes > 0).then_some(sent_bytes));
            silent = silent.max(noticed);
            Ok(())
        });
        killed.with_context(|| format!("killing the {victim:?}"))?;
        let name = if victim == Victim::Receiver { "the receiver" } else { "the sender" };
        let noticed = if silent.is_zero() { "–".to_owned() } else { units::seconds(silent) };
        let [under_way, again, of] = transfers.figures();
        rows.push(units::row([name, &units::count(kills), &under_way, &again, &of, &noticed]));
    }
    Ok(rows)
}

/// Gives the bytes that the run after it had to send (none if the kill came after the end), and how long the client took
/// to notice that its server is gone.
fn kill(
    transfers: &mut Transfers<'_>,
    victim: Victim,
    role: Role,
    length: Duration,
    is_left_to_notice: bool,
) -> Result<(u64, Duration)> {
    transfers.fixture.reset(role)?;
    let server = transfers.fixture.serve(role, ANY_PORT)?;
    let client = transfers.fixture.start_client(role, server.ticket())?;
    // Its last fifth is for the most part the program's way out.
    transfers.wait_within(length, 80);
    let fixture = &transfers.fixture;
    if role.is_served() != (victim == Victim::Receiver) {
        client.kill()?;
        // A server that receives is still at work: files come and go while one looks.
        if role == Role::Get {
            fixture.expect_old_or_new(role)?;
        }
        // The server has not been told, and takes the same client again.
        return Ok((fixture.finish(role, server.ticket())?, Duration::ZERO));
    }
    let address = server.id_and_address()?.1.to_owned();
    server.end_by(Signal::Kill)?;
    let killed = Instant::now();
    // With its key at its address, as a service that is restarted.
    let server = fixture.serve(role, &address)?;
    // The client of a killed server ends by itself, or is asked to. A client that began so late that only the next server
    // answers has a ticket of the one before.
    let ended = if is_left_to_notice { client.wait(LIMIT)? } else { client.stop(LIMIT)? };
    let ended = expect_end(ended, &[0, 1, 3, 4, 130])?;
    let has_noticed = is_left_to_notice && ended.code != Some(0);
    let noticed = if has_noticed { killed.elapsed() } else { Duration::ZERO };
    fixture.expect_old_or_new(role)?;
    Ok((fixture.finish(role, server.ticket())?, noticed))
}

/// A tenth of a second and more. The moments are drawn from nearly all of it, so that size adds nothing but time.
const SIZE: Size = Size { large_bytes: 8 << 20, small_files: 150, directories: 10 };

/// Of one case: each suspension is minutes apart from the next.
const ATTEMPTS: usize = 3;
