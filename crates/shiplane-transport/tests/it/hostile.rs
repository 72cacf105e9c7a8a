//! Peers on raw QUIC that flood and stall.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use shiplane_transport::{ConnectError, PeerConnection, TransportConfig, internals::LaneThreads};
use shiplane_wire::Code;
use tokio::{net::UdpSocket, task::JoinSet};

use crate::harness::{
    Mallory, RawPair, RawStream, addr_of, code, frame, localhost, short_deadlines, soon, transport,
};

#[tokio::test]
async fn ten_thousand_streams_reset_at_once_do_no_harm() {
    let raw_pair = RawPair::new().await;
    for _ in 0..10_000 {
        let (mut send, recv) = soon(raw_pair.raw.open_bi()).await.unwrap();
        soon(send.write_all(&frame(b"x")[..3])).await.unwrap();
        send.reset(code(Code::Cancelled)).unwrap();
        drop(recv);
    }
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn the_maximum_number_of_chunks_times_out_if_all_stall() {
    let raw_pair = RawPair::with(short_deadlines(), |_| ()).await;
    let mut stalled = Vec::new();
    for _ in 0..shiplane_transport::MAX_CONCURRENT_STREAMS {
        stalled.push(raw_pair.open(&frame(b"never whole")[..12]).await);
    }
    let mut received = JoinSet::new();
    for _ in &stalled {
        let peer = Arc::clone(&raw_pair.peer);
        received.spawn(async move { peer.recv_chunk_verified().await });
    }
    while let Some(outcome) = soon(received.join_next()).await {
        let outcome = outcome.unwrap();
        assert!(outcome.is_err(), "{outcome:?}");
    }
    drop(stalled);
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_sender_that_will_not_hear_the_status_harms_only_itself() {
    let raw_pair = RawPair::new().await;
    let mut stream = raw_pair.open(&frame(b"hello")).await;
    stream.recv.stop(code(Code::Cancelled)).unwrap();
    stream.send.finish().unwrap();
    // Whether the chunk counts is the receiver's to say; that it comes to an end is what matters.
    if let Ok(received) = soon(raw_pair.peer.recv_chunk_verified()).await {
        assert_eq!(received.unwrap(), "hello");
    }
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn a_reason_of_control_characters_is_neither_obeyed_nor_kept_whole() {
    for number in [Code::Protocol.as_u64(), 1 << 40] {
        let raw_pair = RawPair::new().await;
        raw_pair.raw.close(quinn::VarInt::try_from(number).unwrap(), &[0x1b; 1024]);
        let error = soon(raw_pair.peer.recv_chunk_verified()).await.unwrap_err();
        for told in [error.to_string(), format!("{error:?}")] {
            assert!(told.len() < 512 && !told.contains('\x1b'), "{told:?}");
        }
    }
}

#[tokio::test]
async fn unfinished_handshakes_are_bounded_time_out_and_exclude_no_peer() {
    let config = TransportConfig::default()
        .lane_threads(LaneThreads::Ordinary)
        // They keep short deadlines on a busy machine too.
        .max_incoming_handshakes(8)
        .handshake_timeout(Duration::from_millis(300))
        // So that nothing but the deadline of the handshake ends them.
        .idle_timeout(Duration::from_secs(600));
    let ours = transport(config);
    let relay = one_way(ours.local_addr().unwrap()).await;
    let mallory = Mallory::new(|_| ());
    let unfinished: Vec<_> = (0..32).map(|_| mallory.begin(relay)).collect();

    let honest = transport(TransportConfig::default());
    let connected = async {
        loop {
            if let Ok(connection) = honest.connect_to(addr_of(&ours)).await {
                return connection;
            }
        }
    };
    let connection = soon(connected).await;
    assert!(!connection.is_closed());
    drop(unfinished);
}

/// An address that passes on what clients send and swallows every answer.
async fn one_way(to: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind(localhost()).await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut datagram).await {
            if from != to {
                // A full buffer loses a datagram, as any network does.
                let _ = socket.send_to(&datagram[..len], to).await;
            }
        }
    });
    addr
}

