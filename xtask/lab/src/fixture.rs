//! Two sides of a transfer, each with its directory and its program's own: each run starts from the same state, may meet
//! with something, and is followed by one that must end well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xtask::driver::{ANY_PORT, Done, Server, Shiplane, Verb};
use xtask::process::{self, Ended, Running};
use xtask::scratch::Scratch;
use xtask::tree;

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
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
    pub(crate) const ALL: [Self; 4] = [Self::Get, Self::Push, Self::SyncAsking, Self::SyncAsked];

    /// Its name, what the client runs, and the sides that are written to.
    fn row(self) -> (&'static str, Verb, &'static [&'static str]) {
        match self {
            Self::Get => ("get", Verb::Get, &[OURS]),
            Self::Push => ("push, the server", Verb::Push, &[THEIRS]),
            Self::SyncAsking => ("sync, asking", Verb::Sync, &[OURS, THEIRS]),
            Self::SyncAsked => ("sync, asked", Verb::Sync, &[OURS, THEIRS]),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    pub(crate) fn is_sync(self) -> bool {
        self.verb() == Verb::Sync
    }

    pub(crate) fn is_served(self) -> bool {
        matches!(self, Self::Push | Self::SyncAsked)
    }

    fn verb(self) -> Verb {
        self.row().1
    }

    fn sides(self) -> &'static [&'static str] {
        self.row().2
    }
}

/// The program and the directories. Beneath the scratch directory there are states of a run (`fresh`, `synced`),
/// trees (`old`, `new`, `merged`) and the current run, in which the two sides and their programs' own directories are.
pub(crate) struct Fixture<'a> {
    shiplane: &'a Shiplane,
    scratch: PathBuf,
    /// The same path in every run: what is remembered of syncs is bound to it.
    run: PathBuf,
}

impl<'a> Fixture<'a> {
    /// `fill` writes what is sent and what is there before. Runs take place in `run`, or else in the scratch directory.
    pub(crate) fn new(
        shiplane: &'a Shiplane,
        scratch: &Scratch,
        run: Option<&Path>,
        fill: impl FnOnce(&Path, &Path) -> Result<()>,
    ) -> Result<Self> {
        let scratch = scratch.path().to_path_buf();
        let run = run.map_or_else(|| scratch.join("run"), Path::to_path_buf);
        let fixture = Self { shiplane, scratch, run };
        fill(&fixture.at("new").join(TREE), &fixture.at("old").join(TREE))?;
        // What the source must stay.
        tree::copy(&fixture.at("new"), &fixture.at("new as it was"))?;
        for (home, side) in [(CLIENT, OURS), (SERVER, THEIRS)] {
            let home = fixture.at("fresh").join(home);
            fs::create_dir_all(&home).context("cannot make a directory")?;
            // So that no run has to make a key.
            process::output("shiplane id", fixture.shiplane.command(&home).arg("id"))?;
            tree::copy(&fixture.at("old"), &fixture.at("fresh").join(side))?;
        }
        Ok(fixture)
    }

    /// A state or a tree.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// Puts the current run into the state before.
    pub(crate) fn reset(&self, role: Role) -> Result<()> {
        tree::remove(&self.run)?;
        tree::copy(&self.at(if role.is_sync() { "synced" } else { "fresh" }), &self.run)
    }

    /// The server, not yet started; it has the same key each time.
    pub(crate) fn server(&self, role: Role, listen: &str) -> Command {
        let root = if role == Role::Get { self.at("new") } else { self.run.join(THEIRS) };
        let mut command =
            self.shiplane.serve_command(listen, &root, &self.run.join(SERVER), role.verb().access());
        command.args((role != Role::Get).then_some("--attributes"));
        command
    }

    /// The client, not yet started.
    pub(crate) fn client(&self, role: Role, ticket: &str) -> Command {
        let local = if role == Role::Push { self.at("new").join(TREE) } else { self.run.join(OURS) };
        let mut command = self.shiplane.client(role.verb(), &local, ticket, &self.run.join(CLIENT));
        command.args((!role.is_sync()).then_some("--overwrite"));
        command.args(["--json", "--attributes", "--chunk", CHUNK, "--jobs", "4"]);
        command
    }

    pub(crate) fn serve(&self, role: Role, listen: &str) -> Result<Server> {
        Server::start(&mut self.server(role, listen)).context(BadEnd)
    }

