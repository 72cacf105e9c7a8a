//! Runs `shiplane get` against a lying server. It passes if its memory stays within its bound, it ends with the exit code
//! that fits the lie and soon enough, and where a lie has no end Ctrl-C ends it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask::process::{Running, Signal};
use xtask::units;

use super::Fixture;
use super::peers::{self, PeerProcess};
use super::scenarios::{CAP_BYTES, PATIENCE};
use crate::peers::hostile::Lie;

/// One lie, and what must become of a client that hears it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    pub(super) lie: Lie,
    ends: Ends,
    options: &'static [&'static str],
    /// Where to, if not to a directory.
    to_stdout: bool,
}

/// How a client must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Soon, with this code.
    With(i32),
    /// With code 3, once its patience is over, which is by then; and by Ctrl-C before that.
    WhenPatienceIsOver,
    /// By Ctrl-C alone: it goes on for as long as there is something new.
    WhenInterrupted,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// None if a signal has ended it.
    code: Option<i32>,
    after: Duration,
    /// How long it took from Ctrl-C to its end, if that was needed; none if it had to be killed.
    interrupted: Option<Option<Duration>>,
    peak_bytes: u64,
}

/// All lies; those that take patience are told side by side, the others one after another beside them.
pub(super) fn run(fixture: &Fixture) -> Result<Vec<(Victim, Outcome)>> {
    let (patient, others): (Vec<_>, Vec<_>) =
        VICTIMS.iter().partition(|victim| matches!(victim.ends, Ends::WhenPatienceIsOver));
    std::thread::scope(|scope| {
        let patient: Vec<_> =
            patient.into_iter().map(|victim| scope.spawn(move || play_twice(fixture, victim))).collect();
        let mut outcomes = Vec::new();
        for victim in others {
            let limit = if victim.ends == Ends::WhenInterrupted { ENDLESS } else { SOON };
            outcomes.push((*victim, play(fixture, victim, limit)?));
        }
        for thread in patient {
            outcomes.push(joined(thread)?);
        }
        Ok(outcomes)
    })
}

pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Ends one client by Ctrl-C, and lets another one's patience decide.
fn play_twice(fixture: &Fixture, victim: &Victim) -> Result<(Victim, Outcome)> {
    let interrupted = play(fixture, victim, INTERRUPT_AFTER)?;
    let outcome = play(fixture, victim, PATIENCE)?;
    // Of two runs the worse counts.
    let peak_bytes = outcome.peak_bytes.max(interrupted.peak_bytes);
    let interrupted = outcome.interrupted.or(interrupted.interrupted);
    Ok((*victim, Outcome { interrupted, peak_bytes, ..outcome }))
}

/// Runs one client until it ends, or for `limit` and then by Ctrl-C.
fn play(fixture: &Fixture, victim: &Victim, limit: Duration) -> Result<Outcome> {
    let place = fixture.scratch.path().join(format!("get of {}, {} s", victim.lie.name(), limit.as_secs()));
    fs::create_dir(&place).context("cannot make a directory")?;
    let entries = if fixture.short { SHORT_ENTRIES } else { ENTRIES };
    // In a process of its own: no child's peak memory is below its parent's.
    let mut command = peers::command("lying-server")?;
    command.args(["--lie", &victim.lie.name(), "--entries", &entries.to_string()]);
    let liar = PeerProcess::start(&mut command)?;
    let copy = place.join("copy");
    fs::create_dir(&copy).context("cannot make the destination")?;
    if victim.lie == Lie::EndlessSignatures {
        for name in ["file", "file2"] {
            let old = File::create(copy.join(name)).context("cannot make the old version")?;
            old.set_len(OLD_FILE_BYTES).context("cannot make the old version long")?;
        }
    }
    let mut command = fixture.shiplane.command(&place.join("home"));
    command.arg("get").arg(liar.ready()).args(["--give-up-after", "0s"]);
    command.arg(if victim.to_stdout { Path::new("-") } else { &copy });
    command.args(["--quiet"]).args(victim.options);
    let log = File::create(place.join("log")).context("cannot write the client's log")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let outcome = watch(&mut command, limit)?;
    drop(liar);
    fs::remove_dir_all(&place).context("cannot remove what the client has left")?;
    Ok(outcome)
}

fn watch(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let started = Instant::now();
    let running = Running::start("shiplane get", command)?;
    let ends = running.ends_within(limit)?;
    let after = started.elapsed();
    let mut interrupted = None;
    if !ends {
        let from = Instant::now();
        running.signal(Signal::Interrupt)?;
        interrupted = Some(running.ends_within(KILL_AFTER)?.then(|| from.elapsed()));
    }
    let ended = running.kill()?;
    Ok(Outcome { code: ended.code, after, interrupted, peak_bytes: ended.used.peak_rss_bytes })
}

