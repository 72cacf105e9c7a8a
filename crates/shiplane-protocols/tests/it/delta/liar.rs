//! A provider that sends false block signatures: a typed error, and the old version stays.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use shiplane_files::internals::{Destination, LinkPolicy, ReceiveOptions};
use shiplane_protocols::internals::{
    Fetch, FetchError,
    transfer::{FilesReport, ProtocolFault, TransferError, TransferOptions},
};
use shiplane_rpc::{Method, Router, RpcClient};
use shiplane_transport::{Admission, PeerAddr, QuicTransport, Trust};
use shiplane_wire::{
    BlockSignature, BlockSignatures, Digest, DigestAlgorithm, Durability, Entry, EntryKind, Holes,
    LeftOutReason, Mtime, ProviderRecord, ReceiverRecord, RecordReader, RelPath, TransferId, Version,
};
use tempfile::TempDir;

use crate::{harness::noise, hostile::RawFilters};

/// The bodies as they travel.
const FETCH_OPEN: Method<FetchOpen, FetchOpened> = Method::new("fetch.open");

#[derive(Serialize, Deserialize)]
struct FetchOpen {
    transfer: [u8; 16],
    path: Vec<u8>,
    compression: u32,
    bytes_per_second: Option<u64>,
    /// A set of bits: 1 SHA-256, 2 BLAKE3.
    digests: u8,
    filters: RawFilters,
    /// Whether the first chunks may come unasked.
    invites: bool,
    attributes: bool,
}

#[derive(Serialize, Deserialize)]
struct FetchOpened {
    shape: TransferShape,
    digest: u8,
}

#[derive(Serialize, Deserialize)]
enum TransferShape {
    File { name: Vec<u8> },
}

const OLD_LEN_BYTES: usize = 2 << 20;
const NEW_LEN_BYTES: u64 = OLD_LEN_BYTES as u64 + 1;

/// Offers a new version of a file, and answers the request for its block signatures with `lie`, or with nothing and the
/// end of the stream; it confirms whatever the victim says it has. Returns what the victim says to that.
async fn outcome(lie: Vec<ProviderRecord>) -> TransferError {
    match told_of(lie).await.unwrap_err() {
        FetchError::Transfer(error) => error,
        other => panic!("not the transfer's own error: {other}"),
    }
}

/// The victim's result.
async fn told_of(lie: Vec<ProviderRecord>) -> Result<FilesReport, FetchError> {
    let (server, client) = (transport(), transport());
    let router = Router::new().typed(FETCH_OPEN, move |context, request| {
        let lie = lie.clone();
        async move {
            tokio::spawn(async move {
                let transfer = TransferId::from_bytes(request.transfer);
                let mut stream = context.connection.open_records(transfer).await.unwrap();
                let offer = [offer(), ProviderRecord::End { entries: 1, total_bytes: NEW_LEN_BYTES }];
                stream.send.write(encode(&offer)).await.unwrap();
                let mut wants = RecordReader::<ReceiverRecord>::new();
                while let Ok(Some(bytes)) = stream.recv.read().await {
                    wants.push(bytes);
                    while let Some(want) = wants.poll().unwrap() {
                        match want {
                            ReceiverRecord::WantSignatures { span, .. } => {
                                assert_eq!((span.offset_bytes, span.len_bytes), (0, NEW_LEN_BYTES));
                                // The victim may hang up in the middle of it.
                                let _ = stream.send.write(encode(&lie)).await;
                                if lie.is_empty() {
                                    stream.send.finish().unwrap();
                                }
                            }
                            ReceiverRecord::Done { .. } => stream.send.finish().unwrap(),
                            _ => {}
                        }
                    }
                }
            });
            Ok(FetchOpened { shape: TransferShape::File { name: request.path }, digest: 2 })
        }
    });
    let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
    let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
    tokio::spawn(Arc::new(router).serve(accepted.unwrap().1));
    let rpc = RpcClient::new(connected.unwrap());

    let dir = TempDir::new().unwrap();
    let old = noise(1, OLD_LEN_BYTES);
    fs::write(dir.path().join("it"), &old).unwrap();
    let fetch =
        Fetch::open(&rpc, shiplane_protocols::internals::FetchRequest::of(b"it"), &Default::default())
            .await
            .unwrap();
    let options = TransferOptions { lanes: 4, chunk_len_bytes: 1 << 20, ..TransferOptions::default() };
    let receive = ReceiveOptions {
        existing: shiplane_files::internals::Existing::Replace,
        durability: Durability::Verified,
        verify: false,
        links: LinkPolicy::All,
        attributes: false,
        digest: DigestAlgorithm::Blake3,
        chunk_len_bytes: 1 << 20,
    };
    let target = Destination::open(dir.path(), fetch.shape(), fetch.job(), receive).unwrap();
    let received = fetch.receive(target, &options, Arc::new(|_| ()));
    let result = tokio::time::timeout(Duration::from_secs(10), received).await;
    assert!(fs::read(dir.path().join("it")).unwrap() == old, "the old version is as it was");
    result.expect("no liar holds a get up for long")
}

