//! Shutdown: running transfers arrive, stalled peers are cut off, peers are told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shiplane_transport::{ConnectError, ConnectionEnd, PeerAddr, TransportConfig};
use shiplane_wire::{Code, StreamKind};

use crate::harness::{AMPLE, Mallory, Pair, addr_of, headed, memory, noise, soon, transport};

const CLOSED_IN_ORDER: ConnectionEnd = ConnectionEnd::ClosedByPeer { code: Code::NoError };

#[tokio::test]
async fn a_status_given_just_before_a_shutdown_arrives() {
    for _ in 0..50 {
        let pair = Pair::new().await;
        let source = memory(b"the last one");
        let receive = async {
            pair.to_alice.recv_chunk_verified().await.unwrap().unwrap();
            pair.bob.shutdown(AMPLE).await;
        };
        let (sent, ()) =
            soon(async { tokio::join!(pair.to_bob.send_chunk_verified(&source), receive) }).await;
        assert_eq!(sent.unwrap(), 12);
        assert_eq!(soon(pair.to_bob.closed()).await, CLOSED_IN_ORDER);
    }
}

#[tokio::test]
async fn an_acknowledgement_given_just_before_a_shutdown_arrives() {
    for _ in 0..50 {
        let pair = Pair::new().await;
        let receive = async {
            pair.to_alice.recv().await.unwrap().unwrap();
            pair.bob.shutdown(AMPLE).await;
        };
        let send = pair.to_bob.send(Bytes::from_static(b"the last one"));
        let (sent, ()) = soon(async { tokio::join!(send, receive) }).await;
        sent.unwrap();
    }
}

/// More than a flight of packets, finished and let go at once.
#[tokio::test]
async fn an_answer_that_was_finished_and_dropped_arrives_whole() {
    let pair = Pair::new().await;
    let answer = Bytes::from(noise(1, 1 << 20));
    let serve = async {
        let mut call = pair.to_alice.next_call().await.unwrap();
        call.stream.recv.read_to_end(10).await.unwrap();
        call.stream.send.write(answer.clone()).await.unwrap();
        call.stream.send.finish().unwrap();
        drop(call);
        pair.bob.shutdown(AMPLE).await;
    };
    let ask = async {
        let opening = headed(StreamKind::RpcCall, b"");
        let mut stream = pair.to_bob.open_stream(opening.into()).await.unwrap();
        stream.send.finish().unwrap();
        stream.recv.read_to_end(2 << 20).await
    };
    let (received, ()) = soon(async { tokio::join!(ask, serve) }).await;
    assert!(received.unwrap() == answer);
}

/// The same when it is not the transport that goes, but the last handles of a connection.
#[tokio::test]
async fn a_dropped_connection_delivers_finished_streams() {
    let bob = transport(TransportConfig::default());
    let mallory = loop {
        let mallory = Mallory::new(|_| ());
        if mallory.addr().id < bob.peer_id() {
            break mallory;
        }
    };
    let admits = async {
        let raw = mallory.try_accept().await.unwrap();
        // Bob's question whether he is admitted.
        drop(raw.accept_bi().await.unwrap());
        raw
    };
    let (to_mallory, raw) = soon(async { tokio::join!(bob.connect_to(mallory.addr()), admits) }).await;
    let to_mallory = to_mallory.unwrap();
    // One that the smaller id dials takes its place in the pool.
    let (other, accepted) = soon(async { tokio::join!(mallory.dial(&bob), bob.accept()) }).await;
    let (_other, _accepted) = (other.unwrap(), accepted.unwrap());
    let answer = Bytes::from(noise(1, 1 << 20));
    let serve = async {
        let mut stream = to_mallory.open_stream(Bytes::new()).await.unwrap();
        stream.send.write(answer.clone()).await.unwrap();
        stream.send.finish().unwrap();
        stream.recv.stop(Code::NoError);
        drop(stream.send);
        let held = Arc::downgrade(&to_mallory);
        drop(to_mallory);
        assert!(held.upgrade().is_none(), "somebody else holds it");
    };
    let ask = async {
        let (_send, mut recv) = raw.accept_bi().await.unwrap();
        recv.read_to_end(2 << 20).await
    };
    let (received, ()) = soon(async { tokio::join!(ask, serve) }).await;
    assert!(received.unwrap() == answer);
}

