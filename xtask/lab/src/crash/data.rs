//! The small data set: one instance of everything that a receiver treats differently.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use filetime::FileTime;
use testlink::Rng;
use xtask::driver::{ANY_PORT, Shiplane};
use xtask::scratch::Scratch;
use xtask::tree;

use crate::fixture::{Fixture, OURS, Role, THEIRS, TREE};

/// Writes what is sent, and the older version that is there before.
pub(super) fn fill(new: &Path, old: &Path) -> Result<()> {
    for (name, len, seed, old_seed) in FILES {
        file(new, name, len, seed)?;
        if old_seed > 0 {
            file(old, name, len, old_seed)?;
        }
    }
    edited(old, false)?;
    edited(new, true)?;
    add_metadata(new)
}

/// Receivers of the data set, also such that have been in sync and are both changed since.
pub(super) fn fixture<'a>(shiplane: &'a Shiplane, scratch: &Scratch) -> Result<Fixture<'a>> {
    let fixture = Fixture::new(shiplane, scratch, None, fill)?;
    let sync = |what: &'static str| {
        let server = fixture.serve(Role::SyncAsked, ANY_PORT)?;
        fixture.undisturbed(Role::SyncAsking, server.ticket()).context(what)
    };
    let [ours, theirs] = [OURS, THEIRS].map(|side| fixture.run().join(side));
    fixture.reset(Role::Get)?;
    sync("the first sync")?;
    change(&ours.join(TREE), OURS, 100)?;
    edited(&ours.join(TREE), true)?;
    remove(&ours, "replaced.txt")?;
    change(&theirs.join(TREE), THEIRS, 200)?;
    file(&theirs.join(TREE), "renamed.txt", 70_000, 5)?;
    remove(&theirs, "within/replaced.txt")?;
    tree::copy(fixture.run(), &fixture.at("synced"))?;
    sync("the sync to be disturbed")?;
    tree::expect_equal(&ours, &theirs).context("after that")?;
    tree::copy(&ours, &fixture.at("merged"))?;
    expect_merged(&fixture.at("merged").join(TREE))?;
    Ok(fixture)
}

/// What only the new version has beside files.
fn add_metadata(root: &Path) -> Result<()> {
    for (name, target) in [("made/inside", "deeper/program"), ("made/deeper/up", "../../same.txt")] {
        symlink(target, root.join(name)).context("cannot make a link")?;
    }
    fs::hard_link(root.join("made/deeper/program"), root.join("made/another name"))
        .context("cannot make a hard link")?;
    for name in ["replaced.txt", "empty", "made/deeper/program", "made/private/read-only/key", "made/private"]
    {
        tree::set_attribute(&root.join(name), "user.made", name.as_bytes())?;
    }
    for (name, mode) in MODES {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).context("cannot set a mode")?;
        filetime::set_file_mtime(root.join(name), FileTime::from_unix_time(1_100_000_000, 123_456_789))?;
    }
    Ok(())
}

/// What happens on both sides of a sync, not in the same way.
fn change(root: &Path, side: &str, seed: u64) -> Result<()> {
    file(root, &format!("{side}/large.bin"), 700_000, seed)?;
    file(root, &format!("{side}/small.txt"), 4_000, seed + 1)?;
    file(root, &format!("{side}/empty"), 0, seed + 2)?;
    tree::set_attribute(&root.join(side).join("small.txt"), "user.made", side.as_bytes())?;
    // Both edit it: two versions stay.
    file(root, "same.txt", 3_500, seed + 3)
}

/// Fails unless a merged tree has what either side brought, and not what either removed.
fn expect_merged(root: &Path) -> Result<()> {
    let names = tree::names(root)?;
    let has = |name: &str| names.iter().any(|path| path == Path::new(name));
    for name in ["ours/large.bin", "theirs/large.bin", "ours/empty", "theirs/small.txt", "renamed.txt"] {
        ensure!(has(name), "{name} has not come through");
    }
    for name in ["replaced.txt", "within/replaced.txt"] {
        ensure!(!has(name), "{name} is still there");
    }
    let versions = names.iter().filter(|path| path.to_string_lossy().starts_with("same")).count();
    ensure!(versions == 2, "of two edits of the same file {versions} versions are there");
    Ok(())
}

fn remove(side: &Path, name: &str) -> Result<()> {
    fs::remove_file(side.join(TREE).join(name)).with_context(|| format!("cannot remove {name}"))
}

/// Large, and different in its middle only.
fn edited(root: &Path, is_new: bool) -> Result<()> {
    let mut content = Rng::new(30).bytes(400_000);
    if is_new {
        content[200_000..200_010].copy_from_slice(b"edited her");
    }
    put(root, "edited.bin", &content, if is_new { 31 } else { 30 })
}

fn file(root: &Path, name: &str, len: usize, seed: u64) -> Result<()> {
    put(root, name, &Rng::new(seed).bytes(len), seed)
}

/// Times are old, so that nothing seems to have been written just now, and differ where content does.
fn put(root: &Path, name: &str, content: &[u8], seconds: u64) -> Result<()> {
    let cannot = || format!("cannot write {name}");
    let path = root.join(name);
    fs::create_dir_all(path.parent().context("no parent")?).with_context(cannot)?;
    fs::write(&path, content).with_context(cannot)?;
    let time = FileTime::from_unix_time(1_000_000_000 + seconds as i64, 123_456_789);
    filetime::set_file_mtime(&path, time).with_context(cannot)
}

/// Their lengths, and the seeds of their new and their old version; 0 if there was none.
const FILES: [(&str, usize, u64, u64); 11] = [
    ("same.txt", 3_000, 1, 1),
    ("replaced.txt", 5_000, 2, 3),
    ("within/replaced.txt", 70_000, 4, 5),
    ("large.bin", 1_300_000, 6, 0),
    ("empty", 0, 7, 0),
    ("made/small-0.txt", 2_000, 8, 0),
    ("made/small-1.txt", 2_700, 9, 0),
    ("made/small-2.txt", 3_400, 10, 0),
    ("made/small-3.txt", 4_100, 11, 0),
    ("made/deeper/program", 900, 20, 0),
    ("made/private/read-only/key", 400, 21, 0),
];

/// The innermost first: what is in a directory that is read-only cannot be changed any more.
const MODES: [(&str, u32); 5] = [
    ("made/deeper/program", 0o755),
    ("made/deeper", 0o2750),
    ("made/private/read-only/key", 0o600),
    ("made/private/read-only", 0o555),
    ("made/private", 0o700),
];
