//! Transfers over real slow links (`tc tbf` in network namespaces) that are killed again and again: what the link has
//! carried is kept but for a little, what was shown as done is kept, and where the rate changes they end all the same.
//!
//! `cargo xtask crash` runs them with our own program and fails if a kill costs too much, `wan` compares others with it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use testlink::Rng;
use xtask::dataset::{make_directory, noisy_file};
use xtask::driver::{Shiplane, Verb};
use xtask::process::find_program;
use xtask::scratch::Scratch;
use xtask::{interrupt, tree, units};

use super::programs::{Contender, Job, Program, Programs};
use super::report::{Section, dash, yes_or_no};
use super::transfer::{End, Finished, most_said};
use super::workload::{Data, ITEM, Workload};
use super::{Conditions, Ends, Link, Measurement, SENDER, wan};

/// What is transferred, over what, and when it is killed.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// None for those of `crash`, which need no name.
    name: Option<&'static str>,
    verb: Verb,
    files: u32,
    file_len_bytes: u64,
    link_kbit: u32,
    /// Milliseconds of the first run after which the link carries this rate.
    change: Option<(u64, u32)>,
    /// What `--rate` says.
    limit: Option<u64>,
    /// How long a run lasts until it is killed, and how often that happens at most.
    kill_after_ms: u64,
    kills: u64,
}

/// What this needs and this machine lacks.
pub(crate) fn missing() -> Option<&'static str> {
    let has_tc = || find_program("tc").is_none().then_some("it needs tc (iproute2)");
    wan::missing().or_else(has_tc)
}

/// Runs all cases of `crash`, each as get, push and sync, and fails if one does not hold. `is_short`: each is killed once, early.
pub(crate) fn run(shiplane: &Shiplane, is_short: bool) -> Result<Vec<Vec<String>>> {
    let scratch = Scratch::in_memory("shiplane-slow-")?;
    println!("killing transfers over slow links");
    let ours = Contender::of("shiplane", shiplane.clone());
    let (listen, host) = (IpAddr::from([0, 0, 0, 0]), SENDER.parse()?);
    let programs = Programs::prepare(vec![ours.clone()], Vec::new(), scratch.path(), listen, host)?;
    let cases = if is_short { SHORT } else { FULL }.iter();
    let cases = cases.flat_map(|case| [Verb::Get, Verb::Push, Verb::Sync].map(|verb| Case { verb, ..*case }));
    let rows = run_all(&programs, cases.map(|case| (case, ours.clone())).collect(), &scratch)?;
    let is_too_much = |row: &&Vec<String>| row.last().is_some_and(|holds| holds == yes_or_no(false));
    if let Some(row) = rows.iter().find(is_too_much) {
        return Err(anyhow!("a kill costs too much: {}", row.join(", ")));
    }
    Ok(rows)
}

/// Those rows of `wan` that are wanted, with all programs that can take part.
pub(super) fn compare(bench: &Measurement, is_wanted: impl Fn(&str) -> bool) -> Result<Option<Section>> {
    let cases = COMPARED.iter().filter(|case| case.name.is_some_and(&is_wanted));
    let all = cases.flat_map(|case| {
        let contenders =
            bench.programs.contenders(&[Program::DURABLE], &[Program::RSYNC, Program::CURL_HTTP], true);
        contenders.into_iter().map(move |contender| (*case, contender))
    });
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        return Ok(None);
    }
    println!("\nslow links: two minutes and some");
    let rows = run_all(&bench.programs, all, &bench.scratch)?;
    Ok(Some(Section::new("Slow links, killed after 60 s and after 120 s", rows)))
}

/// All at the same time: they leave the machine idle. A row for each, headings first.
fn run_all(programs: &Programs, all: Vec<(Case, Contender)>, scratch: &Scratch) -> Result<Vec<Vec<String>>> {
    let rows: Vec<Result<_>> = std::thread::scope(|scope| {
        let start = |(number, (case, contender)): (usize, (Case, Contender))| {
            scope.spawn(move || {
                let row = case.run(programs, &contender, &scratch.path().join(format!("slow-{number}")));
                row.with_context(|| format!("{}, {}", case.title(), contender.name))
            })
        };
        let started: Vec<_> = all.into_iter().enumerate().map(start).collect();
        let joined = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|row| row.unwrap_or_else(|_| Err(anyhow!("a case panicked")))).collect()
    });
    interrupt::check()?;
    std::iter::once(Ok(units::cells(HEADINGS))).chain(rows).collect()
}

impl Case {
    /// More than the link carries in 120 s, killed after 60 s and again after 60 s.
    const fn compared(name: &'static str, link_kbit: u32) -> Self {
        let file_len_bytes = link_kbit as u64 * 125 * 120;
        Self { name: Some(name), link_kbit, file_len_bytes, kills: 2, kill_after_ms: 60_000, ..CASE }
    }

    /// As many files of 8 kB as make up the same.
    const fn small(self) -> Self {
        Self { files: (self.file_len_bytes / SMALL_BYTES) as u32, file_len_bytes: SMALL_BYTES, ..self }
    }

    fn title(&self) -> String {
        let small = if self.files > 1 { " of small files" } else { "" };
        let rate = if self.limit.is_some() { " --rate" } else { "" };
        let then = self.change.map(|(_, kbit)| format!(", then {} kbit/s", units::count(kbit.into())));
        let title = format!("{}{small}{rate}{}", self.verb, then.unwrap_or_default());
        self.name.map_or(title, str::to_owned)
    }

