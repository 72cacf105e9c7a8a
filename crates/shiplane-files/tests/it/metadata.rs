//! Modes and times.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use shiplane_files::internals::{Destination, Plan, Shape, TopDirectory};
use shiplane_wire::{Entry, EntryKind, Mtime};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, job, noise, open, open_with, options, overwriting, receive};

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
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
        let kept = if entry.kind == EntryKind::File { 0o777 } else { 0o3777 };
        assert_eq!(mode(&path), entry.mode & kept, "{}", path.display());
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
        assert_eq!(mode(&path), entry.mode, "{}", path.display());
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

/// Fails unless everything has the mode and the time of its entry.
#[track_caller]
fn assert_settled(root: &Path, tree: &Tree) {
    for (Entry { path, mode, mtime, .. }, _) in &tree.entries {
        let found = fs::symlink_metadata(root.join(path.to_string())).unwrap();
        let time = Mtime { secs: found.mtime(), nanos: u32::try_from(found.mtime_nsec()).unwrap() };
        assert_eq!((found.mode() & 0o7777, time), (*mode, *mtime), "{path}");
    }
}

#[test]
fn another_mode_or_time_is_mended_and_no_content_comes() {
    let later = Mtime { secs: 1_700_000_000, nanos: 5 };
    let changes: [fn(&mut Entry, Mtime); 3] = [
        |entry, _| entry.mode ^= 0o111,
        |entry, later| entry.mtime = later,
        |entry, later| (entry.mode, entry.mtime) = (0o750, later),
    ];
    for overwrite in [false, true] {
        let temp = TempDir::new().unwrap();
        // One that is long enough to be compared by blocks.
        let mut tree = Tree::mixed().file("longer", noise(7, 300_000));
        receive(open(temp.path()), &tree).unwrap();
        let files = tree.entries.iter().filter(|(entry, _)| entry.kind == EntryKind::File).count() as u64;
        for change in changes {
            tree.entries.iter_mut().for_each(|(entry, _)| change(entry, later));
            let options = if overwrite { overwriting() } else { options() };
            let dest = open_with(
                temp.path(),
                shiplane_files::internals::ReceiveOptions { verify: overwrite, ..options },
            );
            let transfer = Transfer::plan(dest, &tree).unwrap();
            assert_eq!(transfer.chunks.len() + transfer.ready.len(), 0);
            assert_eq!(transfer.complete().unwrap().identical_files, files);
            assert_settled(temp.path(), &tree);
        }
    }
}

#[test]
fn a_new_directory_is_private_until_all_is_in_it() {
    let temp = TempDir::new().unwrap();
    let top = temp.path().join("top");
    let dest = Destination::open(&top, &Shape::Contents, job(), options()).unwrap();
    let mtime = Mtime { secs: -5, nanos: 6 };
    dest.plan_top(TopDirectory { mode: 0o755, mtime, attributes: None }).unwrap();
    let tree = Tree::default().dir("d").dir("d/e").file("d/e/f", "content");
    let transfer = Transfer::plan(dest, &tree).unwrap();
    for directory in ["", "d", "d/e"] {
        assert_eq!(mode(top.join(directory)), 0o700, "{directory}");
    }
    transfer.complete().unwrap();
    assert_settled(&top, &tree);
    let found = fs::metadata(&top).unwrap();
    assert_eq!((mode(&top), found.mtime(), found.mtime_nsec()), (0o755, -5, 6));
}

#[test]
fn a_directory_that_its_owner_may_not_write_is_filled_all_the_same() {
    let temp = TempDir::new().unwrap();
    let top = TopDirectory { mode: 0o555, mtime: Mtime { secs: 7, nanos: 8 }, attributes: None };
    for content in ["first", "second"] {
        let dest = open_with(temp.path(), overwriting());
        dest.plan_top(top.clone()).unwrap();
        let tree =
            Tree::default().dir("d").set(|entry| entry.mode = 0o500).file("d/f", content).file("f", content);
        let transfer = Transfer::plan(dest, &tree).unwrap();
        assert_eq!((mode(temp.path()) & 0o700, mode(temp.path().join("d"))), (0o700, 0o700));
        transfer.complete().unwrap();
        assert_settled(temp.path(), &tree);
        assert_eq!((mode(temp.path()), fs::metadata(temp.path()).unwrap().mtime()), (0o555, 7));
        assert_equal(temp.path(), &tree);
    }
    // One that comes to nothing leaves it as it was.
    drop(open(temp.path()));
    assert_eq!(mode(temp.path()), 0o555);
}

#[test]
fn a_directory_has_the_setgid_bit_only_if_it_has_it_at_the_source() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("old")).unwrap();
    for dir in [temp.path(), &temp.path().join("old")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o2755)).unwrap();
    }
    let dest = open(temp.path());
    dest.plan_top(TopDirectory { mode: 0o6750, mtime: Mtime { secs: 1, nanos: 0 }, attributes: None })
        .unwrap();
    let tree = Tree::default().dir("new").set(|entry| entry.mode = 0o711).dir("new/shared");
    let tree = tree.set(|entry| entry.mode = 0o2775).dir("old").set(|entry| entry.mode = 0o755);
    assert!(Transfer::plan(dest, &tree).unwrap().complete().is_ok());
    assert_eq!(mode(temp.path()), 0o2750);
    for (name, expected) in [("new", 0o711), ("new/shared", 0o2775), ("old", 0o755)] {
        assert_eq!(mode(temp.path().join(name)), expected, "{name}");
    }
}

#[test]
fn a_top_directory_that_comes_twice_or_late_or_for_one_file_is_refused() {
    let temp = TempDir::new().unwrap();
    let top = TopDirectory { mode: 0o700, mtime: Mtime { secs: 1, nanos: 0 }, attributes: None };
    let tree = Tree::default().file("f", "content");
    let dest = open(temp.path());
    dest.plan_top(top.clone()).unwrap();
    assert!(dest.plan_top(top.clone()).is_err());
    drop(dest);
    let dest = open(temp.path());
    assert!(matches!(dest.plan(0, &tree.entries[0].0).unwrap(), Plan::Want { .. }));
    assert!(dest.plan_top(top.clone()).is_err());
    drop(dest);
    let shape = Shape::File { name: b"f".to_vec() };
    let dest = Destination::open(temp.path(), &shape, job(), options()).unwrap();
    assert!(dest.plan_top(top.clone()).is_err());
}
