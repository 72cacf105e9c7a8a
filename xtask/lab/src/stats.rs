//! Reads a process's memory, descriptors, threads and processor time from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

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
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .with_context(|| format!("cannot look at the descriptors of {pid}"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            let number: Option<u64> = word.and_then(|word| word.parse().ok());
            number.with_context(|| format!("/proc says nothing of {name}"))
        };
        Ok(Self {
            peak_bytes: number("VmHWM:")? << 10,
            resident_bytes: number("VmRSS:")? << 10,
            descriptors: descriptors.count() as u64,
            threads: number("Threads:")?,
        })
    }
}

/// The processor's time that all threads of a running process have used. The kernel tells it in hundredths of a
/// second.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    cpu_time_in(&stat).with_context(|| format!("/proc/{pid}/stat has no times"))
}

/// The name, which stands in brackets, may contain anything; user and system time are the 14th and 15th word.
fn cpu_time_in(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ').skip(11);
    let ticks = words.next()?.parse::<u64>().ok()? + words.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ourselves_there_is_something_to_tell() {
        let stats = ProcessStats::of(std::process::id()).unwrap();
        assert!(stats.resident_bytes > 100_000 && stats.peak_bytes >= stats.resident_bytes, "{stats:?}");
        assert!(stats.descriptors >= 3 && stats.threads >= 1, "{stats:?}");
        assert!(ProcessStats::of(u32::MAX).is_err());
    }

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14";
        assert_eq!(cpu_time_in(stat), Some(Duration::from_millis(420)));
        assert_eq!(cpu_time_in("7 (a) S 1"), None);
    }
}
