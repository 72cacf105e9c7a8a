//! A harness: the built program with a home directory of its own, and a server that is stopped
//! when the story is over.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use wait_timeout::ChildExt as _;

/// A machine with nothing on it yet: a home, and a place for files.
pub(crate) struct Machine {
    home: TempDir,
    files: TempDir,
    /// A limit of each program, as the shell's `ulimit` takes it.
    limit: Option<String>,
}

/// What one run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `shiplane serve`, listening on loopback.
pub(crate) struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) first_line: String,
}

/// A `shiplane` that runs while the story goes on. Killed if it is not waited for.
pub(crate) struct Running(Child);

impl Machine {
    pub(crate) fn new() -> Self {
        let new = || TempDir::new().expect("a temporary directory");
        Self { home: new(), files: new(), limit: None }
    }

    /// One whose programs may each have no more than so much in writable memory (RLIMIT_DATA), threads' stacks included.
    #[cfg(target_os = "linux")]
    pub(crate) fn within(data_kib: u64) -> Self {
        Self { limit: Some(format!("-d {data_kib}")), ..Self::new() }
    }

    /// One whose programs may each have at most this number of files open.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_descriptors(count: u64) -> Self {
        Self { limit: Some(format!("-n {count}")), ..Self::new() }
    }

    /// The program, with this machine's home and nothing of the tester's environment; relative
    /// paths are in the place for files.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_shiplane");
        let mut command = match &self.limit {
            None => Command::new(program),
            Some(limit) => {
                // The shell becomes the program.
                let mut command = Command::new("sh");
                command.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\""), program]);
                command
            }
        };
        command.args(args).env("SHIPLANE_HOME", self.home.path()).current_dir(self.files.path());
        command
            .env_remove("SHIPLANE_TICKET")
            .env_remove("SHIPLANE_CODE")
            .env_remove("SHIPLANE_SSH")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Runs with `input` on standard input, and gives the exit code.
    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Option<i32> {
        let mut runnable = runnable(&mut self.command(args));
        runnable.write_stdin(input).output().expect("it ends").status.code()
    }

    /// Something in this machine's home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Something in the place for files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Makes a directory there, and those above it.
    pub(crate) fn dir(&self, name: &str) {
        fs::create_dir_all(self.file(name)).expect("a directory");
    }

    /// Writes a file there, and the directories above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    /// The same with a time that does not depend on when it is written.
    pub(crate) fn write_old(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.write(name, content);
        let file = fs::File::options().write(true).open(path).expect("the file");
        file.set_modified(UNIX_EPOCH).expect("a time");
    }

    /// This machine's peer id.
    pub(crate) fn id(&self) -> String {
        self.run(&["id"]).done().out.trim().to_owned()
    }

    /// Serves the directory `root` of the place for files on any port of loopback.
    pub(crate) fn serve(&self, root: &str) -> Server {
        self.serve_with(root, &["--listen", "127.0.0.1:0"])
    }

    pub(crate) fn serve_with(&self, root: &str, args: &[&str]) -> Server {
        self.dir(root);
        self.serve_file(Path::new(root), args)
    }

    pub(crate) fn serve_file(&self, path: &Path, args: &[&str]) -> Server {
        let root = path.to_str().expect("a plain path");
        Server::start(&mut self.command(&[&["serve", root], args].concat()))
    }
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first_line = String::new();
        out.read_line(&mut first_line).expect("a line");
        Self { child, out, first_line }
    }

    /// The ticket for everything.
    pub(crate) fn ticket(&self) -> &str {
        let ticket = self.first_line.trim_end();
        assert!(ticket.starts_with("shiplane://sl1"), "{ticket:?}");
        ticket
    }

    /// The ticket for one path of it, as a person would edit it.
    pub(crate) fn ticket_for(&self, path: &str) -> String {
        self.ticket().replace("/#", &format!("/{path}#"))
    }

    /// HOST:PORT.
    pub(crate) fn address(&self) -> String {
        let (_, rest) = self.ticket().split_once('@').expect("an address");
        rest.split_once('/').expect("a path").0.to_owned()
    }

    /// Ctrl-C, and what came of it. Standard output must hold the first line and nothing else, but for
    /// events if those were asked for.
    pub(crate) fn stop(mut self) -> Run {
        self.signal();
        let mut out = String::new();
        self.out.read_to_string(&mut out).expect("text");
        assert!(out.is_empty() || self.first_line.starts_with('{'), "more than the first line: {out}");
        let mut err = String::new();
        self.stderr().read_to_string(&mut err).expect("text");
        Run { code: wait(&mut self.child).code(), out, err }
    }

    pub(crate) fn signal(&self) {
        interrupt(&self.child);
    }

    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        self::signal(self.child.id(), signal);
    }

    /// The first event, of a server with `--json`.
    #[cfg(feature = "status")]
    pub(crate) fn listening(&self) -> Value {
        serde_json::from_str(&self.first_line).expect("an event")
    }

    /// For reading what it says while it runs; once.
    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("taken once")
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("the program starts"))
    }

    /// Reads the first byte of its output, so that it is known to be at work, and no more.
    pub(crate) fn first_byte(&mut self) {
        let out = self.0.stdout.as_mut().expect("a pipe");
        out.read_exact(&mut [0]).expect("one byte");
    }

    /// Reads its events up to one that is wanted.
    pub(crate) fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut out = BufReader::with_capacity(1, self.0.stdout.as_mut().expect("a pipe"));
        loop {
            let mut line = String::new();
            out.read_line(&mut line).expect("text");
            let event = serde_json::from_str(&line).expect("an event before the end");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Reads one line of its output.
    pub(crate) fn out_line(&mut self) -> String {
        let mut out = BufReader::with_capacity(1, self.0.stdout.as_mut().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    /// Reads what it says up to a line that has these words.
    pub(crate) fn err_line(&mut self, words: &str) {
        let mut err = BufReader::with_capacity(1, self.0.stderr.as_mut().expect("a pipe"));
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(err.read_line(&mut line).expect("text") > 0, "it says {words:?} before its end");
        }
    }

    /// Waits for the end, and gives the rest of its output.
    pub(crate) fn rest(mut self) -> Run {
        let mut out = String::new();
        self.0.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
        Run { out, ..self.end() }
    }

    /// The most memory that it has had at a time.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        self::signal(self.0.id(), signal);
    }

    /// Closes the pipe that it writes to.
    pub(crate) fn stop_reading(&mut self) {
        self.0.stdout = None;
    }

    pub(crate) fn interrupt(&self) {
        interrupt(&self.0);
    }

    /// Ctrl-C at a terminal, whose processes all get it: those of the group that it was started in.
    #[cfg(target_os = "linux")]
    pub(crate) fn interrupt_group(&self) {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("an id");
        let _ = rustix::process::kill_process_group(id, rustix::process::Signal::INT);
    }

    /// Waits for the end without reading its output, so that a full pipe stays full.
    pub(crate) fn end(mut self) -> Run {
        let code = wait(&mut self.0).code();
        let mut err = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
        Run { code, out: String::new(), err }
    }
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = runnable(command).output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// It ended well.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended with this code, a cause and a hint, and printed nothing to standard output.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, cause: &str) -> Self {
        assert_eq!(self.out, "");
        self.told(code, cause)
    }

    /// It ended with this code, a cause and a hint.
    #[track_caller]
    pub(crate) fn told(self, code: i32, cause: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains("error: ") && self.err.contains(cause), "{self:?}");
        assert!(self.err.lines().any(|line| line.starts_with("hint: ")), "{self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains('\u{1b}'), "{self:?}");
        self
    }

    /// The events of a run with `--json`.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("one event a line")).collect()
    }

    /// The last event.
    #[track_caller]
    pub(crate) fn last_event(&self) -> Value {
        self.events().pop().expect("an event")
    }
}

