//! `cargo xtask wan`: compares whole programs over emulated wide-area links.
//!
//! A link is two network namespaces and a relay between them (`link`, `pipe`). Beside the programs runs the lane in a bench
//! (`lane`), with a perfect window and with our own control: it explains the distance. It also runs beside one other
//! flow. `slow` measures what is left of transfers that are cut off. Needs root and iproute2; everything that it
//! makes is removed at its end, but for the empty directory `/run/sshd`.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, bail};
use xtask::driver::Verb;
use xtask::process::find_program;
use xtask::scratch::Scratch;

use super::link::available_tcp;
use super::programs::{Contender, Program, Programs};
use super::report::{self, Section};
use super::workload::Workload;
use super::{Common, Conditions, Measurement, Must, Row, SENDER, lane, machine, slow};
use crate::run::Missing;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run two quick rows once each, without the lane alone
    #[arg(long, conflicts_with_all = ["runs", "only"])]
    short: bool,
    /// Run only rows with these name prefixes, e.g. "50-200,slow,shares"
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    common: Common,
    /// Compare only with programs whose name contains this, e.g. "rsync"; may be repeated
    #[arg(long, value_name = "PROGRAM")]
    beside: Vec<String>,
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

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = missing() {
        bail!(Missing(reason.to_owned()));
    }
    let only = if args.short { SHORT.map(str::to_owned).to_vec() } else { args.only.clone() };
    let rows = chosen(&only)?;
    let begins_with_one = |name: &str| is_chosen(&only, name);
    let ours = Contender::ours(&args.common.shiplane)?;
    let has_lanes = begins_with_one(SHARES) || !args.short && rows.iter().any(Row::has_lane);
    let lane = has_lanes.then(lane::build).transpose()?;
    let scratch = Scratch::in_memory("shiplane-wan-")?;
    scratch.expect_room(ROOM_BYTES)?;
    let listen = IpAddr::from([0, 0, 0, 0]);
    let programs = Programs::prepare(ours, args.beside.clone(), scratch.path(), listen, SENDER.parse()?)?;
    let runs = if args.short { 1 } else { args.common.runs };
    let mut bench = Measurement { programs, scratch, lane, runs };
    let head =
        format!("# Wide-area links\n\n{HEAD}\nMachine: {}. TCP: {}.", machine::described(), available_tcp());
    println!("{head}");
    let publish = |section: Section| {
        println!("\n{}", section.text());
        report::write(args.common.docs.as_deref(), "wan.md", &head, &section)
    };
    let mut failed = Vec::new();
    for row in rows {
        let measured = bench.compare(&row)?;
        publish(Section::of(&row, &measured))?;
        print!("{}", bench.programs.described(&row, &measured));
        failed.extend(report::failures(&row, &measured).err().map(|failure| failure.to_string()));
    }
    if let Some(section) = slow::compare(&bench, begins_with_one)? {
        publish(section)?;
    }
    if let Some(lane) = bench.lane.as_deref().filter(|_| begins_with_one(SHARES)) {
        publish(lane::shares(lane)?)?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// The rows whose names begin with one of `only`, or all.
fn chosen(only: &[String]) -> Result<Vec<Row>> {
    let names = || ROWS.iter().map(|row| row.name).chain(slow::names()).chain([SHARES]);
    if let Some(unknown) = only.iter().find(|begin| !names().any(|name| name.starts_with(begin.as_str()))) {
        bail!("no row begins with `{unknown}`; there are {}", names().collect::<Vec<_>>().join(", "));
    }
    Ok(ROWS.into_iter().filter(|row| is_chosen(only, row.name)).collect())
}

fn is_chosen(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|begin| name.starts_with(begin.as_str()))
}

/// What `--only` calls the table of shares.
const SHARES: &str = "shares";

const SHORT: [&str; 2] = ["1mb-50", "push"];

/// The data of all rows, and a copy of the largest.
const ROOM_BYTES: u64 = 2 << 30;

const fn link(rtt_ms: f64, rate_mbit: f64, loss_percent: f64) -> Conditions {
    Conditions::new(rtt_ms, rate_mbit, loss_percent)
}

/// A file of 128 MiB, or what the link carries in twenty seconds.
const fn bulk(name: &'static str, link: Conditions, must: Must) -> Row {
    let carried_mib = (link.rate_mbit * 125_000.0 * 20.0) as u64 >> 20;
    let workload = Workload::File(if carried_mib < 128 { carried_mib << 20 } else { 128 << 20 });
    let (link, verb, ways, others) = (Some(link), Verb::Get, &[Program::DURABLE], &OTHERS);
    Row { name, link, verb, workload, ways, others, is_busy: false, must }
}

const fn frozen(name: &'static str, len_ms: f64, every_ms: f64) -> Row {
    bulk(name, Conditions { freeze_ms: Some((len_ms, every_ms)), ..FIRST }, Must::Rsync)
}

const fn asymmetric(rate_mbit: f64, back_mbit: f64) -> Conditions {
    Conditions { back_mbit, ..link(50.0, rate_mbit, 0.0) }
}

const fn small(name: &'static str, rtt_ms: f64) -> Row {
    let row = bulk(name, link(rtt_ms, 200.0, 0.0), Must::RoundTrips(6.0));
    Row { workload: Workload::File(1_000_000), others: &OTHERS_FOR_SMALL, ..row }
}

const fn tree(name: &'static str, verb: Verb) -> Row {
    let others: &[Program] = if matches!(verb, Verb::Get) { &OTHERS_FOR_TREES } else { &[] };
    Row { workload: Workload::Tree(10_000), verb, others, ..bulk(name, FIRST, Must::Usual) }
}

