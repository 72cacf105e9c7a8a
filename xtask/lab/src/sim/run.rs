//! Runs a seed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::sim::{
    cuts::{self, CutRun, CutSeries},
    disk, entropy, job,
    oracle::Violation,
    scenario::Scenario,
    scheduler,
    world::World,
};

/// Runs seeds, one at a time.
#[derive(Debug)]
pub struct Simulation {
    scratch: TempDir,
}

/// What became of a seed.
#[derive(Debug)]
pub struct Report {
    /// What the seed stood for.
    pub scenario: Scenario,
    /// How the job went.
    pub outcome: Result<Summary, Violation>,
    /// Of all that happened on the network; the same in every run of the seed.
    pub trace: u64,
    /// Datagrams that were sent.
    pub datagrams: u64,
}

/// How a job went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How often it was tried.
    pub attempts: u64,
    /// How often a program was killed in the middle.
    pub kills: u64,
    /// How often the power of a machine was cut.
    pub cuts: u64,
    /// In virtual time.
    pub took: Duration,
}

impl Simulation {
    /// With a place for its files.
    pub fn new() -> std::io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let scratch = if memory.is_dir() { TempDir::new_in(memory)? } else { TempDir::new()? };
        Ok(Self { scratch })
    }

    /// Runs a seed from its beginning to its end.
    pub fn run(&self, seed: u64) -> Report {
        self.run_scenario(Scenario::draw(seed))
    }

    /// Runs what somebody has thought of.
    pub fn run_scenario(&self, scenario: Scenario) -> Report {
        let drawn = scenario.clone();
        let ran = self.apart(scenario.seed, async move |files, keys| {
            let world = World::new(drawn, files, keys)?;
            let outcome = job::run(&world).await;
            world.end();
            Ok((outcome, world.network.trace(), world.network.sent()))
        });
        let (outcome, trace, datagrams) = ran.unwrap_or_else(|violation| (Err(violation), 0, 0));
        Report { scenario, outcome, trace, datagrams }
    }

    /// Cuts a transfer off, again and again, until it is done.
    pub fn run_cuts(&self, cuts: CutSeries) -> Result<Vec<CutRun>, Violation> {
        self.apart(1, async move |files, keys| cuts::run(&cuts, files, keys).await)
    }

    /// In virtual time, on a thread of its own: what is random on it begins with the seed.
    fn apart<T: Send + 'static>(
        &self,
        seed: u64,
        work: impl AsyncFnOnce(&Path, &Path) -> Result<T, Violation> + Send + 'static,
    ) -> Result<T, Violation> {
        let (files, keys) = (self.scratch.path().join("files"), self.scratch.path().to_owned());
        let running = thread::spawn(move || {
            entropy::seed_thread(seed);
            disk::begin();
            scheduler::begin(seed);
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                runtime.enable_time().start_paused(true).build()?.block_on(work(&files, &keys))
            }));
            scheduler::end();
            // They are not read any more.
            let _ = std::fs::remove_dir_all(&files);
            ran
        });
        match running.join() {
            Ok(Ok(ran)) => ran,
            Ok(Err(panic)) | Err(panic) => Err(Violation::Panicked(said(&*panic))),
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing").to_owned()
}
