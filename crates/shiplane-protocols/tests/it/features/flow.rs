//! Buffer sizes, rate limits and progress of chunks.

use std::{
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use shiplane_protocols::{Progress, progress};
use shiplane_transport::{
    ChunkExpectation, ChunkSource, LaneOptions, RateLimit, RateLimiter, TransportConfig,
    internals::ProgressFn,
};
use tempfile::TempDir;

use super::pair::{Pair, memory};
use crate::harness::noise;

#[tokio::test]
async fn every_buffer_size_gives_the_same_output() {
    let dir = TempDir::new().unwrap();
    let (input, content) = (dir.path().join("input"), noise(1, 1_000_003));
    std::fs::write(&input, &content).unwrap();
    for buffer_len_bytes in [16 * 1024, 64 * 1024, 256 * 1024] {
        let pair = Pair::with(TransportConfig::default().buffer_len_bytes(buffer_len_bytes));
        let (alice, bob) = pair.connect().await;
        let steps = Arc::new(Mutex::new(Vec::new()));
        let watched = Arc::clone(&steps);
        let count: ProgressFn = Arc::new(move |step| watched.lock().unwrap().push(step));
        let options = LaneOptions::default().progress(count);
        let output = dir.path().join(format!("{buffer_len_bytes}"));
        let source = ChunkSource::File(input.clone());
        let (sent, received) =
            tokio::join!(alice.send_chunk_with(&source, &options), bob.recv_chunk_to_path(&output));
        assert_eq!(sent.unwrap(), 1_000_003);
        assert!(received.unwrap());
        assert_eq!(std::fs::read(&output).unwrap(), content);
        let steps = steps.lock().unwrap();
        let largest = steps.iter().max().copied().unwrap();
        assert_eq!(largest, buffer_len_bytes as u64, "the setting is what is used");
    }
}

/// Collects the calls of a progress hook.
fn collect(total_bytes: u64) -> (LaneOptions, Arc<Mutex<Vec<Progress>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let hook = progress(total_bytes, move |at| log.lock().unwrap().push(at));
    (LaneOptions::default().progress(hook), seen)
}

#[tokio::test]
async fn progress_only_grows_and_ends_with_the_total_on_both_sides() {
    const TOTAL: u64 = 10_000_000;
    let pair = Pair::new();
    let (alice, bob) = pair.connect().await;
    let ((sending, sent), (receiving, received)) = (collect(TOTAL), collect(TOTAL));
    let source = memory(noise(1, TOTAL as usize));
    let receive = async {
        let chunk = bob.next_chunk().await.unwrap().unwrap();
        chunk.receive_to_memory(&ChunkExpectation::default(), &receiving).await.unwrap()
    };
    let (outcome, data) = tokio::join!(alice.send_chunk_with(&source, &sending), receive);
    assert_eq!((outcome.unwrap(), data.len() as u64), (TOTAL, TOTAL));
    for seen in [sent, received] {
        let seen = seen.lock().unwrap();
        assert!(seen.len() >= 10, "{} events", seen.len());
        assert!(seen.windows(2).all(|pair| pair[0].moved_bytes < pair[1].moved_bytes));
        assert!(seen.windows(2).all(|pair| pair[0].elapsed <= pair[1].elapsed));
        let last = seen.last().unwrap();
        assert_eq!((last.moved_bytes, last.total_bytes), (TOTAL, TOTAL));
    }
}

fn limited(bytes_per_second: u64) -> LaneOptions {
    let limit = RateLimit::per_second(NonZeroU64::new(bytes_per_second).unwrap());
    LaneOptions::default().rate(Some(RateLimiter::new(limit)))
}

/// The clock is real: a lane has threads and a socket. `rate` itself is tested in virtual time.
#[tokio::test]
async fn four_streams_share_one_limit() {
    let pair = Pair::new();
    let (alice, bob) = pair.connect().await;
    let options = limited(10_000_000);
    let source = memory(noise(1, 1_250_000));
    let start = Instant::now();
    let send = || alice.send_chunk_with(&source, &options);
    let take = async {
        for _ in 0..4 {
            assert_eq!(bob.recv_chunk_verified().await.unwrap().unwrap().len(), 1_250_000);
        }
    };
    let (a, b, c, d, ()) = tokio::join!(send(), send(), send(), send(), take);
    for sent in [a, b, c, d] {
        sent.unwrap();
    }
    // 5 MB less the burst of 1 MB can only have come in this time.
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_receiver_can_hold_its_sender_back() {
    let pair = Pair::new();
    let (alice, bob) = pair.connect().await;
    let options = limited(10_000_000);
    let source = memory(noise(1, 4_000_000));
    let start = Instant::now();
    let receive = async {
        let chunk = bob.next_chunk().await.unwrap().unwrap();
        chunk.receive_to_memory(&ChunkExpectation::default(), &options).await.unwrap()
    };
    let (sent, data) = tokio::join!(alice.send_chunk_verified(&source), receive);
    assert_eq!((sent.unwrap(), data.len()), (4_000_000, 4_000_000));
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
}
