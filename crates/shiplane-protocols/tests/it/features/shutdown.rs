//! Orderly shutdown.

use std::{
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant},
};

use shiplane_protocols::{ManagedError, TransferManager, TransferMetrics};
use shiplane_transport::{
    ChunkExpectation, ConnectionEnd, LaneOptions, PeerConnection, QuicTransport, RateLimit, RateLimiter,
    SendChunkError, internals::InboundChunk,
};
use shiplane_wire::Code;
use tokio::task::JoinHandle;

use super::pair::{AMPLE, Pair, memory, until};
use crate::harness::noise;

fn manager(transport: &Arc<QuicTransport>) -> Arc<TransferManager> {
    let metrics = Arc::new(TransferMetrics::new());
    Arc::new(TransferManager::new(Arc::clone(transport), metrics, LaneOptions::default()))
}

/// Chunks that Alice sends and Bob has not taken yet.
async fn under_way(
    count: usize,
    pair: &Pair,
    manager: &Arc<TransferManager>,
    bob: &PeerConnection,
) -> (Vec<JoinHandle<Result<u64, ManagedError>>>, Vec<InboundChunk>) {
    let (mut sending, mut held) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (manager, peer) = (Arc::clone(manager), pair.bob_addr());
        sending.push(tokio::spawn(async move { manager.send(peer, &memory(noise(1, 1000))).await }));
        held.push(bob.next_chunk().await.unwrap().unwrap());
    }
    (sending, held)
}

#[tokio::test]
async fn three_transfers_finish_and_a_fourth_is_refused() {
    let pair = Pair::new();
    let (_, bob) = pair.connect().await;
    let manager = manager(&pair.alice);
    let (sending, held) = under_way(3, &pair, &manager, &bob).await;
    assert_eq!(manager.active(), 3);

    let closing = Arc::clone(&manager);
    let shutdown = tokio::spawn(async move { closing.shutdown(AMPLE).await });
    manager.closing().await;
    let refused = manager.send(pair.bob_addr(), &memory("late")).await;
    assert!(matches!(refused, Err(ManagedError::ShuttingDown(_))), "{refused:?}");
    assert!(manager.admit().is_err());

    for chunk in held {
        chunk.receive_to_memory(&ChunkExpectation::default(), &LaneOptions::default()).await.unwrap();
    }
    for sent in sending {
        assert_eq!(sent.await.unwrap().unwrap(), 1000);
    }
    assert_eq!(shutdown.await.unwrap().cut_off, 0);
    assert_eq!(bob.closed().await, ConnectionEnd::ClosedByPeer { code: Code::NoError });
    assert_eq!(manager.metrics().snapshot().sent.completed, 3);
}

#[tokio::test]
async fn an_idle_manager_is_down_at_once() {
    let pair = Pair::new();
    let (_, bob) = pair.connect().await;
    let manager = manager(&pair.alice);
    let source = memory("done before");
    let (sent, taken) = tokio::join!(manager.send(pair.bob_addr(), &source), bob.recv_chunk_verified());
    assert_eq!((sent.unwrap(), &taken.unwrap().unwrap()[..]), (11, &b"done before"[..]));
    let start = Instant::now();
    assert_eq!(manager.shutdown(AMPLE).await.cut_off, 0);
    assert!(start.elapsed() < AMPLE / 4, "{:?}", start.elapsed());
    assert_eq!(bob.closed().await, ConnectionEnd::ClosedByPeer { code: Code::NoError });
    assert_eq!(manager.shutdown(AMPLE).await.cut_off, 0, "twice is no harm");
}

#[tokio::test]
async fn transfers_that_run_at_the_deadline_are_cut_off() {
    let pair = Pair::new();
    let (_, bob) = pair.connect().await;
    let manager = manager(&pair.alice);
    let (mut sending, _held) = under_way(1, &pair, &manager, &bob).await;
    assert_eq!(manager.shutdown(Duration::from_millis(50)).await.cut_off, 1);
    let cut = sending.remove(0).await.unwrap().unwrap_err();
    assert!(matches!(cut, ManagedError::Send(SendChunkError::Stream(_))), "{cut:?}");
    assert_eq!(bob.closed().await, ConnectionEnd::ClosedByPeer { code: Code::NoError });
    assert_eq!(manager.metrics().snapshot().sent.failed, 1);
}

#[tokio::test]
async fn an_arriving_file_is_waited_for_and_an_absent_one_reported_at_once() {
    let pair = Pair::new();
    let (alice, bob) = pair.connect().await;
    let manager = manager(&pair.bob);
    let receive = |bob: &Arc<PeerConnection>| {
        let (manager, bob) = (Arc::clone(&manager), Arc::clone(bob));
        tokio::spawn(async move { manager.receive(&bob, &ChunkExpectation::default()).await })
    };
    let arriving = receive(&bob);
    // Slow enough that the shutdown begins before its end.
    let rate = RateLimiter::new(RateLimit::per_second(NonZeroU64::new(1_000_000).unwrap()));
    let slow = LaneOptions::default().rate(Some(rate));
    let sending = tokio::spawn(async move { alice.send_chunk_with(&memory(noise(1, 300_000)), &slow).await });
    until(|| manager.active() == 1).await;
    let waiting = receive(&bob);

    assert_eq!(manager.shutdown(AMPLE).await.cut_off, 0);
    assert_eq!(arriving.await.unwrap().unwrap().unwrap(), noise(1, 300_000));
    assert_eq!(sending.await.unwrap().unwrap(), 300_000, "the last status has arrived as well");
    let told = waiting.await.unwrap();
    assert!(matches!(told, Err(ManagedError::ShuttingDown(_))), "{told:?}");
    assert_eq!(manager.metrics().snapshot().received.bytes, 300_000);
}

#[tokio::test]
async fn a_transfer_that_is_given_up_is_not_waited_for() {
    let pair = Pair::new();
    let (_, bob) = pair.connect().await;
    let manager = manager(&pair.alice);
    let (sending, _held) = under_way(1, &pair, &manager, &bob).await;
    sending[0].abort();
    until(|| manager.active() == 0).await;
    let start = Instant::now();
    assert_eq!(manager.shutdown(AMPLE).await.cut_off, 0);
    assert!(start.elapsed() < AMPLE / 4, "{:?}", start.elapsed());
}
