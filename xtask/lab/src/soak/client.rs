//! A client of a soak test: one job after another, some of them killed, with checks of their results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testlink::Rng;
use xtask::dataset::{self, Size};
use xtask::driver::{Server, Verb};
use xtask::process::{Running, Signal};
use xtask::{interrupt, tree};

use super::{SERVED, Soak};
use crate::load;
use crate::peers::Kind;
use crate::suspend::SuspendDetector;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Get,
    Push,
    Sync,
    Calls,
}

/// Works in places of its own.
pub(super) struct Client<'a> {
    soak: &'a Soak,
    number: u64,
    noise: Rng,
    /// The other side of a sync that was killed keeps its place until it finds out.
    sync_from: Instant,
    suspensions: SuspendDetector,
}

impl<'a> Client<'a> {
    pub(super) fn new(soak: &'a Soak, number: u64, noise: Rng) -> Result<Self> {
        let suspensions = SuspendDetector::start();
        let client = Self { soak, number, noise, sync_from: Instant::now(), suspensions };
        for job in [Job::Push, Job::Sync] {
            fs::create_dir(client.place(job)).context("cannot make a directory")?;
        }
        dataset::make(&client.place(Job::Push), PUSHED)?;
        Ok(client)
    }

    /// Until the soak is over. In the end both sides of its syncs are the same.
    pub(super) fn run(mut self) -> Result<()> {
        while !self.soak.is_over.load(std::sync::atomic::Ordering::Relaxed) {
            interrupt::check()?;
            let job = self.noise.pick(&MIX);
            if job != Job::Sync || self.sync_from <= Instant::now() {
                self.one(job).with_context(|| format!("{job:?}"))?;
            }
        }
        if !self.theirs(Job::Sync).exists() {
            return Ok(()); // Too short a soak for a single one.
        }
        self.start(Job::Sync)?.0.wait(LIMIT)?.expect_success("the last sync")?;
        self.expect_equal(Job::Sync)
    }

    /// Does one job, and notes how it ended.
    fn one(&mut self, job: Job) -> Result<()> {
        let (running, life) = self.start(job)?;
        let mut fate = match self.noise.between(0, 8) {
            0 | 1 if !self.soak.is_short => Some(Signal::Kill),
            0..=2 => Some(Signal::Interrupt),
            _ => None,
        };
        let moment = Duration::from_millis(self.noise.between(0, MAX_LIFE_MS));
        if fate.is_some() && running.ends_within(moment)? {
            fate = None;
        }
        fate.map_or(Ok(()), |signal| running.signal(signal))?;
        let ended = running.wait(LIMIT)?;
        if ended.code == Some(0) {
            self.expect_equal(job).context("it says that it is done")?;
            self.soak.count(job.done());
            return Ok(());
        }
        self.sync_from = if job == Job::Sync { Instant::now() + SYNC_PAUSE } else { self.sync_from };
        let how = match fate {
            Some(Signal::Kill) => "killed",
            Some(_) => "interrupted",
            None if self.soak.life.lock().number != life => "lost with the server",
            None if self.suspensions.was_suspended() => "lost while nothing was running",
            None => bail!("it ended with {:?}: {}", ended.code, ended.said),
        };
        self.soak.count(how);
        Ok(())
    }

    /// Starts a job, and says in which life of the server.
    fn start(&mut self, job: Job) -> Result<(Running, u64)> {
        let soak = self.soak;
        let life = soak.life.lock();
        let mut command = self.command(job, &life.server)?;
        let mut running = Running::start(job.done(), command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        // A load ends with its standard input.
        running.close_stdin();
        Ok((running, life.number))
    }

    fn command(&mut self, job: Job, server: &Server) -> Result<Command> {
        let (place, home) = (self.place(job), self.soak.root.join("clients"));
        let client =
            |verb, path: &str| self.soak.shiplane.client(verb, &place, &server.ticket_for(path), &home);
        Ok(match job {
            Job::Get => client(Verb::Get, "tree"),
            Job::Push => {
                let mut command = client(Verb::Push, "");
                command.arg("--overwrite");
                // The same name with other content each time.
                dataset::noisy_file(&place.join("changing"), 1 << 20, &mut self.noise)?;
                command
            }
            Job::Sync => {
                let command = client(Verb::Sync, &self.name(job));
                let file = place.join(self.noise.between(0, SYNCED_FILES).to_string());
                dataset::noisy_file(&file, 1 << 16, &mut self.noise)?;
                command
            }
            Job::Calls => load::command_to(Kind::Calls, 1000, server, &self.soak.root.join("keys"))?,
        })
    }

    /// Whether what has ended in success is true; what is not needed any more is removed.
    fn expect_equal(&self, job: Job) -> Result<()> {
        let place = self.place(job);
        match job {
            Job::Get => {
                tree::expect_equal(&self.soak.root.join(SERVED).join("tree"), &place)?;
                tree::remove(&place)
            }
            Job::Push | Job::Sync => tree::expect_equal(&place, &self.theirs(job)),
            Job::Calls => Ok(()),
        }
    }

    fn name(&self, job: Job) -> String {
        format!("{job:?}-{}", self.number)
    }

    fn place(&self, job: Job) -> PathBuf {
        self.soak.root.join(self.name(job))
    }

    fn theirs(&self, job: Job) -> PathBuf {
        self.soak.root.join(SERVED).join(Path::new(&self.name(job)))
    }
}

impl Job {
    fn done(self) -> &'static str {
        match self {
            Self::Get => "gets, whole and equal",
            Self::Push => "pushes, whole and equal",
            Self::Sync => "syncs, whole and equal",
            Self::Calls => "1,000 calls, and 3,200 at a time by 64",
        }
    }
}

/// How often each is chosen.
const MIX: [Job; 6] = [Job::Get, Job::Get, Job::Push, Job::Push, Job::Sync, Job::Calls];

const SYNCED_FILES: u64 = 20;

/// Many times what any of them takes, and long enough for some minutes in which all of us are stopped.
const LIMIT: Duration = Duration::from_secs(600);

/// The idle timeout and some more.
const SYNC_PAUSE: Duration = Duration::from_secs(33);

/// About as long as the longest client lives by itself.
const MAX_LIFE_MS: u64 = 600;

/// What a push sends, beside one file that changes.
const PUSHED: Size = Size { large_bytes: 4 << 20, small_files: 30, directories: 3 };
