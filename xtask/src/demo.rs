//! `cargo xtask demo`: the whole of shiplane on one machine. A tree is served by one process and got by another,
//! compared byte by byte, then got again by a receiver that is killed beyond half-way and resumes; pushed to a
//! second server; and, changed on both sides, brought together again.

mod changes;
mod cut;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::dataset::{self, Size};
use xtask::driver::{Access, Done, Server, Shiplane, Verb};
use xtask::process::Running;
use xtask::scratch::Scratch;
use xtask::tree::{self, Survey};
use xtask::units;

/// Shows it with this directory, or with a generated data set, which may be small. Every difference, wrong exit code or
/// overdue end is an error; nothing stays behind.
pub(crate) fn run(path: Option<&Path>, is_small: bool) -> Result<()> {
    println!("building shiplane; the first time takes some minutes");
    let shiplane = Shiplane::build_for_demo()?;
    let scratch = Scratch::new("shiplane-demo-", None)?;
    let source = source(path, is_small, &scratch)?;
    let survey = tree::survey(&source)?;
    // Two copies at a time, and what a change of the largest file takes.
    scratch.expect_room(3 * survey.bytes + survey.bytes / 8)?;
    let name = source.file_name().context("the tree has no name")?.to_owned();
    let demo = Demo {
        shiplane: &shiplane,
        survey,
        scratch: &scratch,
        home: scratch.directory("home")?,
        copy: scratch.directory("ours")?.join(&name),
        theirs: scratch.directory("theirs")?,
        source,
        rows: RefCell::new(vec![units::row(["", "files", "bytes", "time", "rate", "memory"])]),
    };
    demo.show(path.is_none())
}

fn source(path: Option<&Path>, is_small: bool, scratch: &Scratch) -> Result<PathBuf> {
    if let Some(path) = path {
        let source = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        ensure!(source.is_dir(), "{} is not a directory; give the one that holds it", path.display());
        return Ok(source);
    }
    let size = if is_small { Size::SMALL } else { Size::FULL };
    // The tree and its copies.
    scratch.expect_room(4 * size.room_bytes())?;
    let (large, small) = (units::bytes(size.large_bytes), units::count(size.small_files as u64));
    println!("making a data set: one file of {large}, {small} small ones, odd names");
    let source = scratch.directory("source")?;
    dataset::make(&source, size)?;
    Ok(source)
}

struct Demo<'a> {
    shiplane: &'a Shiplane,
    source: PathBuf,
    survey: Survey,
    scratch: &'a Scratch,
    /// The user's own state, the same for all runs but the servers'.
    home: PathBuf,
    /// Where the first run puts it, alone in its directory. It is what is synced later.
    copy: PathBuf,
    /// What the second server serves.
    theirs: PathBuf,
    rows: RefCell<Vec<Vec<String>>>,
}

