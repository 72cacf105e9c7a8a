//! Golden bytes, malformed input, and properties.

use proptest::prelude::*;

use super::*;

const STAMP: Stamp = Stamp { mode: 0o640, mtime: Mtime { secs: -2, nanos: 999_999_999 } };

/// A directory after its path.
const DIR: [u8; 17] =
    [1, 0xa0, 1, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x9a, 0x3b];

fn path(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn of(nodes: &[(&str, Option<&[u8]>)]) -> Manifest {
    let mut manifest = Manifest::new();
    for (at, content) in nodes {
        let node = match content {
            None => Node::Directory(STAMP),
            Some(content) => Node::File(FileState {
                size_bytes: content.len() as u64,
                digest: Digest::blake3(content),
                stamp: STAMP,
            }),
        };
        assert!(manifest.insert(path(at), node));
    }
    manifest
}

fn file_bytes(content: &[u8]) -> Vec<u8> {
    [&[0][..], &DIR[1..], &(content.len() as u64).to_le_bytes(), Digest::blake3(content).as_bytes()].concat()
}

/// A link after its path.
fn link_bytes(target: &[u8]) -> Vec<u8> {
    let len = u16::try_from(target.len()).unwrap();
    [&[2][..], &DIR[5..], &len.to_le_bytes(), target].concat()
}

/// The entries as given, in the order given, `count` as claimed.
fn raw(count: u64, entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = [&[2][..], &count.to_le_bytes()].concat();
    for (path, node) in entries {
        bytes.extend_from_slice(&u16::try_from(path.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(node);
    }
    bytes
}

#[test]
fn the_bytes_of_a_manifest_are_these() {
    assert_eq!(Manifest::new().encode(), &[2, 0, 0, 0, 0, 0, 0, 0, 0][..]);
    let manifest = of(&[("a", None), ("a/b", Some(b"hello")), ("a-b", None), ("\u{fc}", Some(b""))]);
    let bytes = raw(
        4,
        &[
            (b"a", &DIR),
            (b"a-b", &DIR),
            (b"a/b", &file_bytes(b"hello")),
            ("\u{fc}".as_bytes(), &file_bytes(b"")),
        ],
    );
    assert_eq!(manifest.encode(), bytes);
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
}

#[test]
fn the_bytes_of_a_link_are_these() {
    let mut manifest = Manifest::new();
    let target = LinkTarget::parse(b"../x").unwrap();
    manifest.insert(path("l"), Node::Link(LinkState { target, mtime: STAMP.mtime }));
    let bytes = raw(1, &[(b"l", &link_bytes(b"../x"))]);
    assert_eq!(manifest.encode(), bytes);
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
}

#[test]
fn attributes_of_an_entry_follow_it_and_keep_their_rules() {
    let owners = b"\x01\0\0\0\x02me\xff\xff\xff\xff\0\0\0\0\0";
    let with = |node: &[u8], attributes: &[u8]| {
        let len = u16::try_from(attributes.len()).unwrap();
        [&[node[0] | 0x40], &node[1..], &len.to_le_bytes(), attributes].concat()
    };
    let link = link_bytes(b"x");
    let bytes = raw(2, &[(b"a", &with(&DIR, owners)), (b"l", &with(&link, owners))]);
    let manifest = Manifest::decode(&bytes).unwrap();
    assert_eq!(manifest.encode(), bytes);
    assert_eq!(manifest.attributes(&path("a")).unwrap().as_bytes(), owners);
    let extended = [&owners[..], b"\x06user.x\0\0"].concat();
    assert!(Manifest::decode(&raw(1, &[(b"a", &with(&DIR, &extended))])).is_ok());
    let capability = [&owners[..], b"\x13security.capability\0\0"].concat();
    for (at, node) in [("a", with(&DIR, &capability)), ("l", with(&link, &extended)), ("a", with(&DIR, b""))]
    {
        let refused = ManifestError::Attributes { path: path(at) };
        assert_eq!(Manifest::decode(&raw(1, &[(at.as_bytes(), &node)])), Err(refused));
    }
    let mut short = with(&DIR, owners);
    short.truncate(short.len() - 1);
    assert_eq!(Manifest::decode(&raw(1, &[(b"a", &short)])), Err(ManifestError::Truncated));
    // What is paid for is all that is kept.
    let mut paid_bytes = 0;
    let paid = Manifest::decode_paid(&bytes, &mut |bytes| {
        paid_bytes += bytes;
        true
    });
    assert_eq!(paid_bytes, paid.unwrap().cost_bytes());
    let base = Manifest::decode(&raw(2, &[(b"a", &DIR), (b"l", &link)])).unwrap();
    for (from, to) in [(&base, &manifest), (&manifest, &base)] {
        let changes = super::super::changes::Changes::between(from, to, std::collections::BTreeMap::new());
        assert_eq!(changes.apply(from).unwrap(), *to);
    }
}

#[test]
fn a_broken_rule_is_reported_as_such() {
    let order = |at| ManifestError::Order { path: path(at) };
    let no_parent = |at| ManifestError::NoParent { path: path(at) };
    let mut late = file_bytes(b"x");
    late[13..17].copy_from_slice(&1_000_000_000_u32.to_le_bytes());
    let dot_dot = ManifestError::Path(PathRefused::DotComponent);
    for (bytes, error) in [
        (vec![], ManifestError::Truncated),
        (vec![1; 9], ManifestError::Version { found: 1 }),
        (raw(0, &[(b"a", &DIR)]), ManifestError::Trailing { len_bytes: 20 }),
        (raw(2, &[(b"a", &DIR)]), ManifestError::Truncated),
        (raw(1, &[(b"a", &[3])]), ManifestError::UnknownKind { kind: 3 }),
        (raw(1, &[(b"a", &late)]), ManifestError::NanosOutOfRange { nanos: 1_000_000_000 }),
        (raw(1, &[(b"a", &link_bytes(b""))]), ManifestError::LinkTarget(LinkTargetRefused::Empty)),
        (raw(1, &[(b"a", &link_bytes(b"x\0"))]), ManifestError::LinkTarget(LinkTargetRefused::Nul)),
        (raw(2, &[(b"a", &link_bytes(b"d")), (b"a/b", &DIR)]), no_parent("a/b")),
        (raw(1, &[(b"..", &DIR)]), dot_dot),
        (raw(1, &[(b"", &DIR)]), ManifestError::Path(PathRefused::Empty)),
        (raw(2, &[(b"b", &DIR), (b"a", &DIR)]), order("a")),
        (raw(2, &[(b"a", &DIR), (b"a", &file_bytes(b"x"))]), order("a")),
        (raw(1, &[(b"a/b", &DIR)]), no_parent("a/b")),
        (raw(2, &[(b"a", &file_bytes(b"x")), (b"a/b", &DIR)]), no_parent("a/b")),
        (raw(2, &[(b"ab", &DIR), (b"abc/d", &DIR)]), no_parent("abc/d")),
    ] {
        assert_eq!(Manifest::decode(&bytes), Err(error));
    }
}

#[test]
fn a_claimed_number_costs_nothing() {
    let over = MAX_ENTRIES as u64 + 1;
    let too_many = |entries| ManifestError::TooManyEntries { entries, max_entries: MAX_ENTRIES };
    assert_eq!(Manifest::decode(&raw(over, &[])), Err(too_many(over)));
    assert_eq!(Manifest::decode(&raw(u64::MAX, &[])), Err(too_many(u64::MAX)));
    assert_eq!(Manifest::decode(&raw(over - 1, &[])), Err(ManifestError::Truncated));
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    let stamp = (any::<u32>(), any::<i64>(), 0..NANOS_PER_SEC)
        .prop_map(|(mode, secs, nanos)| Stamp { mode, mtime: Mtime { secs, nanos } });
    let file = (any::<u64>(), any::<[u8; 32]>());
    let target = "[^\0]{1,20}".prop_map(|target| LinkTarget::parse(target.as_bytes()).unwrap());
    let entry = ("[a-c.-]?[a-c](/[a-c-]{1,3}){0,3}", stamp, prop::option::of(file), prop::option::of(target));
    prop::collection::vec(entry, 0..20).prop_map(|entries| {
        let mut manifest = Manifest::new();
        for (at, stamp, file, target) in entries {
            let node = file.map_or(Node::Directory(stamp), |(size_bytes, digest)| {
                let digest = Digest::from_bytes(digest);
                Node::File(FileState { size_bytes, digest, stamp })
            });
            let link = target.map(|target| Node::Link(LinkState { target, mtime: stamp.mtime }));
            manifest.insert(path(&at), link.unwrap_or(node));
        }
        manifest
    })
}

proptest! {
    #[test]
    fn any_manifest_comes_back(manifest in any_manifest()) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn a_cut_or_longer_one_is_none(manifest in any_manifest(), at: prop::sample::Index, more: u8) {
        let bytes = manifest.encode();
        prop_assert_eq!(Manifest::decode(&bytes[..at.index(bytes.len())]), Err(ManifestError::Truncated));
        let longer = [&bytes[..], &[more]].concat();
        prop_assert_eq!(Manifest::decode(&longer), Err(ManifestError::Trailing { len_bytes: 1 }));
    }

    #[test]
    fn soup_breaks_no_law(soup: Vec<u8>) {
        fuzz_manifest(&soup);
        fuzz_manifest(&[&[2, 1, 0, 0, 0, 0, 0, 0, 0][..], &soup].concat());
    }

    #[test]
    fn nor_does_a_flipped_byte(manifest in any_manifest(), at: prop::sample::Index, flip in 1..=u8::MAX) {
        let mut bytes = manifest.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fuzz_manifest(&bytes);
    }
}
