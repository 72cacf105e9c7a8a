//! Transfers over a real slow link (`tc tbf` in network namespaces) that are killed again and again: what the link has
//! carried is kept but for a little, what was shown as done is kept, and where the rate changes they end all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;
use testlink::Rng;
use xtask::dataset::noisy_file;
use xtask::driver::{Shiplane, Verb};
use xtask::process::{Ended, Running, find_program};
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use crate::wan::{self, Conditions, Link, RECEIVER, SENDER};

/// What this needs and this machine lacks.
pub(super) fn missing() -> Option<&'static str> {
    let has_tc = || find_program("tc").is_none().then_some("it needs tc (iproute2)");
    wan::missing().or_else(has_tc)
}

/// Runs all cases at the same time: they leave the machine idle. `is_short`: each is killed once, early.
pub(super) fn run(shiplane: &Shiplane, is_short: bool) -> Result<Vec<Vec<String>>> {
    let scratch = Scratch::in_memory("shiplane-slow-")?;
    let cases = if is_short { SHORT } else { FULL };
    println!("killing transfers over slow links");
    let outcomes: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
        let started = cases.iter().enumerate().map(|(number, case)| {
            let place = scratch.path().join(number.to_string());
            scope.spawn(move || case.run(shiplane, &place).with_context(|| case.name()))
        });
        let started: Vec<_> = started.collect();
        let join = |case: std::thread::ScopedJoinHandle<'_, _>| {
            case.join().unwrap_or_else(|_| Err(anyhow!("a case panicked")))
        };
        started.into_iter().map(join).collect()
    });
    interrupt::check()?;
    let headings = ["over a slow link", "kbit/s", "kills", "of", "sent again for each", "at most"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for outcome in outcomes {
        rows.push(outcome?);
    }
    Ok(rows)
}

/// What is transferred, over what, and when it is killed.
#[derive(Clone, Copy, Debug)]
struct Case {
    verb: Verb,
    files: u64,
    file_len_bytes: u64,
    link_kbit: u32,
    /// Milliseconds of the first run after which the link carries this rate.
    change: Option<(u64, u32)>,
    /// What `--rate` says.
    limit: Option<u64>,
    /// How long a run lasts until it is killed, and how often that happens at most.
    kill_after_ms: u64,
    kills: u32,
}

/// One run.
struct Run {
    ended: Ended,
    /// All packets that the link has carried towards the receiver.
    carried_bytes: u64,
    is_killed: bool,
}

impl Case {
    const fn new(verb: Verb, link_kbit: u32, file_len_bytes: u64) -> Self {
        let (change, limit) = (None, None);
        Self { verb, files: 1, file_len_bytes, link_kbit, change, limit, kill_after_ms: u64::MAX, kills: 0 }
    }

    const fn killed(self, kills: u32, kill_after_ms: u64) -> Self {
        Self { kills, kill_after_ms, ..self }
    }

    /// As many files of 8 kB as make up the same.
    const fn small(self) -> Self {
        Self { files: self.file_len_bytes / SMALL_BYTES, file_len_bytes: SMALL_BYTES, ..self }
    }

    const fn limited(self, bytes_per_second: u64) -> Self {
        Self { limit: Some(bytes_per_second), ..self }
    }

    const fn changing(self, after_ms: u64, to_kbit: u32) -> Self {
        Self { change: Some((after_ms, to_kbit)), ..self }
    }

    fn name(&self) -> String {
        let mut name = self.verb.to_string();
        if self.files > 1 {
            name += " of small files";
        }
        if self.limit.is_some() {
            name += " --rate";
        }
        if let Some((_, kbit)) = self.change {
            name += &format!(", then {} kbit/s", units::count(kbit.into()));
        }
        name
    }

    /// 256 KiB, or what the link carries in two seconds.
    fn most_bytes(&self) -> u64 {
        let link = u64::from(self.link_kbit) * 125;
        (2 * self.limit.map_or(link, |limit| limit.min(link))).max(256 << 10)
    }

