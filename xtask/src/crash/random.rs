//! Sends SIGKILL to receivers and senders at random moments of longer transfers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::bulk::{Bulk, LIMIT, Way, despite_standstills, expect_end, expect_success};
use super::test_process::TestProcess;
use crate::dataset::{Noise, Size};
use crate::scratch::Scratch;
use crate::shiplane::{ANY_PORT, Shiplane};
use crate::suspend::SuspendDetector;
use crate::{interrupt, units};

/// Kills each role `kills` times, or `only` this one.
pub(super) fn run(
    shiplane: &Shiplane,
    kills: u64,
    only: Option<Victim>,
    seed: u64,
) -> Result<Vec<Vec<String>>> {
    // In memory, as far as there is such a place: the moments are what counts, not the disk.
    let parent = Path::new("/dev/shm");
    let scratch = Scratch::new("shiplane-kills-", parent.is_dir().then_some(parent))?;
    scratch.expect_room(3 * SIZE.room_bytes())?;
    let site = scratch.directory("site")?;
    let bulk = Bulk::new(shiplane, &scratch, &site, SIZE)?;
    println!("killing receivers and senders of {} at random moments", units::bytes(bulk.bytes()));
    let mut kill =
        Kill { bulk, noise: Noise::seeded(seed), length: [Duration::ZERO; 2], silent: Duration::ZERO };
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
    noise: Noise,
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
            let way = if number % 2 == 0 { Way::Get } else { Way::Push };
            // The machine may be busier than it was.
            if number % 20 < 2 {
                despite_standstills(&watch, || self.measure(way))?;
            }
            let what = || format!("kill {number} of the {victim:?}, {way:?}");
            let sent = despite_standstills(&watch, || self.one(victim, way, number % 10 < 2));
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

    fn measure(&mut self, way: Way) -> Result<()> {
        self.bulk.reset()?;
        let (_server, ticket) = self.bulk.serve(way, ANY_PORT)?;
        let began = Instant::now();
        let ended = self.bulk.client(way, &ticket)?.wait(LIMIT)?;
        expect_success(&ended)?;
        self.length[way as usize] = began.elapsed();
        Ok(())
    }

    /// Gives the bytes that the run after it had to send; none if the kill came after the end.
    fn one(&mut self, victim: Victim, way: Way, is_left_to_notice: bool) -> Result<u64> {
        self.bulk.reset()?;
        let (mut server, ticket) = self.bulk.serve(way, ANY_PORT)?;
        let client = self.bulk.client(way, &ticket)?;
        // Its last fifth is for the most part the program's way out.
        let most_micros = (self.length[way as usize] * 4 / 5).as_micros() as u64 + 1;
        std::thread::sleep(Duration::from_micros(self.noise.below(most_micros)));
        let is_server = (victim == Victim::Sender) == (way == Way::Get);
        if !is_server {
            client.kill()?;
            client.wait(LIMIT)?;
            // A server that receives is still at work: files come and go while one looks.
            if way == Way::Get {
                self.bulk.expect_old_or_new()?;
            }
            // The server has not been told, and takes the same client again.
            return self.bulk.finish(way, &ticket);
        }
        server.kill()?;
        server.wait(LIMIT)?;
        let killed = Instant::now();
        // With its key at its address, as a service that is restarted.
        let address = address(&ticket)?;
        let (restarted, ticket) = self.bulk.serve(way, address)?;
        server = restarted;
        self.end(client, is_left_to_notice, killed)?;
        self.bulk.expect_old_or_new()?;
        let sent = self.bulk.finish(way, &ticket);
        drop(server);
        sent
    }

    /// The client of a killed server ends by itself, or is asked to.
    fn end(&mut self, client: TestProcess, is_left_to_notice: bool, killed: Instant) -> Result<()> {
        let ended = if is_left_to_notice { client.wait(LIMIT)? } else { client.stop(LIMIT)? };
        ensure!(!ended.said.contains("panicked"), "it panicked: {}", ended.said);
        // Whoever began so late that only the next server answers has a ticket of the one before.
        expect_end(&ended, &[0, 1, 3, 4, 130])?;
        if is_left_to_notice && ended.code != Some(0) {
            self.silent = self.silent.max(killed.elapsed());
        }
        Ok(())
    }
}

/// What is between the key and the path of a ticket.
fn address(ticket: &str) -> Result<&str> {
    let (_, rest) = ticket.split_once('@').context("the ticket names no address")?;
    rest.split_once('/').map(|(address, _)| address).context("the ticket has no path")
}

fn row(cells: [&str; 6]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A tenth of a second and more. The moments are drawn from nearly all of it, so that size adds nothing but time.
const SIZE: Size = Size { large_bytes: 8 << 20, small_files: 150, directories: 10 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_says_where_its_server_listens() {
        assert_eq!(address("shiplane://sl1qp@127.0.0.1:7514/#x3J0").unwrap(), "127.0.0.1:7514");
        address("shiplane://sl1qp").unwrap_err();
    }
}
