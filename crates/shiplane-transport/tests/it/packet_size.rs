//! Large packets where the path carries them, and no stall where it stops doing so.

use std::sync::Arc;

use bytes::Bytes;
use shiplane_transport::{
    ChunkExpectation, LOCAL_DATAGRAM_LEN_BYTES, LaneOptions, MAX_DATAGRAM_LEN_BYTES, QuicTransport,
    TransportConfig,
};

use crate::{
    harness::{Pair, everybody, expect_works, localhost, memory, noise, soon},
    wire::Wire,
};

/// What an Ethernet frame of 1,500 bytes leaves for UDP's payload.
const ETHERNET_LEN_BYTES: u16 = 1472;

struct Path {
    wires: [Arc<Wire>; 2],
    pair: Pair,
}

impl Path {
    async fn narrow_from_the_start() -> Self {
        let wires = [Wire::new(), Wire::new()];
        wires.iter().for_each(|wire| wire.narrow(ETHERNET_LEN_BYTES.into()));
        Self::of(wires).await
    }

    /// One that could be a network's.
    async fn of(wires: [Arc<Wire>; 2]) -> Self {
        Self::with(wires, Some(MAX_DATAGRAM_LEN_BYTES)).await
    }

    async fn with(wires: [Arc<Wire>; 2], max_datagram_len_bytes: Option<u16>) -> Self {
        let [here, there] = wires.each_ref().map(|wire| {
            let config = TransportConfig::default().max_datagram_len_bytes(max_datagram_len_bytes);
            let builder = QuicTransport::builder().trust(everybody()).config(config);
            builder.quinn_socket(Arc::clone(wire) as _).bind(localhost()).unwrap()
        });
        Self { pair: Pair::of(here, there).await, wires }
    }

    fn narrow(&self) {
        self.wires.iter().for_each(|wire| wire.narrow(ETHERNET_LEN_BYTES.into()));
    }

    fn datagram_len_bytes(&self) -> u16 {
        self.pair.to_bob.stats().path.datagram_len_bytes
    }

    /// Keeps the path busy until its packets are at least so large.
    async fn discover(&self, datagram_len_bytes: u16) {
        soon(async {
            while self.datagram_len_bytes() < datagram_len_bytes {
                self.pair.expect_works().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_path_of_1500_bytes_carries_from_the_first_packet() {
    let path = Path::narrow_from_the_start().await;
    let data = noise(1, 4 << 20);
    let source = memory(&data);
    let (sent, received) = soon(async {
        tokio::join!(path.pair.to_bob.send_chunk_verified(&source), path.pair.to_alice.recv_chunk_verified())
    })
    .await;
    sent.unwrap();
    assert!(received.unwrap().unwrap() == data);
}

#[tokio::test]
async fn the_size_of_a_path_is_found() {
    let path = Path::narrow_from_the_start().await;
    path.discover(ETHERNET_LEN_BYTES - 50).await;
    assert!(path.datagram_len_bytes() <= ETHERNET_LEN_BYTES, "{}", path.datagram_len_bytes());
}

/// Loopback takes packets of 64 KiB, which no network does.
#[tokio::test]
async fn packets_within_a_machine_become_longer_than_any_networks() {
    let path = Path::with([Wire::new(), Wire::new()], None).await;
    path.discover(LOCAL_DATAGRAM_LEN_BYTES).await;
    expect_works(&path.pair.to_alice, &path.pair.to_bob).await;
}

/// As when a route changes: large packets are lost without any message (RFC 8899 section 4.3).
#[tokio::test]
async fn a_path_that_narrows_in_the_middle_of_a_chunk_goes_on_with_smaller_packets() {
    let path = Path::of([Wire::new(), Wire::new()]).await;
    path.discover(MAX_DATAGRAM_LEN_BYTES).await;
    let data = noise(1, 16 << 20);
    let source = memory(&data);
    let receive = async {
        let chunk = path.pair.to_alice.next_chunk().await.unwrap().unwrap();
        path.narrow();
        chunk.receive_to_memory(&ChunkExpectation::default(), &LaneOptions::default()).await
    };
    let (sent, received) =
        soon(async { tokio::join!(path.pair.to_bob.send_chunk_verified(&source), receive) }).await;
    sent.unwrap();
    assert!(received.unwrap() == data);
    assert!(path.datagram_len_bytes() <= ETHERNET_LEN_BYTES, "{}", path.datagram_len_bytes());
    expect_works(&path.pair.to_alice, &path.pair.to_bob).await;
}

/// The same while nothing is under way, found out by what comes next.
#[tokio::test]
async fn a_path_that_narrows_while_it_is_quiet_still_carries_a_message() {
    let path = Path::of([Wire::new(), Wire::new()]).await;
    path.discover(MAX_DATAGRAM_LEN_BYTES).await;
    path.narrow();
    let data = Bytes::from(noise(1, 1 << 20));
    let (sent, received) =
        soon(async { tokio::join!(path.pair.to_bob.send(data.clone()), path.pair.to_alice.recv()) }).await;
    sent.unwrap();
    assert!(received.unwrap().unwrap() == data);
}
