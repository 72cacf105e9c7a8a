//! Sends SIGKILL in place of every file-changing call of the receiver, one run for each.

use anyhow::{Context as _, Result, ensure};
use xtask::{interrupt, units};

use super::trace::Fault;
use super::traced::{count, first, whole};
use crate::fixture::{Fixture, Role};

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
    summary(role, expected, &left)
}

/// The second run of the last kills must have had little to send: what had been verified was made use of.
fn summary(role: Role, calls: usize, left: &[u64]) -> Result<Vec<String>> {
    let (first, last) = (left.first().copied().unwrap_or(0), left.last().copied().unwrap_or(0));
    ensure!(last <= first / 2, "killed at last, {last} of {first} bytes had to come again");
    let most = left.iter().copied().max().unwrap_or(0);
    ensure!(most <= first, "killed on the way, {most} bytes had to come, and {first} when nothing was there");
    let [calls, kills] = [calls, left.len()].map(|number| units::count(number as u64));
    let average = left.iter().sum::<u64>() / left.len().max(1) as u64;
    let [average, most, first] = [average, most, first].map(units::bytes);
    Ok(units::row([role.name(), &calls, &kills, &average, &most, &first]))
}

/// For each receiver.
const SHORT_KILLS: usize = 5;
