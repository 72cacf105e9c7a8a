//! One path that fails is left out, and everything else goes on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use shiplane_files::internals::{
    Destination, DestinationError, NameRefused, Plan, TopDirectory, disk::Change,
};
use shiplane_wire::{LeftOutReason, Mtime};
use tempfile::TempDir;

use super::{
    broken_disk::BrokenDisk,
    tree::{Transfer, Tree, assert_equal, listing, noise, open, open_with, overwriting},
};

const EINVAL: i32 = 22;
const EMFILE: i32 = 24;

/// What is left out, with the reasons, in order of the paths.
fn left_out(dest: &Destination) -> Vec<(String, LeftOutReason)> {
    let (left_out, unnamed) = dest.take_left_out().unwrap();
    assert_eq!(unnamed, 0);
    let mut told: Vec<_> =
        left_out.iter().map(|left_out| (left_out.shown().to_string(), left_out.reason)).collect();
    told.sort();
    told
}

/// Takes all that can be taken; gives what is left out.
fn receive_the_rest(dest: Destination, tree: &Tree) -> Vec<(String, LeftOutReason)> {
    let transfer = Transfer::plan_what_goes(dest.clone(), tree).unwrap();
    let mut left = left_out(&dest);
    left.extend(transfer.complete_what_goes());
    left.sort();
    left
}

fn in_directory(name: &'static str) -> impl Fn(Change<'_>, &Path) -> bool + Send + Sync {
    move |change, path| change == Change::Name && path.ends_with(name)
}

#[test]
fn a_directory_that_cannot_be_written_blocks_nothing_else() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("locked")).unwrap();
    let broken = BrokenDisk::below(temp.path(), in_directory("locked"));
    let tree = Tree::default()
        .file("a", noise(1, 100))
        .dir("locked")
        .dir("locked/d")
        .file("locked/d/x", "deep")
        .file("locked/large", noise(2, 5000))
        .file("locked/small", "s")
        .file("locked/void", "")
        .dir("other")
        .file("other/b", "b");
    let left = receive_the_rest(open(temp.path()), &tree);
    let refused = ["locked/d", "locked/d/x", "locked/large", "locked/small", "locked/void"];
    assert_eq!(left, refused.map(|path| (path.to_owned(), LeftOutReason::Failed)));
    drop(broken);
    let arrived = Tree::default().file("a", noise(1, 100)).dir("locked").dir("other").file("other/b", "b");
    assert_equal(temp.path(), &arrived);
}

#[test]
fn a_name_that_the_file_system_refuses_is_reported_and_blocks_nothing_else() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("d")).unwrap();
    // The temporary file has a name that it takes; the final one it refuses.
    let names = AtomicUsize::new(0);
    let refuses = move |change: Change<'_>, path: &Path| {
        change == Change::Name && path.ends_with("d") && names.fetch_add(1, Ordering::Relaxed) == 1
    };
    let broken = BrokenDisk::below(temp.path(), refuses).with_errno(EINVAL);
    let tree = Tree::default().file("a", "a").dir("d").file("d/10:30 notes.txt", "notes").file("z", "z");
    let left = receive_the_rest(open(temp.path()), &tree);
    assert_eq!(left, [("d/10:30 notes.txt".to_owned(), LeftOutReason::Name)]);
    drop(broken);
    assert_equal(temp.path(), &Tree::default().file("a", "a").dir("d").file("z", "z"));

    let broken = BrokenDisk::below(temp.path(), in_directory("d")).with_errno(EINVAL);
    let dest = open(temp.path());
    dest.plan(0, &tree.entries[1].0).unwrap();
    let directory = Tree::default().dir("d/what?");
    assert_eq!(dest.plan(1, &directory.entries[0].0).unwrap(), Plan::LeftOut);
    let (left, _) = dest.take_left_out().unwrap();
    let refused = DestinationError::NameRefused { path: String::new(), reason: NameRefused::FileSystem };
    assert_eq!(
        std::mem::discriminant(&*left[0].error),
        std::mem::discriminant(&refused),
        "{}",
        left[0].error
    );
    drop(broken);
}

#[test]
fn a_shortage_of_descriptors_is_no_fault_of_a_path_and_ends_the_transfer() {
    let temp = TempDir::new().unwrap();
    let broken = BrokenDisk::below(temp.path(), |change, path| change == Change::Name && path.ends_with("d"))
        .with_errno(EMFILE);
    let tree = Tree::default().dir("d").file("d/x", "x");
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    let error = transfer.deliver(0).unwrap_err();
    assert!(matches!(error, DestinationError::Io { .. }), "{error}");
    drop(broken);
}

#[test]
fn what_stands_in_the_way_is_left_out_when_overwriting() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("file")).unwrap();
    fs::write(temp.path().join("dir"), "a file").unwrap();
    let before = listing(temp.path());
    let tree = Tree::default().dir("dir").file("dir/x", "x").file("file", "f").file("ok", "ok");
    let left = receive_the_rest(open_with(temp.path(), overwriting()), &tree);
    let in_the_way = |path: &str| (path.to_owned(), LeftOutReason::InTheWay);
    assert_eq!(left, [in_the_way("dir"), in_the_way("dir/x"), in_the_way("file")]);
    fs::remove_file(temp.path().join("ok")).unwrap();
    assert_eq!(listing(temp.path()), before);
}

#[test]
fn a_mode_or_time_that_may_not_be_changed_is_named_and_the_content_arrives() {
    const NOT_PERMITTED: i32 = 1;
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("f", "f").set(|entry| entry.mode = 0o640).dir("d").file("d/g", "g");
    {
        let is_refused = |change: Change<'_>, _: &Path| change == Change::Metadata;
        let _disk = BrokenDisk::below(temp.path(), is_refused).with_errno(NOT_PERMITTED);
        let left = receive_the_rest(open(temp.path()), &tree);
        assert_eq!(left, ["d", "d/g", "f"].map(|path| (path.to_owned(), LeftOutReason::NotPermitted)));
        assert_equal(temp.path(), &tree);
        // Nor for the destination directory itself, which has no name in it.
        let dest = open(temp.path());
        dest.plan_top(TopDirectory { mode: 0o751, mtime: Mtime { secs: 5, nanos: 0 }, attributes: None })
            .unwrap();
        let top = (".".to_owned(), LeftOutReason::NotPermitted);
        assert_eq!(receive_the_rest(dest, &tree), [&[top], &left[..]].concat());
        // Nor is it silent when they are there already.
        assert_eq!(receive_the_rest(open(temp.path()), &tree), left);
    }
    assert_eq!(receive_the_rest(open(temp.path()), &tree), []);
    assert_eq!(fs::metadata(temp.path().join("f")).unwrap().permissions().mode() & 0o777, 0o640);
}
