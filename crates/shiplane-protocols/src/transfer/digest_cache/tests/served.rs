//! A server whose files are fetched more than once.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use shiplane_files::internals::{Destination, ReceiveOptions, SourceRoot};
use shiplane_rpc::RpcClient;
use shiplane_transport::{Identity, PeerAddr, QuicTransport, Trust};
use shiplane_wire::{Digest, DigestAlgorithm, Durability, Piece};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::super::DigestCache;
use crate::{
    TransferMetrics,
    access::{AccessControl, Grant, Scope},
    fetch::{Fetch, FetchReport, FetchRequest, redeem},
    serve::FileServer,
    transfer::TransferOptions,
};

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
        let files = FileServer::new(root, access, options);
        tokio::spawn(files.run(Arc::clone(&server), CancellationToken::new()));
        let client = bind(Trust::nobody());
        let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
        let rpc = RpcClient::new(client.connect_to(addr).await.unwrap());
        redeem(&rpc, &ticket).await.unwrap();
        Self { dir, content, cache, metrics, client: rpc, _both: (server, client) }
    }

    fn dest(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fetches the file into a directory of its own, and compares it.
    async fn fetch_into(&self, name: &str, digest: DigestAlgorithm) -> FetchReport {
        let options =
            TransferOptions { digest, chunk_len_bytes: CHUNK_LEN_BYTES, ..TransferOptions::default() };
        let fetch = Fetch::open_with(&self.client, FetchRequest::of(b"file"), &options).await.unwrap();
        let receive = ReceiveOptions {
            overwrite: false,
            durability: Durability::Verified,
            verify: false,
            digest,
            chunk_len_bytes: CHUNK_LEN_BYTES,
        };
        fs::create_dir(self.dest(name)).unwrap();
        let target = Destination::open(&self.dest(name), fetch.shape(), fetch.job(), receive).unwrap();
        let report = fetch.receive(target, &options, Arc::new(|_| ())).await.unwrap();
        assert!(fs::read(self.dest(name).join("file")).unwrap() == self.content);
        report
    }

    /// How often the cache was asked or taught so far: each chunk asks for its digest, and teaches it once hashed.
    fn uses(&self) -> u64 {
        self.cache.lock().clock
    }

    fn cells(&self) -> Vec<Option<Digest>> {
        self.cache.lock().files.values().flat_map(|grid| grid.cells.clone()).collect()
    }
}

fn bind(trust: Trust) -> QuicTransport {
    let builder = QuicTransport::builder().identity(Identity::generate().unwrap()).trust(trust);
    builder.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

#[tokio::test]
async fn the_second_receiver_of_a_file_costs_the_source_no_hashing() {
    let served = Served::new().await;
    served.fetch_into("first", DigestAlgorithm::Blake3).await;
    assert_eq!(served.uses(), 2 * CHUNKS, "each chunk was asked for, and hashed");
    let cells = served.cells();
    assert!(cells.len() as u64 == CHUNKS && cells.iter().all(Option::is_some));

    served.fetch_into("second", DigestAlgorithm::Blake3).await;
    assert_eq!(served.uses(), 3 * CHUNKS, "each chunk was asked for, and none was hashed");
    assert_eq!(served.cells(), cells);
}

#[tokio::test]
async fn what_is_fetched_with_sha256_is_neither_looked_up_nor_kept() {
    let served = Served::new().await;
    served.fetch_into("first", DigestAlgorithm::Sha256).await;
    assert_eq!((served.uses(), served.cells().len()), (0, 0));
}

#[tokio::test]
async fn a_stale_digest_is_dropped_and_the_file_is_hashed_and_sent_again() {
    let served = Served::new().await;
    served.fetch_into("first", DigestAlgorithm::Blake3).await;
    let good = served.cells();
    // As after a change that left the file's times as they were.
    for grid in served.cache.lock().files.values_mut() {
        grid.cells.fill(Some(Digest::blake3(b"what was there before")));
    }
    let report = served.fetch_into("second", DigestAlgorithm::Blake3).await;
    assert_eq!(report.received_bytes, CHUNKS * CHUNK_LEN_BYTES, "what was refused does not count");
    assert_eq!(served.cells(), good, "no stale digest is left");
    let sent = served.metrics.snapshot().sent;
    assert_eq!((sent.completed, sent.failed), (2, 0), "no transfer has failed of it");
}
