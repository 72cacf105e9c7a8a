//! Files with several names arrive as such, and nothing else becomes a name of them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use shiplane_files::internals::{
    DestinationError, Existing, Plan, ReceiveOptions, Scanned, SourceRoot, Suffix,
};
use shiplane_wire::LeftOutReason;
use tempfile::TempDir;

use super::tree::{
    Transfer, Tree, assert_equal, first_left_out, listing, noise, open, open_with, options, overwriting,
    own_names, receive,
};

fn inode(root: &TempDir, path: &str) -> u64 {
    fs::symlink_metadata(root.path().join(path)).unwrap().ino()
}

/// A file with three names, and one that looks alike and is another.
fn linked() -> Tree {
    let content = noise(1, 2500);
    let tree = Tree::default().file("a", &content).set(|entry| entry.first = Some(0)).dir("d");
    let tree = tree.file("d/b", &content).set(|entry| entry.first = Some(0));
    tree.file("c", &content).set(|entry| entry.first = Some(0)).file("other", &content)
}

fn as_it_is(existing: Existing) -> ReceiveOptions {
    ReceiveOptions { existing, ..options() }
}

#[test]
fn names_of_a_file_arrive_as_such_and_a_second_run_changes_nothing() {
    let temp = TempDir::new().unwrap();
    let summary = receive(open(temp.path()), &linked()).unwrap();
    assert_eq!((summary.published_files, summary.hard_links), (4, 2));
    assert_eq!(summary.published_bytes, 2 * 2500, "the content of the names came once");
    assert_equal(temp.path(), &linked());
    let [a, b, c, other] = ["a", "d/b", "c", "other"].map(|path| inode(&temp, path));
    assert!(a == b && b == c && a != other);
    let before = fs::symlink_metadata(temp.path().join("a")).unwrap().ctime_nsec();
    let summary = receive(open(temp.path()), &linked()).unwrap();
    assert_eq!((summary.published_files, summary.identical_files), (0, 4));
    assert_eq!(fs::symlink_metadata(temp.path().join("a")).unwrap().ctime_nsec(), before);
    assert_eq!(own_names(temp.path()), [] as [PathBuf; 0]);
}

#[test]
fn a_source_tells_names_of_one_file_from_files_that_look_alike() {
    let temp = TempDir::new().unwrap();
    for (name, content) in [("a", "one"), ("x", "one"), ("single", "1")] {
        fs::write(temp.path().join(name), content).unwrap();
    }
    fs::hard_link(temp.path().join("a"), temp.path().join("b")).unwrap();
    fs::create_dir(temp.path().join("d")).unwrap();
    fs::hard_link(temp.path().join("a"), temp.path().join("d/c")).unwrap();
    let source = SourceRoot::open(temp.path()).unwrap().resolve(b"").unwrap();
    let scan = |is_asked: bool| {
        let mut scan = source.scan();
        if is_asked {
            scan.link_names(Box::new(()));
        }
        let entry = |scanned| match scanned {
            Ok(Scanned::Entry(entry)) => Some((entry.path.to_string(), entry.first)),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        };
        scan.filter_map(entry).collect::<Vec<_>>()
    };
    let found = scan(true);
    let numbers =
        ["a", "b", "d/c"].map(|name| found.iter().position(|(path, _)| path == name).unwrap() as u64);
    let first = *numbers.iter().min().unwrap();
    for (path, of) in &found {
        let is_linked = ["a", "b", "d/c"].contains(&path.as_str());
        assert_eq!(*of, is_linked.then_some(first), "{path}");
    }
    assert!(scan(false).iter().all(|(_, first)| first.is_none()));
}

#[test]
fn a_name_that_is_a_copy_becomes_the_same_file_without_a_permission_and_another_content_does_not() {
    let temp = TempDir::new().unwrap();
    let copies = {
        let mut tree = linked();
        tree.entries.iter_mut().for_each(|(entry, _)| entry.first = None);
        tree
    };
    receive(open(temp.path()), &copies).unwrap();
    assert!(inode(&temp, "a") != inode(&temp, "c"));
    let summary = receive(open_with(temp.path(), as_it_is(Existing::Keep)), &linked()).unwrap();
    assert_eq!((summary.hard_links, summary.identical_files), (0, 4), "what is here stays");
    let summary = receive(open(temp.path()), &linked()).unwrap();
    assert_eq!((summary.hard_links, summary.identical_files), (2, 2));
    assert!(inode(&temp, "a") == inode(&temp, "c") && inode(&temp, "a") == inode(&temp, "d/b"));

    fs::remove_file(temp.path().join("c")).unwrap();
    fs::write(temp.path().join("c"), "mine").unwrap();
    let error = receive(open(temp.path()), &linked()).unwrap_err();
    assert!(matches!(error, DestinationError::Exists { .. }), "{error}");
    let kept = receive(open_with(temp.path(), as_it_is(Existing::Keep)), &linked()).unwrap();
    assert_eq!((kept.kept_files, fs::read(temp.path().join("c")).unwrap()), (1, b"mine".to_vec()));
    let backed_up = as_it_is(Existing::BackUp(Suffix::new(b"~").unwrap()));
    receive(open_with(temp.path(), backed_up), &linked()).unwrap();
    assert_eq!(fs::read(temp.path().join("c~")).unwrap(), b"mine");
    assert!(inode(&temp, "a") == inode(&temp, "c"));
}

