//! The pool: shared dials, simultaneous dials, dead peers, silent peers, garbage.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use shiplane_transport::{ConnectError, Identity, MessageError, PeerAddr, QuicTransport, TransportConfig};
use shiplane_wire::Code;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    harness::{
        Mallory, Pair, RawPair, addr_of, everybody, expect_works, lane_threads, localhost, memory, soon,
        transport,
    },
    wire::Wire,
};

fn shared(config: TransportConfig) -> Arc<QuicTransport> {
    Arc::new(transport(config))
}

#[tokio::test]
async fn a_hundred_connects_are_one_handshake() {
    let (alice, bob) = (shared(TransportConfig::default()), transport(TransportConfig::default()));
    let addr = bob.local_addr().unwrap();
    let mut connects = JoinSet::new();
    for _ in 0..100 {
        let alice = Arc::clone(&alice);
        connects.spawn(async move { alice.connect(addr).await.unwrap() });
    }
    let first = soon(alice.connect(addr)).await.unwrap();
    while let Some(other) = soon(connects.join_next()).await {
        assert!(Arc::ptr_eq(&first, &other.unwrap()));
    }
    let (_, to_alice) = soon(bob.accept()).await.unwrap();
    assert_eq!((alice.open_connections(), bob.open_connections()), (1, 1));

    // Both ways, and by key as by address.
    let back = soon(bob.connect_to(addr_of(&alice))).await.unwrap();
    assert!(Arc::ptr_eq(&back, &to_alice));
    let back = soon(bob.connect(alice.local_addr().unwrap())).await.unwrap();
    assert!(Arc::ptr_eq(&back, &to_alice));
    let pinned = soon(alice.connect_to(addr_of(&bob))).await.unwrap();
    assert!(Arc::ptr_eq(&first, &pinned));
}

#[tokio::test]
async fn a_hundred_sends_in_a_row_use_one_connection() {
    let (alice, bob) = (transport(TransportConfig::default()), transport(TransportConfig::default()));
    let addr = bob.local_addr().unwrap();
    let receive = async {
        let (_, to_alice) = bob.accept().await.unwrap();
        for _ in 0..100 {
            assert_eq!(to_alice.recv_chunk_verified().await.unwrap().unwrap(), "again");
        }
        to_alice
    };
    let send = async {
        for _ in 0..100 {
            let peer = alice.connect(addr).await.unwrap();
            peer.send_chunk_verified(&memory(b"again")).await.unwrap();
        }
    };
    let (_to_alice, ()) = soon(async { tokio::join!(receive, send) }).await;
    assert_eq!((alice.open_connections(), bob.open_connections()), (1, 1));
}

