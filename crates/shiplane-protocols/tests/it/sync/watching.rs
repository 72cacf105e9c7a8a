//! A server watches a dataset for a peer: within its rights, in bounds, and no longer than the connection.

use std::fs;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use shiplane_protocols::internals::{
    OpenFilters,
    sync::{Noticed, PeerWatch, Step},
};
use shiplane_rpc::{FaultCode, Method, RpcClient};
use shiplane_transport::PeerConnection;

use super::{admitted, code, write};
use crate::harness::{World, tree};

const WATCH: Method<Watch, Step<Watched>> = Method::new("sync.watch");

/// The number of changes, and a limit.
type Watched = (u64, Option<(u8, u64)>);

/// As SPEC 5.25 has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch {
    watch: [u8; 16],
    path: Vec<u8>,
    seen: Option<u64>,
    filters: OpenFilters,
}

async fn begin(client: &RpcClient, path: &str) -> (PeerWatch, Noticed) {
    PeerWatch::begin(client, path.as_bytes(), &Arc::default()).await.unwrap()
}

async fn refused(client: &RpcClient, path: &str) -> FaultCode {
    code(PeerWatch::begin(client, path.as_bytes(), &Arc::default()).await.unwrap_err())
}

#[tokio::test]
async fn a_change_is_noticed_by_every_peer_that_watches_and_one_that_was_seen_is_not_told_again() {
    let world = World::syncing();
    write(&world.source(), "d/f", b"1");
    let clients = [admitted(&world).await, admitted(&world).await];
    let (first, begun) = begin(&clients[0], "").await;
    let (below, begun_below) = begin(&clients[1], "d").await;
    assert_eq!(begun.unwatched, None);
    write(&world.source(), "d/f", b"2");
    let noticed = first.changed(begun.changes).await.unwrap();
    assert!(noticed.changes != begun.changes);
    assert!(below.changed(begun_below.changes).await.unwrap().changes != begun_below.changes);
    // What is known already is answered at once; all of it is seen in the end.
    let mut seen = first.changed(begun.changes).await.unwrap();
    fs::remove_dir_all(world.source().join("d")).unwrap();
    while !tree(&world.source()).is_empty() {
        seen = first.changed(seen.changes).await.unwrap();
    }
}

#[tokio::test]
async fn only_readable_paths_are_watched_and_only_their_changes_reported() {
    let world = World::syncing();
    write(&world.source(), "d/f", b"1");
    let elsewhere = world.admitted_by(world.ticket_to_write("other")).await;
    for path in ["", "d", "missing"] {
        assert_eq!(refused(&elsewhere, path).await, FaultCode::Unauthorised);
    }
    let client = admitted(&world).await;
    assert_eq!(refused(&client, "missing").await, FaultCode::NotFound);
    assert_eq!(refused(&client, "../x").await, FaultCode::PathRefused);
    std::os::unix::fs::symlink(world.outside(), world.source().join("out")).unwrap();
    assert_eq!(refused(&client, "out").await, FaultCode::NotFound, "it is no directory");
    assert_eq!(refused(&client, "out/below").await, FaultCode::PathRefused);
    // A server that takes no part in syncs.
    let read_only = World::new(|_| ());
    assert_eq!(refused(&read_only.admitted().await, "").await, FaultCode::ReadOnly);
}

#[tokio::test]
async fn watches_are_bounded_and_private_to_each_peer() {
    let world = World::syncing();
    let (client, other) = (admitted(&world).await, admitted(&world).await);
    let id = |id: u8| [id; 16];
    let ask = async |client: &RpcClient, watch, seen, path: &str| {
        let path = path.as_bytes().to_vec();
        let request = Watch { watch, path, seen, filters: OpenFilters::default() };
        match client.call_typed(WATCH, &request, std::time::Duration::from_secs(60)).await {
            Ok(_) => Ok(()),
            Err(shiplane_rpc::CallError::Fault(fault)) => Err(fault.code),
            Err(error) => panic!("{error}"),
        }
    };
    for watch in 0..8 {
        ask(&client, id(watch), None, "").await.unwrap();
    }
    assert_eq!(ask(&client, id(9), None, "").await, Err(FaultCode::Busy));
    assert_eq!(ask(&other, id(0), Some(7), "").await, Err(FaultCode::Gone), "it is another's");
    assert_eq!(ask(&client, id(0), Some(7), "else").await, Err(FaultCode::Gone), "and of another path");
    // They end with the connection: another one of the same peer may begin as many.
    let identity = world.identity();
    let first = world.admitted_as(identity.clone(), world.ticket_to_write("")).await;
    for watch in 0..8 {
        ask(&first, id(watch), None, "").await.unwrap();
    }
    let gone: Arc<PeerConnection> = Arc::clone(first.connection());
    gone.close(shiplane_wire::Code::Cancelled);
    drop(first);
    let again = world.admitted_as(identity, world.ticket_to_write("")).await;
    // The server may hear of the end a little later than of the beginning.
    while ask(&again, id(0), None, "").await == Err(FaultCode::Busy) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn callers_that_wait_for_changes_learn_of_a_shutdown() {
    let mut world = World::syncing();
    let client = admitted(&world).await;
    let (watch, begun) = begin(&client, "").await;
    let (waited, ()) = tokio::join!(watch.changed(begun.changes), world.shut_down());
    // Or the connection is closed by then.
    if let Err(shiplane_protocols::internals::sync::SyncError::Refused(shiplane_rpc::CallError::Fault(
        fault,
    ))) = waited
    {
        assert_eq!(fault.code, FaultCode::ShuttingDown);
    }
}

#[tokio::test]
async fn a_storm_of_changes_delays_no_caller() {
    let world = World::syncing();
    write(&world.source(), "f", b"0");
    let client = admitted(&world).await;
    let (watch, begun) = begin(&client, "").await;
    let (source, is_over) = (world.source(), Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&is_over);
    let storm = std::thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            write(&source, "f", b"1");
        }
    });
    let mut seen = begun.changes;
    for _ in 0..2000 {
        seen = watch.changed(seen).await.unwrap().changes;
    }
    is_over.store(true, Ordering::SeqCst);
    storm.join().unwrap();
}
