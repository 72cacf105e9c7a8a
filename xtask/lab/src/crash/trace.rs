//! A process whose file-changing system calls are counted over all its threads, and one of which does not happen:
//! the process is killed in its place, or it fails.
//!
//! `strace` injects as well, but it counts for each thread by itself; in a program with a pool of threads the
//! tenth write of a thread is another one in every run, so that no series of runs could claim to have met all.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use xtask::process::{self, Exit, Process, Running};

use super::calls::{self, Call, Kind};

/// What is to happen to the traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: its calls are merely noted.
    None,
    /// SIGKILL in place of its file-changing call number `at`, from 0, whatever thread makes it.
    Kill { at: usize },
    /// Its call number `nth` of that kind, from 0, is not made and fails with `errno`.
    Fail { kind: Kind, nth: usize, errno: Errno },
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// All calls beneath the watched directory, in order.
    pub(super) calls: Vec<Call>,
    /// The one in whose place the fault came.
    pub(super) hit: Option<Call>,
}

/// A traced process under way.
pub(super) struct Traced {
    pid: u32,
    tracing: Arc<Tracing>,
}

/// What the tracer has seen, once it has ended.
#[derive(Default)]
pub(super) struct Tracing {
    outcome: Mutex<Option<Outcome>>,
    ended: Condvar,
}

type Outcome = Result<(Exit, Trace), String>;

impl Traced {
    /// Starts `command`. Of its calls, those on files beneath `watched` count.
    pub(super) fn start(command: &Command, watched: &Path, fault: Fault) -> Result<(Running, Arc<Tracing>)> {
        let mut held = held_back(command);
        let (tell, told) = mpsc::channel();
        let (tracing, watched) = (Arc::<Tracing>::default(), watched.to_path_buf());
        let traces = Arc::clone(&tracing);
        // Only the thread that traces may command the tracee, and only it may wait for its own children.
        std::thread::spawn(move || {
            let started = held.spawn().context("cannot start what is to be traced");
            let traced = started.and_then(|mut child| {
                let leader = Pid::from_raw(child.id().try_into().context("no pid")?);
                let pipes = child.stdout.take().zip(child.stderr.take()).context("no pipes")?;
                tell.send((child.id(), pipes)).ok().context("nobody waits for it")?;
                let traced = Tracer::new(leader, watched, fault).run(&mut child);
                if traced.is_err() {
                    let _gone = kill(leader, Signal::SIGKILL);
                }
                traced
            });
            *traces.lock() = Some(traced.map_err(|failure| format!("{failure:#}")));
            traces.ended.notify_all();
        });
        let Ok((pid, (stdout, stderr))) = told.recv() else {
            let failure = tracing.wait(Duration::from_secs(1)).and_then(Result::err);
            return Err(anyhow!(failure.unwrap_or_else(|| "it ended at once".to_owned())));
        };
        let traced = Self { pid, tracing: Arc::clone(&tracing) };
        Ok((Running::of("a traced program", traced, stdout, stderr), tracing))
    }
}

impl Tracing {
    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        // Each change is one step.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, limit: Duration) -> Option<Outcome> {
        let waited = self.ended.wait_timeout_while(self.lock(), limit, |outcome| outcome.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What was seen of a process that has ended.
    pub(super) fn trace(&self) -> Trace {
        self.wait(Duration::ZERO).and_then(Result::ok).unwrap_or_default().1
    }
}

impl Process for Traced {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn signal(&self, signal: process::Signal) -> Result<()> {
        let signal = match signal {
            process::Signal::Interrupt => Signal::SIGINT,
            process::Signal::Terminate => Signal::SIGTERM,
            process::Signal::Kill => Signal::SIGKILL,
        };
        if self.tracing.lock().is_none() {
            // It fails only if it has just ended.
            let _gone = kill(Pid::from_raw(self.pid.try_into().context("no pid")?), signal);
        }
        Ok(())
    }

