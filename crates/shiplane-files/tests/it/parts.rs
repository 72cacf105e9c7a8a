//! A file of unknown length, which comes in parts.

use std::fs;
use std::path::Path;

use shiplane_files::internals::{
    Destination, DestinationError, Existing, Plan, ReceiveOptions, Shape, Summary,
};
use shiplane_wire::{Digest, Entry, EntryKind, Mtime, Span, Version};
use tempfile::TempDir;

use super::tree::{entry, first_left_out, job, listing, noise, options, own_names, verified};

const ID: [u8; 8] = *b"thisfile";

fn open(root: &Path, existing: Existing) -> Destination {
    let options = ReceiveOptions { existing, ..options() };
    Destination::open(&root.join("f"), &Shape::File { name: b"f".to_vec() }, job(), options).unwrap()
}

fn part(offset_bytes: u64, content: &[u8]) -> Entry {
    let mtime = Mtime { secs: 1_700_000_000 + offset_bytes as i64, nanos: 0 };
    Entry { version: Version::of_part(ID, offset_bytes), mtime, ..entry(EntryKind::File, b"f", content) }
}

/// Sends a part that is wanted as a whole.
fn send(dest: &Destination, offset_bytes: u64, content: &[u8]) {
    let plan = dest.plan_part(&part(offset_bytes, content)).unwrap();
    let len_bytes = content.len() as u64;
    assert_eq!(plan, Plan::Want { missing: std::iter::once(0..len_bytes).collect(), resumed_bytes: 0 });
    deliver(dest, offset_bytes, content);
}

fn deliver(dest: &Destination, offset_bytes: u64, content: &[u8]) {
    let span = Span { entry: 0, offset_bytes, len_bytes: content.len() as u64 };
    let mut writer = dest.chunk_writer(offset_bytes, &[span]).unwrap();
    writer.write(content).unwrap();
    let (_, complete) = writer.commit(verified(content)).unwrap();
    assert_eq!(complete, [], "nobody knows yet that it is whole");
}

fn end(dest: Destination) -> Result<Summary, DestinationError> {
    dest.end_parts()?;
    dest.finish()
}

#[test]
fn parts_become_one_file_at_its_end_and_not_before() {
    let temp = TempDir::new().unwrap();
    let dest = open(temp.path(), Existing::Refuse);
    let content = noise(1, 5000);
    send(&dest, 0, &content[..3000]);
    send(&dest, 3000, &content[3000..]);
    assert!(!temp.path().join("f").exists());
    let summary = end(dest).unwrap();
    assert_eq!((summary.published_files, summary.published_bytes), (1, 5000));
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), content);
    assert_eq!(listing(temp.path()).len(), 1);
    let modified = fs::metadata(temp.path().join("f")).unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 1_700_003_000, "the time of the last part");
}

#[test]
fn an_empty_input_becomes_an_empty_file_and_no_part_at_all_becomes_none() {
    let temp = TempDir::new().unwrap();
    let dest = open(temp.path(), Existing::Refuse);
    assert_eq!(dest.plan_part(&part(0, b"")).unwrap(), Plan::Want { missing: vec![], resumed_bytes: 0 });
    end(dest).unwrap();
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), b"");

    let other = TempDir::new().unwrap();
    let ended = end(open(other.path(), Existing::Refuse));
    assert!(matches!(ended, Err(DestinationError::Unfinished { .. })), "{ended:?}");
    assert!(!other.path().join("f").exists());
}

