//! Many stalled peers: their memory is bounded, and others continue.

use std::{fs, time::Duration};

use bytes::BytesMut;
use futures::FutureExt as _;
use shiplane_protocols::internals::transfer::{MemoryBudget, TransferOptions};
use shiplane_rpc::RpcClient;
use shiplane_transport::internals::{BiStream, Claim};
use shiplane_wire::{ProviderRecord, ReceiverRecord, RecordReader, TransferId};

use super::{
    FETCH_OPEN, encode, file,
    receiver::{all_of_it, manifest_of, want},
};
use crate::{
    harness::{World, noise, options},
    push::names::{RawOpened, RawShape, open, raw},
};

const CHUNK: u64 = 64 * 1024;
const CHUNKS: u64 = 8;

/// Room for four chunks, of which those that have not moved leave two.
fn narrow() -> TransferOptions {
    // Chunks count a little more than they are long.
    let memory = MemoryBudget::new(4 * CHUNK + CHUNK / 8);
    TransferOptions { lanes: CHUNKS as usize, memory: Some(memory), ..options() }
}

/// A fetch whose receiver wants everything and takes nothing.
struct Stalled {
    _rpc: RpcClient,
    _records: BiStream,
    claim: Claim,
}

impl Stalled {
    async fn begin(world: &World, number: u8) -> Self {
        let rpc = world.admitted().await;
        let transfer = [number; 16];
        let mut claim = rpc.connection().claim(TransferId::from_bytes(transfer)).unwrap();
        rpc.call_typed(FETCH_OPEN, &all_of_it(transfer), Duration::from_secs(5)).await.unwrap();
        let mut records = claim.records().await.unwrap();
        manifest_of(&mut records).await;
        let mut wants = BytesMut::new();
        (0..CHUNKS).for_each(|index| want(index, 0, index * CHUNK, CHUNK).encode(&mut wants).unwrap());
        records.send.write(wants.freeze()).await.unwrap();
        let first = claim.next().await;
        assert!(first.is_some(), "each begins");
        // Kept unread as long as the receiver is there.
        std::mem::forget(first);
        Self { _rpc: rpc, _records: records, claim }
    }

    /// Chunks that have been begun beyond the first.
    fn more(&mut self) -> usize {
        std::iter::from_fn(|| self.claim.next().now_or_never().flatten().map(std::mem::forget)).count()
    }
}

#[tokio::test]
async fn receivers_that_stall_hold_no_more_chunks_than_there_is_room_for_and_others_go_on() {
    let content = noise(1, (CHUNK * CHUNKS) as usize);
    let world = World::with_options(narrow(), |source| fs::write(source.join("x"), &content).unwrap());
    let mut crowd = Vec::new();
    for number in 1..=6 {
        crowd.push(Stalled::begin(&world, number).await);
    }
    let client = world.admitted().await;
    world.fetch(&client, "x").await.unwrap();
    assert_eq!(fs::read(world.dest().join("x")).unwrap(), content);
    let more: usize = crowd.iter_mut().map(Stalled::more).sum();
    assert!(more <= 4, "{more} chunks were begun beyond the first of each");
}

#[tokio::test]
async fn pushers_that_stall_are_asked_for_no_more_chunks_than_there_is_room_for() {
    let world = World::writable_with(narrow());
    let crowd = futures::future::join_all((1..=6).map(|number| Asking::begin(&world, number))).await;
    let wanted: usize = crowd.iter().map(|asking| asking.wanted).sum();
    assert!(wanted <= 2 + crowd.len(), "{wanted} chunks were asked for");
}

/// A push that has been begun, and how many chunks it was asked for.
struct Asking {
    _rpc: RpcClient,
    _records: BiStream,
    wanted: usize,
}

impl Asking {
    async fn begin(world: &World, number: u8) -> Self {
        let rpc = world.admitted_by(world.ticket_to_write("")).await;
        let name = number.to_string();
        let request = raw(number, b"", RawShape::File { name: name.clone().into() });
        let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
        let RawOpened::Ready { invites, .. } = open(&rpc, &request).await.unwrap() else { panic!("refused") };
        let mut records = claim.records().await.unwrap();
        let end = ProviderRecord::End { entries: 1, total_bytes: CHUNK * CHUNKS };
        let entry = file(&name, CHUNK * CHUNKS);
        // Not every one of a crowd is invited.
        let offers_end = invites.then_some(ProviderRecord::OffersEnd);
        for record in [entry].into_iter().chain(offers_end).chain([end]) {
            records.send.write(encode(&record)).await.unwrap();
        }
        let wanted = wants(&mut records).await;
        Self { _rpc: rpc, _records: records, wanted }
    }
}

/// How many chunks are wanted before the receiver has nothing to say but that it lives.
async fn wants(records: &mut BiStream) -> usize {
    let mut reader = RecordReader::<ReceiverRecord>::new();
    let mut wanted = 0;
    loop {
        while let Some(record) = reader.poll().unwrap() {
            match record {
                ReceiverRecord::WantChunk { .. } => wanted += 1,
                ReceiverRecord::Alive if wanted > 0 => return wanted,
                _ => {}
            }
        }
        reader.push(records.recv.read().await.unwrap().unwrap());
    }
}
