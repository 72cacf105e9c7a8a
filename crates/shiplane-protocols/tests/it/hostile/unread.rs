//! Receivers that request much and read nothing.

use std::{fs, time::Duration};

use bytes::{Bytes, BytesMut};
use shiplane_protocols::{Compression, internals::transfer::TransferOptions};
use shiplane_rpc::RpcClient;
use shiplane_transport::internals::SendHalf;
use shiplane_wire::{ProviderRecord, ReceiverRecord, RecordReader, Span, TransferId, limits};

use super::{
    FETCH_OPEN, FetchOpen,
    memory::{alone, assert_grown_little, resident_bytes},
    receiver::{TRANSFER, all_of_it, begun_by, manifest_of, want},
};
use crate::harness::{PROGRESS_TIMEOUT, World, noise, options};

/// Two lists of its signatures are more than one transfer may add to a process.
const FILE_LEN_BYTES: u64 = 2 << 30;

/// What a server may take to give it up, on a busy machine: half of what it gives a receiver that chooses.
const LIMIT: Duration = Duration::from_secs(5 * PROGRESS_TIMEOUT.as_secs());

#[test]
fn unread_block_signatures_cost_a_server_little() {
    alone("hostile::unread::unread_block_signatures_cost_a_server_little", async {
        let world = World::new(|source| {
            fs::File::create(source.join("x")).unwrap().set_len(FILE_LEN_BYTES).unwrap();
        });
        let rpc = world.admitted_with_narrow_windows().await;
        let mut begun = begun_by(world, rpc, all_of_it(TRANSFER)).await;
        manifest_of(&mut begun.records).await;
        let before_bytes = resident_bytes("VmRSS:");
        let span = Span { entry: 0, offset_bytes: 0, len_bytes: FILE_LEN_BYTES };
        let average_bytes = limits::MIN_BLOCK_AVERAGE_BYTES;
        let asks = encoded(&vec![ReceiverRecord::WantSignatures { span, average_bytes }; 2]);
        begun.records.send.write(asks).await.unwrap();
        let is_given_up = is_given_up(&mut begun.records.send).await;
        assert_grown_little(before_bytes, "signatures that nobody reads");
        assert!(is_given_up, "the server goes on");
    });
}

#[test]
fn a_crowd_that_asks_for_block_signatures_at_once_costs_a_server_little() {
    const CROWD: u8 = 24;
    const LEN_BYTES: u64 = 64 << 20;
    /// A third of what they would take if each had a buffer.
    const MAX_GROWTH_BYTES: u64 = 64 << 20;
    alone("hostile::unread::a_crowd_that_asks_for_block_signatures_at_once_costs_a_server_little", async {
        let world = World::new(|source| {
            fs::File::create(source.join("x")).unwrap().set_len(LEN_BYTES).unwrap();
        });
        let rpc = world.admitted().await;
        let before_bytes = resident_bytes("VmRSS:");
        let asking = (1..=CROWD).map(|number| ask_for_signatures(&rpc, number, LEN_BYTES));
        futures::future::join_all(asking).await;
        let grown_bytes = resident_bytes("VmHWM:") - before_bytes;
        assert!(grown_bytes <= MAX_GROWTH_BYTES, "it cost {grown_bytes} bytes");
    });
}

#[test]
fn a_crowd_that_reads_no_compressed_chunk_costs_a_server_little() {
    const CROWD: u8 = 6;
    const LEN_BYTES: u64 = limits::MAX_PAYLOAD_CHUNK_LEN_BYTES;
    alone("hostile::unread::a_crowd_that_reads_no_compressed_chunk_costs_a_server_little", async {
        let options = TransferOptions { compression: Compression::Always, ..options() };
        let world = World::with_options(options, |source| {
            // It shrinks, but not by much.
            let content: Vec<_> = noise(1, LEN_BYTES as usize).iter().map(|byte| byte & 63).collect();
            fs::write(source.join("x"), content).unwrap();
        });
        let rpc = world.admitted().await;
        let before_bytes = resident_bytes("VmRSS:");
        let crowd = (1..=CROWD).map(async |number| {
            let request = FetchOpen { compression: 2, ..all_of_it([number; 16]) };
            let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
            rpc.call_typed(FETCH_OPEN, &request, Duration::from_secs(10)).await.unwrap();
            let mut records = claim.records().await.unwrap();
            manifest_of(&mut records).await;
            records.send.write(encoded(&[want(0, 0, 0, LEN_BYTES)])).await.unwrap();
            let chunk = claim.next().await.unwrap();
            (claim, records, chunk)
        });
        let crowd = futures::future::join_all(crowd).await;
        assert_grown_little(before_bytes, "compressed chunks that nobody reads");
        drop(crowd);
    });
}

