//! `cargo xtask bench ladder`: measures each layer between bare QUIC and the whole program.

use anyhow::Result;

use super::contenders::{Contender, Field, Lane, Ours, Raw};
use super::plot::{self, Panel};
use super::sample::Measured;
use super::workload::{Scenario, Workload};
use super::{Options, lay_one, report, scratch};
use crate::shiplane::Shiplane;
use crate::units;

/// Measures and prints the table.
pub(super) fn run(options: &Options) -> Result<()> {
    let rungs = rungs(&options.shiplanes()?[0])?;
    let scratch = scratch(Scenario::File, options)?;
    let workload = lay_one(Scenario::File, options, &scratch)?;
    let measured = Field::of(rungs, &workload).measure(options)?;
    let heading = heading(&workload, options);
    let rows = rows(&measured, workload.bytes);
    println!("\n{heading}\n\n{}", units::table(&rows));
    let explained = RUNGS.map(|(name, what)| format!("- {name}: {what}\n")).concat();
    print!("{explained}");
    let Some(docs) = &options.docs else { return Ok(()) };
    let table = report::markdown(&rows);
    let text = format!("# {TITLE}\n\n![ladder](ladder.svg)\n\n{heading}\n\n{table}\n{explained}");
    report::write(docs, "ladder.md", &text)?;
    report::write(docs, "ladder.svg", &plot(&measured, workload.bytes)?)
}

fn rungs(shiplane: &Shiplane) -> Result<Vec<Box<dyn Contender>>> {
    let raw = Raw::build()?;
    Ok(vec![
        Box::new(raw.with(RUNGS[0].0, &[])),
        Box::new(raw.with(RUNGS[1].0, &["--chunk-kib", "512"])),
        Box::new(raw.with(RUNGS[2].0, &["--chunk-kib", "512", "--hash"])),
        Box::new(Lane::build(RUNGS[3].0)?),
        Box::new(Ours::verified(shiplane)),
    ])
}

/// Each rung, and what it adds to the one before.
const RUNGS: [(&str, &str); 5] = [
    ("raw quinn", "16 streams, memory to memory, both sides in one process, a thread each; no handshake"),
    ("+ framing", "a stream for each 512 KiB, with size, digest field and an answer, 32 at a time"),
    ("+ digests", "each side hashes every chunk on the thread that also encrypts and sends"),
    ("our lane", "shiplane-transport, two processes, memory to memory, 32 chunks at a time"),
    ("shiplane, verified", "and the disk: serve and get, plan, journal, files; start and handshake included"),
];

const TITLE: &str = "From bare QUIC to the whole program";

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
            rung.name.clone(),
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

fn heading(workload: &Workload, options: &Options) -> String {
    format!(
        "{} over loopback, {}, AES-128-GCM. The rungs before the last hand on what is in memory already. {} {}",
        units::megabytes(workload.bytes),
        options.described(),
        report::BEFORE_A_RUN,
        report::taken(workload),
    )
}

fn plot(measured: &[Measured], bytes: u64) -> Result<String> {
    let gigabytes = bytes as f64 / 1e9;
    let names: Vec<&str> = measured.iter().map(|rung| rung.name.as_str()).collect();
    let rate = measured.iter().map(|rung| Some(gigabytes / rung.seconds())).collect();
    let cpu = measured.iter().map(|rung| Some(rung.cpu_seconds() / gigabytes)).collect();
    let panels = [
        Panel { heading: "GB/s, more is better".to_owned(), values: rate },
        Panel { heading: "CPU-s per GB, both sides, less is better".to_owned(), values: cpu },
    ];
    plot::draw(TITLE, &names, &panels)
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