const fn other_way(row: Row, verb: Verb) -> Row {
    Row { verb, others: &[Program::RSYNC], ..row }
}

/// The same sshd for our program and scp. Its connections find each other by UDP as well, where there is any.
const fn over_ssh(name: &'static str, link: Conditions, workload: Workload, must: Must) -> Row {
    let (ways, others) = (&[Program::OVER_SSH], &[Program::SCP, Program::LOGIN]);
    Row { workload, ways, others, ..bulk(name, link, must) }
}

const fn without_udp(link: Conditions) -> Conditions {
    Conditions { drops_udp: true, ..link }
}

const FIRST: Conditions = link(50.0, 200.0, 0.0);

const FAR: Conditions = link(200.0, 200.0, 0.0);

const OTHERS: [Program; 4] = [Program::RSYNC, Program::RSYNC_CUBIC, Program::SCP, Program::QCP];
const OTHERS_FOR_SMALL: [Program; 5] =
    [Program::CURL_HTTP, Program::CURL_HTTPS, Program::RSYNC, Program::SCP, Program::QCP];
const OTHERS_FOR_TREES: [Program; 3] = [Program::RSYNC, Program::RSYNC_CUBIC, Program::SCP];

const ROWS: [Row; 32] = [
    bulk("50-200-0", FIRST, Must::PerfectWindow),
    bulk("50-200-1", link(50.0, 200.0, 1.0), Must::PerfectWindow),
    bulk("50-200-3", link(50.0, 200.0, 3.0), Must::PerfectWindow),
    bulk("200-200-0.1", link(200.0, 200.0, 0.1), Must::PerfectWindow),
    bulk("100-500-0.5", link(100.0, 500.0, 0.5), Must::PerfectWindow),
    Row { is_busy: true, ..bulk("busy", FIRST, Must::Rsync) },
    frozen("freeze-20", 20.0, 500.0),
    frozen("freeze-60", 60.0, 2000.0),
    frozen("freeze-150", 150.0, 5000.0),
    bulk("loss-5", link(50.0, 200.0, 5.0), Must::OfLink(0.80)),
    bulk("loss-10", link(50.0, 200.0, 10.0), Must::OfLink(0.75)),
    // Both carry what their links do in forty round trips, as their target says.
    bulk("rtt-500", link(500.0, 50.0, 0.0), Must::OfLink(0.80)),
    Row {
        workload: Workload::File(95 << 20),
        ..bulk("rtt-1000", link(1000.0, 20.0, 0.0), Must::OfLink(0.80))
    },
    bulk("down-200-5", asymmetric(200.0, 5.0), Must::PerfectWindow),
    other_way(bulk("up-20-100", asymmetric(20.0, 100.0), Must::PerfectWindow), Verb::Push),
    other_way(bulk("push", FIRST, Must::PerfectWindow), Verb::Push),
    other_way(bulk("sync", FIRST, Must::PerfectWindow), Verb::Sync),
    small("1mb-50", 50.0),
    small("1mb-200", 200.0),
    tree("tree-get", Verb::Get),
    tree("tree-push", Verb::Push),
    tree("tree-sync", Verb::Sync),
    over_ssh("ssh-1kb-50", FIRST, Workload::File(1000), Must::BeyondLogin(4.0)),
    over_ssh("ssh-1kb-50-no-udp", without_udp(FIRST), Workload::File(1000), Must::BeyondLogin(4.0)),
    over_ssh("ssh-1kb-200", FAR, Workload::File(1000), Must::BeyondLogin(4.0)),
    over_ssh("ssh-1kb-200-no-udp", without_udp(FAR), Workload::File(1000), Must::BeyondLogin(4.0)),
    over_ssh("ssh-tree", FIRST, Workload::Tree(100), Must::Scp),
    over_ssh("ssh-50-200-0", FIRST, Workload::File(64 << 20), Must::Scp),
    over_ssh("ssh-50-200-0-no-udp", without_udp(FIRST), Workload::File(64 << 20), Must::Scp),
    over_ssh("ssh-50-200-0.1", link(50.0, 200.0, 0.1), Workload::File(64 << 20), Must::Scp),
    over_ssh("ssh-200-200-0", FAR, Workload::File(64 << 20), Must::Scp),
    over_ssh("ssh-200-200-0-no-udp", without_udp(FAR), Workload::File(64 << 20), Must::Scp),
];

/// How the rows are measured, and what a reader of the figures must know.
const HEAD: &str = include_str!("wan.md");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_twenty_seconds_or_has_128_mib() {
        let bytes = |name: &str| chosen(&[name.to_owned()]).unwrap()[0].file_bytes();
        assert_eq!(
            (bytes("50-200-0"), bytes("rtt-500"), bytes("rtt-1000")),
            (128 << 20, 119 << 20, 95 << 20)
        );
    }

    #[test]
    fn rows_are_chosen_by_how_their_names_begin() {
        let names = |only: &[&str]| -> Result<Vec<&str>> {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            Ok(chosen(&only)?.iter().map(|row| row.name).collect())
        };
        assert_eq!(names(&["freeze"]).unwrap(), ["freeze-20", "freeze-60", "freeze-150"]);
        assert_eq!(names(&["1mb-50", "busy"]).unwrap(), ["busy", "1mb-50"]);
        assert_eq!(names(&[SHARES]).unwrap(), [""; 0]);
        assert_eq!(names(&[]).unwrap().len(), ROWS.len());
        assert!(names(&["nowhere"]).unwrap_err().to_string().contains("50-200-0"));
        assert_eq!(names(&SHORT).unwrap().len(), SHORT.len());
    }
}
