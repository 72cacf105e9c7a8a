//! Tests of the provider's records.

use std::vec::Vec;

use super::*;
use crate::{AccessTag, BlockSignature, LinkTargetRefused, PathRefused, Principal, RecordReader};

#[test]
fn records_have_these_bytes() {
    let digest = Digest::from_bytes([0xdd; 32]);
    let path = EscapedPath::new(b"x\x1b");
    let signature = |len_bytes| BlockSignature { len_bytes, digest };
    let signatures = BlockSignatures {
        entry: 6,
        offset_bytes: 0x0201,
        signatures: [signature(9), signature(0x0100)].into(),
    };
    let span = Span { entry: 1, offset_bytes: 2, len_bytes: 3 };
    let load = Load { disk: 1, digest: 2, limit: 3, network: 94, processor: 50, unfilled: 0, others: 100 };
    let cases: [(ProviderRecord, &[u8]); 14] = [
        (
            ProviderRecord::Entry(entry()),
            b"\x01\x2e\0\0\0\0\xa4\x81\0\0\x05\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
              \x01\0\0\0vvvvvvvvvvvvvvvv\x03\0a/b",
        ),
        (
            ProviderRecord::Entry(link()),
            b"\x01\x32\0\0\0\x02\xa4\x81\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
              \x01\0\0\0vvvvvvvvvvvvvvvv\x03\0a/b\x02\0..",
        ),
        (ProviderRecord::LeftOut { reason: LeftOutReason::Name, path }, b"\x02\x08\0\0\0\x02\x05\0x\\x1b"),
        (
            ProviderRecord::End { entries: 2, total_bytes: 0x0102 },
            b"\x03\x10\0\0\0\x02\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0",
        ),
        (
            ProviderRecord::Digest { entry: 3, digest },
            &[&b"\x04\x28\0\0\0\x03\0\0\0\0\0\0\0"[..], &[0xdd; 32]].concat(),
        ),
        (
            ProviderRecord::Failed { entry: 4, reason: LeftOutReason::Vanished },
            b"\x05\x09\0\0\0\x04\0\0\0\0\0\0\0\x05",
        ),
        (ProviderRecord::ChunkVoid { index: 5 }, b"\x06\x08\0\0\0\x05\0\0\0\0\0\0\0"),
        (
            ProviderRecord::Alive { scanned_entries: 3, bytes_per_second: 500 },
            b"\x07\x10\0\0\0\x03\0\0\0\0\0\0\0\xf4\x01\0\0\0\0\0\0",
        ),
        (
            ProviderRecord::Signatures(signatures),
            &[
                &b"\x08\x5a\0\0\0\x06\0\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x02\0"[..],
                b"\x09\0\0\0",
                &[0xdd; 32],
                b"\0\x01\0\0",
                &[0xdd; 32],
            ]
            .concat(),
        ),
        (
            ProviderRecord::Offer { spans: [span].into() },
            b"\x09\x1a\0\0\0\x01\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
        ),
        (ProviderRecord::OffersEnd, b"\x0a\0\0\0\0"),
        (top(0o700, -2, 3), b"\x0b\x10\0\0\0\xc0\x01\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\x03\0\0\0"),
        (
            ProviderRecord::Sent { chunks: 9, transfer_digest: digest },
            &[&b"\x0d\x28\0\0\0\x09\0\0\0\0\0\0\0"[..], &[0xdd; 32]].concat(),
        ),
        (ProviderRecord::Load(load), b"\x0c\x07\0\0\0\x01\x02\x03\x5e\x32\0\x64"),
    ];
    for (record, bytes) in cases {
        assert_eq!(encode(&record).unwrap(), bytes, "{record:?}");
        assert_eq!(decode(bytes), Ok(Some(record)));
    }
}

fn top(mode: u32, secs: i64, nanos: u32) -> ProviderRecord {
    ProviderRecord::TopDirectory { mode, mtime: Mtime { secs, nanos }, attributes: None }
}

#[test]
fn a_file_with_other_names_and_holes_has_these_bytes() {
    let holes = Holes::parse(&[0..1, 3..5], 5).unwrap();
    let record = ProviderRecord::Entry(Entry { first: Some(7), holes, ..entry() });
    let bytes = b"\x01\x58\0\0\0\x30\xa4\x81\0\0\x05\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
          \x01\0\0\0vvvvvvvvvvvvvvvv\x03\0a/b\x07\0\0\0\0\0\0\0\
          \x02\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0";
    assert_eq!(encode(&record).unwrap(), bytes);
    assert_eq!(decode(bytes), Ok(Some(record)));
}

