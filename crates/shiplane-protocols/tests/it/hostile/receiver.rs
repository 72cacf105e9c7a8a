//! A receiver that lies to an honest server.

use std::{fs, time::Duration};

use bytes::{Bytes, BytesMut};
use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::{BiStream, LaneOptions, StreamError, TransferStream};
use shiplane_wire::{Code, ProviderRecord, ReceiverRecord, RecordReader, Span, TaggedChunk, TransferId};

use super::{CONFIRM, Claimed, Confirm, FETCH_OPEN, FetchOpen};
use crate::harness::World;

const TRANSFER: [u8; 16] = [9; 16];

/// Asks for all that is served.
fn all_of_it() -> FetchOpen {
    FetchOpen { transfer: TRANSFER, path: Vec::new(), compression: 0, bytes_per_second: None, digests: 3 }
}

/// An admitted peer with an open records stream for a file of five bytes.
async fn begun() -> (World, RpcClient, BiStream) {
    let world = World::new(|source| fs::write(source.join("x"), b"hello").unwrap());
    let rpc = world.admitted().await;
    rpc.call_typed(FETCH_OPEN, &all_of_it(), Duration::from_secs(5)).await.unwrap();
    let records = rpc.connection().open_records(TransferId::from_bytes(TRANSFER)).await.unwrap();
    (world, rpc, records)
}

/// Plays `records`, each once the manifest is known, and gives the code that the server resets with.
async fn answer_to(records: &[ReceiverRecord]) -> Code {
    let (_world, _rpc, mut stream) = begun().await;
    let manifest = stream.recv.read().await.unwrap();
    assert!(manifest.is_some());
    let mut out = BytesMut::new();
    records.iter().for_each(|record| record.encode(&mut out).unwrap());
    // A flood may be stopped before it was written whole.
    let _ = stream.send.write(out.freeze()).await;
    loop {
        match stream.recv.read().await {
            Ok(Some(_)) => {}
            Err(StreamError::Reset(code)) => return code,
            other => panic!("the server goes on: {other:?}"),
        }
    }
}

/// Reads to the end of the manifest.
pub(super) async fn manifest_of(stream: &mut BiStream) {
    let mut reader = RecordReader::<ProviderRecord>::new();
    loop {
        while let Some(record) = reader.poll().unwrap() {
            if matches!(record, ProviderRecord::End { .. }) {
                return;
            }
        }
        reader.push(stream.recv.read().await.unwrap().unwrap());
    }
}

pub(super) fn want(index: u64, entry: u64, offset_bytes: u64, len_bytes: u64) -> ReceiverRecord {
    ReceiverRecord::WantChunk { index, spans: vec![Span { entry, offset_bytes, len_bytes }] }
}

#[tokio::test]
async fn wants_beyond_what_there_is_are_protocol_errors() {
    let cuts = |entry, offset_bytes, len_bytes| ReceiverRecord::WantCuts {
        span: Span { entry, offset_bytes, len_bytes },
        average_bytes: 2048,
    };
    let lies: [&[ReceiverRecord]; 11] = [
        &[cuts(0, 0, 6)],
        &[cuts(0, 5, 1)],
        &[cuts(1, 0, 5)],
        &[want(1, 0, 0, 5)],
        &[want(0, 1, 0, 5)],
        &[want(0, 0, 0, 6)],
        &[want(0, 0, 5, 1)],
        &[want(0, 0, 0, 5), want(0, 0, 0, 5)],
        &[ReceiverRecord::Release { below: 2 }],
        &[ReceiverRecord::Release { below: 1 }, want(0, 0, 0, 5)],
        &[ReceiverRecord::Done { chunks: 1 }],
    ];
    for records in lies {
        assert_eq!(answer_to(records).await, Code::Protocol, "{records:?}");
    }
}

#[tokio::test]
async fn digests_are_made_for_files_that_exist_and_not_without_bound() {
    assert_eq!(answer_to(&[ReceiverRecord::WantDigest { entry: 1 }]).await, Code::Protocol);
    let flood = vec![ReceiverRecord::WantDigest { entry: 0 }; 100_000];
    assert_eq!(answer_to(&flood).await, Code::Protocol);
}

