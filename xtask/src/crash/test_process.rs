//! One of the two programs of a run, traced or not.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal as Signals;

use super::trace::{ExitCode, Fault, Trace, Traced};
use crate::interrupt;
use crate::process::{Lines, Running, Signal};

/// A program under way. Killed when this is dropped.
pub(crate) struct TestProcess {
    process: Process,
    stdout: Lines,
    stderr: Lines,
}

enum Process {
    Plain(Running),
    Traced(Traced),
}

/// How it ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    /// `None` if a signal ended it, other than an interrupt.
    pub(crate) code: ExitCode,
    /// Standard output.
    pub(crate) lines: Vec<String>,
    /// Standard error.
    pub(crate) said: String,
    /// Empty if it was left alone.
    pub(super) trace: Trace,
}

impl TestProcess {
    pub(crate) fn plain(name: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(name, command)?;
        let stdout = Lines::of(running.take_stdout().context("no standard output")?);
        let stderr = Lines::of(running.take_stderr().context("no standard error")?);
        Ok(Self { process: Process::Plain(running), stdout, stderr })
    }

    pub(super) fn traced(command: &Command, watched: &Path, fault: Fault) -> Result<Self> {
        let mut traced = Traced::start(command, watched, fault)?;
        let (stdout, stderr) = (Lines::of(traced.take_stdout()?), Lines::of(traced.take_stderr()?));
        Ok(Self { process: Process::Traced(traced), stdout, stderr })
    }

    /// `None` if it ended without one.
    pub(crate) fn first_line(&self, limit: Duration) -> Result<Option<String>> {
        self.stdout.next_within(limit)
    }

    /// What it has printed until now.
    pub(super) fn lines_until_now(&self) -> Vec<String> {
        self.stdout.until_now()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        match &mut self.process {
            Process::Plain(running) => Ok(running.poll()?.is_some()),
            Process::Traced(traced) => Ok(traced.has_ended()),
        }
    }

    pub(super) fn kill(&self) -> Result<()> {
        match &self.process {
            Process::Plain(running) => running.signal(Signal::Kill),
            Process::Traced(traced) => {
                traced.signal(Signals::SIGKILL);
                Ok(())
            }
        }
    }

    /// Waits for its end. One that takes longer than `limit` is killed, which is an error.
    pub(crate) fn wait(self, limit: Duration) -> Result<Ended> {
        let Self { process, stdout, stderr } = self;
        let waited = match process {
            Process::Plain(running) => running.wait(limit).map(|exit| (code(exit.status), Trace::default())),
            Process::Traced(traced) => traced.wait(limit),
        };
        let (lines, said) = (stdout.rest(), stderr.rest().join("\n"));
        let (code, trace) = waited.with_context(|| format!("it had said: {said}\n{}", lines.join("\n")))?;
        Ok(Ended { code, lines, said, trace })
    }

    /// As [`wait`](Self::wait), but it is killed as soon as `other` has ended.
    pub(super) fn wait_beside(mut self, other: &mut Self, limit: Duration) -> Result<Ended> {
        let started = Instant::now();
        while !self.has_ended()? {
            interrupt::check()?;
            if other.has_ended()? {
                self.kill()?;
                break;
            }
            if started.elapsed() > limit {
                bail!("neither side has ended within {} s", limit.as_secs());
            }
            std::thread::sleep(POLL);
        }
        self.wait(limit)
    }

    /// Asks it to end in order, and waits.
    pub(crate) fn stop(self, limit: Duration) -> Result<Ended> {
        match &self.process {
            Process::Plain(running) => running.signal(Signal::Interrupt)?,
            Process::Traced(traced) => traced.signal(Signals::SIGINT),
        }
        self.wait(limit)
    }
}

/// A program that is interrupted before it listens for that ends by the signal: a shell calls it 130 too.
fn code(status: ExitStatus) -> Option<i32> {
    let interrupted = status.signal() == Some(Signals::SIGINT as i32);
    status.code().or_else(|| interrupted.then_some(INTERRUPTED))
}

const INTERRUPTED: i32 = 130;

const POLL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_that_comes_too_early_counts_as_one_and_a_kill_does_not() {
        assert_eq!(code(ExitStatus::from_raw(Signals::SIGINT as i32)), Some(INTERRUPTED));
        assert_eq!(code(ExitStatus::from_raw(Signals::SIGKILL as i32)), None);
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), Some(3));
    }
}