#[test]
fn the_version_of_a_part_has_these_bytes() {
    let version = Version::of_part(*b"\xa0id of i", 0x0102_0304);
    assert_eq!(version.as_bytes(), b"\xa0id of i\x04\x03\x02\x01\0\0\0\0");
    assert_eq!(version.part(), (*b"\xa0id of i", 0x0102_0304));
    assert_eq!(Version::from_bytes([0xff; 16]).part(), ([0xff; 8], u64::MAX));
}

#[test]
fn an_entry_that_breaks_a_rule_is_neither_sent_nor_taken() {
    let nanos = 1_000_000_000;
    let mtime = Mtime { secs: 0, nanos };
    let size_bytes = MAX_FRAME_LEN_BYTES + 1;
    let too_large = RecordError::FileTooLarge { size_bytes, max_bytes: MAX_FRAME_LEN_BYTES };
    let bad = [
        (Entry { mtime, ..entry() }, 26, &nanos.to_le_bytes()[..], RecordError::NanosOutOfRange { nanos }),
        (Entry { size_bytes, ..entry() }, 10, &size_bytes.to_le_bytes()[..], too_large),
    ];
    for (entry, at, field, error) in bad {
        assert_eq!(encode(&ProviderRecord::Entry(entry)), Err(error));
        assert_eq!(decode(&patched(at, field)), Err(error));
    }
}

#[test]
fn an_entry_with_a_refused_path_has_that_code() {
    // The last three bytes of the record are the path.
    let error = decode(&patched(48, b"../")).unwrap_err();
    assert_eq!(error, RecordError::Path(PathRefused::DotComponent));
    assert_eq!(error.code(), crate::Code::PathRefused);
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    // The path's length is at 46, the body's at 1.
    let wrong = RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 46 };
    assert_eq!(decode(&patched(46, &[1, 0])), Err(wrong));
    assert_eq!(decode(&patched(46, &[4, 0])), Err(wrong));
    assert_eq!(decode(&patched(46, &[0xff, 0xff])), Err(wrong));
    let wrong = RecordError::WrongBodyLen { tag: ALIVE, len_bytes: 1 };
    assert_eq!(decode(b"\x07\x01\0\0\0!"), Err(wrong));
    let wrong = RecordError::WrongBodyLen { tag: END, len_bytes: 15 };
    assert_eq!(decode(b"\x03\x0f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), Err(wrong));
}

#[test]
fn unknown_values_are_refused() {
    let unknown = |field, value| Err(RecordError::UnknownValue { field, value });
    assert_eq!(decode(&patched(5, &[3])), unknown("entry kind", 3));
    assert_eq!(decode(b"\x02\x03\0\0\0\x0e\0\0"), unknown("reason", 14));
    assert_eq!(decode(b"\x05\x09\0\0\0\0\0\0\0\0\0\0\0\x0e"), unknown("reason", 14));
    let nanos = 1_000_000_000;
    let top = ProviderRecord::TopDirectory { mode: 0, mtime: Mtime { secs: 0, nanos }, attributes: None };
    assert_eq!(encode(&top), Err(RecordError::NanosOutOfRange { nanos }));
    assert_eq!(decode(b"\x0e\0\0\0\0"), Err(RecordError::UnknownType { tag: 14 }));
    assert_eq!(decode(b"\x09\x02\0\0\0\0\0"), Err(RecordError::NoSpans));
    assert_eq!(decode(b"\0\0\0\0\0"), Err(RecordError::UnknownType { tag: 0 }));
    assert_eq!(decode(b"\x02\x04\0\0\0\0\x01\0\x1b"), Err(RecordError::NotEscaped));
}

#[test]
fn a_link_has_a_target_and_no_size_and_nothing_else_has_one() {
    let target = link().target;
    for wrong in [
        Entry { target: None, ..link() },
        Entry { size_bytes: 1, ..link() },
        Entry { target: target.clone(), ..entry() },
        Entry { kind: EntryKind::Directory, size_bytes: 0, target, ..entry() },
    ] {
        assert_eq!(encode(&ProviderRecord::Entry(wrong)), Err(RecordError::WrongTarget));
    }
    let record = encode(&ProviderRecord::Entry(link())).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut record = record.clone();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&record)
    };
    assert_eq!(with(10, &[1]), Err(RecordError::WrongTarget));
    assert_eq!(with(53, b"\0"), Err(RecordError::LinkTarget(LinkTargetRefused::Nul)));
    let wrong = RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 50 };
    for len in [[1, 0], [3, 0], [0xff, 0xff]] {
        assert_eq!(with(51, &len), Err(wrong));
    }
    // What is called a link ends before its target; what is called a file goes on after its path.
    assert_eq!(decode(&patched(5, &[2])), Err(RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 46 }));
    assert_eq!(with(5, &[0]), Err(wrong));
    let mut empty = record[..53].to_vec();
    (empty[1], empty[51]) = (48, 0);
    assert_eq!(decode(&empty), Err(RecordError::LinkTarget(LinkTargetRefused::Empty)));
}

