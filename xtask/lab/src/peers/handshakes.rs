//! First packets of connections that are never completed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig};
use shiplane_transport::{Identity, Trust, test_support};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::peers::Failure;
use crate::peers::report::{flood, tell, until_enough};

/// First packets, each from an address of its own in 127/8 that never answers. `count` before it is ready.
pub(crate) async fn spoofed(server: SocketAddr, count: u64) -> Result<(), Failure> {
    flood("packets", count, async |number: u64| {
        let (_, first) = Attempt::begin(server)?;
        let [_, _, b, c] = (number as u32).to_be_bytes();
        let source = Ipv4Addr::new(127, 77, b, c.max(1));
        // A flood that is faster than the kernel loses some of itself.
        let _lost = std::net::UdpSocket::bind((source, 0))?.send_to(&first, server);
        tokio::task::yield_now().await;
        Ok(())
    })
    .await
}

/// Handshakes whose address is proven, if that is asked for, and that go no further. `count` before it is ready.
pub(crate) async fn half_open(server: SocketAddr, count: u64) -> Result<(), Failure> {
    let (mut begun, mut answered, mut retried) = (0, 0, 0);
    let mut attempts = JoinSet::new();
    while begun < count || !attempts.is_empty() {
        while begun < count && attempts.len() < AT_A_TIME {
            attempts.spawn(half(server));
            begun += 1;
            tokio::task::yield_now().await;
        }
        if let Some(attempt) = attempts.join_next().await {
            match attempt?? {
                Answer::None => {}
                Answer::Retry => retried += 1,
                Answer::Handshake => answered += 1,
            }
        }
    }
    tell(&[("begun", begun), ("answered", answered), ("retried", retried)])?;
    // Those that were given up are begun again.
    let more = until_enough(async |_| {
        half(server).await?;
        tokio::task::yield_now().await;
        Ok(())
    });
    tell(&[("begun", begun + more.await?)])
}

/// How far a handshake got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    /// The server wanted the address proven, which was done.
    Retry,
    Handshake,
}

async fn half(server: SocketAddr) -> Result<Answer, Failure> {
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
    fn begin(server: SocketAddr) -> Result<(Self, Vec<u8>), Failure> {
        let client = test_support::client_config(&Identity::generate()?, &Trust::none(), &[b"shiplane/1"])?;
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let (handle, connection) =
            endpoint.connect(Instant::now(), client, server, test_support::SERVER_NAME)?;
        let mut attempt = Self { endpoint, handle, connection, server };
        let first = attempt.next().ok_or("there is no first packet")?;
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

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

const AT_A_TIME: usize = 256;