    /// 256 KiB, or what the link carries in two seconds.
    fn most_bytes(&self) -> u64 {
        let link = u64::from(self.link_kbit) * 125;
        (2 * self.limit.map_or(link, |limit| limit.min(link))).max(256 << 10)
    }

    fn lay(&self, place: &Path) -> Result<Data> {
        let mut noise = Rng::new(1);
        let source = place.join("source");
        make_directory(&source)?;
        let item = source.join(ITEM);
        if self.files == 1 {
            noisy_file(&item, self.file_len_bytes, &mut noise)?;
            return Data::at(place, Workload::File(self.file_len_bytes));
        }
        make_directory(&item)?;
        for number in 0..self.files {
            noisy_file(&item.join(number.to_string()), self.file_len_bytes, &mut noise)?;
        }
        Data::at(place, Workload::Tree(self.files))
    }

    /// Runs the client, and kills it, until it is done; the server stays.
    fn run(&self, programs: &Programs, contender: &Contender, place: &Path) -> Result<Vec<String>> {
        let data = self.lay(place)?;
        let paths = data.paths(&contender.slug())?;
        let conditions =
            Conditions { bucket_kbit: Some(self.link_kbit), ..Conditions::new(50.0, 100.0, 0.0) };
        let link = Link::new(conditions, 1)?;
        if let Some(name) = contender.program.congestion_control() {
            link.set_congestion_control(name)?;
        }
        let ends = Ends { link: Some(&link), verb: self.verb };
        let mut job = Job::new(Some(conditions), self.verb, &data, &paths)?;
        job.goes_on = true;
        let serving = ends.at_server(|| programs.keys.serve(contender, &job))?;
        let (mut kills, mut shown_bytes) = (0, 0);
        loop {
            let mut command = programs.client(contender, &serving, &job)?;
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
            let Finished { ended, end, .. } = ends.run(&contender.name, &mut command, limit, look)?;
            let is_stopped = end == End::Stopped;
            ensure!(!(is_stopped && is_last), "it has not ended within {} s", LIMIT.as_secs());
            if self.files == 1 && contender.is_ours() {
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
        match contender.is_ours() {
            true => tree::expect_equal(&data.source, &paths.destination)?,
            false => data.expect_copy(&paths, true)?,
        }
        Ok(self.row(contender, kills, link.counts().carried_bytes))
    }

    fn row(&self, contender: &Contender, kills: u64, carried_bytes: u64) -> Vec<String> {
        // Packets' headers take a 20th.
        let needed_bytes = u64::from(self.files) * self.file_len_bytes;
        let cost_bytes = carried_bytes.saturating_sub(needed_bytes + needed_bytes / 20) / kills.max(1);
        let of_kills = |told: String| if kills > 0 { told } else { dash() };
        vec![
            self.title(),
            contender.name.clone(),
            units::count(self.link_kbit.into()),
            units::count(kills),
            units::bytes(needed_bytes),
            of_kills(units::bytes(cost_bytes)),
            of_kills(units::bytes(self.most_bytes())),
            of_kills(yes_or_no(cost_bytes <= self.most_bytes()).to_owned()),
        ]
    }
}

const HEADINGS: &str = "over a slow link||kbit/s|kills|of|sent again for each|at most|holds";

const CASE: Case = Case {
    name: None,
    verb: Verb::Get,
    files: 1,
    file_len_bytes: 9_000_000,
    link_kbit: 2400,
    change: None,
    limit: None,
    kill_after_ms: 10_000,
    kills: 3,
};

const SHORT: &[Case] = &[Case { file_len_bytes: 1_500_000, kills: 1, kill_after_ms: 3000, ..CASE }];

const FULL: &[Case] = &[
    CASE,
    CASE.small(),
    Case { link_kbit: 100_000, limit: Some(300_000), ..CASE },
    Case { link_kbit: 64, file_len_bytes: 500_000, kills: 2, kill_after_ms: 30_000, ..CASE },
    Case { link_kbit: 128, file_len_bytes: 1_000_000, kills: 0, ..CASE },
    Case { link_kbit: 24_000, file_len_bytes: 3_000_000, kills: 0, change: Some((500, 240)), ..CASE },
    Case { link_kbit: 240, file_len_bytes: 30_000_000, kills: 0, change: Some((5000, 24_000)), ..CASE },
];

const COMPARED: [Case; 4] = [
    Case::compared("slow-64", 64),
    Case::compared("slow-256", 256),
    Case::compared("slow-700", 700),
    Case::compared("slow-2400", 2400),
];

/// What `wan --only` calls them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMPARED.iter().filter_map(|case| case.name)
}

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
        let case = Case { link_kbit: 24_000, ..CASE };
        assert_eq!(case.most_bytes(), 6_000_000);
        assert_eq!(Case { limit: Some(300_000), ..case }.most_bytes(), 600_000);
        assert_eq!(Case { link_kbit: 64, ..CASE }.most_bytes(), 256 << 10);
    }

    #[test]
    fn what_was_carried_in_vain_is_shared_among_the_kills() {
        let case = Case { link_kbit: 64, file_len_bytes: 1_000_000, kills: 2, ..CASE };
        let row =
            |carried_bytes| case.row(&Contender::other(Program::RSYNC), 2, carried_bytes)[5..].join("|");
        assert_eq!(row(1_050_000 + 2 * 262_144), "262.1 kB|262.1 kB|yes");
        assert_eq!(row(1_050_000 + 2 * 262_146), "262.1 kB|262.1 kB|NO");
    }
}
