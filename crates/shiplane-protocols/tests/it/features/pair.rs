//! Two peers that trust each other, with a lossy relay between them.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shiplane_protocols::{Deliveries, Inbox, InboxOptions};
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{
    ChunkSource, Identity, PeerAddr, PeerConnection, QuicTransport, TransportConfig, Trust,
    internals::LaneThreads,
};
use tokio::net::UdpSocket;

/// Alice dials, Bob accepts.
pub(crate) struct Pair {
    pub(crate) alice: Arc<QuicTransport>,
    pub(crate) bob: Arc<QuicTransport>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(TransportConfig::default())
    }

    pub(crate) fn with(config: TransportConfig) -> Self {
        let (alice, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (alice_id, bob_id) = (alice.peer_id(), bob.peer_id());
        let bind = |identity, trusted| {
            let builder = QuicTransport::builder().identity(identity).trust(Trust::only([trusted]));
            Arc::new(builder.config(config.clone()).bind(localhost()).unwrap())
        };
        Self { alice: bind(alice, bob_id), bob: bind(bob, alice_id) }
    }

    pub(crate) fn bob_addr(&self) -> PeerAddr {
        PeerAddr { id: self.bob.peer_id(), addr: self.bob.local_addr().unwrap() }
    }

    /// Bob, as he is reached through `relay`.
    pub(crate) fn bob_behind(&self, relay: &Relay) -> PeerAddr {
        PeerAddr { id: self.bob.peer_id(), addr: relay.addr }
    }

    /// Both ends of a connection.
    pub(crate) async fn connect(&self) -> (Arc<PeerConnection>, Arc<PeerConnection>) {
        let (dialled, accepted) = tokio::join!(self.alice.connect_to(self.bob_addr()), self.bob.accept());
        (dialled.unwrap(), accepted.unwrap().1)
    }

    /// Alice's client; Bob serves `router` on every connection.
    pub(crate) async fn serving(&self, router: Router) -> RpcClient {
        self.bob_serves(router);
        RpcClient::new(self.alice.connect_to(self.bob_addr()).await.unwrap())
    }

    /// How many connections Bob has accepted so far.
    pub(crate) fn bob_serves(&self, router: Router) -> Arc<AtomicUsize> {
        let (bob, router) = (Arc::clone(&self.bob), Arc::new(router));
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((_addr, connection)) = bob.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&router).serve(connection));
            }
        });
        accepted
    }

    /// Bob has an inbox.
    pub(crate) fn bob_takes(&self, options: InboxOptions) -> (Deliveries, Arc<AtomicUsize>) {
        let (inbox, deliveries) = Inbox::new(options);
        (deliveries, self.bob_serves(inbox.methods(Router::new())))
    }
}

/// Forwards datagrams until it is set to drop them.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    lose: Arc<Lose>,
}

/// Which way the relay loses everything.
#[derive(Default)]
pub(crate) struct Lose {
    to_alice: AtomicBool,
    to_bob: AtomicBool,
}

impl Lose {
    pub(crate) fn to_alice(&self, lose: bool) {
        self.to_alice.store(lose, Ordering::SeqCst);
    }

    pub(crate) fn to_bob(&self, lose: bool) {
        self.to_bob.store(lose, Ordering::SeqCst);
    }
}

impl Relay {
    /// Between a writer and `bob`.
    pub(crate) async fn to(bob: PeerAddr) -> Self {
        let front = UdpSocket::bind(localhost()).await.unwrap();
        let back = UdpSocket::bind(localhost()).await.unwrap();
        back.connect(bob.addr).await.unwrap();
        let (addr, lose) = (front.local_addr().unwrap(), Arc::new(Lose::default()));
        let losing = Arc::clone(&lose);
        tokio::spawn(async move {
            let (mut forth, mut home) = (vec![0; 65_536], vec![0; 65_536]);
            let mut alice = None;
            loop {
                tokio::select! {
                    got = front.recv_from(&mut forth) => if let Ok((len, from)) = got {
                        alice = Some(from);
                        if !losing.to_bob.load(Ordering::SeqCst) {
                            let _ = back.send(&forth[..len]).await;
                        }
                    },
                    got = back.recv(&mut home) => if let (Ok(len), Some(alice)) = (got, alice)
                        && !losing.to_alice.load(Ordering::SeqCst)
                    {
                        let _ = front.send_to(&home[..len], alice).await;
                    },
                }
            }
        });
        Self { addr, lose }
    }

    pub(crate) fn lose(&self) -> Arc<Lose> {
        Arc::clone(&self.lose)
    }
}

/// Deadlines short enough to wait for.
pub(crate) fn impatient() -> TransportConfig {
    TransportConfig::default()
        .lane_threads(LaneThreads::Ordinary)
        // They keep short deadlines on a busy machine too.
        .handshake_timeout(Duration::from_millis(300))
        .progress_timeout(Duration::from_millis(300))
}

pub(crate) fn memory(data: impl Into<Bytes>) -> ChunkSource {
    ChunkSource::Memory(data.into())
}

/// Files of these contents, named by their number.
pub(crate) fn files(dir: &tempfile::TempDir, contents: &[Vec<u8>]) -> Vec<PathBuf> {
    let write = |(number, content): (usize, &Vec<u8>)| {
        let path = dir.path().join(format!("{number}.dat"));
        std::fs::write(&path, content).unwrap();
        path
    };
    contents.iter().enumerate().map(write).collect()
}

/// Waits until `is_so`, giving the others their turn.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(AMPLE, waiting).await.expect("it has not come about");
}

fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Far more than any story takes.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);
