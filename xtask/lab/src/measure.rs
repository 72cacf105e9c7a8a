//! Compares whole programs: `cargo xtask bench` on loopback ([`bench`]), `cargo xtask wan` over emulated wide-area links
//! ([`wan`]).
//!
//! A [`Row`] is what is carried (`workload`), over what (`link`), by whom (`programs`), and what our own program must
//! reach. [`Measurement`] carries it with each program in turn, since absolute figures drift from machine to machine, and
//! `report` judges ratios within one round. Nothing here is an assertion: a slow machine makes no red build.

pub(crate) mod bench;
mod lane;
mod link;
mod machine;
mod pipe;
mod programs;
mod report;
pub(crate) mod slow;
mod transfer;
pub(crate) mod wan;
mod workload;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use procfs::FromRead as _;
use xtask::driver::Verb;
use xtask::interrupt;
use xtask::process::Usage;
use xtask::scratch::Scratch;

use self::lane::{Flow, PERFECT_PRODUCTS};
use self::link::{Link, RECEIVER, SENDER};
use self::pipe::{Conditions, Counts};
use self::programs::{Contender, Job, Program, Programs};
use self::report::{Measured, PERFECT};
use self::transfer::{End, Ends};
use self::workload::{Data, Workload};
use crate::netns::Namespace;

/// What is carried, over what, and by whom.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    /// None for loopback.
    link: Option<Conditions>,
    verb: Verb,
    workload: Workload,
    /// In which our own program is run.
    ways: &'static [Program],
    others: &'static [Program],
    /// Whether other programs keep all cores busy.
    is_busy: bool,
    must: Must,
}

/// The least that our program must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Must {
    /// On a link, 1.03 times the time of the perfect window in the same run, and three round trips.
    PerfectWindow,
    /// The rate of rsync's daemon over TCP BBR in the same run.
    Rsync,
    /// A fraction of the link.
    OfLink(f64),
    /// At most this number of round trips.
    RoundTrips(f64),
    /// Over ssh: this number of round trips more than a login takes.
    BeyondLogin(f64),
    /// Over ssh, the rate of scp.
    Scp,
    /// What the workload asks for on loopback; nothing on a link.
    Usual,
}

/// What one run took.
#[derive(Clone, Debug, Default)]
struct Sample {
    time: Duration,
    /// Of content, that arrived.
    bytes: u64,
    end: End,
    /// What both sides have used, as far as that is known.
    server: Usage,
    client: Usage,
    /// What loopback carried meanwhile, both directions, each byte once.
    wire_bytes: u64,
    /// On a link, what was sent more than once, in per cent of all the content that was sent; else no number.
    resent_percent: f64,
}

/// What every comparison is asked.
#[derive(Debug, clap::Args)]
struct Common {
    /// Interleaved runs of each program, on loopback after one warm-up; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure this program instead of a build of this tree; repeat to compare several. The first one is judged by the
    /// targets
    #[arg(long, value_name = "[LABEL=]PATH")]
    shiplane: Vec<String>,
    /// Also write the tables as Markdown below this directory, by kind of machine
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// What all rows share.
struct Measurement {
    programs: Programs,
    scratch: Scratch,
    /// The lane's own program, if large files are carried over links.
    lane: Option<PathBuf>,
    runs: u32,
}

impl Measurement {
    /// One row: every program in turn, so that a slow minute of the machine hits all. On loopback the first round is not
    /// counted, and all that arrives in it is compared byte by byte. Other programs that fail are not run again.
    fn compare(&mut self, row: &Row) -> Result<Vec<Measured>> {
        println!("\n{}", row.name);
        let data = Data::lay(row.workload, &self.scratch)?;
        let contenders = self.programs.contenders(row.ways, row.others, row.link.is_some()).into_iter();
        let mut all: Vec<_> = contenders.map(|one| Measured::new(&one.name.clone(), Some(one))).collect();
        let mut lanes = [(Some(PERFECT_PRODUCTS), PERFECT), (None, "our lane")]
            .map(|(products, name)| (products, Measured::new(name, None)));
        let warm_ups = u32::from(row.link.is_none());
        let mut busy = None;
        for number in 0..self.runs + warm_ups {
            if row.is_busy && number == warm_ups {
                busy = Some(machine::keep_busy()?);
            }
            for measured in all.iter_mut().filter(|measured| measured.goes_on()) {
                interrupt::check()?;
                let Some(contender) = &measured.contender else { continue };
                let sample = self.once(row, &data, contender, number);
                let sample = sample.with_context(|| format!("{}, {}", row.name, contender.name))?;
                println!("  {:28} {}", contender.name, report::described(&sample));
                if number >= warm_ups || sample.end != End::Done {
                    measured.samples.push(sample);
                }
            }
            if let (Some(link), Some(program)) = (row.link.filter(|_| row.has_lane()), &self.lane) {
                for (products, lane) in &mut lanes {
                    interrupt::check()?;
                    let link = Link::new(link, number.into())?;
                    let flow =
                        Flow::start(&link, program, *products, row.file_bytes() >> 20, 60)?.finish()?;
                    println!("  {:28} {:.1} Mbit/s", lane.name, flow.mbit_s);
                    lane.note = format!("messages beside it: p99 {:.0} ms", flow.message_p99_ms);
                    lane.samples.push(flow.sample());
                }
            }
        }
        drop(busy);
        all.extend(lanes.into_iter().map(|(_, lane)| lane).filter(|lane| !lane.samples.is_empty()));
        Ok(all)
    }