/// A tree with a bit of everything in `src`: a file of several chunks, small ones, an empty one, an empty
/// directory, names that want escaping.
pub(crate) fn mixed_tree(machine: &Machine) {
    machine.write("src/big", testlink::Rng::new(1).bytes(9_000_000));
    for at in 0..50 {
        machine.write(&format!("src/small/{at}"), at.to_string());
    }
    machine.write("src/empty", "");
    machine.dir("src/nothing/here");
    machine.write("src/with space/ümläut \u{202e}#%?", "odd");
}

/// Asserts that two trees hold the same names, kinds and bytes.
#[track_caller]
pub(crate) fn assert_same_tree(left: &Path, right: &Path) {
    assert_eq!(listing(left), listing(right));
}

fn listing(root: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name();
    let entry = |entry: walkdir::DirEntry| {
        let name = entry.path().strip_prefix(root).expect("below the root").to_owned();
        let content = entry.file_type().is_file().then(|| fs::read(entry.path()).expect("a file"));
        (name, content)
    };
    entries.into_iter().map(|found| entry(found.expect("an entry"))).collect()
}

/// Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    signal(child.id(), rustix::process::Signal::INT);
}

fn signal(id: u32, signal: rustix::process::Signal) {
    let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw).expect("an id");
    // It may be gone already.
    let _ = rustix::process::kill_process(id, signal);
}

/// The same command, killed if it hangs: then its story fails.
fn runnable(command: &mut Command) -> assert_cmd::Command {
    let mut runnable = assert_cmd::Command::new(command.get_program());
    runnable.args(command.get_args()).timeout(LIMIT);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => runnable.env(name, value),
            None => runnable.env_remove(name),
        };
    }
    runnable.current_dir(command.get_current_dir().expect("the place for files"));
    runnable
}

fn wait(child: &mut Child) -> ExitStatus {
    child.wait_timeout(LIMIT).expect("it can be waited for").expect("it ends")
}

/// Far above any deadline of the program.
const LIMIT: Duration = Duration::from_secs(90);
