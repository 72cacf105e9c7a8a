//! The next run removes what a failing disk left behind.

use shiplane_wire::{LeftOutReason, Span};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use shiplane_files::internals::{DestinationError, disk::Change};
use tempfile::TempDir;

use super::tree::{
    Transfer, Tree, assert_equal, journal_of, noise, open_with, overwriting, own_names, receive, verified,
};
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

/// Seed 7695 of the simulation: the bytes of a file that was half there were lost, and the next run took them for kept.
#[test]
fn after_a_failed_sync_of_a_whole_file_system_nothing_that_was_begun_counts_as_kept() {
    let temp = TempDir::new().unwrap();
    let small = (0..20).fold(Tree::default(), |tree, at| tree.file(&format!("f{at}"), noise(at, 40)));
    let tree = small.dir("d").file("d/large", noise(100, 3500)).file("later", noise(101, 1500));
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    let chunk_of = |transfer: &Transfer<'_>, entry, offset_bytes| {
        let is_it = |spans: &Vec<Span>| spans[0].entry == entry && spans[0].offset_bytes == offset_bytes;
        transfer.chunks.iter().position(is_it).unwrap()
    };
    let (packed, large, later) =
        (chunk_of(&transfer, 0, 0), chunk_of(&transfer, 21, 0), chunk_of(&transfer, 22, 0));
    transfer.deliver(packed).unwrap();
    transfer.deliver(large).unwrap();
    let under_way = large + 1;
    let mut writer = transfer.writer(under_way);
    let content = transfer.content(under_way);
    writer.write(&content[..100]).unwrap();
    let broken = BrokenDisk::below(temp.path(), |change, _| change == Change::SyncAll).with_errno(5);
    let error = transfer.publish().unwrap_err();
    assert!(matches!(error, DestinationError::Poisoned { source: Some(_), .. }), "{error}");
    drop(broken);

    // What comes of it after that is not the peer's fault, and does not count.
    writer.write(&content[100..]).unwrap();
    assert_eq!(writer.commit(verified(&content)).unwrap().1, []);
    transfer.deliver(large + 2).unwrap();
    transfer.deliver(later).unwrap();
    let error = transfer.dest.clone().finish().unwrap_err();
    assert!(matches!(error, DestinationError::Poisoned { .. }), "{error}");
    drop(transfer);

    let again = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    // The other was begun after that.
    assert_eq!(again.missing_bytes(), 20 * 40 + 3500 + 500);
    again.complete().unwrap();
    assert_equal(temp.path(), &tree);
}

/// Seed 9012 of the simulation: a run's file stayed, because the journal that told of that run was gone before its directory
/// was looked at.
#[test]
fn what_is_in_a_directory_that_was_left_out_is_removed_by_the_run_that_can_use_it_again() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().dir("d").file("d/large", noise(1, 3000)).file("small", noise(2, 100));
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    drop(transfer);
    // As a power cut may.
    fs::write(journal_of(temp.path()), "").unwrap();
    assert_eq!(own_names(&temp.path().join("d")).len(), 1);

    let (root, has_failed) = (temp.path().canonicalize().unwrap(), AtomicBool::new(false));
    let is_first = move |change: Change<'_>, at: &Path| {
        change == Change::Name && at == root && !has_failed.swap(true, Ordering::Relaxed)
    };
    let dest = open_with(temp.path(), overwriting());
    let broken = BrokenDisk::below(temp.path(), is_first);
    let left = Transfer::plan_what_goes(dest, &tree).unwrap().complete_what_goes();
    assert_eq!(left.len(), 2, "{left:?}");
    drop(broken);

    let rest = Tree::default().dir("d").file("small", noise(2, 100));
    receive(open_with(temp.path(), overwriting()), &rest).unwrap();
    assert_equal(temp.path(), &rest);
}

/// What a run that was cut has kept of `large`, of two chunks one.
fn leave_large(at: &Path) -> Tree {
    let large = Tree::default().file("large", noise(100, 2000));
    let mut cut = Transfer::plan(open_with(at, overwriting()), &large).unwrap();
    cut.deliver(0).unwrap();
    drop(cut);
    let again = Transfer::plan(open_with(at, overwriting()), &large).unwrap();
    assert_eq!((again.missing_bytes(), again.resumed_bytes), (1000, 1000));
    drop(again);
    large
}

