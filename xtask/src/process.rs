//! Child processes that cannot outlive us: they are killed and reaped on drop, every wait is bounded, and a child that
//! has ended says what it printed and what it used.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::{Condvar, Mutex};
use wait4::Wait4 as _;

use crate::interrupt;

/// A child that is killed and reaped when this is dropped.
///
/// ```no_run
/// # use std::{process::Command, time::Duration};
/// # use xtask::process::{Running, Signal};
/// # fn main() -> anyhow::Result<()> {
/// let running = Running::heard("the server", &mut Command::new("server"))?;
/// let ready = running.next_line(Duration::from_secs(10))?;
/// running.signal(Signal::Interrupt)?;
/// // Too late: killed, and an error.
/// let ended = running.wait(Duration::from_secs(10))?.expect_success("the server")?;
/// # Ok(())
/// # }
/// ```
pub struct Running {
    name: String,
    pid: u32,
    ending: Arc<Ending>,
    stdin: Option<ChildStdin>,
    stdout: Option<Receiver<String>>,
    stderr: Option<Receiver<String>>,
}

/// Whether and how a process has ended, set by the thread that waits for it. Its pid may then belong to another process.
#[derive(Default)]
pub struct Ending {
    exit: Mutex<Option<Result<Ended, String>>>,
    told: Condvar,
}

/// What a process and the children that it waited for have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// The largest resident set of any one process among them.
    pub peak_rss_bytes: u64,
}

/// A process that has ended, with what it printed to pipes.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// `None` if a signal ended it, other than an interrupt, which a shell calls 130.
    pub code: Option<i32>,
    /// Time and memory.
    pub used: Usage,
    /// Standard output.
    pub lines: Vec<String>,
    /// Standard error.
    pub said: String,
}

/// The signals we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C: finish what is in hand and end.
    Interrupt,
    /// End now, in order.
    Terminate,
    /// No chance to tidy up.
    Kill,
}

