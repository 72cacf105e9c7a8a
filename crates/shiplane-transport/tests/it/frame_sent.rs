//! The bytes that we send, and our reaction to every answer (SPEC 3).

use std::time::Instant;

use bytes::Bytes;
use shiplane_transport::{
    ChunkSource, LaneOptions, MessageError, QuicTransport, SendChunkError, StreamError,
    internals::SourceError,
};
use shiplane_wire::{Code, Digest, StatusError, TaggedChunk};

use crate::{
    harness::{
        End, RawPair, RawStream, code, everybody, forged, frame, localhost, memory, noise, short_deadlines,
        soon, transfer_id,
    },
    wire::Wire,
};

/// Our side sends `data`; Mallory does `then` with the stream.
async fn send_to(
    raw_pair: &RawPair,
    data: &[u8],
    then: impl AsyncFnOnce(&mut RawStream),
) -> Result<u64, SendChunkError> {
    let source = memory(data);
    let play = async {
        let mut stream = raw_pair.accept().await;
        then(&mut stream).await;
        stream // Dropped later: that would finish it.
    };
    let (sent, _stream) =
        soon(async { tokio::join!(raw_pair.peer.send_chunk_verified(&source), play) }).await;
    sent
}

/// Mallory takes the whole frame and answers with these bytes and FIN.
async fn answered(raw_pair: &RawPair, answer: &[u8]) -> Result<u64, SendChunkError> {
    send_to(raw_pair, b"hello", async |stream| {
        soon(stream.recv.read_to_end(1 << 20)).await.unwrap();
        stream.send.write_all(answer).await.unwrap();
        stream.send.finish().unwrap();
    })
    .await
}

#[tokio::test]
async fn a_chunk_is_size_data_digest_and_then_fin() {
    let raw_pair = RawPair::new().await;
    for data in [&b"hello"[..], b"", &noise(1, 200_000)] {
        let mut seen = Vec::new();
        let sent = send_to(&raw_pair, data, async |stream| {
            // To the end, before there is a status.
            seen = soon(stream.recv.read_to_end(1 << 20)).await.unwrap();
            stream.send.write_all(&[0]).await.unwrap();
            stream.send.finish().unwrap();
        })
        .await;
        assert_eq!(sent.unwrap(), data.len() as u64);
        assert_eq!(seen, frame(data));
    }
    let golden =
        "0500000000000000 68656c6c6f 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(hex(&frame(b"hello")), golden.replace(' ', ""));
    assert_eq!(frame(b"").len(), 40);
    assert!(hex(&frame(b"")).contains("e3b0c44298fc1c149afbf4c8996fb924"));
}

