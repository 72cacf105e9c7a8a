//! Chunks that are held whole and hashed together with others.

use std::sync::Arc;

use bytes::Bytes;
use shiplane_transport::{
    ChunkExpectation, ChunkRead, LaneOptions, PeerConnection, RecvChunkError, SendChunkError, SideBySide,
    SourceError, TransferStream,
};
use shiplane_wire::{Code, Digest, RecvError, TaggedChunk, TransferId};
use tokio::task::JoinSet;

use crate::harness::{Duel, End, Pair, forged, frame, noise, soon, tag, transfer_id};

fn together() -> LaneOptions {
    LaneOptions { hashing: Some(SideBySide::new()), ..LaneOptions::default() }
}

/// A source that gives its data in pieces, and may turn out to have changed.
struct Pieces {
    rest: Bytes,
    len_bytes: u64,
    piece_len: usize,
    is_changed: bool,
}

impl Pieces {
    fn of(data: &[u8]) -> Self {
        let rest = Bytes::copy_from_slice(data);
        Self { len_bytes: rest.len() as u64, rest, piece_len: 100_000, is_changed: false }
    }
}

impl ChunkRead for Pieces {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        Ok(self.rest.split_to(max_len_bytes.min(self.piece_len).min(self.rest.len())))
    }
    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        if self.is_changed { Err(SourceError::Changed) } else { Ok(()) }
    }
}

/// Receives `count` chunks at a time and gives them by their index.
async fn receive_all(peer: &Arc<PeerConnection>, transfer: TransferId, count: usize) -> Vec<(u64, Bytes)> {
    let mut claim = peer.claim(transfer).unwrap();
    let options = together();
    let mut receiving = JoinSet::new();
    for _ in 0..count {
        let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
        let options = options.clone();
        receiving.spawn(async move {
            let index = chunk.index();
            (index, chunk.receive_to_memory(&ChunkExpectation::default(), &options).await.unwrap())
        });
    }
    let mut received = soon(receiving.join_all()).await;
    received.sort_unstable();
    received
}

#[tokio::test]
async fn forty_chunks_of_every_size_arrive_each_as_itself() {
    let pair = Pair::new().await;
    let transfer = transfer_id(1);
    let lens = [0, 1, 63, 64, 65, 1000, 300_000, 300_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];
    let chunks: Vec<Vec<u8>> = (0..40).map(|seed| noise(seed as u64, lens[seed % lens.len()])).collect();
    let receiving = {
        let (peer, count) = (Arc::clone(&pair.to_alice), chunks.len());
        tokio::spawn(async move { receive_all(&peer, transfer, count).await })
    };
    let options = together();
    let mut sending = JoinSet::new();
    for (index, data) in (0..).zip(&chunks) {
        let (peer, options, source) = (Arc::clone(&pair.to_bob), options.clone(), Pieces::of(data));
        let digest = Digest::of(data);
        sending.spawn(async move {
            let tag = TaggedChunk { transfer, index };
            assert_eq!(peer.send_tagged_chunk(tag, source, &options).await.unwrap().digest, digest);
        });
    }
    soon(sending.join_all()).await;
    for ((index, received), (at, sent)) in receiving.await.unwrap().into_iter().zip((0..).zip(&chunks)) {
        assert_eq!(index, at);
        assert!(received == sent[..], "chunk {at} of {} bytes", sent.len());
    }
}

#[tokio::test]
async fn one_after_another_none_waits_for_company_for_ever() {
    let pair = Pair::new().await;
    let (transfer, options) = (transfer_id(2), together());
    let mut claim = pair.to_alice.claim(transfer).unwrap();
    for index in 0..200 {
        let data = noise(index, 10);
        let tag = TaggedChunk { transfer, index };
        let received = async {
            let Some(TransferStream::Chunk(chunk)) = claim.next().await else { panic!("no chunk") };
            chunk.receive_to_memory(&ChunkExpectation::default(), &options).await
        };
        let sending = pair.to_bob.send_tagged_chunk(tag, Pieces::of(&data), &options);
        let (sent, received) = soon(async { tokio::join!(sending, received) }).await;
        assert_eq!(sent.unwrap().len_bytes, 10);
        assert_eq!(received.unwrap(), data);
    }
}

#[tokio::test]
async fn a_source_that_changed_or_ends_early_never_shows_a_digest() {
    let pair = Pair::new().await;
    let (transfer, options) = (transfer_id(3), together());
    let data = noise(3, 1000);
    for (index, source) in
        [Pieces { is_changed: true, ..Pieces::of(&data) }, Pieces { len_bytes: 1001, ..Pieces::of(&data) }]
            .into_iter()
            .enumerate()
    {
        let tag = TaggedChunk { transfer, index: index as u64 };
        let error = soon(pair.to_bob.send_tagged_chunk(tag, source, &options)).await.unwrap_err();
        assert!(matches!(error, SendChunkError::Source(SourceError::Changed)), "{error}");
    }
    pair.expect_works().await;
}

#[tokio::test]
async fn what_is_wrong_with_one_frame_is_answered_on_its_stream_and_harms_no_other() {
    let duel = Duel::new().await;
    let (transfer, options) = (transfer_id(4), together());
    let mut claim = duel.peer.claim(transfer).unwrap();
    let data = noise(4, 5000);
    let mut flipped = frame(&data);
    flipped[4000] ^= 1;
    let cut = frame(&data)[..4000].to_vec();
    let longer = [frame(&data), vec![0]].concat();
    let lying = forged(5000, &data, Digest::of(b"another"));
    for (index, (bytes, status)) in
        [(flipped, 1), (cut, 2), (longer, 2), (lying, 1), (frame(&data), 0)].into_iter().enumerate()
    {
        let mut stream = duel.send(&[tag(transfer, index as u64), bytes].concat()).await;
        let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
        let received = soon(chunk.receive_to_memory(&ChunkExpectation::default(), &options)).await;
        match (index, received) {
            (0 | 3, Err(RecvChunkError::Recv(RecvError::ChecksumMismatch { expected, actual }))) => {
                assert_ne!(expected, actual);
            }
            (1, Err(RecvChunkError::Recv(RecvError::Truncated { received_bytes: 3992, .. }))) => {}
            (2, Err(RecvChunkError::Recv(RecvError::TrailingBytes { len_bytes: 5000 }))) => {}
            (4, Ok(received)) => assert_eq!(received, data),
            (_, other) => panic!("{index}: {other:?}"),
        }
        assert_eq!(stream.answer().await, (vec![status], End::Fin));
        if status != 0 {
            assert!(stream.stopped().await.is_none_or(|code| code != Code::NoError));
        }
    }
}
