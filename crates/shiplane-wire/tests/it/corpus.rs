//! Replays the committed corpus: seeds, and every input that once broke an invariant.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use shiplane_wire::{
    AccessTag, Attributes, BlockSignature, BlockSignatures, Digest, Entry, EntryKind, EscapedPath, Holes,
    LeftOutReason, LinkTarget, Load, Mtime, Principal, ProviderRecord, ReceiverRecord, RelPath, Span,
    StreamHeader, StreamKind, TaggedChunk, TransferId, Version, fuzz, records_opening,
};

#[test]
fn no_file_of_the_corpus_breaks_a_law() {
    let mut replayed = 0;
    for dir in fs::read_dir(root()).unwrap() {
        let dir = dir.unwrap().path();
        let entry = name(&dir);
        let (_, run) = ENTRIES.iter().find(|(known, _)| *known == entry).unwrap();
        for file in fs::read_dir(dir).unwrap() {
            run(&fs::read(file.unwrap().path()).unwrap());
            replayed += 1;
        }
    }
    assert!(replayed >= seeds().values().map(Vec::len).sum::<usize>());
}

#[test]
fn the_seeds_are_in_the_corpus() {
    let seeds = seeds();
    assert!(ENTRIES.iter().map(|(entry, _)| *entry).eq(seeds.keys().copied()), "seeds for every entry");
    for (entry, seeds) in seeds {
        for (name, bytes) in seeds {
            let path = root().join(entry).join(name);
            let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(committed, bytes, "{}: run `write_the_seeds`", path.display());
        }
    }
}

#[test]
#[ignore = "writes the seeds into the source tree, after they were changed here"]
fn write_the_seeds() {
    for (entry, seeds) in seeds() {
        fs::create_dir_all(root().join(entry)).unwrap();
        for (name, bytes) in seeds {
            fs::write(root().join(entry).join(name), bytes).unwrap();
        }
    }
}

type FuzzEntry = fn(&[u8]);

/// In order of their names.
const ENTRIES: [(&str, FuzzEntry); 9] = [
    ("attributes", fuzz::fuzz_attributes),
    ("opening", fuzz::fuzz_opening),
    ("path", fuzz::fuzz_path),
    ("records_provider", fuzz::fuzz_records_provider),
    ("records_receiver", fuzz::fuzz_records_receiver),
    ("recv", fuzz::fuzz_recv),
    ("send", fuzz::fuzz_send),
    ("session", fuzz::fuzz_session),
    ("status", fuzz::fuzz_status),
];

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn seeds() -> BTreeMap<&'static str, Seeds> {
    BTreeMap::from([
        ("attributes", attributes_seeds()),
        ("opening", cut_by(2, openings())),
        ("path", paths()),
        ("records_provider", cut_by(6, provider_records())),
        ("records_receiver", cut_by(6, receiver_records())),
        ("recv", cut_by(4, frames())),
        ("send", cut_by(2, sources())),
        ("session", scripts()),
        ("status", cut_by(0, answers())),
    ])
}

fn openings() -> Seeds {
    let id = TransferId::from_bytes([7; 16]);
    let rpc = StreamHeader::new(StreamKind::RpcCall, 3).unwrap();
    let message = StreamHeader::new(StreamKind::Message, 1 << 20).unwrap();
    vec![
        ("bare", b"\x05\0\0\0\0\0\0\0hello".to_vec()),
        ("rpc", [&rpc.encode()[..], b"abc"].concat()),
        ("message", message.encode().to_vec()),
        ("tagged", [&TaggedChunk { transfer: id, index: 1 }.encode()[..], b"frame"].concat()),
        ("compressed", [&TaggedChunk { transfer: id, index: 1 }.encode_compressed()[..], b"frame"].concat()),
        ("records", records_opening(id).to_vec()),
        ("records-cut", records_opening(id)[..20].to_vec()),
        ("all-ones", vec![0xff; 8]),
        ("reserved-top", vec![0, 0, 0, 0, 0, 0, 0, 0x80]),
        ("reserved-bit", vec![3, 0, 0, 0, 1, 0, 0, 0xc1]),
        ("message-too-large", vec![1, 0, 16, 0, 0, 0, 0, 0xc3]),
        ("tagged-wrong-length", vec![23, 0, 0, 0, 0, 0, 0, 0xc4]),
    ]
}

