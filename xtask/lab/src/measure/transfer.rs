//! Runs a client at one end of a link, or on loopback, including its start and end.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use xtask::driver::Verb;
use xtask::process::{Ended, Running};

use super::link::Link;

/// The ends of a link, by who is where: the data always travels in the same direction.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    /// None for loopback.
    pub(super) link: Option<&'a Link>,
    pub(super) verb: Verb,
}

pub(super) struct Finished {
    pub(super) ended: Ended,
    pub(super) end: End,
    pub(super) time: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Done,
    /// We killed it.
    Stopped,
    /// It failed by itself.
    Failed(String),
}

impl Ends<'_> {
    /// Runs `work` where the server belongs: the programs that it starts are there too.
    pub(super) fn at_server<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.within(self.verb == Verb::Get, work)
    }

    fn within<T: Send>(&self, is_sender: bool, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self.link {
            Some(link) if is_sender => link.sender().within(work),
            Some(link) => link.receiver().within(work),
            None => work(),
        }
    }

    /// Starts a client and waits for its end; kills it after `limit`. Meanwhile `look` is called again and again with the
    /// time that has passed.
    pub(super) fn run(
        &self,
        name: &str,
        command: &mut Command,
        limit: Duration,
        mut look: impl FnMut(Duration) -> Result<()>,
    ) -> Result<Finished> {
        // A group of its own: rsync receives with a child, scp over one.
        command.process_group(0);
        let start = || {
            let started = Instant::now();
            Ok((Running::heard(name, command)?, started))
        };
        let (running, started) = self.within(self.verb != Verb::Get, start)?;
        let mut is_stopped = false;
        while !running.ends_within(LOOK)? {
            look(started.elapsed())?;
            if started.elapsed() > limit {
                let group =
                    Pid::from_raw(running.pid().try_into()?).context("a client without a process id")?;
                kill_process_group(group, Signal::KILL).context("cannot kill a client")?;
                is_stopped = true;
                break;
            }
        }
        let ended = running.wait(KILL_LIMIT)?;
        let end = match ended.code {
            _ if is_stopped => End::Stopped,
            Some(0) => End::Done,
            code => {
                let why = ended.said.lines().rev().find(|line| !line.trim().is_empty());
                End::Failed(format!("{code:?}: {}", why.unwrap_or("without a word")))
            }
        };
        Ok(Finished { ended, end, time: started.elapsed() })
    }
}

/// The most that the events of a run say in this field. The last one of a program that was killed may be cut off.
pub(super) fn most_said(lines: &[String], field: &str) -> u64 {
    let said = |line: &String| serde_json::from_str::<serde_json::Value>(line).ok()?[field].as_u64();
    lines.iter().filter_map(said).max().unwrap_or(0)
}

/// How often a limit is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What is killed ends at once.
const KILL_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_is_said_counts_though_the_last_line_is_cut_off() {
        let lines = [r#"{"bytes_done":5}"#, r#"{"bytes_done":70,"x":1}"#, r#"{"bytes_done":90"#];
        assert_eq!(most_said(&lines.map(str::to_owned), "bytes_done"), 70);
        assert_eq!(most_said(&[], "bytes_done"), 0);
    }
}
