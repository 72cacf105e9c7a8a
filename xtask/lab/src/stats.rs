//! Looks at a running process from outside, by `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use procfs::process::Process;

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessStats {
    /// The most that was ever resident.
    pub(crate) peak_bytes: u64,
    /// What is resident now.
    pub(crate) resident_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl ProcessStats {
    /// Of the process `pid`, which must be running.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let process = open(pid)?;
        let status = process.status().with_context(|| format!("process {pid} is gone"))?;
        Ok(Self {
            peak_bytes: status.vmhwm.context("/proc says nothing of memory")? << 10,
            resident_bytes: status.vmrss.context("/proc says nothing of memory")? << 10,
            descriptors: process.fd_count().context("cannot look at the descriptors")? as u64,
            threads: status.threads,
        })
    }
}

/// The processor's time that all threads of a running process have used.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = open(pid)?.stat().with_context(|| format!("process {pid} is gone"))?;
    Ok(Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64))
}

fn open(pid: u32) -> Result<Process> {
    Process::new(pid.try_into()?).with_context(|| format!("process {pid} is gone"))
}