fn paths() -> Seeds {
    vec![
        ("plain", b"a/b c/d.txt".to_vec()),
        ("dot-dot", b"a/../../x".to_vec()),
        ("absolute", b"/etc/x".to_vec()),
        ("trailing", b"a/".to_vec()),
        ("escape", b"\x1b]52;c;x\x07\xc2\x9b2J\x9b".to_vec()),
        ("bidi", "a\u{202e}txt.exe\u{2066}".into()),
        ("not-utf-8", b"caf\xe9/\xff\xc3".to_vec()),
        ("line-feed", b"a\nb".to_vec()),
        ("component-255", vec![b'x'; 255]),
        ("component-256", vec![b'x'; 256]),
        ("deep", b"a/".repeat(200).into_iter().chain([b'a']).collect()),
    ]
}

fn attributes() -> Attributes {
    let access = [
        (AccessTag::Owner, 6),
        (AccessTag::User(Principal { id: 7, name: b"seven" }), 4),
        (AccessTag::OwnGroup, 4),
        (AccessTag::Group(Principal { id: 8, name: b"" }), 7),
        (AccessTag::Mask, 4),
        (AccessTag::Other, 0),
    ];
    let owners = [Principal { id: 1000, name: b"me" }, Principal { id: 100, name: b"" }];
    let extended = [(&b"trusted.t"[..], &b""[..]), (b"user.u", b"\xff\0")];
    Attributes::new(owners, [&access, &[]], extended.into_iter()).unwrap()
}

fn attributes_seeds() -> Seeds {
    let whole = attributes().as_bytes().to_vec();
    let with = |name: &[u8]| [&whole[..], &[name.len() as u8], name, &[0, 0]].concat();
    vec![
        ("whole", whole.clone()),
        ("unknown-owners", attributes().with_owners([Principal::UNKNOWN; 2]).as_bytes().to_vec()),
        ("capability", with(b"security.capability")),
        ("another", with(b"user.v")),
        ("overlay", with(b"user.overlay.opaque")),
        ("cut", whole[..whole.len() - 1].to_vec()),
    ]
}

fn file_entry() -> Entry {
    Entry {
        kind: EntryKind::File,
        mode: 0o644,
        size_bytes: 5,
        mtime: Mtime { secs: -1, nanos: 999_999_999 },
        version: Version::from_bytes([9; 16]),
        path: RelPath::parse(b"a/b").unwrap(),
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    }
}