#[tokio::test]
async fn transfers_under_way_finish_and_new_peers_are_refused() {
    let pair = Pair::new().await;
    let source = memory(&noise(1, 4 << 20));
    let addr = addr_of(&pair.bob);
    let carol = transport(TransportConfig::default());
    let receive = async {
        let chunk = pair.to_alice.next_chunk().await.unwrap().unwrap();
        let shutdown = pair.bob.shutdown(AMPLE);
        let rest = async {
            // Carol comes while the chunk is under way.
            tokio::task::yield_now().await;
            let refused = carol.connect_to(addr).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Failed { .. }), "{refused:?}");
            let (expected, options) = (Default::default(), Default::default());
            chunk.receive_to_memory(&expected, &options).await.unwrap()
        };
        tokio::join!(rest, shutdown).0
    };
    let (sent, received) =
        soon(async { tokio::join!(pair.to_bob.send_chunk_verified(&source), receive) }).await;
    assert_eq!((sent.unwrap(), received.len()), (4 << 20, 4 << 20));
    assert_eq!(soon(pair.to_bob.closed()).await, CLOSED_IN_ORDER);
}

#[tokio::test]
async fn an_idle_transport_shuts_down_at_once_and_a_stalled_one_at_the_deadline() {
    let pair = Pair::new().await;
    soon(pair.bob.shutdown(10 * AMPLE)).await;
    assert_eq!(soon(pair.to_bob.closed()).await, CLOSED_IN_ORDER);

    let pair = Pair::new().await;
    let source = memory(&noise(1, 8 << 20));
    let deadline = Duration::from_millis(200);
    let stall = async {
        let chunk = pair.to_alice.next_chunk().await.unwrap().unwrap();
        let began = Instant::now();
        pair.bob.shutdown(deadline).await;
        assert!(began.elapsed() >= deadline, "{:?}", began.elapsed());
        drop(chunk);
    };
    let (sent, ()) = soon(async { tokio::join!(pair.to_bob.send_chunk_verified(&source), stall) }).await;
    sent.unwrap_err();
    // A close, not a timeout, although the windows were full.
    assert_eq!(pair.to_bob.end(), Some(CLOSED_IN_ORDER));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_dial_does_not_delay_a_shutdown() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (alice, nobody) = (transport(TransportConfig::default()), transport(TransportConfig::default()));
    let addr = PeerAddr { id: nobody.peer_id(), addr: silent.local_addr().unwrap() };
    let began = tokio::time::Instant::now();
    let step = Duration::from_millis(1);
    tokio::time::timeout(step, alice.connect_to(addr)).await.unwrap_err();
    alice.shutdown(AMPLE).await;
    // The clock goes on only while everything waits: for quinn to forget the dial, that is a second.
    assert!(began.elapsed() < 100 * step, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_peer_hears_of_a_close_that_was_just_before_a_shutdown() {
    for _ in 0..50 {
        let pair = Pair::new().await;
        pair.to_alice.close(Code::Busy);
        pair.bob.shutdown(AMPLE).await;
        drop(pair.bob);
        assert_eq!(soon(pair.to_bob.closed()).await, ConnectionEnd::ClosedByPeer { code: Code::Busy });
    }
}

/// quinn holds a close back that competes with other packets for a full window; ours leaves.
#[tokio::test]
async fn a_close_is_heard_while_the_congestion_window_is_full() {
    for _ in 0..10 {
        let pair = Pair::new().await;
        // A moment after the handshake probes of the path fill the first window.
        pair.to_bob.close(Code::NoError);
        assert_eq!(soon(pair.to_alice.closed()).await, CLOSED_IN_ORDER);
    }
    for _ in 0..10 {
        let pair = Pair::new().await;
        let source = memory(&noise(1, 8 << 20));
        let close = async {
            // The sender is in the middle of it, and it is the sender that closes.
            let chunk = pair.to_alice.next_chunk().await.unwrap().unwrap();
            pair.to_bob.close(Code::ShuttingDown);
            let end = pair.to_alice.closed().await;
            assert_eq!(end, ConnectionEnd::ClosedByPeer { code: Code::ShuttingDown });
            drop(chunk);
        };
        let (sent, ()) = soon(async { tokio::join!(pair.to_bob.send_chunk_verified(&source), close) }).await;
        sent.unwrap_err();
    }
}