fn transport() -> Arc<QuicTransport> {
    let builder = QuicTransport::builder().trust(Trust::ask(|_| Admission::Trusted));
    Arc::new(builder.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap())
}

fn offer() -> ProviderRecord {
    ProviderRecord::Entry(Entry {
        kind: EntryKind::File,
        mode: 0o644,
        size_bytes: NEW_LEN_BYTES,
        mtime: Mtime { secs: 1, nanos: 0 },
        version: Version::from_bytes([7; 16]),
        path: RelPath::parse(b"it").unwrap(),
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    })
}

fn encode(records: &[ProviderRecord]) -> bytes::Bytes {
    let mut out = BytesMut::new();
    records.iter().for_each(|record| record.encode(&mut out).unwrap());
    out.freeze()
}

/// A list of pieces of these lengths, from the start of the file. Each has a digest of its own.
fn list(entry: u64, lens: &[u32]) -> ProviderRecord {
    let signature =
        |(i, &len_bytes): (usize, &u32)| BlockSignature { len_bytes, digest: Digest::blake3(&[i as u8]) };
    ProviderRecord::Signatures(BlockSignatures {
        entry,
        offset_bytes: 0,
        signatures: lens.iter().enumerate().map(signature).collect(),
    })
}

/// 128 KiB, which the victim asks for on average.
const PIECE: u32 = 128 << 10;

#[tokio::test]
async fn a_list_that_is_not_of_the_file_is_the_peers_fault() {
    let lies = [list(0, &[PIECE; 17]), list(0, &[1, PIECE]), list(0, &[5 * PIECE]), list(1, &[PIECE])];
    for lie in lies {
        let outcome = outcome(vec![lie.clone()]).await;
        assert!(
            matches!(outcome, TransferError::Protocol(ProtocolFault::WrongSignatures { .. })),
            "{lie:?}: {outcome}"
        );
    }
    // One more list than was asked for, and one that breaks off.
    let whole: Vec<_> = std::iter::repeat_n(PIECE, 16).chain([1]).collect();
    let told_twice = outcome(vec![list(0, &whole), list(0, &whole)]).await;
    assert!(
        matches!(told_twice, TransferError::Protocol(ProtocolFault::WrongSignatures { .. })),
        "{told_twice}"
    );
    let told_nothing = outcome(Vec::new()).await;
    assert!(matches!(told_nothing, TransferError::Protocol(ProtocolFault::WrongEnd)), "{told_nothing}");
}

#[tokio::test]
async fn one_digest_of_two_contents_is_noticed() {
    let digest = Digest::blake3(b"same");
    let mut signatures =
        vec![BlockSignature { len_bytes: PIECE, digest }, BlockSignature { len_bytes: PIECE + 1, digest }];
    // It is noticed once the list is complete.
    signatures.extend((2..16).map(|i| BlockSignature { len_bytes: PIECE, digest: Digest::blake3(&[i]) }));
    let outcome =
        outcome(vec![ProviderRecord::Signatures(BlockSignatures { entry: 0, offset_bytes: 0, signatures })])
            .await;
    assert!(matches!(outcome, TransferError::Protocol(ProtocolFault::TwoContents { entry: 0 })), "{outcome}");
}

#[tokio::test]
async fn a_file_that_fails_while_it_is_split_into_blocks_is_left_as_it_was() {
    let failed = ProviderRecord::Failed { entry: 0, reason: LeftOutReason::Changed };
    let whole = [failed.clone()];
    let half = [list(0, &[PIECE]), failed];
    for lie in [&whole[..], &half[..]] {
        assert_eq!(told_of(lie.to_vec()).await.unwrap().left_out(), 1);
    }
}
