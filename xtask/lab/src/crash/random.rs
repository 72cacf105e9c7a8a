//! Sends SIGKILL to receivers and senders at random moments of longer transfers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask::driver::{ANY_PORT, Shiplane};
use xtask::process::Signal;
use xtask::scratch::Scratch;
use xtask::units;

use super::mishap::Transfers;
use crate::fixture::{LIMIT, Role, expect_end};

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