    fn exit_within(&self, limit: Duration) -> Result<Option<Exit>> {
        let outcome = self.tracing.wait(limit).transpose().map_err(|failure| anyhow!(failure))?;
        Ok(outcome.map(|(exit, _)| exit))
    }
}

/// The command, but as a shell that becomes it once it is told to: the tracer is there by then.
fn held_back(command: &Command) -> Command {
    let mut held = Command::new("/bin/sh");
    held.args(["-c", r#"read -r go && exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => held.env(name, value),
            None => held.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        held.current_dir(directory);
    }
    held.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    held
}

struct Tracer {
    leader: Pid,
    watched: PathBuf,
    fault: Fault,
    /// Threads that are within a system call, and what it is to return if that is ours to say.
    within: HashMap<Pid, Option<Errno>>,
    changes: usize,
    of_kind: usize,
    trace: Trace,
}

impl Tracer {
    fn new(leader: Pid, watched: PathBuf, fault: Fault) -> Self {
        let trace = Trace::default();
        Self { leader, watched, fault, within: HashMap::new(), changes: 0, of_kind: 0, trace }
    }

    fn run(mut self, child: &mut Child) -> Result<(Exit, Trace)> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.leader, options).context("cannot trace a child")?;
        ptrace::interrupt(self.leader).context("cannot stop a child")?;
        let mut go = child.stdin.take();
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::EINTR) => continue,
                status => status.context("cannot wait for a traced child")?,
            };
            let signal = match status {
                WaitStatus::Exited(pid, code) if pid == self.leader => {
                    return Ok((Exit { code: Some(code), ..Exit::default() }, self.trace));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.leader => {
                    // A shell calls it that.
                    let code = (signal == Signal::SIGINT).then_some(130);
                    return Ok((Exit { code, ..Exit::default() }, self.trace));
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.at_call(pid)?;
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                _ => None,
            };
            let Some(pid) = status.pid() else { continue };
            // A thread that was killed meanwhile is gone, and its end will be told.
            let _gone = ptrace::syscall(pid, signal);
            // It is within our hands from its first stop on.
            if let Some(mut go) = go.take() {
                std::io::Write::write_all(&mut go, b"go\n").context("cannot let a child go")?;
            }
        }
    }

    /// A thread enters or leaves a system call.
    fn at_call(&mut self, thread: Pid) -> Result<()> {
        let Ok(stop) = ptrace::syscall_info(thread) else { return Ok(()) };
        let failing = self.within.remove(&thread);
        // A thread may leave a call that it was not seen to enter.
        if stop.op != nix::libc::PTRACE_SYSCALL_INFO_ENTRY {
            let failing = failing.flatten();
            if let Some(errno) = failing {
                let Ok(mut registers) = ptrace::getregs(thread) else { return Ok(()) };
                registers.rax = (-(errno as i64)).cast_unsigned();
                ptrace::setregs(thread, registers).context("cannot let a call fail")?;
            }
            return Ok(());
        }
        let Ok(mut registers) = ptrace::getregs(thread) else { return Ok(()) };
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let call = calls::of(registers.orig_rax, arguments, &Memory(thread));
        let call = call.filter(|call| call.path.starts_with(&self.watched));
        let mut failing = None;
        if let Some(call) = call {
            let errno = self.fault_at(&call);
            self.trace.calls.push(call.clone());
            match errno {
                Some(Met::Kill) => {
                    self.trace.hit = Some(call);
                    kill(self.leader, Signal::SIGKILL).context("cannot kill a child")?;
                }
                Some(Met::Fail(errno)) => {
                    self.trace.hit = Some(call);
                    // No system call has this number, so that the kernel does nothing.
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(thread, registers).context("cannot keep a call from being made")?;
                    failing = Some(errno);
                }
                None => {}
            }
        }
        self.within.insert(thread, failing);
        Ok(())
    }

    fn fault_at(&mut self, call: &Call) -> Option<Met> {
        match self.fault {
            Fault::None => None,
            Fault::Kill { at } => {
                let is_it = call.kind.is_change() && self.changes == at;
                self.changes += usize::from(call.kind.is_change());
                is_it.then_some(Met::Kill)
            }
            Fault::Fail { kind, nth, errno } => {
                let is_it = call.kind == kind && self.of_kind == nth;
                self.of_kind += usize::from(call.kind == kind);
                is_it.then_some(Met::Fail(errno))
            }
        }
    }
}

enum Met {
    Kill,
    Fail(Errno),
}

/// What a stopped thread sees: its memory and its open files.
pub(super) struct Memory(Pid);

impl Memory {
    /// The text at `address`, which ends with a NUL.
    pub(super) fn text(&self, address: u64) -> Option<Vec<u8>> {
        let memory = File::open(format!("/proc/{}/mem", self.0)).ok()?;
        let mut text = Vec::new();
        let mut block = [0; 256];
        while text.len() < MAX_PATH_LEN {
            // A read stops at the end of what is mapped.
            let read =
                memory.read_at(&mut block, address + text.len() as u64).ok().filter(|read| *read > 0)?;
            if let Some(end) = block[..read].iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&block[..end]);
                return Some(text);
            }
            text.extend_from_slice(&block[..read]);
        }
        None
    }

    /// What the open file `fd` is; the working directory for [`calls::AT_CWD`].
    pub(super) fn file(&self, fd: i32) -> Option<PathBuf> {
        let link = match fd {
            calls::AT_CWD => format!("/proc/{}/cwd", self.0),
            fd => format!("/proc/{}/fd/{fd}", self.0),
        };
        std::fs::read_link(link).ok()
    }
}

/// `PATH_MAX` of Linux.
const MAX_PATH_LEN: usize = 4096;
