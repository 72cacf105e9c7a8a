//! Child processes that cannot outlive us: a guard kills and reaps on drop, every wait is bounded,
//! and a finished child says what it used.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use wait4::Wait4 as _;

use crate::interrupt;

/// A child that is killed and reaped when this is dropped.
///
/// ```text
/// let running = Running::start("shiplane serve", &mut command)?;
/// running.signal(Signal::Interrupt)?;
/// let exit = running.wait(Duration::from_secs(10))?;   // too late: killed, an error
/// ```
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    /// Set once the child has been reaped: its pid may then belong to somebody else.
    exit: Option<Exit>,
}

impl Running {
    /// Starts `command`; `name` is what failures call it.
    pub(crate) fn start(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let child = command.spawn().with_context(|| {
            let program = command.get_program().to_string_lossy().into_owned();
            format!("cannot start {name} ({program})")
        })?;
        Ok(Self { name, child, exit: None })
    }

    /// The process id, for `/proc`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's standard output, if it was piped and not yet taken.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The child's standard input, if it was piped and not yet taken; closed when dropped.
    #[cfg(target_os = "linux")]
    pub(crate) fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// The child's standard error, if it was piped and not yet taken.
    pub(crate) fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Sends a signal to this child and to no other process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        platform::signal(&self.child, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether the child has ended, and if so what it used.
    pub(crate) fn poll(&mut self) -> Result<Option<&Exit>> {
        if self.exit.is_none() && platform::has_exited(&self.child)? {
            let used = self.child.wait4().with_context(|| format!("cannot wait for {}", self.name))?;
            self.exit = Some(Exit {
                status: used.status,
                used: Usage {
                    cpu: used.rusage.utime + used.rusage.stime,
                    peak_rss_bytes: used.rusage.maxrss,
                },
            });
        }
        Ok(self.exit.as_ref())
    }

    /// Waits for the child to end, however it does; an error if it has not within `limit`.
    #[cfg(target_os = "linux")]
    pub(crate) fn expect_end(&mut self, limit: Duration) -> Result<()> {
        if !self.ends_within(limit)? {
            bail!("{} did not end within {} s", self.name, limit.as_secs());
        }
        Ok(())
    }

    /// Waits for the child to end, however it does; false if it has not within `limit`.
    #[cfg(target_os = "linux")]
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Result<bool> {
        let (started, mut watch) = (Instant::now(), SuspendDetector::of(&self.child));
        while self.poll()?.is_none() {
            interrupt::check()?;
            if started.elapsed() > limit {
                return Ok(false);
            }
            watch.wait(limit.saturating_sub(started.elapsed()));
        }
        Ok(true)
    }

    /// Waits for the child to end by itself. After `limit`, or when the user interrupts, it is
    /// killed and this is an error.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<Exit> {
        let (started, mut watch) = (Instant::now(), SuspendDetector::of(&self.child));
        loop {
            if let Some(exit) = self.poll()? {
                return Ok(*exit);
            }
            interrupt::check()?;
            if started.elapsed() > limit {
                bail!("{} did not end within {} s; killed", self.name, limit.as_secs());
            }
            watch.wait(limit.saturating_sub(started.elapsed()));
        }
    }

    /// Kills the child (SIGKILL) and reaps it.
    pub(crate) fn kill(mut self) -> Result<Exit> {
        // Ended in between: then there is nothing to kill, and the exit below says so.
        if self.poll()?.is_none() {
            self.signal(Signal::Kill)?;
        }
        self.wait(KILL_LIMIT)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // Both fail only if the child is already gone, which is what we want.
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) used: Usage,
}

impl Exit {
    /// An error that names the child unless it ended with code 0.
    pub(crate) fn expect_success(self, name: &str) -> Result<Self> {
        if !self.status.success() {
            bail!("{name} ended with {}", self.status);
        }
        Ok(self)
    }
}

/// What a child and the children it waited for have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The largest resident set of any one process among them.
    pub(crate) peak_rss_bytes: u64,
}

/// The signals we send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Ctrl-C: finish what is in hand and end.
    Interrupt,
    /// End now, in order.
    Terminate,
    /// No chance to tidy up.
    Kill,
}

/// Lines of a pipe, read on a thread of their own so that a wait for one can be bounded and the
/// writer never blocks.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: mpsc::Receiver<String>,
    reader: JoinHandle<()>,
}

