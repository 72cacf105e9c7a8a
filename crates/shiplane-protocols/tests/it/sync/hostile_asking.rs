//! Lying callers of a sync: the server does only what its own list and memory permit.

use std::fs;

use shiplane_files::internals::sync::{Manifest, Node, Stamp};
use shiplane_protocols::internals::{
    OpenFilters,
    sync::{Step, SyncBody, SyncCompare, SyncDirection, SyncList, SyncRequest, SyncResponse},
    transfer::{MemoryBudget, TransferOptions},
};
use shiplane_rpc::{CallError, FaultCode, Method, RpcClient};
use shiplane_transport::ChunkSource;
use shiplane_wire::{RelPath, TaggedChunk, TransferId};
use tokio::time::Duration;

use super::{
    admitted,
    hostile_asked::{COMPARE, End, Half, OPEN, SETTLE, START, Settle, Start, Started, changes, listed, many},
    sync, write,
};
use crate::harness::{World, options, transfer_lane, tree};

const SYNC: [u8; 16] = [5; 16];

pub(super) async fn call<Req, Resp>(
    client: &RpcClient,
    method: Method<Req, Resp>,
    request: &Req,
) -> Result<Resp, FaultCode>
where
    Req: serde::Serialize,
    Resp: serde::de::DeserializeOwned,
{
    match client.call_typed(method, request, Duration::from_secs(10)).await {
        Ok(answer) => Ok(answer),
        Err(CallError::Fault(fault)) => Err(fault.code),
        Err(other) => panic!("{other}"),
    }
}

/// Begins a sync by `request`, and says that it has `list`; what the server says then.
pub(super) async fn compare(
    client: &RpcClient,
    request: &SyncRequest,
    list: &Manifest,
) -> Result<Step<SyncResponse>, FaultCode> {
    compare_since(client, request, &[], list).await
}

/// The same of one that remembers these bases.
async fn compare_since(
    client: &RpcClient,
    request: &SyncRequest,
    bases: &[[u8; 32]],
    list: &Manifest,
) -> Result<Step<SyncResponse>, FaultCode> {
    call(client, OPEN, request).await?;
    let list = SyncList { manifest_digest: *list.digest().as_bytes(), bases: bases.to_vec() };
    let compare = SyncCompare { sync: request.sync, list };
    loop {
        // On a busy machine the server may still be listing.
        match call(client, COMPARE, &compare).await {
            Ok(Step::Working) => {}
            compared => return compared,
        }
    }
}

pub(super) fn open() -> SyncRequest {
    SyncRequest {
        sync: SYNC,
        path: Vec::new(),
        list: None,
        dry_run: false,
        source: [8; 32],
        digest: 2,
        mode: None,
        filters: OpenFilters::default(),
        attributes: false,
        watch: None,
        direction: SyncDirection::Both,
    }
}

pub(super) fn start(changes: Vec<u8>) -> Start {
    let changes = SyncBody::Inline(changes);
    Start {
        sync: SYNC,
        up: [6; 16],
        down: [7; 16],
        mass_deletion: true,
        compression: 0,
        bytes_per_second: None,
        changes,
        base: None,
    }
}

/// A server with files that it has synced with an honest peer before.
async fn served() -> World {
    let world = World::syncing();
    for name in ["a", "b", "d/c"] {
        write(&world.source(), name, name.as_bytes());
    }
    sync(&world, &admitted(&world).await).await;
    world
}

/// Announces `announced` and then tells `told`.
async fn tells(world: &World, announced: &Manifest, told: Vec<u8>) -> Result<Started, FaultCode> {
    let client = admitted(world).await;
    let opened = compare(&client, &open(), announced).await?;
    assert!(matches!(opened, Step::Done(SyncResponse::Differs { .. })), "{opened:?}");
    call(&client, START, &start(told)).await
}

#[tokio::test]
async fn lists_that_lie_change_nothing() {
    let world = served().await;
    let innocent = listed("abcd/ef", b"x");
    for evil in ["../a/bc", "/etc/xx", "abcd/.."] {
        let mut told = changes(&innocent);
        let at = told.windows(7).position(|window| window == b"abcd/ef").unwrap();
        told[at..at + 7].copy_from_slice(evil.as_bytes());
        assert_eq!(tells(&world, &innocent, told).await, Err(FaultCode::InvalidRequest), "{evil}");
    }
    // What the caller's own filters exclude is refused as well.
    let excluded = listed("x.o", b"x");
    let client = admitted(&world).await;
    let filters = OpenFilters { patterns: vec!["*.o".to_owned()], ..OpenFilters::default() };
    compare(&client, &SyncRequest { filters, ..open() }, &excluded).await.unwrap();
    let refused = call(&client, START, &start(changes(&excluded))).await;
    assert_eq!(refused, Err(FaultCode::InvalidRequest));
    let own = listed(".shiplane-0123456789abcdef.journal", b"x");
    assert_eq!(tells(&world, &own, changes(&own)).await, Err(FaultCode::InvalidRequest));
    let other = tells(&world, &listed("f", b"1"), changes(&listed("f", b"2"))).await;
    assert_eq!(other, Err(FaultCode::Integrity));
    assert_eq!(tree(&world.source()), tree(&world.dest()));
}

