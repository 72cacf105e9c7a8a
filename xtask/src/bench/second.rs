//! `cargo xtask bench second`: serves one large file to two receivers, one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::contenders::{Ours, slug};
use super::profile::SuspendDetector;
use super::sample::Measured;
use super::targets::{self, Target, ratios};
use super::workload::{Received, Scenario, Workload};
use super::{Options, Round, lay_one, report, scratch, table};
use crate::process::{self, Usage};
use crate::shiplane::{Server, Shiplane};
use crate::units;

/// Measures and prints the table.
pub(super) fn run(options: &Options) -> Result<()> {
    let shiplanes = options.shiplanes()?;
    let scratch = scratch(Scenario::File, options)?;
    let workload = lay_one(Scenario::File, options, &scratch)?;
    let perf = process::find_program("perf");
    let mut programs: Vec<Program> = shiplanes.iter().enumerate().map(Program::new).collect();
    options.rounds(|round| {
        programs.iter_mut().try_for_each(|program| program.run(&workload, round, perf.as_deref()))
    })?;
    let hashed_s = programs.first().and_then(|program| program.hashed_s);
    let measured: Vec<Measured> = programs.into_iter().flat_map(|program| program.receivers).collect();
    let rows = table::rows(Scenario::File, &measured, workload.bytes);
    let targets = targets::rows(&targets(&measured, hashed_s));
    let heading = heading(&workload, options);
    println!("\n{heading}\n\n{}\n{}", units::table(&rows), units::table(&targets));
    let Some(docs) = &options.docs else { return Ok(()) };
    let slug = if options.busy { "second-busy" } else { "second" };
    let tables = format!("{}\n{}", report::markdown(&rows), report::markdown(&targets));
    report::write(
        docs,
        &format!("{slug}.md"),
        &format!("# The second receiver of a file\n\n{heading}\n\n{tables}"),
    )
}

/// One program, with what its receivers took.
struct Program {
    shiplane: Shiplane,
    receivers: [Measured; 2],
    /// What the server spent on hashing for the second one, if perf could tell.
    hashed_s: Option<f64>,
}

impl Program {
    fn new((number, shiplane): (usize, &Shiplane)) -> Self {
        let receivers = WAYS.map(|way| {
            let name = Ours::name_of(way, number);
            Measured { name, ..Measured::of(&Ours::verified(shiplane), "") }
        });
        Self { shiplane: shiplane.clone(), receivers, hashed_s: None }
    }

    /// Serves the file to both. In the round that is not counted perf looks at the server meanwhile.
    fn run(&mut self, workload: &Workload, round: Round, perf: Option<&Path>) -> Result<()> {
        let state = workload.state(&slug(&format!("{}-server", self.receivers[0].name)))?;
        let server = self.shiplane.serve(&workload.source, &state)?;
        let first = self.receive(0, &server, workload)?;
        let until_now = Usage { cpu: server.cpu_time()?, peak_rss_bytes: server.process_stats()?.peak_bytes };
        let watch =
            perf.filter(|_| round.is_warm_up()).map(|perf| SuspendDetector::of(server.pid(), perf, &state));
        let watch = watch.transpose()?;
        let second = self.receive(1, &server, workload)?;
        let all = server.stop()?.used;
        if let Some(watch) = watch {
            self.hashed_s = Some(watch.hashed_s()?);
        }
        let then = Usage { cpu: all.cpu.saturating_sub(until_now.cpu), ..all };
        for (measured, (received, sender)) in
            self.receivers.iter_mut().zip([(first, until_now), (second, then)])
        {
            workload.judge(&slug(&measured.name), round.is_warm_up())?;
            let sample = received.with_sender(sender);
            println!("  {round}  {:28} {}", measured.name, units::seconds(sample.time));
            measured.samples.extend((!round.is_warm_up()).then_some(sample));
        }
        Ok(())
    }

    fn receive(&self, which: usize, server: &Server, workload: &Workload) -> Result<Received> {
        let name = slug(&self.receivers[which].name);
        let (destination, state) = (workload.destination(&name)?, self.receiver_state(workload)?);
        let mut command = self.shiplane.get(server, &destination, &state);
        command.args(["--quiet", "--durability", "verified"]).stdout(std::process::Stdio::null());
        let received = workload.carry("shiplane", &mut command);
        received.map_err(|failure| server.with_log(&format!("{failure:#}"))).context("a receiver failed")
    }

    /// Of both: a ticket is for one key.
    fn receiver_state(&self, workload: &Workload) -> Result<PathBuf> {
        workload.state(&slug(&format!("{}-receiver", self.receivers[0].name)))
    }
}

fn targets(measured: &[Measured], hashed_s: Option<f64>) -> Vec<Target> {
    let [first, second] = WAYS;
    let at_source = |measured: &Measured| -> Vec<f64> {
        let senders = measured.samples.iter().filter_map(|sample| sample.used.sender());
        senders.map(|used| used.cpu.as_secs_f64()).collect()
    };
    let hashed = "seconds hashed at the source for the second receiver, as perf saw";
    vec![
        Target::at_most(hashed, (NOTHING_S, NOTHING_S), hashed_s.into_iter().collect()),
        Target::told("time, second receiver ÷ first", ratios(measured, second, first, Measured::times)),
        Target::told(
            "CPU-s at the source, second receiver ÷ first",
            ratios(measured, second, first, at_source),
        ),
        targets::peak(measured),
    ]
}

fn heading(workload: &Workload, options: &Options) -> String {
    format!(
        "{} over loopback: one `serve`, and `get`, verified, twice from it, one after the other, to places of their \
         own; {}. The processor's time of `serve` is told apart in hundredths of a second; its peak is that until the \
         end of each. {} {}",
        units::megabytes(workload.bytes),
        options.described(),
        report::BEFORE_A_RUN,
        report::taken(workload),
    )
}

const WAYS: [&str; 2] = ["shiplane, first receiver", "shiplane, second receiver"];

/// Ten samples of perf, so that one that is named wrongly does not count.
const NOTHING_S: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::super::sample::tests::{apart, program};
    use super::*;

    #[test]
    fn the_second_receiver_is_compared_with_the_first() {
        let measured = [
            program(WAYS[0], &[1000], apart(800, 1, 1 << 20)),
            program(WAYS[1], &[700], apart(400, 1, 1 << 20)),
        ];
        let rows = targets::rows(&targets(&measured, Some(0.3)));
        let told: Vec<&str> = rows[1..].iter().map(|row| row[1].as_str()).collect();
        assert_eq!(told, ["0.30", "0.70", "0.50", "1.00"]);
        assert_eq!(rows[1][4], "NO");
    }

    #[test]
    fn it_is_said_if_perf_is_missing() {
        assert_eq!(targets::rows(&targets(&[], None))[1][4], "?");
    }
}
