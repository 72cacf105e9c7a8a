//! Round trips of the messages of a sync.

use proptest::prelude::*;
use shiplane_files::internals::sync::{FileState, Manifest, Node, Stamp};
use shiplane_protocols::internals::{
    OpenFilters,
    sync::{SyncBody, SyncCompare, SyncDirection, SyncList, SyncRequest, SyncResponse},
};
use shiplane_wire::{Digest, Mtime, RelPath};

use super::hostile_asked::changes;

/// A manifest of this number of files.
fn manifest(files: usize) -> Manifest {
    let mut manifest = Manifest::new();
    for i in 0..files {
        let digest = Digest::blake3(&i.to_le_bytes());
        let stamp = Stamp { mode: 0o644, mtime: Mtime { secs: 1, nanos: 2 } };
        let state = FileState { size_bytes: i as u64, digest, stamp };
        manifest.insert(RelPath::parse(format!("{}/{i}", i % 100).as_bytes()).unwrap(), Node::File(state));
    }
    manifest
}

fn any_body() -> impl Strategy<Value = SyncBody> {
    prop_oneof![
        Just(SyncBody::Inline(Vec::new())),
        Just(SyncBody::Inline(changes(&manifest(10_000)))),
        (0usize..50).prop_map(|files| SyncBody::Inline(changes(&manifest(files)))),
        any::<(u64, u64)>().prop_map(|(index, len_bytes)| SyncBody::Lane { index, len_bytes }),
    ]
}

fn any_response() -> impl Strategy<Value = SyncResponse> {
    prop_oneof![
        Just(SyncResponse::Same),
        (any::<Option<[u8; 32]>>(), any::<[u8; 32]>(), any_body()).prop_map(|(base, digest, changes)| {
            SyncResponse::Differs { base, manifest_digest: digest, changes }
        }),
    ]
}

fn any_request() -> impl Strategy<Value = SyncRequest> {
    let path = prop::collection::vec(any::<u8>(), 0..100);
    let rest = (any::<bool>(), any::<[u8; 32]>(), any::<u8>(), any::<Option<u32>>(), any::<bool>());
    let start = (any::<[u8; 16]>(), path, prop::option::of(any_list()));
    (start, rest).prop_map(|((sync, path, list), (dry_run, source, digest, mode, attributes))| SyncRequest {
        sync,
        path,
        list,
        dry_run,
        source,
        digest,
        mode,
        filters: OpenFilters { patterns: vec!["*.o".into()], ..OpenFilters::default() },
        attributes,
        watch: mode.map(|_| (source[..16].try_into().unwrap(), dry_run)),
        direction: if dry_run { SyncDirection::ToCallee } else { SyncDirection::Both },
    })
}

fn any_list() -> impl Strategy<Value = SyncList> {
    let bases = prop_oneof![prop::collection::vec(any::<[u8; 32]>(), 0..3), Just(vec![[7; 32]; 10_000])];
    (any::<[u8; 32]>(), bases).prop_map(|(manifest_digest, bases)| SyncList { manifest_digest, bases })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn requests_come_back(request in any_request()) {
        let bytes = shiplane_rpc::internals::encode(&request).unwrap();
        prop_assert_eq!(shiplane_rpc::internals::decode::<SyncRequest>(&bytes).unwrap(), request);
        prop_assert!(shiplane_rpc::internals::decode::<SyncRequest>(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn comparisons_come_back(sync in any::<[u8; 16]>(), list in any_list()) {
        let compare = SyncCompare { sync, list };
        let bytes = shiplane_rpc::internals::encode(&compare).unwrap();
        prop_assert_eq!(shiplane_rpc::internals::decode::<SyncCompare>(&bytes).unwrap(), compare);
        prop_assert!(shiplane_rpc::internals::decode::<SyncCompare>(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn responses_come_back(response in any_response()) {
        let bytes = shiplane_rpc::internals::encode(&response).unwrap();
        prop_assert_eq!(shiplane_rpc::internals::decode::<SyncResponse>(&bytes).unwrap(), response);
    }
}

#[test]
fn the_bytes_are_these() {
    let request = SyncRequest {
        sync: [1; 16],
        path: b"a".to_vec(),
        list: Some(SyncList { manifest_digest: [2; 32], bases: vec![[3; 32]] }),
        dry_run: true,
        source: [4; 32],
        digest: 2,
        mode: Some(0o700),
        filters: OpenFilters {
            listed: Some(vec![b"b".to_vec()]),
            ignore_files: true,
            ..OpenFilters::default()
        },
        attributes: true,
        watch: Some(([5; 16], true)),
        direction: SyncDirection::ToCaller,
    };
    let one = [1, 0, 0, 0, 0, 0, 0, 0];
    let expected = [
        &[1; 16][..],
        &one,
        b"a",
        &[1],
        &[2; 32],
        &one,
        &[3; 32],
        &[1],
        &[4; 32],
        &[2],
        &[1, 0xc0, 1, 0, 0],
        &[0; 8],
        &[1],
        &one,
        &one,
        b"b",
        &[1, 0],
        &[1],
        &[1],
        &[5; 16],
        &[1],
        &[2, 0, 0, 0],
    ];
    assert_eq!(shiplane_rpc::internals::encode(&request).unwrap()[..], expected.concat());
    let compare = SyncCompare { sync: [1; 16], list: request.list.clone().unwrap() };
    let expected = [&[1; 16][..], &[2; 32], &one, &[3; 32]].concat();
    assert_eq!(shiplane_rpc::internals::encode(&compare).unwrap()[..], expected);
    let changes = SyncBody::Lane { index: 4, len_bytes: 5 };
    let response = SyncResponse::Differs { base: None, manifest_digest: [6; 32], changes };
    let expected =
        [&[1, 0, 0, 0, 0][..], &[6; 32], &[1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(shiplane_rpc::internals::encode(&response).unwrap()[..], expected.concat());
}
