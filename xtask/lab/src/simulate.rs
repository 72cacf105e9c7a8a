//! `cargo xtask sim`: runs seeds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::interrupt;

use crate::sim::{Report, Simulation, Summary};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run each seed twice and compare
    #[arg(long)]
    check_replay: bool,
    /// Print each seed's scenario and result
    #[arg(long)]
    verbose: bool,
}

/// Runs the seeds. What fails is printed with how to run it again.
pub(crate) fn run(args: &Args) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let simulation = Simulation::new().context("no place for the files")?;
    let mut totals = Totals::default();
    let (began, mut said) = (Instant::now(), Instant::now());
    for seed in args.from..args.from.saturating_add(args.seeds) {
        interrupt::check()?;
        let report = simulation.run(seed);
        if args.check_replay {
            let again = simulation.run(seed);
            if (again.trace, again.datagrams) != (report.trace, report.datagrams) {
                totals.failed += 1;
                println!(
                    "NOT REPEATED: {:?}\n  {:x} is not {:x}",
                    report.scenario, again.trace, report.trace
                );
            }
        }
        totals.add(&report, args.verbose);
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!("... {seed}: {}", totals.line(began.elapsed()));
        }
    }
    println!("{}", totals.line(began.elapsed()));
    ensure!(totals.failed == 0, "the simulation found something");
    Ok(())
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: u64,
    datagrams: u64,
    /// Of the runs that have not failed.
    sum: Summary,
}

impl Totals {
    fn add(&mut self, report: &Report, verbose: bool) {
        self.seeds += 1;
        self.datagrams += report.datagrams;
        match &report.outcome {
            Ok(summary) => {
                self.sum.attempts += summary.attempts;
                self.sum.kills += summary.kills;
                self.sum.cuts += summary.cuts;
                self.sum.took += summary.took;
                if verbose {
                    println!("{:?}\n  {summary:?}, {} datagrams", report.scenario, report.datagrams);
                }
            }
            Err(violation) => {
                self.failed += 1;
                println!("FAILED: {:?}\n  {violation}", report.scenario);
                println!("  again: cargo xtask sim --from {} --seeds 1", report.scenario.seed);
            }
        }
    }

    fn line(&self, took: Duration) -> String {
        let Self { seeds, failed, datagrams, sum: Summary { attempts, kills, cuts, took: virtual_time } } =
            self;
        let (hours, seconds) = (virtual_time.as_secs_f64() / 3600.0, took.as_secs());
        format!(
            "{seeds} seeds, {failed} failed; {attempts} attempts, {kills} kills, {cuts} power cuts, {datagrams} datagrams; \
             {hours:.1} h of virtual time in {seconds} s"
        )
    }
}
