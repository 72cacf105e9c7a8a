//! Datagrams of no connection, and of connections that are never completed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use futures::StreamExt as _;
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig};
use shiplane_transport::{Identity, Trust, test_support};
use testlink::Rng;
use tokio::net::UdpSocket;

use super::{flood, tell, until_enough};

/// Noise, short headers of unknown connections, versions that nobody speaks, and first packets that no key opens,
/// in turn. `count` before it is ready.
pub(crate) async fn garbage(server: SocketAddr, count: u64) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut noise = Rng::new(1);
    flood("datagrams", count, async |number: u64| {
        // A flood that is faster than the kernel loses some of itself.
        let _lost = socket.try_send_to(&noisy(number, &mut noise), server);
        if number.is_multiple_of(BURST) {
            socket.writable().await?;
        }
        Ok(())
    })
    .await
}

fn noisy(number: u64, noise: &mut Rng) -> Vec<u8> {
    let mut datagram = noise.bytes(1200);
    match number % 4 {
        // RFC 9000 section 17.3: a short header, fixed bit set.
        1 => datagram[0] = 0x40 | (datagram[0] & 0x3f),
        // Section 17.2.1: a version that is kept free for asking.
        2 => {
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
            (datagram[5], datagram[14]) = (8, 8);
        }
        // Section 17.2.2: an Initial packet of version 1, its ids 8 bytes each, no token, its length to the end.
        3 => {
            datagram[0] = 0xc0 | (datagram[0] & 0x0f);
            datagram[1..5].copy_from_slice(&1u32.to_be_bytes());
            (datagram[5], datagram[14], datagram[23]) = (8, 8, 0);
            let rest = (datagram.len() - 26) as u16;
            datagram[24..26].copy_from_slice(&(0x4000 | rest).to_be_bytes());
        }
        _ => {}
    }
    datagram
}

/// First packets, each from an address of its own in 127/8 that never answers. `count` before it is ready.
pub(crate) async fn spoofed(server: SocketAddr, count: u64) -> Result<()> {
    flood("packets", count, async |number: u64| {
        let (_, first) = Attempt::begin(server)?;
        let [_, _, b, c] = (number as u32).to_be_bytes();
        let source = Ipv4Addr::new(127, 77, b, c.max(1));
        // As above.
        let _lost = std::net::UdpSocket::bind((source, 0))?.send_to(&first, server);
        Ok(())
    })
    .await
}

/// Handshakes whose address is proven, if that is asked for, and that go no further. `count` before it is ready.
pub(crate) async fn half_open(server: SocketAddr, count: u64) -> Result<()> {
    let attempts = futures::stream::iter(0..count).map(|_| half(server)).buffer_unordered(AT_A_TIME);
    let answers: Vec<_> = attempts.collect().await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let such = |wanted: Answer| answers.iter().filter(|answer| **answer == wanted).count() as u64;
    tell(&[("begun", count), ("answered", such(Answer::Handshake)), ("retried", such(Answer::Retry))])?;
    // Those that were given up are begun again.
    let more = until_enough(async |_| half(server).await.map(drop)).await?;
    tell(&[("begun", count + more)])
}

/// How far a handshake got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    /// The server wanted the address proven, which was done.
    Retry,
    Handshake,
}

async fn half(server: SocketAddr) -> Result<Answer> {
    let (mut attempt, first) = Attempt::begin(server)?;
    // One host, which is not that of any honest peer.
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 66, 0, 1), 0)).await?;
    socket.send_to(&first, server).await?;
    let mut datagram = vec![0; 2048];
    let Ok(heard) = tokio::time::timeout(PATIENCE, socket.recv_from(&mut datagram)).await else {
        return Ok(Answer::None);
    };
    let (len, _) = heard?;
    // Type 3 of a long header (RFC 9000 section 17.2.5).
    if datagram[0] & 0xb0 != 0xb0 {
        return Ok(Answer::Handshake);
    }
    if let Some(second) = attempt.answer(&datagram[..len]) {
        socket.send_to(&second, server).await?;
    }
    Ok(Answer::Retry)
}

/// A handshake without a socket.
struct Attempt {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    server: SocketAddr,
}

impl Attempt {
    /// And its first datagram.
    fn begin(server: SocketAddr) -> Result<(Self, Vec<u8>)> {
        let client = test_support::client_config(&Identity::generate()?, &Trust::none(), &[b"shiplane/1"])?;
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let (handle, connection) =
            endpoint.connect(Instant::now(), client, server, test_support::SERVER_NAME)?;
        let mut attempt = Self { endpoint, handle, connection, server };
        let first = attempt.next().context("there is no first packet")?;
        Ok((attempt, first))
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut datagram = Vec::new();
        let transmit = self.connection.poll_transmit(Instant::now(), 1, &mut datagram)?;
        datagram.truncate(transmit.size);
        Some(datagram)
    }

    /// What is said to the server's first answer.
    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let (now, data) = (Instant::now(), BytesMut::from(datagram));
        match self.endpoint.handle(now, self.server, None, None, data, &mut Vec::new())? {
            DatagramEvent::ConnectionEvent(handle, event) if handle == self.handle => {
                self.connection.handle_event(event);
                self.next()
            }
            _ => None,
        }
    }
}

/// How many may be lost before we wait for room.
const BURST: u64 = 64;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

const AT_A_TIME: usize = 256;