fn provider_records() -> Seeds {
    let entry = file_entry();
    let target = Some(LinkTarget::parse(b"../x").unwrap());
    let link = Entry { kind: EntryKind::Symlink, size_bytes: 0, target, ..entry.clone() };
    let holes = Holes::parse(&[0..1, 3..5], 5).unwrap();
    let linked = Entry { first: Some(0), holes, ..entry.clone() };
    let described = Entry { attributes: Some(attributes()), ..entry.clone() };
    let mut described_record = BytesMut::new();
    ProviderRecord::Entry(described.clone()).encode(&mut described_record).unwrap();
    let all = [
        ProviderRecord::Entry(entry),
        ProviderRecord::LeftOut { reason: LeftOutReason::Symlink, path: EscapedPath::new(b"\x1bx") },
        ProviderRecord::End { entries: 1, total_bytes: 5 },
        ProviderRecord::Digest { entry: 0, digest: Digest::sha256(b"hello") },
        ProviderRecord::Failed { entry: 0, reason: LeftOutReason::Vanished },
        ProviderRecord::ChunkVoid { index: 0 },
        ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 },
        ProviderRecord::Sent { chunks: 1, transfer_digest: Digest::sha256(b"hello") },
        ProviderRecord::Load(Load { network: 100, processor: 12, ..Load::default() }),
        ProviderRecord::Signatures(BlockSignatures {
            entry: 0,
            offset_bytes: 1,
            signatures: vec![BlockSignature { len_bytes: 5, digest: Digest::sha256(b"hello") }],
        }),
        ProviderRecord::Offer { spans: vec![Span { entry: 0, offset_bytes: 0, len_bytes: 5 }] },
        ProviderRecord::OffersEnd,
        ProviderRecord::Entry(linked.clone()),
        ProviderRecord::Entry(link.clone()),
        ProviderRecord::TopDirectory {
            mode: 0o700,
            mtime: Mtime { secs: -1, nanos: 999_999_999 },
            attributes: Some(attributes()),
        },
        ProviderRecord::Entry(described.clone()),
    ];
    let mut stream = BytesMut::new();
    all.iter().for_each(|record| record.encode(&mut stream).unwrap());
    let all = stream.to_vec();
    let mut link_record = BytesMut::new();
    ProviderRecord::Entry(link).encode(&mut link_record).unwrap();
    let mut linked_record = BytesMut::new();
    ProviderRecord::Entry(linked).encode(&mut linked_record).unwrap();
    // The file's path, the last bytes of the first record, climbs out.
    let mut climbing = all[..51].to_vec();
    climbing[48..].copy_from_slice(b"../");
    vec![
        ("all", all.clone()),
        ("cut", all[..all.len() - 7].to_vec()),
        ("path-refused", climbing),
        ("not-escaped", b"\x02\x04\0\0\0\0\x01\0\x1b".to_vec()),
        ("link-with-nul", [&link_record[..link_record.len() - 1], &[0]].concat()),
        ("link-without-target", link_record[..link_record.len() - 4].to_vec()),
        ("unknown-type", vec![12, 0, 0, 0, 0]),
        ("offer-empty", vec![9, 2, 0, 0, 0, 0, 0]),
        ("cuts-too-many", [&[8, 18, 0, 0, 0][..], &[0; 16], &[0xff; 2]].concat()),
        ("cut-empty", [&[8, 54, 0, 0, 0][..], &[0; 16], &[1, 0], &[0; 36]].concat()),
        ("too-large", vec![1, 1, 0, 1, 0]),
        ("linked-and-sparse", linked_record.to_vec()),
        ("with-attributes", described_record.to_vec()),
        ("attributes-cut", described_record[..described_record.len() - 1].to_vec()),
        (
            "holes-overlap",
            [&linked_record[..linked_record.len() - 16], &[0; 8], &linked_record[..8]].concat(),
        ),
    ]
}

fn receiver_records() -> Seeds {
    let span = |entry, offset_bytes, len_bytes| Span { entry, offset_bytes, len_bytes };
    let all = [
        ReceiverRecord::WantChunk { index: 0, spans: vec![span(0, 0, 5), span(1, 1 << 40, 7)] },
        ReceiverRecord::WantDigest { entry: 3 },
        ReceiverRecord::Release { below: 2 },
        ReceiverRecord::Done { chunks: 1, transfer_digest: Digest::from_bytes([0xdd; 32]), failed: 0 },
        ReceiverRecord::Alive,
        ReceiverRecord::Load(Load { disk: 90, network: 10, ..Load::default() }),
        ReceiverRecord::WantSignatures { span: span(0, 1, 4), average_bytes: 2048 },
        ReceiverRecord::Admit { bytes: 1 << 17 },
        ReceiverRecord::LeftOut {
            reason: LeftOutReason::InTheWay,
            path: EscapedPath::new(b"\x1bx"),
            cause: EscapedPath::new(b"busy"),
        },
    ];
    let mut stream = BytesMut::new();
    all.iter().for_each(|record| record.encode(&mut stream).unwrap());
    let all = stream.to_vec();
    let want = all[..5 + 10 + 48].to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut want = want.clone();
        want[at..at + bytes.len()].copy_from_slice(bytes);
        want
    };
    vec![
        ("all", all.clone()),
        ("count-of-spans-too-large", with(13, &[0xff, 0xff])),
        ("count-of-spans-wrong", with(13, &[1, 0])),
        ("no-spans", [&[17, 10, 0, 0, 0][..], &[0; 10]].concat()),
        ("span-empty", with(31, &[0; 8])),
        ("span-overflow", with(23, &[0xff; 8])),
        ("chunk-too-large", with(31, &[1, 0, 0, 1])),
        ("cut-average", [&[22, 28, 0, 0, 0][..], &[1; 28]].concat()),
        ("length-of-4-gib", vec![17, 0xff, 0xff, 0xff, 0xff]),
    ]
}