#[tokio::test]
async fn a_stream_whose_answer_is_filled_with_data_first_is_reset() {
    let raw_pair = RawPair::new().await;
    // On a stream that we open, Mallory answers with a flood before the chunk has ended.
    let source = crate::harness::memory(&vec![7; 1 << 20]);
    let play = async {
        let RawStream { mut send, recv } = raw_pair.accept().await;
        // It is stopped as soon as its first bytes cannot be an answer.
        let flooded = async {
            loop {
                if send.write_all(&[0; 4096]).await.is_err() {
                    return;
                }
            }
        };
        soon(flooded).await;
        drop(recv);
    };
    let (sent, ()) = soon(async { tokio::join!(raw_pair.peer.send_chunk_verified(&source), play) }).await;
    assert!(sent.is_err());
    raw_pair.expect_works().await;
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_for_each_key_and_a_refusal_is_reported() {
    let config = TransportConfig::default().max_connections(3).max_connections_per_peer(2);
    let ours = transport(config);
    // Alice dials by hand, as a transport would make one connection of all.
    let alice = Mallory::new(|_| ());
    let _two = [soon(alice.dial(&ours)).await.unwrap(), soon(alice.dial(&ours)).await.unwrap()];
    let (first, second) = (soon(ours.accept()).await.unwrap(), soon(ours.accept()).await.unwrap());
    assert_eq!(first.1.peer_id(), second.1.peer_id());
    let third = soon(alice.dial(&ours)).await.unwrap();
    assert_eq!(closed_with(&third).await, Code::Busy, "two with one key");

    let bob = transport(TransportConfig::default());
    let to_us = soon(bob.connect_to(addr_of(&ours))).await.unwrap();
    soon(ours.accept()).await.unwrap();
    let carol = transport(TransportConfig::default());
    let refused = soon(carol.connect_to(addr_of(&ours))).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Busy { .. }), "three in all: {refused}");
    assert!(refused.is_retryable());

    drop(to_us);
    bob.close();
    let connected = async { while carol.connect_to(addr_of(&ours)).await.is_err() {} };
    soon(connected).await;
}

async fn closed_with(connection: &quinn::Connection) -> Code {
    match soon(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => Code::from_u64(close.error_code.into_inner()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_connection_that_is_not_read_holds_little_where_there_is_one_credit_for_all() {
    let ours = transport(TransportConfig::default().receive_budget_bytes(Some(24 << 20)));
    let raw_pair = RawPair::of(ours, |_| ()).await;
    // A bare chunk that is not received.
    let mut stream = raw_pair.open(&(1u64 << 24).to_le_bytes()).await;
    let mut accepted_bytes = 8;
    let data = vec![7; 4096];
    // As much as there is credit for; what would wait is given up.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.send.write(&data)).await {
        accepted_bytes += written.unwrap();
    }
    assert!(accepted_bytes <= 64 << 10, "{accepted_bytes} bytes were let in unread");
}

#[tokio::test]
async fn connections_that_are_idle_give_their_send_windows_to_one_that_is_not() {
    let bob = transport(TransportConfig::default().send_budget_bytes(Some(24 << 20)));
    let lent_bytes = || bob.window_memory()[1].unwrap().0;
    let alices: Vec<_> = (0..4).map(|_| transport(TransportConfig::default())).collect();
    let mut connections = Vec::new();
    for alice in &alices {
        let connected = async { tokio::join!(alice.connect_to(addr_of(&bob)), bob.accept()) };
        let (to_bob, accepted) = soon(connected).await;
        connections.push((to_bob.unwrap(), accepted.unwrap().1));
    }
    let source = crate::harness::memory(&crate::harness::noise(1, 8 << 20));
    let take = async |(to_bob, to_alice): &(Arc<PeerConnection>, Arc<PeerConnection>)| {
        let (sent, received) =
            soon(async { tokio::join!(to_alice.send_chunk_verified(&source), to_bob.recv_chunk_verified()) })
                .await;
        assert_eq!(sent.unwrap(), 8 << 20);
        assert_eq!(received.unwrap().unwrap().len(), 8 << 20);
    };
    for connection in &connections {
        // More than a window, which is what counts as arrived.
        for _ in 0..4 {
            take(connection).await;
        }
    }
    assert!(lent_bytes() > 20 << 20, "each has as much as the others leave: {}", lent_bytes());
    soon(async {
        while lent_bytes() > 16 << 20 {
            take(&connections[3]).await;
        }
    })
    .await;
    // Those that gave theirs back get them again.
    take(&connections[0]).await;
}

#[tokio::test]
async fn what_is_read_gets_through_in_full_where_there_is_one_credit_for_all() {
    let config = TransportConfig::default().receive_budget_bytes(Some(24 << 20));
    let pair = crate::harness::Pair::of(transport(TransportConfig::default()), transport(config)).await;
    let data = crate::harness::noise(1, 24 << 20);
    let source = crate::harness::memory(&data);
    let (sent, received) = soon(async {
        tokio::join!(pair.to_bob.send_chunk_verified(&source), pair.to_alice.recv_chunk_verified())
    })
    .await;
    assert_eq!(sent.unwrap(), 24 << 20);
    assert!(received.unwrap().unwrap() == data);
}
