//! Sends SIGKILL to receivers and senders at random moments of longer transfers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testlink::Rng;
use xtask::dataset::Size;
use xtask::driver::{ANY_PORT, Shiplane, Verb};
use xtask::process::{Running, Signal};
use xtask::scratch::Scratch;
use xtask::{interrupt, units};

use super::bulk::{Bulk, LIMIT, despite_standstills, expect_end};
use crate::suspend::SuspendDetector;

/// Kills each role `kills` times, or `only` this one.
pub(super) fn run(
    shiplane: &Shiplane,
    kills: u64,
    only: Option<Victim>,
    seed: u64,
) -> Result<Vec<Vec<String>>> {
    // In memory, as far as there is such a place: the moments are what counts, not the disk.
    let scratch = Scratch::in_memory("shiplane-kills-")?;
    scratch.expect_room(3 * SIZE.room_bytes())?;
    let site = scratch.directory("site")?;
    let bulk = Bulk::new(shiplane, &scratch, &site, SIZE)?;
    println!("killing receivers and senders of {} at random moments", units::bytes(bulk.bytes()));
    let mut kill = Kill { bulk, noise: Rng::new(seed), length: [Duration::ZERO; 2], silent: Duration::ZERO };
    let mut rows = vec![row(["killed at random", "kills", "under way", "sent again", "of", "noticed in"])];
    for victim in [Victim::Receiver, Victim::Sender] {
        if only.is_some_and(|only| only != victim) {
            continue;
        }
        rows.push(kill.series(victim, kills)?);
    }
    Ok(rows)
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Victim {
    /// The client of a get, the server of a push
    Receiver,
    /// The server of a get, the client of a push
    Sender,
}

struct Kill<'a> {
    bulk: Bulk<'a>,
    noise: Rng,
    /// What an undisturbed `get` and `push` take.
    length: [Duration; 2],
    /// The longest that a client took to notice that its server is gone.
    silent: Duration,
}

impl Kill<'_> {
    fn series(&mut self, victim: Victim, kills: u64) -> Result<Vec<String>> {
        let (mut under_way, mut again_bytes) = (0, 0);
        self.silent = Duration::ZERO;
        let watch = SuspendDetector::start();
        for number in 0..kills {
            interrupt::check()?;
            let verb = if number % 2 == 0 { Verb::Get } else { Verb::Push };
            // The machine may be busier than it was.
            if number % 20 < 2 {
                despite_standstills(&watch, || self.measure(verb))?;
            }
            let what = || format!("kill {number} of the {victim:?}, {verb}");
            let sent = despite_standstills(&watch, || self.one(victim, verb, number % 10 < 2));
            let sent = sent.with_context(what)?;
            under_way += u64::from(sent > 0);
            again_bytes += sent;
            if number % 100 == 99 {
                println!("  {victim:?}: {} kills, {under_way} under way", number + 1);
            }
        }
        let noticed = if self.silent.is_zero() { "–".to_owned() } else { units::seconds(self.silent) };
        let average = again_bytes / under_way.max(1);
        Ok(row([
            if victim == Victim::Receiver { "the receiver" } else { "the sender" },
            &units::count(kills),
            &units::count(under_way),
            &units::bytes(average),
            &units::bytes(self.bulk.bytes()),
            &noticed,
        ]))
    }

    fn measure(&mut self, verb: Verb) -> Result<()> {
        self.bulk.reset()?;
        let server = self.bulk.serve(verb, ANY_PORT)?;
        let began = Instant::now();
        expect_end(self.bulk.client(verb, server.ticket())?.wait(LIMIT)?, &[0])?;
        self.length[verb as usize] = began.elapsed();
        Ok(())
    }

    /// Gives the bytes that the run after it had to send; none if the kill came after the end.
    fn one(&mut self, victim: Victim, verb: Verb, is_left_to_notice: bool) -> Result<u64> {
        self.bulk.reset()?;
        let server = self.bulk.serve(verb, ANY_PORT)?;
        let client = self.bulk.client(verb, server.ticket())?;
        // Its last fifth is for the most part the program's way out.
        let most_micros = (self.length[verb as usize] * 4 / 5).as_micros() as u64 + 1;
        std::thread::sleep(Duration::from_micros(self.noise.between(0, most_micros)));
        let is_server = (victim == Victim::Sender) == (verb == Verb::Get);
        if !is_server {
            client.kill()?;
            // A server that receives is still at work: files come and go while one looks.
            if verb == Verb::Get {
                self.bulk.expect_old_or_new()?;
            }
            // The server has not been told, and takes the same client again.
            return self.bulk.finish(verb, server.ticket());
        }
        let address = server.id_and_address()?.1.to_owned();
        server.end_by(Signal::Kill)?;
        let killed = Instant::now();
        // With its key at its address, as a service that is restarted.
        let server = self.bulk.serve(verb, &address)?;
        self.end(client, is_left_to_notice, killed)?;
        self.bulk.expect_old_or_new()?;
        self.bulk.finish(verb, server.ticket())
    }

    /// The client of a killed server ends by itself, or is asked to.
    fn end(&mut self, client: Running, is_left_to_notice: bool, killed: Instant) -> Result<()> {
        let ended = if is_left_to_notice { client.wait(LIMIT)? } else { client.stop(LIMIT)? };
        ensure!(!ended.said.contains("panicked"), "it panicked: {}", ended.said);
        // Whoever began so late that only the next server answers has a ticket of the one before.
        let ended = expect_end(ended, &[0, 1, 3, 4, 130])?;
        if is_left_to_notice && ended.code != Some(0) {
            self.silent = self.silent.max(killed.elapsed());
        }
        Ok(())
    }
}

fn row(cells: [&str; 6]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A tenth of a second and more. The moments are drawn from nearly all of it, so that size adds nothing but time.
const SIZE: Size = Size { large_bytes: 8 << 20, small_files: 150, directories: 10 };
