//! Receivers on a small data set: each run starts from the same state, may meet one fault, and is followed by one
//! without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::data;
use super::test_process::{Ended, TestProcess};
use super::trace::{Fault, Trace};
use super::tree::{self, Tree};
use crate::scratch::Scratch;
use crate::shiplane::{ANY_PORT, Outcome, Pushed, START_LIMIT, Shiplane, Synced};

/// Who receives, and is the one that faults befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `get`: the client.
    Get,
    /// `push`: the server.
    Push,
    /// `sync`, the side that asks.
    SyncAsking,
    /// `sync`, the side that is asked.
    SyncAsked,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::Get, Self::Push, Self::SyncAsking, Self::SyncAsked];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Push => "push, the server",
            Self::SyncAsking => "sync, asking",
            Self::SyncAsked => "sync, asked",
        }
    }

    pub(super) fn is_sync(self) -> bool {
        matches!(self, Self::SyncAsking | Self::SyncAsked)
    }

    fn is_served(self) -> bool {
        matches!(self, Self::Push | Self::SyncAsked)
    }
}

/// The programs and the directories.
pub(super) struct Fixture<'a> {
    shiplane: &'a Shiplane,
    scratch: &'a Scratch,
    /// What is sent by `get` and `push`, and what is there before.
    new: PathBuf,
    before: Trees,
    after: Trees,
    before_sync: Trees,
    after_sync: Trees,
}

/// Both sides of it.
#[derive(Clone, Debug, Default)]
struct Trees {
    ours: Tree,
    theirs: Tree,
}

/// One run that may have met a fault.
#[derive(Debug)]
pub(super) struct First {
    /// The client's end: a script learns no more.
    pub(super) client: Ended,
    /// What the receiver printed to standard error, or the server if that is the same.
    pub(super) receiver_said: String,
    /// Else the server ended before it listened, and what it said and ended with is told as the client's.
    pub(super) has_started: bool,
    pub(super) trace: Trace,
}

impl<'a> Fixture<'a> {
    pub(super) fn new(shiplane: &'a Shiplane, scratch: &'a Scratch) -> Result<Self> {
        let (new, old) = (scratch.path().join("new"), scratch.path().join("old"));
        data::write(&new.join(TREE), data::State::New)?;
        data::write(&old.join(TREE), data::State::Old)?;
        let mut fixture = Self {
            shiplane,
            scratch,
            before: Trees { ours: Tree::read(&old)?, theirs: Tree::read(&old)? },
            after: Trees { ours: Tree::read(&new)?, theirs: Tree::read(&new)? },
            before_sync: Trees::default(),
            after_sync: Trees::default(),
            new,
        };
        fixture.prepare_keys()?;
        fixture.prepare_sync(&old)?;
        Ok(fixture)
    }

    /// Restores the state before, and runs `role` with `fault` befalling its receiver.
    pub(super) fn first(&self, role: Role, fault: Fault) -> Result<First> {
        self.reset(role)?;
        let traced = |command: &Command| TestProcess::traced(command, &self.run(), fault);
        let mut server = match role.is_served() {
            true => traced(&self.serve(role))?,
            false => TestProcess::plain("shiplane serve", &mut self.serve(role))?,
        };
        let Some(ticket) = server.first_line(START_LIMIT)? else {
            // Killed, or it refused to start.
            let ended = server.wait(LIMIT)?;
            let (receiver_said, trace) = (ended.said.clone(), ended.trace.clone());
            return Ok(First { client: ended, receiver_said, has_started: false, trace });
        };
        let mut command = self.client(role, &ticket);
        let client = match role.is_served() {
            true => TestProcess::plain(role.name(), &mut command)?,
            false => traced(&command)?,
        };
        if role.is_served() {
            // A client whose server was killed would wait for it for a while.
            let client = client.wait_beside(&mut server, LIMIT)?;
            let server = server.stop(LIMIT)?;
            return Ok(First { client, receiver_said: server.said, has_started: true, trace: server.trace });
        }
        let client = client.wait(LIMIT)?;
        Ok(First {
            receiver_said: client.said.clone(),
            has_started: true,
            trace: client.trace.clone(),
            client,
        })
    }

    /// The same once more, undisturbed. It must end well, with equal trees and nothing left behind. Gives the
    /// bytes that it still had to send.
    pub(super) fn second(&self, role: Role) -> Result<u64> {
        let server = TestProcess::plain("shiplane serve", &mut self.serve(role))?;
        let ticket = server.first_line(START_LIMIT)?.context("the server does not start")?;
        let client = TestProcess::plain(role.name(), &mut self.client(role, &ticket))?.wait(LIMIT)?;
        if client.code != Some(0) {
            bail!("the next run ended with {:?}: {} {:?}", client.code, client.said, client.lines.last());
        }
        self.expect_done(role)?;
        let lines = &client.lines;
        Ok(match role {
            Role::Get => Outcome::of(lines)?.received_bytes,
            Role::Push => Pushed::of(lines)?.sent_bytes,
            Role::SyncAsking => Synced::of(lines)?.received_bytes,
            Role::SyncAsked => Synced::of(lines)?.sent_bytes,
        })
    }

    /// Fails if a name stands for anything but what was there before or is to be there, on either side.
    pub(super) fn expect_old_or_new(&self, role: Role) -> Result<()> {
        let (before, after) = self.trees(role);
        let read = |side| Tree::read(&self.run().join(side));
        if role != Role::Push {
            read(OURS)?.expect_old_or_new(&before.ours, &after.ours).context("on our side")?;
        }
        if role != Role::Get {
            read(THEIRS)?.expect_old_or_new(&before.theirs, &after.theirs).context("on their side")?;
        }
        self.expect_nothing_outside()
    }

