//! Lying callees of a sync: only correctly listed content is accepted.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shiplane_files::internals::{
    DestinationError, FilterRules, Filters,
    sync::{FileState, Manifest, Node, Stamp, UnresolvedReason},
};
use shiplane_protocols::internals::sync::{
    LeftPath, Step, SyncBody, SyncCompare, SyncError, SyncReport, SyncRequest, SyncResponse, synchronise,
};
use shiplane_protocols::internals::transfer::{MemoryBudget, TransferError, TransferOptions};
use shiplane_rpc::{Fault, FaultCode, Method, Router, RpcClient};
use shiplane_transport::{
    ChunkSource, PeerAddr, PeerConnection,
    internals::{BiStream, Claim, TransferStream},
};
use shiplane_wire::{
    Code, Digest, Mtime, ProviderRecord, ReceiverRecord, RecordReader, RelPath, TaggedChunk, TransferId,
};

use super::{job, silent, write};
use crate::harness::{PROGRESS_TIMEOUT, World, options, transfer_lane, tree};
use crate::hostile::{IMPATIENT, PATIENT, encode, file, transport};

/// The bodies as they travel, written down again: a change on the wire must fail here.
pub(super) const OPEN: Method<SyncRequest, Step<SyncResponse>> = Method::new("sync.open");
pub(super) const COMPARE: Method<SyncCompare, Step<SyncResponse>> = Method::new("sync.compare");
pub(super) const START: Method<Start, Started> = Method::new("sync.start");
const ALIVE: Method<[u8; 16], ()> = Method::new("sync.alive");
pub(super) const SETTLE: Method<Settle, Settled> = Method::new("sync.settle");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) sync: [u8; 16],
    pub(super) up: [u8; 16],
    pub(super) down: [u8; 16],
    pub(super) mass_deletion: bool,
    pub(super) compression: u32,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) changes: SyncBody,
    pub(super) base: Option<SyncBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Started {
    Working,
    Ready { merged: [u8; 32], compression: u32, bytes_per_second: Option<u64> },
}