#[test]
fn a_file_in_parts_resumes_where_another_run_of_it_was_cut_off() {
    let temp = TempDir::new().unwrap();
    let content = noise(2, 9000);
    let dest = open(temp.path(), Existing::Refuse);
    // Whole pieces of 64 KiB there are none; the digest of each chunk is that of its bytes.
    send(&dest, 0, &content[..3000]);
    send(&dest, 3000, &content[3000..6000]);
    drop(dest);

    // What comes first was let go of at 2000, before the end of what is here.
    let dest = open(temp.path(), Existing::Refuse);
    let plan = dest.plan_part(&part(2000, &content[2000..7000])).unwrap();
    assert_eq!(plan, Plan::Want { missing: std::iter::once(4000..5000).collect(), resumed_bytes: 4000 });
    deliver(&dest, 6000, &content[6000..7000]);
    send(&dest, 7000, &content[7000..]);
    let summary = end(dest).unwrap();
    assert_eq!((summary.published_bytes, summary.resumed_bytes), (9000, 6000));
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), content);
    assert_eq!(listing(temp.path()).len(), 1);
}

#[test]
fn a_large_chunk_that_would_be_a_piece_of_a_file_is_verified_again_as_it_was() {
    let temp = TempDir::new().unwrap();
    let content = noise(3, 3 << 16);
    let dest = open(temp.path(), Existing::Refuse);
    send(&dest, 0, &content[..1 << 16]);
    send(&dest, 1 << 16, &content[1 << 16..2 << 16]);
    drop(dest);
    let dest = open(temp.path(), Existing::Refuse);
    send(&dest, 2 << 16, &content[2 << 16..]);
    end(dest).unwrap();
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), content);
}

#[test]
fn what_is_gone_before_the_first_part_cannot_be_resumed_and_nothing_gets_the_name() {
    let content = noise(4, 6000);
    for is_removed in [true, false] {
        let temp = TempDir::new().unwrap();
        let dest = open(temp.path(), Existing::Refuse);
        send(&dest, 0, &content[..3000]);
        drop(dest);
        let temps = own_names(temp.path());
        let part_file = temps.iter().find(|path| path.extension().is_some_and(|end| end == "part")).unwrap();
        let part_file = temp.path().join(part_file);
        if is_removed { fs::remove_file(part_file) } else { fs::write(part_file, [0; 3000]) }.unwrap();
        let dest = open(temp.path(), Existing::Refuse);
        let refused = dest.plan_part(&part(3000, &content[3000..]));
        assert!(matches!(refused, Err(DestinationError::NotResumable { .. })), "{refused:?}");
        drop(dest);
        assert!(!temp.path().join("f").exists());
        // The same from the beginning, and another input, begin anew.
        let dest = open(temp.path(), Existing::Refuse);
        send(&dest, 0, &content);
        end(dest).unwrap();
        assert_eq!(fs::read(temp.path().join("f")).unwrap(), content);
        assert_eq!(listing(temp.path()).len(), 1);
    }
}

#[test]
fn what_another_input_has_left_does_not_count() {
    let temp = TempDir::new().unwrap();
    let dest = open(temp.path(), Existing::Refuse);
    send(&dest, 0, &noise(5, 2000));
    drop(dest);
    let dest = open(temp.path(), Existing::Refuse);
    let other = Entry { version: Version::of_part(*b"anothers", 2000), ..part(2000, b"rest") };
    let refused = dest.plan_part(&other);
    assert!(matches!(refused, Err(DestinationError::NotResumable { .. })), "{refused:?}");
}

#[test]
fn a_file_that_is_there_is_compared_part_by_part_if_it_may_not_be_replaced() {
    let content = noise(6, 4000);
    let run = |there: &[u8]| {
        let temp = TempDir::new().unwrap();
        fs::write(temp.path().join("f"), there).unwrap();
        let dest = open(temp.path(), Existing::Refuse);
        let mut result = Ok(());
        for (offset_bytes, part_content) in [(0, &content[..2500]), (2500, &content[2500..])] {
            let entry = part(offset_bytes, part_content);
            assert_eq!(dest.plan_part(&entry).unwrap(), Plan::Compare { is_likely_same: false });
            result = result.and_then(|()| dest.compare_part(&entry, Digest::blake3(part_content)).map(drop));
        }
        let ended = result.and_then(|()| end(dest));
        assert_eq!(fs::read(temp.path().join("f")).unwrap(), there, "it stays");
        assert!(own_names(temp.path()).is_empty());
        ended
    };
    assert_eq!(run(&content).unwrap().identical_files, 1);
    let mut other = content.clone();
    other[3999] ^= 1;
    for different in [&other[..], &content[..3999], &content[..1000], b"", &[&content[..], b"x"].concat()] {
        let ended = run(different);
        assert!(matches!(ended, Err(DestinationError::Exists { .. })), "{}: {ended:?}", different.len());
    }
}

