//! Destination paths, and files left behind by a run.

use std::fs;
use std::path::Path;

use shiplane_files::internals::{Destination, DestinationError, Shape};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, job, listing, open, options, own_names, receive};

fn file() -> Shape {
    Shape::File { name: b"name".into() }
}

fn directory() -> Shape {
    Shape::Directory { name: b"name".into() }
}

fn land(dest: &Path, shape: &Shape) -> Result<(), DestinationError> {
    let tree = match shape {
        Shape::File { .. } => Tree::default().file("name", "content"),
        Shape::Directory { .. } | Shape::Contents => Tree::default().file("inner", "content"),
    };
    receive(Destination::open(dest, shape, job(), options())?, &tree).map(drop)
}

/// What each shape lands as, for each way to say where. Each twice: the second time nothing may change.
#[test]
fn the_same_destination_is_the_same_place_again() {
    for (shape, dest, lands) in [
        (file(), "dir", "dir/name"),
        (file(), "dir/", "dir/name"),
        (file(), "new", "new"),
        (file(), "new/", "new/name"),
        (file(), "dir/new", "dir/new"),
        (file(), "none/below/new", "none/below/new"),
        (file(), "none/below/", "none/below/name"),
        (file(), "link-to-dir", "dir/name"),
        (directory(), "dir", "dir/inner"),
        (directory(), "dir/", "dir/name/inner"),
        (directory(), "new", "new/inner"),
        (directory(), "new/", "new/name/inner"),
        (directory(), "dir/new", "dir/new/inner"),
        (directory(), "none/below/new", "none/below/new/inner"),
        (directory(), "none/below/", "none/below/name/inner"),
        (directory(), "link-to-dir", "dir/inner"),
        (directory(), "link-to-dir/", "dir/name/inner"),
        (Shape::Contents, "dir", "dir/inner"),
        (Shape::Contents, "dir/", "dir/inner"),
        (Shape::Contents, "new", "new/inner"),
        (Shape::Contents, "none/below/", "none/below/inner"),
    ] {
        let temp = TempDir::new().unwrap();
        fs::create_dir(temp.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("dir", temp.path().join("link-to-dir")).unwrap();
        land(&temp.path().join(dest), &shape).unwrap();
        let found = fs::read(temp.path().join(lands));
        assert_eq!(found.ok().as_deref(), Some(&b"content"[..]), "{shape:?} as {dest}");
        assert_eq!(own_names(temp.path()), Vec::<std::path::PathBuf>::new(), "{shape:?} as {dest}");
        let before = listing(temp.path());
        land(&temp.path().join(dest), &shape).unwrap();
        assert_eq!(listing(temp.path()), before, "{shape:?} as {dest}");
    }
}

#[test]
fn a_destination_that_cannot_be_is_refused_and_nothing_is_made() {
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("file"), "mine").unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", temp.path().join("dangling")).unwrap();
    let before = listing(temp.path());
    for shape in [directory(), Shape::Contents] {
        for dest in ["file", "file/", "file/below", "dangling", "dangling/", "dangling/below"] {
            let error = land(&temp.path().join(dest), &shape).unwrap_err();
            assert!(matches!(error, DestinationError::WrongKind { .. }), "{dest}: {error}");
        }
    }
    for dest in ["file/", "file/below", "dangling/", "dangling/below"] {
        let error = land(&temp.path().join(dest), &file()).unwrap_err();
        assert!(matches!(error, DestinationError::WrongKind { .. }), "{dest}: {error}");
    }
    assert_eq!(listing(temp.path()), before);
}

#[test]
fn a_link_with_the_name_of_the_directory_is_not_followed() {
    let temp = TempDir::new().unwrap();
    for dir in ["outside", "dest"] {
        fs::create_dir(temp.path().join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("../outside", temp.path().join("dest/name")).unwrap();
    let error = land(&temp.path().join("dest/"), &directory()).unwrap_err();
    assert!(matches!(error, DestinationError::WrongKind { .. }), "{error}");
    assert!(listing(&temp.path().join("outside")).is_empty());
}

#[test]
fn the_name_of_what_was_asked_for_is_checked_like_any_other() {
    let temp = TempDir::new().unwrap();
    for name in [&b".."[..], b"", b"a/b", b"/etc", b"a\0b", b".shiplane-0123456789abcdef.journal"] {
        for shape in [Shape::File { name: name.into() }, Shape::Directory { name: name.into() }] {
            let error = Destination::open(&temp.path().join(""), &shape, job(), options()).unwrap_err();
            assert!(matches!(error, DestinationError::NameRefused { .. }), "{error}");
        }
    }
    assert!(listing(temp.path()).is_empty());
}

#[test]
fn a_run_that_is_resumed_lands_where_it_began() {
    let temp = TempDir::new().unwrap();
    let dest = temp.path().join("new");
    let tree = Tree::mixed();
    let open = || Destination::open(&dest, &directory(), job(), options()).unwrap();
    let mut transfer = Transfer::plan(open(), &tree).unwrap();
    transfer.deliver(0).unwrap();
    drop(transfer);
    receive(open(), &tree).unwrap();
    assert_equal(&dest, &tree);
    let before = listing(&dest);
    // The job is done, so that the next one is another.
    receive(open(), &tree).unwrap();
    assert_eq!(listing(&dest), before);
}

#[test]
fn a_run_that_does_nothing_leaves_nothing() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("dir")).unwrap();
    let before = listing(temp.path());
    for dest in ["new", "dir", "new/", "none/below/new"] {
        for shape in [file(), directory(), Shape::Contents] {
            drop(Destination::open(&temp.path().join(dest), &shape, job(), options()).unwrap());
            assert_eq!(listing(temp.path()), before, "{shape:?} as {dest}");
        }
    }
}

#[test]
fn a_run_that_only_made_directories_leaves_no_journal_where_none_is_needed() {
    let tree = Tree::mixed();
    let temp = TempDir::new().unwrap();
    drop(Transfer::plan(open(temp.path()), &tree).unwrap());
    assert!(temp.path().read_dir().unwrap().next().is_some(), "its directories stay");
    assert_eq!(own_names(temp.path()), Vec::<std::path::PathBuf>::new());
    // What the run itself has made must be found again by the next one: its journal says so.
    let dest = temp.path().join("new");
    let open = || Destination::open(&dest, &directory(), job(), options()).unwrap();
    drop(Transfer::plan(open(), &tree).unwrap());
    assert_ne!(own_names(&dest), Vec::<std::path::PathBuf>::new());
    receive(open(), &tree).unwrap();
    assert_equal(&dest, &tree);
}

#[test]
fn two_runs_of_a_job_do_not_mix_but_two_jobs_do() {
    let temp = TempDir::new().unwrap();
    let open = |shape, job| Destination::open(temp.path(), &shape, job, options());
    let first = open(Shape::Contents, job()).unwrap();
    let error = open(Shape::Contents, job()).unwrap_err();
    assert!(
        matches!(&error, DestinationError::Busy { journal } if journal.contains(".shiplane-")),
        "{error}"
    );
    let other = shiplane_files::internals::JobKey::new(b"peer", b"other");
    drop(open(Shape::Contents, other).unwrap());
    // Files that land side by side do not exclude each other.
    let one = open(Shape::File { name: b"one".into() }, job()).unwrap();
    drop(open(Shape::File { name: b"two".into() }, job()).unwrap());
    drop((first, one));
    open(Shape::Contents, job()).unwrap();
}
