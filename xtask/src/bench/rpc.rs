//! `cargo xtask bench rpc`: calls of 256 bytes over loopback, beside bare quinn and tarpc in the same run.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

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
    println!("\n{HEADING}\n\n{}\n{}", table(&figures), bulk_table(&figures));
    Ok(())
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
fn table(figures: &[Figure]) -> String {
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
    let targets = "shiplane's targets: calls ÷ quinn at least 0.60 (aim 0.85), p50 ÷ quinn at most 1.50 \
                   (aim 1.15); the aim is also to be ahead of tarpc.\n";
    units::table(&rows) + targets
}

/// What a call takes while chunks fill the connection.
fn bulk_table(figures: &[Figure]) -> String {
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
    units::table(&rows) + "target: p99 at most 1,000 µs (aim 300).\n"
}

const HEADING: &str = "Calls with 256 bytes there and back, loopback, a one-thread runtime a side; medians.\n\
     Bare quinn opens a stream for each call, or has all on one, told apart by ids. tarpc runs over TCP without\n\
     encryption, the others over QUIC with AES-128-GCM. Ratios are those to a stream for each call.";

const HEADINGS: [&str; 7] = ["", "in flight", "calls/s", "p50", "p99", "calls ÷ quinn", "p50 ÷ quinn"];
const BULK_HEADINGS: [&str; 5] = ["", "in flight", "p50", "p99", "the bulk"];

const PACKAGE: &str = "shiplane-benches";
const BINARY: &str = "rpc_flow";
const QUINN: &str = "bare quinn";

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
        let text = table(&[other, figure(QUINN, 2000.0, 10.0), figure("shiplane", 1500.0, 12.0)]);
        let row = text.lines().find(|line| line.trim_start().starts_with("shiplane ")).unwrap();
        assert!(row.contains("0.75") && row.contains("1.20"), "{text}");
    }
}
