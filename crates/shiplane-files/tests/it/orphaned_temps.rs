//! The next run removes what a failing disk left behind.

use shiplane_wire::LeftOutReason;
use std::fs;
use std::path::Path;

use shiplane_files::internals::{DestinationError, disk::Change};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, noise, open_with, overwriting, own_names, receive};
use crate::broken_disk::BrokenDisk;

#[test]
fn a_file_that_could_not_be_removed_is_removed_by_the_next_run_though_its_directory_is_no_longer_meant() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().dir("d").file("d/large", noise(1, 3000)).file("small", noise(2, 100));
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    let directory = temp.path().join("d");
    let broken =
        BrokenDisk::below(temp.path(), move |change, at| change == Change::Unname && at == directory);
    transfer.dest.discard(1, LeftOutReason::Vanished).unwrap_err();
    drop(transfer);
    drop(broken);
    assert_eq!(own_names(&temp.path().join("d")).len(), 1);

    let rest = Tree::default().file("small", noise(2, 100));
    receive(open_with(temp.path(), overwriting()), &rest).unwrap();
    assert_eq!(own_names(temp.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn after_a_reported_success_nothing_is_left_behind() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().dir("d").file("d/a", noise(1, 500)).file("b", noise(2, 500));
    let root = temp.path().canonicalize().unwrap();
    let broken = BrokenDisk::below(temp.path(), move |change, at| change == Change::Unname && at == root);
    let error = receive(open_with(temp.path(), overwriting()), &tree).unwrap_err();
    assert!(matches!(error, DestinationError::Io { .. }), "{error}");
    drop(broken);
    receive(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
}

/// In a directory that was there before, a temporary file may be durable and the journal's name not.
#[test]
fn the_journal_has_a_durable_name_before_anything_that_only_it_knows_of() {
    let temp = TempDir::new().unwrap();
    fs::create_dir_all(temp.path().join("old/new")).unwrap();
    fs::remove_dir(temp.path().join("old/new")).unwrap();
    let tree = Tree::default().dir("old").dir("old/new").file("old/new/a", noise(1, 500));
    let watched = BrokenDisk::below(temp.path(), |_, _| false);
    receive(open_with(temp.path(), overwriting()), &tree).unwrap();
    let calls = watched.calls();
    let at = |what: &str, path: &str| calls.iter().position(|call| *call == at_path(what, path)).unwrap();
    assert!(at("sync", "") < at("name", "old/new"), "{calls:?}");

    // As new as the journal: there is nothing to wait for.
    let fresh = TempDir::new().unwrap();
    let watched = BrokenDisk::below(fresh.path(), |_, _| false);
    receive(open_with(fresh.path(), overwriting()), &tree).unwrap();
    let calls = watched.calls();
    let at = |what: &str, path: &str| calls.iter().position(|call| *call == at_path(what, path)).unwrap();
    assert!(at("sync", "") > at("name", "old/new"), "{calls:?}");
}

fn at_path(what: &str, path: &str) -> (&'static str, std::path::PathBuf) {
    let what = ["name", "sync"].into_iter().find(|name| *name == what).unwrap();
    (what, Path::new(path).to_owned())
}