#[test]
fn only_a_file_has_other_names_or_holes_and_holes_keep_their_rules() {
    let holes = Holes::parse(&[0..1, 3..5], 5).unwrap();
    for wrong in [
        Entry { first: Some(0), ..link() },
        Entry { first: Some(0), kind: EntryKind::Directory, ..entry() },
        Entry { holes: holes.clone(), kind: EntryKind::Directory, ..entry() },
    ] {
        assert_eq!(encode(&ProviderRecord::Entry(wrong)), Err(RecordError::NotOfAFile));
    }
    let short = Entry { holes: holes.clone(), size_bytes: 4, ..entry() };
    assert_eq!(encode(&ProviderRecord::Entry(short)), Err(RecordError::WrongHoles));
    let record = encode(&ProviderRecord::Entry(Entry { holes, ..entry() })).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut record = record.clone();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&record)
    };
    // The count is at 51, then start and length of each.
    for (at, wrong) in
        [(53, 2_u64), (53, u64::MAX), (61, 0), (61, 3), (61, 1 << 62), (69, 0), (69, 1), (77, 3)]
    {
        assert_eq!(with(at, &wrong.to_le_bytes()), Err(RecordError::WrongHoles), "{at} {wrong}");
    }
    let wrong = RecordError::WrongBodyLen { tag: ENTRY, len_bytes: 80 };
    for count in [[1, 0], [3, 0], [0xff, 0xff]] {
        assert_eq!(with(51, &count), Err(wrong));
    }
    let mut none = record[..53].to_vec();
    (none[1], none[51]) = (48, 0);
    assert_eq!(decode(&none), Err(RecordError::WrongHoles));
    assert_eq!(with(5, &[0x21]), Err(RecordError::NotOfAFile));
    assert_eq!(with(5, &[0xa0]), Err(RecordError::UnknownValue { field: "entry kind", value: 0xa0 }));
}

#[test]
fn an_entry_with_attributes_has_these_bytes_and_each_kind_has_its_own() {
    let me = Principal { id: 1, name: b"me" };
    let owners_alone = Attributes::new([me, Principal::UNKNOWN], [&[], &[]], core::iter::empty()).unwrap();
    let owners = b"\x01\0\0\0\x02me\xff\xff\xff\xff\0";
    let record = ProviderRecord::Entry(Entry { attributes: Some(owners_alone.clone()), ..link() });
    let mut bytes = encode(&ProviderRecord::Entry(link())).unwrap();
    (bytes[1], bytes[5]) = (bytes[1] + 18, 0x42);
    bytes.extend_from_slice(&[&b"\x10\0"[..], owners, &[0; 4]].concat());
    assert_eq!(encode(&record).unwrap(), bytes);
    assert_eq!(decode(&bytes), Ok(Some(record)));
    let top =
        |attributes| ProviderRecord::TopDirectory { mode: 0, mtime: Mtime { secs: 0, nanos: 0 }, attributes };
    let mut bytes = encode(&top(None)).unwrap();
    bytes[1] += 18;
    bytes.extend_from_slice(&[&b"\x10\0"[..], owners, &[0; 4]].concat());
    assert_eq!(encode(&top(Some(owners_alone.clone()))).unwrap(), bytes);
    assert_eq!(decode(&bytes), Ok(Some(top(Some(owners_alone)))));
    bytes[28] = 0;
    assert_eq!(decode(&bytes), Err(RecordError::WrongAttributes), "in a name");
    let list = [(AccessTag::Owner, 7), (AccessTag::OwnGroup, 5), (AccessTag::Other, 0)];
    let of = |lists, extended: &[(&'static [u8], &'static [u8])]| {
        Attributes::new([me; 2], lists, extended.iter().copied())
    };
    let [default, named] = [of([&[], &list], &[]), of([&[], &[]], &[(b"user.x", b"")])];
    assert!(default.is_some() && named.is_some());
    for (wrong, right) in [
        (Entry { attributes: default.clone(), ..entry() }, Entry { attributes: named.clone(), ..entry() }),
        (
            Entry { attributes: named, ..link() },
            Entry { attributes: default, kind: EntryKind::Directory, size_bytes: 0, ..entry() },
        ),
    ] {
        assert_eq!(encode(&ProviderRecord::Entry(wrong)), Err(RecordError::WrongAttributes));
        assert!(encode(&ProviderRecord::Entry(right)).is_ok());
    }
    assert_eq!(RecordError::WrongAttributes.code(), crate::Code::Protocol);
}