    /// Carries the item once and looks at what arrived.
    fn once(&self, row: &Row, data: &Data, contender: &Contender, number: u32) -> Result<Sample> {
        let link = row.link.map(|link| Link::new(link, number.into())).transpose()?;
        let ends = Ends { link: link.as_ref(), verb: contender.verb(row.verb) };
        let paths = data.paths(&contender.slug())?;
        let job = Job::new(row.link, ends.verb, data, &paths)?;
        if let (Some(link), Some(name)) = (&link, contender.program.congestion_control()) {
            link.set_congestion_control(name)?;
        }
        let serving = ends.at_server(|| self.programs.keys.serve(contender, &job))?;
        let limit = if row.link.is_some() { LINK_LIMIT } else { LIMIT };
        let client = || {
            let mut command = self.programs.client(contender, &serving, &job)?;
            ends.run(&contender.name, &mut command, limit, |_| Ok(()))
        };
        let mut used_before = Duration::ZERO;
        if contender.program == Program::SECOND {
            client()?.ended.expect_success("the first receiver")?;
            used_before = crate::stats::cpu_time(serving.running.pid())?;
            paths.clear_file()?;
        }
        if link.is_none() {
            data.settle()?;
        }
        let before = counts(link.as_ref());
        let finished = client()?;
        let after = counts(link.as_ref());
        let time = finished.time + serving.import;
        let end = match finished.end {
            End::Failed(why) => {
                let said = serving.running.said_until_now().join("\n");
                End::Failed(format!("{why}; the server: {said}"))
            }
            end => end,
        };
        let (mut server, mut bytes) = (Usage::default(), data.bytes);
        if end == End::Done {
            server = serving.stop()?;
            server.cpu = server.cpu.saturating_sub(used_before);
            let is_ours_over_link = row.link.is_some() && contender.is_ours();
            if contender.program != Program::LOGIN {
                data.expect_copy(&paths, is_ours_over_link || row.link.is_none() && number == 0)?;
            }
        } else {
            drop(serving);
            bytes = bytes.min(workload::present_bytes(&paths.destination)?);
        }
        paths.clear(row.workload, ends.verb)?;
        let wire_bytes = after.carried_bytes.saturating_sub(before.carried_bytes);
        let resent_percent = resent_percent(before, after, contender.header_bytes(), bytes);
        Ok(Sample { time, bytes, end, server, client: finished.ended.used, wire_bytes, resent_percent })
    }
}

impl Row {
    /// Whether it is a large file over a link, for which the lane alone is measured too.
    fn has_lane(&self) -> bool {
        self.link.is_some() && self.file_bytes() > 1 << 20 && self.ways.contains(&Program::DURABLE)
    }

    /// The size of the one file.
    fn file_bytes(&self) -> u64 {
        match self.workload {
            Workload::File(bytes) | Workload::Edited(bytes) => bytes,
            Workload::Tree(_) | Workload::Unchanged(_) => 0,
        }
    }
}

impl Sample {
    fn mbit_s(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.time.as_secs_f64()
    }

    fn cpu(&self) -> f64 {
        (self.server.cpu + self.client.cpu).as_secs_f64()
    }

    fn peak_bytes(&self) -> u64 {
        self.server.peak_rss_bytes.max(self.client.peak_rss_bytes)
    }
}

/// What the link has carried so far, or the loopback of this thread's network.
fn counts(link: Option<&Link>) -> Counts {
    let loopback = || Counts { carried_bytes: loopback_bytes().unwrap_or_default(), ..Counts::default() };
    link.map_or_else(loopback, Link::counts)
}

fn loopback_bytes() -> Option<u64> {
    // Of this thread: the process's own is that of its first thread.
    let table = procfs::net::InterfaceDeviceStatus::from_file("/proc/thread-self/net/dev").ok()?;
    table.0.get("lo").map(|device| device.recv_bytes)
}

/// Enters a network with nothing but a loopback device, so that the count is exact. All programs started from this thread
/// afterwards are in it too.
fn enter_own_network() -> Result<Namespace> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "it takes root");
    let network = Namespace::new(format!("slbench{}", std::process::id()))?;
    network.enter()?;
    Ok(network)
}

/// From what the sender has put on the link between two moments, headers left out. No number if that is nothing, as where
/// it is not counted.
fn resent_percent(before: Counts, after: Counts, header_bytes: u64, content_bytes: u64) -> f64 {
    let packets = after.data_packets - before.data_packets;
    let sent_bytes = (after.data_bytes - before.data_bytes).saturating_sub(packets * header_bytes);
    100.0 * sent_bytes.saturating_sub(content_bytes) as f64 / sent_bytes as f64
}

/// A program that takes longer over a link is stopped, and rated by what it has; on loopback it hangs.
const LINK_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(600);

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_twice_is_counted_without_headers() {
        let before = Counts { data_packets: 10, data_bytes: 10_000, carried_bytes: 0 };
        let after = Counts { data_packets: 60, data_bytes: 62_500, carried_bytes: 0 };
        let percent = resent_percent(before, after, 50, 40_000);
        assert!((percent - 20.0).abs() < 1e-9, "{percent}");
        assert!(resent_percent(before, before, 50, 0).is_nan());
    }

    #[test]
    fn loopback_has_a_count() {
        assert!(loopback_bytes().is_some());
    }
}
