//! What abandoned jobs leave, and what removes it.

use std::fs;
use std::time::Duration;

use shiplane_files::internals::{CleanReport, Destination, Shape, clean};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, job, listing, open, options, own_names};

/// Interrupts a transfer into `dir` of the temporary directory after its first chunk.
fn interrupt(temp: &TempDir, dir: &str) {
    let dest = temp.path().join(dir);
    let tree = Tree::mixed();
    let mut transfer = Transfer::plan(open(&dest), &tree).unwrap();
    transfer.deliver(0).unwrap();
}

fn removed(found: &CleanReport) -> usize {
    assert!(found.failed.is_empty(), "{found:?}");
    found.removed.len()
}

#[test]
fn leftovers_of_abandoned_jobs_are_removed_and_nothing_else() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("dest")).unwrap();
    fs::write(temp.path().join("dest/.shiplane.notes"), "mine").unwrap();
    interrupt(&temp, "dest");
    let left = own_names(temp.path()).len();
    assert!(left >= 2, "a journal and a temporary file");
    let would = clean(temp.path(), Duration::ZERO, true).unwrap();
    assert_eq!((removed(&would), own_names(temp.path()).len()), (left, left), "a dry run");
    let done = clean(temp.path(), Duration::ZERO, false).unwrap();
    assert_eq!((removed(&done), own_names(temp.path()).len()), (left, 0));
    assert!(done.removed.iter().any(|leftover| leftover.allocated_bytes > 0));
    assert!(temp.path().join("dest/.shiplane.notes").exists());
    assert_eq!(removed(&clean(temp.path(), Duration::ZERO, false).unwrap()), 0, "the second time");
}

#[test]
fn a_job_that_was_interrupted_lately_can_still_be_resumed() {
    let temp = TempDir::new().unwrap();
    interrupt(&temp, "dest");
    let before = listing(temp.path());
    let found = clean(temp.path(), Duration::from_secs(3600), false).unwrap();
    assert_eq!((removed(&found), found.kept as usize), (0, own_names(temp.path()).len()));
    assert_eq!(listing(temp.path()), before);
}

#[test]
fn a_running_job_keeps_its_files_wherever_they_are() {
    let temp = TempDir::new().unwrap();
    let dest = temp.path().join("dest");
    let tree = Tree::default().dir("sub").file("sub/large", vec![7; 3300]);
    let mut running = Transfer::plan(open(&dest), &tree).unwrap();
    running.deliver(0).unwrap();
    let before = own_names(temp.path());
    assert!(before.len() >= 2, "{before:?}");
    // From above, at the journal, and below it, where only the temporary file is.
    for place in ["", "dest", "dest/sub"] {
        let found = clean(&temp.path().join(place), Duration::ZERO, false).unwrap();
        assert_eq!(removed(&found), 0, "{place}");
        assert!(found.kept > 0, "{place}");
    }
    assert_eq!(own_names(temp.path()), before);
    running.complete().unwrap();

    // Of another job in the same directory nothing stays.
    let other = shiplane_files::internals::JobKey::new(b"peer", b"other");
    let held = Destination::open(&dest, &Shape::Contents, other, options()).unwrap();
    let again = Destination::open(&dest, &Shape::Contents, job(), options()).unwrap();
    let tree = Tree::mixed();
    let mut abandoned = Transfer::plan(again, &tree).unwrap();
    abandoned.deliver(0).unwrap();
    drop(abandoned);
    assert!(removed(&clean(&dest, Duration::ZERO, false).unwrap()) >= 2);
    assert_eq!(own_names(&dest).len(), 1, "the journal of the one that runs");
    drop(held);
}

#[test]
fn temporary_files_without_a_journal_are_removed_too() {
    let temp = TempDir::new().unwrap();
    interrupt(&temp, "dest");
    let journal =
        own_names(temp.path()).into_iter().find(|name| name.to_string_lossy().ends_with(".journal"));
    fs::remove_file(temp.path().join(journal.unwrap())).unwrap();
    assert!(removed(&clean(temp.path(), Duration::ZERO, false).unwrap()) >= 1);
    assert_eq!(own_names(temp.path()), Vec::<std::path::PathBuf>::new());
}
