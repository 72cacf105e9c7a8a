//! Many chunks at a time, each with its own result.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use shiplane_protocols::{BatchOptions, BatchSource, transfer_batch};
use shiplane_transport::{ChunkSource, PeerConnection};
use tempfile::TempDir;

use super::pair::{Pair, files, until};
use crate::harness::noise;

/// Takes `count` chunks, in whatever order they come.
async fn take(peer: Arc<PeerConnection>, count: usize) -> Vec<Bytes> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(peer.recv_chunk_verified().await.unwrap().unwrap());
    }
    taken.sort_unstable();
    taken
}

#[tokio::test]
async fn ten_files_of_which_one_is_missing_give_ten_results_in_order() {
    let (pair, dir) = (Pair::new(), TempDir::new().unwrap());
    let mut contents: Vec<_> = (0..9).map(|seed| noise(seed, 10_000 * (9 - seed as usize))).collect();
    let mut sources = files(&dir, &contents);
    let missing = dir.path().join("not there.dat");
    sources.insert(4, missing.clone());

    let (_, bob) = pair.connect().await;
    let taken = tokio::spawn(take(bob, 9));
    let results =
        transfer_batch(&pair.alice, pair.bob_addr(), sources.clone(), &BatchOptions::default()).await;

    assert_eq!(results.iter().map(|(source, _)| source.clone()).collect::<Vec<_>>(), sources);
    for (source, result) in &results {
        assert_eq!(result.success, *source != missing, "{result:?}");
        assert_eq!(result.checksum_verified, result.success);
        if result.success {
            assert_eq!(result.bytes_transferred, std::fs::metadata(source).unwrap().len());
        } else {
            let error = result.error.as_deref().unwrap();
            assert!(error.contains("not there.dat"), "{error}");
        }
    }
    contents.sort_unstable();
    assert_eq!(taken.await.unwrap(), contents);
}

#[tokio::test]
async fn a_hundred_files_go_five_at_a_time_over_one_connection() {
    /// Counts how many were begun.
    #[derive(Clone)]
    struct Counted(PathBuf, Arc<AtomicUsize>);
    impl BatchSource for Counted {
        fn chunk(&self) -> ChunkSource {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.chunk()
        }
        fn name(&self) -> String {
            self.0.name()
        }
    }
    let (pair, dir) = (Pair::new(), TempDir::new().unwrap());
    let contents: Vec<_> = (0..100).map(|seed| noise(seed, 2000)).collect();
    let (_, bob) = pair.connect().await;
    let options = BatchOptions::default().max_concurrent(5);
    let begun = Arc::new(AtomicUsize::new(0));
    let sources = files(&dir, &contents).into_iter().map(|file| Counted(file, Arc::clone(&begun))).collect();
    let taken = tokio::spawn(async move {
        for taken in 0..100 {
            until(|| begun.load(Ordering::SeqCst) == 100.min(taken + 5)).await;
            bob.recv_chunk_verified().await.unwrap().unwrap();
            // One has ended at most for each that was taken.
            assert!(begun.load(Ordering::SeqCst) <= taken + 6);
        }
    });
    let results = transfer_batch(&pair.alice, pair.bob_addr(), sources, &options).await;
    assert!(results.iter().all(|(_, result)| result.success));
    taken.await.unwrap();
    assert_eq!(pair.alice.open_connections(), 1);
}

#[tokio::test]
async fn a_panic_is_the_failure_of_its_item_alone() {
    #[derive(Clone)]
    struct Fragile(PathBuf);
    impl BatchSource for Fragile {
        fn chunk(&self) -> ChunkSource {
            assert!(!self.0.ends_with("1.dat"), "cannot stand this one");
            self.0.chunk()
        }
        fn name(&self) -> String {
            self.0.name()
        }
    }
    let (pair, dir) = (Pair::new(), TempDir::new().unwrap());
    let contents: Vec<_> = (0..3).map(|seed| noise(seed, 100)).collect();
    let sources = files(&dir, &contents).into_iter().map(Fragile).collect();
    let (_, bob) = pair.connect().await;
    let taken = tokio::spawn(take(bob, 2));
    let options = BatchOptions::default();
    let results = transfer_batch(&pair.alice, pair.bob_addr(), sources, &options).await;
    assert_eq!(results.iter().map(|(_, result)| result.success).collect::<Vec<_>>(), [true, false, true]);
    let error = results[1].1.error.as_deref().unwrap();
    assert!(error.contains("1.dat") && error.contains("panicked"), "{error}");
    taken.await.unwrap();
}

#[tokio::test]
async fn a_peer_out_of_reach_fails_every_item() {
    let pair = Pair::with(super::pair::impatient());
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = shiplane_transport::PeerAddr { addr: nobody.local_addr().unwrap(), ..pair.bob_addr() };
    let sources = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let results = transfer_batch(&pair.alice, peer, sources, &BatchOptions::default()).await;
    assert!(results.iter().all(|(_, result)| !result.success && result.error.is_some()), "{results:?}");
}
