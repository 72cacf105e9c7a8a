//! The small data set: one instance of everything that a receiver treats differently.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use filetime::FileTime;
use testlink::Rng;
use xtask::tree;

/// What is there before, or what is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Old,
    New,
}

/// Of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Theirs,
}

/// Writes the data set into `root`, which is created.
pub(super) fn write(root: &Path, state: State) -> Result<()> {
    let is_new = state == State::New;
    file(root, "same.txt", 3_000, 1)?;
    file(root, "replaced.txt", 5_000, if is_new { 2 } else { 3 })?;
    edited(root, is_new)?;
    file(root, "within/replaced.txt", 70_000, if is_new { 4 } else { 5 })?;
    if is_new {
        file(root, "large.bin", 1_300_000, 6)?;
        file(root, "empty", 0, 7)?;
        for number in 0..4 {
            file(root, &format!("made/small-{number}.txt"), 2_000 + number * 700, 8 + number as u64)?;
        }
        file(root, "made/deeper/program", 900, 20)?;
        for (name, target) in [("made/inside", "deeper/program"), ("made/deeper/up", "../../same.txt")] {
            symlink(target, root.join(name)).context("cannot make a link")?;
        }
        fs::hard_link(root.join("made/deeper/program"), root.join("made/another name"))
            .context("cannot make a hard link")?;
        file(root, "made/private/read-only/key", 400, 21)?;
        for name in
            ["replaced.txt", "empty", "made/deeper/program", "made/private/read-only/key", "made/private"]
        {
            tree::set_attribute(&root.join(name), "user.made", name.as_bytes())?;
        }
        for (name, mode) in [
            ("made/deeper/program", 0o755),
            ("made/private/read-only/key", 0o600),
            ("made/private/read-only", 0o555),
            ("made/private", 0o700),
        ] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(root.join(name), mode).context("cannot set a mode")?;
        }
    }
    Ok(())
}

/// Changes one side of a sync, the two not in the same way.
pub(super) fn change(root: &Path, side: Side) -> Result<()> {
    let is_ours = side == Side::Ours;
    let remove =
        |name: &str| fs::remove_file(root.join(name)).with_context(|| format!("cannot remove {name}"));
    let prefix = if is_ours { "ours" } else { "theirs" };
    let seed = if is_ours { 100 } else { 200 };
    file(root, &format!("{prefix}/large.bin"), 700_000, seed)?;
    file(root, &format!("{prefix}/small.txt"), 4_000, seed + 1)?;
    tree::set_attribute(&root.join(prefix).join("small.txt"), "user.made", prefix.as_bytes())?;
    // Both have edited it: two versions stay.
    file(root, "same.txt", 3_500, seed + 3)?;
    if is_ours {
        edited(root, true)?;
        file(root, "ours/empty", 0, seed + 2)?;
        remove("replaced.txt")
    } else {
        file(root, "renamed.txt", 70_000, 5)?;
        remove("within/replaced.txt")
    }
}

/// Fails unless a merged tree has what either side brought, and not what either removed.
pub(super) fn expect_merged(root: &Path) -> Result<()> {
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
