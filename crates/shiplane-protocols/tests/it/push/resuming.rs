//! Resumed pushes.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use shiplane_protocols::internals::{
    Push, PushRequest, WriteLimits,
    transfer::{FilesReport, TransferEvent, TransferOptions},
};
use shiplane_rpc::RpcClient;
use shiplane_transport::Identity;
use tokio::sync::oneshot;

use super::{file, limits, named, push, push_watched, request, source};
use crate::harness::{World, noise, tree};

/// Pushes until this number of bytes has been transferred, then drops the push.
async fn cut(world: &World, client: &RpcClient, request: &PushRequest, after_bytes: u64) {
    let (half, reached) = oneshot::channel();
    let half = Mutex::new((0, Some(half)));
    let events = Arc::new(move |event| {
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

/// What the first run held is taken over.
async fn again(world: &World, client: &RpcClient, request: &PushRequest) -> FilesReport {
    push(world, client, source(&world.dest()), request).await.unwrap()
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
    assert!(report.summary.resumed_bytes > 0, "{report:?}");
    assert_eq!(report.sent_bytes + report.summary.resumed_bytes, 4_000_000);
    assert_eq!(tree(&world.source()).len(), 4, "no journal, no temporary file");
}

#[tokio::test]
async fn another_peer_or_another_source_does_not_resume_kept_chunks() {
    let world = World::writable(limits());
    fs::write(world.dest().join("large"), noise(7, 1_000_000)).unwrap();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    cut(&world, &client, &named("", "tree"), 500_000).await;
    let other_source = PushRequest { source_name: b"other".to_vec(), ..named("", "tree") };
    let report = loop {
        // The server may hold what the first run held a moment longer.
        match push(&world, &client, source(&world.dest()), &other_source).await {
            Err(error) if error.is_busy() => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!((report.sent_bytes, report.summary.resumed_bytes), (1_000_000, 0));
}

#[tokio::test]
async fn a_source_that_is_not_there_any_more_is_left_out_and_the_rest_arrives() {
    let world = World::writable(limits());
    fs::write(world.dest().join("stays"), b"stays").unwrap();
    fs::write(world.dest().join("goes"), noise(1, 200_000)).unwrap();
    // Where there is something already, nothing is sent unasked.
    fs::create_dir(world.source().join("t")).unwrap();
    fs::write(world.source().join("t/other"), b"other").unwrap();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let goes = world.dest().join("goes");
    let opened =
        Push::open(&client, source(&world.dest()), &named("", "t"), &Default::default()).await.unwrap();
    let events = Arc::new(move |event| {
        // The list is complete, and not a byte has been asked for yet.
        if matches!(event, TransferEvent::ScanComplete { .. }) {
            fs::remove_file(&goes).unwrap();
        }
    });
    let report = opened.send(&world.options, events).await.unwrap();
    assert_eq!((report.left_out_here, report.left_out_there), (1, 0));
    assert_eq!(fs::read(world.source().join("t/stays")).unwrap(), b"stays");
    assert!(!world.source().join("t/goes").exists());
}

#[tokio::test]
async fn a_file_pushed_from_a_pipe_has_the_mode_of_a_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    push(&world, &client, file("x", b"content"), &request("")).await.unwrap();
    fs::write(world.source().join("y"), b"").unwrap();
    let mode = |name| fs::metadata(world.source().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("x"), mode("y"));
}

/// Pushes from a thread of its own until half has moved, then falls silent: nothing is sent any more, not
/// even the end of the connection. It goes on when the sender is dropped.
fn fall_silent(
    client: crate::harness::Client,
    ticket: shiplane_access::internals::TicketSecret,
    source: shiplane_files::internals::Source,
    options: TransferOptions,
) -> (oneshot::Receiver<()>, std::sync::mpsc::Sender<()>, std::thread::JoinHandle<bool>) {
    let (silent, is_silent) = oneshot::channel();
    let (wake, asleep) = std::sync::mpsc::channel::<()>();
    let asleep = Mutex::new((0, Some(silent), asleep));
    let events = Arc::new(move |event| {
        let TransferEvent::Moved { len_bytes } = event else { return };
        let mut asleep = asleep.lock().unwrap();
        asleep.0 += len_bytes;
        if asleep.0 > 2_000_000
            && let Some(tell) = asleep.1.take()
        {
            tell.send(()).unwrap();
            // The whole runtime stands still with this thread. An error is the end of the story.
            let _ = asleep.2.recv();
        }
    });
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rpc = client.connect().await.unwrap();
            shiplane_protocols::internals::redeem(&rpc, &ticket).await.unwrap();
            let push = Push::open(&rpc, source, &named("", "tree"), &Default::default()).await.unwrap();
            push.send(&options, events).await.is_ok()
        })
    });
    (is_silent, wake, thread)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_pusher_fell_silent_is_taken_over_by_the_same_again() {
    // One at a time: the old one's place is free as well.
    let world = World::writable(WriteLimits { max_pushes_per_peer: 1, ..limits() });
    fs::write(world.dest().join("large"), noise(7, 4_000_000)).unwrap();
    let ticket = world.ticket_to_write("");
    let key = world.outside().join("key");
    let identity = || Identity::load_or_create(&key).unwrap();
    let (first, second) = (world.client_as(identity()), world.client_as(identity()));
    let from = source(&world.dest());
    let (silent, wake, thread) = fall_silent(first, ticket.clone(), from, world.options.clone());
    silent.await.unwrap();

    let rpc = second.connect().await.unwrap();
    shiplane_protocols::internals::redeem(&rpc, &ticket).await.unwrap();
    let other_source = PushRequest { source_name: b"other".to_vec(), ..named("", "tree") };
    let busy = Push::open(&rpc, source(&world.dest()), &other_source, &Default::default()).await.unwrap_err();
    assert!(busy.is_busy(), "only the same takes over: {busy}");
    let report = push(&world, &rpc, source(&world.dest()), &named("", "tree")).await.unwrap();
    assert_eq!(tree(&world.source().join("tree")), tree(&world.dest()));
    assert!(report.summary.resumed_bytes > 0, "{report:?}");
    assert_eq!(report.sent_bytes + report.summary.resumed_bytes, 4_000_000);
    drop(wake);
    assert!(!thread.join().unwrap(), "what was taken over has failed");
}