impl Running {
    /// Starts `command`; `name` is what failures call it. Piped outputs are read to their ends on threads of their own, so
    /// that the child never blocks.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let cannot = |program: &OsStr| format!("cannot start {name} ({})", program.to_string_lossy());
        let child = command.spawn().with_context(|| cannot(command.get_program()))?;
        // The kernel tells a thread of its end: a parent that looks again and again would take time from the programs that
        // it measures.
        Ok(Self::of(name, child, |mut child, ending| {
            platform::await_end(&child);
            ending.tell(|| {
                let used = child.wait4().map_err(|error| error.to_string())?;
                let (cpu, peak_rss_bytes) = (used.rusage.utime + used.rusage.stime, used.rusage.maxrss);
                let (code, used) = (platform::code(used.status), Usage { cpu, peak_rss_bytes });
                Ok(Ended { code, used, ..Ended::default() })
            });
        }))
    }

    /// As [`start`](Self::start), with nothing on standard input and pipes for the outputs.
    pub fn heard(name: &str, command: &mut Command) -> Result<Self> {
        Self::start(name, command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// A process that `wait` waits for and reaps, on a thread of its own.
    pub fn of(name: &str, mut child: Child, wait: impl FnOnce(Child, &Ending) + Send + 'static) -> Self {
        let (name, pid, stdin) = (name.to_owned(), child.id(), child.stdin.take());
        let (stdout, stderr) = (child.stdout.take().map(lines_of), child.stderr.take().map(lines_of));
        let ending = Arc::<Ending>::default();
        let told = Arc::clone(&ending);
        std::thread::spawn(move || wait(child, &told));
        Self { name, pid, ending, stdin, stdout, stderr }
    }

    /// The process id, for `/proc`.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to this child and to no other process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Locked, so that it is not reaped meanwhile.
        match *self.ending.exit.lock() {
            None => {
                platform::signal(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
            }
            Some(_) => Ok(()),
        }
    }

    /// Ends its standard input, if that was piped.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line of standard output; `None` when it has ended or `limit` has passed.
    pub fn next_line(&self, limit: Duration) -> Result<Option<String>> {
        next_of(self.stdout.as_ref(), limit)
    }

    /// The next line of standard error, likewise.
    pub fn next_said(&self, limit: Duration) -> Result<Option<String>> {
        next_of(self.stderr.as_ref(), limit)
    }

    /// The lines of standard output that have come and were not asked for yet.
    pub fn lines_until_now(&self) -> Vec<String> {
        self.stdout.iter().flat_map(Receiver::try_iter).collect()
    }

    /// The same of standard error.
    pub fn said_until_now(&self) -> Vec<String> {
        self.stderr.iter().flat_map(Receiver::try_iter).collect()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> Result<bool> {
        Ok(self.ending.within(Duration::ZERO)?.is_some())
    }

    /// Waits for its end, however it comes; false if it has not within `limit`.
    pub fn ends_within(&self, limit: Duration) -> Result<bool> {
        Ok(listening(limit, |wait| self.ending.within(wait))?.is_some())
    }

    /// Waits for its end, however it comes.
    pub fn wait(mut self, limit: Duration) -> Result<Ended> {
        let exit = listening(limit, |wait| self.ending.within(wait))?;
        if exit.is_none() {
            self.signal(Signal::Kill)?;
        }
        let lines: Vec<_> = self.stdout.take().into_iter().flatten().collect();
        let said = self.stderr.take().into_iter().flatten().collect::<Vec<_>>().join("\n");
        let Some(ended) = exit else {
            bail!("{} did not end within {} s; killed; {}", self.name, limit.as_secs(), told(&said, &lines));
        };
        Ok(Ended { lines, said, ..ended })
    }

    /// Kills it (SIGKILL) and reaps it.
    pub fn kill(self) -> Result<Ended> {
        self.signal(Signal::Kill)?;
        self.wait(KILL_LIMIT)
    }

    /// Ctrl-C, and waits for its end.
    pub fn stop(self, limit: Duration) -> Result<Ended> {
        self.signal(Signal::Interrupt)?;
        self.wait(limit)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the child is already gone, which is what we want.
        let _gone = self.signal(Signal::Kill);
        let _reaped = self.ending.within(KILL_LIMIT);
    }
}

impl Ended {
    /// An error that names the process unless it ended with code 0.
    pub fn expect_success(self, name: &str) -> Result<Self> {
        self.expect_code(name, &[0])
    }

    /// An error that names the process unless it ended with one of these.
    pub fn expect_code(self, name: &str, codes: &[i32]) -> Result<Self> {
        match self.code {
            Some(code) if codes.contains(&code) => Ok(self),
            Some(code) => bail!("{name} ended with code {code}; {}", told(&self.said, &self.lines)),
            None => bail!("a signal ended {name}; {}", told(&self.said, &self.lines)),
        }
    }
}

/// The end of what a program printed.
fn told(said: &str, lines: &[String]) -> String {
    let said: Vec<&str> = said.lines().chain(lines.last().map(String::as_str)).collect();
    match &said[said.len().saturating_sub(TOLD_LINES)..] {
        [] => "it printed nothing".to_owned(),
        said => format!("it said: {}", said.join("\n  ")),
    }
}

/// Runs `command` to its end, however long that takes.
pub fn run(name: &str, command: &mut Command) -> Result<Ended> {
    Running::start(name, command)?.wait(Duration::MAX)?.expect_success(name)
}

/// What `command` prints to standard output; the rest goes to ours.
pub fn output(name: &str, command: &mut Command) -> Result<String> {
    Ok(run(name, command.stdin(Stdio::null()).stdout(Stdio::piped()))?.lines.join("\n"))
}

/// Where `program` is, if it is installed: `PATH` first, then where distributions put daemons.
pub fn find_program(program: &str) -> Option<PathBuf> {
    // A dot in the name, as in `mkfs.ext4`, begins no extension.
    let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let directories = std::env::split_paths(OsStr::new(&path)).chain(daemons);
    directories.map(|directory| directory.join(&file)).find(|candidate| candidate.is_file())
}

impl Ending {
    /// How it ended, if that is known. No signal is sent to it meanwhile.
    pub fn tell(&self, reap: impl FnOnce() -> Result<Ended, String>) {
        let mut exit = self.exit.lock();
        *exit = Some(reap());
        self.told.notify_all();
    }

    /// How it has ended, if it does within that time.
    pub fn within(&self, limit: Duration) -> Result<Option<Ended>> {
        let mut exit = self.exit.lock();
        // Longer than that is for ever.
        self.told.wait_while_for(&mut exit, |exit| exit.is_none(), limit.min(LONGEST));
        exit.clone().transpose().map_err(|failure| anyhow::anyhow!("cannot wait for it: {failure}"))
    }
}

/// The lines of a pipe, read on a thread; they end when it does.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            // The lines are not needed any more: go on reading, or the writer would block on a full pipe.
            let _unheard = sender.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    lines
}

fn next_of(lines: Option<&Receiver<String>>, limit: Duration) -> Result<Option<String>> {
    let Some(lines) = lines else { return Ok(None) };
    let next = listening(limit, |wait| {
        Ok(match lines.recv_timeout(wait) {
            Ok(line) => Some(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Some(None),
            Err(RecvTimeoutError::Timeout) => None,
        })
    });
    Ok(next?.flatten())
}

/// Waits for an answer at most so long, a little at a time, so that Ctrl-C is heard.
fn listening<T>(limit: Duration, mut wait: impl FnMut(Duration) -> Result<Option<T>>) -> Result<Option<T>> {
    let started = Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if let Some(answer) = wait(left.min(LISTEN))? {
            return Ok(Some(answer));
        }
        interrupt::check()?;
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// How long a wait goes unaware of Ctrl-C.
const LISTEN: Duration = Duration::from_millis(50);

/// What a clock can add to now.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// A killed process ends as soon as the kernel gets to it; longer means it hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Enough to see the cause.
const TOLD_LINES: usize = 20;

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, ExitStatus};

    use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};

    use super::Signal;

    pub(super) fn signal(pid: u32, signal: Signal) -> io::Result<()> {
        let signal = match signal {
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?, signal)?)
    }

    /// Leaves the reaping to `wait4`.
    pub(super) fn await_end(child: &Child) {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(Pid::from_child(child)), look)
            .is_err_and(|error| error == rustix::io::Errno::INTR)
        {}
    }

    pub(super) fn code(status: ExitStatus) -> Option<i32> {
        let is_interrupted = status.signal() == Some(rustix::process::Signal::INT.as_raw());
        status.code().or_else(|| is_interrupted.then_some(130))
    }
}

