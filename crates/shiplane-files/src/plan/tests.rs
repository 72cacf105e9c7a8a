//! No file system here folds names, so that the destination is told that it does, and what folding would
//! do is done by hand.

use std::fs;
use std::path::Path;

use shiplane_wire::{DigestAlgorithm, Durability, Mtime, Version};
use tempfile::TempDir;

use super::*;
use crate::{
    buffers::SharedMemory, destination::Destination, left_out::LeftOut, names::JobKey,
    resolve::ResolvedDestination, shape::Shape, site::ReceiveOptions,
};

fn site(root: &Path, overwrite: bool) -> (Site, crate::journal::Opened) {
    let options = ReceiveOptions {
        existing: if overwrite { Existing::Replace } else { Existing::Refuse },
        durability: Durability::Verified,
        verify: false,
        links: crate::policy::LinkPolicy::All,
        attributes: false,
        digest: DigestAlgorithm::Blake3,
        chunk_len_bytes: 1000,
    };
    let resolved = ResolvedDestination::find(root, &Shape::Contents, key(), false).unwrap();
    Site::open(resolved, &Shape::Contents, options, &mut ()).unwrap()
}

fn key() -> JobKey {
    JobKey::new(b"peer", b"")
}

fn folding(root: &Path, overwrite: bool) -> Destination {
    let (mut site, opened) = site(root, overwrite);
    site.folds = true;
    Destination::of(site, opened, SharedMemory::default())
}

#[test]
fn a_file_system_folds_if_it_finds_a_name_in_another_case_whatever_inodes_it_shows() {
    let temp = TempDir::new().unwrap();
    assert!(!site(temp.path(), false).0.folds);
    fs::write(temp.path().join(key().journal_name().to_ascii_uppercase()), "").unwrap();
    assert!(site(temp.path(), false).0.folds);
}

fn entry(kind: EntryKind, path: &str) -> Entry {
    Entry {
        kind,
        mode: 0o755,
        size_bytes: 0,
        mtime: Mtime { secs: 1, nanos: 0 },
        version: Version::from_bytes([0; 16]),
        path: RelPath::parse(path.as_bytes()).unwrap(),
        target: None,
        first: None,
        holes: shiplane_wire::Holes::default(),
        attributes: None,
    }
}

#[test]
fn names_that_differ_in_case_collide_where_names_are_folded() {
    let temp = TempDir::new().unwrap();
    let dest = folding(temp.path(), true);
    for (index, path, collides) in
        [(0, "a", false), (1, "A", true), (2, "\u{c9}", false), (3, "\u{e9}", true)]
    {
        let planned = dest.plan(index, &entry(EntryKind::File, path)).unwrap();
        assert_eq!(planned == Plan::LeftOut, collides, "{path}");
        assert_eq!(collisions(&dest), usize::from(collides), "{path}");
    }
}

#[test]
fn what_this_run_has_put_there_is_not_replaced_under_another_name() {
    for overwrite in [false, true] {
        let temp = TempDir::new().unwrap();
        let dest = folding(temp.path(), overwrite);
        dest.plan(0, &entry(EntryKind::File, "composed")).unwrap();
        dest.plan(1, &entry(EntryKind::File, "decomposed")).unwrap();
        dest.publish(&[0]).unwrap();
        fs::hard_link(temp.path().join("composed"), temp.path().join("decomposed")).unwrap();
        fs::hard_link(temp.path().join("composed"), temp.path().join("third")).unwrap();
        assert_eq!(dest.publish(&[1]).unwrap(), []);
        assert_eq!(collisions(&dest), 1);
        assert_eq!(dest.plan(2, &entry(EntryKind::File, "third")).unwrap(), Plan::LeftOut);
        assert_eq!(collisions(&dest), 1);
    }
}

#[test]
fn a_directory_of_this_run_is_not_taken_for_another() {
    let temp = TempDir::new().unwrap();
    let dest = folding(temp.path(), false);
    fs::create_dir(temp.path().join("there")).unwrap();
    dest.plan(0, &entry(EntryKind::Directory, "there")).unwrap();
    dest.plan(1, &entry(EntryKind::Directory, "composed")).unwrap();
    fs::rename(temp.path().join("composed"), temp.path().join("decomposed")).unwrap();
    assert_eq!(dest.plan(2, &entry(EntryKind::Directory, "decomposed")).unwrap(), Plan::LeftOut);
    assert_eq!(collisions(&dest), 1);
}

#[test]
fn what_is_in_a_directory_that_collides_does_not_land_in_the_other_one() {
    let temp = TempDir::new().unwrap();
    let dest = folding(temp.path(), true);
    dest.plan(0, &entry(EntryKind::Directory, "same")).unwrap();
    for (index, kind, path) in [
        (1, EntryKind::Directory, "Same"),
        (2, EntryKind::File, "Same/x"),
        (3, EntryKind::Directory, "Same/d"),
    ] {
        assert_eq!(dest.plan(index, &entry(kind, path)).unwrap(), Plan::LeftOut, "{path}");
    }
    let (left_out, _) = dest.take_left_out().unwrap();
    assert!(left_out.iter().all(|left_out| left_out.reason == LeftOutReason::NameTaken), "{left_out:?}");
    assert_eq!(left_out.len(), 3);
}

/// How many of the paths that are left out are so because of their name.
fn collisions(dest: &Destination) -> usize {
    let (left_out, _) = dest.take_left_out().unwrap();
    let collide = |left_out: &&LeftOut| left_out.reason == LeftOutReason::NameTaken;
    left_out.iter().filter(collide).count()
}
