//! Existing files in the destination.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use shiplane_files::internals::{DestinationError, Existing, FaultClass, Plan, ReceiveOptions};
use shiplane_wire::{Digest, DigestAlgorithm, Durability};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, listing, open, open_with, options, overwriting, receive};

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn a_different_file_is_kept_unless_overwriting() {
    for (mine, theirs) in [("mine", "their own"), ("same", "size"), ("mine", "")] {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("f");
        fs::write(&path, mine).unwrap();
        let tree = Tree::default().file("f", theirs);
        let error = receive(open(temp.path()), &tree).unwrap_err();
        assert!(matches!(error, DestinationError::Exists { .. }), "{error}");
        assert_eq!(error.class(), FaultClass::Refused);
        assert_eq!(read(&path), mine.as_bytes());
        assert_eq!(listing(temp.path()).len(), 1, "nothing else is left");

        receive(open_with(temp.path(), overwriting()), &tree).unwrap();
        assert_equal(temp.path(), &tree);
    }
}

#[test]
fn an_identical_file_is_not_received_again() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    assert_eq!(receive(open(temp.path()), &tree).unwrap().published_files, 15);
    let inode = fs::metadata(temp.path().join("large")).unwrap().ino();

    let second = receive(open(temp.path()), &tree).unwrap();
    assert_eq!((second.published_files, second.identical_files, second.directories), (0, 15, 2));
    assert_eq!(fs::metadata(temp.path().join("large")).unwrap().ino(), inode);
    assert_equal(temp.path(), &tree);
}

#[test]
fn the_same_content_with_another_time_is_compared_and_gets_the_time() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("f", "content").file("empty", "");
    for name in ["f", "empty"] {
        fs::write(temp.path().join(name), if name == "f" { "content" } else { "" }).unwrap();
    }
    let dest = open(temp.path());
    assert_eq!(dest.plan(0, &tree.entries[0].0).unwrap(), Plan::Compare { is_likely_same: false });
    assert_eq!(
        dest.digest_of(&tree.entries[0].0.path, DigestAlgorithm::Sha256).unwrap(),
        Digest::sha256(b"content")
    );
    assert_eq!(dest.compare(0, &tree.entries[0].0, Digest::blake3(b"content")).unwrap(), Plan::Done);
    assert_eq!(dest.plan(1, &tree.entries[1].0).unwrap(), Plan::Done, "there is nothing to compare");
    dest.finish().unwrap();
    for name in ["f", "empty"] {
        assert_eq!(fs::metadata(temp.path().join(name)).unwrap().mtime(), 1_600_000_000);
    }
}

#[test]
fn verifying_finds_a_file_that_only_looks_equal() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("f", "content");
    receive(open(temp.path()), &Tree::default().file("f", "CONTENT")).unwrap();
    // Same size and time: taken for equal.
    receive(open(temp.path()), &tree).unwrap();
    assert_eq!(read(temp.path().join("f")), b"CONTENT");

    let verify = ReceiveOptions { verify: true, ..options() };
    let error = receive(open_with(temp.path(), verify), &tree).unwrap_err();
    assert!(matches!(error, DestinationError::Exists { .. }), "{error}");
    receive(open_with(temp.path(), ReceiveOptions { existing: Existing::Replace, ..verify }), &tree).unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn a_file_that_vanishes_before_it_is_compared_is_received() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("f", "content");
    fs::write(temp.path().join("f"), "CONTENT").unwrap();
    let dest = open(temp.path());
    assert_eq!(dest.plan(0, &tree.entries[0].0).unwrap(), Plan::Compare { is_likely_same: false });
    fs::remove_file(temp.path().join("f")).unwrap();
    let whole = 0..7;
    let plan = dest.compare(0, &tree.entries[0].0, Digest::blake3(b"content")).unwrap();
    assert_eq!(plan, Plan::Want { missing: vec![whole], resumed_bytes: 0 });
}

