//! Runs `shiplane get` against a lying server. It passes if its memory stays within its bound, it ends with the exit code
//! that fits the lie and soon enough, and where a lie has no end Ctrl-C ends it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask::process::{Running, Signal};
use xtask::units;

use super::scenarios::{CAP_BYTES, PATIENCE};
use super::{Fixture, PeerProcess, Report, command, joined};
use crate::peers::hostile::{ENTRIES, Lie};
use crate::peers::{Kind, name_of};

/// One lie, and what must become of a client that hears it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) lie: Lie,
    pub(super) ends: Ends,
    options: &'static [&'static str],
    /// Where to, if not to a directory.
    to_stdout: bool,
    /// Whether a server hears it from pushers.
    pub(super) is_pushed: bool,
}

/// How a client must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Soon, with this code.
    With(i32),
    /// With code 3, once its patience is over; and by Ctrl-C before that.
    WhenPatienceIsOver,
    /// By Ctrl-C alone: it goes on for as long as there is something new. So does a server.
    WhenInterrupted,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// None if a signal has ended it.
    code: Option<i32>,
    after: Duration,
    /// How long it took from Ctrl-C to its end, if that was needed; none if it had to be killed.
    interrupted: Option<Option<Duration>>,
    peak_bytes: u64,
}

/// All lies. Those that take patience are told side by side, to two clients each of which one is ended by Ctrl-C; the
/// others one after another beside them.
pub(super) fn run(fixture: &Fixture) -> Result<Report> {
    let (patient, others): (Vec<Case>, Vec<Case>) =
        CASES.into_iter().partition(|case| case.ends == Ends::WhenPatienceIsOver);
    let mut report = Report::new(HEADING);
    std::thread::scope(|scope| {
        let interrupted = patient.iter().map(|case| Case { ends: Ends::WhenInterrupted, ..*case });
        let patient = interrupted.chain(patient.iter().copied());
        let patient: Vec<_> = patient.map(|case| (case, scope.spawn(move || play(fixture, &case)))).collect();
        for case in others {
            play(fixture, &case)?.add_to(&mut report, &case);
        }
        for (case, thread) in patient {
            joined(thread)?.add_to(&mut report, &case);
        }
        Ok(report)
    })
}

/// Runs one client until it ends, or for as long as it may take and then by Ctrl-C.
fn play(fixture: &Fixture, case: &Case) -> Result<Outcome> {
    let limit = match case.ends {
        Ends::With(_) => SOON,
        Ends::WhenPatienceIsOver => PATIENCE,
        Ends::WhenInterrupted => ENDLESS,
    };
    let place = fixture.scratch.path().join(format!("get of {}, {} s", name_of(case.lie), limit.as_secs()));
    fs::create_dir(&place).context("cannot make a directory")?;
    let entries = if fixture.short { SHORT_ENTRIES } else { ENTRIES };
    // In a process of its own: no child's peak memory is below its parent's.
    let mut command = command(Kind::LyingServer)?;
    command.args(["--lie", &name_of(case.lie), "--entries", &entries.to_string()]);
    let liar = PeerProcess::start(&mut command)?;
    let copy = place.join("copy");
    fs::create_dir(&copy).context("cannot make the destination")?;
    if case.lie == Lie::EndlessSignatures {
        for name in ["file", "file2"] {
            let old = File::create(copy.join(name)).context("cannot make the old version")?;
            old.set_len(OLD_FILE_BYTES).context("cannot make the old version long")?;
        }
    }
    let mut command = fixture.shiplane.command(&place.join("home"));
    command.arg("get").arg(liar.ready()).args(["--give-up-after", "0s"]);
    command.arg(if case.to_stdout { Path::new("-") } else { &copy });
    command.args(["--quiet"]).args(case.options);
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
    let mut interrupted = None;
    if !running.ends_within(limit)? {
        let from = Instant::now();
        running.signal(Signal::Interrupt)?;
        interrupted = Some(running.ends_within(KILL_AFTER)?.then(|| from.elapsed()));
    }
    let after = started.elapsed();
    let ended = running.kill()?;
    Ok(Outcome { code: ended.code, after, interrupted, peak_bytes: ended.used.peak_rss_bytes })
}

