//! A harness: the built program with a home directory of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine with nothing on it yet.
pub(crate) struct Machine {
    home: TempDir,
}

/// What one run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().expect("a temporary directory") }
    }

    /// The program, with this machine's home and nothing of the tester's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shiplane"));
        command.args(args).env("SHIPLANE_HOME", self.home.path());
        command.env_remove("SHIPLANE_TICKET").env_remove("RUST_LOG");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().expect("the program starts"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// This machine's peer id.
    pub(crate) fn id(&self) -> String {
        self.run(&["id"]).done().out.trim().to_owned()
    }
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// It ended well.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        self.failed_or_done(0)
    }

    /// It ended with this code, a cause and a hint, and printed nothing to standard output.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, cause: &str) -> Self {
        let run = self.failed_or_done(code);
        assert!(run.err.contains("error: ") && run.err.contains(cause), "{run:?}");
        assert!(run.err.lines().any(|line| line.starts_with("hint: ")), "{run:?}");
        assert!(!run.err.contains("panicked") && !run.err.contains('\u{1b}'), "{run:?}");
        assert_eq!(run.out, "");
        run
    }

    #[track_caller]
    fn failed_or_done(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}