    /// Fails unless all is as it is to be, and nothing else is left, neither there nor in our own directories.
    pub(super) fn expect_done(&self, role: Role) -> Result<()> {
        let (_, after) = self.trees(role);
        let read = |side| Tree::read(&self.run().join(side));
        if role != Role::Push {
            read(OURS)?.expect_same(&after.ours).context("on our side")?;
        }
        if role != Role::Get {
            read(THEIRS)?.expect_same(&after.theirs).context("on their side")?;
        }
        for home in [CLIENT, SERVER] {
            let tree = Tree::read(&self.run().join(home))?;
            let temporary = tree.file_names().find(|name| name.extension().is_some_and(|end| end == "tmp"));
            if let Some(name) = temporary {
                bail!("{name:?} was left behind in the directory of the {home}'s own");
            }
        }
        self.expect_nothing_outside()
    }

    fn expect_nothing_outside(&self) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.run()).context("cannot look around")? {
            names.push(entry?.file_name());
        }
        names.sort();
        if names != [CLIENT, OURS, SERVER, THEIRS] {
            bail!("these stand beside each other now: {names:?}");
        }
        Tree::read(&self.new)?.expect_same(&self.after.ours).context("the source has changed")
    }

    fn trees(&self, role: Role) -> (&Trees, &Trees) {
        match role.is_sync() {
            true => (&self.before_sync, &self.after_sync),
            false => (&self.before, &self.after),
        }
    }

    /// The same path in every run: what is remembered of syncs is bound to it.
    fn run(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    fn reset(&self, role: Role) -> Result<()> {
        let template = if role.is_sync() { "synced" } else { "fresh" };
        let run = self.run();
        match fs::remove_dir_all(&run) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot tidy up")?
            }
            _ => {}
        }
        tree::copy(&self.scratch.path().join(template), &run)
    }

    fn serve(&self, role: Role) -> Command {
        let run = self.run();
        let mut command = self.shiplane.command(&run.join(SERVER));
        match role {
            Role::Get => command.arg("serve").arg(&self.new),
            Role::Push | Role::SyncAsking | Role::SyncAsked => {
                command.arg("serve").arg(run.join(THEIRS)).arg("--writable")
            }
        };
        command.args(["--listen", ANY_PORT]);
        command
    }

    fn client(&self, role: Role, ticket: &str) -> Command {
        let run = self.run();
        let mut command = self.shiplane.command(&run.join(CLIENT));
        match role {
            Role::Get => command.arg("get").arg(ticket).arg(run.join(OURS)).arg("--overwrite"),
            Role::Push => command.arg("push").arg(self.new.join(TREE)).arg(ticket).arg("--overwrite"),
            Role::SyncAsking | Role::SyncAsked => command.arg("sync").arg(run.join(OURS)).arg(ticket),
        };
        command.args(["--json", "--chunk", CHUNK, "--jobs", "4"]);
        command
    }

    /// Keys of both, so that no run has to make one.
    fn prepare_keys(&self) -> Result<()> {
        let fresh = self.scratch.directory("fresh")?;
        for home in [CLIENT, SERVER] {
            let state = fresh.join(home);
            fs::create_dir(&state).context("cannot make a directory")?;
            let id =
                TestProcess::plain("shiplane id", self.shiplane.command(&state).arg("id"))?.wait(LIMIT)?;
            if id.code != Some(0) {
                bail!("shiplane id ended with {:?}: {}", id.code, id.said);
            }
        }
        for side in [OURS, THEIRS] {
            tree::copy(&self.scratch.path().join("old"), &fresh.join(side))?;
        }
        Ok(())
    }

    /// Two sides that have been in sync and have both been changed since; and what they are to become.
    fn prepare_sync(&mut self, old: &Path) -> Result<()> {
        let role = Role::SyncAsking;
        self.reset(Role::Get)?;
        self.after_sync = Trees { ours: Tree::read(old)?, theirs: Tree::read(old)? };
        self.second(role).context("the first sync")?;
        data::change(&self.run().join(OURS).join(TREE), data::Side::Ours)?;
        data::change(&self.run().join(THEIRS).join(TREE), data::Side::Theirs)?;
        tree::copy(&self.run(), &self.scratch.path().join("synced"))?;
        let run = self.run();
        let read = |side| Tree::read(&run.join(side));
        self.before_sync = Trees { ours: read(OURS)?, theirs: read(THEIRS)? };
        let ended = self.first(role, Fault::None)?;
        if ended.client.code != Some(0) {
            bail!("the sync to be disturbed ended with {:?}: {}", ended.client.code, ended.client.said);
        }
        self.after_sync = Trees { ours: read(OURS)?, theirs: read(THEIRS)? };
        self.after_sync.ours.expect_same(&self.after_sync.theirs).context("an undisturbed sync")?;
        data::expect_merged(&self.after_sync.ours, Path::new(TREE))
    }
}

const OURS: &str = "ours";
const THEIRS: &str = "theirs";
const CLIENT: &str = "client";
const SERVER: &str = "server";

/// The one directory in what is served.
const TREE: &str = "tree";

/// The least that may be asked for: the large file is many.
const CHUNK: &str = "64K";

/// Against a hang; a run takes a tenth of a second, and much longer where others keep the machine busy.
const LIMIT: Duration = Duration::from_secs(600);
