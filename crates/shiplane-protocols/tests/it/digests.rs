//! The negotiated digest of fetch, push and sync.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use shiplane_files::internals::{
    Source, SourceRoot,
    sync::{Consent, Manifest, SyncState},
};
use shiplane_protocols::internals::{
    Fetch, FetchError, FetchRequest, OpenFilters, Push, PushError, PushRequest,
    sync::{Step, SyncDirection, SyncJob, SyncList, SyncRequest, SyncResponse, synchronise},
    transfer::{EventFn, FilesReport, ProtocolFault, TransferError, TransferEvent, TransferOptions},
};
use shiplane_rpc::{CallError, FaultCode, Method, Router, RpcClient};
use shiplane_transport::{PeerAddr, PeerId, QuicTransport};
use shiplane_wire::{Digest, DigestAlgorithm, Durability};

use crate::{
    harness::{World, noise, options, tree},
    hostile::RawFilters,
    hostile::{FETCH_OPEN, FetchOpen, FetchOpened, PATIENT, TransferShape, transport},
    push::{
        self,
        names::{RawOpened, RawShape, open, raw},
    },
};

const SYNC_OPEN: Method<SyncRequest, Step<SyncResponse>> = Method::new("sync.open");
const PUSH_OPEN: Method<push::names::RawOpen, RawOpened> = Method::new("push.open");
const WAIT: Duration = Duration::from_secs(10);

/// None, and bits that stand for nothing.
const NO_COMMON_DIGEST: [u8; 2] = [0, 0xfc];

/// What a caller that offers SHA-256 alone is answered by a peer that did not listen.
const UNOFFERED: [u8; 4] = [0, 2, 3, 4];

