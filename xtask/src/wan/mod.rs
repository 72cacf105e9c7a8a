//! `cargo xtask wan`: our congestion control on wide-area links, beside a perfect window and beside TCP.
//!
//! A link is two network namespaces and a relay between them (`link`, `pipe`); over it run our lane,
//! memory to memory, and iperf3 (`flow`). The perfect window is the same program with a window fixed at
//! 1.1 bandwidth-delay products, in the same run. Needs Linux, root and iproute2; all that it makes is
//! gone when it ends, whichever way.

mod flow;
mod link;
mod pipe;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::flow::{Amount, Control, Measured, Tcp};
use self::link::Link;
use self::pipe::Conditions;
use crate::interrupt;
use crate::process::find_program;

/// What the user typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two paths, 48 MiB each, and no shares
    #[arg(long, conflicts_with_all = ["mib", "runs", "only"])]
    short: bool,
    /// MiB of each measured transfer, its start included
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Runs of each, interleaved; the median is shown
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds beside each TCP flow
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    share_seconds: u64,
    /// One of the two tables
    #[arg(long, value_enum)]
    only: Option<Table>,
    /// Only the paths whose name contains this, as in "500 Mbit"
    #[arg(long, value_name = "TEXT", conflicts_with = "short")]
    path: Option<String>,
    /// What loss starts from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Table {
    Matrix,
    Shares,
}

impl Args {
    /// Those of a table's paths that are asked for.
    fn chosen(&self, paths: &[Conditions]) -> Result<Vec<Conditions>> {
        let is_chosen = |&path: &Conditions| self.path.as_ref().is_none_or(|text| name(path).contains(text));
        let chosen: Vec<Conditions> = paths.iter().copied().filter(is_chosen).collect();
        if chosen.is_empty() {
            let names: Vec<String> = paths.iter().copied().map(name).collect();
            bail!("no path of the table has that in its name; the names are {}", names.join("; "));
        }
        Ok(chosen)
    }
}

/// Measures and prints both tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces and TUN devices need root: run this as root, or with sudo");
    }
    if find_program("ip").is_none() {
        bail!("cannot find `ip`: install iproute2");
    }
    println!("building lane_flow in release");
    let program = flow::build()?;
    if args.short {
        return matrix(&program, &SHORT, &Amounts { mib: 48, runs: 1, seed: args.seed });
    }
    if args.only != Some(Table::Shares) {
        let amounts = Amounts { mib: args.mib, runs: args.runs, seed: args.seed };
        let paths = args.chosen(&MATRIX)?;
        matrix(&program, &paths, &amounts)?;
    }
    if args.only != Some(Table::Matrix) {
        shares(args, &program)?;
    }
    Ok(())
}

/// How much is sent, how often, and what loss starts from.
#[derive(Debug)]
struct Amounts {
    mib: u64,
    runs: u32,
    seed: u64,
}

fn matrix(program: &Path, paths: &[Conditions], amounts: &Amounts) -> Result<()> {
    println!("\n{} MiB in 16 streams; a queue of one bandwidth-delay product; Mbit/s", amounts.mib);
    println!(
        "{:<26} {:>7} {:>7} {:>5}  {:>13}  {:>23}  {:>17}  target",
        "path", "perfect", "ours", "ratio", "lost (theirs)", "RTT idle, mean, most ms", "message p50, p99"
    );
    for &conditions in paths {
        println!("{}", compare(program, conditions, amounts)?);
    }
    println!("must: ratio at least {MUST_RATIO:.2}, lost at most the path's loss + {MUST_EXCESS_PERCENT} %");
    println!("aim: ratio at least {AIM_RATIO:.2}, lost at most the path's loss + {AIM_EXCESS_PERCENT} %");
    Ok(())
}

/// One row: the perfect window and ours.
fn compare(program: &Path, conditions: Conditions, amounts: &Amounts) -> Result<String> {
    let window_bytes = (conditions.product_bytes() * PERFECT_PRODUCTS) as u64;
    let controls = [Control::Fixed { window_bytes }, Control::Shiplane];
    let mut runs = [Vec::new(), Vec::new()];
    for run in 0..amounts.runs {
        for (control, runs) in controls.into_iter().zip(&mut runs) {
            interrupt::check()?;
            let link = Link::new(conditions, amounts.seed + u64::from(run))?;
            runs.push(flow::run(&link, program, control, Amount::Mib(amounts.mib))?);
        }
    }
    let [perfect, ours] = runs.map(median);
    let ratio = ours.mbit_s / perfect.mbit_s;
    Ok(format!(
        "{:<26} {:>7.1} {:>7.1} {:>5.2}  {:>4.2} % ({:>4.2} %)  {:>7.1} {:>7.1} {:>7.0}  {:>8.0} {:>8.0}  {}",
        name(conditions),
        perfect.mbit_s,
        ours.mbit_s,
        ratio,
        ours.lost_percent,
        perfect.lost_percent,
        ours.idle_rtt_ms,
        ours.rtt_ms,
        ours.max_rtt_ms,
        ours.message_p50_ms,
        ours.message_p99_ms,
        verdict(ratio, ours.lost_percent - conditions.loss_percent),
    ))
}

