//! Modes and times.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use shiplane_wire::{EntryKind, Mtime};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, noise, open, receive};

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// What the umask leaves of every permission.
fn umasked() -> u32 {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("d")).unwrap();
    mode(temp.path().join("d")) & 0o777
}

#[test]
fn modes_are_masked_whatever_way_a_file_takes() {
    let temp = TempDir::new().unwrap();
    let modes = [0o6755, 0o7777, 0o1644, 0o444, 0o000, 0o200, 0o111, u32::MAX, 0o100_755];
    let mut tree = Tree::default();
    for mode in modes {
        let name = format!("{mode:o}");
        // Empty, packed, and in chunks of its own.
        for len in [0, 100, 1500] {
            tree = tree.file(&format!("{name}-{len}"), noise(1, len)).set(|entry| entry.mode = mode);
        }
        tree = tree.dir(&format!("{name}-d")).set(|entry| entry.mode = mode);
        tree = tree.file(&format!("{name}-d/inner"), "inner");
    }
    receive(open(temp.path()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
    for (entry, _) in &tree.entries {
        let path = temp.path().join(entry.path.to_string());
        assert_eq!(mode(&path), entry.mode & 0o777 & umasked(), "{}", path.display());
    }
}

#[test]
fn modes_are_the_same_after_a_run_that_was_cut_off() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default()
        .dir("d")
        .set(|entry| entry.mode = 0o555)
        .file("d/f", noise(1, 300))
        .set(|entry| entry.mode = 0o400)
        .file("d/g", noise(2, 3000))
        .set(|entry| entry.mode = 0o440);
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    let all = transfer.chunks.len();
    for chunk in 0..all - 1 {
        transfer.deliver(chunk).unwrap();
    }
    drop(transfer);
    receive(open(temp.path()), &tree).unwrap();
    for (entry, _) in &tree.entries {
        let path = temp.path().join(entry.path.to_string());
        assert_eq!(mode(&path), entry.mode & umasked(), "{}", path.display());
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    receive(open(temp.path()), &tree).unwrap();
    for (entry, _) in &tree.entries {
        let found = fs::metadata(temp.path().join(entry.path.to_string())).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_600_000_000, 123_456_789), "{}", entry.path);
    }
}

#[test]
fn times_beyond_reason_are_clamped() {
    let temp = TempDir::new().unwrap();
    let mut tree = Tree::default();
    for (at, secs) in [i64::MIN, i64::MIN + 1, -1, 0, 1 << 40, i64::MAX].into_iter().enumerate() {
        for nanos in [0, 999_999_999, 0x3fff_ffff, u32::MAX] {
            for (kind, len) in [(EntryKind::Directory, 0), (EntryKind::File, 0), (EntryKind::File, 200)] {
                let name = format!("{at}-{nanos}-{kind:?}-{len}");
                tree = tree
                    .with(kind, name.as_bytes(), &noise(1, len))
                    .set(|entry| entry.mtime = Mtime { secs, nanos });
            }
        }
    }
    receive(open(temp.path()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
    assert_eq!(fs::metadata(temp.path().join("2-0-File-200")).unwrap().mtime(), -1);
}
