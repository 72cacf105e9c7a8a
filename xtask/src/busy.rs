//! Keeps the processor busy, to measure on a loaded machine.

use std::process::{Command, Stdio};
use std::thread;

use anyhow::Result;

use crate::process::Running;

/// One program of our own priority for each core, none of which ever rests. Killed on drop.
#[derive(Debug)]
pub(crate) struct Busy {
    _programs: Vec<Running>,
}

impl Busy {
    /// Starts them.
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

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process_stats;

    #[test]
    fn each_core_has_a_program_that_runs_until_it_is_dropped() {
        let busy = Busy::start().unwrap();
        let pids: Vec<u32> = busy._programs.iter().map(Running::pid).collect();
        assert_eq!(pids.len(), thread::available_parallelism().unwrap().get());
        while pids.iter().any(|&pid| process_stats::cpu_time(pid).unwrap() < Duration::from_millis(20)) {
            thread::yield_now();
        }
        drop(busy);
        assert!(pids.iter().all(|&pid| process_stats::cpu_time(pid).is_err()));
    }
}