#[test]
fn files_and_directories_never_replace_each_other() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("dir")).unwrap();
    fs::write(temp.path().join("file"), "mine").unwrap();
    symlink("dir", temp.path().join("link")).unwrap();
    let before = listing(temp.path());
    for options in [options(), overwriting()] {
        for tree in
            [Tree::default().file("dir", "x"), Tree::default().dir("file"), Tree::default().dir("link")]
        {
            let error = receive(open_with(temp.path(), options), &tree).unwrap_err();
            assert!(matches!(error, DestinationError::WrongKind { .. }), "{error}");
        }
    }
    assert_eq!(listing(temp.path()), before);
}

#[test]
fn a_file_that_appears_meanwhile_is_kept_and_the_rest_of_the_group_is_published() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", "their a").file("b", "their b").file("c", "their c");
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    fs::write(temp.path().join("b"), "mine").unwrap();
    let error = transfer.publish().unwrap_err();
    assert!(matches!(&error, DestinationError::Exists { path } if path.ends_with("/b")), "{error}");
    assert_eq!(read(temp.path().join("b")), b"mine");
    assert_eq!(read(temp.path().join("a")), b"their a");
    assert_eq!(read(temp.path().join("c")), b"their c");
    // Moved away, it can be published after all.
    fs::rename(temp.path().join("b"), temp.path().join("moved")).unwrap();
    transfer.dest.publish(&[1]).unwrap();
    transfer.dest.finish().unwrap();
    fs::remove_file(temp.path().join("moved")).unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn a_directory_that_appears_meanwhile_is_not_replaced_even_when_overwriting() {
    for options in [options(), overwriting()] {
        let temp = TempDir::new().unwrap();
        let tree = Tree::default().file("a", "theirs");
        let mut transfer = Transfer::plan(open_with(temp.path(), options), &tree).unwrap();
        transfer.deliver(0).unwrap();
        fs::create_dir(temp.path().join("a")).unwrap();
        let error = transfer.publish().unwrap_err();
        assert!(matches!(error, DestinationError::WrongKind { .. }), "{error}");
    }
}

#[test]
fn without_durability_nothing_else_changes() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    let options = ReceiveOptions { durability: Durability::Verified, ..options() };
    let summary = receive(open_with(temp.path(), options), &tree).unwrap();
    assert_eq!(summary.published_bytes, tree.entries.iter().map(|(entry, _)| entry.size_bytes).sum::<u64>());
    assert_equal(temp.path(), &tree);
}

#[test]
fn many_files_in_many_directories_are_published_at_once() {
    let temp = TempDir::new().unwrap();
    let mut tree = Tree::default();
    for at in 0..100 {
        tree = tree
            .dir(&format!("d{at}"))
            .file(&format!("d{at}/f"), format!("content {at}"))
            .file(&format!("e{at}"), "");
    }
    let summary = receive(open(temp.path()), &tree).unwrap();
    assert_eq!((summary.published_files, summary.directories), (200, 100));
    assert_equal(temp.path(), &tree);
}

#[cfg(target_os = "linux")]
#[test]
fn files_that_wait_to_be_compared_hold_no_handle() {
    let temp = TempDir::new().unwrap();
    let dest = open_with(temp.path(), ReceiveOptions { existing: Existing::Replace, ..options() });
    for index in 0..50 {
        let name = format!("f{index}");
        fs::File::create(temp.path().join(&name)).unwrap().set_len(1 << 21).unwrap();
        let tree = Tree::default().file(&name, "").set(|entry| entry.size_bytes = 1 << 21);
        let entry = &tree.entries[0].0;
        let plan = dest.plan(index, entry).unwrap();
        assert!(matches!(plan, Plan::Delta { .. }), "{plan:?}");
    }
    let handles = fs::read_dir("/proc/self/fd").unwrap();
    let paths = handles.filter_map(|handle| fs::read_link(handle.unwrap().path()).ok());
    let held: Vec<_> = paths.filter(|path| path.starts_with(temp.path()) && path.is_file()).collect();
    assert!(held.len() <= 2, "its journal and its lock, but: {held:?}");
}