impl Lines {
    /// Starts reading.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Nobody listens any more: go on reading, or the writer would block on a full pipe.
                let _unheard = sender.send(line);
            }
        });
        Self { lines, reader }
    }

    /// The next line, or `None` when the writer has closed or `limit` has passed.
    pub(crate) fn next_within(&self, limit: Duration) -> Result<Option<String>> {
        let started = Instant::now();
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(LISTEN) {
                Ok(line) => return Ok(Some(line)),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
                Err(mpsc::RecvTimeoutError::Timeout) if started.elapsed() > limit => {
                    return Ok(None);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What has come and was not asked for yet.
    pub(crate) fn until_now(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// All that is left, once the writer has ended.
    pub(crate) fn rest(self) -> Vec<String> {
        // It panics only if reading did, and then what it sent before still counts.
        let _ended = self.reader.join();
        self.lines.into_iter().collect()
    }
}

/// Runs `command` to its end, however long that takes, and fails unless it succeeds.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<()> {
    Running::start(name, command)?.wait(Duration::MAX)?.expect_success(name)?;
    Ok(())
}

/// Where `program` is, if it is installed: `PATH` first, then where distributions put daemons.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    find_in(std::env::split_paths(OsStr::new(&path)).chain(daemons), program)
}

/// A dot in the name, as in `mkfs.ext4`, begins no extension.
fn find_in(directories: impl IntoIterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    directories.into_iter().map(|directory| directory.join(&file)).find(|candidate| candidate.is_file())
}

/// Waits for a child's end without reaping it. A parent that looks every millisecond takes time from the very
/// programs that it measures, so on Linux the kernel tells of the end.
#[derive(Debug)]
struct SuspendDetector {
    end: Option<end::End>,
}

impl SuspendDetector {
    fn of(child: &Child) -> Self {
        Self { end: end::End::of(child) }
    }

    /// Returns when it is time to look: at the end if that can be told, or before it. True at the end that was told.
    fn wait(&mut self, at_most: Duration) -> bool {
        match self.end.as_ref().map(|end| end.within(at_most.min(LISTEN))) {
            Some(Ok(false)) => false,
            Some(Ok(true)) => {
                // It would be told again and again to whoever cannot reap the child yet, since somebody else traces
                // it: from here on that one looks.
                self.end = None;
                true
            }
            // A signal, such as Ctrl-C, or nobody to ask.
            Some(Err(_)) | None => {
                std::thread::sleep(POLL);
                false
            }
        }
    }
}

/// How often a parent looks that is not told: 1 ms is far below what is timed here.
const POLL: Duration = Duration::from_millis(1);

/// How long a wait for a line or an end goes unaware of Ctrl-C.
const LISTEN: Duration = Duration::from_millis(50);

/// A killed process ends as soon as the kernel gets to it; longer means it hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

#[cfg(target_os = "linux")]
mod end {
    //! The end of a child, told by the kernel.

    use std::io;
    use std::os::fd::OwnedFd;
    use std::process::Child;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    /// A descriptor that can be read from once the child has ended.
    #[derive(Debug)]
    pub(super) struct End {
        descriptor: OwnedFd,
    }

    impl End {
        /// None where the kernel has no such descriptor, or none left.
        pub(super) fn of(child: &Child) -> Option<Self> {
            let descriptor = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok()?;
            Some(Self { descriptor })
        }

        /// Whether the child ends within that time, or had before.
        pub(super) fn within(&self, at_most: Duration) -> io::Result<bool> {
            let limit = Timespec::try_from(at_most).map_err(io::Error::other)?;
            let mut wanted = [PollFd::new(&self.descriptor, PollFlags::IN)];
            Ok(poll(&mut wanted, Some(&limit))? > 0)
        }
    }
}

#[cfg(unix)]
mod platform {
    //! Signals, and a look at a child's end that leaves the reaping to `wait4`.

    use std::io;
    use std::process::Child;

    use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};

    use super::Signal;

    pub(super) fn signal(child: &Child, signal: Signal) -> io::Result<()> {
        let signal = match signal {
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    pub(super) fn has_exited(child: &Child) -> io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(Pid::from_child(child)), look)?.is_some())
    }
}

#[cfg(not(target_os = "linux"))]
mod end {
    //! Nobody tells.

