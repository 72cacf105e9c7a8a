//! Runs one program over one link, file to file, including process start and end.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use walkdir::WalkDir;
use xtask::driver::Verb;
use xtask::process::{Ended, Running};
use xtask::scratch::Scratch;
use xtask::{dataset, tree};

use super::link::Link;
use super::pipe::Counts;
use super::programs::{ITEM, Kit, Program, RunPaths, Serving};
use super::rows::{Row, Workload};
use crate::stats::ProcessStats;

/// What one run took.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    /// Of content, that arrived.
    pub(super) bytes: u64,
    pub(super) end: End,
    /// What was sent more than once, in per cent of all the content that was sent.
    pub(super) resent_percent: f64,
    /// Peak memory of the server and of the client, of our program.
    pub(super) peak_bytes: Option<(u64, u64)>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// We killed it.
    Stopped,
    /// It failed by itself.
    Failed(String),
}

/// What was kept of a transfer that was cut twice.
#[derive(Clone, Debug, Default)]
pub(super) struct CutSample {
    /// From the start to each cut.
    pub(super) carried_bytes: [u64; 2],
    pub(super) kept_bytes: [u64; 2],
    /// How a program ended by itself before a cut.
    pub(super) early_end: Option<String>,
}

impl Sample {
    pub(super) fn mbit_s(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.seconds
    }
}

/// Makes what a row carries, unless an earlier row has, and says where it is.
pub(super) fn source(row: &Row, scratch: &Scratch) -> Result<PathBuf> {
    let source = scratch.path().join(format!("source-{}", row.file_bytes()));
    if !source.exists() {
        fs::create_dir(&source).context("cannot make a directory")?;
        match row.workload {
            Workload::Tree => dataset::small_tree(&source.join(ITEM), TREE_FILES, TREE_DIRECTORIES)?,
            Workload::Bulk { .. } | Workload::Small | Workload::Cut => {
                dataset::large_file(&source.join(ITEM), row.file_bytes())?;
            }
        }
    }
    Ok(source)
}

/// Carries a row's data once.
pub(super) fn once(kit: &Kit, program: Program, row: &Row, place: &RunPaths, seed: u64) -> Result<Sample> {
    let link = Link::new(row.link, seed)?;
    let mut transfer = Transfer::serve(kit, program, row, &link, place)?;
    let before = link.counts();
    transfer.start()?;
    let end = transfer.wait(LIMIT)?;
    let seconds = transfer.seconds;
    let whole_bytes = tree::survey(&place.source)?.bytes;
    let bytes = match end {
        End::Done => whole_bytes,
        End::Stopped | End::Failed(_) => present_bytes(&place.destination)?.min(whole_bytes),
    };
    if end == End::Done {
        expect_copy(program, row, place)?;
    }
    let resent_percent = resent_percent(before, link.counts(), program.header_bytes(), bytes);
    Ok(Sample { seconds, bytes, end, resent_percent, peak_bytes: transfer.peak_bytes() })
}

/// Kills the program after 60 s and starts it again, kills that after another 60 s, and finds out what is kept.
pub(super) fn cut(kit: &Kit, program: Program, row: &Row, place: &RunPaths, seed: u64) -> Result<CutSample> {
    let link = Link::new(row.link, seed)?;
    let mut transfer = Transfer::serve(kit, program, row, &link, place)?;
    let mut sample = CutSample::default();
    for cut in 0..2 {
        transfer.start()?;
        let seconds = |transfer: &Transfer<'_>| format!("{:.0} s", transfer.seconds);
        match transfer.wait(CUT_AFTER)? {
            End::Stopped => {}
            End::Done => sample.early_end = Some(format!("done after {}", seconds(&transfer))),
            End::Failed(why) => {
                sample.early_end = Some(format!("failed after {}: {why}", seconds(&transfer)));
            }
        }
        sample.carried_bytes[cut] = link.counts().carried_bytes;
        match program.is_ours() {
            // Each run says what it found of the runs before it.
            true if cut == 0 => {}
            true => sample.kept_bytes[0] = transfer.resumed_bytes,
            false => sample.kept_bytes[cut] = present_bytes(&place.destination)?,
        }
    }
    if program.is_ours() {
        link.sender().remove_token_bucket()?;
        transfer.start()?;
        if let End::Failed(why) = transfer.wait(LIMIT)? {
            sample.early_end = Some(format!("cannot be resumed: {why}"));
        }
        sample.kept_bytes[1] = transfer.resumed_bytes;
    }
    Ok(sample)
}

/// A server, and the client that was started last.
struct Transfer<'a> {
    kit: &'a Kit,
    program: Program,
    row: &'a Row,
    link: &'a Link,
    place: &'a RunPaths,
    serving: Serving,
    client: Option<(Running, Instant)>,
    /// Of the last client.
    seconds: f64,
    /// What the last client has said that it found of runs before it.
    resumed_bytes: u64,
    client_peak_bytes: u64,
}

impl<'a> Transfer<'a> {
    fn serve(
        kit: &'a Kit,
        program: Program,
        row: &'a Row,
        link: &'a Link,
        place: &'a RunPaths,
    ) -> Result<Self> {
        if !program.is_ours() {
            link.set_congestion_control(program.congestion_control())?;
        }
        let server_end = if row.verb == Verb::Get { link.sender() } else { link.receiver() };
        let serving = server_end.within(|| kit.serve(program, row, place))?;
        Ok(Self {
            kit,
            program,
            row,
            link,
            place,
            serving,
            client: None,
            seconds: 0.0,
            resumed_bytes: 0,
            client_peak_bytes: 0,
        })
    }