#[test]
fn wants_without_end_are_held_back_and_cost_a_server_little() {
    const SPAN_LEN_BYTES: u64 = 4 << 10;
    const SPANS: u64 = limits::MAX_SPANS_PER_CHUNK as u64;
    /// 256 KiB may wait at the sender and 64 KiB at the server. Three wants of 8 KiB are heard, where 32 smaller ones could be.
    const MAX_TAKEN_BYTES: usize = 480 << 10;
    alone("hostile::unread::wants_without_end_are_held_back_and_cost_a_server_little", async {
        let world = World::new(|source| {
            fs::write(source.join("x"), noise(1, (SPANS * SPAN_LEN_BYTES) as usize)).unwrap();
        });
        let rpc = world.admitted_with_narrow_windows().await;
        let mut begun = begun_by(world, rpc, all_of_it(TRANSFER)).await;
        manifest_of(&mut begun.records).await;
        let before_bytes = resident_bytes("VmRSS:");
        let span =
            |number| Span { entry: 0, offset_bytes: number * SPAN_LEN_BYTES, len_bytes: SPAN_LEN_BYTES };
        let spans: Vec<_> = (0..SPANS).map(span).collect();
        let mut taken_bytes = 0;
        let flood = async {
            for index in 0.. {
                let want = encoded(&[ReceiverRecord::WantChunk { index, spans: spans.clone() }]);
                let len_bytes = want.len();
                if begun.records.send.write(want).await.is_err() {
                    return;
                }
                taken_bytes += len_bytes;
            }
        };
        tokio::time::timeout(LIMIT, flood).await.expect("the server goes on");
        assert_grown_little(before_bytes, "wants without end");
        println!("{taken_bytes} bytes of wants were taken");
        assert!(taken_bytes <= MAX_TAKEN_BYTES, "{taken_bytes} bytes of wants were taken");
    });
}

/// Takes the longest signatures of a file twice, in another transfer for each number.
async fn ask_for_signatures(rpc: &RpcClient, number: u8, len_bytes: u64) {
    let request = all_of_it([number; 16]);
    let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
    rpc.call_typed(FETCH_OPEN, &request, Duration::from_secs(10)).await.unwrap();
    let mut records = claim.records().await.unwrap();
    manifest_of(&mut records).await;
    let span = Span { entry: 0, offset_bytes: 0, len_bytes };
    let average_bytes = limits::MAX_BLOCK_AVERAGE_BYTES;
    let asks = encoded(&vec![ReceiverRecord::WantSignatures { span, average_bytes }; 2]);
    records.send.write(asks).await.unwrap();
    let (mut reader, mut signed_bytes) = (RecordReader::<ProviderRecord>::new(), 0);
    while signed_bytes < 2 * len_bytes {
        reader.push(records.recv.read().await.unwrap().unwrap());
        while let Some(record) = reader.poll().unwrap() {
            if let ProviderRecord::Signatures(part) = record {
                signed_bytes +=
                    part.signatures.iter().map(|signature| u64::from(signature.len_bytes)).sum::<u64>();
            }
        }
    }
}

/// Says that it lives, until the server ends the transfer; whether that is soon.
async fn is_given_up(send: &mut SendHalf) -> bool {
    let mut often = tokio::time::interval(PROGRESS_TIMEOUT / 8);
    let lives = async {
        while send.write(encoded(&[ReceiverRecord::Alive])).await.is_ok() {
            often.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, lives).await.is_ok()
}

pub(super) fn encoded(records: &[ReceiverRecord]) -> Bytes {
    let mut out = BytesMut::new();
    records.iter().for_each(|record| record.encode(&mut out).unwrap());
    out.freeze()
}
