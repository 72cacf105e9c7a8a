//! A process whose file-changing system calls are counted over all its threads, and one of which does not happen:
//! the process is killed in its place, or it fails.
//!
//! `strace` injects as well, but it counts for each thread by itself; in a program with a pool of threads the
//! tenth write of a thread is another one in every run, so that no series of runs could claim to have met all.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use xtask::process::{Ended, Running};

use super::calls::{self, Call, Kind};

/// What is to happen to the traced process: a call that is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Of these calls, whatever thread makes them; else of all that change files.
    pub(super) kind: Option<Kind>,
    /// Which of them, from 0.
    pub(super) nth: usize,
    /// It fails with that; else the process is killed (SIGKILL) in its place.
    pub(super) errno: Option<Errno>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// All calls beneath the watched directory, in order.
    pub(super) calls: Vec<Call>,
    /// The one in whose place the fault came.
    pub(super) hit: Option<Call>,
}

/// Where the trace of a process is found once that has ended.
pub(super) type Traced = Arc<Mutex<Trace>>;

/// Starts `command`. Of its calls, those on files beneath `watched` count; without a fault they are merely noted.
pub(super) fn start(command: &Command, watched: &Path, fault: Option<Fault>) -> Result<(Running, Traced)> {
    let mut child = held_back(command).spawn().context("cannot start what is to be traced")?;
    let leader = Pid::from_raw(child.id().try_into().context("no pid")?);
    let go = child.stdin.take().context("no pipe")?;
    let (watched, within, met) = (watched.to_path_buf(), HashMap::new(), 0);
    let tracer = Tracer { leader, watched, fault, within, met, trace: Trace::default() };
    let trace = Traced::default();
    let traced = Arc::clone(&trace);
    // Only the thread that traces may command the tracee, and it waits for its own tracees alone.
    let running = Running::of("a traced program", child, move |_child, ending| {
        let outcome = tracer.run(go);
        if outcome.is_err() {
            let _gone = kill(leader, Signal::SIGKILL);
        }
        ending.tell(|| {
            let (exit, seen) = outcome.map_err(|failure| format!("{failure:#}"))?;
            *traced.lock() = seen;
            Ok(exit)
        });
    });
    Ok((running, trace))
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
    fault: Option<Fault>,
    /// Threads that are within a system call, and what it is to return if that is ours to say.
    within: HashMap<Pid, Option<Errno>>,
    /// Calls that the fault might have befallen.
    met: usize,
    trace: Trace,
}

impl Tracer {
    fn run(mut self, go: ChildStdin) -> Result<(Ended, Trace)> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.leader, options).context("cannot trace a child")?;
        ptrace::interrupt(self.leader).context("cannot stop a child")?;
        let mut go = Some(go);
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::EINTR) => continue,
                status => status.context("cannot wait for a traced child")?,
            };
            let signal = match status {
                WaitStatus::Exited(pid, code) if pid == self.leader => {
                    return Ok((Ended { code: Some(code), ..Ended::default() }, self.trace));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.leader => {
                    // A shell calls it that.
                    let code = (signal == Signal::SIGINT).then_some(130);
                    return Ok((Ended { code, ..Ended::default() }, self.trace));
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
            if let Some(errno) = failing.flatten() {
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
            self.trace.calls.push(call.clone());
            if let Some(fault) = self.fault_at(&call) {
                self.trace.hit = Some(call);
                failing = fault.errno;
                match fault.errno {
                    None => kill(self.leader, Signal::SIGKILL).context("cannot kill a child")?,
                    Some(_) => {
                        // No system call has this number, so that the kernel does nothing.
                        registers.orig_rax = u64::MAX;
                        ptrace::setregs(thread, registers).context("cannot keep a call from being made")?;
                    }
                }
            }
        }
        self.within.insert(thread, failing);
        Ok(())
    }

    fn fault_at(&mut self, call: &Call) -> Option<Fault> {
        let fault = self.fault?;
        let is_meant = match fault.kind {
            Some(kind) => call.kind == kind,
            None => call.kind.is_change(),
        };
        if !is_meant {
            return None;
        }
        self.met += 1;
        (self.met == fault.nth + 1).then_some(fault)
    }
}

/// What a stopped thread sees: its memory and its open files.
pub(super) struct Memory(Pid);

impl Memory {
    /// The text at `address`, which ends with a NUL.
    pub(super) fn text(&self, address: u64) -> Option<Vec<u8>> {
        let memory = File::open(format!("/proc/{}/mem", self.0)).ok()?;
        let mut text = vec![0; MAX_PATH_LEN];
        // It may stop early, at the end of what is mapped.
        let read = memory.read_at(&mut text, address).ok()?;
        text.truncate(text[..read].iter().position(|byte| *byte == 0)?);
        Some(text)
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
