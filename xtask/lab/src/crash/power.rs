//! Cuts the power while a receiver writes to its own ext4 file system.
//!
//! The file system is in an image on a loop device. At a random moment it is made to abort, as by an error of its
//! own (`trigger_fs_error`): from then on nothing reaches the device any more, neither from its journal nor from the
//! page cache, in whatever middle of a commit it was. The image, copied then, is what a disk has that lost its power
//! at that moment after it had written everything that it was given: what was only in memory is not in it. The copy is
//! mounted, which replays its journal, and looked at. `sync`, an unmount or a frozen file system would write out
//! first what a power cut loses. What this does not show is a disk that lies about a flush.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::driver::{ANY_PORT, Shiplane};
use xtask::process::{self, find_program};
use xtask::scratch::Scratch;
use xtask::{tree, units};

use super::mishap::Transfers;
use crate::fixture::{Fixture, Role};

/// What this needs and this machine lacks.
pub(super) fn missing() -> Option<&'static str> {
    let has_tools = ["mount", "umount", "mke2fs"].iter().all(|tool| find_program(tool).is_some());
    match (rustix::process::geteuid().is_root(), has_tools) {
        (false, _) => Some("it needs root"),
        (_, false) => Some("it needs mount and mke2fs"),
        _ if !Path::new("/dev/loop-control").exists() => Some("it needs loop devices"),
        _ => None,
    }
}

/// Cuts the power this number of times.
pub(super) fn run(shiplane: &Shiplane, cuts: u64, seed: u64) -> Result<Vec<Vec<String>>> {
    let scratch = Scratch::in_memory("shiplane-power-")?;
    scratch.expect_room(6 * IMAGE_LEN_BYTES)?;
    let site = scratch.directory("site")?;
    let run = site.join("run");
    let mut transfers = Transfers::new(shiplane, &scratch, Some(&run), seed)?;
    println!("cutting the power of receivers of {}", units::bytes(transfers.bytes));
    let [template, disk, cut] = ["template", "disk", "cut"].map(|name| scratch.path().join(name));
    fs::File::create(&template)?.set_len(IMAGE_LEN_BYTES).context("cannot make an image")?;
    command("mke2fs", |command| command.args(["-q", "-F", "-t", "ext4"]).arg(&template))?;
    {
        let _mounted = Mounted::new(&template, &site, "defaults")?;
        tree::copy(&transfers.fixture.at("fresh"), &run)?;
    }
    let measure = |transfers: &Transfers<'_>, role| {
        copy_sparse(&template, &disk)?;
        let _mounted = Mounted::new(&disk, &site, OPTIONS[0])?;
        transfers.measure(role)
    };
    let mut told = 0;
    transfers.repeat(cuts, measure, |transfers, number, role, length| {
        let options = OPTIONS[(number / 2) as usize % OPTIONS.len()];
        copy_sparse(&template, &disk)?;
        let said = {
            let mounted = Mounted::new(&disk, &site, options)?;
            let server = transfers.fixture.serve(role, ANY_PORT)?;
            let client = transfers.fixture.start_client(role, server.ticket())?;
            // A quarter longer, so that some have said that they are done.
            transfers.wait_within(length, 125);
            let said = client.lines_until_now();
            mounted.cut_power()?;
            copy_sparse(&disk, &cut)?;
            client.kill()?;
            said
        };
        let _mounted = Mounted::new(&cut, &site, options)?;
        transfers.fixture.expect_old_or_new(role)?;
        let (files, is_done) = expect_kept(&transfers.fixture, role, &said)?;
        told += files;
        let sent_bytes = transfers.fixture.second(role)?;
        transfers.again_bytes.extend((!is_done).then_some(sent_bytes));
        Ok(())
    })?;
    let [under_way, again, of] = transfers.figures();
    Ok(vec![
        units::row(["power cut", "cuts", "under way", "files told of", "sent again", "of"]),
        units::row(["ext4", &units::count(cuts), &under_way, &units::count(told), &again, &of]),
    ])
}

/// What the client had said before the cut must be true after it. Gives how many files it had said to be in their places,
/// and whether it had said that it is done.
fn expect_kept(fixture: &Fixture<'_>, role: Role, said: &[String]) -> Result<(u64, bool)> {
    let (mut files, mut is_done) = (0, false);
    for line in said {
        let event: Value = serde_json::from_str(line).with_context(|| format!("no event: {line:?}"))?;
        match event["event"].as_str() {
            Some("file") if event["received"] == true => {
                let path = event["path"].as_str().context("a file without a path")?;
                // Names that are no text are escaped.
                if path.is_ascii() && !path.contains('\\') {
                    files += 1;
                    fixture.expect_arrived(role, Path::new(path))?;
                }
            }
            Some("done") => {
                is_done = true;
                fixture.expect_done(role).context("it had said that it was done")?;
            }
            _ => {}
        }
    }
    Ok((files, is_done))
}

/// Where an image is mounted, by a loop device. Unmounted when this is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(image: &Path, at: &'a Path, options: &str) -> Result<Self> {
        let options = format!("loop,{options},errors=remount-ro");
        command("mount", |command| command.args(["-t", "ext4", "-o", &options]).args([image, at]))?;
        Ok(Self(at))
    }

    /// From here on nothing gets to the device.
    fn cut_power(&self) -> Result<()> {
        let mounts = procfs::process::Process::myself()?.mountinfo()?;
        let mount = mounts.into_iter().find(|mount| mount.mount_point == self.0).context("not mounted")?;
        let device = mount.mount_source.context("no device")?.replace("/dev/", "");
        let switch = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        fs::write(&switch, "1").with_context(|| format!("cannot write {}", switch.display()))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Nothing can be done about what is left.
        if command("umount", |command| command.arg(self.0)).is_err() {
            let _unmounted = Command::new("umount").arg("--lazy").arg(self.0).output();
        }
    }
}

/// To a new file: another mount namespace may have the old one mounted still.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    command("cp", |cp| cp.args(["--sparse=always", "--remove-destination"]).args([from, to])).map(drop)
}

fn command(program: &str, fill: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let path = find_program(program).with_context(|| format!("{program} is not installed"))?;
    process::output(program, fill(&mut Command::new(path)))
}

/// Commits of the journal every 5 s, every second, and with data that may come after its metadata.
const OPTIONS: [&str; 3] = ["commit=5", "commit=1", "commit=1,data=writeback"];

/// Fits the data set, what is replaced on either side, and the journal.
const IMAGE_LEN_BYTES: u64 = 64 << 20;
