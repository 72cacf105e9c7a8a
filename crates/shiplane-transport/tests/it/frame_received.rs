//! What a forged, broken or stalled frame gets from us, byte for byte, and what is kept of it: nothing
//! (SPEC 3).

use std::path::Path;

use shiplane_transport::{
    ChunkExpectation, RecvChunkError, StreamError, TransportConfig, internals::SinkError,
};
use shiplane_wire::{Code, Digest, FrameError, RecvError};

use crate::{
    allocations,
    harness::{AMPLE, End, RawPair, code, forged, frame, noise, short_deadlines, soon},
};

const VERIFIED: (&[u8], End) = (&[0], End::Fin);
const CHECKSUM_FAILED: (&[u8], End) = (&[1], End::Fin);
const ERROR: (&[u8], End) = (&[2], End::Fin);

#[track_caller]
fn assert_answer(answer: (Vec<u8>, End), expected: (&[u8], End)) {
    assert_eq!((&answer.0[..], answer.1), expected);
}

/// The names in a directory, temporary ones included.
fn listing(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_whole_frame_is_answered_by_exactly_one_byte_0() {
    let raw_pair = RawPair::new().await;
    for data in [&b"hello"[..], b"", &noise(1, 200_000)] {
        let mut stream = raw_pair.send(&frame(data)).await;
        let received = soon(raw_pair.peer.recv_chunk_verified()).await.unwrap().unwrap();
        assert_eq!(received, data);
        assert_answer(stream.answer().await, VERIFIED);
    }
}

/// SPEC 3.3, for a sender that ends its half only once it has the status.
#[tokio::test]
async fn the_answer_does_not_wait_for_fin() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.open(&frame(b"hello")).await;
    let play = async {
        assert_answer(stream.answer().await, VERIFIED);
        stream.send.finish().unwrap();
    };
    let (received, ()) = soon(async { tokio::join!(raw_pair.peer.recv_chunk_verified(), play) }).await;
    assert_eq!(received.unwrap().unwrap(), "hello");
}

/// The status has been given by then, and both sides agree on what it says.
#[tokio::test]
async fn a_sender_that_dies_behind_the_status_takes_nothing_back() {
    for reset in [true, false] {
        let raw_pair = RawPair::new().await;
        let mut stream = raw_pair.open(&frame(b"hello")).await;
        let play = async {
            assert_answer(stream.answer().await, VERIFIED);
            match reset {
                true => stream.send.reset(code(Code::Cancelled)).unwrap(),
                false => raw_pair.raw.close(code(Code::NoError), b""),
            }
        };
        let (received, ()) = soon(async { tokio::join!(raw_pair.peer.recv_chunk_verified(), play) }).await;
        assert_eq!(received.unwrap().unwrap(), "hello");
    }
}

