//! Hostile peers, and hostile users of the same machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use shiplane_files::internals::{Destination, DestinationError, FaultClass, Plan, Shape};
use shiplane_wire::{EntryKind, LeftOutReason, Span};
use tempfile::TempDir;

use super::tree::{
    Transfer, Tree, assert_equal, entry, first_left_out, job, journal_of, listing, noise, open, open_with,
    options, overwriting, own_names, receive, verified,
};

/// A destination, and a place outside of it that must not change.
struct Yard {
    _temp: TempDir,
    dest: PathBuf,
    outside: PathBuf,
}

impl Yard {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        let (dest, outside) = (temp.path().join("dest"), temp.path().join("outside"));
        fs::create_dir(&dest).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "untouched").unwrap();
        Self { _temp: temp, dest, outside }
    }

    #[track_caller]
    fn assert_outside_unchanged(&self) {
        let found: Vec<_> = listing(&self.outside).into_iter().collect();
        assert_eq!(found, [("secret".into(), Some(b"untouched".to_vec()))]);
    }
}

#[test]
fn the_order_of_entries_is_checked() {
    let temp = TempDir::new().unwrap();
    let refused = |tree: Tree| {
        let error = receive(open(temp.path()), &tree).unwrap_err();
        assert_eq!(error.class(), FaultClass::Protocol, "{error}");
        error
    };
    let twice = Tree::default().file("a", "1").file("a", "1");
    assert!(matches!(refused(twice), DestinationError::Duplicate { .. }));
    let both = Tree::default().dir("b").file("b", "1");
    assert!(matches!(refused(both), DestinationError::Duplicate { .. }));
    let below_file = Tree::default().file("c", "1").file("c/d", "1");
    assert!(matches!(refused(below_file), DestinationError::NoParent { .. }));
    let early = Tree::default().file("e/f", "1").dir("e");
    assert!(matches!(refused(early), DestinationError::NoParent { .. }));
    // Also where the directory exists.
    fs::create_dir(temp.path().join("g")).unwrap();
    assert!(matches!(refused(Tree::default().file("g/h", "1")), DestinationError::NoParent { .. }));
}

#[test]
fn a_duplicate_is_found_after_the_first_was_published() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", "1");
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    transfer.publish().unwrap();
    let error = transfer.dest.plan(1, &tree.entries[0].0).unwrap_err();
    assert!(matches!(error, DestinationError::Duplicate { .. }), "{error}");
}

#[test]
fn for_one_file_only_that_file_is_taken() {
    let temp = TempDir::new().unwrap();
    let shape = Shape::File { name: b"wanted".into() };
    let open = || Destination::open(&temp.path().join("here"), &shape, job(), options()).unwrap();
    for tree in [
        Tree::default().file("other", "1"),
        Tree::default().dir("wanted"),
        Tree::default().dir("wanted").file("wanted/x", "1"),
        Tree::default().file("wanted", "1").file("wanted", "1"),
        Tree::default().file("wanted", "1").file("more", "1"),
    ] {
        let error = receive(open(), &tree).unwrap_err();
        assert!(matches!(error, DestinationError::NotRequested { .. }), "{error}");
        assert!(!temp.path().join("here").exists());
    }
    receive(open(), &Tree::default().file("wanted", "content")).unwrap();
    assert_equal(temp.path(), &Tree::default().file("here", "content"));
}

