//! The lane alone, memory to memory: separates the link's cost from the program's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use xtask::cargo;
use xtask::process::Running;

use super::Sample;
use super::link::{Link, RECEIVER};

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
    pub(super) fn lost_percent(&self) -> f64 {
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

/// A program that does not come up within this is not going to.
pub(super) const START_LIMIT: Duration = Duration::from_secs(10);

/// The window, in bandwidth-delay products, that a controller can hardly exceed: between the 1.05 and 1.2 that measured
/// alike.
pub(super) const PERFECT_PRODUCTS: f64 = 1.1;

/// What no flow carries in its time.
pub(super) const ENDLESS_MIB: u64 = 1_000_000;
