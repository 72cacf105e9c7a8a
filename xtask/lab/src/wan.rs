//! `cargo xtask wan`: compares whole programs over emulated wide-area links.
//!
//! A link is two network namespaces and a relay between them (`link`, `pipe`). A row (`rows`) is a link and what is
//! carried over it, file to file; `programs` starts servers and clients, `run` measures one run from the client's
//! start to its end. Beside them runs the lane in a bench (`lane`), with a perfect window and with our own control:
//! it explains the distance. `shares` measures one lane beside one other flow. Runs are interleaved, and what is
//! judged are ratios within one run. Needs Linux, root and iproute2; everything that it makes is removed at its end.

mod lane;
mod link;
mod pipe;
mod programs;
mod report;
mod rows;
mod run;
mod shares;
mod tables;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::process::find_program;
use xtask::scratch::Scratch;
use xtask::{interrupt, units};

pub(crate) use self::link::{Link, RECEIVER, SENDER};
pub(crate) use self::pipe::Conditions;

use self::lane::{Amount, Control, Flow, Measured};
use self::link::AllowedTcp;
use self::programs::{Kit, Labelled, Program, RunPaths};
use self::report::Table;
use self::rows::{Row, SHARES, SHORT, Workload};
use self::run::{CutSample, End, Sample};
use self::tables::{Lanes, Results};
use crate::busy::Busy;
use crate::machine;
use crate::run::Missing;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run two quick rows once each, without the lane alone
    #[arg(long, conflicts_with_all = ["runs", "only"])]
    short: bool,
    /// Run only rows with these name prefixes, e.g. "50-200,slow,shares"
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Interleaved runs of each program; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure this program instead of a build of this tree; repeat to compare several
    #[arg(long, value_name = "[LABEL=]PATH")]
    shiplane: Vec<Labelled>,
    /// Compare only with programs of this name prefix, e.g. "rsync, BBR"; may be repeated
    #[arg(long, value_name = "PROGRAM")]
    beside: Vec<String>,
    /// Seconds beside each other flow, for bandwidth shares
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    share_seconds: u64,
    /// Seed of random loss
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the tables as Markdown below this directory, by kind of machine
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// Why there can be no links here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces and TUN devices need root: run this as root, or with sudo");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("this kernel has no /dev/net/tun");
    }
    find_program("ip").is_none().then_some("cannot find `ip`: install iproute2")
}

/// Measures the rows and prints the tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = missing() {
        bail!(Missing(reason.to_owned()));
    }
    let only = if args.short { SHORT.map(str::to_owned).to_vec() } else { args.only.clone() };
    let rows = rows::chosen(&only)?;
    let has_shares = only.is_empty() || only.iter().any(|only| SHARES.starts_with(only.as_str()));
    let has_lanes = !args.short && rows.iter().any(|row| matches!(row.workload, Workload::Bulk { .. }));
    let lane = (has_shares || has_lanes).then(lane::build).transpose()?;
    let bench = Bench::prepare(args, lane)?;
    let mut tables = tables::all();
    let mut failures = Vec::new();
    for row in rows.iter().filter(|row| row.workload != Workload::Cut) {
        let results = bench.compare(row)?;
        failures.extend(failures_of(&results));
        let number = tables::number_of(row.workload);
        results.rows().into_iter().for_each(|cells| tables[number].add(cells));
        bench.write(args, &mut tables)?;
    }
    for cells in bench.cut(&rows)? {
        tables[tables::number_of(Workload::Cut)].add(cells);
    }
    if has_shares {
        tables.push(shares::table(bench.lane()?, args.share_seconds, args.seed)?);
    }
    println!("\n{}", bench.head());
    tables.iter().filter(|table| !table.is_empty()).for_each(|table| print!("{}", table.text()));
    bench.write(args, &mut tables)?;
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{}", failures.join("; ")),
    }
}

/// What all rows share.
struct Bench {
    kit: Kit,
    /// The bench program, if a row needs it.
    lane: Option<PathBuf>,
    scratch: Scratch,
    runs: u32,
    seed: u64,
    _tcp: AllowedTcp,
}

