//! `cargo xtask bench ladder`: what lies between bare QUIC and the whole program, rung by rung.

use std::fs;

use anyhow::{Context as _, Result};

use super::contenders::{Contender, Field, Lane, Ours, Tools};
use super::course::{Course, Scenario};
use super::plot::{self, Panel};
use super::sample::Measured;
use super::wire::Wire;
use super::{Options, machine, report, scratch};
use crate::units;

/// Measures and prints the table.
pub(super) fn run(options: &Options) -> Result<()> {
    let tools = Tools::build(options)?;
    let rungs = rungs(&tools)?;
    let scenario = Scenario::File;
    let (scratch, wire) = (scratch(scenario, options)?, Wire::open());
    let course = Course::lay(scenario, options, &scratch, wire)?;
    let mut field = Field::of(rungs);
    field.warm_up(&course)?;
    let measured = field.measure(options.runs, &course)?;
    let heading = heading(&course, options.runs);
    let rows = rows(&measured, course.bytes);
    println!("\n{heading}\n\n{}", units::table(&rows));
    let explained = RUNGS.map(|(name, what)| format!("- {name}: {what}\n")).concat();
    print!("{explained}");
    for missing in &field.missing {
        println!("- {missing}");
    }
    let Some(directory) = &options.docs else { return Ok(()) };
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let table = report::markdown(&rows);
    let text = format!(
        "# From bare QUIC to the whole program\n\n![ladder](ladder.svg)\n\n{heading}\n\n{table}\n{explained}"
    );
    report::write(&directory.join("ladder.md"), &text)?;
    report::write(&directory.join("ladder.svg"), &plot(&measured, course.bytes)?)
}

fn rungs(tools: &Tools) -> Result<Vec<Box<dyn Contender>>> {
    let raw = tools.raw().map_err(|reason| anyhow::anyhow!("raw quinn: {reason}"))?;
    let lane = Lane::build()?;
    Ok(vec![
        Box::new(raw.with(RUNGS[0].0, &[])),
        Box::new(raw.with(RUNGS[1].0, &["--chunk-kib", "512"])),
        Box::new(raw.with(RUNGS[2].0, &["--chunk-kib", "512", "--hash"])),
        Box::new(lane.with(RUNGS[3].0, &[])),
        Box::new(lane.with(RUNGS[4].0, &["--side-by-side"])),
        Box::new(Ours::verified(tools.shiplane())),
    ])
}

/// Each rung, and what it adds to the one before.
const RUNGS: [(&str, &str); 6] = [
    ("raw quinn", "16 streams, memory to memory, both sides in one process, a thread each; no handshake"),
    ("+ framing", "a stream for each 512 KiB, with size, digest field and an answer, 32 at a time"),
    ("+ SHA-256, in line", "each side hashes every chunk on the thread that also encrypts and sends"),
    ("our lane, one by one", "shiplane-transport, two processes: a thread hashes each chunk as it moves"),
    ("our lane, side by side", "chunks are held whole, and sixteen of them hashed together"),
    ("shiplane, verified", "and the disk: serve and get, plan, journal, files; start and handshake included"),
];

/// What each rung reaches, and what it costs beside the one before.
fn rows(measured: &[Measured], bytes: u64) -> Vec<Vec<String>> {
    let gigabytes = bytes as f64 / 1e9;
    let headings =
        ["", "GB/s", "÷ the first", "÷ the rung before", "s/GB added", "CPU-s/GB", "CPU-s/GB added"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    let mut before: Option<&Measured> = None;
    for rung in measured {
        let (seconds, cpu) = (rung.seconds() / gigabytes, rung.cpu_seconds() / gigabytes);
        let beside = |figure: &dyn Fn(&Measured) -> f64| {
            before.map_or_else(|| "–".to_owned(), |before| format!("{:+.2}", figure(before)))
        };
        let share = |other: &Measured| format!("{:.2}", other.seconds() / rung.seconds());
        rows.push(vec![
            rung.name.to_owned(),
            format!("{:.2}", 1.0 / seconds),
            measured.first().map_or_else(String::new, share),
            before.map_or_else(|| "–".to_owned(), share),
            beside(&|before| seconds - before.seconds() / gigabytes),
            format!("{cpu:.2}"),
            beside(&|before| cpu - before.cpu_seconds() / gigabytes),
        ]);
        before = Some(rung);
    }
    rows
}

fn heading(course: &Course, runs: u32) -> String {
    format!(
        "{} over loopback, {runs} interleaved runs, medians, AES-128-GCM. Taken {} on {}. The first three rungs hand on \
         what is in memory already; before a run of the last as much memory as is carried is written and given back.",
        units::megabytes(course.bytes),
        machine::today(),
        machine::described(&course.place),
    )
}

fn plot(measured: &[Measured], bytes: u64) -> Result<String> {
    let gigabytes = bytes as f64 / 1e9;
    let names: Vec<&str> = measured.iter().map(|rung| rung.name).collect();
    let rate = measured.iter().map(|rung| Some(gigabytes / rung.seconds())).collect();
    let cpu = measured.iter().map(|rung| Some(rung.cpu_seconds() / gigabytes)).collect();
    let panels = [
        Panel { heading: "GB/s, more is better".to_owned(), values: rate },
        Panel { heading: "CPU-s per GB, both sides, less is better".to_owned(), values: cpu },
    ];
    plot::draw("From bare QUIC to the whole program", &names, &panels)
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::{apart, program};
    use super::*;

    #[test]
    fn a_rung_stands_beside_the_first_and_the_one_before() {
        let measured = [
            program("one", &[500], apart(250, 250, 1)),
            program("two", &[1000], apart(500, 500, 1)),
            program("three", &[800], apart(500, 700, 1)),
        ];
        let rows = rows(&measured, 1_000_000_000);
        assert_eq!(rows[1].join("|"), "one|2.00|1.00|–|–|0.50|–");
        assert_eq!(rows[2].join("|"), "two|1.00|0.50|0.50|+0.50|1.00|+0.50");
        assert_eq!(rows[3].join("|"), "three|1.25|0.62|1.25|-0.20|1.20|+0.20");
    }
}