#[cfg(not(unix))]
mod platform {
    //! Windows has no signals for one process: all of them end it.

    use std::io;
    use std::process::{Child, Command, ExitStatus};

    use super::Signal;

    pub(super) fn signal(pid: u32, _signal: Signal) -> io::Result<()> {
        Command::new("taskkill").args(["/F", "/T", "/PID", &pid.to_string()]).output().map(drop)
    }

    pub(super) fn await_end(_child: &Child) {}

    pub(super) fn code(status: ExitStatus) -> Option<i32> {
        status.code()
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start("the shell", &mut command).unwrap()
    }

    #[test]
    fn a_child_reports_its_end_what_it_used_and_what_it_said() {
        let ended = shell("echo one; echo two; echo oh >&2; exit 3").wait(LIMIT).unwrap();
        assert_eq!((ended.code, ended.said.as_str()), (Some(3), "oh"));
        assert_eq!(ended.lines, ["one", "two"]);
        assert!(ended.used.peak_rss_bytes > 100_000, "a shell needs more: {:?}", ended.used);
        let refused = ended.expect_success("the shell").unwrap_err().to_string();
        assert!(refused.contains("the shell ended with code 3") && refused.contains("oh"), "{refused}");
    }

    #[test]
    fn a_child_that_does_not_end_or_is_dropped_is_killed() {
        let (idler, dropped) = (shell("read line"), shell("read line"));
        let pids = [idler.pid(), dropped.pid()];
        assert!(!idler.has_ended().unwrap());
        drop(dropped);
        let late = idler.wait(Duration::ZERO).unwrap_err();
        assert!(late.to_string().contains("did not end"), "{late}");
        assert!(!pids.into_iter().any(is_alive));
    }

    #[test]
    fn a_signal_reaches_the_child_and_an_interrupt_counts_as_130() {
        // Not SIGINT: a shell cannot trap it where it was ignored on entry, as beneath `nohup`.
        let running = shell("trap 'exit 5' TERM; echo ready; while :; do read line; done");
        assert_eq!(running.next_line(LIMIT).unwrap().as_deref(), Some("ready"));
        running.signal(Signal::Terminate).unwrap();
        assert_eq!(running.wait(LIMIT).unwrap().code, Some(5));
        assert_eq!(platform::code(ExitStatus::from_raw(2)), Some(130));
        assert_eq!(platform::code(ExitStatus::from_raw(9)), None);
    }

    fn is_alive(pid: u32) -> bool {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    }

    const LIMIT: Duration = Duration::from_secs(20);
}
