//! A push that was cut goes on where it was.

use std::{fs, sync::Mutex};

use shiplane_protocols::{PushError, PushReport, PushRequest, transfer::TransferEvent};
use shiplane_rpc::RpcClient;

use super::{file, limits, named, push, push_watched, request, source};
use crate::harness::{World, noise, tree};

/// Pushes until so many bytes have moved, and lets go.
async fn cut(world: &World, client: &RpcClient, request: &PushRequest, after_bytes: u64) {
    let (half, reached) = tokio::sync::oneshot::channel();
    let half = Mutex::new((0, Some(half)));
    let events = std::sync::Arc::new(move |event| {
        if let TransferEvent::Moved { len_bytes } = event {
            let mut half = half.lock().unwrap();
            half.0 += len_bytes;
            if half.0 > after_bytes
                && let Some(tell) = half.1.take()
            {
                tell.send(()).unwrap();
            }
        }
    });
    let source = source(&world.dest());
    tokio::select! {
        result = push_watched(world, client, source, request, events) => panic!("not cut: {result:?}"),
        _ = reached => {}
    }
}

/// The server may hold what the first run held a moment longer.
async fn again(world: &World, client: &RpcClient, request: &PushRequest) -> PushReport {
    loop {
        match push(world, client, source(&world.dest()), request).await {
            Err(error) if error.is_busy() => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_push_that_was_cut_is_resumed() {
    let world = World::writable(limits());
    fs::write(world.dest().join("large"), noise(7, 4_000_000)).unwrap();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let request = PushRequest { total_bytes: Some(4_000_000), ..named("deep/in", "tree") };
    cut(&world, &client, &request, 2_000_000).await;
    assert!(!world.source().join("deep/in/tree/large").exists(), "nothing under the final name");

    let report = again(&world, &client, &request).await;
    assert_eq!(tree(&world.source().join("deep/in/tree")), tree(&world.dest()));
    let in_flight = world.options.lanes as u64 * world.options.chunk_len_bytes;
    assert!(report.sent_bytes <= 2_000_000 + 2 * in_flight, "{report:?}");
    assert!(report.resumed_bytes > 0, "{report:?}");
    assert_eq!(report.sent_bytes + report.resumed_bytes, 4_000_000);
    assert_eq!(tree(&world.source()).len(), 4, "no journal, no temporary file");
}

#[tokio::test]
async fn another_peer_or_another_source_does_not_take_over_what_was_kept() {
    let world = World::writable(limits());
    fs::write(world.dest().join("large"), noise(7, 1_000_000)).unwrap();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    cut(&world, &client, &named("", "tree"), 500_000).await;
    let other_source = PushRequest { source_name: b"other".to_vec(), ..named("", "tree") };
    let report = again(&world, &client, &other_source).await;
    assert_eq!((report.sent_bytes, report.resumed_bytes), (1_000_000, 0));
}

#[tokio::test]
async fn a_source_that_is_not_there_any_more_is_an_error_and_the_rest_arrives() {
    let world = World::writable(limits());
    fs::write(world.dest().join("stays"), b"stays").unwrap();
    fs::write(world.dest().join("goes"), noise(1, 200_000)).unwrap();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let goes = world.dest().join("goes");
    let opened =
        shiplane_protocols::Push::open(&client, source(&world.dest()), &named("", "t")).await.unwrap();
    let events = std::sync::Arc::new(move |event| {
        // The list is complete, and not a byte has been asked for yet.
        if matches!(event, TransferEvent::ScanComplete { .. }) {
            fs::remove_file(&goes).unwrap();
        }
    });
    let error = opened.send(&world.options, events).await.unwrap_err();
    let PushError::Transfer(shiplane_protocols::transfer::TransferError::Incomplete { failed, count }) =
        error
    else {
        panic!("{error:?}")
    };
    assert_eq!((failed.len(), count, failed[0].path.as_str()), (1, 1, "goes"));
    assert_eq!(fs::read(world.source().join("t/stays")).unwrap(), b"stays");
    assert!(!world.source().join("t/goes").exists());
}

#[tokio::test]
async fn what_came_through_a_pipe_has_the_mode_of_a_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    push(&world, &client, file("x", b"content"), &request("")).await.unwrap();
    fs::write(world.source().join("y"), b"").unwrap();
    let mode = |name| fs::metadata(world.source().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("x"), mode("y"));
}
