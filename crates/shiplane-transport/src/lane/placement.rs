//! Decides whether a chunk's work runs on the connection's own thread or on a lane thread.
//!
//! A hand-over costs two thread switches a buffer and moves the bytes to another core's cache, so work that need not
//! wait stays on the connection's thread. That thread becomes the bottleneck where the path is faster than one core;
//! then, if other cores are idle, the work goes to them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::config::LaneThreads;

/// Whether work that need not wait is done on this thread, where `threads` do the rest.
pub(super) fn is_here(threads: LaneThreads) -> bool {
    if threads == LaneThreads::Runtime {
        // In a simulation all work of lanes is of one kind, or no seed would find what threads do.
        return false;
    }
    LOAD.with(|load| {
        let now = Instant::now();
        let before = load.get();
        if now.duration_since(before.at) >= SAMPLE_INTERVAL {
            load.set(before.next(now));
        }
        !load.get().is_elsewhere
    })
}

thread_local! {
    static LOAD: Cell<Load> = Cell::new(Load::now());
}

/// What this thread and the machine did until a moment.
#[derive(Clone, Copy)]
struct Load {
    at: Instant,
    /// Processor time of this thread.
    busy: Duration,
    /// Idle time of all cores.
    idle: Duration,
    is_elsewhere: bool,
}

impl Load {
    fn now() -> Self {
        Self { at: Instant::now(), busy: thread_time(), idle: idle_time(), is_elsewhere: false }
    }

    fn next(self, at: Instant) -> Self {
        let wall = at.duration_since(self.at).as_secs_f64();
        let busy = thread_time();
        let busy_share = busy.saturating_sub(self.busy).as_secs_f64() / wall;
        if busy_share < MIN_BUSY_SHARE {
            // Before anybody asks what the others do: it takes a file to read.
            return Self { at, busy, idle: self.idle, is_elsewhere: false };
        }
        let idle = idle_time();
        let idle_cores = idle.saturating_sub(self.idle).as_secs_f64() / wall;
        Self { at, busy, idle, is_elsewhere: decide(self.is_elsewhere, busy_share, idle_cores) }
    }
}

/// Work moves away from a thread that is saturated while a core is idle, and comes back when none is any more.
fn decide(is_elsewhere: bool, busy_share: f64, idle_cores: f64) -> bool {
    if is_elsewhere {
        idle_cores >= MIN_IDLE_CORES_TO_STAY
    } else {
        busy_share >= SATURATED_SHARE && idle_cores >= MIN_IDLE_CORES_TO_LEAVE
    }
}

#[cfg(target_os = "linux")]
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Of all cores, since the system started; it stands still where it cannot be read.
#[cfg(target_os = "linux")]
fn idle_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // cpu user nice system idle …, in hundredths of a second on every Linux that we run on.
    let idle = stat.lines().next().and_then(|all| all.split_ascii_whitespace().nth(4));
    let ticks = idle.and_then(|ticks| ticks.parse().ok()).unwrap_or(0);
    Duration::from_millis(10 * ticks)
}

/// Elsewhere it is not known, and all work stays where it is.
#[cfg(not(target_os = "linux"))]
fn thread_time() -> Duration {
    Duration::ZERO
}

#[cfg(not(target_os = "linux"))]
fn idle_time() -> Duration {
    Duration::ZERO
}

/// 100 ms: ten ticks of the kernel's count of idle time.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Below this the thread keeps up by itself.
const MIN_BUSY_SHARE: f64 = 0.3;

/// From this on the thread limits the transfer.
const SATURATED_SHARE: f64 = 0.9;

/// A whole core, but for what the kernel's own work takes of it: one that is half idle has other work.
const MIN_IDLE_CORES_TO_LEAVE: f64 = 0.8;

/// With the work away from it, the idle core is busy; some other idle time must be left, or programs compete.
const MIN_IDLE_CORES_TO_STAY: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_leaves_a_saturated_thread_only_for_an_idle_core() {
        assert!(decide(false, 0.95, 1.0));
        assert!(!decide(false, 0.95, 0.5), "the core has other work");
        assert!(!decide(false, 0.7, 3.0), "the thread keeps up");
        assert!(decide(true, 0.5, 0.2));
        assert!(!decide(true, 0.5, 0.05), "no core is idle any more");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_both_times() {
        assert!(idle_time() > Duration::ZERO);
        let before = thread_time();
        while thread_time() == before {}
    }

    #[test]
    fn a_thread_that_does_little_keeps_its_work() {
        let before = Load { is_elsewhere: true, ..Load::now() };
        assert!(!before.next(before.at + Duration::from_secs(3600)).is_elsewhere);
    }
}
