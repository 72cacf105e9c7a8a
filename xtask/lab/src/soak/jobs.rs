//! The clients of a soak test: their jobs, their kills, and checks of their results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use testlink::Rng;
use xtask::dataset::{self, Size};
use xtask::driver::{Server, Shiplane, Verb};
use xtask::process::{self, Running, Signal};
use xtask::scratch::Scratch;
use xtask::tree;

use crate::load;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    Push,
    Sync,
    Calls,
}

pub(super) const KINDS: usize = 4;

/// Where clients work.
pub(super) struct Workshop<'a> {
    shiplane: &'a Shiplane,
    scratch: &'a Path,
    served: PathBuf,
    keys: PathBuf,
    /// The clients' own key and state.
    home: PathBuf,
    may_kill: bool,
}

/// A client under way.
pub(super) struct Job {
    running: Running,
    kind: Kind,
    /// Which of the places of its kind it works in: nobody else does.
    slot: u64,
    fate: Option<(Instant, Signal)>,
    died: Option<Signal>,
    /// The server is about to end.
    may_fail: bool,
    started: Instant,
}

/// How a client has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// In success, which was true.
    Done(Kind),
    /// Before that, by our hand.
    Died(Kind, Signal),
    /// Or by that of the server, or of whoever stopped all of us.
    WithServer,
}

impl<'a> Workshop<'a> {
    pub(super) fn set(
        shiplane: &'a Shiplane,
        scratch: &'a Scratch,
        served: &Path,
        keys: PathBuf,
        may_kill: bool,
    ) -> Result<Self> {
        let home = scratch.directory("clients")?;
        let workshop =
            Self { shiplane, scratch: scratch.path(), served: served.to_path_buf(), keys, home, may_kill };
        fs::create_dir_all(workshop.place(Kind::Sync, 0)).context("cannot make what is synced")?;
        for slot in 0..SLOTS {
            let source = workshop.place(Kind::Push, slot);
            fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
            dataset::make(&source, PUSHED)?;
        }
        Ok(workshop)
    }

    /// Starts a client that does something in a place where none of `busy` is at work.
    pub(super) fn start(
        &self,
        server: &Server,
        noise: &mut Rng,
        busy: &[(Kind, u64)],
        may_sync: bool,
    ) -> Result<Job> {
        let (kind, slot) = loop {
            let kind = MIX[noise.between(0, MIX.len() as u64) as usize];
            // One dataset is synced, by one at a time.
            let slot = if kind == Kind::Sync { 0 } else { noise.between(0, SLOTS) };
            if !busy.contains(&(kind, slot)) && (may_sync || kind != Kind::Sync) {
                break (kind, slot);
            }
        };
        let fate = match noise.between(0, 8) {
            0 | 1 if self.may_kill => Some(Signal::Kill),
            0..=2 => Some(Signal::Interrupt),
            _ => None,
        };
        let fate = fate
            .map(|signal| (Instant::now() + Duration::from_millis(noise.between(0, MAX_LIFE_MS)), signal));
        let mut command = self.command(kind, slot, server, noise)?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::start(&format!("{kind:?}"), &mut command)?;
        // A load ends with its standard input.
        running.close_stdin();
        Ok(Job { running, kind, slot, fate, died: None, may_fail: false, started: Instant::now() })
    }

    fn command(&self, kind: Kind, slot: u64, server: &Server, noise: &mut Rng) -> Result<Command> {
        let place = self.place(kind, slot);
        let client = |verb, path| self.shiplane.client(verb, &place, &server.ticket_for(path), &self.home);
        Ok(match kind {
            Kind::Get => client(Verb::Get, "tree"),
            Kind::Push => {
                // The same name with other content each time.
                dataset::noisy_file(&place.join("changing"), 1 << 20, noise)?;
                let mut command = client(Verb::Push, "");
                command.arg("--overwrite");
                command
            }
            Kind::Sync => {
                let file = place.join(noise.between(0, SYNCED_FILES).to_string());
                dataset::noisy_file(&file, 1 << 16, noise)?;
                client(Verb::Sync, SYNCED)
            }
            Kind::Calls => load::command_to("streams", 1000, server, &self.keys)?,
        })
    }

    /// Brings both sides together once more, now that nobody dies, and compares them.
    pub(super) fn compare_syncs(&self, server: &Server) -> Result<()> {
        let place = self.place(Kind::Sync, 0);
        if !self.served.join(SYNCED).exists() {
            return Ok(()); // Too short a soak for a single one.
        }
        let mut command = self.shiplane.client(Verb::Sync, &place, &server.ticket_for(SYNCED), &self.home);
        process::run("the last sync", command.arg("--quiet"))?;
        tree::expect_equal(&place, &self.served.join(SYNCED))
    }

    fn place(&self, kind: Kind, slot: u64) -> PathBuf {
        self.scratch.join(format!("{kind:?} {slot}"))
    }

    /// Whether what has ended in success is true; what is not needed any more is removed.
    fn judge(&self, kind: Kind, slot: u64) -> Result<()> {
        let place = self.place(kind, slot);
        match kind {
            Kind::Get => {
                tree::expect_equal(&self.served.join("tree"), &place)?;
                fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))
            }
            Kind::Push => {
                let name = place.file_name().context("a place has a name")?;
                tree::expect_equal(&place, &self.served.join(name))
            }
            // Compared when nobody writes any more.
            Kind::Sync | Kind::Calls => Ok(()),
        }
    }
}

impl Job {
    /// What it does, and where.
    pub(super) fn place(&self) -> (Kind, u64) {
        (self.kind, self.slot)
    }

    /// From here on it may fail, as the server does or all of us are stopped for a while.
    pub(super) fn expect_loss(&mut self) {
        self.may_fail = true;
    }

    /// Whether it has ended; kills it if its time has come.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        if self.running.has_ended()? {
            return Ok(true);
        }
        if let Some((_, signal)) = self.fate.take_if(|(at, _)| *at <= Instant::now()) {
            self.running.signal(signal)?;
            self.died = Some(signal);
        }
        ensure!(self.started.elapsed() < JOB_LIMIT, "{:?} does not end", self.kind);
        Ok(false)
    }

    /// Waits for its end, and kills it no more.
    pub(super) fn end(self, workshop: &Workshop<'_>) -> Result<Ended> {
        let Self { running, kind, slot, died, may_fail, .. } = self;
        let ended = running.wait(JOB_LIMIT)?;
        if ended.code == Some(0) {
            workshop.judge(kind, slot).with_context(|| format!("{kind:?} says that it is done"))?;
            return Ok(Ended::Done(kind));
        }
        match died {
            Some(signal) => Ok(Ended::Died(kind, signal)),
            None if may_fail => Ok(Ended::WithServer),
            None => bail!("{kind:?} ended with {:?}: {}", ended.code, ended.said),
        }
    }
}

/// How often each is chosen.
const MIX: [Kind; 6] = [Kind::Get, Kind::Get, Kind::Push, Kind::Push, Kind::Sync, Kind::Calls];

/// What is synced, beneath what is served.
const SYNCED: &str = "shared";
const SYNCED_FILES: u64 = 20;

/// Many times what any of them takes, and long enough for some minutes in which all of us are stopped.
const JOB_LIMIT: Duration = Duration::from_secs(600);

/// Places of each kind.
const SLOTS: u64 = 4;

/// About as long as the longest client lives by itself.
const MAX_LIFE_MS: u64 = 600;

/// What a push sends, beside one file that changes.
const PUSHED: Size = Size { large_bytes: 4 << 20, small_files: 30, directories: 3 };