impl Bench {
    fn prepare(args: &Args, lane: Option<PathBuf>) -> Result<Self> {
        let scratch = Scratch::in_memory("shiplane-wan-")?;
        scratch.expect_room(ROOM_BYTES)?;
        let kit = Kit::gather(&args.shiplane, &args.beside, &scratch)?;
        let (runs, seed, _tcp) = (if args.short { 1 } else { args.runs }, args.seed, AllowedTcp::all()?);
        Ok(Self { kit, lane, scratch, runs, seed, _tcp })
    }

    /// One row: every program in turn, as often as asked for.
    fn compare<'a>(&'a self, row: &'a Row) -> Result<Results<'a>> {
        println!("\n{}", row.name);
        let busy = row.is_busy.then(Busy::start).transpose()?;
        let mut samples: Vec<_> =
            self.kit.programs(row).into_iter().map(|program| (program, Vec::new())).collect();
        let (mut perfect, mut ours) = (Vec::new(), Vec::new());
        for run in 0..self.runs {
            let seed = self.seed + u64::from(run);
            for (program, samples) in &mut samples {
                interrupt::check()?;
                // What is too slow once needs no second minute.
                if !program.is_ours() && samples.iter().any(|sample: &Sample| sample.end == End::Stopped) {
                    continue;
                }
                let sample = run::once(&self.kit, *program, row, &self.place(row)?, seed);
                let sample = sample.with_context(|| format!("{}: {}", row.name, self.kit.name(*program)))?;
                println!("  {:14} {}", self.kit.name(*program), described(&sample));
                samples.push(sample);
            }
            if self.lane.is_some() && matches!(row.workload, Workload::Bulk { .. }) {
                perfect.push(self.flow(row, Control::Perfect(row.link), seed)?);
                ours.push(self.flow(row, Control::Shiplane, seed)?);
            }
        }
        drop(busy);
        let samples = samples.into_iter();
        let samples =
            samples.filter_map(|(program, samples)| Some((program, median(samples, Sample::mbit_s)?)));
        let samples = samples.collect();
        let rate = |measured: &Measured| measured.mbit_s;
        let lanes = median(perfect, rate).zip(median(ours, rate));
        let lanes = lanes.map(|(perfect, ours)| Lanes { perfect, ours });
        Ok(Results { kit: &self.kit, row, samples, lanes })
    }

    fn lane(&self) -> Result<&Path> {
        self.lane.as_deref().context("lane_flow was not built")
    }

    fn flow(&self, row: &Row, control: Control, seed: u64) -> Result<Measured> {
        interrupt::check()?;
        let link = Link::new(row.link, seed)?;
        let amount = Amount::Mib(row.file_bytes() >> 20);
        let measured = Flow::start(&link, self.lane()?, control, amount)?.finish()?;
        let name = if matches!(control, Control::Perfect(_)) { "perfect window" } else { "our lane" };
        println!("  {name:14} {:.1} Mbit/s", measured.mbit_s);
        Ok(measured)
    }

    /// The rows of slow links, all at the same time: they leave the machine idle.
    fn cut(&self, rows: &[Row]) -> Result<Vec<Vec<String>>> {
        let rows = rows.iter().filter(|row| row.workload == Workload::Cut);
        let cells: Vec<(&Row, Program)> = rows
            .flat_map(|row| self.kit.programs(row).into_iter().map(move |program| (row, program)))
            .collect();
        let mut samples: Vec<Vec<CutSample>> = vec![Vec::new(); cells.len()];
        for run in 0..if cells.is_empty() { 0 } else { self.runs } {
            println!("\nslow links, run {} of {}: two minutes and some", run + 1, self.runs);
            // One after the other, since the first of several makes the data.
            let places = cells.iter().map(|(row, _)| self.place(row)).collect::<Result<Vec<_>>>()?;
            let outcomes = std::thread::scope(|scope| {
                let start = |((row, program), place)| {
                    scope.spawn(move || run::cut(&self.kit, program, row, place, self.seed + u64::from(run)))
                };
                let threads: Vec<_> = cells.iter().copied().zip(&places).map(start).collect();
                threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
            });
            for (samples, outcome) in samples.iter_mut().zip(outcomes) {
                samples.push(outcome.map_err(|_| anyhow!("a thread panicked"))??);
            }
        }
        let kept = |sample: &CutSample| sample.kept_bytes[1] as f64;
        let told = cells.iter().zip(samples).filter_map(|((row, program), samples)| {
            Some(tables::cut_row(&self.kit, *program, row, &median(samples, kept)?))
        });
        Ok(told.collect())
    }

