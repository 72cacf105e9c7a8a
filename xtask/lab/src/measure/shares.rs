//! Measures our lane's share beside another flow on the same link.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::process::{Running, find_program};
use xtask::{interrupt, units};

use super::lane::{ENDLESS_MIB, Flow, START_LIMIT};
use super::link::{Link, RECEIVER, missing_tcp};
use super::pipe::Conditions;
use super::report::Section;

/// Measures every pair, one row each.
pub(super) fn measure(lane: &Path) -> Result<Section> {
    let mut rows = vec![units::cells("link|other flow|its rate|ours|ours ÷ its|our losses %")];
    for (name, conditions) in LINKS {
        for other in ["TCP cubic", "TCP bbr", "a second lane"] {
            interrupt::check()?;
            let cells = match other.strip_prefix("TCP ") {
                Some(congestion) => beside_tcp(lane, conditions, congestion),
                None => beside_ours(lane, conditions),
            };
            let mut row = vec![name.to_owned(), other.to_owned()];
            row.extend(cells?);
            rows.push(row);
        }
    }
    Ok(Section::new("Shares: one lane beside one other flow, Mbit/s", rows))
}

/// Beside a flow of iperf3, whose first seconds are not counted.
fn beside_tcp(lane: &Path, link: Conditions, congestion: &str) -> Result<Vec<String>> {
    let absent = find_program("iperf3").is_none().then(|| "iperf3 is not installed".to_owned());
    if let Some(reason) = absent.or_else(|| missing_tcp(congestion)) {
        return Ok(vec![format!("missing: {reason}"), String::new(), String::new(), String::new()]);
    }
    let link = Link::new(link, 1)?;
    let mut command = Command::new("iperf3");
    command.args(["-s", "-1", "--forceflush"]);
    let server = link.receiver().within(|| Running::heard("iperf3 -s", &mut command))?;
    // It prints a rule of dashes first, then that it listens.
    while server.next_line(START_LIMIT)?.is_some_and(|line| !line.contains("listening")) {}
    let mut command = Command::new("iperf3");
    command.args(["-c", RECEIVER, "-C", congestion, "-J"]);
    command.args(["-O", &LEAD_SECONDS.to_string(), "-t", &SECONDS.to_string()]);
    let tcp = link.sender().within(|| Running::heard("iperf3 -c", &mut command))?;
    tcp.ends_within(Duration::from_secs(LEAD_SECONDS))?;
    let ours = Flow::start(&link, lane, None, ENDLESS_MIB, SECONDS)?.finish()?;
    let lines = tcp.wait(Duration::from_secs(SECONDS + 30))?.expect_success("iperf3")?.lines;
    let report: Value = serde_json::from_str(&lines.join("\n")).context("iperf3 printed no JSON")?;
    let bits_s = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(cells(bits_s.context("iperf3 printed no rate")? / 1e6, ours.mbit_s, ours.lost_percent()))
}

/// Both start at once.
fn beside_ours(lane: &Path, link: Conditions) -> Result<Vec<String>> {
    let link = Link::new(link, 1)?;
    let start = || Flow::start(&link, lane, None, ENDLESS_MIB, SECONDS);
    let (first, second) = (start()?, start()?);
    let (first, second) = (first.finish()?, second.finish()?);
    Ok(cells(first.mbit_s, second.mbit_s, second.lost_percent()))
}

fn cells(theirs: f64, ours: f64, lost_percent: f64) -> Vec<String> {
    let ratio = ours / theirs.max(0.1);
    vec![format!("{theirs:.1}"), format!("{ours:.1}"), format!("{ratio:.2}"), format!("{lost_percent:.1}")]
}

/// Without loss, which alone would starve TCP's Cubic.
const LINKS: [(&str, Conditions); 2] = [
    ("50 ms, 200 Mbit/s", Conditions::new(50.0, 200.0, 0.0)),
    ("100 ms, 100 Mbit/s", Conditions::new(100.0, 100.0, 0.0)),
];

/// How long both are measured.
const SECONDS: u64 = 30;

/// Long enough for TCP to have the path to itself.
const LEAD_SECONDS: u64 = 3;
