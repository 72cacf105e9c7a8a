//! Admission and refusal of peers, and the errors of each.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use shiplane_transport::{
    Admission, ConnectError, ConnectionEnd, Identity, PeerAddr, QuicTransport, TransportConfig, Trust,
};
use shiplane_wire::{Code, StreamKind};

use crate::{
    harness::{
        End, Mallory, Pair, RawPair, addr_of, code, everybody, expect_works, frame, headed, identity,
        localhost, memory, noise, soon, transport,
    },
    wire::Wire,
};

fn trusting(identity: Identity, trust: Trust) -> QuicTransport {
    QuicTransport::builder().identity(identity).trust(trust).bind(localhost()).unwrap()
}

#[tokio::test]
async fn pinned_and_trusted_keys_connect_and_all_others_are_named_errors() {
    let (alice_key, bob_key, carol_key) = (identity(), identity(), identity());
    let (alice_id, bob_id, carol_id) = (alice_key.peer_id(), bob_key.peer_id(), carol_key.peer_id());
    let bob = trusting(bob_key, Trust::only([alice_id]));
    let addr = bob.local_addr().unwrap();

    let alice = trusting(alice_key, Trust::none());
    let error = soon(alice.connect(addr)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Untrusted { addr: at } if at == addr), "{error:?}");
    let error = soon(alice.connect_to(PeerAddr { id: carol_id, addr })).await.unwrap_err();
    let wrong = matches!(error, ConnectError::WrongKey { addr: at, expected } if at == addr && expected == Some(carol_id));
    assert!(wrong, "{error:?}");
    let (to_bob, accepted) =
        soon(async { tokio::join!(alice.connect_to(PeerAddr { id: bob_id, addr }), bob.accept()) }).await;
    let (to_bob, (_, to_alice)) = (to_bob.unwrap(), accepted.unwrap());
    assert_eq!((to_bob.peer_id(), to_alice.peer_id()), (bob_id, alice_id));
    expect_works(&to_bob, &to_alice).await;

    // Bob does not know Carol. Her client's handshake succeeds all the same; `connect` does not.
    let carol = trusting(carol_key, everybody());
    let error = soon(carol.connect(addr)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { addr: at } if at == addr), "{error:?}");
    assert!(!carol.has_active_peer(addr).await);
}

#[tokio::test]
async fn a_peer_of_another_protocol_gets_an_error_that_says_so() {
    let alice = transport(TransportConfig::default());
    for protocols in [&[&b"octopii"[..]][..], &[b"h3"], &[]] {
        let other = Mallory::speaking(protocols, |_| ());
        let play = async { other.try_accept().await };
        let (error, accepted) = soon(async { tokio::join!(alice.connect_to(other.addr()), play) }).await;
        assert!(matches!(error, Err(ConnectError::WrongProtocol { .. })), "{error:?}");
        accepted.unwrap_err();
        soon(other.dial(&alice)).await.unwrap_err();
    }
    assert_eq!(alice.open_connections(), 0);
}

#[tokio::test]
async fn the_connection_is_quic_with_our_protocol_and_nothing_readable() {
    let wire = Wire::new();
    let builder = QuicTransport::builder().trust(everybody()).quinn_socket(Arc::clone(&wire) as _);
    let raw_pair = RawPair::of(builder.bind(localhost()).unwrap(), |_| ()).await;
    let data = raw_pair.raw.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
    assert_eq!(data.protocol.as_deref(), Some(&b"shiplane/1"[..]));
    assert_eq!(data.server_name, None);

    let marker = b"a marker that nobody on the path may read";
    let source = memory(&marker.repeat(100));
    let play = async {
        let mut stream = raw_pair.accept().await;
        let seen = soon(stream.recv.read_to_end(1 << 20)).await.unwrap();
        stream.send.write_all(&[0]).await.unwrap();
        stream.send.finish().unwrap();
        seen
    };
    let (sent, seen) = tokio::join!(raw_pair.peer.send_chunk_verified(&source), play);
    sent.unwrap();
    let holds = |data: &[u8], what: &[u8]| data.windows(what.len()).any(|window| window == what);
    assert!(holds(&seen, marker));
    let on_the_wire = wire.sent();
    assert!(on_the_wire.len() > seen.len(), "the wire was tapped");
    assert!(!holds(&on_the_wire, &marker[..16]));
    assert!(!holds(&on_the_wire, shiplane_wire::Digest::sha256(&marker.repeat(100)).as_bytes()));
}

/// SPEC 1.7
#[tokio::test]
async fn a_guest_has_one_stream_and_64_kib_until_it_is_promoted() {
    let ours = trusting(identity(), Trust::ask(|_| Admission::Guest));
    let raw_pair = RawPair::of(ours, |_| ()).await;
    assert!(raw_pair.peer.is_guest());
    let mut first = raw_pair.open(&frame(&noise(1, 200_000))[..1000]).await;
    let mut second = std::pin::pin!(raw_pair.raw.open_bi());
    let rest = noise(1, 200_000);
    let mut write = std::pin::pin!(first.send.write_all(&rest));
    tokio::select! {
        biased;
        _ = &mut second => panic!("a second stream"),
        written = &mut write => panic!("more than the window: {written:?}"),
        // Its round trip is time enough for either.
        () = round_trip(&raw_pair) => {}
    }
    raw_pair.peer.promote();
    assert!(!raw_pair.peer.is_guest());
    soon(second).await.unwrap();
    let (received, written) = soon(async { tokio::join!(raw_pair.peer.recv_chunk_verified(), write) }).await;
    // Not a valid chunk, but all of it was let through.
    assert!(received.is_err());
    let _ = written;
}