    pub(crate) fn start_client(&self, role: Role, ticket: &str) -> Result<Running> {
        Running::heard(role.name(), &mut self.client(role, ticket))
    }

    /// A run to which nothing happens; it must end well.
    pub(crate) fn undisturbed(&self, role: Role, ticket: &str) -> Result<Done> {
        Done::of(&expect_end(self.start_client(role, ticket)?.wait(LIMIT)?, &[0])?.lines)
    }

    /// As [`undisturbed`](Self::undisturbed), to the end of all, with nothing left behind. Gives the bytes that the
    /// receiver still had to be sent.
    pub(crate) fn finish(&self, role: Role, ticket: &str) -> Result<u64> {
        let done = self.undisturbed(role, ticket).context("the next run")?;
        self.expect_done(role)?;
        Ok(if role.is_served() { done.sent_bytes } else { done.received_bytes })
    }

    /// As [`finish`](Self::finish), with a server of its own.
    pub(crate) fn second(&self, role: Role) -> Result<u64> {
        self.finish(role, self.serve(role, ANY_PORT)?.ticket())
    }

    /// Fails if a name stands for anything but what was there before or is to be there, on either side.
    pub(crate) fn expect_old_or_new(&self, role: Role) -> Result<()> {
        for side in role.sides() {
            let before = if role.is_sync() { self.at("synced").join(side) } else { self.at("old") };
            tree::expect_old_or_new(&self.run.join(side), &before, &self.after(role))
                .with_context(|| format!("on the side {side}"))?;
        }
        self.expect_nothing_outside()
    }

    /// Fails unless all is as it is to be, and nothing else is left, neither there nor in our own directories.
    pub(crate) fn expect_done(&self, role: Role) -> Result<()> {
        for side in role.sides() {
            let (after, side) = (self.after(role), self.run.join(side));
            tree::expect_equal_whenever(&after, &side)?;
            ensure!(tree::linked(&after)? == tree::linked(&side)?, "not the same names are one file");
        }
        if role.is_sync() {
            tree::expect_equal(&self.run.join(OURS), &self.run.join(THEIRS))?;
        } else if let [side] = role.sides() {
            tree::expect_equal(&self.after(role).join(TREE), &self.run.join(side).join(TREE))?;
        }
        for home in [CLIENT, SERVER] {
            let names = tree::names(&self.run.join(home))?;
            if let Some(name) = names.iter().find(|name| name.extension().is_some_and(|end| end == "tmp")) {
                bail!("{name:?} was left behind in the directory of the {home}'s own");
            }
        }
        self.expect_nothing_outside()
    }

    /// Fails unless what an event of a run tells of has arrived.
    pub(crate) fn expect_arrived(&self, role: Role, path: &Path) -> Result<()> {
        for side in role.sides() {
            let found = tree::differences_at(path, &self.after(role), &self.run.join(side))?;
            ensure!(found.is_empty(), "{path:?} was said to be at its place, and is not: {found:?}");
        }
        Ok(())
    }

    fn expect_nothing_outside(&self) -> Result<()> {
        let names = fs::read_dir(&self.run).context("cannot look around")?;
        let mut names: Vec<_> = names.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        names.sort();
        ensure!(names == [CLIENT, OURS, SERVER, THEIRS], "these stand beside each other now: {names:?}");
        tree::expect_equal_whenever(&self.at("new as it was"), &self.at("new"))
            .context("the source has changed")
    }

    /// What a side is to become.
    fn after(&self, role: Role) -> PathBuf {
        self.at(if role.is_sync() { "merged" } else { "new" })
    }
}

/// Fails unless the program ended with one of these.
pub(crate) fn expect_end(ended: Ended, codes: &[i32]) -> Result<Ended> {
    ensure!(!ended.said.contains("panicked"), "it panicked: {}", ended.said);
    ended.expect_code("it", codes).context(BadEnd)
}

/// How a program ended, or that it did not begin.
#[derive(Debug, thiserror::Error)]
#[error("a program came to a bad end")]
pub(crate) struct BadEnd;

/// The two sides.
pub(crate) const OURS: &str = "ours";
pub(crate) const THEIRS: &str = "theirs";

/// The one directory on each side.
pub(crate) const TREE: &str = "tree";

/// Against a hang; a run takes a tenth of a second, and much longer where others keep the machine busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

const CLIENT: &str = "client";
const SERVER: &str = "server";

/// The least that may be asked for: a large file is many.
const CHUNK: &str = "64K";