impl Outcome {
    fn verdict(&self, case: &Case) -> Result<(), String> {
        if self.peak_bytes > CAP_BYTES {
            return Err(format!("it came to hold {}", units::bytes(self.peak_bytes)));
        }
        if self.interrupted == Some(None) {
            return Err("Ctrl-C did not end it".to_owned());
        }
        let expected = match case.ends {
            Ends::With(code) => code,
            Ends::WhenPatienceIsOver => UNREACHABLE,
            Ends::WhenInterrupted => INTERRUPTED,
        };
        match (self.code, self.interrupted) {
            (Some(code), Some(Some(took))) if code == expected && took > INTERRUPT_LIMIT => {
                Err(format!("Ctrl-C took {:.1} s", took.as_secs_f64()))
            }
            (Some(code), _) if code == expected => Ok(()),
            (Some(INTERRUPTED), _) => Err(format!("it goes on after {:.0} s", self.after.as_secs_f64())),
            (Some(code), _) => Err(format!("it ended with code {code}, not {expected}")),
            (None, _) => Err("a signal has ended it".to_owned()),
        }
    }

    fn add_to(&self, report: &mut Report, case: &Case) {
        let interrupted = match self.interrupted {
            None => "–".to_owned(),
            Some(None) => "never".to_owned(),
            Some(Some(took)) => format!("{} ms", took.as_millis()),
        };
        let code = self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let cells = [units::bytes(self.peak_bytes), code, units::seconds(self.after), interrupted];
        report.add(&name_of(case.lie), self.verdict(case), cells);
    }
}

const HEADING: &str = "get from|verdict|peak|exit code|after|Ctrl-C took";

const fn case(lie: Lie, ends: Ends) -> Case {
    Case { lie, ends, options: &["--durability", "verified"], to_stdout: false, is_pushed: true }
}

/// A lie that is only told to clients.
const fn to_client(lie: Lie, ends: Ends) -> Case {
    Case { is_pushed: false, ..case(lie, ends) }
}

/// Every lie.
pub(super) const CASES: [Case; 25] = [
    case(Lie::HugeFile, Ends::With(LOCAL_IO)),
    case(Lie::VastFile, Ends::With(LOCAL_IO)),
    Case { to_stdout: true, options: &[], ..to_client(Lie::HugeStream, Ends::WhenPatienceIsOver) },
    case(Lie::LongDirectories, Ends::With(0)),
    case(Lie::UnadmittedEntries, Ends::With(OTHER)),
    case(Lie::LongFiles, Ends::WhenPatienceIsOver),
    case(Lie::EndlessFiles, Ends::WhenInterrupted),
    case(Lie::EndlessSkipped, Ends::WhenInterrupted),
    case(Lie::LongLinks, Ends::With(0)),
    case(Lie::EndlessLinks, Ends::WhenInterrupted),
    case(Lie::ThroughLink, Ends::With(OTHER)),
    case(Lie::AliveForEntries, Ends::WhenPatienceIsOver),
    case(Lie::AliveForChunks, Ends::WhenPatienceIsOver),
    case(Lie::Drip, Ends::WhenPatienceIsOver),
    to_client(Lie::Trickle, Ends::WhenPatienceIsOver),
    to_client(Lie::Stall, Ends::WhenPatienceIsOver),
    case(Lie::WrongDigest, Ends::With(INTEGRITY)),
    case(Lie::LongChunks, Ends::With(OTHER)),
    case(Lie::UnwantedChunk, Ends::With(OTHER)),
    case(Lie::LateEntry, Ends::With(OTHER)),
    case(Lie::UnwantedCompression, Ends::With(OTHER)),
    Case { options: &["--compress"], ..to_client(Lie::Bomb, Ends::With(OTHER)) },
    Case { options: &["--overwrite"], ..to_client(Lie::EndlessSignatures, Ends::With(OTHER)) },
    to_client(Lie::Unconfirmed, Ends::WhenPatienceIsOver),
    case(Lie::Mute, Ends::WhenPatienceIsOver),
];

/// Exit codes (README).
const OTHER: i32 = 1;
const UNREACHABLE: i32 = 3;
const INTEGRITY: i32 = 5;
const LOCAL_IO: i32 = 7;
const INTERRUPTED: i32 = 130;

const SHORT_ENTRIES: u32 = 20_000;

/// What there is an old version of, for a lie about cuts: an eighth of what it promises.
const OLD_FILE_BYTES: u64 = 1 << 30;

/// What needs no patience is over by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(30);

/// How long something without end is listened to.
const ENDLESS: Duration = Duration::from_secs(8);

/// What Ctrl-C may take.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(1);

/// From there on it counts as never.
const KILL_AFTER: Duration = Duration::from_secs(5);
