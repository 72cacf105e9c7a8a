//! Symbolic links are created as they are, last, and nothing is ever written through one.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use shiplane_files::internals::{DestinationError, FaultClass, LinkPolicy, Plan, ReceiveOptions, SourceRoot};
use shiplane_wire::LeftOutReason;
use tempfile::TempDir;

use super::tree::{Transfer, Tree, listing, open, open_with, options, overwriting, own_names, receive};

fn leads_to(path: impl AsRef<Path>) -> PathBuf {
    fs::read_link(path).unwrap()
}

fn links(policy: LinkPolicy) -> ReceiveOptions {
    ReceiveOptions { links: policy, ..options() }
}

#[test]
fn links_are_created_as_they_are_with_their_times() {
    let temp = TempDir::new().unwrap();
    let targets = ["d/f", "..", "/etc/passwd", "nowhere/at/all", "d/../../x", "\u{fc}\n"];
    let mut tree = Tree::default().dir("d").file("d/f", "content");
    for (number, target) in targets.into_iter().enumerate() {
        tree = tree.link(&format!("d/{number}"), target);
    }
    let summary = receive(open(temp.path()), &tree).unwrap();
    assert_eq!((summary.links, summary.published_files), (6, 1));
    for (number, target) in targets.into_iter().enumerate() {
        let path = temp.path().join(format!("d/{number}"));
        assert_eq!(leads_to(&path), Path::new(target));
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_600_000_000, 123_456_789));
    }
    let directory = fs::metadata(temp.path().join("d")).unwrap();
    assert_eq!((directory.mtime(), directory.mtime_nsec()), (1_600_000_000, 123_456_789));
    assert_eq!(own_names(temp.path()), [] as [PathBuf; 0]);
    // Nothing is done for those that are there; another time is mended.
    let before = fs::symlink_metadata(temp.path().join("d/0")).unwrap().ino();
    let later = tree.clone().link("d/x", "y").set(|entry| entry.mtime.secs += 1);
    receive(open(temp.path()), &later).unwrap();
    assert_eq!(fs::symlink_metadata(temp.path().join("d/0")).unwrap().ino(), before);
    let mut mended = tree.clone();
    mended.entries.iter_mut().for_each(|(entry, _)| entry.mtime.secs = 5);
    assert_eq!(receive(open(temp.path()), &mended).unwrap().links, 6);
    let found = fs::symlink_metadata(temp.path().join("d/0")).unwrap();
    assert_eq!((found.mtime(), found.ino()), (5, before));
}

#[test]
fn a_source_lists_links_and_what_it_lists_arrives() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    symlink("../outside", from.path().join("out")).unwrap();
    symlink("dangling", from.path().join("in")).unwrap();
    let source = SourceRoot::open(from.path()).unwrap().resolve(b"").unwrap();
    let mut tree = Tree::default();
    for scanned in source.scan() {
        if let shiplane_files::internals::Scanned::Entry(entry) = scanned.unwrap() {
            assert!(source.open(&entry).is_err(), "a link has no content");
            tree.entries.push((entry, Vec::new()));
        }
    }
    receive(open(to.path()), &tree).unwrap();
    assert_eq!(
        (leads_to(to.path().join("out")), leads_to(to.path().join("in"))),
        ("../outside".into(), "dangling".into())
    );
    for (policy, given) in [(LinkPolicy::Inside, 1), (LinkPolicy::Skip, 0)] {
        let mut scan = source.scan();
        scan.take_links(policy);
        let entries =
            scan.filter(|scanned| matches!(scanned, Ok(shiplane_files::internals::Scanned::Entry(_))));
        assert_eq!(entries.count(), given);
    }
}

