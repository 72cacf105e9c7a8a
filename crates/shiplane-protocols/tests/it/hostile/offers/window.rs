//! Offered chunks share the connection's window with the records.

use std::fs;

use bytes::Bytes;
use shiplane_protocols::internals::WriteLimits;
use shiplane_transport::internals::BiStream;
use shiplane_wire::{Piece, TaggedChunk, TransferId, limits};
use tokio::task::JoinSet;

use super::{
    super::{Claimed, encode, file},
    OFFERS_END, end, offer,
};
use crate::{
    harness::{World, noise, transfer_lane},
    push::names::{RawOpened, RawShape, open, raw},
};

#[tokio::test]
async fn offered_chunks_that_wait_unread_leave_room_for_the_rest_of_the_list() {
    const CHUNK: usize = 64 << 10;
    let world = World::writable(WriteLimits::default());
    let rpc = world.admitted_by(world.ticket_to_write("")).await;
    let request = raw(1, b"", RawShape::Directory { name: b"d".to_vec() });
    let transfer = TransferId::from_bytes(request.transfer);
    let mut claim = rpc.connection().claim(transfer).unwrap();
    let opened = open(&rpc, &request).await.unwrap();
    assert!(matches!(opened, RawOpened::Ready { invites: true, .. }), "{opened:?}");
    let BiStream { mut send, mut recv } = claim.records().await.unwrap();
    send.write(encode(&file("large", limits::MAX_OFFERED_BYTES))).await.unwrap();
    let content = noise(1, limits::MAX_OFFERED_BYTES as usize);
    let mut chunks = JoinSet::new();
    for (index, data) in (0..).zip(content.chunks(CHUNK)) {
        let offset_bytes = index * CHUNK as u64;
        send.write(encode(&offer(&[(0, offset_bytes, CHUNK as u64)]))).await.unwrap();
        let source = Claimed { len_bytes: CHUNK as u64, data: Bytes::copy_from_slice(data) };
        let piece = Piece::of_file(offset_bytes, CHUNK as u64, limits::MAX_OFFERED_BYTES);
        let (connection, options) = (rpc.connection().clone(), transfer_lane().piece(piece));
        let tag = TaggedChunk { transfer, index };
        chunks.spawn(async move { connection.send_tagged_chunk(tag, source, &options).await });
    }
    // After some more *alive* records, unread ones have filled all buffers.
    for _ in 0..4 {
        recv.read().await.unwrap().unwrap();
    }
    for number in 0..50 {
        send.write(encode(&file(&format!("small{number}"), 0))).await.unwrap();
    }
    for record in [OFFERS_END, end(51, limits::MAX_OFFERED_BYTES)] {
        send.write(encode(&record)).await.unwrap();
    }
    while let Some(sent) = chunks.join_next().await {
        sent.unwrap().unwrap();
    }
    while recv.read().await.unwrap().is_some() {}
    assert_eq!(fs::read(world.source().join("d/large")).unwrap(), content);
}
