//! Runs `shiplane serve --writable` with the maximum of lying pushes and an honest `get`.

use std::time::Duration;

use anyhow::Result;
use xtask::driver::{Access, Server};
use xtask::{interrupt, units};

use super::{ADDRESS_SPACE_BYTES, PATIENCE, SERVER_BOUND_BYTES};
use crate::load::peer_process::{PeerProcess, command_to};
use crate::load::{Fixture, settled};
use crate::stats::ProcessStats;

/// What was seen of a server.
#[derive(Debug)]
pub(super) struct Seen {
    lies: &'static [&'static str],
    /// None if it did not live to be looked at.
    observed: Option<Observed>,
}

/// What was seen of one that lived.
#[derive(Debug)]
struct Observed {
    before: ProcessStats,
    after: ProcessStats,
    alone: Duration,
    beside: Duration,
    /// Whether the server has ended every push by itself; none if nothing makes it.
    ended: Option<bool>,
    /// What the pushers say of themselves.
    told: String,
}

/// Each lie in turn, or all at once if there is no time.
pub(super) fn run(fixture: &Fixture) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    let alone = LIES.iter().chain(&ENDLESS_LIES).map(std::slice::from_ref).filter(|_| !fixture.short);
    let all = if fixture.short { &LIES[..LIES.len() - 1] } else { &LIES };
    for lies in std::iter::once(all).chain(alone) {
        interrupt::check()?;
        println!("    pushes to a server: {}", lies.join(", "));
        seen.push(play(fixture, lies)?);
    }
    Ok(seen)
}

fn play(fixture: &Fixture, lies: &'static [&'static str]) -> Result<Seen> {
    let home = fixture.home(&lies.join(" "))?;
    let inbox = fixture.scratch.directory(&format!("inbox of {}", lies.join(" ")))?;
    std::fs::hard_link(&fixture.file, inbox.join("large"))?;
    let shiplane = fixture.shiplane.within(ADDRESS_SPACE_BYTES);
    let server = shiplane.serve(&inbox, &home, Access::Write)?;
    let seen = match watch(fixture, lies, &server) {
        Ok(seen) => {
            server.stop()?;
            seen
        }
        Err(failure) => {
            interrupt::check()?;
            println!("{}", server.with_log(&failure));
            // It may still write there.
            drop(server);
            Seen { lies, observed: None }
        }
    };
    std::fs::remove_dir_all(&inbox)?;
    Ok(seen)
}

fn watch(fixture: &Fixture, lies: &'static [&'static str], server: &Server) -> Result<Seen> {
    let alone = fixture.get(server)?;
    let before = ProcessStats::of(server.running().pid())?;
    let mut command = command_to("lying-pushers", PUSHES, server, &fixture.keys)?;
    command.args(lies.iter().flat_map(|lie| ["--lie", lie]));
    command.args(["--entries", if fixture.short { SHORT_ENTRIES } else { ENTRIES }]);
    let mut peers = PeerProcess::start(&mut command)?;
    let beside = fixture.get(server)?;
    let is_endless = lies.iter().any(|lie| ENDLESS_LIES.contains(lie));
    let ended = if is_endless { None } else { Some(peers.says_something_within(patience_with(lies))?) };
    let told = peers.stop()?;
    let after = settled(server, before)?;
    Ok(Seen { lies, observed: Some(Observed { before, after, alone, beside, ended, told }) })
}

/// How long a server may take to end the last of them.
fn patience_with(lies: &[&str]) -> Duration {
    if lies.contains(&"long-files") { PATIENCE_FOR_LISTS } else { PATIENCE }
}

impl Seen {
    pub(super) fn name(&self) -> &'static str {
        match self.lies {
            [lie] => lie,
            _ => "all at once",
        }
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        let Some(observed) = &self.observed else {
            return Err("it has died, or serves nobody any more".to_owned());
        };
        if observed.after.peak_bytes > SERVER_BOUND_BYTES {
            return Err(format!("it came to hold {}", units::bytes(observed.after.peak_bytes)));
        }
        if observed.ended == Some(false) {
            return Err(format!("some go on after {} s", patience_with(self.lies).as_secs()));
        }
        Ok(())
    }

    pub(super) fn row(&self, verdict: &Result<(), String>) -> Vec<String> {
        let mut row =
            vec![self.name().to_owned(), if verdict.is_ok() { "passed" } else { "failed" }.to_owned()];
        if let Some(observed) = &self.observed {
            let speed = observed.alone.as_secs_f64() / observed.beside.as_secs_f64().max(1e-9);
            row.extend([
                units::bytes(observed.before.peak_bytes),
                units::bytes(observed.after.peak_bytes),
                units::bytes(observed.after.resident_bytes),
                format!("{:.0} %", 100.0 * speed),
                observed.told.clone(),
            ]);
        }
        row
    }
}

pub(super) const HEADING: [&str; 7] =
    ["56 pushes of", "verdict", "peak before", "peak", "held after", "an honest get's speed", "the pushers"];

/// As many as a server takes.
const PUSHES: u64 = 56;

/// Those that a server must end by itself.
const LIES: [&str; 16] = [
    "huge-file",
    "vast-file",
    "long-directories",
    "unadmitted-entries",
    "long-links",
    "through-link",
    "alive-for-entries",
    "alive-for-chunks",
    "drip",
    "wrong-digest",
    "long-chunks",
    "unwanted-chunk",
    "late-entry",
    "unwanted-compression",
    "mute",
    // The last: it takes the longest.
    "long-files",
];

/// Those that go on for as long as the peer does.
const ENDLESS_LIES: [&str; 3] = ["endless-files", "endless-skipped", "endless-links"];

/// Of each push that lies about entries.
const ENTRIES: &str = "4000";
const SHORT_ENTRIES: &str = "1000";

/// Such pushes list more as others end and give memory back, which is progress; then a chunk of many files has two
/// windows of 30 s.
const PATIENCE_FOR_LISTS: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_endless_pushes_are_judged() {
        let seen = |peak_bytes, ended| {
            let after = ProcessStats { peak_bytes, ..ProcessStats::default() };
            let (alone, beside, told) = (PATIENCE, PATIENCE, String::new());
            let observed = Observed { before: ProcessStats::default(), after, alone, beside, ended, told };
            Seen { lies: &LIES, observed: Some(observed) }
        };
        assert!(Seen { lies: &LIES, observed: None }.verdict().unwrap_err().contains("died"));
        assert_eq!(seen(1 << 20, Some(true)).verdict(), Ok(()));
        assert_eq!(seen(1 << 20, None).verdict(), Ok(()));
        assert!(seen(SERVER_BOUND_BYTES + 1, None).verdict().unwrap_err().contains("hold"));
        assert!(seen(1 << 20, Some(false)).verdict().unwrap_err().contains("go on"));
    }
}
