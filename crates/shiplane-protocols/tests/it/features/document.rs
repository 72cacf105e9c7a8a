//! The source document's smaller examples, repaired and run: each test is one of its headings.

#[path = "../../../examples/basic.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod basic;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shiplane_protocols::{claim_new, only_chunk};
use shiplane_rpc::{CallError, Fault, FaultCode, Method, RequestContext, Router, RpcClient};
use shiplane_transport::{ChunkExpectation, ChunkSource, LaneOptions, PeerConnection, RecvChunkError};
use shiplane_wire::{Digest, FrameError, TaggedChunk, TransferId};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::pair::{AMPLE, Pair, files, memory};
use crate::harness::noise;

#[tokio::test]
async fn basic_transfer() {
    let (pair, dir) = (Pair::new(), TempDir::new().unwrap());
    let file = files(&dir, &[noise(1, 12_345)]).remove(0);
    let bob = Arc::clone(&pair.bob);
    let receiving = tokio::spawn(async move { basic::receive_files(&bob).await });
    let sent = basic::send_file(&pair.alice, pair.bob_addr(), file).await.unwrap();
    pair.alice.shutdown(AMPLE).await;
    let received = receiving.await.unwrap().unwrap();
    assert_eq!(sent, [10_000_000, 12_345]);
    assert_eq!(received, [Bytes::from(vec![0; 10_000_000]), noise(1, 12_345).into()]);
}

/// Pattern 1's and 2's messages, typed and tagged with a transfer id where the document has text.
const GET: Method<Transfer, u64> = Method::new("example.get");
const CONFIRM: Method<Done, ()> = Method::new("example.confirm");
const PUSH_NOTIFY: Method<Notify, ()> = Method::new("example.push_notify");
const PUSH_ACK: Method<Done, ()> = Method::new("example.push_ack");

#[derive(Serialize, Deserialize)]
struct Transfer {
    transfer: [u8; 16],
    path: String,
}

#[derive(Serialize, Deserialize)]
struct Notify {
    transfer: [u8; 16],
    len_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    transfer: [u8; 16],
    digest: [u8; 32],
}

const BUDGET: Duration = Duration::from_secs(5);

async fn receive(
    connection: &Arc<PeerConnection>,
    claim: shiplane_transport::internals::Claim,
    len_bytes: u64,
) -> Bytes {
    let mut claim = claim;
    let chunk = only_chunk(&mut claim, connection.config().timeouts().progress).await.unwrap();
    let expected = ChunkExpectation::default().len_bytes(len_bytes);
    chunk.receive_to_memory(&expected, &LaneOptions::default()).await.unwrap()
}

/// Serves one file by the name "abc.mp4".
fn file_server(content: Bytes) -> Router {
    let digest = *Digest::sha256(&content).as_bytes();
    Router::new()
        .typed(GET, move |context: RequestContext, request: Transfer| {
            let content = content.clone();
            async move {
                if request.path != "abc.mp4" {
                    return Err(Fault::new(FaultCode::NotFound, "no such file"));
                }
                let len_bytes = content.len() as u64;
                tokio::spawn(async move {
                    let transfer = TransferId::from_bytes(request.transfer);
                    // On the connection that the request came by: there is no dialling back.
                    let (tag, options) = (TaggedChunk { transfer, index: 0 }, LaneOptions::default());
                    let source = ChunkSource::Memory(content).opened().await?;
                    context.connection.send_tagged_chunk(tag, source, &options).await
                });
                Ok(len_bytes)
            }
        })
        .typed(CONFIRM, move |_context, confirm: Done| async move {
            match confirm.digest == digest {
                true => Ok(()),
                false => Err(Fault::new(FaultCode::Integrity, "that is not what was sent")),
            }
        })
}

#[tokio::test]
async fn pattern_1_request_transfer_confirm() {
    let (pair, content) = (Pair::new(), Bytes::from(noise(1, 500_000)));
    let client = pair.serving(file_server(content.clone())).await;
    let claim = claim_new(client.connection()).unwrap();
    let transfer = *claim.transfer().as_bytes();
    let request = Transfer { transfer, path: "abc.mp4".to_owned() };
    let len_bytes = client.call_typed(GET, &request, BUDGET).await.unwrap();
    let data = receive(client.connection(), claim, len_bytes).await;
    assert_eq!(data, content);
    let digest = *Digest::sha256(&data).as_bytes();
    client.call_typed(CONFIRM, &Done { transfer, digest }, BUDGET).await.unwrap();

    let wrong = client.call_typed(CONFIRM, &Done { transfer, digest: [0; 32] }, BUDGET).await;
    assert!(matches!(wrong, Err(CallError::Fault(fault)) if fault.code == FaultCode::Integrity));
    let missing = Transfer { transfer, path: "none".to_owned() };
    let missing = client.call_typed(GET, &missing, BUDGET).await;
    assert!(matches!(missing, Err(CallError::Fault(fault)) if fault.code == FaultCode::NotFound));
}

