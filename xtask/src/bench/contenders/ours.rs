//! shiplane: `serve` and `get` or `sync`, two processes.

use std::process::Stdio;

use anyhow::Result;

use super::{Contender, Sample, apart, slug};
use crate::bench::course::{Course, Scenario};
use crate::shiplane::Shiplane;

/// `get`, with every chunk's digest matched.
pub(in crate::bench) const VERIFIED: &str = "shiplane, verified";
/// `get`, with all of it on the disk too.
pub(in crate::bench) const DURABLE: &str = "shiplane, durable";
/// `sync`.
pub(in crate::bench) const SYNC: &str = "shiplane sync";

/// The ways to run it that a scenario is about.
pub(super) fn all(shiplane: &Shiplane, scenario: Scenario) -> Vec<Box<dyn Contender>> {
    let ways = [VERIFIED, DURABLE].into_iter().chain((scenario == Scenario::Unchanged).then_some(SYNC));
    ways.map(|way| Box::new(Ours { shiplane: shiplane.clone(), way }) as Box<dyn Contender>).collect()
}

/// One way to run it.
#[derive(Debug)]
pub(in crate::bench) struct Ours {
    shiplane: Shiplane,
    way: &'static str,
}

impl Ours {
    /// `get` of what is verified.
    pub(in crate::bench) fn verified(shiplane: &Shiplane) -> Self {
        Self { shiplane: shiplane.clone(), way: VERIFIED }
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.way
    }

    fn checks(&self) -> &'static str {
        "SHA-256"
    }

    fn version(&self) -> String {
        format!("shiplane {}", env!("CARGO_PKG_VERSION"))
    }

    fn is_optional(&self) -> bool {
        false
    }

    fn run(&mut self, course: &Course) -> Result<Sample> {
        let destination = course.destination(&slug(self.way))?;
        // What a sync remembers must last from one run to the next, and a pair of its own.
        let state = |side: &str| course.state(&format!("{}-{side}", slug(self.way)));
        let (server_state, state) = (state("server")?, state("receiver")?);
        // A server a run: what it used can only be asked once it has ended.
        let (server, mut command) = match self.way {
            SYNC => {
                let server = self.shiplane.serve_writable(&course.source, &server_state)?;
                let command = self.shiplane.sync(&destination, &server, &state);
                (server, command)
            }
            _ => {
                let server = self.shiplane.serve(&course.source, &server_state)?;
                let command = self.shiplane.get(&server, &destination, &state);
                (server, command)
            }
        };
        command.arg("--quiet").stdout(Stdio::null());
        if self.way == VERIFIED {
            command.args(["--durability", "verified"]);
        }
        if course.scenario == Scenario::Edited {
            command.arg("--overwrite");
        }
        let lap = course.carry("shiplane", &mut command);
        let lap = lap.map_err(|failure| server.with_log(&format!("{failure:#}")))?;
        let sender = server.stop()?;
        Ok(Sample { time: lap.time, used: apart(sender, lap.exit), wire_bytes: lap.wire_bytes })
    }
}