    use std::io;
    use std::process::Child;
    use std::time::Duration;

    #[derive(Debug)]
    pub(super) enum End {}

    impl End {
        pub(super) fn of(_child: &Child) -> Option<Self> {
            None
        }

        pub(super) fn within(&self, _at_most: Duration) -> io::Result<bool> {
            match *self {}
        }
    }
}

#[cfg(not(unix))]
mod platform {
    //! Windows has no SIGINT for one process, so the chores that need it say so.

    use std::io;
    use std::process::Child;

    use super::Signal;

    pub(super) fn signal(_child: &Child, _signal: Signal) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this chore needs Unix signals"))
    }

    pub(super) fn has_exited(_child: &Child) -> io::Result<bool> {
        // `wait4` then waits without a bound.
        Ok(true)
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_program_with_a_dot_in_its_name_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(format!("mkfs.ext4{}", std::env::consts::EXE_SUFFIX));
        std::fs::write(&program, "").unwrap();
        let directories = || [directory.path().to_owned()];
        assert_eq!(find_in(directories(), "mkfs.ext4"), Some(program));
        assert_eq!(find_in(directories(), "mkfs.ext3"), None);
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn a_child_reports_its_end_and_what_it_used() {
        let exit = Running::start("sh", &mut shell("exit 3")).unwrap().wait(LIMIT).unwrap();
        assert_eq!(exit.status.code(), Some(3));
        assert!(exit.used.peak_rss_bytes > 100_000, "a shell needs more: {:?}", exit.used);
        let refused = exit.expect_success("the shell").unwrap_err();
        assert!(refused.to_string().contains("the shell"), "{refused}");
    }

    #[test]
    fn a_child_that_does_not_end_is_killed_and_named() {
        let mut idler = shell("read line");
        // Of its own: the tests' may be at its end.
        let running = Running::start("idler", idler.stdin(Stdio::piped())).unwrap();
        let pid = running.pid();
        let late = running.wait(Duration::ZERO).unwrap_err();
        assert!(late.to_string().contains("idler did not end"), "{late}");
        assert!(!is_alive(pid));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_end_is_told_once_and_not_before_it_has_come() {
        let mut waiting = shell("read line");
        let mut running = Running::start("idler", waiting.stdin(Stdio::piped())).unwrap();
        let mut watch = SuspendDetector::of(&running.child);
        assert!(!watch.wait(Duration::ZERO));
        drop(running.take_stdin());
        let started = Instant::now();
        while !watch.wait(LIMIT) {
            assert!(started.elapsed() < LIMIT, "nobody tells of the end");
        }
        // From here on whoever waits has to look.
        assert!(!watch.wait(LIMIT));
        assert!(running.poll().unwrap().is_some());
    }

    #[test]
    fn dropping_the_guard_kills_the_child() {
        let mut waiting = shell("read line");
        let running = Running::start("idler", waiting.stdin(Stdio::piped())).unwrap();
        let pid = running.pid();
        assert!(is_alive(pid));
        drop(running);
        assert!(!is_alive(pid));
    }

    #[test]
    fn lines_are_heard_one_by_one_and_to_the_end() {
        let mut command = shell("echo one; echo two; echo three");
        let mut running = Running::start("sh", command.stdout(Stdio::piped())).unwrap();
        let lines = Lines::of(running.take_stdout().unwrap());
        assert_eq!(lines.next_within(LIMIT).unwrap().as_deref(), Some("one"));
        running.wait(LIMIT).unwrap();
        assert_eq!(lines.rest(), ["two", "three"]);
    }

    #[test]
    fn a_signal_reaches_the_child() {
        // Not SIGINT: a shell cannot trap it where it was ignored on entry, as beneath `nohup` and in some CI.
        let mut command = shell("trap 'exit 5' TERM; echo ready; while :; do read line; done");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("sh", &mut command).unwrap();
        let lines = Lines::of(running.take_stdout().unwrap());
        assert_eq!(lines.next_within(LIMIT).unwrap().as_deref(), Some("ready"));
        running.signal(Signal::Terminate).unwrap();
        assert_eq!(running.wait(LIMIT).unwrap().status.code(), Some(5));
    }

    fn is_alive(pid: u32) -> bool {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    }

    const LIMIT: Duration = Duration::from_secs(20);
}
