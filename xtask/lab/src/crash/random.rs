//! Sends SIGKILL to receivers and senders at random moments of longer transfers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testlink::Rng;
use xtask::dataset::Size;
use xtask::driver::{ANY_PORT, Shiplane, Verb};
use xtask::process::{Running, Signal};
use xtask::scratch::Scratch;
use xtask::units;

use super::bulk::{Bulk, LIMIT, Mishap, expect_end, repeat};

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
    let mut rows =
        vec![units::row(["killed at random", "kills", "under way", "sent again", "of", "noticed in"])];
    let mut noise = Rng::new(seed);
    for victim in [Victim::Receiver, Victim::Sender] {
        if only.is_none_or(|only| only == victim) {
            let (bulk, noise, silent) = (&bulk, &mut noise, Duration::ZERO);
            let mut kill = Kill { bulk, victim, noise, under_way: 0, again_bytes: 0, silent };
            repeat(&mut kill, kills).with_context(|| format!("killing the {victim:?}"))?;
            rows.push(kill.row(kills));
        }
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
    bulk: &'a Bulk<'a>,
    victim: Victim,
    noise: &'a mut Rng,
    under_way: u64,
    again_bytes: u64,
    /// The longest that a client took to notice that its server is gone.
    silent: Duration,
}

impl Mishap for Kill<'_> {
    fn measure(&mut self, verb: Verb) -> Result<Duration> {
        self.bulk.reset()?;
        self.bulk.undisturbed(verb)
    }

    fn happen(&mut self, number: u64, verb: Verb, length: Duration) -> Result<()> {
        let sent_bytes = self.one(verb, length, number % 10 < 2)?;
        self.under_way += u64::from(sent_bytes > 0);
        self.again_bytes += sent_bytes;
        Ok(())
    }
}

impl Kill<'_> {
    fn row(&self, kills: u64) -> Vec<String> {
        let noticed = if self.silent.is_zero() { "–".to_owned() } else { units::seconds(self.silent) };
        units::row([
            if self.victim == Victim::Receiver { "the receiver" } else { "the sender" },
            &units::count(kills),
            &units::count(self.under_way),
            &units::bytes(self.again_bytes / self.under_way.max(1)),
            &units::bytes(self.bulk.bytes()),
            &noticed,
        ])
    }

    /// Gives the bytes that the run after it had to send; none if the kill came after the end.
    fn one(&mut self, verb: Verb, length: Duration, is_left_to_notice: bool) -> Result<u64> {
        self.bulk.reset()?;
        let server = self.bulk.serve(verb, ANY_PORT)?;
        let client = self.bulk.client(verb, server.ticket())?;
        // Its last fifth is for the most part the program's way out.
        let most_micros = (length * 4 / 5).as_micros() as u64 + 1;
        std::thread::sleep(Duration::from_micros(self.noise.between(0, most_micros)));
        let is_server = (self.victim == Victim::Sender) == (verb == Verb::Get);
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

/// A tenth of a second and more. The moments are drawn from nearly all of it, so that size adds nothing but time.
const SIZE: Size = Size { large_bytes: 8 << 20, small_files: 150, directories: 10 };
