//! Offered chunks, and peers that lie about them (SPEC 4.24).

mod honest;
mod receivers;
mod window;

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use shiplane_protocols::internals::{
    FetchError, WriteLimits,
    transfer::{FilesReport, ProtocolFault, TransferError},
};
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{PeerAddr, SendChunkError, StreamError, internals::BiStream};
use shiplane_wire::{
    Code, Digest, LeftOutReason, ProviderRecord, ReceiverRecord, Span, TaggedChunk, TransferId, limits,
};
use tempfile::TempDir;
use tokio::time::interval;

use super::{
    FETCH_OPEN, FetchOpened, IMPATIENT, PATIENT, TransferShape, directory, encode, file,
    liar::{
        Fixture, Liar, Script, end, fetch_with, fetch_within, published, script, small_chunks, transfer_error,
    },
    transport,
};
use crate::{
    harness::World,
    push::names::{RawOpened, RawShape, open, raw},
};

const OFFERS_END: ProviderRecord = ProviderRecord::OffersEnd;

/// An offer of these spans: entry, offset, length.
fn offer(spans: &[(u64, u64, u64)]) -> ProviderRecord {
    let span = |&(entry, offset_bytes, len_bytes)| Span { entry, offset_bytes, len_bytes };
    ProviderRecord::Offer { spans: spans.iter().map(span).collect() }
}

/// Fetches as if nothing of it were here, into a directory that `fill` has filled.
async fn invite(
    patience: Duration,
    fill: impl FnOnce(&Path),
    script: Script,
) -> (Result<FilesReport, FetchError>, TempDir) {
    let liar = Liar::meet(patience, TransferShape::Contents, script).await;
    let dir = TempDir::new().unwrap();
    fill(dir.path());
    let options = small_chunks();
    let fetched = tokio::time::timeout(PATIENT / 2, fetch_with(&liar.rpc, true, dir.path(), &options));
    (fetched.await.expect("no liar holds a get up for long"), dir)
}

/// What is made of these records, while a chunk of five bytes is sent: number 0.
async fn told(records: Vec<ProviderRecord>) -> TransferError {
    told_with(0, records).await
}

async fn told_with(chunk: u64, records: Vec<ProviderRecord>) -> TransferError {
    let shown = format!("{records:?}");
    let (result, dir) = invite(
        PATIENT,
        |_| (),
        script(move |mut fixture| {
            let records = records.clone();
            async move {
                let _chunk = fixture.open_chunk(chunk, b"hello").await;
                fixture.say(&records).await;
                fixture.linger().await;
            }
        }),
    )
    .await;
    assert!(result.is_err(), "{shown}");
    assert!(published(&dir).is_empty(), "{shown}");
    transfer_error(result)
}

impl Fixture {
    /// Sends a chunk whole and waits for nothing.
    async fn open_chunk(&self, index: u64, data: &[u8]) -> BiStream {
        let tag = TaggedChunk { transfer: self.transfer, index };
        let len_bytes = data.len() as u64;
        let frame =
            [&tag.encode()[..], &len_bytes.to_le_bytes(), data, Digest::blake3(data).as_bytes()].concat();
        let mut stream = self.connection.open_stream(Bytes::from(frame)).await.unwrap();
        stream.send.finish().unwrap();
        stream
    }

    /// Sends a chunk that the victim is to decline.
    async fn declined(&self, index: u64, data: &[u8]) {
        let sent = self.try_chunk(index, data.len() as u64, data).await;
        assert!(matches!(sent, Err(SendChunkError::Rejected { .. })), "chunk {index}: {sent:?}");
    }

    async fn accepted(&self, index: u64, data: &[u8]) {
        let sent = self.try_chunk(index, data.len() as u64, data).await;
        sent.unwrap_or_else(|error| panic!("chunk {index}: {error}"));
    }

    /// Waits until the victim says that it has everything.
    async fn done(&mut self) {
        while !matches!(self.hear().await.expect("it goes on until it is done"), ReceiverRecord::Done { .. })
        {
        }
    }

    /// Agrees with what the victim has.
    async fn confirm(mut self) {
        self.linger().await;
        let _ = self.send.finish();
    }
}

fn content(dir: &TempDir, name: &str) -> Vec<u8> {
    fs::read(dir.path().join(name)).unwrap()
}

/// A file as the liars list it.
fn identical(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
}

