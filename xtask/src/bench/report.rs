//! Prints a comparison and writes it into the docs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::machine::{self, Kind};
use super::plot::{self, Panel};
use super::sample::Measured;
use super::workload::{DIRECTORIES, EDITS, Scenario, Workload};
use super::{Options, table, targets};
use crate::units;

/// All that there is to say.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    /// The first is the one that the targets are about.
    pub(super) workloads: &'a [Workload],
    pub(super) measured: Vec<Measured>,
    /// Who did not take part, and why.
    pub(super) missing: Vec<String>,
}

impl Report<'_> {
    /// For a terminal.
    pub(super) fn text(&self) -> String {
        self.laid_out(units::table, "  ")
    }

    /// Writes Markdown and SVG below `docs`.
    pub(super) fn write(&self, docs: &Path) -> Result<()> {
        let busy = if self.options.busy { "-busy" } else { "" };
        let slug = format!("{}{busy}", self.workload().scenario.slug());
        let text =
            format!("# {}\n\n![{slug}]({slug}.svg)\n\n{}", self.title(), self.laid_out(markdown, "- "));
        write(docs, &format!("{slug}.md"), &text)?;
        write(docs, &format!("{slug}.svg"), &self.plot()?)
    }

    fn workload(&self) -> &Workload {
        &self.workloads[0]
    }

    fn laid_out(&self, lay: fn(&[Vec<String>]) -> String, item: &str) -> String {
        let scenario = self.workload().scenario;
        let rows = table::rows(scenario, &self.measured, self.workload().bytes);
        let targets = targets::rows(&targets::of(scenario, Kind::here(), &self.measured));
        let mut text = format!("{}\n\n{}\n{}\n", self.heading(), lay(&rows), lay(&targets));
        let on_disk = |program: &&Measured| {
            self.workloads.iter().skip(1).any(|disk| program.name.ends_with(&disk.suffix))
        };
        for program in self.measured.iter().filter(|program| !on_disk(program)) {
            let _infallible = writeln!(text, "{item}{}: {}", program.name, program.version);
        }
        for missing in &self.missing {
            let _infallible = writeln!(text, "{item}{missing}");
        }
        text
    }

    fn title(&self) -> String {
        let bytes = units::megabytes(self.workload().bytes);
        let files = units::count(self.workload().files);
        match self.workload().scenario {
            Scenario::File => format!("One file of {bytes}"),
            Scenario::Small => format!("{files} small files, {bytes} in {DIRECTORIES} directories"),
            Scenario::Unchanged => format!("{files} small files that are all there already"),
            Scenario::Edited => {
                format!(
                    "One file of {bytes}, of which {EDITS} places of 4 KiB and two bytes at the front differ"
                )
            }
        }
    }

    fn heading(&self) -> String {
        format!(
            "{}: loopback, {}; the time is that of the receiving program, from its start to its end. {} {}Everything \
             is encrypted with AES-128-GCM unless it says otherwise. Bytes were counted {}.{} {}",
            self.title(),
            self.options.described(),
            BEFORE_A_RUN,
            self.workloads.iter().skip(1).map(on_disk).collect::<String>(),
            self.workload().wire.described(),
            machine::own_peak_bytes().map(unseen).unwrap_or_default(),
            taken(self.workload()),
        )
    }

    fn plot(&self) -> Result<String> {
        let names: Vec<&str> = self.measured.iter().map(|program| program.name.as_str()).collect();
        let gigabytes = self.workload().bytes as f64 / 1e9;
        let panel = |heading: &str, value: &dyn Fn(&Measured) -> Option<f64>| Panel {
            heading: heading.to_owned(),
            values: self.measured.iter().map(value).collect(),
        };
        let time = panel("seconds, less is better", &|program| Some(program.seconds()));
        let panels = match self.workload().scenario {
            Scenario::File => [
                panel("GB/s, more is better", &|program| Some(gigabytes / program.seconds())),
                panel("CPU-s per GB, both sides, less is better", &|program| {
                    Some(program.cpu_seconds() / gigabytes)
                }),
            ],
            Scenario::Small | Scenario::Unchanged => {
                [time, panel("CPU-s, both sides, less is better", &|program| Some(program.cpu_seconds()))]
            }
            Scenario::Edited => {
                let sent = |program: &Measured| Some(program.wire_bytes()? / 1e6);
                [time, panel("MB on the wire, less is better", &sent)]
            }
        };
        plot::draw(&self.title(), &names, &panels)
    }
}

/// When and where figures were taken.
pub(super) fn taken(workload: &Workload) -> String {
    let (day, machine) = (machine::today(), machine::described());
    format!("Taken {day} on {machine}, from and to {}.", workload.file_system)
}

/// What makes runs alike.
pub(super) const BEFORE_A_RUN: &str =
    "Before each run as much memory as is carried is written and given back.";

fn on_disk(workload: &Workload) -> String {
    format!(
        "Rows on {} are for a disk, which has nothing left to write when a run begins. ",
        workload.file_system
    )
}

/// What limits the column of peaks.
fn unseen(peak_bytes: u64) -> String {
    format!(" Peaks below {}, that of the bench itself, are not seen.", units::bytes(peak_bytes))
}

/// Rows as a Markdown table: the first column to the left, the others to the right.
pub(super) fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _infallible = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _infallible = writeln!(text, "|---|{}", "--:|".repeat(row.len().saturating_sub(1)));
        }
    }
    text
}

/// Writes a table with its heading, as `docs` keeps those of this kind of machine.
pub(super) fn write_table(
    docs: &Path,
    slug: &str,
    title: &str,
    heading: &str,
    rows: &[Vec<String>],
) -> Result<()> {
    write(docs, &format!("{slug}.md"), &format!("# {title}\n\n{heading}\n\n{}", markdown(rows)))
}

/// Writes a file into the part of `docs` for this kind of machine and says so.
pub(super) fn write(docs: &Path, name: &str, text: &str) -> Result<()> {
    let directory = docs.join(Kind::here().slug());
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_markdown_table_has_a_rule_below_its_headings() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["1".to_owned(), "2".to_owned()]];
        assert_eq!(markdown(&rows), "| a | b |\n|---|--:|\n| 1 | 2 |\n");
    }
}
