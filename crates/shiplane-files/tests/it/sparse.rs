//! Holes are found, neither wanted nor filled, and checked against the local file.

#![expect(clippy::single_range_in_vec_init, reason = "one hole is a list of one range")]

use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt},
    path::Path,
};

use shiplane_files::internals::{
    Plan, ReceiveOptions, Scanned, SourceRoot,
    sync::{FileState, Stamp},
};
use shiplane_wire::{Digest, DigestAlgorithm, Entry, Holes, Mtime, RelPath};
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, noise, open, open_with, options, overwriting, receive};

const PAGE: u64 = 4096;

/// A file of this number of pages, with holes at these.
fn sparse(pages: u64, holes: &[Range<u64>]) -> (Vec<u8>, Holes) {
    let mut content = noise(9, (pages * PAGE) as usize);
    let ranges: Vec<_> = holes.iter().map(|hole| hole.start * PAGE..hole.end * PAGE).collect();
    for hole in &ranges {
        content[hole.start as usize..hole.end as usize].fill(0);
    }
    (content, Holes::parse(&ranges, pages * PAGE).unwrap())
}

fn tree(content: &[u8], holes: &Holes) -> Tree {
    Tree::default().file("f", content).set(|entry| entry.holes = holes.clone())
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn list(root: &Path) -> Vec<Entry> {
    let source = SourceRoot::open(root).unwrap().resolve(b"").unwrap();
    let entry = |scanned| match scanned {
        Ok(Scanned::Entry(entry)) => Some(entry),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    };
    source.scan().filter_map(entry).collect()
}

#[test]
fn holes_of_a_source_are_found() {
    let temp = TempDir::new().unwrap();
    let file = File::create(temp.path().join("f")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(&[1; 100], 3 * PAGE).unwrap();
    file.write_all_at(&[1; 5000], 1 << 30).unwrap();
    fs::write(temp.path().join("plain"), noise(1, 9000)).unwrap();
    fs::write(temp.path().join("zeros"), [0; 9000]).unwrap();
    let entries = list(temp.path());
    for entry in entries {
        let expected = match entry.path.as_bytes() {
            b"f" => vec![0..3 * PAGE, 4 * PAGE..1 << 30, (1 << 30) + 2 * PAGE..1 << 40],
            _ => vec![],
        };
        assert_eq!(entry.holes.ranges(), expected, "{}", entry.path);
    }
}

#[test]
fn holes_are_not_wanted_and_not_filled() {
    for (pages, holes) in
        [(40, vec![2..5, 7..39]), (40, vec![0..40]), (40, vec![0..1]), (3, vec![1..2]), (1, vec![0..1])]
    {
        let temp = TempDir::new().unwrap();
        let (content, holes) = sparse(pages, &holes);
        let tree = tree(&content, &holes);
        let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
        assert_eq!(transfer.missing_bytes(), pages * PAGE - holes.len_bytes());
        transfer.complete().unwrap();
        assert_equal(temp.path(), &tree);
        assert!(allocated(&temp.path().join("f")) <= pages * PAGE - holes.len_bytes(), "{holes:?}");
        let summary = receive(open(temp.path()), &tree).unwrap();
        assert_eq!((summary.identical_files, summary.published_files), (1, 0));
    }
}

#[test]
fn a_hole_of_a_tebibyte_costs_nothing() {
    let temp = TempDir::new().unwrap();
    let size_bytes = (1 << 40) + 10;
    let holes = Holes::parse(&[0..1 << 40], size_bytes).unwrap();
    let tree = Tree::default().file("f", noise(1, 10)).set(|entry| {
        (entry.size_bytes, entry.holes) = (size_bytes, holes);
    });
    let dest = open(temp.path());
    let Plan::Want { missing, resumed_bytes: 0 } = dest.plan(0, &tree.entries[0].0).unwrap() else {
        panic!()
    };
    assert_eq!(missing, [1 << 40..size_bytes]);
    dest.reserve(10).unwrap();
    let span = shiplane_wire::Span { entry: 0, offset_bytes: 1 << 40, len_bytes: 10 };
    let mut writer = dest.chunk_writer(0, &[span]).unwrap();
    writer.write(&tree.entries[0].1).unwrap();
    let (_, complete) = writer.commit(super::tree::verified(&tree.entries[0].1)).unwrap();
    dest.publish(&complete).unwrap();
    dest.finish().unwrap();
    let path = temp.path().join("f");
    assert_eq!(fs::metadata(&path).unwrap().len(), size_bytes);
    assert!(allocated(&path) < 1 << 16);
    // It is compared without reading the hole on either side.
    let [entry] = &list(temp.path())[..] else { panic!() };
    let verify = ReceiveOptions { verify: true, ..options() };
    let dest = open_with(temp.path(), verify);
    assert!(matches!(dest.plan(0, entry).unwrap(), Plan::Compare { is_likely_same: true }));
    let source = SourceRoot::open(temp.path()).unwrap().resolve(b"").unwrap();
    let theirs = source.open(entry).unwrap().digest_of_data(entry, DigestAlgorithm::Blake3).unwrap();
    assert_eq!(dest.compare(0, entry, theirs).unwrap(), Plan::Done);
    dest.finish().unwrap();
}

#[test]
fn a_file_with_something_in_the_place_of_a_hole_is_another_file() {
    let temp = TempDir::new().unwrap();
    let (content, holes) = sparse(10, &[2..5]);
    let tree = tree(&content, &holes).set(|entry| entry.mtime.secs += 1);
    let data: Vec<_> = holes
        .data(10 * PAGE)
        .flat_map(|range| &content[range.start as usize..range.end as usize])
        .copied()
        .collect();
    for (at, is_same) in [(None, true), (Some(3 * PAGE), false), (Some(8 * PAGE), false)] {
        let mut here = content.clone();
        if let Some(at) = at {
            here[at as usize] ^= 1;
        }
        fs::write(temp.path().join("f"), &here).unwrap();
        let dest = open_with(temp.path(), overwriting());
        assert!(matches!(dest.plan(0, &tree.entries[0].0).unwrap(), Plan::Compare { .. }));
        let plan = dest.compare(0, &tree.entries[0].0, Digest::blake3(&data)).unwrap();
        assert_eq!(plan == Plan::Done, is_same, "{at:?}: {plan:?}");
    }
}

#[test]
fn an_interrupted_run_goes_on_with_a_sparse_file() {
    let temp = TempDir::new().unwrap();
    let (content, holes) = sparse(10, &[2..5, 6..7]);
    let tree = tree(&content, &holes);
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    let first = transfer.deliver(0).unwrap();
    drop(transfer);
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    assert_eq!(transfer.resumed_bytes, first, "holes are not resumed");
    assert_eq!(transfer.missing_bytes(), 10 * PAGE - holes.len_bytes() - first);
    transfer.complete().unwrap();
    assert_equal(temp.path(), &tree);
}

/// Seed 9845 of the simulation: zeros that were written became a hole, on one side alone.
#[test]
fn a_copy_within_a_dataset_has_the_holes_of_its_source_and_no_others() {
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("written"), [0; 9000]).unwrap();
    File::create(temp.path().join("hole")).unwrap().set_len(9000).unwrap();
    let dest = open_with(temp.path(), overwriting());
    let mut hasher = DigestAlgorithm::Blake3.sparse_hasher();
    hasher.update_zeros(9000);
    let stamp = Stamp { mode: 0o644, mtime: Mtime { secs: 1, nanos: 0 } };
    let state = FileState { size_bytes: 9000, digest: hasher.finish(), stamp };
    for (index, from) in [(1 << 63, "written"), ((1 << 63) + 1, "hole")] {
        let [from, to] =
            [from.to_owned(), format!("{from}.copy")].map(|path| RelPath::parse(path.as_bytes()).unwrap());
        assert!(dest.copy_within(index, &from, &to, &state, None).unwrap());
        dest.publish(&[index]).unwrap();
    }
    dest.finish().unwrap();
    for entry in list(temp.path()) {
        let is_hole = entry.path.as_bytes().starts_with(b"hole");
        assert_eq!(entry.holes.is_empty(), !is_hole, "{}", entry.path);
    }
}