    fn run(&self, shiplane: &Shiplane, place: &Path) -> Result<Vec<String>> {
        let fixture = Fixture::new(self, shiplane, place)?;
        let mut cost_bytes = 0;
        let mut kills = 0;
        let mut shown_bytes = 0;
        let runs = fixture.run_all()?;
        for run in &runs {
            if self.files == 1 {
                let resumed_bytes = most(&run.ended.lines, "bytes_resumed");
                // The end of a run that was killed may have been kept and not shown.
                ensure!(
                    run.ended.lines.is_empty() || shown_bytes <= resumed_bytes,
                    "{shown_bytes} B were shown as done, and {resumed_bytes} are kept"
                );
                shown_bytes = most(&run.ended.lines, "bytes_done");
            }
            kills += u64::from(run.is_killed);
            cost_bytes += run.carried_bytes;
        }
        // Packets' headers take a 20th.
        let needed_bytes = self.files * self.file_len_bytes;
        let cost_bytes = cost_bytes.saturating_sub(needed_bytes + needed_bytes / 20) / kills.max(1);
        ensure!(
            kills == 0 || cost_bytes <= self.most_bytes(),
            "a kill costs {cost_bytes} B, more than {}",
            self.most_bytes()
        );
        Ok(vec![
            self.name(),
            units::count(self.link_kbit.into()),
            units::count(kills),
            units::bytes(needed_bytes),
            if kills > 0 { units::bytes(cost_bytes) } else { "–".to_owned() },
            if kills > 0 { units::bytes(self.most_bytes()) } else { "–".to_owned() },
        ])
    }
}

/// The programs, the link between them, and what is sent.
struct Fixture<'a> {
    case: &'a Case,
    shiplane: &'a Shiplane,
    link: Link,
    from: PathBuf,
    to: PathBuf,
    homes: [PathBuf; 2],
}

impl<'a> Fixture<'a> {
    fn new(case: &'a Case, shiplane: &'a Shiplane, place: &Path) -> Result<Self> {
        let [from, to, server, client] = ["from", "to", "server", "client"].map(|name| place.join(name));
        for directory in [&from, &to, &server, &client] {
            fs::create_dir_all(directory).context("cannot make a directory")?;
        }
        let mut noise = Rng::new(1);
        for number in 0..case.files {
            noisy_file(&from.join(number.to_string()), case.file_len_bytes, &mut noise)?;
        }
        let link = Link::new(Conditions::behind_bucket(case.link_kbit), 1)?;
        Ok(Self { case, shiplane, link, from, to, homes: [server, client] })
    }

    /// Runs the client until it is done; the server stays.
    fn run_all(&self) -> Result<Vec<Run>> {
        let verb = self.case.verb;
        let (root, end, address) = match verb {
            Verb::Get => (&self.from, self.link.sender(), SENDER),
            Verb::Push | Verb::Sync => (&self.to, self.link.receiver(), RECEIVER),
        };
        let listen = format!("{address}:0");
        let serve = || self.shiplane.serve_at(&listen, root, &self.homes[0], verb.access());
        let server = end.within(serve)?;
        let mut runs = Vec::new();
        let last = loop {
            let is_last = runs.len() >= self.case.kills as usize;
            let run = self.run(server.ticket(), is_last, runs.is_empty())?;
            if !run.is_killed {
                break run;
            }
            runs.push(run);
        };
        if last.ended.code != Some(0) {
            bail!("it ended with {:?}: {}", last.ended.code, last.ended.said);
        }
        tree::expect_equal(&self.from, &self.to)?;
        runs.push(last);
        Ok(runs)
    }

    fn run(&self, ticket: &str, is_last: bool, is_first: bool) -> Result<Run> {
        let (before, began) = (self.link.counts().carried_bytes, Instant::now());
        let local = match self.case.verb {
            Verb::Get => self.to.clone(),
            Verb::Push => self.from.join("."),
            Verb::Sync => self.from.clone(),
        };
        let mut command = self.shiplane.client(self.case.verb, &local, ticket, &self.homes[1]);
        if let Some(limit) = self.case.limit {
            command.arg("--rate").arg(limit.to_string());
        }
        let is_get = self.case.verb == Verb::Get;
        let end = if is_get { self.link.receiver() } else { self.link.sender() };
        let client = end.within(|| Running::heard("the client", command.arg("--json")))?;
        let mut change = self.case.change.filter(|_| is_first);
        let mut is_killed = false;
        while !client.ends_within(POLL)? {
            let elapsed_ms = began.elapsed().as_millis() as u64;
            if let Some((_, kbit)) = change.take_if(|(after_ms, _)| *after_ms <= elapsed_ms) {
                self.link.sender().set_token_bucket(kbit)?;
            }
            if !is_last && elapsed_ms >= self.case.kill_after_ms {
                is_killed = true;
                break;
            }
            ensure!(began.elapsed() < LIMIT, "it has not ended within {} s", LIMIT.as_secs());
        }
        let ended = if is_killed { client.kill()? } else { client.wait(LIMIT)? };
        // What was on its way is carried all the same.
        std::thread::sleep(if is_killed { AFTERMATH } else { Duration::ZERO });
        Ok(Run { ended, carried_bytes: self.link.counts().carried_bytes - before, is_killed })
    }
}

