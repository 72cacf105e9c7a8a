//! The dialect over real sockets: against itself, and against a peer that is played by hand, step by step
//! as the original program does it or as no program should.

mod chunks;
mod messages;
mod strangers;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use quinn::VarInt;
use shiplane_transport::{ChunkSource, TransportConfig, internals::LaneThreads};
use tokio::time::timeout;

use super::{intake::Policy, *};

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Far more than any story takes.
const AMPLE: Duration = Duration::from_secs(30);

/// `hello` as a chunk (SPEC 3).
const HELLO_CHUNK: &str =
    "050000000000000068656c6c6f2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// The empty chunk (SPEC 3).
const EMPTY_CHUNK: &str = "0000000000000000e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// `hello` as a message (SPEC 9).
const HELLO_MESSAGE: &str = "0500000068656c6c6f";

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).unwrap()
}

fn memory(data: &'static [u8]) -> ChunkSource {
    ChunkSource::Memory(Bytes::from_static(data))
}

/// Patient enough for a loaded machine.
fn transport() -> InsecureOctopiiTransport {
    transport_with(TransportConfig::default())
}

fn transport_with(config: TransportConfig) -> InsecureOctopiiTransport {
    // Without probes for a larger packet size: up to its 0.11.19, quinn loses a close that comes while
    // one of them fills the first congestion window (its issue 2785).
    let config = config.max_datagram_len_bytes(Some(1200));
    InsecureOctopiiTransport::bind(LOCALHOST, config, AcceptAnyPeer).unwrap()
}

/// For tests in which a peer stays silent: with short timeouts.
fn impatient() -> TransportConfig {
    let soon = Duration::from_millis(200);
    let lane_threads = LaneThreads::Ordinary; // They keep short deadlines on a busy machine too.
    TransportConfig::default().header_timeout(soon).progress_timeout(soon).lane_threads(lane_threads)
}

/// Two of ours; Alice dialled Bob.
struct Pair<A: Policy, B: Policy> {
    alice: InsecureOctopiiConnection<A>,
    bob: InsecureOctopiiConnection<B>,
    // Dropped, a transport closes its connections.
    _transports: [InsecureOctopiiTransport; 2],
}

impl<A: Policy, B: Policy> Pair<A, B> {
    async fn new(alices: A, bobs: B) -> Self {
        let transports = [transport(), transport()];
        let addr = transports[1].local_addr().unwrap();
        let (alice, bob) = tokio::join!(transports[0].connect(addr, alices), transports[1].accept(bobs));
        Self { alice: alice.unwrap(), bob: bob.unwrap(), _transports: transports }
    }
}

/// One of ours, and a bare quinn connection whose streams the test plays by hand.
struct Played<P: Policy> {
    ours: InsecureOctopiiConnection<P>,
    raw: quinn::Connection,
    _transport: InsecureOctopiiTransport,
    _endpoint: quinn::Endpoint,
}

impl<P: Policy> Played<P> {
    /// The played peer is the client.
    async fn dialling(policy: P, config: TransportConfig) -> Self {
        let transport = transport_with(config);
        let endpoint = quinn::Endpoint::client(LOCALHOST).unwrap();
        let addr = transport.local_addr().unwrap();
        let dial = endpoint.connect_with(raw_client(), addr, "localhost").unwrap();
        let (raw, ours) = tokio::join!(dial, transport.accept(policy));
        Self { ours: ours.unwrap(), raw: raw.unwrap(), _transport: transport, _endpoint: endpoint }
    }

    /// The played peer is the server.
    async fn dialled(policy: P, config: TransportConfig) -> Self {
        let transport = transport_with(config);
        let endpoint = quinn::Endpoint::server(raw_server("octopii"), LOCALHOST).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let accept = async { endpoint.accept().await.unwrap().await };
        let (raw, ours) = tokio::join!(accept, transport.connect(addr, policy));
        Self { ours: ours.unwrap(), raw: raw.unwrap(), _transport: transport, _endpoint: endpoint }
    }

    /// A stream of the played peer's that says all of `data` and then ends.
    async fn say(&self, data: &[u8]) -> quinn::RecvStream {
        let (mut send, recv) = self.raw.open_bi().await.unwrap();
        send.write_all(data).await.unwrap();
        send.finish().unwrap();
        recv
    }

    /// The next stream of ours, read to its end.
    async fn hear(&self) -> (quinn::SendStream, Vec<u8>) {
        let (send, mut recv) = self.raw.accept_bi().await.unwrap();
        (send, recv.read_to_end(1 << 20).await.unwrap())
    }
}

/// As the original's client: it asks for `localhost` and takes any certificate.
fn raw_client() -> quinn::ClientConfig {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls::client().unwrap()).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

/// As the original's server, with a certificate that is not of our making in any way we could know.
fn raw_server(alpn: &str) -> quinn::ServerConfig {
    let made = rcgen::generate_simple_self_signed([String::from("somebody.example")]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key.into())
        .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    quinn::ServerConfig::with_crypto(Arc::new(crypto))
}

/// What a peer hears on its stream: all of it, or the code it was reset with.
async fn answer(mut recv: quinn::RecvStream) -> Result<Vec<u8>, u64> {
    match timeout(AMPLE, recv.read_to_end(16)).await.expect("an answer") {
        Ok(answer) => Ok(answer),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Err(code.into_inner()),
        Err(other) => panic!("{other:?}"),
    }
}
