//! Keeps the processor busy, to measure on a loaded machine.

use std::process::{Command, Stdio};
use std::thread;

use anyhow::Result;
use xtask::process::Running;

/// One program of our own priority for each core, none of which ever rests. Killed on drop.
pub(crate) struct Busy {
    _programs: Vec<Running>,
}

impl Busy {
    pub(crate) fn start() -> Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let start = |_| {
            let mut command = Command::new("sh");
            command.args(["-c", SPIN, "spin", &std::process::id().to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Running::start("a busy program", &mut command)
        };
        Ok(Self { _programs: (0..cores).map(start).collect::<Result<_>>()? })
    }
}

/// Counts for as long as the process whose id it is given lives, should that be killed before it kills us.
const SPIN: &str = "while kill -0 $1; do i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; done";
