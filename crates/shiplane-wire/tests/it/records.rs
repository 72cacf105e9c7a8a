//! Records of a transfer.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use shiplane_wire::fuzz::records;
use shiplane_wire::limits::{MAX_FRAME_LEN_BYTES, MAX_PAYLOAD_CHUNK_LEN_BYTES, MAX_RECORD_LEN_BYTES};
use shiplane_wire::{
    AccessTag, Attributes, BlockSignature, BlockSignatures, Digest, Entry, EntryKind, EscapedPath, Holes,
    LeftOutReason, LinkTarget, Load, Mtime, Principal, ProviderRecord, ReceiverRecord, RecordError,
    RecordReader, RelPath, Span, Version,
};

use crate::split::{cut, cuts};

proptest! {
    #[test]
    fn provider_records_come_through(sent in prop::collection::vec(provider_record(), 0..8), cuts in cuts()) {
        let stream = encode_all(&sent, ProviderRecord::encode);
        prop_assert_eq!(records(cut(&stream, &cuts), ProviderRecord::encode), (sent, Ok(())));
    }

    #[test]
    fn receiver_records_come_through(sent in prop::collection::vec(receiver_record(), 0..8), cuts in cuts()) {
        let stream = encode_all(&sent, ReceiverRecord::encode);
        prop_assert_eq!(records(cut(&stream, &cuts), ReceiverRecord::encode), (sent, Ok(())));
    }

    #[test]
    fn a_cut_stream_is_truncated(sent in receiver_record(), cuts in cuts(), end in any::<prop::sample::Index>()) {
        let stream = encode_all(&[sent], ReceiverRecord::encode);
        let received_bytes = 1 + end.index(stream.len() - 1);
        let (got, outcome) = records(cut(&stream[..received_bytes], &cuts), ReceiverRecord::encode);
        prop_assert_eq!(got, []);
        prop_assert_eq!(outcome, Err(RecordError::Truncated { received_bytes }));
    }

    #[test]
    fn damaged_records_are_read_the_same_however_they_are_cut(
        sent in prop::collection::vec(provider_record(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in cuts(),
    ) {
        let mut stream = encode_all(&sent, ProviderRecord::encode).to_vec();
        for (at, byte) in damage {
            *at.get_mut(&mut stream) = byte;
        }
        let whole = records(vec![Bytes::from(stream.clone())], ProviderRecord::encode);
        prop_assert_eq!(records(cut(&stream, &cuts), ProviderRecord::encode), whole);
    }

    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(stream in soup(), cuts in cuts()) {
        let whole = records(vec![Bytes::from(stream.clone())], ReceiverRecord::encode);
        prop_assert_eq!(records(cut(&stream, &cuts), ReceiverRecord::encode), whole);
        let whole = records(vec![Bytes::from(stream.clone())], ProviderRecord::encode);
        prop_assert_eq!(records(cut(&stream, &cuts), ProviderRecord::encode), whole);
    }
}

#[test]
fn a_length_is_refused_on_the_header_of_the_record() {
    for len_bytes in [MAX_RECORD_LEN_BYTES + 1, u32::MAX] {
        let mut reader = RecordReader::<ReceiverRecord>::new();
        reader.push(Bytes::from([&[17][..], &len_bytes.to_le_bytes()].concat()));
        let error = RecordError::TooLarge { len_bytes, max_bytes: MAX_RECORD_LEN_BYTES };
        assert_eq!(reader.poll(), Err(error));
        assert_eq!(reader.end(), Err(error));
    }
}

#[test]
fn records_of_the_other_direction_are_unknown() {
    let stream = encode_all(&[ReceiverRecord::Alive], ReceiverRecord::encode);
    let (_, outcome) = records(vec![stream.freeze()], ProviderRecord::encode);
    assert_eq!(outcome, Err(RecordError::UnknownType { tag: 21 }));
    let stream = encode_all(
        &[ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 }],
        ProviderRecord::encode,
    );
    let (_, outcome) = records(vec![stream.freeze()], ReceiverRecord::encode);
    assert_eq!(outcome, Err(RecordError::UnknownType { tag: 7 }));
}

#[test]
fn records_that_were_not_polled_are_not_lost_at_the_end() {
    let mut stream = encode_all(
        &[ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 }],
        ProviderRecord::encode,
    );
    stream.extend_from_slice(&[7]);
    let mut reader = RecordReader::<ProviderRecord>::new();
    reader.push(stream.freeze());
    assert_eq!(reader.end(), Ok(()));
    assert_eq!(reader.poll(), Ok(Some(ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 })));
    assert_eq!(reader.poll(), Err(RecordError::Truncated { received_bytes: 1 }));
}

