//! Two transports on loopback, and a peer that is played by hand.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use shiplane_transport::{
    ChunkSource, Identity, PeerAddr, PeerConnection, PeerId, QuicTransport, TransportConfig, Trust,
    internals::LaneThreads, test_support,
};
use shiplane_wire::{Code, Digest, StreamHeader, StreamKind, TransferId};

/// Far more than any test takes: a test that is not done by then hangs.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

/// Fails the test, rather than the whole run, when something hangs.
#[track_caller]
pub(crate) fn soon<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(AMPLE, work).await.unwrap_or_else(|_| panic!("hangs: {caller}")) }
}

pub(crate) fn localhost() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn identity() -> Identity {
    Identity::generate().unwrap()
}

pub(crate) fn everybody() -> Trust {
    Trust::ask(|_| shiplane_transport::Admission::Trusted)
}

/// A transport that trusts everybody.
pub(crate) fn transport(config: TransportConfig) -> QuicTransport {
    let config = config.lane_threads(lane_threads());
    QuicTransport::builder().trust(everybody()).config(config).bind(localhost()).unwrap()
}

/// They yield to nobody, since the tests around them leave them too little; but a paused clock, which stands still
/// between two looks, waits only for the runtime's threads.
pub(crate) fn lane_threads() -> LaneThreads {
    use tokio::time::Instant;
    if Instant::now() == Instant::now() { LaneThreads::Runtime } else { LaneThreads::Ordinary }
}

/// Deadlines for stories that wait for one in real time.
pub(crate) fn short_deadlines() -> TransportConfig {
    let deadline = Duration::from_millis(300);
    TransportConfig::default().header_timeout(deadline).progress_timeout(deadline)
}

pub(crate) fn addr_of(transport: &QuicTransport) -> PeerAddr {
    PeerAddr { id: transport.peer_id(), addr: transport.local_addr().unwrap() }
}

/// Alice has dialled Bob.
pub(crate) struct Pair {
    pub(crate) alice: QuicTransport,
    pub(crate) bob: QuicTransport,
    pub(crate) to_bob: Arc<PeerConnection>,
    pub(crate) to_alice: Arc<PeerConnection>,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        Self::with(TransportConfig::default()).await
    }

    pub(crate) async fn with(config: TransportConfig) -> Self {
        Self::of(transport(config.clone()), transport(config)).await
    }

    pub(crate) async fn of(alice: QuicTransport, bob: QuicTransport) -> Self {
        let (to_bob, accepted) =
            soon(async { tokio::join!(alice.connect_to(addr_of(&bob)), bob.accept()) }).await;
        let (to_bob, (_, to_alice)) = (to_bob.unwrap(), accepted.unwrap());
        Self { alice, bob, to_bob, to_alice }
    }

    /// One chunk of a few bytes arrives: the connection works.
    pub(crate) async fn expect_works(&self) {
        expect_works(&self.to_bob, &self.to_alice).await;
    }
}

/// One chunk of a few bytes gets from one end of a connection to the other.
pub(crate) async fn expect_works(from: &PeerConnection, to: &PeerConnection) {
    let source = memory(b"it works");
    let (sent, received) =
        soon(async { tokio::join!(from.send_chunk_verified(&source), to.recv_chunk_verified()) }).await;
    assert_eq!(sent.unwrap(), 8);
    assert_eq!(received.unwrap().unwrap(), "it works");
}

pub(crate) fn memory(data: &[u8]) -> ChunkSource {
    ChunkSource::Memory(Bytes::copy_from_slice(data))
}

/// A raw quinn peer that has passed our handshake, connected to a transport of ours.
pub(crate) struct RawPair {
    pub(crate) ours: QuicTransport,
    /// Our end.
    pub(crate) peer: Arc<PeerConnection>,
    /// Its end.
    pub(crate) raw: quinn::Connection,
    pub(crate) mallory: Mallory,
}

impl RawPair {
    pub(crate) async fn new() -> Self {
        Self::with(TransportConfig::default(), |_| ()).await
    }

    pub(crate) async fn with(
        config: TransportConfig,
        quic: impl FnOnce(&mut quinn::TransportConfig),
    ) -> Self {
        Self::of(transport(config), quic).await
    }

    /// Mallory dials us.
    pub(crate) async fn of(ours: QuicTransport, quic: impl FnOnce(&mut quinn::TransportConfig)) -> Self {
        let mallory = Mallory::new(quic);
        let (raw, accepted) = soon(async { tokio::join!(mallory.dial(&ours), ours.accept()) }).await;
        Self { peer: accepted.unwrap().1, raw: raw.unwrap(), ours, mallory }
    }

    /// A stream of Mallory's that begins with these bytes.
    pub(crate) async fn open(&self, bytes: &[u8]) -> RawStream {
        let (mut send, recv) = soon(self.raw.open_bi()).await.unwrap();
        soon(send.write_all(bytes)).await.unwrap();
        RawStream { send, recv }
    }