#[tokio::test]
async fn any_flipped_bit_is_a_checksum_mismatch_and_leaves_no_file() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let data = noise(2, 16);
    let whole = frame(&data);
    // The payload and the digest; a flipped size is a frame of another length.
    for bit in 8 * 8..whole.len() * 8 {
        let mut frame = whole.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        let mut stream = raw_pair.send(&frame).await;
        let outcome = soon(raw_pair.peer.recv_chunk_to_path(&path)).await;
        let Err(RecvChunkError::Recv(RecvError::ChecksumMismatch { expected, actual })) = outcome else {
            panic!("bit {bit}: {outcome:?}");
        };
        assert_ne!(expected, actual);
        assert_answer(stream.answer().await, CHECKSUM_FAILED);
    }
    assert_eq!(listing(dir.path()), [""; 0]);
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_large_chunk_yields_no_bytes() {
    let raw_pair = RawPair::new().await;
    let data = noise(3, 300_000);
    for at in [0, 65_535, 65_536, 299_999] {
        let mut frame = frame(&data);
        frame[8 + at] ^= 0x10;
        let mut stream = raw_pair.send(&frame).await;
        let outcome = soon(raw_pair.peer.recv_chunk_verified()).await;
        let mismatch = matches!(outcome, Err(RecvChunkError::Recv(RecvError::ChecksumMismatch { .. })));
        assert!(mismatch, "{outcome:?}");
        assert_answer(stream.answer().await, CHECKSUM_FAILED);
        // Not a writer's either: what it was given does not come back.
        let mut stream = raw_pair.send(&frame).await;
        assert!(soon(raw_pair.peer.recv_chunk_to_writer(Vec::new())).await.is_err());
        assert_answer(stream.answer().await, CHECKSUM_FAILED);
    }
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn one_byte_over_the_limit_is_refused_before_any_data_and_for_nothing() {
    let raw_pair = RawPair::new().await;
    let max_bytes = raw_pair.peer.config().bare_chunk_limit_bytes();
    assert_eq!(max_bytes, 1 << 30);
    for len_bytes in [max_bytes + 1, u64::MAX >> 2] {
        let (largest_bytes, ()) = allocations::largest(async {
            // The size alone.
            let mut stream = raw_pair.open(&len_bytes.to_le_bytes()).await;
            let outcome = soon(raw_pair.peer.recv_chunk_verified()).await;
            let expected = FrameError::TooLarge { len_bytes, max_bytes };
            assert!(matches!(outcome, Err(RecvChunkError::Frame(e)) if e == expected), "{outcome:?}");
            assert_answer(stream.answer().await, ERROR);
            assert_eq!(stream.stopped().await, Some(Code::TooLarge));
        })
        .await;
        assert!(largest_bytes < 64 * 1024, "{largest_bytes}");
    }
    // All the other values are no sizes at all.
    let mut stream = raw_pair.open(&u64::MAX.to_le_bytes()).await;
    assert_answer(stream.answer().await, (&[], End::Reset(Code::UnknownKind)));
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn exactly_the_limit_is_accepted() {
    let config = TransportConfig::default().max_chunk_len_bytes(1000);
    let raw_pair = RawPair::with(config, |_| ()).await;
    let mut stream = raw_pair.send(&frame(&noise(4, 1001))).await;
    let outcome = soon(raw_pair.peer.recv_chunk_verified()).await;
    let expected = FrameError::TooLarge { len_bytes: 1001, max_bytes: 1000 };
    assert!(matches!(outcome, Err(RecvChunkError::Frame(e)) if e == expected), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);
    let mut stream = raw_pair.send(&frame(&noise(4, 1000))).await;
    assert_eq!(soon(raw_pair.peer.recv_chunk_verified()).await.unwrap().unwrap(), noise(4, 1000));
    assert_answer(stream.answer().await, VERIFIED);
    // The limit is one of memory: a path or a writer of the caller's takes what it can.
    let mut stream = raw_pair.send(&frame(&noise(4, 1001))).await;
    let written = soon(raw_pair.peer.recv_chunk_to_writer(Vec::new())).await.unwrap().unwrap();
    assert_eq!(written, noise(4, 1001));
    assert_answer(stream.answer().await, VERIFIED);
}

/// What was agreed on decides before the sender sees success.
#[tokio::test]
async fn a_chunk_of_another_size_or_digest_than_agreed_is_refused() {
    let raw_pair = RawPair::new().await;
    let exactly = |len| ChunkExpectation::default().len_bytes(len);
    let digest = |data| ChunkExpectation::default().digest(Digest::sha256(data));
    let at_most = |max| ChunkExpectation::default().max_len_bytes(max);

    let mut stream = raw_pair.send(&frame(b"hello")).await;
    let outcome = soon(raw_pair.peer.recv_chunk_expecting(&exactly(6))).await;
    let expected = FrameError::WrongLen { len_bytes: 5, agreed_bytes: 6 };
    assert!(matches!(outcome, Err(RecvChunkError::Frame(e)) if e == expected), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);

    let mut stream = raw_pair.send(&frame(b"hello")).await;
    let outcome = soon(raw_pair.peer.recv_chunk_expecting(&digest(b"jello"))).await;
    assert!(matches!(outcome, Err(RecvChunkError::Sink(SinkError::WrongDigest))), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);

    let mut stream = raw_pair.send(&frame(b"hello")).await;
    let outcome = soon(raw_pair.peer.recv_chunk_expecting(&at_most(4))).await;
    assert!(matches!(outcome, Err(RecvChunkError::Frame(FrameError::TooLarge { .. }))), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);

    // The refused ones are gone: each of these receives the next.
    for expectation in [exactly(5), digest(b"hello"), at_most(5)] {
        let mut stream = raw_pair.send(&frame(b"hello")).await;
        assert_eq!(soon(raw_pair.peer.recv_chunk_expecting(&expectation)).await.unwrap().unwrap(), "hello");
        assert_answer(stream.answer().await, VERIFIED);
    }
}

#[tokio::test]
async fn a_size_that_lies_short_is_an_error_and_nothing_is_published() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    // Of the real data's digest and of the announced part's: with the latter, all but the size is right.
    for digest in [Digest::sha256(b"hello, world"), Digest::sha256(b"hello")] {
        let mut stream = raw_pair.send(&forged(5, b"hello, world", digest)).await;
        assert!(matches!(
            soon(raw_pair.peer.recv_chunk_to_path(&path)).await,
            Err(RecvChunkError::Recv(RecvError::ChecksumMismatch { .. }))
        ));
        assert_answer(stream.answer().await, CHECKSUM_FAILED);
    }
    // The right digest, and then a byte.
    let mut stream = raw_pair.send(&[&frame(b"hello")[..], b"!"].concat()).await;
    let outcome = soon(raw_pair.peer.recv_chunk_to_path(&path)).await;
    let trailing = RecvError::TrailingBytes { len_bytes: 5 };
    assert!(matches!(outcome, Err(RecvChunkError::Recv(e)) if e == trailing), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);
    assert_eq!(listing(dir.path()), [""; 0]);
    raw_pair.expect_works().await;
}

/// The status is out by then; what follows is an error all the same (SPEC 3.3).
#[tokio::test]
async fn a_byte_behind_the_digest_is_an_error_however_late_it_comes() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.open(&frame(b"hello")).await;
    let play = async {
        assert_answer(stream.answer().await, VERIFIED);
        stream.send.write_all(b"!").await.unwrap();
        stream.stopped().await
    };
    let (received, stopped) = soon(async { tokio::join!(raw_pair.peer.recv_chunk_verified(), play) }).await;
    let trailing = RecvError::TrailingBytes { len_bytes: 5 };
    assert!(matches!(received, Err(RecvChunkError::Recv(e)) if e == trailing), "{received:?}");
    assert_eq!(stopped, Some(Code::Protocol));
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_stream_that_ends_early_is_truncated_and_leaves_no_file() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let whole = frame(&noise(5, 100_000));
    for len in [8, 9, 65_536, 100_008, whole.len() - 1] {
        let mut stream = raw_pair.send(&whole[..len]).await;
        let outcome = soon(raw_pair.peer.recv_chunk_to_path(&path)).await;
        let expected =
            RecvError::Truncated { received_bytes: len as u64 - 8, expected_bytes: whole.len() as u64 - 8 };
        assert!(matches!(outcome, Err(RecvChunkError::Recv(e)) if e == expected), "{len}: {outcome:?}");
        assert_answer(stream.answer().await, ERROR);
    }
    assert_eq!(listing(dir.path()), [""; 0]);
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_reset_midway_leaves_no_file_and_no_harm() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let whole = frame(&noise(6, 4 << 20));
    let play = async {
        // More than the stream's window: the file has been begun when that much is written.
        let mut stream = raw_pair.open(&whole[..3 << 20]).await;
        assert_eq!(listing(dir.path()).len(), 1, "the temporary one");
        stream.send.reset(code(Code::SourceChanged)).unwrap();
        assert_answer(stream.answer().await, ERROR);
    };
    let (outcome, ()) = soon(async { tokio::join!(raw_pair.peer.recv_chunk_to_path(&path), play) }).await;
    let reset = matches!(outcome, Err(RecvChunkError::Stream(StreamError::Reset(Code::SourceChanged))));
    assert!(reset, "{outcome:?}");
    assert_eq!(listing(dir.path()), [""; 0]);
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_sender_that_stalls_is_given_up_at_the_progress_deadline() {
    let raw_pair = RawPair::with(short_deadlines(), |_| ()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let whole = frame(b"hello");
    for len in [8, 10, 13, whole.len() - 1] {
        let mut stream = raw_pair.open(&whole[..len]).await;
        let outcome = soon(raw_pair.peer.recv_chunk_to_path(&path)).await;
        let timed_out = matches!(outcome, Err(RecvChunkError::Stream(StreamError::TimedOut { .. })));
        assert!(timed_out, "{len}: {outcome:?}");
        assert_answer(stream.answer().await, ERROR);
        assert_eq!(stream.stopped().await, Some(Code::Timeout));
    }
    assert_eq!(listing(dir.path()), [""; 0]);
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_receiver_that_goes_away_says_cancelled_and_not_end() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.open(&frame(&noise(7, 300_000))[..200_000]).await;
    let (wrote, mut written) = tokio::sync::mpsc::unbounded_channel();
    let mut receiving = Box::pin(raw_pair.peer.recv_chunk_to_writer(Telling(wrote)));
    // Until a part has been written, so that it is midway for certain.
    tokio::select! {
        _ = &mut receiving => panic!("cannot be done"),
        told = soon(written.recv()) => assert!(told.is_some()),
    }
    drop(receiving);
    assert_answer(stream.answer().await, (&[], End::Reset(Code::Cancelled)));
    assert_eq!(stream.stopped().await, Some(Code::Cancelled));
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_chunk_to_a_path_is_whole_or_not_there() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    // As long as a name may be; the temporary one must not be longer.
    let path = dir.path().join("n".repeat(255));
    let mut stream = raw_pair.send(&frame(b"hello")).await;
    assert!(soon(raw_pair.peer.recv_chunk_to_path(&path)).await.unwrap());
    assert_answer(stream.answer().await, VERIFIED);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    // A name that is taken stays as it is.
    let mut stream = raw_pair.send(&frame(b"jello")).await;
    let outcome = soon(raw_pair.peer.recv_chunk_to_path(&path)).await;
    assert!(matches!(outcome, Err(RecvChunkError::Sink(SinkError::Exists { .. }))), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    assert_eq!(listing(dir.path()).len(), 1);
    // Nor is there a file in a directory that does not exist.
    let mut stream = raw_pair.send(&frame(b"hello")).await;
    let outcome = soon(raw_pair.peer.recv_chunk_to_path(&dir.path().join("none/file"))).await;
    assert!(matches!(outcome, Err(RecvChunkError::Sink(SinkError::Io(_)))), "{outcome:?}");
    assert_answer(stream.answer().await, ERROR);
}

#[tokio::test]
async fn a_writer_that_fails_is_status_2() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let raw_pair = RawPair::new().await;
    // More than any window holds: the sender has to be stopped.
    let data = noise(8, 4 << 20);
    let (mut send, recv) = raw_pair.raw.open_bi().await.unwrap();
    let frame = frame(&data);
    let play = async { send.write_all(&frame).await };
    let (outcome, written) =
        tokio::time::timeout(AMPLE, async { tokio::join!(raw_pair.peer.recv_chunk_to_writer(Full), play) })
            .await
            .unwrap();
    assert!(matches!(outcome.map(drop), Err(RecvChunkError::Sink(SinkError::Io(_)))));
    assert_eq!(written, Err(quinn::WriteError::Stopped(code(Code::SinkFailed))));
    let mut stream = crate::harness::RawStream { send, recv };
    assert_answer(stream.answer().await, ERROR);
    raw_pair.expect_works().await;
}

/// Tells of every write.
struct Telling(tokio::sync::mpsc::UnboundedSender<()>);

impl std::io::Write for Telling {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(());
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
