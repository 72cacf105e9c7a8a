//! Prints a comparison and writes it into the docs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use xtask::units;

use super::Options;
use super::sample::{Measured, median};
use super::targets::{self, Target};
use super::workload::{DIRECTORIES, EDITS, Scenario, Workload};
use crate::machine;
use crate::table;

/// All that there is to say.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    /// The first is the one that the targets are about.
    pub(super) workloads: &'a [Workload],
    pub(super) measured: &'a [Measured],
    pub(super) targets: Vec<Target>,
    /// Who did not take part, and why.
    pub(super) missing: &'a [String],
    /// The file in the docs, and what it is about.
    pub(super) slug: &'a str,
    pub(super) title: String,
}

impl Report<'_> {
    /// Prints it, and writes Markdown below the directory for docs, if there is one.
    pub(super) fn publish(&self) -> Result<()> {
        println!("\n{}", self.laid_out(units::table, "  "));
        let Some(docs) = &self.options.docs else { return Ok(()) };
        let busy = if self.options.busy { "-busy" } else { "" };
        let name = Path::new(machine::Kind::here().slug()).join(format!("{}{busy}.md", self.slug));
        let text = format!("# {}\n\n{}", self.title, self.laid_out(table::markdown, "- "));
        table::write(&docs.join(name), &text)
    }

    fn laid_out(&self, lay: fn(&[Vec<String>]) -> String, item: &str) -> String {
        let workload = &self.workloads[0];
        let rows = rows(workload.scenario, self.measured, workload.bytes);
        let targets = targets::rows(&self.targets);
        let mut text = format!("{}\n\n{}\n{}\n", self.heading(), lay(&rows), lay(&targets));
        let on_disk = |program: &&Measured| {
            self.workloads.iter().skip(1).any(|disk| program.name.ends_with(&disk.suffix))
        };
        for program in self.measured.iter().filter(|program| !on_disk(program)) {
            let _infallible = writeln!(text, "{item}{}: {}", program.name, program.version);
        }
        for missing in self.missing {
            let _infallible = writeln!(text, "{item}{missing}");
        }
        text
    }

    fn heading(&self) -> String {
        let workload = &self.workloads[0];
        let on_disk = |disk: &Workload| {
            let file_system = &disk.file_system;
            format!(
                "Rows on {file_system} are for a disk, which has nothing left to write when a run begins. "
            )
        };
        format!(
            "{}: loopback, {}; the time is that of the receiving program, from its start to its end. Before each run as \
             much memory as is carried is written and given back. {}Everything is encrypted with AES-128-GCM unless it \
             says otherwise. Bytes were counted {}. Peaks below that of the bench itself are not seen. Taken {} on {}, \
             from and to {}.",
            self.title,
            self.options.described(),
            self.workloads.iter().skip(1).map(on_disk).collect::<String>(),
            workload.wire.described(),
            machine::today(),
            machine::described(),
            workload.file_system,
        )
    }
}

/// What a scenario is about.
pub(super) fn title(workload: &Workload) -> String {
    let (bytes, files) = (units::megabytes(workload.bytes), units::count(workload.files));
    match workload.scenario {
        Scenario::File => format!("One file of {bytes}"),
        Scenario::Small => format!("{files} small files, {bytes} in {DIRECTORIES} directories"),
        Scenario::Unchanged => format!("{files} small files that are all there already"),
        Scenario::Edited => {
            format!("One file of {bytes}, of which {EDITS} places of 4 KiB and two bytes at the front differ")
        }
    }
}

/// A row for each program, headings first; `bytes` is what each run carried.
fn rows(scenario: Scenario, measured: &[Measured], bytes: u64) -> Vec<Vec<String>> {
    // Where nothing has to be carried, there is no rate.
    let gigabytes = (scenario != Scenario::Unchanged).then_some(bytes as f64 / 1e9);
    let mut headings = vec!["", "time", "runs"];
    headings.extend(gigabytes.map(|_| "GB/s"));
    headings.push(if gigabytes.is_some() { "CPU-s/GB" } else { "CPU-s" });
    headings.extend(["sending", "receiving", "peak sending", "receiving", "on the wire", "checks"]);
    let mut rows = vec![headings.into_iter().map(str::to_owned).collect()];
    rows.extend(measured.iter().map(|program| row(program, gigabytes)));
    rows
}

fn row(program: &Measured, gigabytes: Option<f64>) -> Vec<String> {
    let times = program.times();
    let (seconds, least) = (median(times.clone()), times.iter().copied().fold(f64::INFINITY, f64::min));
    let most = times.iter().copied().fold(0.0, f64::max);
    let mut row = vec![program.name.clone(), format!("{seconds:.2} s"), format!("{least:.2}–{most:.2}")];
    row.extend(gigabytes.map(|gigabytes| format!("{:.2}", gigabytes / seconds)));
    let cpu = |seconds: f64| format!("{:.2}", seconds / gigabytes.unwrap_or(1.0));
    let peak = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), units::bytes);
    let (senders, receivers) = (program.samples.iter(), program.samples.iter());
    let wire = program.wire_counts();
    row.extend([
        cpu(median(program.cpu_times())),
        cpu(median(program.sender_times())),
        cpu(program.median(|sample| sample.receiver.cpu.as_secs_f64())),
        peak(senders.map(|sample| sample.sender.peak_rss_bytes).max()),
        peak(receivers.map(|sample| sample.receiver.peak_rss_bytes).max()),
        if wire.is_empty() { "–".to_owned() } else { units::megabytes(median(wire) as u64) },
        program.checks.to_owned(),
    ]);
    row
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::program;
    use super::*;

    #[test]
    fn a_row_has_the_median_and_both_sides_and_an_unchanged_tree_no_rate() {
        let measured = [program("shiplane", &[900, 1000, 1500], 750, 20_000_000)];
        let all = rows(Scenario::File, &measured, 1_000_000_000);
        assert_eq!(all[0].len(), all[1].len());
        let told = "shiplane|1.00 s|0.90–1.50|1.00|1.50|0.75|0.75|20.0 MB|20.0 MB|1.0 MB|";
        assert_eq!(all[1].join("|"), told);
        assert_eq!(rows(Scenario::Unchanged, &measured, 1)[1].len(), all[1].len() - 1);
    }
}