#[track_caller]
fn assert_invalid<T: std::fmt::Debug>(answer: Result<T, CallError>) {
    match answer {
        Err(CallError::Fault(fault)) => assert_eq!(fault.code, FaultCode::InvalidRequest),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_fetch_without_a_common_digest_is_refused() {
    let world = World::new(|source| fs::write(source.join("x"), b"hello").unwrap());
    let client = world.admitted().await;
    let request = |digests| FetchOpen {
        transfer: [9; 16],
        path: Vec::new(),
        compression: 0,
        bytes_per_second: None,
        digests,
        filters: RawFilters::default(),
        invites: false,
        attributes: false,
    };
    for digests in NO_COMMON_DIGEST {
        assert_invalid(client.call_typed(FETCH_OPEN, &request(digests), WAIT).await);
    }
    // Bits that stand for nothing do no harm, and the refused id is not taken.
    let opened = client.call_typed(FETCH_OPEN, &request(0xff), WAIT).await.unwrap();
    assert_eq!(opened.digest, 2);
}

#[tokio::test]
async fn a_push_without_a_common_digest_is_refused_and_makes_nothing() {
    let world = World::writable_with(options());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let shape = RawShape::File { name: b"x".to_vec() };
    let offer = raw(9, b"new/directory", shape);
    for digests in NO_COMMON_DIGEST {
        assert_invalid(open(&client, &push::names::RawOpen { digests, ..offer.clone() }).await);
    }
    assert!(tree(&world.source()).is_empty());
    let opened = open(&client, &push::names::RawOpen { digests: 0xff, ..offer }).await.unwrap();
    assert!(matches!(opened, RawOpened::Ready { digest: 2, invites: true, .. }), "{opened:?}");
}

#[tokio::test]
async fn a_sync_without_a_common_digest_is_refused() {
    let world = World::syncing();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let request = |digest| SyncRequest {
        sync: [9; 16],
        path: Vec::new(),
        list: Some(SyncList { manifest_digest: *Manifest::new().digest().as_bytes(), bases: Vec::new() }),
        dry_run: false,
        source: [8; 32],
        digest,
        mode: None,
        filters: OpenFilters::default(),
        attributes: false,
        watch: None,
        direction: SyncDirection::Both,
    };
    for digest in NO_COMMON_DIGEST {
        assert_invalid(client.call_typed(SYNC_OPEN, &request(digest), WAIT).await);
    }
    let opened = client.call_typed(SYNC_OPEN, &request(2), WAIT).await.unwrap();
    assert_eq!(opened, Step::Done(SyncResponse::Same), "both are empty");
}

/// A connection to a peer that answers `fetch.open` and `push.open` with this digest, whatever was offered.
async fn deaf(digest: u8) -> (RpcClient, [Arc<QuicTransport>; 2]) {
    let (server, client) = (transport(PATIENT), transport(PATIENT));
    let router = Router::new()
        .typed(FETCH_OPEN, move |_context, request| async move {
            assert_eq!(request.digests, 1, "SHA-256 alone");
            Ok(FetchOpened { shape: TransferShape::Contents, digest })
        })
        .typed(PUSH_OPEN, move |_context, request| async move {
            assert_eq!(request.digests, 1, "SHA-256 alone");
            Ok(RawOpened::Ready { compression: 0, bytes_per_second: None, digest, invites: false })
        });
    let loopback: SocketAddr = server.local_addr().unwrap();
    let addr = PeerAddr { id: server.peer_id(), addr: loopback };
    let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
    tokio::spawn(Arc::new(router).serve(accepted.unwrap().1));
    (RpcClient::new(connected.unwrap()), [server, client])
}

fn sha256() -> TransferOptions {
    TransferOptions { digest: DigestAlgorithm::Sha256, ..options() }
}

#[tokio::test]
async fn a_digest_that_was_not_offered_is_not_taken() {
    for digest in UNOFFERED {
        let (client, _both) = deaf(digest).await;
        let expected = ProtocolFault::UnofferedDigest { bits: digest };
        let fetch = Fetch::open(&client, FetchRequest::of(b"x"), &sha256()).await;
        match fetch.err() {
            Some(FetchError::Transfer(TransferError::Protocol(fault))) => assert_eq!(fault, expected),
            other => panic!("{digest}: {other:?}"),
        }
        let source = push::file("x", b"content");
        let push = Push::open(&client, source, &push::request(""), &sha256()).await;
        match push.err() {
            Some(PushError::Transfer(TransferError::Protocol(fault))) => assert_eq!(fault, expected),
            other => panic!("{digest}: {other:?}"),
        }
    }
}

/// What the client asks for; the server has both.
fn ask_for(world: &mut World, digest: DigestAlgorithm) {
    world.options.digest = digest;
    world.receive.digest = digest;
}

const LARGE_LEN_BYTES: usize = 2_000_000;

/// One file of many chunks, small ones that share a chunk, and an empty one.
fn fill(at: &std::path::Path) {
    fs::write(at.join("large"), noise(7, LARGE_LEN_BYTES)).unwrap();
    fs::write(at.join("empty"), b"").unwrap();
    for i in 0..20 {
        fs::write(at.join(format!("small-{i}")), noise(i, 100 * i as usize)).unwrap();
    }
}

#[tokio::test]
async fn a_fetch_with_sha256_arrives_whole_and_says_so() {
    let mut world = World::new(fill);
    ask_for(&mut world, DigestAlgorithm::Sha256);
    let client = world.admitted().await;
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!(report.digest_algorithm, DigestAlgorithm::Sha256);
    assert_eq!(tree(&world.dest()), tree(&world.source()));
    fs::remove_file(world.dest().join("small-9")).unwrap();
    let report = world.fetch(&client, "small-9").await.unwrap();
    assert_eq!(report.digest, Some(Digest::sha256(&noise(9, 900))));
}

#[tokio::test]
async fn a_server_that_has_sha256_alone_is_fetched_from_with_it() {
    let mut world = World::with_options(sha256(), fill);
    world.options.digest = DigestAlgorithm::Blake3;
    let client = world.admitted().await;
    let fetch = Fetch::open(&client, FetchRequest::of(b""), &world.options).await.unwrap();
    assert_eq!(fetch.digest(), DigestAlgorithm::Sha256);
    world.receive.digest = fetch.digest();
    let target = world.destination(&fetch).unwrap();
    fetch.receive(target, &world.options, Arc::new(|_| ())).await.unwrap();
    assert_eq!(tree(&world.dest()), tree(&world.source()));
}

#[tokio::test]
async fn a_sync_with_sha256_brings_both_sides_together() {
    let world = World::syncing();
    fs::write(world.source().join("theirs"), noise(1, 300_000)).unwrap();
    fs::write(world.dest().join("mine"), noise(2, 300_000)).unwrap();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let job = |transfer| SyncJob {
        directory: world.dest(),
        remote_path: Vec::new(),
        state: SyncState::at(world.outside().join("state-here")),
        own: PeerId::from_bytes([7; 32]),
        root: None,
        only_to: None,
        consent: Consent::default(),
        filters: Arc::default(),
        attributes: false,
        dry_run: false,
        relisting: None,
        peer_watch: None,
        transfer,
    };
    let first = synchronise(&client, &job(sha256()), Arc::new(|_| ())).await.unwrap();
    assert_eq!((first.sent_bytes, first.received_bytes), (300_000, 300_000));
    assert_eq!(tree(&world.source()), tree(&world.dest()));
    // A deletion travels only if both remember the last sync.
    fs::remove_file(world.dest().join("mine")).unwrap();
    synchronise(&client, &job(sha256()), Arc::new(|_| ())).await.unwrap();
    assert!(!world.source().join("mine").exists());
    // With the other digest they have not met yet; equal content is found to be equal.
    let other = synchronise(&client, &job(options()), Arc::new(|_| ())).await.unwrap();
    assert_eq!((other.sent_bytes, other.received_bytes), (0, 0));
    assert_eq!(tree(&world.source()), tree(&world.dest()));
}

/// Calls once this number of bytes has been transferred.
fn after(bytes: u64) -> (EventFn, tokio::sync::oneshot::Receiver<()>) {
    let (tell, reached) = tokio::sync::oneshot::channel();
    let state = std::sync::Mutex::new((0, Some(tell)));
    let events: EventFn = Arc::new(move |event| {
        if let TransferEvent::Moved { len_bytes } = event {
            let mut state = state.lock().unwrap();
            state.0 += len_bytes;
            if state.0 > bytes
                && let Some(tell) = state.1.take()
            {
                tell.send(()).unwrap();
            }
        }
    });
    (events, reached)
}

const HALF: u64 = LARGE_LEN_BYTES as u64 / 2;

async fn cut_fetch(world: &World, client: &RpcClient) {
    let (events, reached) = after(HALF);
    tokio::select! {
        result = world.fetch_watched(client, "large", events) => panic!("not cut: {result:?}"),
        _ = reached => {}
    }
}

async fn fetch_again(world: &World, client: &RpcClient) -> FilesReport {
    loop {
        // The first run's threads may hold the journal a moment longer.
        match world.fetch(client, "large").await {
            Err(FetchError::Transfer(TransferError::Destination(
                shiplane_files::internals::DestinationError::Busy { .. },
            ))) => tokio::task::yield_now().await,
            other => return other.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_fetch_resumes_with_its_digest_and_begins_anew_with_the_other() {
    use DigestAlgorithm::{Blake3, Sha256};
    for (first, second) in [(Sha256, Sha256), (Sha256, Blake3), (Blake3, Sha256)] {
        let mut world =
            World::new(|source| fs::write(source.join("large"), noise(7, LARGE_LEN_BYTES)).unwrap());
        let client = world.admitted().await;
        ask_for(&mut world, first);
        cut_fetch(&world, &client).await;
        ask_for(&mut world, second);
        let report = fetch_again(&world, &client).await;
        assert_eq!(report.digest_algorithm, second);
        assert_eq!(report.summary.resumed_bytes > 0, first == second, "{first:?} {second:?} {report:?}");
        assert_eq!(report.received_bytes + report.summary.resumed_bytes, LARGE_LEN_BYTES as u64);
        assert_eq!(tree(&world.dest()), tree(&world.source()), "no journal, no temporary file");
    }
}

fn pushed(world: &World) -> Source {
    SourceRoot::open(&world.dest()).unwrap().resolve(b"").unwrap()
}

fn push_request() -> PushRequest {
    PushRequest { name: Some("tree".into()), durability: Durability::Durable, ..push::request("") }
}

#[tokio::test]
async fn a_push_resumes_with_its_digest_and_begins_anew_with_the_other() {
    use DigestAlgorithm::{Blake3, Sha256};
    for (first, second) in [(Sha256, Sha256), (Sha256, Blake3), (Blake3, Sha256)] {
        let mut world = World::writable_with(options());
        fs::write(world.dest().join("large"), noise(7, LARGE_LEN_BYTES)).unwrap();
        let client = world.admitted_by(world.ticket_to_write("")).await;
        ask_for(&mut world, first);
        let (events, reached) = after(HALF);
        let opened = Push::open(&client, pushed(&world), &push_request(), &world.options).await.unwrap();
        tokio::select! {
            result = opened.send(&world.options, events) => panic!("not cut: {result:?}"),
            _ = reached => {}
        }
        ask_for(&mut world, second);
        // What the first run held is taken over.
        let report = push::push(&world, &client, pushed(&world), &push_request()).await.unwrap();
        assert_eq!(report.summary.resumed_bytes > 0, first == second, "{first:?} {second:?} {report:?}");
        assert_eq!(report.sent_bytes + report.summary.resumed_bytes, LARGE_LEN_BYTES as u64);
        assert_eq!(tree(&world.source().join("tree")), tree(&world.dest()));
        assert_eq!(tree(&world.source()).len(), 2, "no journal, no temporary file");
    }
}
