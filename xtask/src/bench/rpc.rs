//! `cargo xtask bench rpc`: compares calls of 256 bytes over loopback with bare quinn and tarpc.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::targets::{self, Target};
use super::{machine, report};
use crate::process::{Lines, Running};
use crate::{cargo, units};

/// What the user typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Interleaved rounds, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, in milliseconds
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(50..))]
    each_ms: u64,
    /// Write the tables as Markdown too, into this directory's part for this kind of machine
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// Measures and prints the tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    println!("building {BINARY} in release");
    let binary = cargo::build_release(PACKAGE, BINARY)?;
    let mut command = Command::new(binary);
    command.arg("--rounds").arg(args.rounds.to_string()).arg("--each-ms").arg(args.each_ms.to_string());
    let mut running = Running::start(BINARY, command.stdout(Stdio::piped()))?;
    let stdout = Lines::of(running.take_stdout().context("the bench has no standard output")?);
    running.wait(LIMIT)?.expect_success(BINARY)?;
    let figures: Vec<Figure> = stdout.rest().iter().map(|line| Figure::read(line)).collect::<Result<_>>()?;
    let heading = format!("{HEADING} Taken {} on {}.", machine::today(), machine::described());
    let tables = [rows(&figures), bulk_rows(&figures), targets::rows(&targets(&figures))];
    println!("\n{heading}\n");
    tables.iter().for_each(|rows| println!("{}", units::table(rows)));
    let Some(docs) = &args.docs else { return Ok(()) };
    let tables = tables.map(|rows| format!("\n{}", report::markdown(&rows))).concat();
    report::write(docs, "rpc.md", &format!("# Calls\n\n{heading}\n{tables}"))
}

/// One line of the bench.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    in_flight: u64,
    calls_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// What the lane carried meanwhile.
    bulk_mb_per_s: Option<f64>,
}

impl Figure {
    fn read(line: &str) -> Result<Self> {
        let said: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let number = |key: &str| said[key].as_f64().with_context(|| format!("no `{key}` in {line}"));
        Ok(Self {
            name: said["name"].as_str().context("a figure without a name")?.to_owned(),
            in_flight: said["in_flight"].as_u64().context("a figure without its calls in flight")?,
            calls_per_s: number("calls_per_s")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            bulk_mb_per_s: said["bulk_mb_per_s"].as_f64(),
        })
    }
}

/// Who made how many calls, and how that compares with bare quinn in the same run.
fn rows(figures: &[Figure]) -> Vec<Vec<String>> {
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    for figure in figures.iter().filter(|figure| figure.bulk_mb_per_s.is_none()) {
        let quinn = figures.iter().find(|other| other.name == QUINN && other.in_flight == figure.in_flight);
        let ratio = |of: fn(&Figure) -> f64| {
            quinn.map_or_else(|| "–".to_owned(), |quinn| format!("{:.2}", of(figure) / of(quinn)))
        };
        rows.push(vec![
            figure.name.clone(),
            figure.in_flight.to_string(),
            units::count(figure.calls_per_s as u64),
            format!("{:.0} µs", figure.p50_us),
            format!("{:.0} µs", figure.p99_us),
            ratio(|figure| figure.calls_per_s),
            ratio(|figure| figure.p50_us),
        ]);
    }
    rows
}

/// Of shiplane's calls beside those of the others with as many in flight.
fn targets(figures: &[Figure]) -> Vec<Target> {
    let find = |name: &str, in_flight: u64| {
        let calls = figures.iter().filter(|figure| figure.bulk_mb_per_s.is_none());
        calls.into_iter().find(|figure| figure.name == name && figure.in_flight == in_flight)
    };
    let mut targets = Vec::new();
    for ours in figures.iter().filter(|figure| figure.name == OURS || figure.bulk_mb_per_s.is_some()) {
        if ours.bulk_mb_per_s.is_some() {
            let what = "p99 beside bulk, µs";
            targets.push(Target::at_most(what, (500.0, 300.0), vec![ours.p99_us]));
            continue;
        }
        let ratio = |other: &str, of: fn(&Figure) -> f64| -> Vec<f64> {
            find(other, ours.in_flight).map(|other| of(ours) / of(other)).into_iter().collect()
        };
        let what = |what: &str| format!("{what}, {} in flight", ours.in_flight);
        let (calls, p50) = (|figure: &Figure| figure.calls_per_s, |figure: &Figure| figure.p50_us);
        targets.push(Target::at_least(what("calls ÷ quinn's"), (0.8, 0.95), ratio(QUINN, calls)));
        targets.push(Target::at_most(what("p50 ÷ quinn's"), (1.25, 1.1), ratio(QUINN, p50)));
        targets.push(Target::told(what("calls ÷ tarpc's, aim ≥ 1"), ratio(TARPC, calls)));
    }
    targets
}

