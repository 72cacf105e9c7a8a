//! The programs that run over the link: `lane_flow`, and iperf3 beside it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::link::{Link, RECEIVER};
use crate::process::{Lines, Running, find_program};

/// What steers one of our flows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    Shiplane,
    Fixed { window_bytes: u64 },
}

/// When a flow ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    Mib(u64),
    Seconds(u64),
}

/// What a flow measured of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) mbit_s: f64,
    pub(super) lost_percent: f64,
    pub(super) idle_rtt_ms: f64,
    pub(super) rtt_ms: f64,
    pub(super) max_rtt_ms: f64,
    /// Small messages beside the bulk, each acknowledged.
    pub(super) message_p50_ms: f64,
    pub(super) message_p99_ms: f64,
}

/// Sends over the link with `lane_flow` and waits for the figures.
pub(super) fn run(link: &Link, program: &Path, control: Control, amount: Amount) -> Result<Measured> {
    let mut command = link.at_receiver(program);
    let mut receiver = Running::start("lane_flow receive", command.arg("receive").stdout(Stdio::piped()))?;
    let lines = Lines::of(receiver.take_stdout().context("no standard output")?);
    let address = lines.next_within(START_LIMIT)?.context("lane_flow receive said nothing")?;
    let port = address.rsplit(':').next().context("lane_flow receive printed no address")?;
    let mut command = link.at_sender(program);
    command.args(["send", &format!("{RECEIVER}:{port}")]);
    match control {
        Control::Shiplane => command.args(["--control", "shiplane"]),
        Control::Fixed { window_bytes } => {
            command.args(["--control", "fixed", "--window-bytes", &window_bytes.to_string()])
        }
    };
    let limit = match amount {
        // So that a controller that collapses ends too.
        Amount::Mib(mib) => {
            command.args(["--mib", &mib.to_string(), "--seconds", "30"]);
            Duration::from_secs(180)
        }
        Amount::Seconds(seconds) => {
            command.args(["--mib", "1000000", "--seconds", &seconds.to_string()]);
            Duration::from_secs(seconds + 60)
        }
    };
    let line = first_line(Running::start("lane_flow send", command.stdout(Stdio::piped()))?, limit)?;
    receiver.kill()?;
    let figures: Value = serde_json::from_str(&line).context("lane_flow printed no JSON")?;
    let figure = |name: &str| figures[name].as_f64().with_context(|| format!("lane_flow printed no {name}"));
    Ok(Measured {
        mbit_s: figure("mbit_s")?,
        lost_percent: 100.0 * figure("lost_packets")? / figure("sent_packets")?.max(1.0),
        idle_rtt_ms: figure("idle_rtt_ms")?,
        rtt_ms: figure("rtt_ms")?,
        max_rtt_ms: figure("max_rtt_ms")?,
        message_p50_ms: figure("message_p50_ms")?,
        message_p99_ms: figure("message_p99_ms")?,
    })
}

/// A TCP flow of iperf3 under way.
pub(super) struct Tcp {
    server: Running,
    client: Running,
    limit: Duration,
}

impl Tcp {
    /// Starts it; the first `lead` seconds are not counted. `congestion` as the kernel calls it.
    pub(super) fn start(link: &Link, congestion: &str, lead: u64, seconds: u64) -> Result<Self> {
        let mut command = link.at_receiver("iperf3");
        let mut server =
            Running::start("iperf3 -s", command.args(["-s", "-1", "--forceflush"]).stdout(Stdio::piped()))?;
        // It prints a rule of dashes first, then that it listens.
        let lines = Lines::of(server.take_stdout().context("no standard output")?);
        while let Some(line) = lines.next_within(START_LIMIT)? {
            if line.contains("listening") {
                break;
            }
        }
        let mut command = link.at_sender("iperf3");
        command.args(["-c", RECEIVER, "-C", congestion, "-J"]);
        command.args(["-O", &lead.to_string(), "-t", &seconds.to_string()]).stdout(Stdio::piped());
        let client = Running::start("iperf3 -c", &mut command)?;
        Ok(Self { server, client, limit: Duration::from_secs(lead + seconds + 30) })
    }

    /// Mbit/s that arrived.
    pub(super) fn finish(mut self) -> Result<f64> {
        let lines = Lines::of(self.client.take_stdout().context("no standard output")?);
        self.client.wait(self.limit)?.expect_success("iperf3")?;
        self.server.kill()?;
        let report: Value =
            serde_json::from_str(&lines.rest().join("\n")).context("iperf3 printed no JSON")?;
        let bits_s = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits_s.context("iperf3 printed no rate")? / 1e6)
    }
}

/// Why there can be no such TCP flow here, if so.
pub(super) fn tcp_missing(congestion: &str) -> Option<String> {
    if find_program("iperf3").is_none() {
        return Some("iperf3 is not installed".to_owned());
    }
    let available = std::fs::read_to_string(AVAILABLE).unwrap_or_default();
    let has_it = available.split_whitespace().any(|name| name == congestion);
    (!has_it).then(|| format!("the kernel has no TCP {congestion} (`modprobe tcp_{congestion}`)"))
}

fn first_line(mut running: Running, limit: Duration) -> Result<String> {
    let lines = Lines::of(running.take_stdout().context("no standard output")?);
    running.wait(limit)?.expect_success("lane_flow send")?;
    lines.rest().into_iter().next().context("lane_flow send said nothing")
}

/// Where the program is built.
pub(super) fn build() -> Result<PathBuf> {
    crate::cargo::build_release("shiplane-benches", "lane_flow")
}

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// A program that does not come up within this is not going to.
const START_LIMIT: Duration = Duration::from_secs(10);
