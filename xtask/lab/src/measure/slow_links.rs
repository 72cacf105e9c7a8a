//! Transfers over slow links that are killed after 60 s and after 120 s: what is kept of what was carried.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use xtask::driver::Verb;
use xtask::units;

use super::programs::{Contender, Job, Program, Way};
use super::report::{Section, dash, yes_or_no};
use super::transfer::{End, most_said};
use super::workload::{Data, Workload, present_bytes};
use super::{Conditions, Ends, LINK_LIMIT, Link, Measurement, Must, Row, machine};

/// What was kept of a transfer that was cut off twice.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// From the start to each cut.
    carried_bytes: [u64; 2],
    kept_bytes: [u64; 2],
    /// How a program ended by itself before a cut.
    early_end: Option<String>,
}

/// The rows that are wanted, all at the same time: they leave the machine idle. The median of several runs is shown.
pub(super) fn measure(bench: &mut Measurement, is_wanted: impl Fn(&str) -> bool) -> Result<Option<Section>> {
    let rows: Vec<Row> = NAMES.into_iter().zip(KBITS).filter(|(name, _)| is_wanted(name)).map(row).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let programs = &bench.programs;
    let cells: Vec<_> =
        rows.iter().flat_map(|row| programs.contenders(row).into_iter().map(move |one| (row, one))).collect();
    let mut kept: Vec<Vec<Kept>> = vec![Vec::new(); cells.len()];
    for run in 0..bench.runs {
        println!("\nslow links, run {} of {}: two minutes and some", run + 1, bench.runs);
        // Made before, as several use the same.
        let data = cells
            .iter()
            .map(|(row, _)| Data::lay(row.workload, &bench.scratch))
            .collect::<Result<Vec<_>>>()?;
        let bench = &*bench;
        let outcomes = std::thread::scope(|scope| {
            let start = |(cell, data)| {
                let (row, contender): &(&Row, Contender) = cell;
                scope.spawn(move || cut_twice(bench, row, contender, data, u64::from(run)))
            };
            let threads: Vec<_> = cells.iter().zip(&data).map(start).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        for (kept, outcome) in kept.iter_mut().zip(outcomes) {
            kept.push(outcome.map_err(|_| anyhow!("a thread panicked"))??);
        }
    }
    let mut table = vec![units::cells(HEADINGS)];
    for ((row, contender), mut kept) in cells.iter().zip(kept) {
        kept.sort_by_key(|one| one.kept_bytes[1]);
        table.push(table_row(row, contender, &kept[kept.len() / 2]));
    }
    Ok(Some(Section::new("Slow links, cut after 60 s and after 120 s, kB", table)))
}

/// More than the link carries in 120 s.
fn row((name, kbit): (&'static str, u32)) -> Row {
    let link = Some(Conditions { bucket_kbit: Some(kbit), ..Conditions::new(50.0, 100.0, 0.0) });
    let (workload, others) =
        (Workload::File(u64::from(kbit) * 125 * 120), &[Program::Rsync, Program::CurlHttp]);
    let (verb, ways, must) = (Verb::Get, &[Way::Durable], Must::Usual);
    Row { name, link, verb, workload, ways, others, is_busy: false, must }
}

/// Kills the program after 60 s and starts it again, kills that after another 60 s, and finds out what is kept.
fn cut_twice(bench: &Measurement, row: &Row, contender: &Contender, data: &Data, seed: u64) -> Result<Kept> {
    let link = Link::new(row.link.unwrap_or(Conditions::new(50.0, 100.0, 0.0)), bench.seed + seed)?;
    let ends = Ends { link: Some(&link), verb: row.verb };
    let paths = data.paths(&format!("{}-{}", row.name, contender.slug()))?;
    let mut job = Job::new(row, &ends, data, &paths)?;
    job.goes_on = true;
    if let Some(name) = contender.program.congestion_control() {
        link.set_congestion_control(name)?;
    }
    let serving = ends.at_server(|| bench.programs.serve(contender, &job))?;
    let run =
        |limit| ends.run(&contender.name, &mut bench.programs.client(contender, &serving, &job)?, limit);
    let present = |directory: &Path| present_bytes(directory);
    let mut kept = Kept::default();
    for cut in 0..2 {
        let finished = run(CUT_AFTER)?;
        match finished.end() {
            End::Stopped => {}
            End::Done => kept.early_end = Some(format!("done after {}", units::seconds(finished.time))),
            End::Failed(why) => kept.early_end = Some(format!("failed: {why}")),
        }
        kept.carried_bytes[cut] = link.counts().carried_bytes;
        match contender.is_ours() {
            // Each run says what it found of the runs before it.
            true if cut == 0 => {}
            true => kept.kept_bytes[0] = most_said(&finished.ended.lines, "bytes_resumed"),
            false => kept.kept_bytes[cut] = present(&paths.destination)?,
        }
    }
    if contender.is_ours() {
        link.sender().remove_token_bucket()?;
        let finished = run(LINK_LIMIT)?;
        if let End::Failed(why) = finished.end() {
            kept.early_end = Some(format!("cannot be resumed: {why}"));
        }
        kept.kept_bytes[1] = most_said(&finished.ended.lines, "bytes_resumed");
    }
    drop(serving);
    paths.clear(row.workload, row.verb)?;
    Ok(kept)
}

fn table_row(row: &Row, contender: &Contender, kept: &Kept) -> Vec<String> {
    let lost_bytes = lost_bytes(kept);
    let may_lose_bytes = MAY_LOSE_BYTES.max((row.link_mbit() * 125_000.0 * MAY_LOSE_SECONDS) as u64);
    let kilobytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e3);
    let ([carried, carried_in_all], [first, in_all]) = (kept.carried_bytes, kept.kept_bytes);
    let mut cells = vec![row.name.to_owned(), contender.name.clone()];
    cells.extend([carried, first, carried_in_all, in_all].map(kilobytes));
    cells.push(units::percent(in_all, carried_in_all));
    cells.extend([lost_bytes, may_lose_bytes].map(kilobytes));
    cells.push(yes_or_no(lost_bytes <= may_lose_bytes).to_owned());
    cells.extend([kept.early_end.clone().unwrap_or_else(dash), machine::today()]);
    cells
}

/// What was carried before a cut and was not kept, at the worse of the two cuts.
fn lost_bytes(kept: &Kept) -> u64 {
    let ([carried, carried_in_all], [first, in_all]) = (kept.carried_bytes, kept.kept_bytes);
    let lost = |carried_bytes: u64, kept_bytes: u64| {
        ((carried_bytes as f64 * CONTENT_SHARE) as u64).saturating_sub(kept_bytes)
    };
    lost(carried, first).max(lost(carried_in_all - carried, in_all.saturating_sub(first)))
}

pub(super) const NAMES: [&str; 4] = ["slow-64", "slow-256", "slow-700", "slow-2400"];

const KBITS: [u32; 4] = [64, 256, 700, 2400];

const HEADINGS: &str = "\
    link|program|carried after 60 s|kept|carried after 120 s|kept of that|kept, %|lost at a cut, at most|\
    may be lost|holds|ended by itself|taken";

/// Two of these are the time of a slow link.
const CUT_AFTER: Duration = Duration::from_secs(60);

/// Of what a link carries; the rest are headers.
const CONTENT_SHARE: f64 = 0.955;

/// A cut may lose the larger of 256 KiB and what the link carries in two seconds.
const MAY_LOSE_BYTES: u64 = 256 << 10;
const MAY_LOSE_SECONDS: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_of_two_cuts_counts() {
        let cut =
            |carried_bytes, kept_bytes| lost_bytes(&Kept { carried_bytes, kept_bytes, early_end: None });
        assert_eq!(cut([1000, 2000], [900, 1000]), 855);
        assert_eq!(cut([1000, 2000], [0, 1900]), 955);
        assert_eq!(cut([1000, 2000], [955, 1910]), 0);
    }
}
