//! The lane alone, memory to memory: separates the link's cost from the program's. And its share beside another flow on the
//! same link.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use xtask::process::{Running, find_program};
use xtask::{cargo, interrupt, units};

use super::link::{Link, RECEIVER, missing_tcp};
use super::report::Section;
use super::{Conditions, Sample};

/// What a flow measured of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Measured {
    pub(super) mbit_s: f64,
    seconds: f64,
    sent_packets: f64,
    lost_packets: f64,
    /// Of small messages beside the bulk, each acknowledged.
    pub(super) message_p99_ms: f64,
}

impl Measured {
    fn lost_percent(&self) -> f64 {
        100.0 * self.lost_packets / self.sent_packets.max(1.0)
    }

    /// As a run of a program.
    pub(super) fn sample(&self) -> Sample {
        let (time, bytes) = (Duration::from_secs_f64(self.seconds), self.mbit_s * 125_000.0 * self.seconds);
        Sample { time, bytes: bytes as u64, resent_percent: f64::NAN, ..Sample::default() }
    }
}

pub(super) struct Flow {
    sender: Running,
    limit: Duration,
    _receiver: Running,
}

impl Flow {
    /// Starts both sides of `program` on the link, with a window fixed at this number of bandwidth-delay products or with our
    /// control; it ends after so much or, if its control collapses, after so long.
    pub(super) fn start(
        link: &Link,
        program: &Path,
        products: Option<f64>,
        mib: u64,
        seconds: u64,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        let receiver = link.receiver().within(|| Running::heard("lane_flow", command.arg("receive")))?;
        let address = receiver.next_line(START_LIMIT)?.context("lane_flow receive printed nothing")?;
        let port = address.rsplit(':').next().context("lane_flow receive printed no address")?;
        let mut command = Command::new(program);
        command.args(["send", &format!("{RECEIVER}:{port}")]);
        command.args(["--mib", &mib.to_string(), "--seconds", &seconds.to_string()]);
        let window = products.map(|products| (link.conditions.product_bytes() * products) as u64);
        command.args(window.map(|bytes| format!("--window-bytes={bytes}")));
        let sender = link.sender().within(|| Running::heard("lane_flow", &mut command))?;
        Ok(Self { sender, limit: Duration::from_secs(seconds + 120), _receiver: receiver })
    }

    pub(super) fn finish(self) -> Result<Measured> {
        let text = self.sender.wait(self.limit)?.expect_success("lane_flow send")?.lines.concat();
        serde_json::from_str(&text).with_context(|| format!("lane_flow printed {text:?}"))
    }
}

pub(super) fn build() -> Result<PathBuf> {
    println!("building lane_flow in release");
    cargo::build_release("shiplane-benches", "lane_flow")
}

/// Measures every pair, one row each.
pub(super) fn shares(lane: &Path) -> Result<Section> {
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

/// A program that does not come up within this is not going to.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The window, in bandwidth-delay products, that a controller can hardly exceed: between the 1.05 and 1.2 that measured
/// alike.
pub(super) const PERFECT_PRODUCTS: f64 = 1.1;

/// What no flow carries in its time.
const ENDLESS_MIB: u64 = 1_000_000;

/// Without loss, which alone would starve TCP's Cubic.
const LINKS: [(&str, Conditions); 2] = [
    ("50 ms, 200 Mbit/s", Conditions::new(50.0, 200.0, 0.0)),
    ("100 ms, 100 Mbit/s", Conditions::new(100.0, 100.0, 0.0)),
];

/// How long both are measured.
const SECONDS: u64 = 30;

/// Long enough for TCP to have the path to itself.
const LEAD_SECONDS: u64 = 3;