#[tokio::test]
async fn a_peer_cannot_delete_files_without_a_common_base() {
    let world = served().await;
    // A stranger that says it has nothing, and that this was different once.
    let client = admitted(&world).await;
    let base = *listed("a", b"a").digest().as_bytes();
    let opened = compare_since(&client, &open(), &[base], &Manifest::new()).await.unwrap();
    assert!(matches!(opened, Step::Done(SyncResponse::Differs { base: None, .. })), "{opened:?}");
    let nothing = changes(&Manifest::new());
    assert!(matches!(call(&client, START, &start(nothing)).await, Ok(Started::Ready { .. })));
    call(&client, SETTLE, &Settle { sync: SYNC, end: End::Withdrawn }).await.unwrap_err();
    assert_eq!(tree(&world.source()), tree(&world.dest()));
}

#[tokio::test]
async fn a_mass_deletion_needs_the_callers_consent_at_the_server_too() {
    let world = World::syncing();
    let client = admitted(&world).await;
    for i in 0..10 {
        write(&world.dest(), &i.to_string(), &[i]);
    }
    let report = sync(&world, &client).await;
    let bases = [*report.digest.as_bytes()];
    let opened = compare_since(&client, &open(), &bases, &Manifest::new()).await.unwrap();
    assert!(matches!(opened, Step::Done(SyncResponse::Differs { base: Some(_), .. })), "{opened:?}");
    // All ten entries of the base are removed; nothing is unknown, nothing is changed.
    let mut told = 10_u32.to_le_bytes().to_vec();
    (0..10_u32).for_each(|entry| told.extend_from_slice(&entry.to_le_bytes()));
    told.extend_from_slice(&[0; 12]);
    told.extend_from_slice(&Manifest::new().encode());
    let refused = call(&client, START, &Start { mass_deletion: false, ..start(told) }).await;
    assert_eq!(refused, Err(FaultCode::InvalidRequest));
    assert_eq!(tree(&world.source()).len(), 10);
}

#[tokio::test]
async fn steps_out_of_order_and_ids_used_twice_are_refused() {
    let world = served().await;
    let client = admitted(&world).await;
    assert_eq!(call(&client, START, &start(Vec::new())).await, Err(FaultCode::Gone));
    let settle = Settle { sync: SYNC, end: End::Failed };
    assert_eq!(call(&client, SETTLE, &settle).await, Err(FaultCode::Gone));
    let (request, list) = (open(), listed("f", b"1"));
    let first = compare(&client, &request, &list).await.unwrap();
    assert_eq!(compare(&client, &request, &list).await.unwrap(), first, "asked again");
    let other = SyncRequest { dry_run: true, ..request.clone() };
    assert_eq!(call(&client, OPEN, &other).await, Err(FaultCode::InvalidRequest));
    // No other caller sees it, and none may begin there meanwhile.
    let stranger = admitted(&world).await;
    assert_eq!(call(&stranger, START, &start(Vec::new())).await, Err(FaultCode::Gone));
    let beside = SyncRequest { sync: [9; 16], ..request };
    assert_eq!(call(&stranger, OPEN, &beside).await, Err(FaultCode::Busy));
    call(&client, SETTLE, &Settle { sync: SYNC, end: End::Withdrawn }).await.unwrap_err();
    sync(&world, &admitted(&world).await).await;
}

#[tokio::test]
async fn a_peer_that_goes_silent_in_the_middle_delays_no_other() {
    let world = served().await;
    let client = admitted(&world).await;
    let theirs = listed("f", b"1");
    compare(&client, &open(), &theirs).await.unwrap();
    // It is about to provide `f` and to take the rest, and does neither.
    assert!(matches!(call(&client, START, &start(changes(&theirs))).await, Ok(Started::Ready { .. })));
    // The next one waits for the server to lose its patience.
    write(&world.dest(), "new", b"new");
    sync(&world, &admitted(&world).await).await;
}

/// A server with 3 MiB for the lists of its peers, of which one alone has two.
fn narrow() -> World {
    let memory = MemoryBudget::default().with_list_bytes(3 << 20);
    World::syncing_with(TransferOptions { memory: Some(memory), ..options() })
}

/// Begins a sync of the directory `path` with this list, of which nothing follows.
async fn begins(world: &World, path: &str, list: &Manifest) -> (RpcClient, Result<Started, FaultCode>) {
    let client = admitted(world).await;
    let request = SyncRequest { path: path.as_bytes().to_vec(), ..open() };
    let opened = compare(&client, &request, list).await.unwrap();
    assert!(matches!(opened, Step::Done(SyncResponse::Differs { .. })), "{opened:?}");
    loop {
        // On a busy machine the server may still be reading the list.
        match call(&client, START, &start(changes(list))).await {
            Ok(Started::Working) => {}
            started => return (client, started),
        }
    }
}