#[test]
fn input_is_not_kept_once_it_was_polled() {
    let mut stream = encode_all(
        &[
            ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 },
            ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 },
        ],
        ProviderRecord::encode,
    );
    stream.extend_from_slice(&[7, 0]);
    let stream = stream.freeze();
    let mut reader = RecordReader::<ProviderRecord>::new();
    reader.push(stream.clone());
    while reader.poll().unwrap().is_some() {}
    assert!(stream.is_unique());
}

fn encode_all<R>(records: &[R], encode: impl Fn(&R, &mut BytesMut) -> Result<(), RecordError>) -> BytesMut {
    let mut stream = BytesMut::new();
    records.iter().for_each(|record| encode(record, &mut stream).unwrap());
    stream
}

fn provider_record() -> impl Strategy<Value = ProviderRecord> {
    let reason = prop::sample::select(LeftOutReason::ALL.to_vec());
    let signature = (1u32.., any::<[u8; 32]>())
        .prop_map(|(len_bytes, digest)| BlockSignature { len_bytes, digest: Digest::from_bytes(digest) });
    let signatures = (any::<u64>(), 0..1u64 << 61, prop::collection::vec(signature, 1..20));
    prop_oneof![
        entry().prop_map(ProviderRecord::Entry),
        signatures.prop_map(|(entry, offset_bytes, signatures)| ProviderRecord::Signatures(
            BlockSignatures { entry, offset_bytes, signatures }
        )),
        (reason.clone(), any::<Vec<u8>>())
            .prop_map(|(reason, path)| ProviderRecord::LeftOut { reason, path: EscapedPath::new(&path) }),
        any::<(u64, u64)>().prop_map(|(entries, total_bytes)| ProviderRecord::End { entries, total_bytes }),
        any::<(u64, [u8; 32])>().prop_map(|(entry, digest)| {
            ProviderRecord::Digest { entry, digest: Digest::from_bytes(digest) }
        }),
        (any::<u64>(), reason).prop_map(|(entry, reason)| ProviderRecord::Failed { entry, reason }),
        any::<u64>().prop_map(|index| ProviderRecord::ChunkVoid { index }),
        (any::<u32>(), mtime(), any::<bool>()).prop_map(|(mode, mtime, has)| ProviderRecord::TopDirectory {
            mode,
            mtime,
            attributes: has.then(|| attributes(EntryKind::Directory)),
        }),
        any::<(u64, u64)>().prop_map(|(scanned_entries, bytes_per_second)| {
            ProviderRecord::Alive { scanned_entries, bytes_per_second }
        }),
        load().prop_map(ProviderRecord::Load),
        any::<(u64, [u8; 32])>().prop_map(|(chunks, digest)| ProviderRecord::Sent {
            chunks,
            transfer_digest: Digest::from_bytes(digest),
        }),
    ]
}

fn load() -> impl Strategy<Value = Load> {
    let share = || 0..=100u8;
    let shares = (share(), share(), share(), share(), share(), share(), share());
    shares.prop_map(|(disk, digest, limit, network, processor, unfilled, others)| Load {
        disk,
        digest,
        limit,
        network,
        processor,
        unfilled,
        others,
    })
}