#[tokio::test]
async fn a_file_and_memory_are_the_same_on_the_wire_and_nothing_else_is_opened() {
    let raw_pair = RawPair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let data = noise(2, 200_000);
    let path = dir.path().join("file");
    std::fs::write(&path, &data).unwrap();
    for source in [ChunkSource::File(path), memory(&data)] {
        let play = async {
            let mut stream = raw_pair.accept().await;
            let seen = soon(stream.recv.read_to_end(1 << 20)).await.unwrap();
            stream.send.write_all(&[0]).await.unwrap();
            stream.send.finish().unwrap();
            seen
        };
        let (sent, seen) = tokio::join!(raw_pair.peer.send_chunk_verified(&source), play);
        assert_eq!(sent.unwrap(), 200_000);
        assert_eq!(seen, frame(&data));
    }
    // The next stream that Mallory sees is the next one we open: there was none in between.
    let next = raw_pair.peer.open_stream(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(soon(raw_pair.raw.accept_bi()).await.unwrap().1.id().index(), 2);
    drop(next);
}

#[tokio::test]
async fn only_the_byte_0_is_success() {
    let raw_pair = RawPair::new().await;
    assert_eq!(answered(&raw_pair, &[0]).await.unwrap(), 5);
    assert!(matches!(answered(&raw_pair, &[1]).await, Err(SendChunkError::ChecksumFailed)));
    assert!(matches!(answered(&raw_pair, &[2]).await, Err(SendChunkError::Rejected { .. })));
    for byte in 3..=255 {
        let outcome = answered(&raw_pair, &[byte]).await;
        let unknown =
            matches!(outcome, Err(SendChunkError::Status(StatusError::Unknown { byte: b })) if b == byte);
        assert!(unknown, "{byte}: {outcome:?}");
    }
    let outcome = answered(&raw_pair, &[]).await;
    assert!(matches!(outcome, Err(SendChunkError::Status(StatusError::Missing))), "{outcome:?}");
    for two in [[0, 0], [0, 1], [2, 0]] {
        let outcome = answered(&raw_pair, &two).await;
        assert!(matches!(outcome, Err(SendChunkError::Status(StatusError::Extra))), "{two:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_reset_or_a_lost_connection_instead_of_a_status_is_no_success() {
    let raw_pair = RawPair::new().await;
    let outcome = send_to(&raw_pair, b"hello", async |stream| {
        soon(stream.recv.read_to_end(100)).await.unwrap();
        stream.send.reset(code(Code::SinkFailed)).unwrap();
    })
    .await;
    assert!(
        matches!(outcome, Err(SendChunkError::Stream(StreamError::Reset(Code::SinkFailed)))),
        "{outcome:?}"
    );
    let outcome = send_to(&raw_pair, b"hello", async |stream| {
        soon(stream.recv.read_to_end(100)).await.unwrap();
        raw_pair.raw.close(code(Code::NoError), b"");
    })
    .await;
    assert!(
        matches!(&outcome, Err(SendChunkError::Stream(error)) if error.is_connection_loss()),
        "{outcome:?}"
    );
}

/// SPEC 3.5. The data is larger than any window, so that it cannot have been sent whole.
#[tokio::test]
async fn success_before_the_end_of_the_data_is_an_error_and_a_refusal_is_believed() {
    let raw_pair = RawPair::new().await;
    let data = noise(3, 8 << 20);
    for (byte, code_for_it) in [(0, Code::Protocol), (9, Code::Protocol)] {
        let mut ended = None;
        let outcome = send_to(&raw_pair, &data, async |stream| {
            stream.send.write_all(&[byte]).await.unwrap();
            ended = Some(stream.answer().await.1);
        })
        .await;
        let expected = if byte == 0 { StatusError::Early } else { StatusError::Unknown { byte } };
        assert!(matches!(outcome, Err(SendChunkError::Status(error)) if error == expected), "{outcome:?}");
        assert_eq!(ended, Some(End::Reset(code_for_it)));
    }
    for (byte, checksum) in [(1, true), (2, false)] {
        let outcome = send_to(&raw_pair, &data, async |stream| {
            stream.send.write_all(&[byte]).await.unwrap();
            stream.send.finish().unwrap();
        })
        .await;
        match outcome {
            Err(SendChunkError::ChecksumFailed) => assert!(checksum),
            Err(SendChunkError::Rejected { .. }) => assert!(!checksum),
            other => panic!("{other:?}"),
        }
    }
}

/// SPEC 3.6: also when the stop overtakes the status.
#[tokio::test]
async fn a_stopped_sender_reads_the_status_before_it_reports() {
    let raw_pair = RawPair::new().await;
    let data = noise(4, 8 << 20);
    let outcome = send_to(&raw_pair, &data, async |stream| {
        stream.recv.stop(code(Code::TooLarge)).unwrap();
        stream.send.write_all(&[2]).await.unwrap();
        stream.send.finish().unwrap();
    })
    .await;
    let too_large = Some(Code::TooLarge);
    assert!(matches!(outcome, Err(SendChunkError::Rejected { code }) if code == too_large), "{outcome:?}");

    // Without a status the stop is all there is to report.
    let raw_pair = RawPair::with(short_deadlines(), |_| ()).await;
    let outcome = send_to(&raw_pair, &data, async |stream| {
        stream.recv.stop(code(Code::Cancelled)).unwrap();
    })
    .await;
    let stopped = matches!(outcome, Err(SendChunkError::Stream(StreamError::Stopped(Code::Cancelled))));
    assert!(stopped, "{outcome:?}");
}

/// SPEC 3.6: also when the status, which comes first, is read before the stop.
#[tokio::test(start_paused = true)]
async fn a_refusal_carries_the_receivers_reason() {
    let raw_pair = RawPair::new().await;
    let data = noise(5, 8 << 20);
    let outcome = send_to(&raw_pair, &data, async |stream| {
        stream.send.write_all(&[2]).await.unwrap();
        stream.send.finish().unwrap();
        // The status has arrived; only then the reason leaves.
        assert_eq!(soon(stream.send.stopped()).await.unwrap(), None);
        stream.recv.stop(code(Code::SinkFailed)).unwrap();
    })
    .await;
    let Err(error @ SendChunkError::Rejected { code: Some(Code::SinkFailed) }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(error.to_string().contains("sink failed"), "{error}");
    assert!(!error.is_retryable(), "a full disk stays full");
    assert!(SendChunkError::Rejected { code: Some(Code::Busy) }.is_retryable());
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_given_up_at_the_progress_deadline() {
    let raw_pair = RawPair::with(short_deadlines(), |_| ()).await;
    let outcome = send_to(&raw_pair, b"hello", async |stream| {
        soon(stream.recv.read_to_end(100)).await.unwrap();
    })
    .await;
    assert!(matches!(outcome, Err(SendChunkError::Stream(StreamError::TimedOut { .. }))), "{outcome:?}");
}

/// A peer that lets us open streams and then takes not a byte.
async fn without_credit() -> RawPair {
    RawPair::with(short_deadlines(), |quic| {
        quic.stream_receive_window(0u32.into());
    })
    .await
}

#[tokio::test]
async fn a_receiver_without_flow_control_credit_is_given_up_at_the_progress_deadline() {
    let raw_pair = without_credit().await;
    let outcome = soon(raw_pair.peer.send_chunk_verified(&memory(b"hello"))).await;
    assert!(matches!(outcome, Err(SendChunkError::Stream(StreamError::TimedOut { .. }))), "{outcome:?}");

    let tag = TaggedChunk { transfer: transfer_id(1), index: 0 };
    let options = LaneOptions::default();
    let outcome = soon(raw_pair.peer.send_tagged_chunk(tag, Nothing, &options)).await;
    assert!(matches!(outcome, Err(SendChunkError::Stream(StreamError::TimedOut { .. }))), "{outcome:?}");

    let outcome = soon(raw_pair.peer.send(Bytes::from_static(b"hello"))).await;
    assert!(matches!(outcome, Err(MessageError::Stream(StreamError::TimedOut { .. }))), "{outcome:?}");

    let outcome = soon(raw_pair.peer.open_records(transfer_id(2))).await.map(drop);
    assert!(matches!(outcome, Err(StreamError::TimedOut { .. })), "{outcome:?}");
}

/// One stream to begin with, and no further one, although nothing of ours is open.
#[tokio::test]
async fn a_receiver_that_grants_no_further_stream_is_given_up_at_the_progress_deadline() {
    let raw_pair = RawPair::with(short_deadlines(), |quic| {
        quic.max_concurrent_bidi_streams(1u32.into());
    })
    .await;
    raw_pair.raw.set_max_concurrent_bi_streams(0u32.into());
    assert_eq!(answered(&raw_pair, &[0]).await.unwrap(), 5);
    let outcome = soon(raw_pair.peer.send_chunk_verified(&memory(b"hello"))).await;
    assert!(matches!(outcome, Err(SendChunkError::Stream(StreamError::TimedOut { .. }))), "{outcome:?}");
}

/// All of the peer's streams are ours and in use: that is a queue, not a silent peer.
#[tokio::test]
async fn who_waits_for_our_own_streams_to_end_waits_longer_than_the_progress_deadline() {
    let raw_pair = RawPair::with(short_deadlines(), |quic| {
        quic.max_concurrent_bidi_streams(1u32.into());
    })
    .await;
    let busy = raw_pair.peer.open_stream(Bytes::from_static(b"busy")).await.unwrap();
    let source = memory(b"hello");
    let mut waiting = std::pin::pin!(raw_pair.peer.send_chunk_verified(&source));
    let patience = 3 * raw_pair.peer.config().timeouts().progress;
    tokio::time::timeout(patience, &mut waiting).await.expect_err("still waits");
    let mut first = raw_pair.accept().await;
    first.send.finish().unwrap();
    drop(busy);
    assert_eq!(first.answer().await.1, End::Reset(Code::Cancelled));
    let play = async {
        let mut stream = raw_pair.accept().await;
        soon(stream.recv.read_to_end(100)).await.unwrap();
        stream.send.write_all(&[0]).await.unwrap();
        stream.send.finish().unwrap();
    };
    let (sent, ()) = tokio::join!(soon(waiting), play);
    assert_eq!(sent.unwrap(), 5);
}

#[tokio::test]
async fn a_source_that_fails_never_looks_like_an_end() {
    let raw_pair = RawPair::new().await;
    for (fault, expected) in [(Fault::Changed, Code::SourceChanged), (Fault::Broken, Code::SourceFailed)] {
        let tag = TaggedChunk { transfer: transfer_id(3), index: 7 };
        let play = async {
            let mut stream = raw_pair.accept().await;
            let (data, end) = stream.answer().await;
            (data, end, stream)
        };
        let options = LaneOptions::default();
        let sending = raw_pair.peer.send_tagged_chunk(tag, Faulty { fault, given_bytes: 0 }, &options);
        let (sent, (_, end, _stream)) = tokio::join!(soon(sending), play);
        match sent {
            Err(SendChunkError::Source(SourceError::Changed)) => assert_eq!(fault, Fault::Changed),
            Err(SendChunkError::Source(SourceError::Io(_))) => assert_eq!(fault, Fault::Broken),
            other => panic!("{other:?}"),
        }
        assert_eq!(end, End::Reset(expected));
    }
}

/// On a slow path the status comes long after the last byte was queued.
#[tokio::test]
async fn data_that_is_still_on_its_way_is_progress() {
    let config = short_deadlines().max_datagram_len_bytes(Some(1200));
    let ours = QuicTransport::builder().trust(everybody()).config(config).quinn_socket(Wire::slow());
    let raw_pair = RawPair::of(ours.bind(localhost()).unwrap(), |quic| {
        quic.stream_receive_window((16u32 << 20).into());
    })
    .await;
    let data = noise(5, 1 << 20);
    let began = Instant::now();
    let sent = send_to(&raw_pair, &data, async |stream| {
        soon(stream.recv.read_to_end(2 << 20)).await.unwrap();
        stream.send.write_all(&[0]).await.unwrap();
        stream.send.finish().unwrap();
    })
    .await;
    assert_eq!(sent.unwrap(), 1 << 20);
    assert!(began.elapsed() > 2 * raw_pair.peer.config().timeouts().progress, "the path was not slow");
}

/// Five bytes.
struct Nothing;

impl shiplane_transport::internals::ChunkRead for Nothing {
    fn len_bytes(&self) -> u64 {
        5
    }

    fn read(&mut self, _: usize) -> Result<Bytes, SourceError> {
        Ok(Bytes::from_static(b"hello"))
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Changed,
    Broken,
}

/// 1 MiB, whose last byte is never read.
struct Faulty {
    fault: Fault,
    given_bytes: u64,
}

impl shiplane_transport::internals::ChunkRead for Faulty {
    fn len_bytes(&self) -> u64 {
        1 << 20
    }

    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        let left_bytes = self.len_bytes() - self.given_bytes;
        if left_bytes > max_len_bytes as u64 {
            self.given_bytes += max_len_bytes as u64;
            return Ok(vec![0; max_len_bytes].into());
        }
        match self.fault {
            Fault::Changed => Ok(Bytes::new()),
            Fault::Broken => Err(std::io::Error::other("the disk is gone").into()),
        }
    }

    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_harness_forges_what_it_says() {
    assert_eq!(forged(5, b"hello", Digest::sha256(b"hello")), frame(b"hello"));
}