    /// A stream of Mallory's that is exactly these bytes.
    pub(crate) async fn send(&self, bytes: &[u8]) -> RawStream {
        let mut stream = self.open(bytes).await;
        stream.send.finish().unwrap();
        stream
    }

    /// Our next stream.
    pub(crate) async fn accept(&self) -> RawStream {
        let (send, recv) = soon(self.raw.accept_bi()).await.unwrap();
        RawStream { send, recv }
    }

    /// A chunk of a few bytes from Mallory arrives: the connection is unharmed.
    pub(crate) async fn expect_works(&self) {
        let mut stream = self.send(&frame(b"still here")).await;
        assert_eq!(soon(self.peer.recv_chunk_verified()).await.unwrap().unwrap(), "still here");
        assert_eq!(stream.answer().await, (vec![0], End::Fin));
    }
}

/// An endpoint of raw quinn with a key that everybody trusts.
pub(crate) struct Mallory {
    endpoint: quinn::Endpoint,
    id: PeerId,
    client: quinn::ClientConfig,
}

impl Mallory {
    pub(crate) fn new(quic: impl FnOnce(&mut quinn::TransportConfig)) -> Self {
        Self::speaking(&[b"shiplane/1"], quic)
    }

    pub(crate) fn speaking(protocols: &[&[u8]], quic: impl FnOnce(&mut quinn::TransportConfig)) -> Self {
        let (identity, trust) = (identity(), everybody());
        let mut config = quinn::TransportConfig::default();
        quic(&mut config);
        let config = Arc::new(config);
        let mut client = test_support::client_config(&identity, &trust, protocols).unwrap();
        client.transport_config(Arc::clone(&config));
        let mut server = test_support::server_config(&identity, &trust, protocols).unwrap();
        server.transport_config(config);
        let endpoint = quinn::Endpoint::server(server, localhost()).unwrap();
        Self { endpoint, id: identity.peer_id(), client }
    }

    pub(crate) fn addr(&self) -> PeerAddr {
        PeerAddr { id: self.id, addr: self.endpoint.local_addr().unwrap() }
    }

    pub(crate) async fn dial(&self, to: &QuicTransport) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.begin(to.local_addr().unwrap()).await
    }

    /// Starts a handshake, and does not wait for it.
    pub(crate) fn begin(&self, to: SocketAddr) -> quinn::Connecting {
        self.endpoint.connect_with(self.client.clone(), to, test_support::SERVER_NAME).unwrap()
    }

    /// The next handshake, whatever becomes of it.
    pub(crate) async fn try_accept(&self) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.endpoint.accept().await.unwrap().await
    }
}

/// A stream as it is on the wire.
pub(crate) struct RawStream {
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
}

/// How the other half of a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset(Code),
    Lost,
}

impl RawStream {
    /// All that comes on the other half, and how it ends.
    pub(crate) async fn answer(&mut self) -> (Vec<u8>, End) {
        let mut data = Vec::new();
        loop {
            match soon(self.recv.read_chunk(usize::MAX, true)).await {
                Ok(Some(chunk)) => data.extend_from_slice(&chunk.bytes),
                Ok(None) => return (data, End::Fin),
                Err(quinn::ReadError::Reset(code)) => {
                    return (data, End::Reset(Code::from_u64(code.into_inner())));
                }
                Err(quinn::ReadError::ConnectionLost(_)) => return (data, End::Lost),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// The code with which our side stops what Mallory sends.
    pub(crate) async fn stopped(&mut self) -> Option<Code> {
        let code = soon(self.send.stopped()).await.unwrap();
        code.map(|code| Code::from_u64(code.into_inner()))
    }
}

/// A chunk frame, put together from the specification (SPEC 3.1).
pub(crate) fn frame(data: &[u8]) -> Vec<u8> {
    forged(data.len() as u64, data, Digest::sha256(data))
}

/// A chunk frame with a size and a digest of one's own.
pub(crate) fn forged(len_bytes: u64, data: &[u8], digest: Digest) -> Vec<u8> {
    [&len_bytes.to_le_bytes()[..], data, digest.as_bytes()].concat()
}

/// A stream header and its body.
pub(crate) fn headed(kind: StreamKind, body: &[u8]) -> Vec<u8> {
    let header = StreamHeader::new(kind, body.len() as u64).unwrap();
    [&header.encode()[..], body].concat()
}

/// The opening of a tagged chunk's stream.
pub(crate) fn tag(transfer: TransferId, index: u64) -> Vec<u8> {
    shiplane_wire::TaggedChunk { transfer, index }.encode().to_vec()
}

pub(crate) fn transfer_id(byte: u8) -> TransferId {
    TransferId::from_bytes([byte; 16])
}

pub(crate) fn code(code: Code) -> quinn::VarInt {
    quinn::VarInt::try_from(code.as_u64()).unwrap()
}

/// The same bytes every time, without a pattern that a mix-up could hide behind.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    testlink::Rng::new(seed).bytes(len)
}
