//! Runs of which one call of the receiver is hit by a fault.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtask::driver::{ANY_PORT, START_LIMIT};
use xtask::process::{Ended, Running};

use super::calls::{Call, Kind};
use super::trace::{self, Fault, Trace, Traced};
use crate::fixture::{Fixture, LIMIT, Role};

/// One run that may have met a fault.
#[derive(Debug)]
pub(super) struct First {
    /// The client's end: a script learns no more.
    pub(super) client: Ended,
    /// What the receiver printed to standard error, or the server if that is the same.
    pub(super) receiver_said: String,
    /// Else the server ended before it listened, and what it said and ended with is told as the client's.
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

const LOOK: Duration = Duration::from_millis(1);
