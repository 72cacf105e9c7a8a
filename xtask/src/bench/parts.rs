//! `cargo xtask bench parts`: measures each part alone, with criterion.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use walkdir::WalkDir;

use super::{machine, report};
use crate::{cargo, process, units};

/// What the user typed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only parts whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// How long each is measured, in seconds, after a third of that to warm up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    each_s: u32,
    /// Write the table as Markdown too, into this directory's part for this kind of machine
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// Measures and prints the table.
pub(super) fn run(args: &Args) -> Result<()> {
    let found_in = cargo::workspace_root().join("target/criterion");
    let began = SystemTime::now();
    let mut command = cargo::cargo();
    command.args(["bench", "--package", "shiplane-benches", "--bench", "parts", "--", "--noplot"]);
    command.args(["--measurement-time", &args.each_s.to_string()]);
    command.args(["--warm-up-time", &(f64::from(args.each_s) / 3.0).to_string()]);
    command.args(&args.only).env("CRITERION_HOME", &found_in);
    process::run("cargo bench", &mut command)?;
    let parts = measured(&found_in, began)?;
    if parts.is_empty() {
        bail!("no part has such a name");
    }
    let heading = format!(
        "Each part alone, medians of what criterion measured in {} s, with the bounds of 95 % confidence. Taken {} on {}.",
        args.each_s,
        machine::today(),
        machine::described(),
    );
    let rows = rows(&parts);
    println!("\n{heading}\n\n{}", units::table(&rows));
    match &args.docs {
        Some(docs) => report::write_table(docs, "parts", "The parts", &heading, &rows),
        None => Ok(()),
    }
}

/// What criterion has found of one part.
#[derive(Debug, PartialEq)]
struct Part {
    name: String,
    median_ns: f64,
    low_ns: f64,
    high_ns: f64,
    /// What an iteration gets done.
    done: Done,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Done {
    Bytes(f64),
    Elements(f64),
    Uncounted,
}

/// What was written since then, for what lies there from before may be of parts that are no more.
fn measured(directory: &Path, since: SystemTime) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for entry in WalkDir::new(directory).sort_by_file_name() {
        let entry = entry.context("cannot list what criterion has written")?;
        let is_newest = entry.path().parent().is_some_and(|parent| parent.ends_with("new"));
        if entry.file_name() != "benchmark.json" || !is_newest || written(entry.path())? < since {
            continue;
        }
        let estimates = read(&entry.path().with_file_name("estimates.json"))?;
        let part = part(&read(entry.path())?, &estimates);
        parts.push(part.with_context(|| format!("{} says something else", entry.path().display()))?);
    }
    Ok(parts)
}

fn written(path: &Path) -> Result<SystemTime> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.with_context(|| format!("cannot ask when {} was written", path.display()))
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no JSON", path.display()))
}

/// One part, from the two files that criterion keeps of it.
fn part(benchmark: &Value, estimates: &Value) -> Option<Part> {
    let throughput = &benchmark["throughput"];
    let done = match (throughput["Bytes"].as_f64(), throughput["Elements"].as_f64()) {
        (Some(bytes), _) => Done::Bytes(bytes),
        (None, Some(elements)) => Done::Elements(elements),
        (None, None) => Done::Uncounted,
    };
    let median = &estimates["median"];
    Some(Part {
        name: benchmark["full_id"].as_str()?.replacen('/', ": ", 1),
        median_ns: median["point_estimate"].as_f64()?,
        low_ns: median["confidence_interval"]["lower_bound"].as_f64()?,
        high_ns: median["confidence_interval"]["upper_bound"].as_f64()?,
        done,
    })
}

fn rows(parts: &[Part]) -> Vec<Vec<String>> {
    let mut rows = vec![["", "median", "from", "to", "throughput"].map(str::to_owned).to_vec()];
    rows.extend(parts.iter().map(|part| {
        let [median, low, high] = [part.median_ns, part.low_ns, part.high_ns].map(time);
        vec![part.name.clone(), median, low, high, throughput(part.done, part.median_ns)]
    }));
    rows
}

/// `4.97 µs`, with the unit that leaves at most three digits before the point.
fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.2} ns"),
        1e3..1e6 => format!("{:.2} µs", ns / 1e3),
        1e6..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

fn throughput(done: Done, ns: f64) -> String {
    match done {
        Done::Bytes(bytes) => format!("{:.2} GB/s", bytes / ns),
        Done::Elements(elements) => format!("{} a second", units::count((elements / ns * 1e9) as u64)),
        Done::Uncounted => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn estimates(ns: f64) -> Value {
        let interval = json!({ "confidence_level": 0.95, "lower_bound": ns - 1.0, "upper_bound": ns + 1.0 });
        json!({ "mean": {}, "median": { "confidence_interval": interval, "point_estimate": ns } })
    }

    #[test]
    fn a_part_is_read_from_both_files() {
        let benchmark = json!({ "full_id": "frame/encode/2", "throughput": { "Bytes": 5_000 } });
        let part = part(&benchmark, &estimates(2500.0)).unwrap();
        let expected = ["frame: encode/2", "2.50 µs", "2.50 µs", "2.50 µs", "2.00 GB/s"];
        assert_eq!(rows(&[part])[1], expected);
        assert_eq!(super::part(&json!({}), &estimates(1.0)), None);
        assert_eq!(super::part(&benchmark, &json!({ "median": {} })), None);
    }

    #[test]
    fn what_an_iteration_does_is_told_a_second() {
        assert_eq!(throughput(Done::Elements(10_000.0), 2e6), "5,000,000 a second");
        assert_eq!(throughput(Done::Uncounted, 1.0), "–");
        assert_eq!([1.0, 1e3, 2.5e6, 3e9].map(time), ["1.00 ns", "1.00 µs", "2.50 ms", "3.00 s"]);
    }

    #[test]
    fn only_what_is_new_counts() {
        let directory = tempfile::tempdir().unwrap();
        let began = SystemTime::now();
        for (name, age_s) in [("one", 0), ("gone", 3600)] {
            let new = directory.path().join(name).join("new");
            fs::create_dir_all(&new).unwrap();
            let benchmark = json!({ "full_id": name, "throughput": null }).to_string();
            fs::write(new.join("estimates.json"), estimates(7.0).to_string()).unwrap();
            fs::write(new.join("benchmark.json"), benchmark).unwrap();
            let file = fs::File::options().write(true).open(new.join("benchmark.json")).unwrap();
            file.set_modified(began - std::time::Duration::from_secs(age_s)).unwrap();
        }
        // What it was before stands beside it.
        fs::rename(directory.path().join("gone/new"), directory.path().join("gone/base")).unwrap();
        let parts = measured(directory.path(), began).unwrap();
        assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["one"]);
    }
}