fn mtime() -> impl Strategy<Value = Mtime> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Mtime { secs, nanos })
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop::sample::select(vec![EntryKind::File, EntryKind::Directory, EntryKind::Symlink]);
    let target = "[^\0]{1,40}".prop_map(|target| LinkTarget::parse(target.as_bytes()).unwrap());
    let path = "[^/\0.]{1,20}(/[^/\0.]{1,20}){0,3}";
    let size = prop_oneof![0..=MAX_FRAME_LEN_BYTES, 0..9_u64];
    let first = (any::<Option<u64>>(), any::<bool>());
    (kind, any::<u32>(), size, mtime(), any::<[u8; 16]>(), path, target, first).prop_map(
        |(kind, mode, size_bytes, mtime, version, path, target, (first, has_attributes))| Entry {
            kind,
            mode,
            size_bytes: if kind == EntryKind::Symlink { 0 } else { size_bytes },
            mtime,
            version: Version::from_bytes(version),
            path: RelPath::parse(path.as_bytes()).unwrap(),
            target: (kind == EntryKind::Symlink).then_some(target),
            first: first.filter(|_| kind == EntryKind::File),
            holes: match kind {
                EntryKind::File => Holes::parse(&[1..2, 5..7], size_bytes).unwrap_or_default(),
                EntryKind::Directory | EntryKind::Symlink => Holes::default(),
            },
            attributes: has_attributes.then(|| attributes(kind)),
        },
    )
}

fn attributes(kind: EntryKind) -> Attributes {
    let list = [(AccessTag::Owner, 7), (AccessTag::OwnGroup, 5), (AccessTag::Other, 0)];
    let access = if kind == EntryKind::Symlink { &[][..] } else { &list };
    let default = if kind == EntryKind::Directory { &list } else { &[][..] };
    let extended = (kind == EntryKind::File).then_some((&b"user.x"[..], &b"value"[..]));
    let owners = [Principal { id: 5, name: b"me" }, Principal::UNKNOWN];
    Attributes::new(owners, [access, default], extended.into_iter()).unwrap()
}

fn receiver_record() -> impl Strategy<Value = ReceiverRecord> {
    let most = MAX_PAYLOAD_CHUNK_LEN_BYTES / 32;
    let span = (any::<u64>(), 0..1u64 << 61, 1..=most).prop_map(|(entry, offset_bytes, len_bytes)| Span {
        entry,
        offset_bytes,
        len_bytes,
    });
    prop_oneof![
        (span.clone(), 10..=20u32)
            .prop_map(|(span, log)| ReceiverRecord::WantSignatures { span, average_bytes: 1 << log }),
        (any::<u64>(), prop::collection::vec(span, 1..32))
            .prop_map(|(index, spans)| ReceiverRecord::WantChunk { index, spans }),
        any::<u64>().prop_map(|entry| ReceiverRecord::WantDigest { entry }),
        any::<u64>().prop_map(|below| ReceiverRecord::Release { below }),
        (any::<u64>(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(chunks, digest, failed)| {
            ReceiverRecord::Done { chunks, transfer_digest: Digest::from_bytes(digest), failed }
        }),
        Just(ReceiverRecord::Alive),
        load().prop_map(ReceiverRecord::Load),
        any::<u64>().prop_map(|bytes| ReceiverRecord::Admit { bytes }),
        (prop::sample::select(LeftOutReason::ALL.to_vec()), any::<Vec<u8>>(), any::<[u8; 20]>()).prop_map(
            |(reason, path, cause)| {
                let (path, cause) = (EscapedPath::new(&path), EscapedPath::new(&cause));
                ReceiverRecord::LeftOut { reason, path, cause }
            }
        ),
    ]
}

/// Any bytes, behind headers that get them past the first check.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let record = (0u8..26, prop::collection::vec(any::<u8>(), 0..60));
    prop::collection::vec(record, 0..6).prop_map(|records| {
        let records = records.into_iter().map(|(tag, body)| {
            let len_bytes = (body.len() as u32).to_le_bytes();
            [&[tag][..], &len_bytes, &body].concat()
        });
        records.collect::<Vec<_>>().concat()
    })
}