#[test]
fn a_file_that_is_there_stays_or_is_replaced_as_was_asked_for() {
    let temp = TempDir::new().unwrap();
    fs::write(temp.path().join("f"), "theirs").unwrap();
    let dest = open(temp.path(), Existing::Keep);
    assert_eq!(dest.plan_part(&part(0, b"mine")).unwrap(), Plan::Kept);
    assert_eq!(dest.plan_part(&part(4, b"and more")).unwrap(), Plan::Kept);
    assert_eq!(end(dest).unwrap().kept_files, 1);
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), b"theirs");

    let dest = open(temp.path(), Existing::Replace);
    send(&dest, 0, b"mine");
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), b"theirs", "until the end");
    end(dest).unwrap();
    assert_eq!(fs::read(temp.path().join("f")).unwrap(), b"mine");
    assert_eq!(listing(temp.path()).len(), 1);
}

#[test]
fn a_directory_in_the_way_is_named_and_no_byte_is_wanted() {
    let temp = TempDir::new().unwrap();
    fs::create_dir(temp.path().join("f")).unwrap();
    // It lands in a directory; so there is one of its name in that.
    fs::create_dir(temp.path().join("f/f")).unwrap();
    let dest = open(temp.path(), Existing::Replace);
    assert_eq!(dest.plan_part(&part(0, b"mine")).unwrap(), Plan::LeftOut);
    assert_eq!(dest.plan_part(&part(4, b"more")).unwrap(), Plan::LeftOut);
    assert!(matches!(first_left_out(&dest), Some(DestinationError::WrongKind { .. })));
    end(dest).unwrap();
}

#[test]
fn a_peer_that_sends_other_parts_than_the_next_is_stopped() {
    let first = || part(0, b"0123");
    let bad = [
        part(3, b"overlaps"),
        part(5, b"leaves a gap"),
        first(),
        Entry { version: Version::of_part(*b"anothers", 4), ..part(4, b"of another") },
        Entry { path: entry(EntryKind::File, b"g", b"").path, ..part(4, b"by another name") },
        Entry { size_bytes: u64::MAX - 4, ..part(4, b"") },
        Entry { size_bytes: u64::MAX, ..part(4, b"") },
        Entry { first: Some(0), ..part(4, b"is linked") },
    ];
    for bad in bad {
        let temp = TempDir::new().unwrap();
        let dest = open(temp.path(), Existing::Refuse);
        send(&dest, 0, b"0123");
        let refused = dest.plan_part(&bad);
        assert!(matches!(refused, Err(DestinationError::NotRequested { .. })), "{bad:?}: {refused:?}");
        drop(dest);
        assert!(!temp.path().join("f").exists());
    }
    for kind in [EntryKind::Directory, EntryKind::Symlink] {
        let temp = TempDir::new().unwrap();
        let refused = open(temp.path(), Existing::Refuse).plan_part(&Entry { kind, ..first() });
        assert!(matches!(refused, Err(DestinationError::NotRequested { .. })), "{refused:?}");
    }
}

#[test]
fn an_end_before_all_bytes_are_here_publishes_nothing() {
    let temp = TempDir::new().unwrap();
    let dest = open(temp.path(), Existing::Refuse);
    send(&dest, 0, b"0123");
    dest.plan_part(&part(4, b"never comes")).unwrap();
    let ended = end(dest);
    assert!(matches!(ended, Err(DestinationError::Unfinished { .. })), "{ended:?}");
    assert!(!temp.path().join("f").exists());
}
