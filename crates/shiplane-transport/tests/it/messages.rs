//! Messages: complete, unordered, acknowledged once taken (SPEC 2.2, kind 3).

use bytes::Bytes;
use shiplane_transport::{MessageError, StreamError};
use shiplane_wire::{Code, StreamKind};
use tokio::time::Instant;

use crate::harness::{
    End, Pair, RawPair, addr_of, code, everybody, headed, localhost, noise, soon, transport,
};

const LIMIT_BYTES: usize = 1 << 20;

#[tokio::test]
async fn every_length_up_to_the_limit_arrives_and_one_more_names_the_lane() {
    let pair = Pair::new().await;
    for len in [0, 1, 65_536, LIMIT_BYTES] {
        let data = Bytes::from(noise(1, len));
        let (sent, received) =
            soon(async { tokio::join!(pair.to_bob.send(data.clone()), pair.to_alice.recv()) }).await;
        sent.unwrap();
        assert!(received.unwrap().unwrap() == data, "{len}");
    }
    let error = soon(pair.to_bob.send(vec![0; LIMIT_BYTES + 1].into())).await.unwrap_err();
    let expected = (LIMIT_BYTES + 1, LIMIT_BYTES);
    assert!(
        matches!(error, MessageError::TooLarge { len_bytes, max_bytes } if (len_bytes, max_bytes) == expected)
    );
    assert!(error.to_string().contains("chunk"), "{error}");
    pair.expect_works().await;
}

#[tokio::test]
async fn a_message_is_acknowledged_by_fin_alone_and_only_once_it_is_taken() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.send(&headed(StreamKind::Message, b"hello")).await;
    tokio::select! {
        biased;
        answer = stream.answer() => panic!("{answer:?}"),
        () = raw_pair.expect_works() => {}
    }
    assert_eq!(soon(raw_pair.peer.recv()).await.unwrap().unwrap(), "hello");
    assert_eq!(stream.answer().await, (vec![], End::Fin));

    // And so from our side.
    let play = async {
        let mut stream = raw_pair.accept().await;
        let seen = soon(stream.recv.read_to_end(100)).await.unwrap();
        assert_eq!(seen, headed(StreamKind::Message, b"hello"));
        stream.send.finish().unwrap();
    };
    let (sent, ()) =
        soon(async { tokio::join!(raw_pair.peer.send(Bytes::from_static(b"hello")), play) }).await;
    sent.unwrap();
}

#[tokio::test]
async fn any_other_answer_is_no_delivery() {
    let raw_pair = RawPair::new().await;
    for answer in [&b"\0"[..], b"thanks"] {
        let play = async {
            let mut stream = raw_pair.accept().await;
            soon(stream.recv.read_to_end(100)).await.unwrap();
            stream.send.write_all(answer).await.unwrap();
            stream.send.finish().unwrap();
        };
        let (sent, ()) =
            soon(async { tokio::join!(raw_pair.peer.send(Bytes::from_static(b"hi")), play) }).await;
        assert!(matches!(sent, Err(MessageError::Stream(StreamError::TooLong { max_bytes: 0 }))), "{sent:?}");
    }
    let play = async {
        let mut stream = raw_pair.accept().await;
        soon(stream.recv.read_to_end(100)).await.unwrap();
        stream.send.reset(code(Code::Busy)).unwrap();
    };
    let (sent, ()) = soon(async { tokio::join!(raw_pair.peer.send(Bytes::from_static(b"hi")), play) }).await;
    assert!(matches!(sent, Err(MessageError::Stream(StreamError::Reset(Code::Busy)))), "{sent:?}");
}

