//! Receivers on a small data set: each run starts from the same state, may meet one fault, and is followed by one
//! without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::driver::{ANY_PORT, Done, START_LIMIT, Server, Shiplane, Verb};
use xtask::process::{Ended, Running};
use xtask::scratch::Scratch;
use xtask::tree;

use super::data;
use super::trace::{self, Fault, Trace, Traced};

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
        self.verb() == Verb::Sync
    }

    fn is_served(self) -> bool {
        matches!(self, Self::Push | Self::SyncAsked)
    }

    fn verb(self) -> Verb {
        match self {
            Self::Get => Verb::Get,
            Self::Push => Verb::Push,
            Self::SyncAsking | Self::SyncAsked => Verb::Sync,
        }
    }

    /// The sides that are written to.
    fn sides(self) -> &'static [&'static str] {
        match self {
            Self::Get => &[OURS],
            Self::Push => &[THEIRS],
            Self::SyncAsking | Self::SyncAsked => &[OURS, THEIRS],
        }
    }
}

/// The programs and the directories. Beneath the scratch directory there are states of a run (`fresh`, `synced`),
/// trees (`old`, `new`, `merged`) and the current run (`run`).
pub(super) struct Fixture<'a> {
    shiplane: &'a Shiplane,
    scratch: &'a Path,
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
        let fixture = Self { shiplane, scratch: scratch.path() };
        data::write(&fixture.at("new").join(TREE), data::State::New)?;
        data::write(&fixture.at("old").join(TREE), data::State::Old)?;
        // What the source must stay.
        tree::copy(&fixture.at("new"), &fixture.at("new as it was"))?;
        fixture.prepare_fresh()?;
        fixture.prepare_sync()?;
        Ok(fixture)
    }

    /// Restores the state before, and runs `role` with `fault` befalling its receiver.
    pub(super) fn first(&self, role: Role, fault: Fault) -> Result<First> {
        self.reset(role)?;
        let start = |name: &str, mut command: Command, is_receiver: bool| -> Result<_> {
            if is_receiver {
                return trace::start(&command, &self.run(), fault);
            }
            Ok((Running::heard(name, &mut command)?, Traced::default()))
        };
        let (server, server_trace) = start("shiplane serve", self.serve(role), role.is_served())?;
        let Some(ticket) = server.next_line(START_LIMIT)? else {
            // Killed, or it refused to start.
            let client = server.wait(LIMIT)?;
            let (receiver_said, trace) = (client.said.clone(), server_trace.lock().clone());
            return Ok(First { client, receiver_said, has_started: false, trace });
        };
        let (client, client_trace) = start(role.name(), self.client(role, &ticket), !role.is_served())?;
        if role.is_served() {
            // A client whose server was killed would wait for it for a while.
            let began = Instant::now();
            while !client.ends_within(LOOK)? && !server.has_ended()? {
                ensure!(began.elapsed() < LIMIT, "neither side ends");
            }
            let client = if server.has_ended()? { client.kill()? } else { client.wait(LIMIT)? };
            let receiver_said = server.stop(LIMIT)?.said;
            return Ok(First {
                client,
                receiver_said,
                has_started: true,
                trace: server_trace.lock().clone(),
            });
        }
        let client = client.wait(LIMIT)?;
        let (receiver_said, trace) = (client.said.clone(), client_trace.lock().clone());
        Ok(First { client, receiver_said, has_started: true, trace })
    }

    /// The same once more, undisturbed. It must end well, with equal trees and nothing left behind. Gives the
    /// bytes that it still had to send.
    pub(super) fn second(&self, role: Role) -> Result<u64> {
        let done = self.undisturbed(role)?;
        self.expect_done(role)?;
        Ok(match role {
            Role::Get | Role::SyncAsking => done.received_bytes,
            Role::Push | Role::SyncAsked => done.sent_bytes,
        })
    }

    fn undisturbed(&self, role: Role) -> Result<Done> {
        let server = Server::start(&mut self.serve(role))?;
        let client = Running::heard(role.name(), &mut self.client(role, server.ticket()))?;
        Done::of(&client.wait(LIMIT)?.expect_success("the next run")?.lines)
    }

    /// Fails if a name stands for anything but what was there before or is to be there, on either side.
    pub(super) fn expect_old_or_new(&self, role: Role) -> Result<()> {
        for side in role.sides() {
            let before = if role.is_sync() { self.at("synced").join(side) } else { self.at("old") };
            tree::expect_old_or_new(&self.run().join(side), &before, &self.after(role))
                .with_context(|| format!("on the side {side}"))?;
        }
        self.expect_nothing_outside()
    }

    /// Fails unless all is as it is to be, and nothing else is left, neither there nor in our own directories.
    pub(super) fn expect_done(&self, role: Role) -> Result<()> {
        for side in role.sides() {
            tree::expect_equal_whenever(&self.after(role), &self.run().join(side))?;
        }
        if role.is_sync() {
            tree::expect_equal(&self.run().join(OURS), &self.run().join(THEIRS))?;
        } else if let [side] = role.sides() {
            tree::expect_equal(&self.after(role).join(TREE), &self.run().join(side).join(TREE))?;
        }
        for home in [CLIENT, SERVER] {
            let names = tree::names(&self.run().join(home))?;
            if let Some(name) = names.iter().find(|name| name.extension().is_some_and(|end| end == "tmp")) {
                bail!("{name:?} was left behind in the directory of the {home}'s own");
            }
        }
        self.expect_nothing_outside()
    }

    fn expect_nothing_outside(&self) -> Result<()> {
        let names = fs::read_dir(self.run()).context("cannot look around")?;
        let mut names: Vec<_> = names.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        names.sort();
        ensure!(names == [CLIENT, OURS, SERVER, THEIRS], "these stand beside each other now: {names:?}");
        tree::expect_equal(&self.at("new as it was"), &self.at("new")).context("the source has changed")
    }

    /// What a side is to become.
    fn after(&self, role: Role) -> PathBuf {
        self.at(if role.is_sync() { "merged" } else { "new" })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The same path in every run: what is remembered of syncs is bound to it.
    fn run(&self) -> PathBuf {
        self.at("run")
    }

    fn reset(&self, role: Role) -> Result<()> {
        tree::remove(&self.run())?;
        tree::copy(&self.at(if role.is_sync() { "synced" } else { "fresh" }), &self.run())
    }

    fn serve(&self, role: Role) -> Command {
        let root = if role == Role::Get { self.at("new") } else { self.run().join(THEIRS) };
        let mut command =
            self.shiplane.serve_command(ANY_PORT, &root, &self.run().join(SERVER), role.verb().access());
        command.args((role != Role::Get).then_some("--attributes"));
        command
    }

    fn client(&self, role: Role, ticket: &str) -> Command {
        let local = if role == Role::Push { self.at("new").join(TREE) } else { self.run().join(OURS) };
        let mut command = self.shiplane.client(role.verb(), &local, ticket, &self.run().join(CLIENT));
        command.args((!role.is_sync()).then_some("--overwrite"));
        command.args(["--json", "--attributes", "--chunk", CHUNK, "--jobs", "4"]);
        command
    }

    /// Keys of both, so that no run has to make one, and what both have before.
    fn prepare_fresh(&self) -> Result<()> {
        for home in [CLIENT, SERVER] {
            let home = self.at("fresh").join(home);
            fs::create_dir_all(&home).context("cannot make a directory")?;
            Running::heard("shiplane id", self.shiplane.command(&home).arg("id"))?
                .wait(LIMIT)?
                .expect_success("shiplane id")?;
        }
        for side in [OURS, THEIRS] {
            tree::copy(&self.at("old"), &self.at("fresh").join(side))?;
        }
        Ok(())
    }

    /// Two sides that have been in sync and have both been changed since; and what they are to become.
    fn prepare_sync(&self) -> Result<()> {
        self.reset(Role::Get)?;
        self.undisturbed(Role::SyncAsking).context("the first sync")?;
        data::change(&self.run().join(OURS).join(TREE), data::Side::Ours)?;
        data::change(&self.run().join(THEIRS).join(TREE), data::Side::Theirs)?;
        tree::copy(&self.run(), &self.at("synced"))?;
        self.undisturbed(Role::SyncAsking).context("the sync to be disturbed")?;
        tree::expect_equal(&self.run().join(OURS), &self.run().join(THEIRS)).context("after that")?;
        tree::copy(&self.run().join(OURS), &self.at("merged"))?;
        data::expect_merged(&self.at("merged").join(TREE))
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

const LOOK: Duration = Duration::from_millis(1);