#[tokio::test]
async fn uninvited_offers_break_the_protocol() {
    for record in [offer(&[(0, 0, 5)]), OFFERS_END] {
        let shown = format!("{record:?}");
        let (result, dir) = fetch_within(
            PATIENT,
            TransferShape::Contents,
            script(move |mut fixture| {
                let record = record.clone();
                async move {
                    fixture.say(&[file("x", 5), record]).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        let error = transfer_error(result);
        assert!(matches!(error, TransferError::Protocol(_)), "{shown}: {error}");
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn a_chunk_that_was_neither_offered_nor_wanted_breaks_the_protocol() {
    // Whether there are offers or not, and whether the chunk comes before it is known that it is none of them.
    let (x, first) = (file("x", 5), offer(&[(0, 0, 5)]));
    for (chunk, records) in [
        (1, vec![x.clone(), OFFERS_END, end(1, 5)]),
        (1, vec![x.clone(), first.clone(), OFFERS_END, end(1, 5)]),
        (limits::MAX_OFFERS, vec![x, first]),
    ] {
        let error = told_with(chunk, records).await;
        let expected = ProtocolFault::UnwantedChunk { index: chunk };
        assert!(matches!(&error, TransferError::Protocol(fault) if *fault == expected), "{error}");
    }
}

/// Begins a push, and gives its stream of records and whether the server invites offers.
async fn pushed(world: &World, rpc: &RpcClient) -> (BiStream, bool) {
    let request = raw(1, b"", RawShape::File { name: b"x".to_vec() });
    let mut claim = rpc.connection().claim(TransferId::from_bytes(request.transfer)).unwrap();
    let opened = open(rpc, &request).await.unwrap();
    let RawOpened::Ready { invites, .. } = opened else { panic!("{opened:?}") };
    assert_eq!(invites, !world.source().join("x").exists());
    (claim.records().await.unwrap(), invites)
}

async fn code_of(mut records: BiStream) -> Code {
    loop {
        match records.recv.read().await {
            Ok(Some(_)) => {}
            Err(StreamError::Reset(code)) => return code,
            other => panic!("the server goes on: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_pusher_that_offers_where_something_is_already_breaks_the_protocol() {
    for record in [offer(&[(0, 0, 5)]), OFFERS_END] {
        let world = World::writable(WriteLimits::default());
        fs::write(world.source().join("x"), b"mine").unwrap();
        let rpc = world.admitted_by(world.ticket_to_write("")).await;
        let (mut records, invites) = pushed(&world, &rpc).await;
        assert!(!invites);
        for record in [file("x", 5), record] {
            records.send.write(encode(&record)).await.unwrap();
        }
        assert_eq!(code_of(records).await, Code::Protocol);
        assert_eq!(fs::read(world.source().join("x")).unwrap(), b"mine");
    }
}

#[tokio::test]
async fn a_pusher_that_offers_too_much_breaks_the_protocol() {
    let world = World::writable(WriteLimits::default());
    let rpc = world.admitted_by(world.ticket_to_write("")).await;
    let (mut records, invites) = pushed(&world, &rpc).await;
    assert!(invites);
    for record in [file("x", 1 << 30), offer(&[(0, 0, limits::MAX_OFFERED_BYTES + 1)])] {
        records.send.write(encode(&record)).await.unwrap();
    }
    assert_eq!(code_of(records).await, Code::Protocol);
    assert!(!world.source().join("x").exists());
}

#[tokio::test]
async fn offers_beyond_the_limits_break_the_protocol() {
    let max = limits::MAX_OFFERED_BYTES;
    let many: Vec<_> = (0..=limits::MAX_OFFERS).map(|at| offer(&[(0, at, 1)])).collect();
    let large = vec![offer(&[(0, 0, max)]), offer(&[(0, max, 1)])];
    for offers in [many, large, vec![offer(&[(0, 0, max + 1)])], vec![offer(&[(0, 0, max), (0, max, 1)])]] {
        let last = offers.len() as u64 - 1;
        let error = told([vec![file("x", 1 << 30)], offers].concat()).await;
        let expected = ProtocolFault::UnwantedChunk { index: last };
        assert!(matches!(&error, TransferError::Protocol(fault) if *fault == expected), "{error}");
    }
}

#[tokio::test]
async fn an_offer_of_an_entry_that_has_not_come_breaks_the_protocol() {
    for offer in [offer(&[(1, 0, 5)]), offer(&[(0, 0, 5), (1, 0, 1)]), offer(&[(u64::MAX, 0, 5)])] {
        let error = told(vec![file("x", 5), offer, file("y", 5), OFFERS_END, end(2, 10)]).await;
        let is_unknown = matches!(error, TransferError::Protocol(ProtocolFault::UnknownEntry { .. }));
        assert!(is_unknown, "{error}");
    }
}

#[tokio::test]
async fn offers_out_of_place_break_the_protocol() {
    let (x, first) = (file("x", 5), offer(&[(0, 0, 5)]));
    let misplaced = [
        vec![x.clone(), first.clone(), end(1, 5)],
        vec![x.clone(), first.clone(), OFFERS_END, OFFERS_END],
        vec![x.clone(), first.clone(), OFFERS_END, offer(&[(0, 0, 5)])],
        vec![x.clone(), first.clone(), OFFERS_END, end(1, 5), offer(&[(0, 0, 5)])],
        vec![end(0, 0)],
        vec![OFFERS_END, OFFERS_END],
        // Withheld for no reason.
        vec![x.clone(), first.clone(), OFFERS_END, ProviderRecord::ChunkVoid { index: 1 }, end(1, 5)],
    ];
    for records in misplaced {
        let shown = format!("{records:?}");
        // Chunk 0 may come, or may not; a file that is published before the lie is noticed is whole.
        let (result, _dir) = invite(
            PATIENT,
            |_| (),
            script(move |mut fixture| {
                let records = records.clone();
                async move {
                    fixture.say(&records).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        let error = transfer_error(result);
        assert!(matches!(error, TransferError::Protocol(_)), "{shown}: {error}");
    }
}

#[tokio::test]
async fn a_provider_that_never_ends_its_offers_is_given_up() {
    for lives in [false, true] {
        let (result, dir) = invite(
            IMPATIENT,
            |_| (),
            script(move |mut fixture| async move {
                fixture.say(&[file("x", 5), offer(&[(0, 0, 5)])]).await;
                let _chunk = fixture.open_chunk(0, b"hello").await;
                if !lives {
                    return fixture.linger().await;
                }
                let mut often = interval(IMPATIENT / 8);
                let alive = ProviderRecord::Alive { scanned_entries: 1, bytes_per_second: 0 };
                while fixture.send.write(encode(&alive)).await.is_ok() {
                    often.tick().await;
                }
            }),
        )
        .await;
        assert!(matches!(transfer_error(result), TransferError::Silent { .. }), "{lives}");
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn a_provider_that_never_sends_what_it_offered_is_given_up() {
    let (result, dir) = invite(
        IMPATIENT,
        |_| (),
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), offer(&[(0, 0, 5)]), OFFERS_END, end(1, 5)]).await;
            fixture.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn a_pusher_that_never_ends_its_offers_is_given_up() {
    let world = World::writable(WriteLimits::default());
    let rpc = world.admitted_by(world.ticket_to_write("")).await;
    let (mut records, _) = pushed(&world, &rpc).await;
    for record in [file("x", 5), offer(&[(0, 0, 5)])] {
        records.send.write(encode(&record)).await.unwrap();
    }
    let given_up = tokio::time::timeout(4 * crate::harness::PROGRESS_TIMEOUT, code_of(records));
    assert_eq!(given_up.await.unwrap(), Code::Timeout);
    assert!(!world.source().join("x").exists());
}

#[tokio::test]
async fn offered_chunks_may_come_before_their_entry_and_their_offer() {
    let (result, dir) = invite(
        PATIENT,
        |_| (),
        script(|mut fixture| async move {
            let second = fixture.open_chunk(1, b"world").await;
            let first = fixture.open_chunk(0, b"hello").await;
            for record in [file("x", 5), offer(&[(0, 0, 5)]), file("y", 5), offer(&[(1, 0, 5)]), OFFERS_END] {
                fixture.say(&[record]).await;
                tokio::task::yield_now().await;
            }
            fixture.say(&[end(2, 10)]).await;
            for mut chunk in [first, second] {
                assert_eq!(chunk.recv.read().await.unwrap(), Some(Bytes::from_static(&[0])), "stored");
            }
            fixture.confirm().await;
        }),
    )
    .await;
    let report = result.unwrap();
    assert_eq!((report.received_bytes, report.summary.published_files), (10, 2));
    assert_eq!((content(&dir, "x"), content(&dir, "y")), (b"hello".to_vec(), b"world".to_vec()));
}

#[tokio::test]
async fn an_offered_chunk_may_overtake_the_records_stream() {
    let (server, client) = (transport(PATIENT), transport(PATIENT));
    let router = Router::new().typed(FETCH_OPEN, |context, request| async move {
        assert!(request.invites);
        let (transfer, connection) = (TransferId::from_bytes(request.transfer), context.connection);
        // Sent before the answer and before the records.
        let tag = TaggedChunk { transfer, index: 0 };
        let digest = Digest::blake3(b"hello");
        let frame = [&tag.encode()[..], &5u64.to_le_bytes(), b"hello", digest.as_bytes()].concat();
        let mut chunk = connection.open_stream(frame.into()).await.unwrap();
        chunk.send.finish().unwrap();
        tokio::spawn(async move {
            let mut records = connection.open_records(transfer).await.unwrap();
            for record in [file("x", 5), offer(&[(0, 0, 5)]), OFFERS_END, end(1, 5)] {
                records.send.write(encode(&record)).await.unwrap();
            }
            while let Ok(Some(_)) = records.recv.read().await {}
            records.send.finish().unwrap();
            drop(chunk);
        });
        Ok(FetchOpened { shape: TransferShape::Contents, digest: 2 })
    });
    let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
    let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
    tokio::spawn(std::sync::Arc::new(router).serve(accepted.unwrap().1));
    let dir = TempDir::new().unwrap();
    let rpc = RpcClient::new(connected.unwrap());
    fetch_with(&rpc, true, dir.path(), &small_chunks()).await.unwrap();
    assert_eq!(content(&dir, "x"), b"hello");
}

#[tokio::test]
async fn an_offer_of_what_is_here_is_declined_and_the_rest_arrives() {
    let (result, dir) = invite(
        PATIENT,
        |dir| ["here", "too"].iter().for_each(|name| identical(&dir.join(name), b"hello")),
        script(|mut fixture| async move {
            fixture.say(&[file("here", 5), offer(&[(0, 0, 5)])]).await;
            // Of this one a part is here.
            fixture.say(&[file("too", 5), file("y", 5), offer(&[(1, 0, 5), (2, 0, 5)])]).await;
            fixture.say(&[file("z", 5), offer(&[(3, 0, 5)]), OFFERS_END, end(4, 20)]).await;
            tokio::join!(
                fixture.declined(0, b"HELLO"),
                fixture.declined(1, b"HELLOworld"),
                fixture.accepted(2, b"there")
            );
            assert_eq!(fixture.want().await, Some((3, 5)));
            fixture.accepted(3, b"world").await;
            fixture.confirm().await;
        }),
    )
    .await;
    let report = result.unwrap();
    assert_eq!((report.received_bytes, report.summary.identical_files), (10, 2));
    let contents = ["here", "too", "y", "z"].map(|name| content(&dir, name));
    assert_eq!(contents, [b"hello", b"hello", b"world", b"there"]);
}

#[tokio::test]
async fn declined_chunks_that_come_after_everything_else_do_not_hold_the_end_up() {
    let (result, dir) = invite(
        PATIENT,
        |dir| identical(&dir.join("x"), b"hello"),
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), offer(&[(0, 0, 5)]), OFFERS_END, end(1, 5)]).await;
            fixture.done().await;
            // An honest provider ends its records only once each of its chunks was answered.
            fixture.declined(0, b"HELLO").await;
            fixture.confirm().await;
        }),
    )
    .await;
    let report = result.unwrap();
    assert_eq!((report.received_bytes, report.summary.identical_files), (0, 1));
    assert_eq!(content(&dir, "x"), b"hello");
}

#[tokio::test]
async fn bytes_that_a_file_does_not_have_are_not_taken() {
    // The last one is of a directory.
    let odd: [&[(u64, u64, u64)]; 4] =
        [&[(0, 0, 6)], &[(0, 5, 1)], &[(0, (1 << 62) - 7, 6)], &[(0, 0, 5), (1, 0, 1)]];
    for spans in odd {
        let (result, dir) = invite(
            PATIENT,
            |_| (),
            script(move |mut fixture| async move {
                let entries = [file("x", 5), directory("d"), offer(spans), OFFERS_END, end(2, 5)];
                fixture.say(&entries).await;
                let len: u64 = spans.iter().map(|(_, _, len_bytes)| len_bytes).sum();
                let sent = fixture.try_chunk(0, len, &vec![b'!'; len as usize]).await;
                assert!(sent.is_err(), "{spans:?}");
                if let Some(want) = fixture.want().await {
                    assert_eq!(want, (1, 5));
                    fixture.accepted(1, b"hello").await;
                    fixture.confirm().await;
                }
            }),
        )
        .await;
        match result {
            Ok(report) => assert_eq!((report.received_bytes, content(&dir, "x")), (5, b"hello".into())),
            Err(FetchError::Transfer(TransferError::Protocol(_))) => assert!(!dir.path().join("x").exists()),
            Err(error) => panic!("{spans:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn offers_that_go_back_break_the_protocol() {
    let back = [
        vec![offer(&[(0, 0, 3)]), offer(&[(0, 0, 3)])],
        vec![offer(&[(0, 0, 3)]), offer(&[(0, 2, 3)])],
        vec![offer(&[(1, 0, 5)]), offer(&[(0, 0, 5)])],
        vec![offer(&[(1, 0, 5), (0, 0, 5)])],
        vec![offer(&[(0, 0, 3), (0, 3, 2)])],
        vec![offer(&[(0, 0, 5), (0, 4, 1)])],
    ];
    for offers in back {
        let last = offers.len() as u64 - 1;
        let shown = format!("{offers:?}");
        let entries = vec![file("x", 5), file("y", 5)];
        let error = told([entries, offers, vec![OFFERS_END, end(2, 10)]].concat()).await;
        let expected = ProtocolFault::UnwantedChunk { index: last };
        assert!(matches!(&error, TransferError::Protocol(fault) if *fault == expected), "{shown}: {error}");
    }
}

#[tokio::test]
async fn content_that_is_not_what_was_offered_is_never_published() {
    // Announced and given.
    for (len_bytes, data) in [(4, &b"hell"[..]), (6, b"hello!"), (5, b"hell"), (0, b"")] {
        let (result, dir) = invite(
            IMPATIENT,
            |_| (),
            script(move |mut fixture| async move {
                fixture.say(&[file("x", 5), offer(&[(0, 0, 5)]), OFFERS_END, end(1, 5)]).await;
                for _ in 0..3 {
                    let _ = fixture.try_chunk(0, len_bytes, data).await;
                }
                fixture.linger().await;
            }),
        )
        .await;
        let error = transfer_error(result);
        let is_expected = matches!(error, TransferError::Corrupt { .. } | TransferError::Silent { .. });
        assert!(is_expected, "{len_bytes}: {error}");
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn a_flood_of_chunks_ahead_of_their_offers_breaks_the_protocol() {
    let (result, dir) = invite(
        PATIENT,
        |_| (),
        script(|mut fixture| async move {
            let chunks: FuturesUnordered<_> =
                (0..2 * limits::MAX_OFFERS).map(|_| fixture.try_chunk(0, 5, b"hello")).collect();
            let _: Vec<_> = chunks.collect().await;
            fixture.linger().await;
        }),
    )
    .await;
    let error = transfer_error(result);
    assert!(matches!(error, TransferError::Protocol(ProtocolFault::UnwantedChunk { .. })), "{error}");
    assert!(published(&dir).is_empty());
}

/// What becomes of an offer before a file of it fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Taken,
    /// Because a part of it is here; its stream has not come.
    Declined,
    /// Its stream has come and was ended.
    Refused,
}

#[tokio::test]
async fn a_file_that_fails_after_it_was_offered_does_not_fail_the_others() {
    for fate in [Fate::Taken, Fate::Declined, Fate::Refused] {
        let (result, dir) = invite(
            PATIENT,
            |dir| {
                if fate != Fate::Taken {
                    identical(&dir.join("here"), b"here");
                }
            },
            script(move |mut fixture| async move {
                fixture.say(&[file("here", 4), file("gone", 4), file("x", 5)]).await;
                fixture.say(&[offer(&[(0, 0, 4), (1, 0, 4), (2, 0, 5)]), OFFERS_END, end(3, 13)]).await;
                if fate == Fate::Refused {
                    fixture.declined(0, b"heregonehello").await;
                }
                let failed = ProviderRecord::Failed { entry: 1, reason: LeftOutReason::Changed };
                fixture.say(&[failed, ProviderRecord::ChunkVoid { index: 0 }]).await;
                while let Some((index, spans)) = fixture.want_of_spans().await {
                    let content = |span: &Span| [&b"here"[..], b"gone", b"hello"][span.entry as usize];
                    if spans.iter().any(|span| span.entry == 1) {
                        fixture.say(&[ProviderRecord::ChunkVoid { index }]).await;
                    } else {
                        fixture
                            .accepted(index, &spans.iter().map(content).collect::<Vec<_>>().concat())
                            .await;
                    }
                }
                let _ = fixture.send.finish();
            }),
        )
        .await;
        assert_eq!(result.unwrap().left_out(), 1, "{fate:?}");
        assert_eq!(published(&dir), ["here", "x"]);
        assert_eq!((content(&dir, "here"), content(&dir, "x")), (b"here".to_vec(), b"hello".to_vec()));
    }
}
