//! Each kind of call of the receiver fails in each way that a disk or a system has: the first one of the kind, the
//! middle one and the last.

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use xtask::driver::last_error;
use xtask::{interrupt, units};

use super::calls::{Call, Kind};
use super::points::{First, count, first, whole};
use super::trace::Fault;
use crate::fixture::{Fixture, Role};

/// Lets every kind of call fail; `is_short`: each kind once or twice.
pub(super) fn run(fixture: &Fixture<'_>, is_short: bool) -> Result<Vec<Vec<String>>> {
    println!("letting calls of receivers fail");
    let mut rows =
        vec![units::row(["calls failed", "kinds", "cases", "told", "done nevertheless", "survived"])];
    let mut wrong = Vec::new();
    for role in Role::ALL {
        rows.push(fail_each(fixture, role, is_short, &mut wrong).with_context(|| role.name())?);
    }
    if !wrong.is_empty() {
        bail!("{} calls that failed were not handled:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(rows)
}

fn fail_each(
    fixture: &Fixture<'_>,
    role: Role,
    is_short: bool,
    wrong: &mut Vec<String>,
) -> Result<Vec<String>> {
    let kinds = count(whole(fixture, role)?.iter());
    let (mut cases_run, mut ends) = (0, [0; 3]);
    for (number, (&kind, &count)) in kinds.iter().enumerate() {
        let mut places = vec![0, count / 2, count - 1];
        places.dedup();
        let all = places.iter().flat_map(|place| ERRNOS.map(|errno| (*place, errno)));
        let cases: Vec<_> = match is_short {
            true => {
                let turn = number + role as usize;
                let once = (places[turn % places.len()], ERRNOS[turn % ERRNOS.len()]);
                let interrupted = (!role.is_sync()).then_some((count - 1, Errno::EINTR));
                std::iter::once(once).chain(interrupted).collect()
            }
            false => all.collect(),
        };
        for (place, errno) in cases {
            interrupt::check()?;
            cases_run += 1;
            match fail(fixture, role, Fault { kind: Some(kind), nth: place, errno: Some(errno) }) {
                Ok(end) => ends[end as usize] += 1,
                Err(failure) => {
                    let case =
                        format!("  {}: {kind:?} {place} of {count}, {errno}: {failure:#}", role.name());
                    println!("{case}");
                    wrong.push(case);
                }
            }
        }
    }
    let figures = [kinds.len() as u64, cases_run].into_iter().chain(ends).map(units::count);
    Ok(std::iter::once(role.name().to_owned()).chain(figures).collect())
}

/// How a run ended.
#[derive(Clone, Copy)]
enum End {
    /// With an error that names the cause.
    Told,
    /// Well, as nothing depended on the call.
    Nevertheless,
    /// Well, though it was interrupted.
    Survived,
}

fn fail(fixture: &Fixture<'_>, role: Role, fault: Fault) -> Result<End> {
    // Threads take turns in other ways each time: the last call may have been the last but one.
    for nth in (fault.nth.saturating_sub(MISSES)..=fault.nth).rev() {
        let first = first(fixture, role, Some(Fault { nth, ..fault }))?;
        let Some(call) = &first.trace.hit else { continue };
        let what = || format!("on {:?}", call.path.file_name().unwrap_or_default());
        let errno = fault.errno.context("it is to fail")?;
        let end = judge(fixture, role, &first, call, errno).with_context(what)?;
        fixture.second(role).with_context(what)?;
        return Ok(end);
    }
    bail!("no run has come to that call")
}

fn judge(fixture: &Fixture<'_>, role: Role, first: &First, call: &Call, errno: Errno) -> Result<End> {
    let client = &first.client;
    for said in [&client.said, &first.receiver_said] {
        ensure!(!said.contains("panicked"), "it panicked: {said}");
    }
    let code = client.code.with_context(|| format!("a signal ended it: {}", client.said))?;
    if code == 0 {
        let is_sync = matches!(call.kind, Kind::Sync | Kind::SyncAll);
        let is_interrupted = errno == Errno::EINTR;
        ensure!(is_interrupted || !is_sync || call.is_cache(), "what was not synced is told for done");
        // A lock or a journal that could not be removed stays for the next run to remove.
        match call.kind {
            Kind::Unlink => fixture.expect_old_or_new(role)?,
            _ => fixture.expect_done(role)?,
        }
        return Ok(if is_interrupted { End::Survived } else { End::Nevertheless });
    }
    fixture.expect_old_or_new(role)?;
    let mut message = match first.has_started {
        true => last_error(&client.lines)?,
        false => client.said.clone(),
    };
    if code == LEFT_OUT {
        // Of each path it is said before, or by the side that has left it out, why.
        message = [client.lines.join("\n"), first.receiver_said.clone()].concat();
    }
    ensure!(errno != Errno::EINTR, "it did not try again: {code}, {message}");
    let codes = if role == Role::Get { &LOCAL_CODES[..] } else { &REMOTE_CODES };
    ensure!(code == LEFT_OUT || codes.contains(&code), "it ended with {code}: {message}");
    let names_cause = cause(errno).iter().any(|cause| message.contains(cause));
    ensure!(names_cause, "the cause is not named: {code}, {message}");
    Ok(End::Told)
}

/// One of these must be in the message.
fn cause(errno: Errno) -> &'static [&'static str] {
    match errno {
        Errno::ENOSPC => &["space"],
        Errno::EIO => &["Input/output error", "not made durable"],
        Errno::EROFS => &["Read-only file system"],
        Errno::EDQUOT => &["quota"],
        Errno::EMFILE => &["Too many open files"],
        _ => &[],
    }
}

/// What fails for single paths alone.
const LEFT_OUT: i32 = 9;

const ERRNOS: [Errno; 6] =
    [Errno::ENOSPC, Errno::EIO, Errno::EROFS, Errno::EDQUOT, Errno::EMFILE, Errno::EINTR];

/// A failure of this side's system.
const LOCAL_CODES: [i32; 1] = [7];

/// Or of the other side's; refused for want of space there; or some paths were left alone.
const REMOTE_CODES: [i32; 3] = [1, 6, 7];

/// By how many calls of a kind two runs differ at most.
const MISSES: usize = 4;
