//! shiplane: `serve` and `get`, two processes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Contender, Course, Sample, Used};
use crate::process::Running;
use crate::shiplane::Shiplane;

/// What `get` waits for before it says that it is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Durability {
    /// Every chunk's digest matched.
    Verified,
    /// And all of it is on the disk.
    Durable,
}

/// One way to run it.
#[derive(Debug)]
pub(super) struct Ours {
    shiplane: Shiplane,
    durability: Durability,
}

impl Ours {
    pub(super) fn new(shiplane: Shiplane, durability: Durability) -> Self {
        Self { shiplane, durability }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        match self.durability {
            Durability::Verified => "shiplane, verified",
            Durability::Durable => "shiplane, durable",
        }
    }

    fn is_optional(&self) -> bool {
        false
    }

    fn run(&mut self, course: &Course) -> Result<Sample> {
        // A server a run: what it used can only be asked once it has ended.
        let server = self.shiplane.serve(&course.source, &course.state("server")?)?;
        let mut command = self.shiplane.get(&server, &course.destination, &course.state("receiver")?);
        command.arg("--quiet").stdout(Stdio::null());
        match self.durability {
            Durability::Verified => command.args(["--durability", "verified"]),
            Durability::Durable => &mut command,
        };
        let started = Instant::now();
        let receiver = Running::start("shiplane get", &mut command)?.wait(LIMIT)?;
        let time = started.elapsed();
        receiver.expect_success("shiplane get").map_err(|failure| server.with_log(&failure.to_string()))?;
        let sender = server.stop()?;
        Ok(Sample { time, used: Used::Apart { sender: sender.used, receiver: receiver.used } })
    }
}

/// Only against a hang.
const LIMIT: Duration = Duration::from_secs(1800);
