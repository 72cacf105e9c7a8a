//! A comparison as it is printed, and as it stands in the docs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::course::{Course, DIRECTORIES, EDITS, Scenario};
use super::plot::{self, Panel};
use super::sample::Measured;
use super::{machine, table, targets};
use crate::units;

/// All that there is to say.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) scenario: Scenario,
    pub(super) course: &'a Course,
    pub(super) runs: u32,
    pub(super) measured: Vec<Measured>,
    /// Who did not take part, and why.
    pub(super) missing: Vec<String>,
}

impl Report<'_> {
    /// For a terminal.
    pub(super) fn text(&self) -> String {
        self.laid_out(units::table, "  ")
    }

    /// Writes Markdown and SVG into `directory`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let slug = self.scenario.slug();
        let text = format!("# {}\n\n![{slug}]({slug}.svg)\n\n{}", self.title(), self.markdown());
        write(&directory.join(format!("{slug}.md")), &text)?;
        write(&directory.join(format!("{slug}.svg")), &self.plot()?)
    }

    fn markdown(&self) -> String {
        self.laid_out(markdown, "- ")
    }

    fn laid_out(&self, lay: fn(&[Vec<String>]) -> String, item: &str) -> String {
        let rows = table::rows(self.scenario, &self.measured, self.course.bytes);
        let targets = targets::rows(self.scenario, &self.measured);
        let mut text = format!("{}\n\n{}\n{}\n", self.heading(), lay(&rows), lay(&targets));
        for program in &self.measured {
            let packets = program.packet_bytes();
            let packets = packets.map(|bytes| format!("; packets of {bytes} bytes")).unwrap_or_default();
            let _infallible = writeln!(text, "{item}{}: {}{packets}", program.name, program.version);
        }
        for missing in &self.missing {
            let _infallible = writeln!(text, "{item}{missing}");
        }
        text
    }

    fn title(&self) -> String {
        let bytes = units::megabytes(self.course.bytes);
        let files = units::count(self.course.files);
        match self.scenario {
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
            "{}: loopback, {} interleaved runs, medians; the time is that of the receiving program, from its start \
             to its end; before each as much memory as is carried is written and given back. Everything is encrypted with AES-128-GCM unless it says otherwise. Bytes were counted {}.{} \
             Taken {} on {}.",
            self.title(),
            self.runs,
            self.course.wire.described(),
            machine::own_peak_bytes().map(unseen).unwrap_or_default(),
            machine::today(),
            machine::described(&self.course.place),
        )
    }

    fn plot(&self) -> Result<String> {
        let names: Vec<&str> = self.measured.iter().map(|program| program.name).collect();
        let gigabytes = self.course.bytes as f64 / 1e9;
        let panel = |heading: &str, value: &dyn Fn(&Measured) -> Option<f64>| Panel {
            heading: heading.to_owned(),
            values: self.measured.iter().map(value).collect(),
        };
        let time = panel("seconds, less is better", &|program| Some(program.seconds()));
        let panels = match self.scenario {
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

/// Writes a file of the docs and says so.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
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
