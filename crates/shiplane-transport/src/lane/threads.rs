//! Spawns lane threads with the configured priority.

use std::sync::LazyLock;

use tokio::sync::oneshot;

use super::pool::{Pool, Work};
use crate::{blocking, config::LaneThreads};

impl LaneThreads {
    /// Starts what may block. Called in a runtime. The result is absent if it panicked.
    pub(super) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        let work: Work = Box::new(move || drop(done.send(work())));
        match self.pool() {
            Some(pool) => pool.submit(work),
            None => drop(blocking::spawn(work)),
        }
        result
    }

    fn pool(self) -> Option<&'static Pool> {
        match self {
            Self::Background => Some(&BACKGROUND),
            Self::Ordinary => Some(&ORDINARY),
            Self::Runtime => None,
        }
    }
}

/// Used for nothing else: an unprivileged thread cannot raise its priority again.
static BACKGROUND: LazyLock<Pool> = LazyLock::new(|| Pool::new(yield_to_others));

/// With the priority of those who started them.
static ORDINARY: LazyLock<Pool> = LazyLock::new(|| Pool::new(|| ()));

/// Linux counts niceness by the thread; elsewhere it is the whole process's.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a lane's thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() {}

/// The maximum. With 10, the 99th percentile of calls beside chunks was six times as long.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

#[cfg(test)]
mod tests {
    use super::{super::pool::THREAD_NAME, *};

    async fn thread_of(threads: LaneThreads) -> Option<String> {
        threads.spawn(|| std::thread::current().name().map(str::to_owned)).await.unwrap()
    }

    #[tokio::test]
    async fn work_has_threads_of_its_own() {
        for threads in [LaneThreads::Background, LaneThreads::Ordinary] {
            assert_eq!(thread_of(threads).await.as_deref(), Some(THREAD_NAME));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_waits_for_work_of_the_runtimes_threads() {
        let began = tokio::time::Instant::now();
        let work = LaneThreads::Runtime.spawn(std::thread::yield_now);
        let hour = tokio::time::sleep_until(began + std::time::Duration::from_secs(3600));
        tokio::select! {
            biased;
            done = work => done.unwrap(),
            () = hour => panic!("an hour has passed"),
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn work_in_the_background_yields_and_the_caller_keeps_its_priority() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let mine = niceness();
        assert_eq!(LaneThreads::Background.spawn(niceness).await.unwrap(), NICENESS);
        assert_eq!(LaneThreads::Ordinary.spawn(niceness).await.unwrap(), mine);
        assert_eq!(niceness(), mine);
    }
}