/// What a call takes while chunks fill the connection.
fn bulk_rows(figures: &[Figure]) -> Vec<Vec<String>> {
    let mut rows = vec![BULK_HEADINGS.map(str::to_owned).to_vec()];
    for figure in figures {
        let Some(bulk_mb_per_s) = figure.bulk_mb_per_s else { continue };
        rows.push(vec![
            figure.name.clone(),
            figure.in_flight.to_string(),
            format!("{:.0} µs", figure.p50_us),
            format!("{:.0} µs", figure.p99_us),
            format!("{bulk_mb_per_s:.0} MB/s"),
        ]);
    }
    rows
}

const HEADING: &str = "Calls with 256 bytes there and back, loopback, a one-thread runtime a side; medians. Bare quinn \
    opens a stream for each call, or has all on one, told apart by ids. tarpc runs over TCP without encryption, the \
    others over QUIC with AES-128-GCM. Ratios are those to a stream for each call.";

const HEADINGS: [&str; 7] = ["", "in flight", "calls/s", "p50", "p99", "calls ÷ quinn", "p50 ÷ quinn"];
const BULK_HEADINGS: [&str; 5] = ["", "in flight", "p50", "p99", "the bulk"];

const PACKAGE: &str = "shiplane-benches";
const BINARY: &str = "rpc_flow";
const OURS: &str = "shiplane";
const QUINN: &str = "bare quinn";
const TARPC: &str = "tarpc over tcp";

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, calls_per_s: f64, p50_us: f64) -> Figure {
        Figure { name: name.into(), in_flight: 64, calls_per_s, p50_us, p99_us: 1.0, bulk_mb_per_s: None }
    }

    #[test]
    fn a_line_is_read_and_anything_else_is_an_error() {
        let line = r#"{"name":"bare quinn","in_flight":64,"calls_per_s":1000,"p50_us":2.5,"p99_us":9.0,"max_us":10}"#;
        let expected = Figure { p99_us: 9.0, ..figure(QUINN, 1000.0, 2.5) };
        assert_eq!(Figure::read(line).unwrap(), expected);
        for line in ["", "{}", r#"{"name":"x","in_flight":1,"calls_per_s":1}"#] {
            assert!(Figure::read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn ratios_are_those_to_quinn_with_as_many_in_flight() {
        let mut other = figure(QUINN, 1.0, 1.0);
        other.in_flight = 1;
        let figures = [other, figure(QUINN, 2000.0, 10.0), figure(OURS, 1500.0, 12.0)];
        let row = rows(&figures).pop().unwrap();
        assert_eq!(row[5..], ["0.75", "1.20"]);
        let judged = targets::rows(&targets(&figures));
        assert_eq!(judged[1][..5], ["calls ÷ quinn's, 64 in flight", "0.75", "0.75–0.75", "≥ 0.8", "NO"]);
        assert_eq!((judged[2][4].as_str(), judged[3][1].as_str()), ("yes", "something is missing"));
    }

    #[test]
    fn calls_beside_bulk_are_judged_by_their_slowest() {
        let beside =
            Figure { bulk_mb_per_s: Some(800.0), p99_us: 400.0, ..figure("shiplane beside bulk", 1.0, 1.0) };
        let judged = targets::rows(&targets(&[beside]));
        assert_eq!(judged[1][1..5], ["400.00", "400.00–400.00", "≤ 500", "yes"]);
    }
}
