//! A server whose files are fetched more than once: what its digest cache knows of them.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use shiplane_access::internals::{AccessControl, Grant, Scope};
use shiplane_files::internals::{Destination, DigestCache, LinkPolicy, ReceiveOptions, Scanned, SourceRoot};
use shiplane_protocols::{
    TransferMetrics,
    internals::{
        Fetch, FetchRequest, FileServer, redeem,
        transfer::{FilesReport, TransferOptions},
    },
};
use shiplane_rpc::RpcClient;
use shiplane_transport::{Identity, PeerAddr, QuicTransport, Trust};
use shiplane_wire::{Digest, DigestAlgorithm, Durability, Entry, Piece};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const CHUNKS: u64 = 10;

/// The shortest that a path may make them: so there are always as many.
const CHUNK_LEN_BYTES: u64 = Piece::CELL_LEN_BYTES;

/// One served file of ten chunks, and a client that may fetch it.
struct Served {
    dir: TempDir,
    content: Vec<u8>,
    cache: DigestCache,
    metrics: Arc<TransferMetrics>,
    client: RpcClient,
    _both: (Arc<QuicTransport>, QuicTransport),
}

impl Served {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let content: Vec<u8> = (0..CHUNKS * CHUNK_LEN_BYTES).map(|at| (at * 7 + at / 253) as u8).collect();
        fs::create_dir(dir.path().join("source")).unwrap();
        fs::write(dir.path().join("source/file"), &content).unwrap();
        let access = Arc::new(AccessControl::open(&dir.path().join("peers")));
        let grant = Grant::read_only(Scope::below(b"").unwrap());
        let ticket = access.tickets().issue(grant, Duration::from_secs(3600), Instant::now()).unwrap();
        let server = bind(AccessControl::trust(&access));
        let server = Arc::new(server);
        let (cache, metrics) = (DigestCache::default(), Arc::new(TransferMetrics::new()));
        let options = TransferOptions {
            digest_cache: Some(cache.clone()),
            metrics: Some(Arc::clone(&metrics)),
            ..TransferOptions::default()
        };
        let root = SourceRoot::open(&dir.path().join("source")).unwrap();
        let files = Arc::new(FileServer::new(root, access, options));
        tokio::spawn(files.run(Arc::clone(&server), CancellationToken::new()));
        let client = bind(Trust::none());
        let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
        let rpc = RpcClient::new(client.connect_to(addr).await.unwrap());
        redeem(&rpc, &ticket).await.unwrap();
        Self { dir, content, cache, metrics, client: rpc, _both: (server, client) }
    }

    fn dest(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fetches the file into a directory of its own, and compares it.
    async fn fetch_into(&self, name: &str, digest: DigestAlgorithm) -> FilesReport {
        let options =
            TransferOptions { digest, chunk_len_bytes: CHUNK_LEN_BYTES, ..TransferOptions::default() };
        let fetch = Fetch::open(&self.client, FetchRequest::of(b"file"), &options).await.unwrap();
        let receive = ReceiveOptions {
            existing: shiplane_files::internals::Existing::Refuse,
            durability: Durability::Verified,
            verify: false,
            links: LinkPolicy::All,
            attributes: false,
            digest,
            chunk_len_bytes: CHUNK_LEN_BYTES,
        };
        fs::create_dir(self.dest(name)).unwrap();
        let target = Destination::open(&self.dest(name), fetch.shape(), fetch.job(), receive).unwrap();
        let before = self.metrics.snapshot().sent.completed;
        let report = fetch.receive(target, &options, Arc::new(|_| ())).await.unwrap();
        // The server hears of it a little later.
        while self.metrics.snapshot().sent.completed == before {
            tokio::task::yield_now().await;
        }
        assert!(fs::read(self.dest(name).join("file")).unwrap() == self.content);
        report
    }

    /// Fetches it once more. Gives how often the cache was asked or taught by that: each chunk asks for its digest, and
    /// teaches it once hashed.
    async fn uses_of_fetch(&self, name: &str, digest: DigestAlgorithm) -> u64 {
        let before = self.cache.uses();
        self.fetch_into(name, digest).await;
        self.cache.uses() - before
    }

    /// The file as it is served, and its chunks.
    fn pieces(&self) -> (Entry, Vec<Piece>) {
        let source = SourceRoot::open(&self.dir.path().join("source")).unwrap().resolve(b"").unwrap();
        let file = source.scan().find_map(|scanned| match scanned.unwrap() {
            Scanned::Entry(entry) => Some(entry),
            Scanned::Top(_) | Scanned::LeftOut { .. } => None,
        });
        let entry = file.unwrap();
        let piece = |at| Piece::of_file(at * CHUNK_LEN_BYTES, CHUNK_LEN_BYTES, entry.size_bytes).unwrap();
        let pieces = (0..CHUNKS).map(piece).collect();
        (entry, pieces)
    }

    /// What the cache knows of the file.
    fn known(&self) -> Vec<Option<Digest>> {
        let (entry, pieces) = self.pieces();
        pieces.iter().map(|piece| self.cache.find(&entry, piece)).collect()
    }
}

fn bind(trust: Trust) -> QuicTransport {
    let builder = QuicTransport::builder().identity(Identity::generate().unwrap()).trust(trust);
    builder.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

#[tokio::test]
async fn the_second_receiver_of_a_file_costs_the_source_no_hashing() {
    let served = Served::new().await;
    let uses = served.uses_of_fetch("first", DigestAlgorithm::Blake3).await;
    assert_eq!(uses, 2 * CHUNKS, "each chunk was asked for, and hashed");
    let known = served.known();
    assert!(known.iter().all(Option::is_some));

    let uses = served.uses_of_fetch("second", DigestAlgorithm::Blake3).await;
    assert_eq!(uses, CHUNKS, "each chunk was asked for, and none was hashed");
    assert_eq!(served.known(), known);
}

#[tokio::test]
async fn a_fetch_with_sha256_does_not_use_the_digest_cache() {
    let served = Served::new().await;
    assert_eq!(served.uses_of_fetch("first", DigestAlgorithm::Sha256).await, 0);
    assert!(served.known().iter().all(Option::is_none));
}

#[tokio::test]
async fn a_stale_digest_is_dropped_and_the_file_is_hashed_and_sent_again() {
    let served = Served::new().await;
    served.fetch_into("first", DigestAlgorithm::Blake3).await;
    let good = served.known();
    // As after a change that left the file's times as they were.
    let (entry, pieces) = served.pieces();
    for piece in &pieces {
        served.cache.learn(&entry, piece, &[Digest::blake3(b"what was there before")]);
    }
    let report = served.fetch_into("second", DigestAlgorithm::Blake3).await;
    assert_eq!(report.received_bytes, CHUNKS * CHUNK_LEN_BYTES, "what was refused does not count");
    assert_eq!(served.known(), good, "no stale digest is left");
    let sent = served.metrics.snapshot().sent;
    assert_eq!((sent.completed, sent.failed), (2, 0), "no transfer has failed of it");
}