/// Each side dials at the same moment: both settle on the same connection, and nothing is lost.
#[tokio::test]
async fn crossing_dials_settle_on_one_connection_each_time() {
    for _ in 0..500 {
        let (alice, bob) = (small(), small());
        let dials = async { tokio::join!(alice.connect_to(addr_of(&bob)), bob.connect_to(addr_of(&alice))) };
        let (to_bob, to_alice) = soon(dials).await;
        let (to_bob, to_alice) = (to_bob.unwrap(), to_alice.unwrap());
        for _ in 0..2 {
            expect_works(&to_bob, &to_alice).await;
            expect_works(&to_alice, &to_bob).await;
        }
        drop((to_bob, to_alice));
        // Accepted ones that were not taken are closed too.
        until(|| (alice.open_connections(), bob.open_connections()) == (1, 1)).await;
        let to_bob = soon(alice.connect_to(addr_of(&bob))).await.unwrap();
        let to_alice = soon(bob.connect_to(addr_of(&alice))).await.unwrap();
        assert_ne!(to_bob.is_dialled_here(), to_alice.is_dialled_here(), "two ends of one");
        assert_eq!(to_bob.is_dialled_here(), alice.peer_id() < bob.peer_id(), "the smaller id's");
        expect_works(&to_bob, &to_alice).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_delays_no_other() {
    let blackhole = UdpSocket::bind(localhost()).unwrap();
    let alice = shared(TransportConfig::default());
    let bob = transport(TransportConfig::default());
    let timeout = shiplane_transport::HANDSHAKE_TIMEOUT;
    let began = Instant::now();
    let dial = {
        let (alice, addr) = (Arc::clone(&alice), blackhole.local_addr().unwrap());
        tokio::spawn(async move { (alice.connect(addr).await, began.elapsed()) })
    };
    tokio::task::yield_now().await;
    let (to_bob, accepted) = tokio::join!(alice.connect_to(addr_of(&bob)), bob.accept());
    let (to_bob, (_, to_alice)) = (to_bob.unwrap(), accepted.unwrap());
    let send = async { alice.send(bob.local_addr().unwrap(), Bytes::from_static(b"hi")).await.unwrap() };
    let (received, ()) = tokio::join!(to_alice.recv(), send);
    assert_eq!(received.unwrap().unwrap(), "hi");
    assert!(!dial.is_finished() && !to_bob.is_closed());
    assert!(began.elapsed() < timeout / 2, "{:?}", began.elapsed());

    let (outcome, took) = dial.await.unwrap();
    assert!(matches!(outcome, Err(ConnectError::TimedOut { .. })), "{outcome:?}");
    assert!((timeout..timeout + Duration::from_millis(500)).contains(&took), "{took:?}");
    // It is not remembered: the next call dials again, and is as free to give up.
    let again = tokio::time::timeout(timeout / 10, alice.connect(blackhole.local_addr().unwrap())).await;
    assert!(again.is_err());
}

/// All waiters of a dial get its outcome, also if one of them is dropped.
#[tokio::test]
async fn a_dial_goes_on_without_the_one_who_began_it() {
    let (alice, bob) = (shared(TransportConfig::default()), transport(TransportConfig::default()));
    let addr = bob.local_addr().unwrap();
    let mut first = Box::pin(alice.connect(addr));
    tokio::select! {
        biased;
        _ = &mut first => panic!("no handshake is that fast"),
        () = tokio::task::yield_now() => {}
    }
    let second = tokio::spawn({
        let alice = Arc::clone(&alice);
        async move { alice.connect(addr).await }
    });
    tokio::task::yield_now().await;
    drop(first);
    soon(second).await.unwrap().unwrap();
    assert_eq!(alice.open_connections(), 1);
}

#[tokio::test]
async fn a_closed_connection_is_noticed_and_dialled_anew() {
    for closed_here in [true, false] {
        let pair = Pair::new().await;
        let addr = pair.bob.local_addr().unwrap();
        assert!(pair.alice.has_active_peer(addr).await && !pair.to_bob.is_closed());
        if closed_here { &pair.to_bob } else { &pair.to_alice }.close(Code::NoError);
        soon(pair.to_bob.closed()).await;
        assert!(!pair.alice.has_active_peer(addr).await && pair.to_bob.is_closed());
        let (again, accepted) =
            soon(async { tokio::join!(pair.alice.connect(addr), pair.bob.accept()) }).await;
        let (again, (_, to_alice)) = (again.unwrap(), accepted.unwrap());
        assert!(!Arc::ptr_eq(&again, &pair.to_bob));
        expect_works(&again, &to_alice).await;
        expect_works(&to_alice, &again).await;
        until(|| pair.alice.open_connections() == 1).await;
    }
}

/// Killed, not closed: no packet is sent.
#[tokio::test]
async fn a_peer_that_was_killed_and_restarted_is_found_at_the_next_connect() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let bob = Doomed::start(key.clone(), localhost());
    let alice = transport(TransportConfig::default());
    let to_bob = soon(alice.connect_to(bob.addr)).await.unwrap();
    let addr = bob.addr;
    bob.kill();
    let bob = Doomed::start(key, addr.addr);
    assert_eq!(bob.addr, addr);
    assert!(!to_bob.is_closed(), "nobody has told");
    // For a second a connection is taken at its word.
    let believed = async {
        while Arc::ptr_eq(&soon(alice.connect_to(addr)).await.unwrap(), &to_bob) {
            tokio::task::yield_now().await;
        }
    };
    soon(believed).await;
    assert_eq!(soon(to_bob.closed()).await, shiplane_transport::ConnectionEnd::Reset);
    let again = soon(alice.connect_to(addr)).await.unwrap();
    soon(again.send(Bytes::from_static(b"hi"))).await.unwrap();
    bob.kill();
}

/// Who only waits, and sends nothing of its own, hears of it as well.
#[tokio::test]
async fn a_peer_that_was_restarted_is_noticed_by_one_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let bob = Doomed::start(key.clone(), localhost());
    let alice = transport(TransportConfig::default().keep_alive_interval(Duration::from_millis(100)));
    let to_bob = soon(alice.connect_to(bob.addr)).await.unwrap();
    let addr = bob.addr;
    bob.kill();
    let bob = Doomed::start(key, addr.addr);
    assert_eq!(soon(to_bob.closed()).await, shiplane_transport::ConnectionEnd::Reset);
    bob.kill();
}

