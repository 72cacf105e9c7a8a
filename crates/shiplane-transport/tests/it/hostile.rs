//! Peers that flood, stall and talk back, on raw QUIC.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use shiplane_transport::{LaneThreads, TransportConfig};
use shiplane_wire::Code;
use tokio::{net::UdpSocket, task::JoinSet};

use crate::harness::{
    Duel, Mallory, RawStream, addr_of, code, frame, localhost, short_deadlines, soon, transport,
};

#[tokio::test]
async fn ten_thousand_streams_that_are_reset_as_soon_as_they_are_opened_harm_nobody() {
    let duel = Duel::new().await;
    for _ in 0..10_000 {
        let (mut send, recv) = soon(duel.raw.open_bi()).await.unwrap();
        soon(send.write_all(&frame(b"x")[..3])).await.unwrap();
        send.reset(code(Code::Cancelled)).unwrap();
        drop(recv);
    }
    duel.expect_works().await;
}

#[tokio::test]
async fn as_many_chunks_as_may_be_under_way_that_all_stall_are_all_given_up() {
    let duel = Duel::with(short_deadlines(), |_| ()).await;
    let mut stalled = Vec::new();
    for _ in 0..shiplane_transport::MAX_CONCURRENT_STREAMS {
        stalled.push(duel.open(&frame(b"never whole")[..12]).await);
    }
    let mut received = JoinSet::new();
    for _ in &stalled {
        let peer = Arc::clone(&duel.peer);
        received.spawn(async move { peer.recv_chunk_verified().await });
    }
    while let Some(outcome) = soon(received.join_next()).await {
        let outcome = outcome.unwrap();
        assert!(outcome.is_err(), "{outcome:?}");
    }
    drop(stalled);
    duel.expect_works().await;
}

#[tokio::test]
async fn a_sender_that_will_not_hear_the_status_harms_only_itself() {
    let duel = Duel::new().await;
    let mut stream = duel.open(&frame(b"hello")).await;
    stream.recv.stop(code(Code::Cancelled)).unwrap();
    stream.send.finish().unwrap();
    // Whether the chunk counts is the receiver's to say; that it comes to an end is what matters.
    if let Ok(received) = soon(duel.peer.recv_chunk_verified()).await {
        assert_eq!(received.unwrap(), "hello");
    }
    duel.expect_works().await;
}

#[tokio::test]
async fn a_reason_of_control_characters_is_neither_obeyed_nor_kept_whole() {
    for number in [Code::Protocol.as_u64(), 1 << 40] {
        let duel = Duel::new().await;
        duel.raw.close(quinn::VarInt::try_from(number).unwrap(), &[0x1b; 1024]);
        let error = soon(duel.peer.recv_chunk_verified()).await.unwrap_err();
        for told in [error.to_string(), format!("{error:?}")] {
            assert!(told.len() < 512 && !told.contains('\x1b'), "{told:?}");
        }
    }
}

#[tokio::test]
async fn handshakes_that_are_never_finished_are_bounded_given_up_and_keep_nobody_out() {
    let config = TransportConfig {
        lane_threads: LaneThreads::Ordinary, // They keep short deadlines on a busy machine too.
        max_incoming_handshakes: 8,
        handshake_timeout: Duration::from_millis(300),
        // So that nothing but the deadline of the handshake ends them.
        idle_timeout: Duration::from_secs(600),
        ..TransportConfig::default()
    };
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
    let duel = Duel::new().await;
    // On a stream that we open, Mallory answers with a flood before the chunk has ended.
    let source = crate::harness::memory(&vec![7; 1 << 20]);
    let play = async {
        let RawStream { mut send, recv } = duel.accept().await;
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
    let (sent, ()) = soon(async { tokio::join!(duel.peer.send_chunk_verified(&source), play) }).await;
    assert!(sent.is_err());
    duel.expect_works().await;
}
