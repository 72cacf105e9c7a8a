//! Sends SIGKILL in place of every file-changing call of the receiver, one run for each.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use xtask::{interrupt, units};

use super::fixture::{Fixture, Role};
use super::trace::Fault;

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
    let whole = fixture.first(role, Fault::None)?;
    if whole.client.code != Some(0) {
        bail!("undisturbed, it ended with {:?}: {}", whole.client.code, whole.client.said);
    }
    fixture.expect_done(role)?;
    let calls = whole.trace.calls.iter().filter(|call| call.kind.is_change());
    let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
    calls.clone().for_each(|call| *kinds.entry(call.kind).or_default() += 1);
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
    println!("  {}: {}", role.name(), kinds.join(", "));
    let expected = calls.count();
    let step = if is_short { expected.div_ceil(SHORT_KILLS) } else { 1 };
    let mut left = Vec::new();
    // Threads take turns in other ways each time, so that a run may have a few calls more or less.
    for at in (0..expected * 2).step_by(step) {
        interrupt::check()?;
        let first = fixture.first(role, Fault::Kill { at })?;
        let Some(hit) = first.trace.hit else {
            if first.client.code != Some(0) {
                bail!("not killed, it ended with {:?}: {}", first.client.code, first.client.said);
            }
            break;
        };
        let what = || format!("killed in place of call {at}, {:?} of {:?}", hit.kind, hit.path);
        fixture.expect_old_or_new(role).with_context(what)?;
        left.push(fixture.second(role).with_context(what)?);
    }
    summary(role, expected, &left)
}

/// The second run of the last kills must have had little to send: what had been verified was made use of.
fn summary(role: Role, calls: usize, left: &[u64]) -> Result<Vec<String>> {
    let (first, last) = (left.first().copied().unwrap_or(0), left.last().copied().unwrap_or(0));
    if last > first / 2 {
        bail!("killed at last, {last} of {first} bytes had to come again");
    }
    let most = left.iter().copied().max().unwrap_or(0);
    if most > first {
        bail!("killed on the way, {most} bytes had to come, and {first} when nothing was there");
    }
    let average = left.iter().sum::<u64>() / left.len().max(1) as u64;
    Ok(units::row([
        role.name(),
        &units::count(calls as u64),
        &units::count(left.len() as u64),
        &units::bytes(average),
        &units::bytes(most),
        &units::bytes(first),
    ]))
}

/// For each receiver.
const SHORT_KILLS: usize = 5;