impl Demo<'_> {
    /// All parts. `must_cut`: the tree is large enough for that by design.
    fn show(&self, must_cut: bool) -> Result<()> {
        let mut is_cut = false;
        println!("serving {} on loopback", self.source.display());
        self.with_server(&self.source, Access::Read, |server| {
            println!("getting it");
            self.run("got", self.client(Verb::Get, &self.copy, server))?;
            self.expect_equal(&self.source, &self.copy)?;
            println!("getting it again, into an empty directory, and killing the receiver on the way");
            is_cut = self.get_cut(server)?;
            ensure!(is_cut || !must_cut, "the receiver ended before it could be killed");
            Ok(())
        })?;
        println!("serving an empty directory, for writing");
        self.with_server(&self.theirs, Access::Write, |server| {
            self.push(server)?;
            self.sync(server)
        })?;
        let Survey { files, directories, others, .. } = self.survey;
        println!("\n{}", units::table(&self.rows.borrow()));
        let (files, directories) = (units::count(files), units::count(directories));
        println!(
            "All copies equal the original: {files} files, {directories} directories, verified and durable."
        );
        if others > 0 {
            println!("Left out: {} special files.", units::count(others));
        }
        if !is_cut {
            println!("Too small to be killed on the way, so nothing was resumed.");
        }
        Ok(())
    }

    fn with_server(
        &self,
        root: &Path,
        access: Access,
        work: impl FnOnce(&Server) -> Result<()>,
    ) -> Result<()> {
        let home =
            self.scratch.directory(if access == Access::Read { "server" } else { "writable server" })?;
        let server = self.shiplane.serve(root, &home, access)?;
        work(&server).map_err(|failure| server.with_log(&failure))?;
        let held_bytes = server.stop()?.used.peak_rss_bytes;
        expect_memory(held_bytes)?;
        self.rows.borrow_mut().push(units::row(["the server", "", "", "", "", &units::bytes(held_bytes)]));
        Ok(())
    }

    /// Pushes the tree, and again, which sends nothing.
    fn push(&self, server: &Server) -> Result<()> {
        println!("pushing the tree to it");
        let push = || self.client(Verb::Push, &self.source, server);
        let done = self.run("pushed", push())?;
        let all = (self.survey.bytes, self.survey.bytes);
        ensure!((done.total_bytes, done.sent_bytes) == all, "{done:?}, and the tree has {} bytes", all.0);
        self.expect_equal(&self.source, &self.theirs.join(self.source.file_name().unwrap_or_default()))?;
        let again = self.run("", push())?;
        ensure!(again.sent_bytes == 0, "pushed again, it sent {} bytes", again.sent_bytes);
        println!("  pushed again: nothing to send");
        Ok(())
    }

    /// Syncs what `get` has brought with what was pushed: first as they are, then changed.
    fn sync(&self, server: &Server) -> Result<()> {
        let (ours, theirs) = (self.copy.parent().context("the copy has no parent")?, &self.theirs);
        let name = self.copy.file_name().unwrap_or_default();
        let sync = |name| self.run(name, self.client(Verb::Sync, ours, server));
        println!("syncing the two copies");
        let same = sync("")?;
        ensure!(same.moved_bytes() == 0, "the copies are equal, and yet {same:?}");
        println!("changing both, and syncing again");
        changes::make(&ours.join(name), &theirs.join(name))?;
        let synced = sync("synced")?;
        self.expect_equal(ours, theirs)?;
        changes::expect_both(&ours.join(name))?;
        let [there, here] = [synced.sent_bytes, synced.received_bytes].map(units::bytes);
        println!("  {} actions, {there} to the server, {here} from it", units::count(synced.actions));
        let again = sync("")?;
        ensure!(again.actions == 0 && again.moved_bytes() == 0, "nothing was left to do, and yet {again:?}");
        println!("  synced again: nothing to do");
        Ok(())
    }

    fn client(&self, verb: Verb, local: &Path, server: &Server) -> Command {
        self.shiplane.client(verb, local, server.ticket(), &self.home)
    }

    /// Runs a client to its end; `name` is that of its row, if it is to have one.
    fn run(&self, name: &str, mut command: Command) -> Result<Done> {
        let started = Instant::now();
        let running = Running::start("shiplane", command.arg("--json").stdout(Stdio::piped()))?;
        let ended = running.wait(RUN_LIMIT)?.expect_success("shiplane")?;
        let (time, held_bytes) = (started.elapsed(), ended.used.peak_rss_bytes);
        expect_memory(held_bytes)?;
        let done = Done::of(&ended.lines)?;
        if !name.is_empty() {
            let moved = format!(
                "{} ({})",
                units::bytes(done.moved_bytes()),
                units::percent(done.moved_bytes(), self.survey.bytes)
            );
            let rate = units::rate(done.moved_bytes(), time);
            let cells = [name, &units::count(self.survey.files), &moved, &units::seconds(time), &rate];
            let cells = cells.into_iter().map(str::to_owned).chain([units::bytes(held_bytes)]);
            self.rows.borrow_mut().push(cells.collect());
        }
        Ok(done)
    }

    fn expect_equal(&self, original: &Path, copy: &Path) -> Result<()> {
        tree::expect_equal(original, copy)?;
        println!("  compared byte by byte: equal");
        Ok(())
    }
}

fn expect_memory(held_bytes: u64) -> Result<()> {
    ensure!(
        held_bytes <= MAX_RSS_BYTES,
        "a process held {held_bytes} bytes, and {MAX_RSS_BYTES} ought to do"
    );
    Ok(())
}

/// Only against a hang: a tree that a user gives may be large.
const RUN_LIMIT: Duration = Duration::from_secs(3600);

/// What no process needs more than, however large the tree.
const MAX_RSS_BYTES: u64 = 64 << 20;