#[test]
fn a_file_that_stays_different_here_gets_no_further_name() {
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("a"), "mine").unwrap();
    receive(open_with(temp.path(), as_it_is(Existing::Keep)), &linked()).unwrap();
    assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"mine");
    assert_eq!(fs::read(temp.path().join("c")).unwrap(), noise(1, 2500), "it came by itself");
}

#[test]
fn a_changed_file_is_given_to_all_its_names() {
    let temp = TempDir::new().unwrap();
    receive(open(temp.path()), &linked()).unwrap();
    let mut changed = linked();
    for (entry, content) in changed.entries.iter_mut().filter(|(entry, _)| entry.first.is_some()) {
        content[0] ^= 1;
        entry.mtime.secs += 1;
        entry.version = shiplane_wire::Version::from_bytes([7; 16]);
    }
    let summary = receive(open_with(temp.path(), overwriting()), &changed).unwrap();
    assert_eq!((summary.published_files, summary.hard_links), (3, 2));
    assert_equal(temp.path(), &changed);
    assert!(inode(&temp, "a") == inode(&temp, "c") && inode(&temp, "a") == inode(&temp, "d/b"));
}

#[test]
fn a_name_of_a_file_that_does_not_come_is_left_out_and_told() {
    let temp = TempDir::new().unwrap();
    let tree = linked();
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    transfer.dest.discard(0, LeftOutReason::Changed).unwrap();
    transfer.dest.discard(4, LeftOutReason::Changed).unwrap();
    let dest = transfer.dest.clone();
    drop(transfer);
    dest.clone().finish().unwrap();
    let left = dest.take_left_out().unwrap().0;
    let mut told: Vec<_> = left.iter().map(|left| (left.shown().to_string(), left.reason)).collect();
    told.sort();
    assert_eq!(told, ["c", "d/b"].map(|path| (path.to_owned(), LeftOutReason::Changed)));
    assert_eq!(listing(temp.path()).into_keys().collect::<Vec<_>>(), [PathBuf::from("d")]);
}

#[test]
fn a_link_names_an_earlier_file_of_the_same_state_and_nothing_else() {
    let plans_to = |tree: Tree, first: u64| {
        let temp = TempDir::new().unwrap();
        let number = tree.entries.len() as u64;
        let tree = tree.file("name", "1").set(|entry| entry.first = Some(first));
        let dest = open(temp.path());
        for (index, (entry, _)) in (0..number).zip(&tree.entries) {
            dest.plan(index, entry).unwrap();
        }
        dest.plan(number, &tree.entries.last().unwrap().0)
    };
    let file = |first| Tree::default().file("f", "1").set(|entry| entry.first = first);
    assert_eq!(plans_to(file(Some(0)), 0).unwrap(), Plan::Linked);
    for (why, tree, first) in [
        ("a file that is said to have one name", file(None), 0),
        ("a directory", Tree::default().dir("f"), 0),
        ("a symbolic link", Tree::default().link("f", "x"), 0),
        ("a later entry", file(Some(0)), 2),
        ("far beyond", file(Some(0)), u64::MAX),
        ("a file in another state", Tree::default().file("f", "2").set(|entry| entry.first = Some(0)), 0),
        ("a further name", file(Some(0)).file("g", "1").set(|entry| entry.first = Some(0)), 1),
    ] {
        let error = plans_to(tree, first).unwrap_err();
        assert!(matches!(error, DestinationError::NotRequested { .. }), "{why}: {error}");
    }
}

#[test]
fn what_others_put_in_the_place_of_the_file_gets_no_name() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), noise(1, 2500)).unwrap();
    for swap in [
        |path: &Path, secret: &Path| std::os::unix::fs::symlink(secret, path).unwrap(),
        |path: &Path, _: &Path| fs::create_dir(path).unwrap(),
        |path: &Path, _: &Path| fs::write(path, "shorter").unwrap(),
        |_: &Path, _: &Path| (),
    ] {
        let temp = TempDir::new().unwrap();
        let tree = linked();
        let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
        for chunk in 0..transfer.chunks.len() {
            transfer.deliver(chunk).unwrap();
        }
        transfer.publish().unwrap();
        let path = temp.path().join("a");
        fs::remove_file(&path).unwrap();
        swap(&path, &outside.path().join("secret"));
        let dest = transfer.dest.clone();
        drop(transfer);
        dest.clone().finish().unwrap();
        assert_eq!(dest.take_left_out().unwrap().0.len(), 2);
        assert!(fs::symlink_metadata(temp.path().join("c")).is_err());
        assert_eq!(fs::symlink_metadata(outside.path().join("secret")).unwrap().nlink(), 1);
    }
}

#[test]
fn an_interrupted_run_is_finished_by_the_next_one() {
    let temp = TempDir::new().unwrap();
    let tree = linked();
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    drop(transfer);
    receive(open(temp.path()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
    assert!(inode(&temp, "a") == inode(&temp, "c"));
    assert!(first_left_out(&open(temp.path())).is_none());
}