    fn start(&mut self) -> Result<()> {
        let mut command = self.kit.client(self.program, self.row, &self.serving, self.place)?;
        // A group of its own: rsync receives with a child, scp over one.
        command.process_group(0);
        let (name, end) = (self.kit.name(self.program), self.client_end());
        self.client = Some(end.within(|| {
            let started = Instant::now();
            Ok((Running::heard(name, &mut command)?, started))
        })?);
        Ok(())
    }

    /// Waits for the client's end, and kills it after `limit`.
    fn wait(&mut self, limit: Duration) -> Result<End> {
        let (running, started) = self.client.take().context("no client was started")?;
        let mut is_stopped = false;
        while !running.ends_within(LOOK)? {
            // It may have ended just now.
            if let Ok(stats) = ProcessStats::of(running.pid()) {
                self.client_peak_bytes = self.client_peak_bytes.max(stats.peak_bytes);
            }
            if started.elapsed() > limit {
                kill_group(&running)?;
                is_stopped = true;
                break;
            }
        }
        let ended: Ended = running.wait(LIMIT)?;
        self.seconds = started.elapsed().as_secs_f64();
        self.resumed_bytes = resumed_bytes(&ended.lines);
        if is_stopped {
            return Ok(End::Stopped);
        }
        if ended.code == Some(0) {
            return Ok(End::Done);
        }
        let why = ended.said.lines().rev().find(|line| !line.trim().is_empty());
        Ok(End::Failed(format!("{:?}: {}", ended.code, why.unwrap_or("without a word"))))
    }

    fn client_end(&self) -> &'a super::link::End {
        if self.row.verb == Verb::Get { self.link.receiver() } else { self.link.sender() }
    }

    /// Of the server and of the client, where that is ours.
    fn peak_bytes(&self) -> Option<(u64, u64)> {
        let Serving::Shiplane(server) = &self.serving else { return None };
        Some((ProcessStats::of(server.running().pid()).ok()?.peak_bytes, self.client_peak_bytes))
    }
}

/// Kills a client with its children.
fn kill_group(client: &Running) -> Result<()> {
    let group = Pid::from_raw(client.pid().try_into()?).context("a client without a process id")?;
    kill_process_group(group, Signal::KILL).context("cannot kill a client")
}

/// Our program's work is compared byte by byte, that of others by its size.
fn expect_copy(program: Program, row: &Row, place: &RunPaths) -> Result<()> {
    let (original, copy) = (place.source.join(ITEM), place.destination.join(ITEM));
    match (program.is_ours(), row.workload) {
        (true, Workload::Tree) => tree::expect_equal(&original, &copy),
        (true, _) => tree::expect_same_content(&original, &copy),
        (false, _) => {
            let (whole, present) =
                (tree::survey(&place.source)?.bytes, tree::survey(&place.destination)?.bytes);
            anyhow::ensure!(whole == present, "{present} bytes arrived instead of {whole}");
            Ok(())
        }
    }
}

/// What is on the disk beneath `directory`; space that was only set aside does not count.
fn present_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in WalkDir::new(directory) {
        let entry = entry.context("cannot walk the destination")?;
        let metadata = entry.metadata().context("cannot look at a file")?;
        if metadata.is_file() {
            bytes += metadata.len().min(metadata.blocks() * 512);
        }
    }
    Ok(bytes)
}

/// The most that the events of a run say was there before it.
fn resumed_bytes(lines: &[String]) -> u64 {
    let resumed = |line: &String| serde_json::from_str::<Value>(line).ok()?["bytes_resumed"].as_u64();
    lines.iter().filter_map(resumed).max().unwrap_or(0)
}

/// From what the sender has put on the link between two moments, headers left out.
fn resent_percent(before: Counts, after: Counts, header_bytes: u64, content_bytes: u64) -> f64 {
    let packets = after.data_packets - before.data_packets;
    let sent_bytes = (after.data_bytes - before.data_bytes).saturating_sub(packets * header_bytes);
    100.0 * sent_bytes.saturating_sub(content_bytes) as f64 / sent_bytes.max(1) as f64
}

/// A program that takes longer is stopped, and rated by what it has.
const LIMIT: Duration = Duration::from_secs(60);

/// Two of these are the time of a slow link.
const CUT_AFTER: Duration = Duration::from_secs(60);

/// How often the memory of a client is looked at.
const LOOK: Duration = Duration::from_millis(20);

const TREE_FILES: usize = 10_000;
const TREE_DIRECTORIES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_twice_is_counted_without_headers() {
        let before = Counts { data_packets: 10, data_bytes: 10_000, carried_bytes: 0 };
        let after = Counts { data_packets: 60, data_bytes: 62_500, carried_bytes: 0 };
        let percent = resent_percent(before, after, 50, 40_000);
        assert!((percent - 20.0).abs() < 1e-9, "{percent}");
        assert!(resent_percent(before, before, 50, 0).abs() < 1e-9);
    }

    #[test]
    fn the_events_tell_what_was_resumed() {
        let lines = [
            r#"{"event":"started"}"#,
            r#"{"event":"resumed","bytes_resumed":7}"#,
            r#"{"event":"progress","bytes_resumed":9}"#,
            "half a li",
        ];
        assert_eq!(resumed_bytes(&lines.map(str::to_owned)), 9);
        assert_eq!(resumed_bytes(&[]), 0);
    }

    #[test]
    fn holes_of_a_file_are_not_present() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), [7; 1000]).unwrap();
        fs::File::create(directory.path().join("b")).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(present_bytes(directory.path()).unwrap(), 1000);
    }
}