#[test]
fn spans_and_lengths_are_checked() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", noise(1, 100)).file("b", noise(2, 100));
    let transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    let dest = &transfer.dest;
    let writer =
        |entry, offset_bytes, len_bytes| dest.chunk_writer(7, &[Span { entry, offset_bytes, len_bytes }]);
    for (offset, len) in [(0, 101), (100, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
        let error = writer(0, offset, len).unwrap_err();
        assert!(matches!(error, DestinationError::SpanOutside { chunk: 7, entry: 0 }), "{error}");
    }
    assert!(matches!(writer(2, 0, 1).unwrap_err(), DestinationError::NotWanted { entry: 2 }));

    let mut long = writer(0, 0, 100).unwrap();
    let error = long.write(&[0; 101]).unwrap_err();
    assert!(
        matches!(error, DestinationError::ChunkLength { actual_bytes: 101, expected_bytes: 100, .. }),
        "{error}"
    );
    let mut short = writer(0, 0, 100).unwrap();
    short.write(&[0; 99]).unwrap();
    let error = short.commit(verified(&[0; 99])).unwrap_err();
    assert!(
        matches!(error, DestinationError::ChunkLength { actual_bytes: 99, expected_bytes: 100, .. }),
        "{error}"
    );
    let mut other = writer(0, 0, 100).unwrap();
    other.write(&[0; 100]).unwrap();
    let error = other.commit(verified(&[0; 50])).unwrap_err();
    assert!(
        matches!(error, DestinationError::ChunkLength { actual_bytes: 50, expected_bytes: 100, .. }),
        "{error}"
    );
    // None of these left anything that counts.
    assert!(matches!(dest.publish(&[0]).unwrap_err(), DestinationError::NotWanted { entry: 0 }));
    transfer.complete().unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn only_complete_files_are_published_and_only_once() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().file("a", noise(1, 2000)).file("b", "b");
    let mut transfer = Transfer::plan(open(temp.path()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    transfer.deliver(2).unwrap();
    assert_eq!(transfer.ready, [1]);
    for entries in [&[1, 0][..], &[1, 1], &[1, 9]] {
        assert!(matches!(transfer.dest.publish(entries), Err(DestinationError::NotWanted { .. })));
        assert!(!temp.path().join("b").exists(), "all of them or none");
    }
    transfer.publish().unwrap();
    assert!(matches!(transfer.dest.publish(&[1]), Err(DestinationError::NotWanted { entry: 1 })));
    let error = transfer.dest.clone().finish().unwrap_err();
    assert!(matches!(error, DestinationError::Unfinished { files: 1 }), "{error}");
}

#[test]
fn names_are_taken_byte_by_byte() {
    let temp = TempDir::new().unwrap();
    let long = [b'x'; 255];
    let mut tree = Tree::default();
    for name in [
        &long[..],
        b"\xff\xfe",
        b"esc\x1b[2J",
        b"CON",
        b"a\\b",
        b"new\nline\r",
        b"x:ads",
        b" ",
        b"A",
        b"a",
        "\u{202e}".as_bytes(),
    ] {
        tree = tree.with(EntryKind::File, name, name);
    }
    for name in ["e\u{301}", "\u{e9}"] {
        tree = tree.dir(name).file(&format!("{name}/f"), name);
    }
    receive(open(temp.path()), &tree).unwrap();
    assert_equal(temp.path(), &tree);
}

#[test]
fn the_deepest_path_is_taken() {
    let temp = TempDir::new().unwrap();
    let component = "d".repeat(127);
    let mut tree = Tree::default();
    let mut path = String::new();
    for depth in 1..256 {
        path.push_str(&component);
        tree = tree.dir(&path);
        path.push('/');
        assert!(depth * 128 == path.len());
    }
    // As long as a path may be, which no system opens in one call.
    path.push_str(&"f".repeat(128));
    assert_eq!(path.len(), 32 << 10);
    tree = tree.file(&path, "deep");
    assert_eq!(receive(open(temp.path()), &tree).unwrap().published_files, 1);
    let listed = listing_beneath(temp.path());
    assert_eq!(listed, 256);
    assert_eq!(receive(open(temp.path()), &tree).unwrap().identical_files, 1);
}

/// How many names there are, each directory entered by its own name, since the whole path is too long.
fn listing_beneath(root: &std::path::Path) -> usize {
    let dir = cap_std::fs::Dir::open_ambient_dir(root, cap_std::ambient_authority()).unwrap();
    let mut open = vec![dir];
    let mut names = 0;
    while let Some(dir) = open.pop() {
        for item in dir.entries().unwrap() {
            let item = item.unwrap();
            names += 1;
            if item.file_type().unwrap().is_dir() {
                open.push(item.open_dir().unwrap());
            }
        }
    }
    names
}

#[test]
fn names_of_our_own_files_are_refused() {
    let temp = TempDir::new().unwrap();
    let transfer_of =
        |name: &str| receive(open_with(temp.path(), overwriting()), &Tree::default().file(name, "x"));
    let mine = open(temp.path());
    let journal = journal_of(temp.path());
    drop(mine);
    let journal = journal.file_name().unwrap().to_str().unwrap();
    for name in [
        journal,
        &journal.to_uppercase(),
        ".shiplane-01234567-0.part",
        ".shiplane-0123456789abcdef.journal.aside-1",
    ] {
        let error = transfer_of(name).unwrap_err();
        assert!(matches!(error, DestinationError::NameRefused { .. }), "{error}");
    }
    transfer_of(".shiplane-notes").unwrap();
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_or_kept_but_not_followed() {
    let yard = Yard::new();
    let tree = Tree::default().file("f", "untouched?");
    for target in [yard.outside.join("secret"), yard.outside.join("new"), "/nowhere".into()] {
        symlink(&target, yard.dest.join("f")).unwrap();
        let error = receive(open(&yard.dest), &tree).unwrap_err();
        assert!(matches!(error, DestinationError::Exists { .. }), "{error}");
        assert_eq!(fs::read_link(yard.dest.join("f")).unwrap(), target);

        receive(open_with(&yard.dest, overwriting()), &tree).unwrap();
        assert_equal(&yard.dest, &tree);
        yard.assert_outside_unchanged();
        fs::remove_file(yard.dest.join("f")).unwrap();
    }
}

#[test]
fn a_directory_that_becomes_a_link_does_not_lead_outside() {
    let tree = Tree::default().dir("d").file("d/f", noise(1, 1500));
    let swap = |yard: &Yard| {
        fs::rename(yard.dest.join("d"), yard.dest.join("moved")).unwrap();
        symlink(&yard.outside, yard.dest.join("d")).unwrap();
    };

    // While the file is written: whether that fails or lands in the directory that was moved, it does not
    // land outside.
    let yard = Yard::new();
    let mut transfer = Transfer::plan(open_with(&yard.dest, overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    swap(&yard);
    let _ = transfer.deliver(1).and_then(|_| transfer.publish());
    let _ = transfer.dest.finish();
    yard.assert_outside_unchanged();

    // Before it was ever opened.
    let yard = Yard::new();
    let dest = open_with(&yard.dest, overwriting());
    dest.plan(0, &tree.entries[0].0).unwrap();
    swap(&yard);
    assert_eq!(dest.plan(1, &tree.entries[1].0).unwrap(), Plan::LeftOut);
    let error = first_left_out(&dest).unwrap();
    assert!(matches!(error, DestinationError::WrongKind { .. }), "{error}");
    yard.assert_outside_unchanged();

    // Between two runs.
    let yard = Yard::new();
    let mut transfer = Transfer::plan(open_with(&yard.dest, overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    drop(transfer);
    swap(&yard);
    let error = receive(open_with(&yard.dest, overwriting()), &tree).unwrap_err();
    assert!(matches!(error, DestinationError::WrongKind { .. }), "{error}");
    yard.assert_outside_unchanged();
}

#[test]
fn a_link_planted_under_a_temporary_name_is_not_written_through() {
    let yard = Yard::new();
    for content in [noise(1, 300), noise(2, 3000)] {
        let tree = Tree::default().file("f", content);
        // Find out the name, which anybody may guess.
        let mut transfer = Transfer::plan(open(&yard.dest), &tree).unwrap();
        transfer.deliver(0).unwrap();
        drop(transfer);
        let parts: Vec<_> =
            own_names(&yard.dest).into_iter().filter(|name| name.extension().unwrap() == "part").collect();
        let [part] = parts.as_slice() else { panic!("{parts:?}") };
        let part = yard.dest.join(part);
        fs::remove_file(&part).unwrap();
        symlink(yard.outside.join("secret"), &part).unwrap();
        receive(open(&yard.dest), &tree).unwrap();
        assert_equal(&yard.dest, &tree);
        yard.assert_outside_unchanged();
        fs::remove_file(yard.dest.join("f")).unwrap();
    }
}

#[test]
fn a_temporary_file_that_has_a_second_name_is_not_written_to() {
    let yard = Yard::new();
    let tree = Tree::default().file("f", noise(1, 3000));
    let mut transfer = Transfer::plan(open(&yard.dest), &tree).unwrap();
    transfer.deliver(0).unwrap();
    drop(transfer);
    let part = own_names(&yard.dest).into_iter().find(|name| name.extension().unwrap() == "part").unwrap();
    fs::hard_link(yard.dest.join(part), yard.outside.join("second")).unwrap();
    let before = fs::read(yard.outside.join("second")).unwrap();
    receive(open(&yard.dest), &tree).unwrap();
    assert_equal(&yard.dest, &tree);
    assert_eq!(fs::read(yard.outside.join("second")).unwrap(), before);
}

#[test]
fn a_size_beyond_any_disk_takes_no_space() {
    let temp = TempDir::new().unwrap();
    let mut huge = entry(EntryKind::File, b"huge", b"1");
    huge.size_bytes = (1 << 62) - 1;
    let dest = open(temp.path());
    dest.plan(0, &huge).unwrap();
    assert!(matches!(dest.reserve(huge.size_bytes), Err(DestinationError::NoSpace { .. })));
    // Nor if the caller does not ask.
    let mut writer =
        dest.chunk_writer(0, &[Span { entry: 0, offset_bytes: 1 << 61, len_bytes: 1000 }]).unwrap();
    let error = writer.write(&[0; 1000]).err().or_else(|| first_left_out(&dest)).unwrap();
    assert_eq!(error.class(), FaultClass::LocalIo, "{error}");
    drop(writer);
    let taken: u64 = own_names(temp.path()).iter().map(|name| blocks(&temp.path().join(name))).sum();
    assert!(taken < 1 << 10, "{taken} blocks");
    dest.discard(0, LeftOutReason::Vanished).unwrap();
    dest.finish().unwrap();
    assert!(listing(temp.path()).is_empty());
}

fn blocks(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    fs::symlink_metadata(path).unwrap().blocks()
}

#[test]
fn an_entry_keeps_its_number() {
    let temp = TempDir::new().unwrap();
    let dest = open(temp.path());
    dest.plan(0, &entry(EntryKind::File, b"a", b"1")).unwrap();
    let error = dest.plan(0, &entry(EntryKind::File, b"b", b"2")).unwrap_err();
    assert!(matches!(error, DestinationError::NotWanted { entry: 0 }), "{error}");
}