impl Outcome {
    pub(super) fn verdict(&self, victim: &Victim) -> Result<(), String> {
        if self.peak_bytes > CAP_BYTES {
            return Err(format!("it came to hold {}", units::bytes(self.peak_bytes)));
        }
        if self.interrupted == Some(None) {
            return Err("Ctrl-C did not end it".to_owned());
        }
        let expected = match victim.ends {
            Ends::With(code) => code,
            Ends::WhenPatienceIsOver => UNREACHABLE,
            Ends::WhenInterrupted => INTERRUPTED,
        };
        match self.code {
            Some(code) if code == expected => {}
            Some(INTERRUPTED) => return Err(format!("it goes on after {:.0} s", self.after.as_secs_f64())),
            Some(code) => return Err(format!("it ended with code {code}, not {expected}")),
            None => return Err("a signal has ended it".to_owned()),
        }
        match self.interrupted {
            Some(Some(took)) if took > INTERRUPT_LIMIT => {
                Err(format!("Ctrl-C took {:.1} s", took.as_secs_f64()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn row(&self, victim: &Victim, verdict: &Result<(), String>) -> Vec<String> {
        let interrupted = match self.interrupted {
            None => "–".to_owned(),
            Some(None) => "never".to_owned(),
            Some(Some(took)) => format!("{} ms", took.as_millis()),
        };
        vec![
            victim.lie.name(),
            units::bytes(self.peak_bytes),
            self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string()),
            units::seconds(self.after),
            interrupted,
            if verdict.is_ok() { "passed" } else { "failed" }.to_owned(),
        ]
    }
}

pub(super) const HEADING: &str = "get from|peak|exit code|after|Ctrl-C took|verdict";

const fn victim(lie: Lie, ends: Ends) -> Victim {
    Victim { lie, ends, options: &["--durability", "verified"], to_stdout: false }
}

/// Every lie.
const VICTIMS: [Victim; 25] = [
    victim(Lie::HugeFile, Ends::With(LOCAL_IO)),
    victim(Lie::VastFile, Ends::With(LOCAL_IO)),
    Victim { to_stdout: true, options: &[], ..victim(Lie::HugeStream, Ends::WhenPatienceIsOver) },
    victim(Lie::LongDirectories, Ends::With(0)),
    victim(Lie::UnadmittedEntries, Ends::With(OTHER)),
    victim(Lie::LongFiles, Ends::WhenPatienceIsOver),
    victim(Lie::EndlessFiles, Ends::WhenInterrupted),
    victim(Lie::EndlessSkipped, Ends::WhenInterrupted),
    victim(Lie::LongLinks, Ends::With(0)),
    victim(Lie::EndlessLinks, Ends::WhenInterrupted),
    victim(Lie::ThroughLink, Ends::With(OTHER)),
    victim(Lie::AliveForEntries, Ends::WhenPatienceIsOver),
    victim(Lie::AliveForChunks, Ends::WhenPatienceIsOver),
    victim(Lie::Drip, Ends::WhenPatienceIsOver),
    victim(Lie::Trickle, Ends::WhenPatienceIsOver),
    victim(Lie::Stall, Ends::WhenPatienceIsOver),
    victim(Lie::WrongDigest, Ends::With(INTEGRITY)),
    victim(Lie::LongChunks, Ends::With(OTHER)),
    victim(Lie::UnwantedChunk, Ends::With(OTHER)),
    victim(Lie::LateEntry, Ends::With(OTHER)),
    victim(Lie::UnwantedCompression, Ends::With(OTHER)),
    Victim { options: &["--compress"], ..victim(Lie::Bomb, Ends::With(OTHER)) },
    Victim { options: &["--overwrite"], ..victim(Lie::EndlessSignatures, Ends::With(OTHER)) },
    victim(Lie::Unconfirmed, Ends::WhenPatienceIsOver),
    victim(Lie::Mute, Ends::WhenPatienceIsOver),
];

/// Exit codes (README).
const OTHER: i32 = 1;
const UNREACHABLE: i32 = 3;
const INTEGRITY: i32 = 5;
const LOCAL_IO: i32 = 7;
const INTERRUPTED: i32 = 130;

const ENTRIES: u32 = 40_000;
const SHORT_ENTRIES: u32 = 20_000;

/// What there is an old version of, for a lie about cuts: an eighth of what it promises.
const OLD_FILE_BYTES: u64 = 1 << 30;

/// What needs no patience is over by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(30);

/// How long something without end is listened to.
const ENDLESS: Duration = Duration::from_secs(8);

/// By then a client is amidst the lie.
const INTERRUPT_AFTER: Duration = Duration::from_secs(2);

/// What Ctrl-C may take.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(1);

/// From there on it counts as never.
const KILL_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_code_and_ctrl_c_are_judged() {
        let fine = Outcome { code: Some(LOCAL_IO), after: SOON, interrupted: None, peak_bytes: 1 << 20 };
        let huge = victim(Lie::HugeFile, Ends::With(LOCAL_IO));
        assert_eq!(fine.verdict(&huge), Ok(()));
        let large = Outcome { peak_bytes: CAP_BYTES + 1, ..fine };
        assert!(large.verdict(&huge).unwrap_err().contains("hold"));
        let aborted = Outcome { code: None, ..fine };
        assert!(aborted.verdict(&huge).unwrap_err().contains("signal"));
        let stuck = Outcome { code: None, interrupted: Some(None), ..fine };
        assert!(stuck.verdict(&huge).unwrap_err().contains("Ctrl-C"));
        let another = Outcome { code: Some(0), ..fine };
        assert!(another.verdict(&huge).unwrap_err().contains("code 0"));
        let endless = victim(Lie::EndlessFiles, Ends::WhenInterrupted);
        let stopped =
            Outcome { code: Some(INTERRUPTED), interrupted: Some(Some(Duration::from_millis(9))), ..fine };
        assert_eq!(stopped.verdict(&endless), Ok(()));
        assert!(stopped.verdict(&huge).unwrap_err().contains("goes on"));
        let late = Outcome { interrupted: Some(Some(2 * INTERRUPT_LIMIT)), ..stopped };
        assert!(late.verdict(&endless).unwrap_err().contains("took"));
    }
}