/// The most that any event says in this field.
fn most(lines: &[String], field: &str) -> u64 {
    let mut most_bytes = 0;
    for line in lines {
        // The last one of a program that was killed may be cut off.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        most_bytes = most_bytes.max(event[field].as_u64().unwrap_or_default());
    }
    most_bytes
}

const SHORT: &[Case] = &[
    Case::new(Verb::Get, 2400, 1_500_000).killed(1, 3000),
    Case::new(Verb::Push, 2400, 1_500_000).killed(1, 3000),
    Case::new(Verb::Sync, 2400, 1_500_000).killed(1, 3000),
];

const FULL: &[Case] = &[
    Case::new(Verb::Get, 2400, 9_000_000).killed(3, 10_000),
    Case::new(Verb::Push, 2400, 9_000_000).killed(3, 10_000),
    Case::new(Verb::Sync, 2400, 9_000_000).killed(3, 10_000),
    Case::new(Verb::Get, 2400, 9_000_000).small().killed(3, 10_000),
    Case::new(Verb::Push, 2400, 9_000_000).small().killed(3, 10_000),
    Case::new(Verb::Sync, 2400, 9_000_000).small().killed(3, 10_000),
    Case::new(Verb::Get, 100_000, 9_000_000).limited(300_000).killed(3, 10_000),
    Case::new(Verb::Push, 100_000, 9_000_000).limited(300_000).killed(3, 10_000),
    Case::new(Verb::Sync, 100_000, 9_000_000).limited(300_000).killed(3, 10_000),
    Case::new(Verb::Get, 64, 500_000).killed(2, 30_000),
    Case::new(Verb::Push, 64, 500_000).killed(2, 30_000),
    Case::new(Verb::Sync, 64, 500_000).killed(2, 30_000),
    Case::new(Verb::Get, 128, 1_000_000),
    Case::new(Verb::Push, 128, 1_000_000),
    Case::new(Verb::Sync, 128, 1_000_000),
    Case::new(Verb::Get, 24_000, 3_000_000).changing(500, 240),
    Case::new(Verb::Push, 24_000, 3_000_000).changing(500, 240),
    Case::new(Verb::Sync, 24_000, 3_000_000).changing(500, 240),
    Case::new(Verb::Get, 240, 30_000_000).changing(5000, 24_000),
    Case::new(Verb::Push, 240, 30_000_000).changing(5000, 24_000),
    Case::new(Verb::Sync, 240, 30_000_000).changing(5000, 24_000),
];

const SMALL_BYTES: u64 = 8000;

/// Against a hang: several times what the slowest case takes.
const LIMIT: Duration = Duration::from_secs(400);

const POLL: Duration = Duration::from_millis(5);

/// What the queue of the link holds takes a second.
const AFTERMATH: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_is_said_counts_though_the_last_line_is_cut_off() {
        let lines = [r#"{"bytes_done":5}"#, r#"{"bytes_done":70,"x":1}"#, r#"{"bytes_done":90"#];
        assert_eq!(most(&lines.map(str::to_owned), "bytes_done"), 70);
        assert_eq!(most(&[], "bytes_done"), 0);
    }

    #[test]
    fn what_a_kill_may_cost_follows_the_slower_of_link_and_limit() {
        let case = Case::new(Verb::Get, 24_000, 1);
        assert_eq!(case.most_bytes(), 6_000_000);
        assert_eq!(case.limited(300_000).most_bytes(), 600_000);
        assert_eq!(Case::new(Verb::Push, 64, 1).most_bytes(), 256 << 10);
    }
}
