//! On which threads chunks are read, hashed and stored.

use std::sync::LazyLock;

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::Instant,
};

use crate::{blocking, config::LaneThreads};

impl LaneThreads {
    /// Starts what may block. As tokio's `spawn_blocking`, it is called in a runtime.
    pub(super) fn spawn<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self.background() {
            Some(background) => background.spawn_blocking(work),
            None => blocking::spawn(work),
        }
    }

    /// The same, for work that also waits for tasks of the runtime.
    pub(super) fn spawn_waiting<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match self.background() {
            Some(background) => background.spawn_blocking(work),
            None => blocking::spawn_waiting(work),
        }
    }

    fn background(self) -> Option<&'static Runtime> {
        if self == Self::Background && !is_time_virtual() { BACKGROUND.as_ref() } else { None }
    }
}

/// Threads that come and go as they are needed. They are nobody else's: a thread without privileges never
/// gets back the priority that it has given up. `None` where the system does not let us have them.
static BACKGROUND: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.thread_name("shiplane-lane").on_thread_start(yield_to_others);
    builder.build().inspect_err(|error| tracing::warn!(%error, "chunks get no threads of their own")).ok()
});

/// Linux counts niceness by the thread; elsewhere it is the whole process's.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a lane's thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() {}

/// A clock that stands still between two looks is a test's, which moves on as soon as the runtime is idle:
/// only the work of its own threads holds it up.
fn is_time_virtual() -> bool {
    Instant::now() == Instant::now()
}

/// The most there is. With 10 the 99th percentile of calls beside chunks was six times as long.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    async fn thread_of(threads: LaneThreads) -> Option<String> {
        threads.spawn(|| std::thread::current().name().map(str::to_owned)).await.unwrap()
    }

    #[tokio::test]
    async fn work_in_the_background_has_threads_of_its_own() {
        assert_eq!(thread_of(LaneThreads::Background).await.as_deref(), Some("shiplane-lane"));
        assert_ne!(thread_of(LaneThreads::Ordinary).await.as_deref(), Some("shiplane-lane"));
    }

    #[tokio::test(start_paused = true)]
    async fn in_virtual_time_it_holds_up_the_clock() {
        assert_ne!(thread_of(LaneThreads::Background).await.as_deref(), Some("shiplane-lane"));
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
