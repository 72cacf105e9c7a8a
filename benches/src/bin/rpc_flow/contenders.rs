//! The echo services: each with its client here and its server on a thread of its own.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use shiplane_benches::{Failure, anyone, runtime};
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{
    ChunkSource, Identity, PeerAddr, PeerConnection, QuicTransport, Trust, test_support,
};
use tarpc::{
    context,
    server::{BaseChannel, Channel as _},
    tokio_serde::formats::Bincode,
    tokio_util::codec::{Framed, LengthDelimitedCodec},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Sends a body and gets it back.
pub(crate) trait Echo: Send + Sync + 'static {
    const NAME: &'static str;

    fn echo(&self, body: Bytes) -> impl Future<Output = Result<Bytes, Failure>> + Send;
}

/// Starts a server on its own thread and runtime; it tells its address and runs until the program ends.
fn serve<A, F>(server: impl FnOnce(mpsc::Sender<A>) -> F + Send + 'static) -> Result<A, Failure>
where
    A: Send + 'static,
    F: Future<Output = Result<(), Failure>>,
{
    let (told, address) = mpsc::channel();
    thread::spawn(move || -> Result<(), Failure> { runtime()?.block_on(server(told)) });
    Ok(address.recv()?)
}

/// The whole of it: identities, trust, envelope, routing, deadline.
pub(crate) struct Shiplane {
    client: RpcClient,
    _transport: QuicTransport,
}

impl Shiplane {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let identity = Identity::generate()?;
        let client_id = identity.peer_id();
        let server = serve(async move |told| {
            let transport = QuicTransport::builder().trust(Trust::only([client_id])).bind(localhost())?;
            told.send(PeerAddr { id: transport.peer_id(), addr: transport.local_addr()? })?;
            let router = Arc::new(Router::new().method(ECHO, |_context, body| async move { Ok(body) }));
            while let Ok((_, peer)) = transport.accept().await {
                tokio::spawn(swallow(Arc::clone(&peer)));
                tokio::spawn(Arc::clone(&router).serve(peer));
            }
            Ok(())
        })?;
        let transport = QuicTransport::builder().identity(identity).trust(anyone()).bind(localhost())?;
        let client = RpcClient::new(transport.connect_to(server).await?);
        Ok(Self { client, _transport: transport })
    }

    /// Fills the connection with chunks from here to there, until the tasks are dropped.
    pub(crate) fn start_bulk(&self, sent_bytes: &Arc<AtomicU64>) -> JoinSet<Result<(), Failure>> {
        let chunk = Bytes::from(vec![7; CHUNK_LEN_BYTES]);
        let lane = |_| {
            let (peer, sent_bytes) = (Arc::clone(self.client.connection()), Arc::clone(sent_bytes));
            let source = ChunkSource::Memory(chunk.clone());
            async move {
                loop {
                    sent_bytes.fetch_add(peer.send_chunk_verified(&source).await?, Ordering::Relaxed);
                }
            }
        };
        (0..LANES).map(lane).collect()
    }
}

impl Echo for Shiplane {
    const NAME: &'static str = "shiplane";

    async fn echo(&self, body: Bytes) -> Result<Bytes, Failure> {
        Ok(self.client.call(ECHO, body, BUDGET).await?)
    }
}

/// Takes the bulk that comes beside the calls.
async fn swallow(peer: Arc<PeerConnection>) {
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let peer = Arc::clone(&peer);
        lanes.spawn(async move {
            while peer.recv_chunk_to_writer(io::sink()).await.is_ok_and(|sink| sink.is_some()) {}
        });
    }
    lanes.join_all().await;
}

/// A stream for each call, nothing on it but the body.
pub(crate) struct BareQuinn {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl BareQuinn {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let server = serve(async |told| {
            let config = test_support::server_config(&Identity::generate()?, &anyone(), ALPN)?;
            let endpoint = quinn::Endpoint::server(config, localhost())?;
            told.send(endpoint.local_addr()?)?;
            let connection = endpoint.accept().await.ok_or("closed")?.await?;
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let body = recv.read_to_end(MAX_BODY_LEN_BYTES).await?;
                    send.write_chunk(body.into()).await?;
                    send.finish()?;
                    Ok::<(), Failure>(())
                });
            }
            Ok(())
        })?;
        let config = test_support::client_config(&Identity::generate()?, &anyone(), ALPN)?;
        let endpoint = quinn::Endpoint::client(localhost())?;
        let connection = endpoint.connect_with(config, server, test_support::SERVER_NAME)?.await?;
        Ok(Self { connection, _endpoint: endpoint })
    }
}

impl Echo for BareQuinn {
    const NAME: &'static str = "bare quinn";

    async fn echo(&self, body: Bytes) -> Result<Bytes, Failure> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        send.write_chunk(body).await?;
        send.finish()?;
        Ok(recv.read_to_end(MAX_BODY_LEN_BYTES).await?.into())
    }
}

/// Over TCP, without encryption.
pub(crate) struct Tarpc {
    client: EchoServiceClient,
}

#[tarpc::service]
trait EchoService {
    async fn echo(body: Bytes) -> Bytes;
}

#[derive(Clone)]
struct EchoServer;

impl EchoService for EchoServer {
    async fn echo(self, _context: context::Context, body: Bytes) -> Bytes {
        body
    }
}

impl Tarpc {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let server: SocketAddr = serve(async |told| {
            let listener = TcpListener::bind(localhost()).await?;
            told.send(listener.local_addr()?)?;
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let framed = Framed::new(socket, LengthDelimitedCodec::new());
            let transport = tarpc::serde_transport::new(framed, Bincode::default());
            let calls = BaseChannel::with_defaults(transport).execute(EchoServer.serve());
            calls.for_each(async |call| drop(tokio::spawn(call))).await;
            Ok(())
        })?;
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let framed = Framed::new(socket, LengthDelimitedCodec::new());
        let transport = tarpc::serde_transport::new(framed, Bincode::default());
        Ok(Self { client: EchoServiceClient::new(tarpc::client::Config::default(), transport).spawn() })
    }
}

impl Echo for Tarpc {
    const NAME: &'static str = "tarpc over tcp";

    async fn echo(&self, body: Bytes) -> Result<Bytes, Failure> {
        Ok(self.client.echo(context::current(), body).await?)
    }
}

fn localhost() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

const ECHO: &str = "bench.echo";

/// tarpc's default, for both.
const BUDGET: Duration = Duration::from_secs(10);

const MAX_BODY_LEN_BYTES: usize = 1 << 20;

const ALPN: &[&[u8]] = &[b"bench"];

/// A transfer's default number of lanes, and its chunk.
const LANES: usize = shiplane_protocols::internals::transfer::DEFAULT_LANES;
const CHUNK_LEN_BYTES: usize = 1 << 20;
