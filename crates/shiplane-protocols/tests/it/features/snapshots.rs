//! Snapshots by id.

use std::sync::Arc;

use shiplane_protocols::{
    AddSnapshotError, SnapshotError, SnapshotOptions, SnapshotServer, SnapshotStore, request_snapshot,
    request_snapshot_to_path,
};
use shiplane_rpc::{CallError, FaultCode, Method, Router, RpcClient};
use shiplane_transport::{ChunkSource, LaneOptions, RecvChunkError, SendChunkError, internals::SinkError};
use shiplane_wire::{Digest, FrameError, TaggedChunk, TransferId};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::pair::{Pair, memory};
use crate::harness::noise;

async fn serving(store: &Arc<SnapshotStore>) -> (Pair, RpcClient) {
    let pair = Pair::new();
    let server = SnapshotServer::new(Arc::clone(store), LaneOptions::default());
    let client = pair.serving(server.methods(Router::new())).await;
    (pair, client)
}

fn fault(outcome: Result<impl Sized, SnapshotError>) -> FaultCode {
    match outcome.map(|_| ()) {
        Err(SnapshotError::Open(CallError::Fault(fault))) => fault.code,
        other => panic!("no fault: {other:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_comes_by_its_id_into_memory_or_a_file() {
    let (store, dir) = (Arc::new(SnapshotStore::new()), TempDir::new().unwrap());
    let content = noise(1, 3_000_000);
    let file = dir.path().join("state");
    std::fs::write(&file, &content).unwrap();
    let info = store.add("log-17", ChunkSource::File(file)).await.unwrap();
    assert_eq!(info.digest, Digest::sha256(&content));
    let (_pair, client) = serving(&store).await;
    let options = SnapshotOptions::default();
    assert_eq!(request_snapshot(&client, "log-17", &options).await.unwrap(), content);
    let output = dir.path().join("copy");
    assert_eq!(request_snapshot_to_path(&client, "log-17", &output, &options).await.unwrap(), info);
    assert_eq!(std::fs::read(&output).unwrap(), content);
    let taken = request_snapshot_to_path(&client, "log-17", &output, &options).await;
    let Err(SnapshotError::Receive(RecvChunkError::Sink(SinkError::Exists { .. }))) = taken else {
        panic!("{taken:?}");
    };
}

#[tokio::test]
async fn concurrent_ids_are_never_mixed_up() {
    let store = Arc::new(SnapshotStore::new());
    for id in 0..20 {
        store.add(&id.to_string(), memory(noise(id, 100_000 - id as usize))).await.unwrap();
    }
    let (pair, client) = serving(&store).await;
    let fetch = |id: u64| {
        let client = client.clone();
        async move { request_snapshot(&client, &id.to_string(), &SnapshotOptions::default()).await.unwrap() }
    };
    // Each twice, side by side.
    let fetched = futures::future::join_all((0..40).map(|n| fetch(n % 20))).await;
    for (n, data) in fetched.iter().enumerate() {
        let id = n as u64 % 20;
        assert_eq!(data[..], noise(id, 100_000 - id as usize), "{id}");
    }
    assert_eq!(pair.alice.open_connections(), 1);
}

#[tokio::test]
async fn an_id_never_changes_its_meaning() {
    let store = SnapshotStore::new();
    let first = store.add("a", memory("one")).await.unwrap();
    assert_eq!(store.add("a", memory("one")).await.unwrap(), first);
    assert!(matches!(store.add("a", memory("two")).await, Err(AddSnapshotError::Exists)));
    assert!(matches!(store.add("", memory("two")).await, Err(AddSnapshotError::BadId { .. })));
    assert!(store.remove("a") && !store.remove("a"));
    assert_eq!(store.info("a"), None);
}

#[tokio::test]
async fn an_unknown_too_large_or_missing_snapshot_is_refused_before_its_first_byte() {
    let (store, dir) = (Arc::new(SnapshotStore::new()), TempDir::new().unwrap());
    let file = dir.path().join("state");
    std::fs::write(&file, "content").unwrap();
    store.add("file", ChunkSource::File(file.clone())).await.unwrap();
    let (_pair, client) = serving(&store).await;
    let options = SnapshotOptions::default();
    assert_eq!(fault(request_snapshot(&client, "none", &options).await), FaultCode::NotFound);
    let small = SnapshotOptions::default().max_len_bytes(6);
    let refused = request_snapshot(&client, "file", &small).await;
    assert!(matches!(refused, Err(SnapshotError::TooLarge { len_bytes: 7, max_bytes: 6 })), "{refused:?}");
    std::fs::write(&file, "longer content").unwrap();
    assert_eq!(fault(request_snapshot(&client, "file", &options).await), FaultCode::SourceChanged);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(fault(request_snapshot(&client, "file", &options).await), FaultCode::SourceIo);
}

#[tokio::test]
async fn a_file_that_was_replaced_is_noticed_by_its_digest() {
    let (store, dir) = (Arc::new(SnapshotStore::new()), TempDir::new().unwrap());
    let file = dir.path().join("state");
    std::fs::write(&file, "content").unwrap();
    store.add("file", ChunkSource::File(file.clone())).await.unwrap();
    std::fs::write(&file, "c0ntent").unwrap();
    let (_pair, client) = serving(&store).await;
    let output = dir.path().join("copy");
    let refused = request_snapshot_to_path(&client, "file", &output, &SnapshotOptions::default()).await;
    let Err(SnapshotError::Receive(RecvChunkError::Sink(SinkError::WrongDigest))) = refused else {
        panic!("{refused:?}");
    };
    assert!(!output.exists());
}

/// A server that announces `announced` bytes of `digest` and sends `sent`; gives the client's status.
fn liar(
    announced: u64,
    digest: Digest,
    sent: &'static [u8],
) -> (Router, mpsc::UnboundedReceiver<Result<u64, SendChunkError>>) {
    const OPEN: Method<([u8; 16], String), (u64, [u8; 32])> = Method::new("snapshot.open");
    let (tell, told) = mpsc::unbounded_channel();
    let router = Router::new().typed(OPEN, move |context, (transfer, _id)| {
        let tell = tell.clone();
        async move {
            tokio::spawn(async move {
                let transfer = TransferId::from_bytes(transfer);
                let (tag, lane) = (TaggedChunk { transfer, index: 0 }, LaneOptions::default());
                let source = memory(sent).opened().await.unwrap();
                let sent = context.connection.send_tagged_chunk(tag, source, &lane).await;
                let _ = tell.send(sent.map(|sent| sent.len_bytes));
            });
            Ok((announced, *digest.as_bytes()))
        }
    });
    (router, told)
}

#[tokio::test]
async fn a_server_that_sends_something_else_never_sees_success() {
    let lies =
        [(7, Digest::sha256(b"content"), &b"contents"[..]), (7, Digest::sha256(b"content"), &b"c0ntent"[..])];
    for (announced, digest, sent) in lies {
        let pair = Pair::new();
        let (router, mut told) = liar(announced, digest, sent);
        let client = pair.serving(router).await;
        let refused = request_snapshot(&client, "any", &SnapshotOptions::default()).await;
        assert!(
            matches!(
                refused,
                Err(SnapshotError::Receive(
                    RecvChunkError::Frame(FrameError::WrongLen { .. })
                        | RecvChunkError::Sink(SinkError::WrongDigest)
                ))
            ),
            "{refused:?}"
        );
        let told = told.recv().await.unwrap();
        assert!(matches!(told, Err(SendChunkError::Rejected { .. })), "status 2, not 0: {told:?}");
    }
}