/// Killed and not restarted: an error within the deadline, not a connection that leads nowhere.
#[tokio::test(start_paused = true)]
async fn a_peer_that_has_vanished_is_an_error_within_the_deadline() {
    let wire = Wire::new();
    let builder = QuicTransport::builder().trust(everybody()).quinn_socket(Arc::clone(&wire) as _);
    let pair = Pair::of(transport(TransportConfig::default()), builder.bind(localhost()).unwrap()).await;
    let bob = addr_of(&pair.bob);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(Arc::ptr_eq(&pair.alice.connect_to(bob).await.unwrap(), &pair.to_bob), "alive");
    wire.cut();
    tokio::time::advance(Duration::from_secs(2)).await;
    // However many ask, each has its answer by then.
    let (alice, timeout) = (Arc::new(pair.alice), shiplane_transport::HANDSHAKE_TIMEOUT);
    let mut connects = JoinSet::new();
    for _ in 0..10 {
        let alice = Arc::clone(&alice);
        connects.spawn(async move {
            let began = Instant::now();
            (alice.connect_to(bob).await, began.elapsed())
        });
    }
    while let Some(connect) = connects.join_next().await {
        let (outcome, took) = connect.unwrap();
        assert!(matches!(outcome, Err(ConnectError::TimedOut { .. })), "{outcome:?}");
        assert!(took < timeout + Duration::from_millis(500), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_silence_is_bridged_by_keep_alive() {
    let pair = Pair::new().await;
    let minute = Duration::from_secs(60);
    tokio::time::timeout(minute, pair.to_bob.closed()).await.expect_err("lives");
    let (sent, received) = tokio::join!(pair.to_bob.send(Bytes::from_static(b"hi")), pair.to_alice.recv());
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap(), "hi");
    assert!(Arc::ptr_eq(&pair.alice.connect_to(addr_of(&pair.bob)).await.unwrap(), &pair.to_bob));
}

#[tokio::test(start_paused = true)]
async fn unused_connections_leave_the_pool() {
    let Pair { alice, bob, to_bob, to_alice } = Pair::new().await;
    let long = Duration::from_secs(400);
    tokio::time::timeout(long, to_bob.closed()).await.expect_err("it is held");
    drop((to_bob, to_alice));
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let gone = async {
        while (alice.open_connections(), bob.open_connections()) != (0, 0) {
            seconds.tick().await;
        }
    };
    tokio::time::timeout(long, gone).await.unwrap();
    assert!(!alice.has_active_peer(bob.local_addr().unwrap()).await);
}

/// A second connection of the same peer, as of another program with its key, takes over and gives back.
#[tokio::test]
async fn when_one_of_a_peers_connections_ends_another_takes_its_place() {
    let bob = transport(TransportConfig::default());
    let mallory = Mallory::new(|_| ());
    let mut ends = Vec::new();
    for _ in 0..2 {
        let (raw, accepted) = soon(async { tokio::join!(mallory.dial(&bob), bob.accept()) }).await;
        ends.push((raw.unwrap(), accepted.unwrap().1));
    }
    let peer = mallory.addr();
    assert!(Arc::ptr_eq(&soon(bob.connect_to(peer)).await.unwrap(), &ends[1].1), "the newer one");
    ends[1].0.close(0u32.into(), b"");
    soon(ends[1].1.closed()).await;
    until(|| bob.open_connections() == 1).await;
    let found = soon(bob.connect_to(peer)).await.unwrap();
    assert!(Arc::ptr_eq(&found, &ends[0].1));
    // What comes on it is still found, through either handle.
    let mut stream = ends[0].0.open_bi().await.unwrap();
    stream.0.write_all(&crate::harness::frame(b"hi")).await.unwrap();
    stream.0.finish().unwrap();
    assert_eq!(soon(found.recv_chunk_verified()).await.unwrap().unwrap(), "hi");
}

#[tokio::test]
async fn garbage_and_strangers_do_not_stall_accept() {
    let bob = transport(TransportConfig::default());
    let addr = bob.local_addr().unwrap();
    let noisy = UdpSocket::bind(localhost()).unwrap();
    for len in (0..1500).step_by(7) {
        let mut datagram = crate::harness::noise(len as u64, len);
        // Every kind of first byte: long headers, short ones, and neither.
        if let Some(first) = datagram.first_mut() {
            *first = len as u8;
        }
        let _ = noisy.send_to(&datagram, addr).unwrap();
    }
    let stranger = Mallory::speaking(&[b"h3"], |_| ());
    for _ in 0..10 {
        soon(stranger.dial(&bob)).await.unwrap_err();
    }
    // Half of a handshake, for as long as it takes.
    let silent = Wire::new();
    let builder = QuicTransport::builder().trust(everybody()).quinn_socket(Arc::clone(&silent) as _);
    let half = Arc::new(builder.bind(localhost()).unwrap());
    let dialling = tokio::spawn({
        let (half, bob) = (Arc::clone(&half), addr_of(&bob));
        async move { half.connect_to(bob).await }
    });
    until(|| !silent.sent().is_empty()).await;
    silent.cut();

    let pair = Pair::of(transport(TransportConfig::default()), bob).await;
    pair.expect_works().await;
    dialling.abort();
}

#[tokio::test]
async fn port_0_binds_and_a_closed_transport_says_so() {
    let alice = QuicTransport::new(localhost()).await.unwrap();
    assert_ne!(alice.local_addr().unwrap().port(), 0);
    let taken = QuicTransport::new(alice.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(taken, shiplane_transport::BindError::Socket { .. }), "{taken:?}");

    let pair = Pair::new().await;
    let addr = pair.bob.local_addr().unwrap();
    pair.bob.close();
    pair.bob.close();
    soon(pair.to_bob.closed()).await;
    assert_eq!(pair.to_alice.end(), Some(shiplane_transport::ConnectionEnd::ClosedHere));
    assert!(!pair.alice.has_active_peer(addr).await);
    let outcome = soon(pair.bob.connect(pair.alice.local_addr().unwrap())).await;
    assert!(matches!(outcome, Err(ConnectError::CannotDial { .. })), "{outcome:?}");
    let outcome = soon(pair.bob.send(pair.alice.local_addr().unwrap(), Bytes::new())).await;
    assert!(matches!(outcome, Err(MessageError::Connect(ConnectError::CannotDial { .. }))));
    let outcome = soon(pair.bob.accept()).await;
    assert!(matches!(outcome, Err(ConnectError::Abandoned)), "{outcome:?}");
}

/// A dropped transport closes at once, even while it dials.
#[tokio::test]
async fn a_dropped_transport_does_not_wait_for_its_dials() {
    let Pair { alice, bob, to_bob: _to_bob, to_alice } = Pair::new().await;
    let blackhole = UdpSocket::bind(localhost()).unwrap();
    {
        let mut dial = std::pin::pin!(alice.connect(blackhole.local_addr().unwrap()));
        tokio::select! {
            biased;
            _ = &mut dial => panic!("nobody is there"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(alice);
    // A dial's timeout, and not that of a silent connection, is what it would otherwise wait for.
    let end = soon(to_alice.closed()).await;
    assert!(end.is_orderly(), "{end:?}");
    drop(bob);
}

/// A dial ends when the last waiter is dropped, as when another address has answered first.
#[tokio::test]
async fn a_dial_is_cancelled_with_the_last_who_waits_for_it() {
    let alice = transport(TransportConfig::default().handshake_timeout(Duration::from_secs(3600)));
    let blackhole = UdpSocket::bind(localhost()).unwrap();
    let addr = blackhole.local_addr().unwrap();
    let (mut first, mut second) = (Box::pin(alice.connect(addr)), Box::pin(alice.connect(addr)));
    tokio::select! {
        biased;
        _ = &mut first => panic!("nobody is there"),
        _ = &mut second => panic!("nobody is there"),
        () = tokio::task::yield_now() => {}
    }
    drop(first);
    tokio::task::yield_now().await;
    assert_eq!(alice.dials_under_way(), 1, "the other one still waits");
    drop(second);
    until(|| alice.dials_under_way() == 0).await;
}

#[tokio::test]
async fn a_path_is_measured_and_traffic_counted() {
    let pair = Pair::new().await;
    let before = pair.to_bob.stats();
    pair.expect_works().await;
    let after = pair.to_bob.stats();
    assert!(after.path.rtt > Duration::ZERO && after.path.congestion_window_bytes > 0);
    assert!(after.sent_bytes > before.sent_bytes && after.received_bytes > before.received_bytes);
    assert!(after.path.sent_packets > 0 && after.path.datagram_len_bytes >= 1200);
}

/// Where there is no IPv6, there is no such socket.
#[tokio::test]
async fn an_ipv4_address_is_shown_as_one_on_a_socket_of_both_families() {
    let config = TransportConfig::default().lane_threads(lane_threads());
    let bound = QuicTransport::builder().trust(everybody()).config(config).bind("[::]:0".parse().unwrap());
    let Ok(bob) = bound else { return };
    let alice = transport(TransportConfig::default());
    let addr = SocketAddr::from(([127, 0, 0, 1], bob.local_addr().unwrap().port()));
    let (accepted, dialled) = tokio::join!(soon(bob.accept()), soon(alice.connect(addr)));
    assert_eq!(accepted.unwrap().0, alice.local_addr().unwrap());
    assert_eq!(dialled.unwrap().remote_addr(), addr);
}

/// The connection is not accepted, and it still works through the pool.
#[tokio::test]
async fn an_untaken_connection_is_reached_by_its_peers_key() {
    let raw_pair = RawPair::new().await;
    let found = soon(raw_pair.ours.connect_to(raw_pair.mallory.addr())).await.unwrap();
    assert!(Arc::ptr_eq(&found, &raw_pair.peer));
    raw_pair.expect_works().await;
}

/// With small buffers, as there are a thousand of them.
fn small() -> QuicTransport {
    transport(TransportConfig::default().udp_buffer_len_bytes(64 * 1024))
}

/// Waits for what is bound to come, a task's turn at a time.
async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A peer in a thread and runtime of its own, which can end without a word. It takes messages.
struct Doomed {
    addr: PeerAddr,
    kill: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Doomed {
    fn start(key: PathBuf, addr: SocketAddr) -> Self {
        let (kill, killed) = std::sync::mpsc::channel();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let entered = runtime.enter();
            let identity = Identity::load_or_create(&key).unwrap();
            let transport = QuicTransport::builder().identity(identity).trust(everybody()).bind(addr);
            let transport = Arc::new(transport.unwrap());
            ready.send(addr_of(&transport)).unwrap();
            let serving = Arc::clone(&transport);
            runtime.spawn(async move {
                while let Ok((_, peer)) = serving.accept().await {
                    tokio::spawn(async move { while let Ok(Some(_)) = peer.recv().await {} });
                }
            });
            killed.recv().unwrap();
            // The tasks that would send a close go first.
            drop(entered);
            runtime.shutdown_timeout(Duration::from_secs(5));
            drop(transport);
        });
        Self { addr: started.recv().unwrap(), kill, thread }
    }

    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