#[tokio::test]
async fn an_endless_list_is_refused_and_its_memory_given_back() {
    let world = narrow();
    for _ in 0..3 {
        let (_, endless) = begins(&world, "", &many(20_000)).await;
        assert_eq!(endless, Err(FaultCode::TooLarge));
    }
    let (_client, long) = begins(&world, "", &many(3500)).await;
    assert!(matches!(long, Ok(Started::Ready { .. })), "{long:?}");
}

#[tokio::test]
async fn lists_of_several_peers_share_their_memory_and_short_ones_always_have_some() {
    let world = narrow();
    let long = many(2500);
    let (first, started) = begins(&world, "1", &long).await;
    assert!(matches!(started, Ok(Started::Ready { .. })), "{started:?}");
    let (_second, started) = begins(&world, "2", &long).await;
    assert_eq!(started, Err(FaultCode::Busy));
    let (_third, started) = begins(&world, "3", &many(1000)).await;
    assert!(matches!(started, Ok(Started::Ready { .. })), "{started:?}");
    call(&first, SETTLE, &Settle { sync: SYNC, end: End::Withdrawn }).await.unwrap_err();
    // Its files are let go of a moment later.
    let begun = async { while begins(&world, "2", &long).await.1 == Err(FaultCode::Busy) {} };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the memory is given back");
}

#[tokio::test]
async fn a_list_beside_the_call_must_be_as_long_as_it_says() {
    let world = served().await;
    let client = admitted(&world).await;
    let theirs = listed("f", b"1");
    compare(&client, &open(), &theirs).await.unwrap();
    let len_bytes = changes(&theirs).len() as u64;
    let body = SyncBody::Lane { index: 1, len_bytes: len_bytes + 1 };
    let source = ChunkSource::Memory(changes(&theirs).into()).open().unwrap();
    let tag = TaggedChunk { transfer: TransferId::from_bytes(SYNC), index: 1 };
    let options = transfer_lane();
    let sending = client.connection().send_tagged_chunk(tag, source, &options);
    let request = Start { changes: body, ..start(Vec::new()) };
    let (sent, started) = tokio::join!(sending, call(&client, START, &request));
    assert!(sent.is_err());
    assert_eq!(started, Err(FaultCode::Gone));
    assert!(fs::read_dir(world.source()).unwrap().count() == 3);
}

#[tokio::test]
async fn a_sync_that_fails_counts_as_failed_however_late_and_once() {
    let (told, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let world = World::syncing_by(move |server, transport, stop| {
        server.on_failure(Box::new(move |job, error| told.send((job.job, error.to_string())).unwrap()));
        server.run(transport, stop)
    });
    // A directory: nothing is exchanged, and the outcome is settled at once.
    let mut theirs = Manifest::new();
    let stamp = Stamp { mode: 0o755, mtime: shiplane_wire::Mtime { secs: 1, nanos: 0 } };
    theirs.insert(RelPath::parse(b"d").unwrap(), Node::Directory(stamp));
    let left = |path: &[u8], nanos| (path.to_vec(), 0, String::new(), Some((0o644, 0, nanos)));
    for (words, is_late, lie) in [
        ("cancelled", false, None),
        ("connection", false, None),
        ("differ", true, Some(left(b"../d", 0))),
        ("differ", true, Some(left(b"d", 1_000_000_000))),
    ] {
        let _ = fs::remove_dir(world.source().join("d"));
        if !is_late {
            write(&world.source(), "f", b"1");
        } else {
            let _ = fs::remove_file(world.source().join("f"));
        }
        let client = admitted(&world).await;
        compare(&client, &open(), &theirs).await.unwrap();
        assert!(matches!(call(&client, START, &start(changes(&theirs))).await, Ok(Started::Ready { .. })));
        match words {
            "connection" => client.connection().close(shiplane_wire::Code::NoError),
            "cancelled" => {
                call(&client, SETTLE, &Settle { sync: SYNC, end: End::Withdrawn }).await.unwrap_err();
            }
            _ => {
                let end = End::Done(Half { unsettled: Some(lie.into_iter().collect()), left: 1 });
                let settled = call(&client, SETTLE, &Settle { sync: SYNC, end }).await;
                assert_eq!(settled, Err(FaultCode::Integrity));
            }
        }
        let (job, error) = failures.recv().await.unwrap();
        assert_eq!(job, shiplane_protocols::internals::ServedJob::Sync);
        assert!(error.contains(words), "{error}");
    }
    sync(&world, &admitted(&world).await).await;
    assert!(failures.try_recv().is_err(), "each counts once, and a success does not");
}