/// Our side asks and Mallory answers.
async fn round_trip(raw_pair: &RawPair) {
    let play = async {
        let mut message = raw_pair.accept().await;
        soon(message.recv.read_to_end(100)).await.unwrap();
        message.send.finish().unwrap();
    };
    let (sent, ()) = tokio::join!(raw_pair.peer.send(Bytes::from_static(b"hi")), play);
    sent.unwrap();
}

/// Whom we would not dial there must not be found there.
#[tokio::test]
async fn a_guest_is_no_peer_for_its_address() {
    let (guest, other) = (identity(), identity());
    let guest_id = guest.peer_id();
    let ours = trusting(
        other,
        Trust::ask(move |id| if *id == guest_id { Admission::Guest } else { Admission::Refused }),
    );
    let guest = trusting(guest, everybody());
    let (to_us, accepted) =
        soon(async { tokio::join!(guest.connect_to(addr_of(&ours)), ours.accept()) }).await;
    let (_to_us, (addr, to_guest)) = (to_us.unwrap(), accepted.unwrap());
    assert!(to_guest.is_guest());
    assert!(!ours.has_active_peer(addr).await);
    let error = soon(ours.connect(addr)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Untrusted { .. }), "{error:?}");
    // By its key it is found.
    let found = soon(ours.connect_to(PeerAddr { id: guest_id, addr })).await.unwrap();
    assert!(Arc::ptr_eq(&found, &to_guest));
}

#[tokio::test]
async fn a_revoked_key_is_cut_off_at_once_and_stays_out() {
    let revoked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&revoked);
    let trust = Trust::ask(move |_| match seen.load(Ordering::Relaxed) {
        false => Admission::Trusted,
        true => Admission::Refused,
    });
    let (alice, bob) = (transport(TransportConfig::default()), trusting(identity(), trust));
    let pair = Pair::of(alice, bob).await;
    // In the middle of a chunk that fills every window.
    let source = memory(&noise(1, 8 << 20));
    let sending = pair.to_bob.send_chunk_verified(&source);
    let revoke = async {
        let chunk = pair.to_alice.next_chunk().await.unwrap().unwrap();
        revoked.store(true, Ordering::Relaxed);
        pair.bob.close_peer(pair.alice.peer_id(), Code::Revoked);
        let end = pair.to_bob.closed().await;
        assert_eq!(end, ConnectionEnd::ClosedByPeer { code: Code::Revoked });
        drop(chunk);
    };
    let (sent, ()) = soon(async { tokio::join!(sending, revoke) }).await;
    sent.unwrap_err();
    let error = soon(pair.alice.connect_to(addr_of(&pair.bob))).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}

/// The rule changes, and its maker closes what is open, just before a connection is.
#[tokio::test]
async fn a_key_revoked_within_its_handshake_does_not_slip_in() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // In the handshake, after it, and once more when it can be found and closed.
    let trust = Trust::ask(move |_| match counter.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Admission::Trusted,
        _ => Admission::Refused,
    });
    let (alice, bob) = (transport(TransportConfig::default()), trusting(identity(), trust));
    let error = soon(alice.connect_to(addr_of(&bob))).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    assert!(asked.load(Ordering::Relaxed) > 2);
}

/// A callback must not panic. If one does, that is one connection's harm.
#[tokio::test]
async fn a_panic_in_a_trust_callback_does_not_use_up_the_handshakes() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // The second question of each connection comes from the task that answers it.
    let trust = Trust::ask(move |_| match counter.fetch_add(1, Ordering::Relaxed) {
        1 | 3 | 5 => panic!("as this test wants it"),
        _ => Admission::Trusted,
    });
    let config = TransportConfig::default().max_incoming_handshakes(3);
    let bob = QuicTransport::builder().trust(trust).config(config).bind(localhost()).unwrap();
    for _ in 0..3 {
        let mallory = Mallory::new(|_| ());
        let raw = soon(mallory.dial(&bob)).await.unwrap();
        soon(raw.closed()).await;
    }
    let alice = transport(TransportConfig::default());
    let (connected, _) = soon(async { tokio::join!(alice.connect_to(addr_of(&bob)), bob.accept()) }).await;
    connected.unwrap();
}

#[tokio::test]
async fn what_a_peer_closes_with_is_a_known_code_and_no_text() {
    let reason: Vec<u8> = [0x1b, b'[', b'2', b'J', 0x07, 0xc2, 0x9b, b'\n'].repeat(128);
    for (sent, known) in [(0, Code::NoError), (13, Code::Revoked), (4711, Code::Protocol)] {
        let raw_pair = RawPair::new().await;
        raw_pair.raw.close(quinn::VarInt::from_u32(sent), &reason);
        let end = soon(raw_pair.peer.closed()).await;
        assert_eq!(end, ConnectionEnd::ClosedByPeer { code: known });
        let shown = format!("{end} {end:?}");
        assert!(shown.len() < 256 && !shown.contains(char::is_control), "{shown}");
        assert!(raw_pair.peer.is_closed());
        assert_eq!(raw_pair.peer.end(), Some(end));
    }
}

/// A call of a guest's is counted like anybody's stream; what it gets is decided above.
#[tokio::test]
async fn a_guests_one_stream_comes_back_when_it_is_answered() {
    let raw_pair = RawPair::of(trusting(identity(), Trust::ask(|_| Admission::Guest)), |_| ()).await;
    for _ in 0..3 {
        let mut stream = raw_pair.send(&headed(StreamKind::RpcCall, b"redeem")).await;
        let mut call = soon(raw_pair.peer.next_call()).await.unwrap();
        call.stream.recv.read_to_end(10).await.unwrap();
        call.stream.send.finish().unwrap();
        drop(call);
        assert_eq!(stream.answer().await, (vec![], End::Fin));
    }
    raw_pair.raw.close(code(Code::NoError), b"");
}