fn small() -> Tree {
    (0..20).fold(Tree::default(), |tree, at| tree.file(&format!("f{at}"), noise(at, 40)))
}

#[test]
fn after_a_failed_sync_of_a_whole_file_system_nothing_that_an_earlier_run_has_left_counts_as_kept() {
    let temp = TempDir::new().unwrap();
    let large = leave_large(temp.path());
    let mut tree = small();
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    let broken = BrokenDisk::below(temp.path(), |change, _| change == Change::SyncAll).with_errno(5);
    let error = transfer.publish().unwrap_err();
    assert!(matches!(error, DestinationError::Poisoned { source: Some(_), .. }), "{error}");
    drop(broken);
    // Nor in this run, which has not planned it yet.
    let plan = transfer.dest.plan(20, &large.entries[0].0).unwrap();
    assert_eq!(plan.missing_bytes(), 2000);
    drop(transfer);
    tree.entries.extend(large.entries);
    let again = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_eq!(again.missing_bytes(), 20 * 40 + 2000);
    again.complete().unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn lost_bytes_that_cannot_be_removed_do_not_count_as_kept_either() {
    let temp = TempDir::new().unwrap();
    leave_large(temp.path());
    let tree = small();
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    let fails = |change: Change<'_>| matches!(change, Change::SyncAll | Change::Unname);
    let broken = BrokenDisk::below(temp.path(), move |change, _| fails(change)).with_errno(5);
    let error = transfer.publish().unwrap_err();
    assert!(matches!(error, DestinationError::Poisoned { .. }), "{error}");
    drop((broken, transfer));
    assert_eq!(own_names(temp.path()).len(), 1 + 20 + 1, "the journal, and what could not be removed");
    let again = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_eq!(again.missing_bytes(), 20 * 40);
    again.complete().unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn after_a_failed_sync_at_the_end_files_are_the_same_only_if_the_disk_has_them() {
    let temp = TempDir::new().unwrap();
    let tree = small().file("large", noise(100, 2000));
    receive(open_with(temp.path(), overwriting()), &tree).unwrap();
    let again = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_eq!(again.missing_bytes(), 0);
    let broken = BrokenDisk::below(temp.path(), |change, _| change == Change::SyncAll).with_errno(5);
    let dest = again.dest.clone();
    let error = again.complete().unwrap_err();
    assert!(matches!(error, DestinationError::Poisoned { source: Some(_), .. }), "{error}");
    drop(broken);
    // A later attempt would prove nothing.
    let error = dest.finish().unwrap_err();
    assert!(matches!(error, DestinationError::Poisoned { source: None, .. }), "{error}");
    // What the disk has of one of them is another thing than the cache had, and the time is the same.
    let file = fs::File::options().write(true).open(temp.path().join("large")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[0; 1000], 0).unwrap();
    file.set_modified(modified).unwrap();
    let again = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    assert_eq!(again.missing_bytes(), 2000);
    let summary = again.complete().unwrap();
    assert_eq!((summary.identical_files, summary.published_files), (20, 1));
    assert_equal(temp.path(), &tree);
}

/// Seed 20501 of the simulation.
#[test]
fn the_temporary_name_of_a_link_that_cannot_be_removed_is_the_next_runs_to_find() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().dir("d").link("d/l", "target");
    let transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    // It is made, but gets neither its name nor lost.
    let calls = AtomicU32::new(0);
    let broken = BrokenDisk::below(temp.path(), move |change, at| {
        let is_name = at.ends_with("d") && matches!(change, Change::Name | Change::Unname);
        is_name && calls.fetch_add(1, Ordering::Relaxed) >= 2
    });
    assert_eq!(transfer.complete_what_goes().len(), 1);
    drop(broken);
    assert_eq!(own_names(temp.path()).len(), 2, "the journal and the link");
    Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap().complete().unwrap();
    assert_eq!(own_names(temp.path()), [""; 0].map(std::path::PathBuf::from));
    assert!(temp.path().join("d/l").is_symlink());
}