#[test]
fn an_entry_is_at_most_as_long_with_attributes_as_without() {
    let owners = [Principal::UNKNOWN; 2];
    let attributes = |len| {
        let value = std::vec![7; len];
        Attributes::new(owners, [&[], &[]], [(&b"user.x"[..], &value[..])].into_iter())
    };
    let most = crate::limits::MAX_ATTRIBUTES_LEN_BYTES - 23;
    assert!(attributes(most).is_some() && attributes(most + 1).is_none());
    let with = |path_len: usize| {
        let path = [&b"/a".repeat(path_len / 2 - 1)[..]].concat();
        let path = RelPath::parse(&[b"bb", &path[..]].concat()).unwrap();
        encode(&ProviderRecord::Entry(Entry { attributes: attributes(most), path, ..entry() }))
    };
    let longest = with(3584).unwrap();
    assert!(longest.len() <= 64 << 10);
    assert!(decode(&longest).is_ok());
    let len_bytes = (64 << 10) + 2;
    let error = RecordError::EntryTooLarge { len_bytes, max_bytes: 64 << 10 };
    assert_eq!(with(3586), Err(error));
    assert_eq!(error.code(), crate::Code::TooLarge);
}

#[test]
fn the_longest_entry_fits_its_record_and_what_may_come_at_first() {
    let path = RelPath::parse(&[b"bb", &b"/a".repeat((16 << 10) - 1)[..]].concat()).unwrap();
    assert_eq!(path.as_bytes().len(), crate::limits::MAX_PATH_LEN_BYTES);
    let holes: Vec<_> = (0..1024).map(|at| 2 * at..2 * at + 1).collect();
    let holes = Holes::parse(&holes, 4096).unwrap();
    let entry = Entry { size_bytes: 4096, first: Some(0), holes, path, ..entry() };
    assert!(entry.cost_bytes() <= FIRST_ENTRY_BYTES);
    let record = encode(&ProviderRecord::Entry(entry.clone())).unwrap();
    assert_eq!(record.len() - 5, 49_205);
    assert_eq!(decode(&record), Ok(Some(ProviderRecord::Entry(entry))));
}

#[test]
fn a_record_that_is_refused_leaves_no_bytes_behind() {
    let mut out = BytesMut::new();
    let too_large = Entry { size_bytes: u64::MAX, ..entry() };
    assert!(ProviderRecord::Entry(too_large).encode(&mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn a_share_above_a_hundred_is_neither_sent_nor_taken() {
    let refused = RecordError::UnknownValue { field: "share of a load", value: 101 };
    let load = Load { others: 101, ..Load::default() };
    assert_eq!(encode(&ProviderRecord::Load(load)), Err(refused));
    assert_eq!(decode(b"\x0c\x07\0\0\0\0\0\0\0\0\0\x65"), Err(refused));
}

fn entry() -> Entry {
    Entry {
        kind: EntryKind::File,
        mode: 0o100_644,
        size_bytes: 5,
        mtime: Mtime { secs: -1, nanos: 1 },
        version: Version::from_bytes([b'v'; 16]),
        path: RelPath::parse(b"a/b").unwrap(),
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    }
}

fn link() -> Entry {
    let target = Some(LinkTarget::parse(b"..").unwrap());
    Entry { kind: EntryKind::Symlink, size_bytes: 0, target, ..entry() }
}

fn encode(record: &ProviderRecord) -> Result<Vec<u8>, RecordError> {
    let mut out = BytesMut::new();
    record.encode(&mut out)?;
    Ok(out.to_vec())
}

fn decode(bytes: &[u8]) -> Result<Option<ProviderRecord>, RecordError> {
    let mut reader = RecordReader::new();
    reader.push(bytes.to_vec().into());
    reader.poll()
}

/// The record of `entry` with other bytes in one place.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut record = encode(&ProviderRecord::Entry(entry())).unwrap();
    record[at..at + bytes.len()].copy_from_slice(bytes);
    record
}
