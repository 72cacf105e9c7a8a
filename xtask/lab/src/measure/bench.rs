//! `cargo xtask bench`: compares whole programs on loopback.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask::driver::Verb;
use xtask::scratch::{self, Scratch};

use super::programs::{Contender, Program, Programs};
use super::report::{self, Section};
use super::workload::{DIRECTORIES, EDITS, Workload};
use super::{Common, LOOPBACK, Measurement, Must, Row, enter_own_network, machine};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One large file, a tree of small ones, the same tree again, a large file that was edited since the last transfer, or
    /// two receivers of one large file from one server, one after the other
    #[arg(value_parser = NAMES, default_value = NAMES[0])]
    what: String,
    /// Size of a large file, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    size_mib: u64,
    /// Number of small files
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    files: u32,
    #[command(flatten)]
    common: Common,
    /// Keep all cores busy with other programs of the same priority
    #[arg(long)]
    busy: bool,
    /// Directory for all files, as on a disk [default: /dev/shm if it has room, else the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Compare only with programs whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    fn rows(&self) -> [Row; 5] {
        let row = |name, workload, ways, others| {
            let (link, verb, is_busy, must) = (None, Verb::Get, self.busy, Must::Usual);
            Row { name, link, verb, workload, ways, others, is_busy, must }
        };
        let (bytes, usual) = (self.size_mib << 20, &[Program::VERIFIED, Program::DURABLE][..]);
        let all = &[Program::VERIFIED, Program::DURABLE, Program::SYNC];
        [
            row(NAMES[0], Workload::File(bytes), usual, &OTHERS[..]),
            row(NAMES[1], Workload::Tree(self.files), usual, &OTHERS[..5]),
            row(NAMES[2], Workload::Unchanged(self.files), all, &OTHERS[1..3]),
            row(NAMES[3], Workload::Edited(bytes), usual, &OTHERS[1..3]),
            row(NAMES[4], Workload::File(bytes), &[Program::VERIFIED, Program::SECOND], &[]),
        ]
    }

    /// How the runs were made, and what a reader of the figures must know.
    fn head(&self, row: &Row, directory: &Path, is_alone: bool) -> String {
        let what = match row.workload {
            Workload::File(_) => "",
            Workload::Edited(_) => &format!(
                ", of which {EDITS} places of 4 KiB and two bytes at the front differ from what is there"
            ),
            Workload::Tree(_) => &format!(" in {DIRECTORIES} directories"),
            Workload::Unchanged(_) => ", all of which are there already",
        };
        let busy = if self.busy { ", beside one other program on each core that never rests" } else { "" };
        let alone = if is_alone {
            "in a network of its own"
        } else {
            "with whatever else the machine's loopback carried"
        };
        format!(
            "{}{what}: loopback, {} interleaved runs, medians{busy}. The time is that of the receiving program, from its \
             start to its end. Before each run as much memory as is carried is written and given back. Everything is \
             encrypted with AES-128-GCM unless it says otherwise. Bytes were counted {alone}. Peaks below that of the \
             bench itself are not seen. Taken {} on {}, from and to {}.",
            row.workload.described(),
            self.common.runs,
            machine::today(),
            machine::described(),
            machine::file_system(directory),
        )
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let row = args.rows().into_iter().find(|row| row.name == args.what).context("no such row")?;
    // Built before the network of the machine may be left behind.
    let ours = Contender::ours(&args.common.shiplane)?;
    let network = enter_own_network();
    if let Err(reason) = &network {
        println!("no network of its own: {reason:#}");
    }
    let room_bytes = row.workload.room_bytes();
    let directory = args.dir.clone().unwrap_or_else(|| scratch::memory_or_disk(room_bytes));
    let scratch = Scratch::new("shiplane-bench-", Some(&directory))?;
    scratch.expect_room(room_bytes)?;
    let programs = Programs::prepare(ours, args.only.clone(), scratch.path(), LOOPBACK, LOOPBACK)?;
    let mut bench = Measurement { programs, scratch, lane: None, runs: args.common.runs };
    let measured = bench.compare(&row)?;
    let section = Section::of(&row, &measured);
    let head = args.head(&row, bench.scratch.path(), network.is_ok());
    let programs = bench.programs.described(&row, &measured);
    println!("\n{head}\n\n{}{programs}", section.text());
    let name = format!("{}{}.md", row.name, if args.busy { "-busy" } else { "" });
    report::write(args.common.docs.as_deref(), &name, &format!("{head}\n\n{programs}"), &section)?;
    report::failures(&row, &measured)
}

const NAMES: [&str; 5] = ["file", "small", "unchanged", "edited", "second"];

/// Those from the second to the third one compare what is there, all others copy everything again. curl, the last one,
/// carries one file, from its beginning to its end.
const OTHERS: [Program; 6] =
    [Program::SCP, Program::RSYNC_SSH, Program::RSYNC, Program::SENDME, Program::QCP, Program::CURL_HTTPS];