#[tokio::test]
async fn pattern_2_push_notification() {
    let (pair, update) = (Pair::new(), Bytes::from(noise(2, 300_000)));
    // The client is ready only once it can receive, and says itself what it has got.
    let client_side =
        Router::new().typed(PUSH_NOTIFY, |context: RequestContext, notify: Notify| async move {
            if notify.len_bytes > 1_000_000 {
                return Err(Fault::new(FaultCode::TooLarge, "more than this client keeps"));
            }
            let claim = context.connection.claim(TransferId::from_bytes(notify.transfer));
            let claim = claim.map_err(|_| Fault::new(FaultCode::InvalidRequest, "the id is in use"))?;
            tokio::spawn(async move {
                let data = receive(&context.connection, claim, notify.len_bytes).await;
                let done = Done { transfer: notify.transfer, digest: *Digest::sha256(&data).as_bytes() };
                RpcClient::new(context.connection).call_typed(PUSH_ACK, &done, BUDGET).await.unwrap();
            });
            Ok(())
        });
    let client = pair.serving(client_side).await;
    // The waiter is there before the push begins, so that no acknowledgement is too early.
    let (tell, acknowledged) = oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let server_side = Router::new().typed(PUSH_ACK, move |_context, done: Done| {
        let waiter = tell.lock().unwrap().take();
        async move {
            let gone = || Fault::new(FaultCode::Gone, "nobody waits for it");
            waiter.ok_or_else(gone)?.send(done).map_err(|_| gone())
        }
    });
    tokio::spawn(Arc::new(server_side).serve(Arc::clone(client.connection())));

    let notify = |len_bytes| Notify { transfer: [7; 16], len_bytes };
    client.call_typed(PUSH_NOTIFY, &notify(300_000), BUDGET).await.unwrap();
    let (transfer, options) = (TransferId::from_bytes([7; 16]), LaneOptions::default());
    let (tag, source) = (TaggedChunk { transfer, index: 0 }, memory(update.clone()).opened().await.unwrap());
    client.connection().send_tagged_chunk(tag, source, &options).await.unwrap();
    let done = tokio::time::timeout(BUDGET, acknowledged).await.unwrap().unwrap();
    assert_eq!(done.digest, *Digest::sha256(&update).as_bytes());

    let refused = client.call_typed(PUSH_NOTIFY, &notify(1_000_001), BUDGET).await;
    assert!(matches!(refused, Err(CallError::Fault(fault)) if fault.code == FaultCode::TooLarge));
}

#[tokio::test]
async fn connection_reuse() {
    let pair = Pair::new();
    let (first, bob) = pair.connect().await;
    for number in 0..100_u8 {
        // Both ways of the document are one: the pool gives the same connection.
        let peer = pair.alice.connect_to(pair.bob_addr()).await.unwrap();
        assert!(Arc::ptr_eq(&peer, &first));
        let source = memory(vec![number]);
        let (sent, received) = tokio::join!(peer.send_chunk_verified(&source), bob.recv_chunk_verified());
        assert_eq!((sent.unwrap(), &received.unwrap().unwrap()[..]), (1, &[number][..]));
    }
    assert_eq!(pair.bob.open_connections(), 1);
}

#[tokio::test]
async fn size_limits() {
    let pair = Pair::new();
    let (alice, bob) = pair.connect().await;
    let limit = ChunkExpectation::default().max_len_bytes(1000);
    let source = memory(vec![7; 1001]);
    let (sent, received) = tokio::join!(alice.send_chunk_verified(&source), bob.recv_chunk_expecting(&limit));
    let Err(RecvChunkError::Frame(FrameError::TooLarge { len_bytes: 1001, max_bytes: 1000 })) = received
    else {
        panic!("{received:?}");
    };
    assert!(matches!(sent, Err(shiplane_transport::SendChunkError::Rejected { .. })), "{sent:?}");
    // The same transfer within the limit, on the same connection, is taken.
    let source = memory(vec![7; 1000]);
    let (sent, received) = tokio::join!(alice.send_chunk_verified(&source), bob.recv_chunk_expecting(&limit));
    assert_eq!((sent.unwrap(), received.unwrap().unwrap().len()), (1000, 1000));
}

#[tokio::test]
async fn gotcha_1_a_connection_that_has_closed_is_not_given_out_again() {
    let pair = Pair::new();
    let (first, bob) = pair.connect().await;
    bob.close(shiplane_wire::Code::NoError);
    first.closed().await;
    let again = pair.alice.connect_to(pair.bob_addr()).await.unwrap();
    assert!(!Arc::ptr_eq(&again, &first) && first.is_closed() && !again.is_closed());
}