#[test]
fn links_that_lead_out_are_left_out_where_only_others_are_wanted() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default()
        .dir("d")
        .link("d/in", "../x")
        .link("d/out", "../../x")
        .link("d/abs", "/")
        .file("f", "f");
    let transfer =
        Transfer::plan_what_goes(open_with(temp.path(), links(LinkPolicy::Inside)), &tree).unwrap();
    let left = transfer.dest.take_left_out().unwrap().0;
    let told: Vec<_> = left.iter().map(|left| (left.shown().to_string(), left.reason)).collect();
    let out = |path: &str| (path.to_owned(), LeftOutReason::LinkLeadsOut);
    assert_eq!(told, [out("d/out"), out("d/abs")]);
    transfer.complete().unwrap();
    let names: Vec<_> = listing(temp.path()).into_keys().collect();
    assert_eq!(names, ["d", "d/in", "f"].map(PathBuf::from));

    let temp = TempDir::new().unwrap();
    let transfer = Transfer::plan_what_goes(open_with(temp.path(), links(LinkPolicy::Skip)), &tree).unwrap();
    let left = transfer.dest.take_left_out().unwrap().0;
    assert!(left.len() == 3 && left.iter().all(|left| left.reason == LeftOutReason::Symlink));
}

#[test]
fn a_link_is_laid_after_everything_else_and_nothing_below_it_is_taken() {
    let (temp, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = outside.path().to_str().unwrap();
    let tree = Tree::default().link("l", target).file("f", "f");
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    transfer.publish().unwrap();
    assert!(fs::symlink_metadata(temp.path().join("l")).is_err());
    for below in [
        Tree::default().file("l/x", "x"),
        Tree::default().dir("l/d"),
        Tree::default().file("l", "a file of the same name"),
        Tree::default().dir("l"),
        Tree::default().link("l", "another"),
    ] {
        let error = transfer.dest.plan(9, &below.entries[0].0).unwrap_err();
        assert_eq!(error.class(), FaultClass::Protocol, "{error}");
    }
    transfer.complete().unwrap();
    assert_eq!(leads_to(temp.path().join("l")), outside.path());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_link_that_is_there_is_replaced_on_request_and_a_directory_never() {
    let temp = TempDir::new().unwrap();
    let put = || {
        let _ = fs::remove_file(temp.path().join("link"));
        symlink("old", temp.path().join("link")).unwrap();
        fs::write(temp.path().join("file"), "content").unwrap();
    };
    put();
    fs::create_dir(temp.path().join("dir")).unwrap();
    for name in ["link", "file", "dir"] {
        let error = receive(open(temp.path()), &Tree::default().link(name, "new")).unwrap_err();
        assert!(
            matches!(error, DestinationError::Exists { .. } | DestinationError::WrongKind { .. }),
            "{error}"
        );
    }
    assert_eq!(leads_to(temp.path().join("link")), Path::new("old"));
    receive(open_with(temp.path(), overwriting()), &Tree::default().link("link", "new").link("file", "new"))
        .unwrap();
    for name in ["link", "file"] {
        assert_eq!(leads_to(temp.path().join(name)), Path::new("new"));
    }
    let dest = open_with(temp.path(), overwriting());
    assert_eq!(dest.plan(0, &Tree::default().link("dir", "new").entries[0].0).unwrap(), Plan::LeftOut);
    drop(dest);
    // And the reverse.
    receive(open_with(temp.path(), overwriting()), &Tree::default().file("link", "a file now")).unwrap();
    assert_eq!(fs::read(temp.path().join("link")).unwrap(), b"a file now");
}

#[test]
fn what_takes_the_name_of_a_link_meanwhile_is_kept() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().link("l", "x").link("m", "y");
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    fs::write(temp.path().join("l"), "mine").unwrap();
    assert!(matches!(transfer.complete(), Err(DestinationError::Exists { .. })));
    assert_eq!(fs::read(temp.path().join("l")).unwrap(), b"mine");
    fs::remove_file(temp.path().join("l")).unwrap();
    receive(open(temp.path()), &tree).unwrap();
    assert_eq!(leads_to(temp.path().join("l")), Path::new("x"));
    assert_eq!(own_names(temp.path()), [] as [PathBuf; 0]);
}