#[tokio::test]
async fn a_message_shorter_or_longer_than_announced_is_refused() {
    let raw_pair = RawPair::new().await;
    let whole = headed(StreamKind::Message, b"hello");

    let mut stream = raw_pair.send(&whole[..12]).await;
    let outcome = soon(raw_pair.peer.recv()).await;
    let truncated = MessageError::Truncated { received_bytes: 4, expected_bytes: 5 };
    assert_eq!(format!("{:?}", outcome.unwrap_err()), format!("{truncated:?}"));
    assert_eq!(stream.answer().await, (vec![], End::Reset(Code::Protocol)));

    let mut stream = raw_pair.send(&[&whole[..], b"!"].concat()).await;
    let outcome = soon(raw_pair.peer.recv()).await;
    let too_long = matches!(outcome, Err(MessageError::Stream(StreamError::TooLong { max_bytes: 5 })));
    assert!(too_long, "{outcome:?}");
    assert_eq!(stream.answer().await, (vec![], End::Reset(Code::Protocol)));
    raw_pair.expect_works().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stalls_is_given_up_at_the_progress_deadline() {
    let raw_pair = RawPair::new().await;
    let timeout = raw_pair.peer.config().timeouts().progress;
    let began = Instant::now();
    let mut stream = raw_pair.open(&headed(StreamKind::Message, b"hello")[..10]).await;
    let outcome = tokio::time::timeout(2 * timeout, raw_pair.peer.recv()).await.unwrap();
    assert!(matches!(outcome, Err(MessageError::Stream(StreamError::TimedOut { .. }))), "{outcome:?}");
    assert!(began.elapsed() >= timeout);
    assert_eq!(stream.answer().await, (vec![], End::Reset(Code::Timeout)));
    assert_eq!(stream.stopped().await, Some(Code::Timeout));
}

/// `transport.send(addr, data)`: dials by itself, and returns after the other side's `recv`.
#[tokio::test]
async fn the_transport_sends_to_an_address() {
    let (alice, bob) = (transport(Default::default()), transport(Default::default()));
    let addr = bob.local_addr().unwrap();
    let receive = async {
        let (_, to_alice) = bob.accept().await.unwrap();
        let first = to_alice.recv().await.unwrap().unwrap();
        let second = to_alice.recv().await.unwrap().unwrap();
        assert_eq!((first, second), ("one".into(), "two".into()));
        // Kept: dropped at once, the connection would close.
        to_alice
    };
    let send = async {
        alice.send(addr, Bytes::from_static(b"one")).await.unwrap();
        alice.send(addr, Bytes::from_static(b"two")).await.unwrap();
    };
    let (_to_alice, ()) = soon(async { tokio::join!(receive, send) }).await;
    assert_eq!(alice.open_connections(), 1);
    // Nobody there, and nobody who may be: the error says so.
    let nobody = shiplane_transport::QuicTransport::new(localhost()).await.unwrap();
    let error = soon(nobody.send(addr, Bytes::new())).await.unwrap_err();
    assert!(matches!(error, MessageError::Connect(shiplane_transport::ConnectError::Untrusted { .. })));
}

/// A send that is dropped before the message is taken leaves the connection as it was.
#[tokio::test]
async fn a_dropped_receiver_loses_no_later_message() {
    let pair = Pair::new().await;
    {
        let mut waiting = std::pin::pin!(pair.to_alice.recv());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
    }
    let (sent, received) =
        soon(async { tokio::join!(pair.to_bob.send(Bytes::from_static(b"hi")), pair.to_alice.recv()) }).await;
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap(), "hi");
}

#[tokio::test]
async fn none_means_an_orderly_end_and_nothing_else() {
    for (by_peer, end_code) in [(true, Code::NoError), (false, Code::NoError), (true, Code::Revoked)] {
        let pair = Pair::new().await;
        let (message, chunk, call) = soon(async {
            let end = async { if by_peer { &pair.to_bob } else { &pair.to_alice }.close(end_code) };
            let ended = tokio::join!(
                pair.to_alice.recv(),
                pair.to_alice.recv_chunk_verified(),
                pair.to_alice.next_call(),
                end
            );
            (ended.0, ended.1, ended.2)
        })
        .await;
        assert!(call.is_none());
        if end_code == Code::NoError {
            assert!(message.unwrap().is_none());
            assert!(chunk.unwrap().is_none());
        } else {
            assert!(matches!(message, Err(MessageError::Stream(StreamError::ConnectionLost(_)))));
            assert!(chunk.is_err());
        }
    }
}

/// The peer vanishes without a word.
#[tokio::test(start_paused = true)]
async fn silence_is_an_error_and_not_an_end() {
    let wire = crate::wire::Wire::new();
    let builder = shiplane_transport::QuicTransport::builder().trust(everybody());
    let alice = builder.quinn_socket(std::sync::Arc::clone(&wire) as _).bind(localhost()).unwrap();
    let pair = Pair::of(alice, transport(Default::default())).await;
    wire.cut();
    let idle_timeout = pair.to_alice.config().timeouts().idle;
    let outcome = tokio::time::timeout(2 * idle_timeout, pair.to_alice.recv()).await.unwrap();
    let expected = shiplane_transport::ConnectionEnd::TimedOut;
    assert!(
        matches!(&outcome, Err(MessageError::Stream(StreamError::ConnectionLost(end))) if *end == expected),
        "{outcome:?}"
    );
    assert!(!pair.bob.has_active_peer(addr_of(&pair.alice).addr).await);
}