    fn place(&self, row: &Row) -> Result<RunPaths> {
        RunPaths::new(run::source(row, &self.scratch)?, &self.scratch)
    }

    fn write(&self, args: &Args, tables: &mut [Table]) -> Result<()> {
        let Some(docs) = &args.docs else { return Ok(()) };
        let path = docs.join(machine::Kind::here().slug()).join("wan.md");
        let names: Vec<&str> = rows::names().collect();
        report::write(&path, &format!("# Wide-area links\n\n{}\n", self.head()), tables, &names)
    }

    /// What a reader must know of the figures.
    fn head(&self) -> String {
        let mut text = format!("{HEAD}\n\nMachine: {}. ", machine::described());
        let _infallible = write!(text, "TCP: {}. Others: {}.", link::available_tcp(), self.kit.versions());
        for missing in self.kit.all_missing() {
            let _infallible = write!(text, " Missing: {missing}.");
        }
        text
    }
}

/// What went wrong with our own program.
fn failures_of(results: &Results<'_>) -> Vec<String> {
    let failed = |(program, sample): &(Program, Sample)| match &sample.end {
        End::Failed(why) if program.is_ours() => {
            Some(format!("{}: {}: {why}", results.row.name, results.kit.name(*program)))
        }
        End::Done | End::Stopped | End::Failed(_) => None,
    };
    results.samples.iter().filter_map(failed).collect()
}

fn described(sample: &Sample) -> String {
    let (seconds, rate) = (sample.seconds, sample.mbit_s());
    let end = match &sample.end {
        End::Done => String::new(),
        End::Stopped => ", stopped".to_owned(),
        End::Failed(why) => format!(", failed: {why}"),
    };
    let bytes = units::bytes(sample.bytes);
    format!("{seconds:7.2} s  {bytes:>9}  {rate:6.1} Mbit/s  resent {:.1} %{end}", sample.resent_percent)
}

/// The run in the middle.
fn median<T>(mut runs: Vec<T>, figure: impl Fn(&T) -> f64) -> Option<T> {
    runs.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    let middle = runs.len() / 2;
    runs.into_iter().nth(middle)
}

/// The data of all rows, and a copy of the largest.
const ROOM_BYTES: u64 = 2 << 30;

const HEAD: &str = "\
Whole programs, file to file in memory, from the client's start to its end; the server runs already. \
`cargo xtask wan` measures them one after the other, on links between two network namespaces: packets of 1,500 bytes, \
a queue of one bandwidth-delay product (at least 64 KiB), random loss in each direction. The relay runs on the same \
machine.

- A name such as 50-200-1 is a round trip in ms, a rate in Mbit/s and the loss in per cent. All rows but those have \
50 ms, 200 Mbit/s and no loss unless their name says otherwise. rtt-500 has 50 Mbit/s, rtt-1000 has 20; down-200-5 has \
200 Mbit/s towards the receiver and 5 back, up-20-100 pushes over 20 and has 100 back. freeze-20 stops for 20 ms every \
0.5 s, freeze-60 for 60 ms every 2 s, freeze-150 for 150 ms every 5 s, each interval random by half. In busy, another \
program of the same priority keeps each core busy.
- A large file has 128 MiB or what the link carries in 20 s (rtt-1000: 40 s). A program is stopped after 60 s and \
rated by what it has: *. \"Perfect window\" is a lane of ours from memory to memory with a window fixed at 1.1 \
bandwidth-delay products, \"our lane\" the same with our congestion control. \"Must\" is 1.03 times the time of the \
perfect window and three round trips, for the frozen and the busy link the rate of rsync over BBR, else a number.
- \"Resent\" is what the sender put on the link beyond the content and its headers, right to about half a per cent.
- Slow links have a token bucket at the sender, 50 ms and no loss. The client is killed after 60 s, started again, and \
killed after another 60 s; \"kept\" is what the next run need not fetch. Carried are all bytes that arrived.
- scp and curl run over TCP BBR. rsync's daemon encrypts nothing. Peaks are those of our program.
- Of several runs the one in the middle is shown.";
