//! Chunks under the `Lane` policy.

use shiplane_transport::{LaneOptions, RecvChunkError, SendChunkError, StreamError, internals::SinkError};
use shiplane_wire::{Code, RecvError, StatusError};

use super::*;

#[tokio::test]
async fn what_is_sent_is_byte_for_byte_the_documented_frame() {
    for (data, golden) in [(&b"hello"[..], HELLO_CHUNK), (b"", EMPTY_CHUNK)] {
        let played = Played::dialled(Lane, TransportConfig::default()).await;
        let source = memory(data);
        let receiver = async {
            let (mut send, frame) = played.hear().await;
            send.write_all(&[0]).await.unwrap();
            send.finish().unwrap();
            frame
        };
        let (sent, frame) = tokio::join!(played.ours.send_chunk_verified(&source), receiver);
        assert_eq!(sent.unwrap(), data.len() as u64);
        assert_eq!(HEXLOWER.encode(&frame), golden);
    }
}

#[tokio::test]
async fn the_documented_frame_is_received_and_answered_with_a_zero() {
    for (data, golden) in [(&b"hello"[..], HELLO_CHUNK), (b"", EMPTY_CHUNK)] {
        let played = Played::dialling(Lane, TransportConfig::default()).await;
        let status = played.say(&bytes(golden)).await;
        let received = played.ours.recv_chunk_verified().await.unwrap();
        assert_eq!(received.as_deref(), Some(data));
        assert_eq!(answer(status).await, Ok(vec![0]));
    }
}

