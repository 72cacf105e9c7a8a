//! shiplane: `serve` and `get` or `sync`, two processes.

use std::process::Stdio;

use anyhow::Result;

use super::{Contender, Sample, slug, version_line};
use crate::bench::workload::{Scenario, Workload};
use crate::shiplane::Shiplane;

/// `get`, with every chunk's digest matched.
pub(in crate::bench) const VERIFIED: &str = "shiplane, verified";
/// `get`, with all of it on the disk too.
pub(in crate::bench) const DURABLE: &str = "shiplane, durable";
/// `sync`.
pub(in crate::bench) const SYNC: &str = "shiplane sync";

/// Each program, in each way that a scenario is about.
pub(super) fn all(programs: &[Shiplane], scenario: Scenario) -> Vec<Box<dyn Contender>> {
    let ways = [VERIFIED, DURABLE].into_iter().chain((scenario == Scenario::Unchanged).then_some(SYNC));
    let ways: Vec<&'static str> = ways.collect();
    let each = |(number, shiplane): (usize, &Shiplane)| -> Vec<Box<dyn Contender>> {
        let ours = |&way: &&'static str| -> Box<dyn Contender> {
            Box::new(Ours { shiplane: shiplane.clone(), way, name: Ours::name_of(way, number) })
        };
        ways.iter().map(ours).collect()
    };
    programs.iter().enumerate().flat_map(each).collect()
}

/// One program, run in one way.
#[derive(Debug)]
pub(in crate::bench) struct Ours {
    shiplane: Shiplane,
    way: &'static str,
    name: String,
}

impl Ours {
    /// How the tables call the `number`th program given, from 0, when it is run in this way.
    pub(in crate::bench) fn name_of(way: &str, number: usize) -> String {
        match number {
            0 => way.to_owned(),
            _ => way.replacen("shiplane", &format!("shiplane {}", number + 1), 1),
        }
    }

    /// `get` of what is verified.
    pub(in crate::bench) fn verified(shiplane: &Shiplane) -> Self {
        Self { shiplane: shiplane.clone(), way: VERIFIED, name: VERIFIED.to_owned() }
    }
}

impl Contender for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn checks(&self) -> &'static str {
        "each chunk"
    }

    fn version(&self) -> String {
        let binary = self.shiplane.binary();
        format!("{}, {}", version_line(binary, "--version"), binary.display())
    }

    fn is_optional(&self) -> bool {
        false
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(&self.name))?;
        // The state of a sync must last from one run to the next, so each program and way has its own.
        let state = |side: &str| workload.state(&format!("{}-{side}", slug(&self.name)));
        let (server_state, state) = (state("server")?, state("receiver")?);
        // A server a run: what it used can only be asked once it has ended.
        let (server, mut command) = match self.way {
            SYNC => {
                let server = self.shiplane.serve_writable(&workload.source, &server_state)?;
                let command = self.shiplane.sync(&destination, &server, &state);
                (server, command)
            }
            _ => {
                let server = self.shiplane.serve(&workload.source, &server_state)?;
                let command = self.shiplane.get(&server, &destination, &state);
                (server, command)
            }
        };
        command.arg("--quiet").stdout(Stdio::null());
        if self.way == VERIFIED {
            command.args(["--durability", "verified"]);
        }
        if workload.scenario == Scenario::Edited {
            command.arg("--overwrite");
        }
        let received = workload.carry("shiplane", &mut command);
        let received = received.map_err(|failure| server.with_log(&format!("{failure:#}")))?;
        Ok(received.served_by(server.stop()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_program_goes_by_the_plain_name() {
        assert_eq!(Ours::name_of(SYNC, 0), SYNC);
        assert_eq!(Ours::name_of(VERIFIED, 1), "shiplane 2, verified");
    }
}