fn frames() -> Seeds {
    let hello = [&b"\x05\0\0\0\0\0\0\0hello"[..], Digest::sha256(b"hello").as_bytes()].concat();
    let mut flipped = hello.clone();
    flipped[9] ^= 4;
    vec![
        ("hello", hello.clone()),
        ("empty", [&[0; 8], &Digest::sha256(b"").as_bytes()[..]].concat()),
        ("flipped", flipped),
        ("cut-in-size", hello[..3].to_vec()),
        ("cut-in-data", hello[..10].to_vec()),
        ("cut-in-digest", hello[..40].to_vec()),
        ("trailing", [&hello[..], b"!"].concat()),
        ("all-ones", vec![0xff; 48]),
    ]
}

fn sources() -> Seeds {
    vec![("exact", b"exactly".to_vec()), ("short", b"short".to_vec()), ("long", b"too long".to_vec())]
}

/// For each thing that happens its kind, and how much of it.
fn scripts() -> Seeds {
    let script = |len: u8, ops: &[(u8, u8)]| {
        std::iter::once(len).chain(ops.iter().map(|(op, count)| op | ((count - 1) << 3))).collect()
    };
    let (supply, source, send, deliver, receive, harm, end, answer) = (0, 1, 2, 3, 4, 5, 6, 7);
    let one_by_one = [(supply, 1), (send, 2), (deliver, 1), (receive, 1)].repeat(50);
    vec![
        ("nothing-happens", script(7, &[])),
        (
            "empty-chunk",
            script(0, &[(send, 5), (deliver, 32), (deliver, 8), (receive, 5), (answer, 1), (end, 1)]),
        ),
        ("one-by-one", script(2, &one_by_one)),
        ("flipped", script(2, &[(supply, 6), (send, 3), (harm, 8), (deliver, 32)])),
        ("size-flipped", script(2, &[(send, 1), (harm, 2), (deliver, 32), (receive, 1), (answer, 1)])),
        ("byte-lost", script(2, &[(supply, 6), (send, 4), (harm, 10), (deliver, 32)])),
        ("byte-added-at-the-end", script(0, &[(send, 5), (deliver, 32), (deliver, 7), (harm, 6)])),
        ("cut", script(9, &[(supply, 9), (send, 3), (deliver, 12), (end, 32), (receive, 9)])),
        ("cut-in-size", script(9, &[(send, 1), (deliver, 3), (end, 32)])),
        ("source-short", script(9, &[(supply, 9), (send, 3), (source, 31), (deliver, 32)])),
        ("source-long", script(2, &[(supply, 3), (source, 32), (deliver, 32)])),
    ]
}

fn answers() -> Seeds {
    vec![
        ("stored", vec![0]),
        ("checksum-failed", vec![1]),
        ("error", vec![2]),
        ("unknown", vec![7]),
        ("two", vec![0, 0]),
        ("none", vec![]),
    ]
}

/// Puts before each input the byte that says how long its pieces are, less one.
fn cut_by(len: u8, seeds: Seeds) -> Seeds {
    let cut = |(name, bytes): (&'static str, Vec<u8>)| (name, [&[len][..], &bytes].concat());
    seeds.into_iter().map(cut).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