#[tokio::test]
async fn a_chunk_that_is_found_wrong_for_ever_is_sent_three_times() {
    let (_world, rpc, mut stream) = begun().await;
    let mut claim = rpc.connection().claim(TransferId::from_bytes(TRANSFER)).unwrap();
    manifest_of(&mut stream).await;
    let mut out = BytesMut::new();
    want(0, 0, 0, 5).encode(&mut out).unwrap();
    stream.send.write(out.freeze()).await.unwrap();

    let mut attempts = 0;
    let code = loop {
        tokio::select! {
            opened = claim.next() => {
                let Some(TransferStream::Chunk(chunk)) = opened else { panic!("no chunk") };
                attempts += 1;
                chunk.answer_with(CHECKSUM_FAILED).await.unwrap();
            }
            record = stream.recv.read() => match record {
                Ok(Some(_)) => {}
                Err(StreamError::Reset(code)) => break code,
                other => panic!("the server goes on: {other:?}"),
            },
        }
    };
    assert_eq!((attempts, code), (3, Code::Cancelled));
}

/// SPEC 3.4.
const CHECKSUM_FAILED: u8 = 1;

#[tokio::test]
async fn a_receiver_that_sends_chunks_itself_is_not_listened_to() {
    let (_world, rpc, mut stream) = begun().await;
    manifest_of(&mut stream).await;
    let source = Claimed { len_bytes: 5, data: Bytes::from_static(b"HELLO") };
    let tag = TaggedChunk { transfer: TransferId::from_bytes(TRANSFER), index: 0 };
    assert!(rpc.connection().send_tagged_chunk(tag, source, &LaneOptions::default()).await.is_err());
}

#[tokio::test]
async fn confirming_something_else_is_an_integrity_fault_and_nothing_is_complete() {
    let (_world, rpc, mut stream) = begun().await;
    let mut out = BytesMut::new();
    ReceiverRecord::Done { chunks: 0 }.encode(&mut out).unwrap();
    stream.send.write(out.freeze()).await.unwrap();
    let confirm = |transfer, root, chunks| Confirm { transfer, root, chunks, durable: true };
    let call = async |request: Confirm| {
        let error = rpc.call_typed(CONFIRM, &request, Duration::from_secs(5)).await.err()?;
        match error {
            CallError::Fault(fault) => Some(fault.code),
            other => panic!("{other}"),
        }
    };
    let empty = *shiplane_wire::Digest::blake3(b"").as_bytes();
    assert_eq!(call(confirm(TRANSFER, [1; 32], 0)).await, Some(FaultCode::Integrity));
    assert_eq!(call(confirm(TRANSFER, empty, 1)).await, Some(FaultCode::Integrity));
    assert_eq!(call(confirm([8; 16], empty, 0)).await, Some(FaultCode::Gone));
    assert_eq!(call(confirm(TRANSFER, empty, 0)).await, None, "the truth is accepted");
    assert_eq!(call(confirm(TRANSFER, empty, 0)).await, None, "and again");
}

#[tokio::test]
async fn a_transfer_id_is_used_once() {
    let (_world, rpc, _stream) = begun().await;
    let error = rpc.call_typed(FETCH_OPEN, &all_of_it(), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, CallError::Fault(fault) if fault.code == FaultCode::InvalidRequest));
}

#[tokio::test]
async fn a_receiver_that_goes_away_leaves_the_server_free() {
    let (mut world, rpc, mut stream) = begun().await;
    stream.recv.read().await.unwrap().expect("the transfer has begun");
    drop(stream);
    let ended = rpc.call_typed(
        CONFIRM,
        &Confirm { transfer: TRANSFER, root: [0; 32], chunks: 0, durable: false },
        Duration::from_secs(5),
    );
    assert!(matches!(ended.await, Err(CallError::Fault(fault)) if fault.code == FaultCode::Gone));
    world.shut_down().await;
}
