//! Classification of streams, and streams that cannot be classified (SPEC 2).

use std::time::Duration;

use bytes::Bytes;
use shiplane_transport::{
    ChunkExpectation, LaneOptions, MAX_CONCURRENT_STREAMS, RecvChunkError, TransportConfig,
    internals::{AlreadyClaimed, CallKind, ChunkRead, SourceError, TransferStream},
};
use shiplane_wire::{Code, FrameError, StreamKind, TaggedChunk};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    allocations,
    harness::{End, Pair, RawPair, RawStream, code, frame, headed, memory, noise, soon, tag, transfer_id},
};

const HEADER_TIMEOUT: Duration = shiplane_transport::HEADER_TIMEOUT;

#[tokio::test]
async fn a_malformed_stream_is_reset_and_harms_no_other() {
    let raw_pair = RawPair::new().await;
    let too_long = (1u64 << 20) + 1;
    let header = |kind: u64, len: u64| (0b11 << 62 | kind << 56 | len).to_le_bytes();
    let cases = [
        (0b01 << 62, Code::Protocol, "top bits 01"),
        (0b10 << 62, Code::Protocol, "top bits 10"),
        (u64::from_le_bytes(header(0, 0)), Code::UnknownKind, "kind 0"),
        (u64::from_le_bytes(header(7, 0)), Code::UnknownKind, "kind 7"),
        (u64::MAX, Code::UnknownKind, "kind 63"),
        (u64::from_le_bytes(header(1, 1 << 32)), Code::Protocol, "a reserved bit"),
        (u64::from_le_bytes(header(1, too_long)), Code::TooLarge, "a long call"),
        (u64::from_le_bytes(header(2, too_long)), Code::TooLarge, "a long one-way"),
        (u64::from_le_bytes(header(3, too_long)), Code::TooLarge, "a long message"),
        (u64::from_le_bytes(header(4, 23)), Code::Protocol, "a short tag"),
        (u64::from_le_bytes(header(5, 17)), Code::Protocol, "a long records header"),
    ];
    for (word, code, name) in cases {
        let mut stream = raw_pair.open(&word.to_le_bytes()).await;
        assert_eq!(stream.answer().await, (vec![], End::Reset(code)), "{name}");
        assert_eq!(stream.stopped().await, Some(code), "{name}");
    }
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn an_announced_length_costs_nothing() {
    let raw_pair = RawPair::new().await;
    let (largest_bytes, ()) = allocations::largest(async {
        for word in [0xc300_0000_ffff_ffff, 0xc100_0000_ffff_ffff, 0xc400_0000_ffff_ffff] {
            let mut stream = raw_pair.open(&u64::to_le_bytes(word)).await;
            assert!(matches!(stream.answer().await.1, End::Reset(_)));
        }
        // Within the limit, but not there: nothing is set aside for it either.
        let mut stream = raw_pair.send(&u64::to_le_bytes(0xc300_0000_0010_0000)).await;
        assert!(soon(raw_pair.peer.recv()).await.is_err());
        assert!(matches!(stream.answer().await.1, End::Reset(_)));
    })
    .await;
    assert!(largest_bytes < 128 * 1024, "{largest_bytes}");
}

#[tokio::test]
async fn a_stream_that_ends_within_its_header_is_a_protocol_error() {
    let raw_pair = RawPair::new().await;
    let whole = [&tag(transfer_id(1), 0)[..], &frame(b"hello")].concat();
    for len in [0, 1, 7, 8, 31, 32, 39] {
        let mut stream = raw_pair.send(&whole[..len]).await;
        assert_eq!(stream.answer().await, (vec![], End::Reset(Code::Protocol)), "{len}");
    }
    raw_pair.expect_works().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_reset_at_the_header_deadline_and_delays_no_other() {
    let raw_pair = RawPair::new().await;
    let whole = [&tag(transfer_id(1), 0)[..], &frame(b"hello")].concat();
    for len in [1, 7, 8, 31] {
        let began = Instant::now();
        let mut silent = raw_pair.open(&whole[..len]).await;
        raw_pair.expect_works().await;
        assert!(began.elapsed() < HEADER_TIMEOUT / 2, "{:?}", began.elapsed());
        let (data, end) = soon_enough(silent.answer()).await;
        assert_eq!((data, end), (vec![], End::Reset(Code::Timeout)), "{len}");
        let took = began.elapsed();
        assert!((HEADER_TIMEOUT..HEADER_TIMEOUT + Duration::from_secs(2)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_byte_by_byte_is_fine_until_it_stalls() {
    let raw_pair = RawPair::new().await;
    let mut claim = raw_pair.peer.claim(transfer_id(1)).unwrap();
    let whole = [&tag(transfer_id(1), 9)[..], &frame(b"")].concat();
    let trickle = async |stream: &mut RawStream, bytes: &[u8]| {
        for byte in bytes {
            stream.send.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut stream = raw_pair.open(&whole[..1]).await;
    trickle(&mut stream, &whole[1..]).await;
    stream.send.finish().unwrap();
    let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
    assert_eq!((chunk.index(), chunk.len_bytes()), (9, 0));
    chunk.refuse(Code::Busy).await;

    let mut stream = raw_pair.open(&whole[..1]).await;
    trickle(&mut stream, &whole[1..20]).await;
    assert_eq!(soon_enough(stream.answer()).await, (vec![], End::Reset(Code::Timeout)));
}

/// On a slow path the chunks before it go first, for as long as it takes.
#[tokio::test(start_paused = true)]
async fn the_size_of_a_chunk_that_is_awaited_may_take_as_long_as_its_transfer_lives() {
    let raw_pair = RawPair::new().await;
    let mut claim = raw_pair.peer.claim(transfer_id(1)).unwrap();
    let mut slow = raw_pair.open(&tag(transfer_id(1), 9)).await;
    let mut silent = raw_pair.open(&tag(transfer_id(1), 10)).await;
    raw_pair.expect_works().await;
    for _ in 0..4 {
        // The connection must not fall idle.
        tokio::time::advance(shiplane_transport::PROGRESS_TIMEOUT / 2).await;
        raw_pair.expect_works().await;
    }
    slow.send.write_all(&frame(b"hello")).await.unwrap();
    slow.send.finish().unwrap();
    let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
    assert_eq!((chunk.index(), chunk.len_bytes()), (9, 5));
    chunk.refuse(Code::Busy).await;
    drop(claim);
    assert_eq!(soon(silent.answer()).await, (vec![], End::Reset(Code::Unclaimed)));
}

/// As where its packets wait behind others, or were lost.
#[tokio::test(start_paused = true)]
async fn a_stream_that_a_later_one_has_opened_has_time_to_begin() {
    let raw_pair = RawPair::new().await;
    let mut claim = raw_pair.peer.claim(transfer_id(1)).unwrap();
    let (mut behind, _answer) = raw_pair.raw.open_bi().await.unwrap();
    let (never, mut answer) = raw_pair.raw.open_bi().await.unwrap();
    raw_pair.expect_works().await;
    for _ in 0..4 {
        tokio::time::advance(HEADER_TIMEOUT / 2 + Duration::from_secs(1)).await;
        raw_pair.expect_works().await;
    }
    behind.write_all(&[&tag(transfer_id(1), 9)[..], &frame(b"hello")].concat()).await.unwrap();
    behind.finish().unwrap();
    let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
    assert_eq!((chunk.index(), chunk.len_bytes()), (9, 5));
    chunk.refuse(Code::Busy).await;
    for _ in 0..24 {
        tokio::time::advance(HEADER_TIMEOUT / 2 + Duration::from_secs(1)).await;
        raw_pair.expect_works().await;
    }
    let reset = soon(answer.read_to_end(1)).await.unwrap_err();
    assert!(
        matches!(reset, quinn::ReadToEndError::Read(quinn::ReadError::Reset(got)) if got == code(Code::Timeout))
    );
    assert!(never.stopped().await.unwrap().is_some());
}

/// The chunk's size, which follows the tag, has a deadline too.
#[tokio::test(start_paused = true)]
async fn a_tag_without_a_frame_is_reset_at_the_deadline() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.open(&tag(transfer_id(1), 0)).await;
    assert_eq!(soon_enough(stream.answer()).await, (vec![], End::Reset(Code::Timeout)));
    raw_pair.expect_works().await;
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_streams_320_are_open() {
    let raw_pair = RawPair::new().await;
    let opened = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..10_000 {
        let (raw, opened) = (raw_pair.raw.clone(), opened.0.clone());
        tasks.spawn(async move {
            let (mut send, _recv) = raw.open_bi().await.unwrap();
            // Without a byte it would not be open for the other side.
            send.write_all(&[0]).await.unwrap();
            opened.send(()).unwrap();
            std::future::pending::<()>().await;
        });
    }
    let mut opened = opened.1;
    for _ in 0..MAX_CONCURRENT_STREAMS {
        soon(opened.recv()).await.unwrap();
    }
    // Half of the header deadline: no credit comes back before its end.
    tokio::time::timeout(HEADER_TIMEOUT / 2, opened.recv()).await.expect_err("one more");
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn neither_unidirectional_streams_nor_datagrams_are_offered() {
    let raw_pair = RawPair::new().await;
    let mut uni = std::pin::pin!(raw_pair.raw.open_uni());
    tokio::select! {
        biased;
        _ = &mut uni => panic!("a unidirectional stream"),
        () = raw_pair.expect_works() => {}
    }
    assert_eq!(raw_pair.raw.max_datagram_size(), None);
    let sent = raw_pair.raw.send_datagram(Bytes::from_static(b"x"));
    assert_eq!(sent, Err(quinn::SendDatagramError::UnsupportedByPeer));
}

/// A chunk that is, byte for byte, a valid call.
#[tokio::test]
async fn chunk_content_is_never_a_call() {
    let pair = Pair::new().await;
    let mut claim = pair.to_alice.claim(transfer_id(1)).unwrap();
    for kind in [StreamKind::RpcCall, StreamKind::OneWay, StreamKind::Message] {
        let call = headed(kind, b"envelope");
        let source = memory(&call);
        let (sent, received) = soon(async {
            tokio::join!(pair.to_bob.send_chunk_verified(&source), pair.to_alice.recv_chunk_verified())
        })
        .await;
        assert_eq!(sent.unwrap(), 16);
        assert_eq!(received.unwrap().unwrap(), call);

        let tag = TaggedChunk { transfer: transfer_id(1), index: 0 };
        let (content, options) = (Content(call.into()), LaneOptions::default());
        let receive = async {
            let Some(TransferStream::Chunk(chunk)) = claim.next().await else { panic!("no chunk") };
            chunk.receive_to_memory(&ChunkExpectation::default(), &options).await
        };
        let (sent, received) =
            soon(async { tokio::join!(pair.to_bob.send_tagged_chunk(tag, content, &options), receive) })
                .await;
        assert_eq!((sent.unwrap().len_bytes, received.unwrap().len()), (16, 16));
    }
    tokio::select! {
        biased;
        call = pair.to_alice.next_call() => panic!("{call:?}"),
        message = pair.to_alice.recv() => panic!("{message:?}"),
        () = pair.expect_works() => {}
    }
}

#[tokio::test]
async fn calls_come_with_their_kind_and_length_and_the_body_unread() {
    let raw_pair = RawPair::new().await;
    for (kind, expected) in [(StreamKind::RpcCall, CallKind::Call), (StreamKind::OneWay, CallKind::OneWay)] {
        let mut stream = raw_pair.send(&headed(kind, b"envelope")).await;
        let mut call = soon(raw_pair.peer.next_call()).await.unwrap();
        assert_eq!((call.kind, call.body_len_bytes), (expected, 8));
        assert_eq!(soon(call.stream.recv.read_to_end(8)).await.unwrap(), "envelope");
        call.stream.send.write(Bytes::from_static(b"answer")).await.unwrap();
        call.stream.send.finish().unwrap();
        assert_eq!(stream.answer().await, (b"answer".to_vec(), End::Fin));
    }
    // One that is dropped is cancelled, not ended.
    let mut stream = raw_pair.send(&headed(StreamKind::RpcCall, b"envelope")).await;
    drop(soon(raw_pair.peer.next_call()).await.unwrap());
    assert_eq!(stream.answer().await, (vec![], End::Reset(Code::Cancelled)));
}

#[tokio::test]
async fn a_transfer_gets_its_streams_whether_they_or_the_claim_came_first() {
    let raw_pair = RawPair::new().await;
    let (early, late) = (transfer_id(1), transfer_id(2));
    let chunk = |id, index| [&tag(id, index)[..], &frame(b"hello")].concat();
    let records = headed(StreamKind::Records, early.as_bytes());
    let mut parked = [raw_pair.send(&chunk(early, 7)).await, raw_pair.send(&records).await];
    // A stream behind them has been classified when this arrives, and so most likely have they.
    raw_pair.expect_works().await;

    let mut claim = raw_pair.peer.claim(early).unwrap();
    let mut other = raw_pair.peer.claim(late).unwrap();
    assert_eq!(raw_pair.peer.claim(early).map(drop), Err(AlreadyClaimed));
    let mut live = raw_pair.send(&chunk(late, 8)).await;

    let mut kinds = Vec::new();
    for _ in 0..2 {
        match soon(claim.next()).await.unwrap() {
            TransferStream::Chunk(chunk) => {
                assert_eq!(chunk.index(), 7);
                chunk.refuse(Code::Busy).await;
                kinds.push("chunk");
            }
            TransferStream::Compressed(_) => panic!("nobody compressed"),
            TransferStream::Records(mut stream) => {
                stream.send.finish().unwrap();
                kinds.push("records");
            }
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["chunk", "records"]);
    assert_eq!(parked[0].answer().await, (vec![2], End::Fin));
    assert_eq!(parked[1].answer().await, (vec![], End::Fin));
    let Some(TransferStream::Chunk(chunk)) = soon(other.next()).await else { panic!("no chunk") };
    assert_eq!(chunk.index(), 8);
    drop(chunk);
    assert_eq!(live.answer().await, (vec![], End::Reset(Code::Cancelled)));

    // Given up, the id is free again.
    drop(claim);
    raw_pair.peer.claim(early).unwrap();
}

#[tokio::test]
async fn a_tagged_chunk_of_another_size_than_wanted_is_refused_unread() {
    let raw_pair = RawPair::new().await;
    let mut claim = raw_pair.peer.claim(transfer_id(1)).unwrap();
    let mut stream = raw_pair.open(&[&tag(transfer_id(1), 0)[..], &u64::to_le_bytes(1 << 61)].concat()).await;
    let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
    let expectation = ChunkExpectation::default().len_bytes(5);
    let outcome = soon(chunk.receive_to_memory(&expectation, &LaneOptions::default())).await;
    let expected = FrameError::WrongLen { len_bytes: 1 << 61, agreed_bytes: 5 };
    assert!(matches!(outcome, Err(RecvChunkError::Frame(error)) if error == expected), "{outcome:?}");
    assert_eq!(stream.answer().await, (vec![2], End::Fin));
    assert_eq!(stream.stopped().await, Some(Code::Protocol));
}

#[tokio::test(start_paused = true)]
async fn an_unclaimed_stream_waits_for_the_header_deadline_and_no_longer() {
    let raw_pair = RawPair::new().await;
    let chunk = [&tag(transfer_id(1), 0)[..], &frame(b"hello")].concat();
    for _ in 0..2 {
        let began = Instant::now();
        let mut stream = raw_pair.send(&chunk).await;
        assert_eq!(soon_enough(stream.answer()).await, (vec![], End::Reset(Code::Unclaimed)));
        let took = began.elapsed();
        assert!((HEADER_TIMEOUT..HEADER_TIMEOUT + Duration::from_secs(1)).contains(&took), "{took:?}");
    }
}

#[tokio::test]
async fn no_more_than_64_streams_are_parked_and_the_oldest_makes_room() {
    let config = TransportConfig::default().max_concurrent_streams(200);
    let raw_pair = RawPair::with(config, |_| ()).await;
    let mut streams = Vec::new();
    for index in 0..70 {
        streams.push(raw_pair.send(&[&tag(transfer_id(1), index)[..], &frame(b"hello")].concat()).await);
    }
    let mut refused = JoinSet::new();
    for (index, mut stream) in streams.into_iter().enumerate() {
        refused.spawn(async move { (index, stream.answer().await) });
    }
    // Classified each in a task of its own, they need not be parked in order; six are too many.
    for _ in 0..6 {
        let (_, answer) = soon(refused.join_next()).await.unwrap().unwrap();
        assert_eq!(answer, (vec![], End::Reset(Code::Unclaimed)));
    }
    let mut claim = raw_pair.peer.claim(transfer_id(1)).unwrap();
    for _ in 0..64 {
        let Some(TransferStream::Chunk(chunk)) = soon(claim.next()).await else { panic!("no chunk") };
        chunk.refuse(Code::Busy).await;
    }
    while let Some(done) = soon(refused.join_next()).await {
        assert_eq!(done.unwrap().1, (vec![2], End::Fin));
    }
}

/// The streams are not accepted, and their number stays within the limit.
#[tokio::test]
async fn an_unread_inbox_holds_no_more_than_the_peer_may_open() {
    let raw_pair = RawPair::new().await;
    let mut streams = Vec::new();
    for _ in 0..MAX_CONCURRENT_STREAMS {
        streams.push(raw_pair.open(&frame(&noise(1, 1000))[..500]).await);
    }
    let mut further = std::pin::pin!(raw_pair.raw.open_bi());
    tokio::select! {
        biased;
        _ = &mut further => panic!("one stream more"),
        // A round trip in the other direction: credit, if there were any, would come with it.
        () = async {
            let play = async {
                let mut message = raw_pair.accept().await;
                soon(message.recv.read_to_end(100)).await.unwrap();
                message.send.finish().unwrap();
            };
            let (sent, ()) = tokio::join!(raw_pair.peer.send(Bytes::from_static(b"hi")), play);
            sent.unwrap();
        } => {}
    }
    // Taken, they make room; quinn grants it once an eighth is free.
    for _ in 0..MAX_CONCURRENT_STREAMS / 4 {
        drop(soon(raw_pair.peer.next_chunk()).await.unwrap());
    }
    streams.clear(); // Whichever they were: Mallory's halves have to end too.
    soon(further).await.unwrap();
}

/// A stalled receiver of one stream holds up neither the next chunk nor a message.
#[tokio::test]
async fn streams_do_not_wait_for_each_other() {
    let pair = Pair::new().await;
    let large = memory(&noise(2, 8 << 20));
    let mut stalled = Box::pin(pair.to_bob.send_chunk_verified(&large));
    let held = tokio::select! {
        sent = &mut stalled => panic!("{sent:?}"),
        chunk = soon(pair.to_alice.next_chunk()) => chunk.unwrap().unwrap(),
    };
    let others = async {
        for _ in 0..10 {
            pair.expect_works().await;
            let (sent, received) =
                tokio::join!(pair.to_bob.send(Bytes::from_static(b"hi")), pair.to_alice.recv());
            sent.unwrap();
            assert_eq!(received.unwrap().unwrap(), "hi");
        }
    };
    tokio::select! {
        sent = &mut stalled => panic!("{sent:?}"),
        () = soon(others) => {}
    }
    let (expected, options) = (ChunkExpectation::default(), LaneOptions::default());
    let receive = held.receive_to_memory(&expected, &options);
    let (sent, received) = soon(async { tokio::join!(stalled, receive) }).await;
    assert_eq!((sent.unwrap(), received.unwrap().len()), (8 << 20, 8 << 20));
}

#[tokio::test]
async fn a_stream_that_was_reset_while_it_waited_is_an_error_to_its_taker_alone() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.open(&frame(b"hello")[..10]).await;
    raw_pair.expect_parked_behind(&mut stream).await;
    let outcome = soon(raw_pair.peer.recv_chunk_verified()).await;
    assert!(matches!(outcome, Err(RecvChunkError::Stream(_))), "{outcome:?}");
    raw_pair.expect_works().await;
}

impl RawPair {
    /// Resets a stream that waits in an inbox, and waits until that is known on the other side.
    async fn expect_parked_behind(&self, stream: &mut RawStream) {
        let mut message = self.send(&headed(StreamKind::Message, b"")).await;
        assert_eq!(soon(self.peer.recv()).await.unwrap().unwrap(), "");
        assert_eq!(message.answer().await, (vec![], End::Fin));
        stream.send.reset(code(Code::Cancelled)).unwrap();
    }
}

/// The virtual clock's `soon`: longer than any deadline.
async fn soon_enough<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(10 * HEADER_TIMEOUT, work).await.expect("hangs")
}

struct Content(Bytes);

impl ChunkRead for Content {
    fn len_bytes(&self) -> u64 {
        16
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        Ok(self.0.split_to(max_len_bytes.min(self.0.len())))
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}