/// The document's diagram has the sender close its half after the status, the original before.
#[tokio::test]
async fn a_sender_may_end_its_half_after_the_status() {
    let played = Played::dialling(Lane, TransportConfig::default()).await;
    let sender = async {
        let (mut send, mut recv) = played.raw.open_bi().await.unwrap();
        send.write_all(&bytes(HELLO_CHUNK)).await.unwrap();
        let mut status = [9];
        recv.read_exact(&mut status).await.unwrap();
        send.finish().unwrap();
        status
    };
    let (received, status) = tokio::join!(played.ours.recv_chunk_verified(), sender);
    assert_eq!(received.unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(status, [0]);
}

#[tokio::test]
async fn a_sender_may_go_away_once_it_has_its_status() {
    for is_lost in [false, true] {
        let played = Played::dialling(Lane, TransportConfig::default()).await;
        let sender = async {
            let (mut send, mut recv) = played.raw.open_bi().await.unwrap();
            send.write_all(&bytes(HELLO_CHUNK)).await.unwrap();
            recv.read_exact(&mut [9]).await.unwrap();
            match is_lost {
                true => played.raw.close(VarInt::from_u32(77), b"gone"),
                false => send.reset(VarInt::from_u32(0)).unwrap(),
            }
        };
        let (received, ()) = tokio::join!(played.ours.recv_chunk_verified(), sender);
        assert_eq!(received.unwrap().as_deref(), Some(&b"hello"[..]));
    }
}

#[tokio::test]
async fn a_sender_that_never_ends_its_half_costs_a_wait_and_no_chunk() {
    let played = Played::dialling(Lane, impatient()).await;
    let (mut send, _recv) = played.raw.open_bi().await.unwrap();
    send.write_all(&bytes(HELLO_CHUNK)).await.unwrap();
    let received = timeout(AMPLE, played.ours.recv_chunk_verified()).await.unwrap();
    assert_eq!(received.unwrap().as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_receiver_need_not_end_its_half() {
    let played = Played::dialled(Lane, TransportConfig::default()).await;
    let source = memory(b"hello");
    let receiver = async {
        let (mut send, _) = played.hear().await;
        send.write_all(&[0]).await.unwrap();
        send
    };
    let (sent, _still_open) = tokio::join!(played.ours.send_chunk_verified(&source), receiver);
    assert_eq!(sent.unwrap(), 5);
}

/// It stops reading once it has the digest, without having seen the end.
#[tokio::test]
async fn a_receiver_may_stop_our_half_as_the_original_does() {
    let played = Played::dialled(Lane, TransportConfig::default()).await;
    let source = memory(b"hello");
    let receiver = async {
        let (mut send, mut recv) = played.raw.accept_bi().await.unwrap();
        let mut frame = [0; 8 + 5 + 32];
        recv.read_exact(&mut frame).await.unwrap();
        drop(recv);
        send.write_all(&[0]).await.unwrap();
        drop(send);
    };
    let (sent, ()) = tokio::join!(played.ours.send_chunk_verified(&source), receiver);
    assert_eq!(sent.unwrap(), 5);
}

#[tokio::test]
async fn only_a_zero_is_success() {
    for status in [&[1][..], &[2], &[7], &[]] {
        let played = Played::dialled(Lane, TransportConfig::default()).await;
        let source = memory(b"hello");
        let receiver = async {
            let (mut send, _) = played.hear().await;
            send.write_all(status).await.unwrap();
            send.finish().unwrap();
        };
        let (sent, ()) = tokio::join!(played.ours.send_chunk_verified(&source), receiver);
        let error = sent.unwrap_err();
        let is_expected = match status {
            [1] => matches!(error, SendChunkError::ChecksumFailed),
            [2] => matches!(error, SendChunkError::Rejected { .. }),
            [7] => matches!(error, SendChunkError::Status(StatusError::Unknown { byte: 7 })),
            _ => matches!(error, SendChunkError::Status(StatusError::Missing)),
        };
        assert!(is_expected, "{status:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_gives_up_early_is_heard() {
    let played = Played::dialled(Lane, TransportConfig::default()).await;
    // More than the played peer's window takes unread.
    let source = ChunkSource::Memory(vec![7; 32 << 20].into());
    let receiver = async {
        let (mut send, mut recv) = played.raw.accept_bi().await.unwrap();
        recv.read_exact(&mut [0; 8]).await.unwrap();
        send.write_all(&[2]).await.unwrap();
        drop((send, recv));
    };
    let (sent, ()) = tokio::join!(played.ours.send_chunk_verified(&source), receiver);
    assert!(matches!(sent, Err(SendChunkError::Rejected { .. })), "{sent:?}");
}

#[tokio::test]
async fn a_silent_receiver_costs_a_wait() {
    let played = Played::dialled(Lane, impatient()).await;
    let source = memory(b"hello");
    let sent = timeout(AMPLE, played.ours.send_chunk_verified(&source)).await.unwrap();
    assert!(matches!(sent, Err(SendChunkError::Stream(StreamError::TimedOut { .. }))), "{sent:?}");
}

#[tokio::test]
async fn a_size_over_the_limit_is_refused_unread() {
    let config = TransportConfig::default().max_chunk_len_bytes(4);
    let played = Played::dialling(Lane, config).await;
    for size in [5, 1 << 62, u64::MAX] {
        let (mut send, recv) = played.raw.open_bi().await.unwrap();
        send.write_all(&u64::to_le_bytes(size)).await.unwrap();
        let error = played.ours.recv_chunk_verified().await.unwrap_err();
        assert!(matches!(error, RecvChunkError::Frame(_)), "{error:?}");
        assert_eq!(answer(recv).await, Ok(vec![2]));
        let stopped = timeout(AMPLE, send.stopped()).await.unwrap().unwrap();
        assert_eq!(stopped.unwrap().into_inner(), Code::TooLarge.as_u64());
    }
}

#[tokio::test]
async fn a_frame_that_is_cut_flipped_or_followed_is_refused_and_the_next_one_taken() {
    let played = Played::dialling(Lane, TransportConfig::default()).await;
    let golden = bytes(HELLO_CHUNK);

    let status = played.say(&golden[..golden.len() - 1]).await;
    let error = played.ours.recv_chunk_verified().await.unwrap_err();
    assert!(matches!(error, RecvChunkError::Recv(RecvError::Truncated { .. })), "{error:?}");
    assert_eq!(answer(status).await, Ok(vec![2]));

    let mut flipped = golden.clone();
    flipped[9] ^= 1;
    let status = played.say(&flipped).await;
    let error = played.ours.recv_chunk_verified().await.unwrap_err();
    assert!(matches!(error, RecvChunkError::Recv(RecvError::ChecksumMismatch { .. })), "{error:?}");
    assert_eq!(answer(status).await, Ok(vec![1]));

    played.say(&[&golden[..], b"!"].concat()).await;
    let error = played.ours.recv_chunk_verified().await.unwrap_err();
    assert!(matches!(error, RecvChunkError::Recv(RecvError::TrailingBytes { .. })), "{error:?}");

    // Too short even for its size: only its sender gets an error.
    let status = played.say(&golden[..7]).await;
    assert_eq!(answer(status).await, Ok(vec![2]));

    let status = played.say(&golden).await;
    assert_eq!(played.ours.recv_chunk_verified().await.unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(answer(status).await, Ok(vec![0]));
}

#[tokio::test]
async fn a_silent_stream_holds_up_no_other_and_ends() {
    let played = Played::dialling(Lane, impatient()).await;
    let (mut send, silent) = played.raw.open_bi().await.unwrap();
    send.write_all(&[5]).await.unwrap();
    played.say(&bytes(HELLO_CHUNK)).await;
    let received = played.ours.recv_chunk_verified().await.unwrap();
    assert_eq!(received.as_deref(), Some(&b"hello"[..]));
    assert_eq!(answer(silent).await, Ok(vec![2]));
}

#[tokio::test]
async fn files_travel_both_ways_and_overwrite_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [source, copy] = ["source", "copy"].map(|name| folder.path().join(name));
    let content: Vec<u8> = (0..3_000_001_u32).map(|i| (i / 3) as u8).collect();
    std::fs::write(&source, &content).unwrap();

    let pair = Pair::new(Lane, Lane).await;
    let options = LaneOptions::default();
    let file = ChunkSource::File(source);
    // The server sends, as when a client fetches.
    let (sent, received) =
        tokio::join!(pair.bob.send_chunk_verified(&file), pair.alice.recv_chunk_to_path(&copy, &options));
    assert_eq!((sent.unwrap(), received.unwrap()), (3_000_001, Some(3_000_001)));
    assert_eq!(std::fs::read(&copy).unwrap(), content);

    std::fs::write(&copy, b"precious").unwrap();
    let (sent, received) =
        tokio::join!(pair.alice.send_chunk_verified(&file), pair.bob.recv_chunk_to_path(&copy, &options));
    assert!(matches!(sent, Err(SendChunkError::Rejected { .. })), "{sent:?}");
    assert!(matches!(received, Err(RecvChunkError::Sink(SinkError::Exists { .. }))), "{received:?}");
    assert_eq!(std::fs::read(&copy).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}

#[tokio::test]
async fn many_chunks_cross_in_both_directions_at_once() {
    const EACH: usize = 20;
    let chunk = |i: usize| Bytes::from(vec![i as u8; 10_000 * i]);
    let Pair { alice, bob, _transports } = Pair::new(Lane, Lane).await;
    let sides = [Arc::new(alice), Arc::new(bob)];
    let mut sending = tokio::task::JoinSet::new();
    for side in &sides {
        for i in 0..EACH {
            let (side, source) = (Arc::clone(side), ChunkSource::Memory(chunk(i)));
            sending.spawn(async move { side.send_chunk_verified(&source).await.unwrap() });
        }
    }
    let receive = async |side: &InsecureOctopiiConnection<Lane>| {
        let mut received = Vec::new();
        for _ in 0..EACH {
            received.push(side.recv_chunk_verified().await.unwrap().unwrap());
        }
        received.sort();
        received
    };
    let (at_alice, at_bob) = tokio::join!(receive(&sides[0]), receive(&sides[1]));
    let expected: Vec<_> = (0..EACH).map(chunk).collect();
    assert!(at_alice == expected && at_bob == expected);
    assert_eq!(sending.join_all().await.into_iter().sum::<u64>(), 2 * 1_900_000);
}

#[tokio::test]
async fn an_orderly_end_is_none_and_any_other_an_error() {
    for (code, is_orderly) in [(0, true), (5, false)] {
        let played = Played::dialling(Lane, TransportConfig::default()).await;
        played.raw.close(VarInt::from_u32(code), b"shutdown");
        let received = played.ours.recv_chunk_verified().await;
        match received {
            Ok(None) => assert!(is_orderly),
            Err(RecvChunkError::Stream(StreamError::ConnectionLost(_))) => assert!(!is_orderly),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dropped_receiver_lets_its_last_answer_arrive() {
    let Pair { alice, bob, _transports } = Pair::new(Lane, Lane).await;
    let source = memory(b"hello");
    let receiver = async {
        let received = bob.recv_chunk_verified().await;
        drop(bob);
        received
    };
    let (sent, received) = tokio::join!(alice.send_chunk_verified(&source), receiver);
    assert_eq!(received.unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(sent.unwrap(), 5);
    assert!(timeout(AMPLE, alice.closed()).await.unwrap().is_orderly());
}
