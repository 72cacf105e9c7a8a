//! A peer restarts an abandoned sync without waiting for the server.

use std::sync::{Arc, Mutex};

use shiplane_protocols::internals::sync::{
    Step, SyncEvent, SyncEventFn, SyncRequest, SyncResponse, synchronise,
};
use shiplane_rpc::{Fault, FaultCode, Router, RpcClient};
use shiplane_transport::PeerAddr;
use tokio::sync::Notify;

use super::{
    admitted,
    hostile_asked::{COMPARE, OPEN, START, changes, listed},
    hostile_asking::{call, compare, open, start},
    job, silent, sync, write,
};
use crate::harness::{World, tree};
use crate::hostile::{PATIENT, transport};

#[tokio::test]
async fn the_same_key_takes_over_from_its_own_sync_of_the_same_two_and_from_no_other() {
    let world = World::syncing();
    write(&world.source(), "a", b"a");
    let same = async || world.admitted_as(world.identity(), world.ticket_to_write("")).await;
    let left = same().await;
    let theirs = listed("f", b"1");
    let first = open();
    compare(&left, &first, &theirs).await.unwrap();

    // The connection of the first is alive; only its sync was abandoned.
    let again = same().await;
    let other = SyncRequest { sync: [9; 16], source: [1; 32], ..first.clone() };
    assert_eq!(call(&again, OPEN, &other).await, Err(FaultCode::Busy), "another dataset of the same key");
    let stranger = admitted(&world).await;
    let beside = SyncRequest { sync: [10; 16], ..first.clone() };
    assert_eq!(call(&stranger, OPEN, &beside).await, Err(FaultCode::Busy), "another key");

    for id in 11..14 {
        let anew = SyncRequest { sync: [id; 16], ..first.clone() };
        let opened = compare(&again, &anew, &theirs).await.unwrap();
        assert!(matches!(opened, Step::Done(SyncResponse::Differs { .. })), "{opened:?}");
    }
    assert_eq!(call(&left, START, &start(changes(&theirs))).await, Err(FaultCode::Gone));
    assert_eq!(tree(&world.source()).len(), 3, "the file, and lock and journal of the one that goes on");
}

#[tokio::test]
async fn a_sync_that_was_dropped_in_the_middle_is_begun_anew_at_once() {
    let world = World::syncing();
    write(&world.source(), "a", b"a");
    write(&world.dest(), "b", b"b");
    let client = admitted(&world).await;
    let planned = Arc::new(Notify::new());
    let events: SyncEventFn = {
        let planned = Arc::clone(&planned);
        Arc::new(move |event| {
            if matches!(event, SyncEvent::Planned(_)) {
                planned.notify_one();
            }
        })
    };
    let job = job(&world);
    tokio::select! {
        biased;
        () = planned.notified() => {}
        done = synchronise(&client, &job, events) => panic!("not dropped: {done:?}"),
    }
    // By the same connection, so that nothing tells the server of it.
    synchronise(&client, &job, silent()).await.unwrap();
    assert_eq!(tree(&world.source()), tree(&world.dest()));
}

#[tokio::test]
async fn a_sync_that_was_left_holds_no_other_key_up_for_longer_than_a_silent_transfer() {
    let world = World::syncing();
    write(&world.source(), "a", b"a");
    let left = admitted(&world).await;
    call(&left, OPEN, &open()).await.unwrap();
    // Its connection lives, and it does not say a word.
    sync(&world, &admitted(&world).await).await;
    assert_eq!(call(&left, START, &start(Vec::new())).await, Err(FaultCode::Gone));
}

#[tokio::test]
async fn a_list_that_the_peer_has_not_waited_for_opens_another_sync() {
    let world = World::new(|_| ());
    write(&world.dest(), "a", b"a");
    let (server, client) = (transport(PATIENT), transport(PATIENT));
    let opened = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&opened);
    let gone = || Err(Fault::new(FaultCode::Gone, ""));
    let router = Router::new()
        .typed(OPEN, move |_context, request| {
            let mut opened = log.lock().unwrap();
            let is_first = opened.is_empty();
            opened.push(request.sync);
            async move {
                match request.list {
                    None => Ok(Step::Working),
                    Some(_) if is_first => gone(),
                    Some(_) => Ok(Step::Done(SyncResponse::Same)),
                }
            }
        })
        .typed(COMPARE, move |_context, _request| async move { gone() });
    let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
    let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
    tokio::spawn(Arc::new(router).serve(accepted.unwrap().1));
    let report = synchronise(&RpcClient::new(connected.unwrap()), &job(&world), silent()).await.unwrap();
    assert_eq!(report.files, 1);
    assert!(matches!(opened.lock().unwrap()[..], [first, second] if first != second));
}