/// Without compression or limit.
fn ready(merged: [u8; 32]) -> Started {
    Started::Ready { merged, compression: 0, bytes_per_second: None }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Settle {
    pub(super) sync: [u8; 16],
    pub(super) end: End,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum End {
    Done(Half),
    Failed,
    Withdrawn,
}

pub(super) type Unsettled = (Vec<u8>, u8, String, Option<(u32, i64, u32)>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Half {
    pub(super) unsettled: Option<Vec<Unsettled>>,
    pub(super) left: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Settled {
    Working,
    Done { half: Half, base: Option<[u8; 32]> },
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A list with this one file.
pub(super) fn listed(name: &str, content: &[u8]) -> Manifest {
    let state = FileState {
        size_bytes: content.len() as u64,
        digest: Digest::blake3(content),
        stamp: Stamp { mode: 0o644, mtime: Mtime { secs: 0, nanos: 0 } },
    };
    let mut manifest = Manifest::new();
    manifest.insert(path(name), Node::File(state));
    manifest
}

/// A list with this number of directories.
pub(super) fn many(directories: u32) -> Manifest {
    let mut manifest = Manifest::new();
    for number in 0..directories {
        manifest.insert(
            path(&format!("{number:08}")),
            Node::Directory(Stamp { mode: 0o755, mtime: Mtime { secs: 0, nanos: 0 } }),
        );
    }
    manifest
}

/// As it travels: nothing removed, nothing unknown, all of this changed.
pub(super) fn changes(manifest: &Manifest) -> Vec<u8> {
    [&[0; 16][..], &manifest.encode()].concat()
}

type Respond = Arc<dyn Fn(&Arc<PeerConnection>, [u8; 16]) -> SyncResponse + Send + Sync>;
type Begin = Arc<dyn Fn(&Arc<PeerConnection>, &Start) -> Started + Send + Sync>;
type AtEnd = Arc<dyn Fn(&Settle) -> Result<Settled, Fault> + Send + Sync>;

struct Liar {
    respond: Respond,
    begin: Begin,
    end: AtEnd,
    /// How often the victim has said that it is at work.
    signs: Arc<AtomicUsize>,
}

impl Liar {
    fn new(respond: impl Fn(&Arc<PeerConnection>, [u8; 16]) -> SyncResponse + Send + Sync + 'static) -> Self {
        Self {
            respond: Arc::new(respond),
            begin: Arc::new(|_, _| panic!("nobody begins with this liar")),
            end: Arc::new(|_| Err(Fault::new(FaultCode::Gone, ""))),
            signs: Arc::default(),
        }
    }

    fn listing(changes: Vec<u8>, digest: Digest) -> Self {
        Self::new(move |_, _| differs(digest, SyncBody::Inline(changes.clone())))
    }

    /// What becomes of a sync with it.
    async fn meets(self, world: &World) -> Result<SyncReport, SyncError> {
        self.meets_with(world, PATIENT).await
    }

    /// The same, with a victim that waits for `patience`.
    async fn meets_with(self, world: &World, patience: Duration) -> Result<SyncReport, SyncError> {
        self.meets_excluding(world, patience, &[]).await
    }

    /// The same, with a victim that excludes this.
    async fn meets_excluding(
        self,
        world: &World,
        patience: Duration,
        patterns: &[&str],
    ) -> Result<SyncReport, SyncError> {
        let (server, client) = (transport(patience), transport(patience));
        let Self { respond, begin, end, signs } = self;
        let at_once = Arc::clone(&respond);
        let router = Router::new()
            .typed(OPEN, move |context, request| {
                let response = request.list.map(|_| at_once(&context.connection, request.sync));
                async move { Ok(response.map_or(Step::Working, Step::Done)) }
            })
            .typed(COMPARE, move |context, request| {
                let response = respond(&context.connection, request.sync);
                async move { Ok(Step::Done(response)) }
            })
            .typed(START, move |context, request| {
                let started = begin(&context.connection, &request);
                async move { Ok(started) }
            })
            .typed(ALIVE, move |_context, _sync| {
                signs.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            })
            .typed(SETTLE, move |_context, request| {
                let settled = end(&request);
                async move { settled }
            });
        let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
        let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
        tokio::spawn(Arc::new(router).serve(accepted.unwrap().1));
        let rpc = RpcClient::new(connected.unwrap());
        let mut job = job(world);
        let patterns = patterns.iter().map(ToString::to_string).collect();
        job.filters = Filters::new(FilterRules { patterns, ..FilterRules::default() }).unwrap().into();
        job.transfer.memory = world.options.memory.clone();
        let limit = tokio::time::timeout(Duration::from_secs(60), synchronise(&rpc, &job, silent()));
        limit.await.expect("no liar holds a sync up for long")
    }
}

fn differs(digest: Digest, changes: SyncBody) -> SyncResponse {
    SyncResponse::Differs { base: None, manifest_digest: *digest.as_bytes(), changes }
}

/// A victim with one file.
fn victim() -> World {
    let world = World::new(|_| ());
    write(&world.dest(), "mine", b"precious");
    world
}

#[track_caller]
fn unharmed(world: &World) {
    assert_eq!(tree(&world.dest()).len(), 1);
    assert_eq!(fs::read(world.dest().join("mine")).unwrap(), b"precious");
    let names: Vec<_> =
        fs::read_dir(world.outside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| ["source", "dest", "state-here"].contains(&name.to_str().unwrap())));
}

#[tokio::test]
async fn names_that_lead_out_are_refused_with_the_list() {
    let world = victim();
    let innocent = listed("abcd/ef", b"x");
    for evil in ["../a/bc", "/etc/xx", "abcd/..", "./bc/ef", "abcd//f", "ab\0d/ef", "ab\nd/ef"] {
        let mut bytes = changes(&innocent);
        let at = bytes.windows(7).position(|window| window == b"abcd/ef").unwrap();
        bytes[at..at + 7].copy_from_slice(evil.as_bytes());
        let refused = Liar::listing(bytes, innocent.digest()).meets(&world).await.unwrap_err();
        assert!(matches!(refused, SyncError::Changes(_)), "{evil:?}: {refused}");
    }
    unharmed(&world);
}

#[tokio::test]
async fn our_own_files_may_not_even_be_named() {
    let world = victim();
    for own in [".shiplane-0123456789abcdef.journal", "d/.SHIPLANE-01234567-1.part"] {
        let manifest = listed(own, b"x");
        let refused = Liar::listing(changes(&manifest), manifest.digest()).meets(&world).await.unwrap_err();
        assert!(matches!(refused, SyncError::OwnName { .. }), "{refused}");
    }
    unharmed(&world);
}

#[tokio::test]
async fn a_peer_may_not_list_excluded_paths() {
    let world = victim();
    for excluded in ["x.o", "d/x.o"] {
        let manifest = listed(excluded, b"x");
        let liar = Liar::listing(changes(&manifest), manifest.digest());
        let refused = liar.meets_excluding(&world, PATIENT, &["*.o"]).await.unwrap_err();
        assert!(matches!(refused, SyncError::Excluded { .. }), "{refused}");
    }
    unharmed(&world);
}

#[tokio::test]
async fn a_list_with_another_digest_than_announced_is_refused() {
    let world = victim();
    let manifest = listed("f", b"x");
    let refused = Liar::listing(changes(&manifest), listed("f", b"y").digest()).meets(&world).await;
    assert!(matches!(refused.unwrap_err(), SyncError::WrongManifestDigest));
    let bytes = changes(&manifest);
    for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), &bytes[..3], &[0xff; 40]] {
        let refused = Liar::listing(wrong.to_vec(), manifest.digest()).meets(&world).await.unwrap_err();
        assert!(matches!(refused, SyncError::Changes(_)), "{refused}");
    }
    // A base that we never had.
    let foreign = Liar::new(move |_, _| SyncResponse::Differs {
        base: Some([9; 32]),
        manifest_digest: [8; 32],
        changes: SyncBody::Inline(changes(&manifest)),
    });
    assert!(matches!(foreign.meets(&world).await.unwrap_err(), SyncError::WrongManifestDigest));
    unharmed(&world);
}

#[tokio::test]
async fn lists_sent_as_chunks_are_bounded_and_time_out() {
    let world = victim();
    let lane = |index, len_bytes| differs(Digest::blake3(b""), SyncBody::Lane { index, len_bytes });
    let silent = Liar::new(move |_, _| lane(0, 100)).meets_with(&world, IMPATIENT).await.unwrap_err();
    assert!(matches!(silent, SyncError::Transfer(_)), "{silent}");
    for (announced, sent, index) in [(1 << 61, 100, 0), (99, 100, 0), (100, 100, 7)] {
        let liar = Liar::new(move |connection, sync| {
            let tag = TaggedChunk { transfer: TransferId::from_bytes(sync), index };
            let source = ChunkSource::Memory(Bytes::from(vec![0; sent])).open().unwrap();
            let connection = Arc::clone(connection);
            tokio::spawn(async move {
                let _ = connection.send_tagged_chunk(tag, source, &transfer_lane()).await;
            });
            lane(0, announced)
        });
        let refused = liar.meets(&world).await.unwrap_err();
        let is_refused = match &refused {
            SyncError::ListTooLarge { .. } => announced == 1 << 61,
            SyncError::NotReceived(_) | SyncError::Transfer(_) => announced < 1 << 61,
            _ => false,
        };
        assert!(is_refused, "{refused}");
    }
    unharmed(&world);
}

#[tokio::test]
async fn a_list_that_takes_more_than_the_memory_for_it_is_refused() {
    let memory = MemoryBudget::default().with_list_bytes(1 << 20);
    let world = World::with_options(TransferOptions { memory: Some(memory), ..options() }, |_| ());
    write(&world.dest(), "mine", b"precious");
    for (directories, is_refused) in [(5000, true), (1000, false), (5000, true)] {
        let many = many(directories);
        let begin: Begin = Arc::new(|_, _| ready([1; 32]));
        let liar = Liar { begin, ..Liar::listing(changes(&many), many.digest()) };
        let error = liar.meets(&world).await.unwrap_err();
        assert_eq!(matches!(error, SyncError::ListTooLarge { .. }), is_refused, "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_means_another_result_is_not_followed() {
    let world = victim();
    let manifest = listed("f", b"x");
    let bytes = changes(&manifest);
    let liar = Liar { begin: Arc::new(|_, _| ready([1; 32])), ..Liar::listing(bytes, manifest.digest()) };
    assert!(matches!(liar.meets(&world).await.unwrap_err(), SyncError::Disagreed));
    unharmed(&world);
}

#[tokio::test]
async fn a_peer_that_hears_nothing_else_gets_signs_of_life() {
    let world = victim();
    let manifest = listed("f", b"x");
    let liar = Liar::listing(changes(&manifest), manifest.digest());
    let signs = Arc::clone(&liar.signs);
    let begin: Begin = Arc::new(move |_, _| match signs.load(Ordering::SeqCst) {
        0 => Started::Working,
        _ => ready([1; 32]),
    });
    let patience = PROGRESS_TIMEOUT;
    let refused = Liar { begin, ..liar }.meets_with(&world, patience).await.unwrap_err();
    assert!(matches!(refused, SyncError::Disagreed), "{refused}");
}

/// Lists `f` with the content `right`. Asked for it, it sends an entry of that name and size, and then `content`. `confirms`:
/// whether it says at the end that this is what it has sent.
async fn sends(
    name: &'static str,
    entry_size_bytes: u64,
    content: &'static [u8],
    confirms: bool,
) -> (World, Result<SyncReport, SyncError>) {
    let world = World::new(|_| ());
    let manifest = listed("f", b"right");
    let merged = *manifest.digest().as_bytes();
    let begin: Begin = Arc::new(move |connection, start| {
        let (connection, down) = (Arc::clone(connection), TransferId::from_bytes(start.down));
        let claim = connection.claim(down).unwrap();
        tokio::spawn(provide(
            connection,
            claim,
            [file(name, entry_size_bytes), ProviderRecord::End { entries: 1, total_bytes: entry_size_bytes }],
            content,
            confirms,
        ));
        ready(merged)
    });
    // It agrees with whatever it is told.
    let end: AtEnd = Arc::new(|settle| match &settle.end {
        End::Done(_) => {
            let half = Half { unsettled: Some(Vec::new()), left: 0 };
            Ok(Settled::Done { half, base: Some(*Manifest::new().digest().as_bytes()) })
        }
        End::Failed | End::Withdrawn => Err(Fault::new(FaultCode::Gone, "")),
    });
    let liar = Liar { begin, end, ..Liar::listing(changes(&manifest), manifest.digest()) };
    let met = liar.meets(&world).await;
    (world, met)
}

async fn provide(
    connection: Arc<PeerConnection>,
    mut claim: Claim,
    records: [ProviderRecord; 2],
    content: &'static [u8],
    confirms: bool,
) {
    let Some(TransferStream::Records(BiStream { mut send, mut recv })) = claim.next().await else { return };
    for record in &records {
        let _ = send.write(encode(record)).await;
    }
    let mut wants = RecordReader::<ReceiverRecord>::new();
    while let Ok(Some(bytes)) = recv.read().await {
        wants.push(bytes);
        while let Some(want) = wants.poll().unwrap() {
            match want {
                ReceiverRecord::WantChunk { index, .. } => {
                    let source = ChunkSource::Memory(Bytes::from_static(content)).open().unwrap();
                    let tag = TaggedChunk { transfer: claim.transfer(), index };
                    let _ = connection.send_tagged_chunk(tag, source, &transfer_lane()).await;
                }
                ReceiverRecord::Done { .. } if confirms => return send.finish().unwrap(),
                ReceiverRecord::Done { .. } => return send.reset(Code::Integrity),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_differs_from_its_listing_does_not_get_its_name() {
    let (world, met) = sends("f", 5, b"wrong", true).await;
    let left = met.unwrap().left;
    let [LeftPath { path: at, why: UnresolvedReason::NotAsListed, .. }] = &left[..] else {
        panic!("{left:?}")
    };
    assert_eq!(*at, path("f"));
    assert_eq!(tree(&world.dest()).len(), 0);
    // The same liar tells the truth for once.
    let (world, met) = sends("f", 5, b"right", true).await;
    assert!(met.is_err(), "it says that it remembers something else");
    assert_eq!(fs::read(world.dest().join("f")).unwrap(), b"right");
}

#[tokio::test]
async fn a_transfer_that_its_provider_does_not_confirm_fails_the_sync() {
    let (world, met) = sends("f", 5, b"right", false).await;
    let refused = met.unwrap_err();
    assert!(matches!(refused, SyncError::Transfer(TransferError::TransferDigestMismatch)), "{refused}");
    assert_eq!(fs::read(world.dest().join("f")).unwrap(), b"right", "it is verified all the same");
}

#[tokio::test]
async fn entries_that_were_not_listed_are_refused() {
    for (name, size_bytes, content) in [("g", 5, &b"right"[..]), ("f", 6, b"right!"), ("f", 4, b"righ")] {
        let (world, met) = sends(name, size_bytes, content, true).await;
        let refused = met.unwrap_err();
        let is_refused = matches!(
            &refused,
            SyncError::Transfer(TransferError::Destination(DestinationError::NotRequested { .. }))
        );
        assert!(is_refused, "{refused}");
        assert_eq!(tree(&world.dest()).len(), 0);
    }
}
