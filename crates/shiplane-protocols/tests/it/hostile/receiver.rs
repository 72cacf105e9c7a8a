//! A receiver that lies to an honest server.

use std::{fs, time::Duration};

use bytes::{Bytes, BytesMut};
use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::{
    LaneOptions, StreamError,
    internals::{BiStream, Claim, TransferStream},
};
use shiplane_wire::{
    Code, Digest, ProviderRecord, ReceiverRecord, RecordReader, Span, TaggedChunk, TransferId,
};

use super::{Claimed, FETCH_OPEN, FetchOpen, RawFilters};
use crate::harness::{PROGRESS_TIMEOUT, World};

pub(super) const TRANSFER: [u8; 16] = [9; 16];

/// Asks for all that is served.
pub(super) fn all_of_it(transfer: [u8; 16]) -> FetchOpen {
    FetchOpen {
        transfer,
        path: Vec::new(),
        compression: 0,
        bytes_per_second: None,
        digests: 3,
        filters: RawFilters::default(),
        invites: false,
        attributes: false,
    }
}

/// A receiver that plays its records by hand.
pub(super) struct Begun {
    pub(super) world: World,
    pub(super) rpc: RpcClient,
    pub(super) claim: Claim,
    pub(super) records: BiStream,
}

/// An admitted peer that has opened a fetch of a file of five bytes.
async fn begun() -> Begun {
    begun_with(all_of_it(TRANSFER)).await
}

pub(super) async fn begun_with(request: FetchOpen) -> Begun {
    let world = World::new(|source| fs::write(source.join("x"), b"hello").unwrap());
    let rpc = world.admitted().await;
    begun_by(world, rpc, request).await
}

pub(super) async fn begun_by(world: World, rpc: RpcClient, request: FetchOpen) -> Begun {
    let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
    rpc.call_typed(FETCH_OPEN, &request, Duration::from_secs(5)).await.unwrap();
    let records = claim.records().await.unwrap();
    Begun { world, rpc, claim, records }
}

/// Plays `records`, each once the manifest is known, and gives the code that the server resets with.
async fn answer_to(records: &[ReceiverRecord]) -> Code {
    end_after(records).await.expect("the server agrees")
}

/// The same; `None` if the server ends the stream in order.
async fn end_after(records: &[ReceiverRecord]) -> Option<Code> {
    let Begun { world: _world, rpc: _rpc, claim: _claim, records: mut stream } = begun().await;
    let manifest = stream.recv.read().await.unwrap();
    assert!(manifest.is_some());
    say(&mut stream, records).await;
    loop {
        match stream.recv.read().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(StreamError::Reset(code)) => return Some(code),
            Err(other) => panic!("the server goes on: {other:?}"),
        }
    }
}

/// Writes `records`; a flood may be stopped before it was written whole.
pub(super) async fn say(stream: &mut BiStream, records: &[ReceiverRecord]) {
    let mut out = BytesMut::new();
    records.iter().for_each(|record| record.encode(&mut out).unwrap());
    let _ = stream.send.write(out.freeze()).await;
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
    let signatures = |entry, offset_bytes, len_bytes| ReceiverRecord::WantSignatures {
        span: Span { entry, offset_bytes, len_bytes },
        average_bytes: 2048,
    };
    let lies: [&[ReceiverRecord]; 11] = [
        &[signatures(0, 0, 6)],
        &[signatures(0, 5, 1)],
        &[signatures(1, 0, 5)],
        &[want(1, 0, 0, 5)],
        &[want(0, 1, 0, 5)],
        &[want(0, 0, 0, 6)],
        &[want(0, 0, 5, 1)],
        &[want(0, 0, 0, 5), want(0, 0, 0, 5)],
        &[ReceiverRecord::Release { below: 2 }],
        &[ReceiverRecord::Release { below: 1 }, want(0, 0, 0, 5)],
        &[ReceiverRecord::Done { chunks: 1, transfer_digest: Digest::blake3(b""), failed: 0 }],
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
    let Begun { world: _world, rpc: _rpc, mut claim, records: mut stream } = begun().await;
    manifest_of(&mut stream).await;
    say(&mut stream, &[want(0, 0, 0, 5)]).await;

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
    let Begun { world: _world, rpc, claim: _claim, records: mut stream } = begun().await;
    manifest_of(&mut stream).await;
    let source = Claimed { len_bytes: 5, data: Bytes::from_static(b"HELLO") };
    let tag = TaggedChunk { transfer: TransferId::from_bytes(TRANSFER), index: 0 };
    assert!(rpc.connection().send_tagged_chunk(tag, source, &LaneOptions::default()).await.is_err());
}

#[tokio::test]
async fn a_receiver_that_has_something_else_is_not_confirmed() {
    let (empty, other) = (Digest::blake3(b""), Digest::from_bytes([1; 32]));
    let done = |chunks, transfer_digest, failed| [ReceiverRecord::Done { chunks, transfer_digest, failed }];
    assert_eq!(end_after(&done(0, other, 0)).await, Some(Code::Integrity));
    assert_eq!(end_after(&done(0, empty, 1)).await, Some(Code::Integrity));
    assert_eq!(end_after(&done(1, empty, 0)).await, Some(Code::Protocol));
    assert_eq!(end_after(&done(0, empty, 0)).await, None, "the truth is confirmed");
}

#[tokio::test]
async fn a_transfer_id_is_used_once() {
    let Begun { world: _world, rpc, claim: _claim, records: _records } = begun().await;
    let error = rpc.call_typed(FETCH_OPEN, &all_of_it(TRANSFER), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, CallError::Fault(fault) if fault.code == FaultCode::InvalidRequest));
}

#[tokio::test]
async fn a_receiver_that_goes_away_leaves_the_server_free() {
    let Begun { mut world, rpc: _rpc, claim, records: mut stream } = begun().await;
    stream.recv.read().await.unwrap().expect("the transfer has begun");
    drop((stream, claim));
    // Only a transfer that has ended lets it end so soon.
    tokio::time::timeout(PROGRESS_TIMEOUT / 2, world.shut_down()).await.expect("the transfer goes on");
}
