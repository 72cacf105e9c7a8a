//! Lanes that wait for a connection's windows.

use std::sync::Arc;

use bytes::Bytes;
use shiplane_transport::{LANE_PRIORITY, LaneOptions, TransportConfig};
use shiplane_wire::{TaggedChunk, TransferId};
use tokio::{sync::mpsc, task::JoinSet};

use crate::harness::{AMPLE, RawPair, RawStream, memory, soon};

/// quinn alone lets some write whenever there is room, and others never.
#[tokio::test]
async fn every_lane_moves_however_small_the_window() {
    let raw_pair = RawPair::with(TransportConfig::default(), |quic| {
        quic.receive_window(WINDOW_BYTES.into());
    })
    .await;
    let piece = Bytes::from(vec![7; 64 * 1024]);
    let mut writing = JoinSet::new();
    for _ in 0..LANES {
        let (peer, piece) = (Arc::clone(&raw_pair.peer), piece.clone());
        writing.spawn(async move {
            let mut stream = peer.open_stream(Bytes::new()).await.unwrap();
            stream.send.set_priority(LANE_PRIORITY);
            while stream.send.write_within(piece.clone(), AMPLE).await.is_ok() {}
        });
    }
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut reading = JoinSet::new();
    for lane in 0..LANES {
        let (raw, arrived) = (raw_pair.raw.clone(), arrived.clone());
        reading.spawn(async move {
            let (_send, mut recv) = raw.accept_bi().await.unwrap();
            while let Ok(Some(piece)) = recv.read_chunk(usize::MAX, true).await {
                arrived.send((lane, piece.bytes.len())).unwrap();
            }
        });
    }
    let mut read_bytes = [0; LANES];
    while read_bytes.iter().sum::<usize>() < LANES * SHARE_BYTES {
        let (lane, len_bytes) = soon(arrivals.recv()).await.unwrap();
        read_bytes[lane] += len_bytes;
    }
    assert!(read_bytes.iter().all(|&bytes| bytes >= SHARE_BYTES / 2), "{read_bytes:?}");
    reading.shutdown().await;
    writing.shutdown().await;
}

/// The one that is the first to begin has come far, as chunk 1,000 says.
#[tokio::test]
async fn a_transfer_that_has_come_far_goes_on_beside_one_that_begins() {
    let raw_pair = RawPair::with(TransportConfig::default(), |quic| {
        quic.receive_window(WINDOW_BYTES.into());
    })
    .await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (mut sending, mut reading) = (JoinSet::new(), JoinSet::new());
    let mut read_bytes = [0; 2];
    for (transfer, index) in [(0, 1000), (1, 0), (1, 1)] {
        let peer = Arc::clone(&raw_pair.peer);
        sending.spawn(async move {
            let tag = TaggedChunk { transfer: TransferId::from_bytes([transfer as u8; 16]), index };
            let source = memory(&vec![7; 8 * SHARE_BYTES]).open().unwrap();
            let _ = peer.send_tagged_chunk(tag, source, &LaneOptions::default()).await;
        });
        let RawStream { send: status, mut recv } = raw_pair.accept().await;
        let arrived = arrived.clone();
        reading.spawn(async move {
            let _none_yet = status;
            while let Ok(Some(piece)) = recv.read_chunk(usize::MAX, true).await {
                arrived.send((transfer, piece.bytes.len())).unwrap();
            }
        });
    }
    while read_bytes[1] < 8 * SHARE_BYTES {
        let (transfer, len_bytes) = soon(arrivals.recv()).await.unwrap();
        read_bytes[transfer] += len_bytes;
    }
    assert!(read_bytes[0] >= 4 * SHARE_BYTES, "{read_bytes:?}");
    reading.shutdown().await;
    sending.shutdown().await;
}

const LANES: usize = 16;
const WINDOW_BYTES: u32 = 64 * 1024;

/// Four turns.
const SHARE_BYTES: usize = 256 * 1024;
