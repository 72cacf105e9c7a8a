//! Runs of which one call of the receiver is hit by a fault, and the series that sends SIGKILL in place of every call that
//! changes files.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::driver::{ANY_PORT, START_LIMIT};
use xtask::process::{Ended, Running};
use xtask::{interrupt, units};

use super::calls::{Call, Kind};
use super::trace::{self, Fault, Trace, Traced};
use crate::fixture::{Fixture, LIMIT, Role};

/// Kills each receiver at each of its calls; `is_short`: two receivers at a few of theirs.
pub(super) fn run(fixture: &Fixture<'_>, is_short: bool) -> Result<Vec<Vec<String>>> {
    println!("killing receivers in place of their file-changing calls");
    let mut rows = vec![units::row(["killed at", "calls", "kills", "sent again", "at most", "of"])];
    for role in Role::ALL {
        rows.push(kill_at_each(fixture, role, is_short).with_context(|| role.name())?);
    }
    Ok(rows)
}

fn kill_at_each(fixture: &Fixture<'_>, role: Role, is_short: bool) -> Result<Vec<String>> {
    let calls = whole(fixture, role)?;
    let kinds = count(calls.iter().filter(|call| call.kind.is_change()));
    let expected = kinds.values().sum::<usize>();
    println!("  {}: {kinds:?}", role.name());
    let step = if is_short { expected.div_ceil(SHORT_KILLS) } else { 1 };
    let mut left = Vec::new();
    // Threads take turns in other ways each time, so that a run may have a few calls more or less.
    for at in (0..expected * 2).step_by(step) {
        interrupt::check()?;
        let first = first(fixture, role, Some(Fault { kind: None, nth: at, errno: None }))?;
        let Some(hit) = first.trace.hit else {
            first.client.expect_success("not killed, it")?;
            break;
        };
        let what = || format!("killed in place of call {at}, {:?} of {:?}", hit.kind, hit.path);
        fixture.expect_old_or_new(role).with_context(what)?;
        left.push(fixture.second(role).with_context(what)?);
    }
    // The second run of the last kills must have had little to send: what had been verified was made use of.
    let (first, last) = (left.first().copied().unwrap_or(0), left.last().copied().unwrap_or(0));
    ensure!(last <= first / 2, "killed at last, {last} of {first} bytes had to come again");
    let most = left.iter().copied().max().unwrap_or(0);
    ensure!(most <= first, "killed on the way, {most} bytes had to come, and {first} when nothing was there");
    let [calls, kills] = [expected, left.len()].map(|number| units::count(number as u64));
    let average = left.iter().sum::<u64>() / left.len().max(1) as u64;
    let [average, most, first] = [average, most, first].map(units::bytes);
    Ok(units::row([role.name(), &calls, &kills, &average, &most, &first]))
}

/// One run that may have met a fault.
#[derive(Debug)]
pub(super) struct First {
    /// The client's end: a script learns no more.
    pub(super) client: Ended,
    /// What the receiver printed to standard error, or the server if that is the same.
    pub(super) receiver_said: String,
    /// Else the server ended before it listened: its output and exit code stand here in place of the client's.
    pub(super) has_started: bool,
    pub(super) trace: Trace,
}

/// The calls of a receiver that no fault hits.
pub(super) fn whole(fixture: &Fixture<'_>, role: Role) -> Result<Vec<Call>> {
    let whole = first(fixture, role, None)?;
    whole.client.expect_success("undisturbed, it")?;
    fixture.expect_done(role)?;
    Ok(whole.trace.calls)
}

/// How many calls there are of each kind.
pub(super) fn count<'a>(calls: impl Iterator<Item = &'a Call>) -> BTreeMap<Kind, usize> {
    let mut kinds = BTreeMap::new();
    calls.for_each(|call| *kinds.entry(call.kind).or_default() += 1);
    kinds
}

/// Restores the state before, and runs `role` with `fault` befalling its receiver.
pub(super) fn first(fixture: &Fixture<'_>, role: Role, fault: Option<Fault>) -> Result<First> {
    fixture.reset(role)?;
    let start = |name: &str, mut command: Command, is_receiver: bool| -> Result<_> {
        if is_receiver {
            return trace::start(&command, fixture.run(), fault);
        }
        Ok((Running::heard(name, &mut command)?, Traced::default()))
    };
    let (server, of_server) = start("shiplane serve", fixture.server(role, ANY_PORT), role.is_served())?;
    let Some(ticket) = server.next_line(START_LIMIT)? else {
        // Killed, or it refused to start.
        let client = server.wait(LIMIT)?;
        let (receiver_said, trace) = (client.said.clone(), of_server.lock().clone());
        return Ok(First { client, receiver_said, has_started: false, trace });
    };
    let (client, of_client) = start(role.name(), fixture.client(role, &ticket), !role.is_served())?;
    // A client whose server was killed would wait for it for a while.
    let began = Instant::now();
    while !client.ends_within(LOOK)? && !server.has_ended()? {
        ensure!(began.elapsed() < LIMIT, "neither side ends");
    }
    let client = if server.has_ended()? { client.kill()? } else { client.wait(LIMIT)? };
    let (receiver_said, traced) = match role.is_served() {
        true => (server.stop(LIMIT)?.said, of_server),
        false => (client.said.clone(), of_client),
    };
    let trace = traced.lock().clone();
    Ok(First { client, receiver_said, has_started: true, trace })
}

/// For each receiver.
const SHORT_KILLS: usize = 5;

const LOOK: Duration = Duration::from_millis(1);
