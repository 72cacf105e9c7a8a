//! Transfers over a real slow link (`tc tbf` in network namespaces) that are killed again and again: what the link has
//! carried is kept but for a little, what was shown as done is kept, and where the rate changes they end all the same.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use testlink::Rng;
use xtask::dataset::noisy_file;
use xtask::driver::{Shiplane, Verb};
use xtask::process::find_program;
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use crate::measure::{Conditions, Ends, Finished, Link, RECEIVER, SENDER, most_said, wan};

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
    let mut rows =
        vec![units::row(["over a slow link", "kbit/s", "kills", "of", "sent again for each", "at most"])];
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

    /// Runs the client, and kills it, until it is done; the server stays.
    fn run(&self, shiplane: &Shiplane, place: &Path) -> Result<Vec<String>> {
        let [from, to, server_home, client_home] =
            ["from", "to", "server", "client"].map(|name| place.join(name));
        for directory in [&from, &to, &server_home, &client_home] {
            fs::create_dir_all(directory).context("cannot make a directory")?;
        }
        let mut noise = Rng::new(1);
        for number in 0..self.files {
            noisy_file(&from.join(number.to_string()), self.file_len_bytes, &mut noise)?;
        }
        let link = Link::new(Conditions::behind_bucket(self.link_kbit), 1)?;
        let ends = Ends { link: Some(&link), verb: self.verb };
        let (root, local, address) = match self.verb {
            Verb::Get => (&from, to.clone(), SENDER),
            Verb::Push => (&to, from.join("."), RECEIVER),
            Verb::Sync => (&to, from.clone(), RECEIVER),
        };
        let serve = || shiplane.serve_at(&format!("{address}:0"), root, &server_home, self.verb.access());
        let server = ends.at_server(serve)?;
        let (mut kills, mut shown_bytes) = (0, 0);
        loop {
            let mut command = shiplane.client(self.verb, &local, server.ticket(), &client_home);
            command.arg("--json");
            if let Some(limit) = self.limit {
                command.arg("--rate").arg(limit.to_string());
            }
            let is_last = kills >= self.kills;
            let limit = if is_last { LIMIT } else { Duration::from_millis(self.kill_after_ms) };
            let mut change = self.change.filter(|_| kills == 0);
            let look = |elapsed: Duration| {
                let change = change.take_if(|(after_ms, _)| u128::from(*after_ms) <= elapsed.as_millis());
                change.map_or(Ok(()), |(_, kbit)| link.sender().set_token_bucket(kbit))
            };
            let Finished { ended, is_stopped, .. } =
                ends.run_watched("the client", &mut command, limit, look)?;
            ensure!(!(is_stopped && is_last), "it has not ended within {} s", LIMIT.as_secs());
            if self.files == 1 {
                let resumed_bytes = most_said(&ended.lines, "bytes_resumed");
                // The end of a run that was killed may have been kept and not shown.
                ensure!(
                    ended.lines.is_empty() || shown_bytes <= resumed_bytes,
                    "{shown_bytes} B were shown as done, and {resumed_bytes} are kept"
                );
                shown_bytes = most_said(&ended.lines, "bytes_done");
            }
            if !is_stopped {
                ended.expect_success("it")?;
                break;
            }
            kills += 1;
            // What was on its way is carried all the same.
            std::thread::sleep(AFTERMATH);
        }
        tree::expect_equal(&from, &to)?;
        self.judge(kills.into(), link.counts().carried_bytes)
    }

    fn judge(&self, kills: u64, carried_bytes: u64) -> Result<Vec<String>> {
        // Packets' headers take a 20th.
        let needed_bytes = self.files * self.file_len_bytes;
        let cost_bytes = carried_bytes.saturating_sub(needed_bytes + needed_bytes / 20) / kills.max(1);
        let most_bytes = self.most_bytes();
        ensure!(
            kills == 0 || cost_bytes <= most_bytes,
            "a kill costs {cost_bytes} B, more than {most_bytes}"
        );
        let of_kills = |bytes| if kills > 0 { units::bytes(bytes) } else { "–".to_owned() };
        Ok(vec![
            self.name(),
            units::count(self.link_kbit.into()),
            units::count(kills),
            units::bytes(needed_bytes),
            of_kills(cost_bytes),
            of_kills(most_bytes),
        ])
    }
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

/// What the queue of the link holds takes a second.
const AFTERMATH: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_may_cost_follows_the_slower_of_link_and_limit() {
        let case = Case::new(Verb::Get, 24_000, 1);
        assert_eq!(case.most_bytes(), 6_000_000);
        assert_eq!(case.limited(300_000).most_bytes(), 600_000);
        assert_eq!(Case::new(Verb::Push, 64, 1).most_bytes(), 256 << 10);
    }
}