/// What a row reaches of the two marks, by its ratio and its losses beyond the path's own.
fn verdict(ratio: f64, excess_percent: f64) -> &'static str {
    if ratio >= AIM_RATIO && excess_percent <= AIM_EXCESS_PERCENT {
        "aim"
    } else if ratio >= MUST_RATIO && excess_percent <= MUST_EXCESS_PERCENT {
        "must"
    } else {
        "missed"
    }
}

fn shares(args: &Args, program: &Path) -> Result<()> {
    println!("\n{} s beside one TCP flow that has a start of {LEAD_SECONDS} s, Mbit/s", args.share_seconds);
    for conditions in args.chosen(&SHARED)? {
        for congestion in ["cubic", "bbr"] {
            println!("{}", share(args, program, conditions, congestion)?);
        }
    }
    println!("aim: a ratio of 0.5 to 2");
    Ok(())
}

/// One row of shares, or why it is missing.
fn share(args: &Args, program: &Path, conditions: Conditions, congestion: &str) -> Result<String> {
    let path = name(conditions);
    if let Some(reason) = flow::tcp_missing(congestion) {
        return Ok(format!("{path:<26} beside TCP {congestion}: missing: {reason}"));
    }
    let link = Link::new(conditions, args.seed)?;
    let tcp = Tcp::start(&link, congestion, LEAD_SECONDS, args.share_seconds)?;
    pause(Duration::from_secs(LEAD_SECONDS))?;
    let ours = flow::run(&link, program, Control::Shiplane, Amount::Seconds(args.share_seconds))?;
    let theirs = tcp.finish()?;
    Ok(format!(
        "{path:<26} TCP {congestion:<6} {theirs:>6.1}  ours {:>6.1}  ratio {:>5.2}  lost {:.2} %",
        ours.mbit_s,
        ours.mbit_s / theirs.max(0.1),
        ours.lost_percent,
    ))
}

/// Waits, unless the user interrupts.
fn pause(length: Duration) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < length {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The run in the middle by goodput.
fn median(mut runs: Vec<Measured>) -> Measured {
    runs.sort_by(|a, b| a.mbit_s.total_cmp(&b.mbit_s));
    runs.swap_remove(runs.len() / 2)
}

fn name(conditions: Conditions) -> String {
    let Conditions { rtt_ms, rate_mbit, loss_percent } = conditions;
    format!("{rtt_ms} ms, {rate_mbit} Mbit/s, {loss_percent} %")
}

const fn path(rtt_ms: f64, rate_mbit: f64, loss_percent: f64) -> Conditions {
    Conditions { rtt_ms, rate_mbit, loss_percent }
}

/// Continental and intercontinental paths, clean and lossy.
const MATRIX: [Conditions; 6] = [
    path(50.0, 200.0, 0.0),
    path(50.0, 200.0, 0.1),
    path(50.0, 200.0, 1.0),
    path(50.0, 200.0, 3.0),
    path(200.0, 200.0, 0.1),
    path(100.0, 500.0, 0.5),
];

/// The two that tell most.
const SHORT: [Conditions; 2] = [path(50.0, 200.0, 1.0), path(200.0, 200.0, 0.1)];

/// Where a share is measured: without loss, which alone would starve TCP's Cubic.
const SHARED: [Conditions; 2] = [path(50.0, 200.0, 0.0), path(100.0, 100.0, 0.0)];

/// Between the 1.05 and 1.2 that measured alike.
const PERFECT_PRODUCTS: f64 = 1.1;

const MUST_RATIO: f64 = 0.9;
const MUST_EXCESS_PERCENT: f64 = 5.0;
const AIM_RATIO: f64 = 0.97;
const AIM_EXCESS_PERCENT: f64 = 1.0;

/// Long enough for TCP to have the path to itself.
const LEAD_SECONDS: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reaches_a_mark_by_rate_and_by_loss() {
        assert_eq!(verdict(0.98, 0.5), "aim");
        assert_eq!(verdict(0.98, 1.5), "must");
        assert_eq!(verdict(0.91, 0.0), "must");
        assert_eq!(verdict(0.89, 0.0), "missed");
        assert_eq!(verdict(1.0, 5.1), "missed");
    }
}
