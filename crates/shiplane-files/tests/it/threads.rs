//! Concurrent chunks, as in a real transfer.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, noise, open, receive, verified};

/// Delivers every chunk from several threads, each publishing what its own commits complete.
fn receive_on(threads: usize, transfer: &Transfer<'_>) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let chunk = next.fetch_add(1, Ordering::Relaxed);
                    if chunk >= transfer.chunks.len() {
                        return;
                    }
                    let content = transfer.content(chunk);
                    let mut writer = transfer.writer(chunk);
                    content.chunks(333).for_each(|piece| writer.write(piece).unwrap());
                    let (_, complete) = writer.commit(verified(&content)).unwrap();
                    transfer.dest.publish(&complete).unwrap();
                }
            });
        }
    });
}

#[test]
fn chunks_of_the_same_and_of_many_files_are_written_at_once() {
    for round in 0..5 {
        let temp = TempDir::new().unwrap();
        let mut tree =
            Tree::default().file("large", noise(round, 40_500)).dir("d").file("larger", noise(9, 60_000));
        for at in 0..60 {
            tree = tree.file(&format!("d/{at}"), noise(at, 200 + usize::from(at)));
        }
        let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
        receive_on(8, &transfer);
        transfer.dest.finish().unwrap();
        assert_equal(temp.path(), &tree);
    }
}

#[test]
fn more_large_files_than_may_be_open_are_written_by_turns() {
    let temp = TempDir::new().unwrap();
    let files = 150;
    let tree =
        (0..files).fold(Tree::default(), |tree, at| tree.file(&format!("f{at}"), noise(at as u8, 2_500)));
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    // One chunk of each, then the next of each: no file is complete before all are open.
    let order: Vec<usize> = (0..3).flat_map(|part| (0..files).map(move |at| 3 * at + part)).collect();
    let mut most_open = 0;
    for chunk in order {
        transfer.deliver(chunk).unwrap();
        most_open = most_open.max(open_parts(temp.path()));
    }
    assert!((10..=64).contains(&most_open), "{most_open} were open");
    transfer.publish().unwrap();
    transfer.dest.finish().unwrap();
    assert_equal(temp.path(), &tree);
}

/// How many files of this process are open beneath `root` under a temporary name.
fn open_parts(root: &std::path::Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let targets = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    targets.filter(|path| path.starts_with(root) && path.extension().is_some_and(|end| end == "part")).count()
}

#[test]
fn of_runs_that_start_at_once_one_works() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::mixed();
    let (worked, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = Mutex::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                use shiplane_files::internals::{Destination, DestinationError, Shape};
                let opened = Destination::open(
                    temp.path(),
                    &Shape::Contents,
                    super::tree::job(),
                    super::tree::options(),
                );
                match opened {
                    Ok(dest) => {
                        receive(dest, &tree).unwrap();
                        worked.fetch_add(1, Ordering::Relaxed);
                        *done.lock().unwrap() = true;
                    }
                    Err(DestinationError::Busy { .. }) => drop(busy.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    // Those that came after the first had finished found everything identical.
    assert!(*done.lock().unwrap() && worked.into_inner() + busy.into_inner() == 8);
    assert_equal(temp.path(), &tree);
}
