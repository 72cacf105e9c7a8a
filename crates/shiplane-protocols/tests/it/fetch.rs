//! Fetch: results, refusals, and files left behind.

use std::{fs, path::Path, time::Duration};

use shiplane_protocols::internals::{
    FetchError, redeem,
    transfer::{TransferError, TransferEvent},
};
use shiplane_rpc::{CallError, FaultCode};
use shiplane_transport::Identity;
use shiplane_wire::DigestAlgorithm;

use crate::harness::{Events, World, fault, noise, tree};

fn small_tree(source: &Path) {
    fs::write(source.join("empty"), b"").unwrap();
    fs::write(source.join("hello"), b"hello").unwrap();
    fs::create_dir_all(source.join("a/b/void")).unwrap();
    fs::write(source.join("a/large"), noise(1, 300_000)).unwrap();
    for i in 0..200 {
        fs::write(source.join(format!("a/b/{i}")), noise(i, 17 * i as usize)).unwrap();
    }
}

#[tokio::test]
async fn a_tree_arrives_equal_and_a_second_run_sends_nothing() {
    let world = World::new(small_tree);
    let client = world.admitted().await;
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!(tree(&world.dest()), tree(&world.source()));
    assert_eq!(report.summary.published_files, 203);
    assert_eq!(report.received_bytes, report.total_bytes);

    let again = world.fetch(&client, "").await.unwrap();
    assert_eq!((again.received_bytes, again.summary.identical_files), (0, 203));
}

/// Fewer entries fit into the receiver's memory than into a chunk, and more records are listed at a time than wait to
/// be written.
#[tokio::test]
async fn small_files_with_long_paths_arrive_without_a_pause() {
    let deep = ["d".repeat(250).as_str(); 14].join("/");
    let world = World::new(|source| {
        fs::create_dir_all(source.join(&deep)).unwrap();
        for i in 0..1500 {
            fs::write(source.join(&deep).join(format!("{i:0>200}")), b"x").unwrap();
        }
    });
    let client = world.admitted().await;
    let fetched = tokio::time::timeout(Duration::from_secs(30), world.fetch(&client, "")).await;
    let report = fetched.expect("it goes on without a clock").unwrap();
    assert_eq!(report.summary.published_files, 1500);
}

#[tokio::test]
async fn one_file_lands_under_its_name_with_its_digest() {
    let world = World::new(small_tree);
    let client = world.admitted().await;
    let report = world.fetch(&client, "hello").await.unwrap();
    assert_eq!(fs::read(world.dest().join("hello")).unwrap(), b"hello");
    assert_eq!(report.digest_algorithm, DigestAlgorithm::Blake3);
    let blake3 = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f";
    assert_eq!(report.digest.unwrap().to_string(), blake3, "what b3sum prints");
}

#[tokio::test]
async fn a_directory_becomes_the_destination() {
    let world = World::new(small_tree);
    let client = world.admitted().await;
    for _ in 0..2 {
        world.fetch(&client, "a").await.unwrap();
        assert_eq!(tree(&world.dest()), tree(&world.source().join("a")));
    }
}

#[tokio::test]
async fn missing_and_outside_paths_are_typed_refusals() {
    let world = World::new(small_tree);
    std::os::unix::fs::symlink("/etc", world.source().join("leads-out")).unwrap();
    let client = world.admitted().await;
    for (path, code) in [
        ("nothing", FaultCode::NotFound),
        ("../x", FaultCode::PathRefused),
        ("/etc/passwd", FaultCode::PathRefused),
        ("a/../hello", FaultCode::PathRefused),
        ("leads-out/passwd", FaultCode::PathRefused),
    ] {
        let error = world.fetch(&client, path).await.unwrap_err();
        assert_eq!(fault(&error), code, "{path}");
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_its_path_and_its_first_key_only() {
    let world = World::new(small_tree);
    let ticket = world.ticket_below("a");
    let first = world.client();
    let second = world.client();
    let rpc = first.connect().await.unwrap();
    assert_eq!(fault(&world.fetch(&rpc, "a").await.unwrap_err()), FaultCode::Unauthorised, "a guest may not");
    let other = second.connect().await.unwrap();
    redeem(&rpc, &ticket).await.unwrap();
    let spent = redeem(&other, &ticket).await.unwrap_err();
    assert!(matches!(spent, CallError::Fault(fault) if fault.code == FaultCode::TicketRefused));

    assert_eq!(fault(&world.fetch(&rpc, "hello").await.unwrap_err()), FaultCode::Unauthorised);
    world.fetch(&rpc, "a/large").await.unwrap();
    redeem(&rpc, &ticket).await.expect("the owner may redeem again");
}

#[tokio::test]
async fn without_an_open_ticket_a_stranger_is_refused_in_the_handshake() {
    let world = World::new(small_tree);
    let error = world.client().connect().await.unwrap_err();
    assert!(matches!(error, shiplane_transport::ConnectError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_different_file_is_not_overwritten_unless_asked() {
    let mut world = World::new(small_tree);
    let client = world.admitted().await;
    fs::write(world.dest().join("hello"), b"mine").unwrap();
    let error = world.fetch(&client, "").await.unwrap_err();
    assert!(matches!(error, FetchError::Transfer(TransferError::Destination(_))), "{error}");
    assert_eq!(fs::read(world.dest().join("hello")).unwrap(), b"mine");
    assert!(!world.dest().join("a/large").exists(), "nothing was sent");

    world.receive.existing = shiplane_files::internals::Existing::Replace;
    world.fetch(&client, "").await.unwrap();
    assert_eq!(tree(&world.dest()), tree(&world.source()));
}

#[tokio::test]
async fn a_file_that_differs_in_time_only_is_compared_and_kept() {
    let world = World::new(small_tree);
    let client = world.admitted().await;
    fs::write(world.dest().join("hello"), b"hello").unwrap();
    let report = world.fetch(&client, "").await.unwrap();
    assert_eq!(report.summary.identical_files, 1);
    assert_eq!(tree(&world.dest()), tree(&world.source()));
}

#[tokio::test]
async fn an_interrupted_run_goes_on_where_it_was() {
    let world = World::new(|source| fs::write(source.join("large"), noise(7, 4_000_000)).unwrap());
    let client = world.admitted().await;
    let (half, reached) = tokio::sync::oneshot::channel();
    let half = std::sync::Mutex::new((0, Some(half)));
    let first = Events::default();
    let watch = first.watch();
    let run = world.fetch_watched(
        &client,
        "large",
        std::sync::Arc::new(move |event| {
            if let TransferEvent::Moved { len_bytes } = &event {
                let mut half = half.lock().unwrap();
                half.0 += len_bytes;
                if half.0 > 2_000_000
                    && let Some(tell) = half.1.take()
                {
                    tell.send(()).unwrap();
                }
            }
            watch(event);
        }),
    );
    tokio::select! {
        result = run => panic!("it was to be interrupted: {result:?}"),
        _ = reached => {}
    }
    assert!(!world.dest().join("large").exists(), "nothing under the final name");

    let second = Events::default();
    let report = loop {
        // The first run's threads may hold the journal a moment longer.
        match world.fetch_watched(&client, "large", second.watch()).await {
            Err(FetchError::Transfer(TransferError::Destination(
                shiplane_files::internals::DestinationError::Busy { .. },
            ))) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(tree(&world.dest()), tree(&world.source()));
    let in_flight = world.options.lanes as u64 * world.options.chunk_len_bytes;
    assert!(report.received_bytes <= 4_000_000 - 2_000_000 + 2 * in_flight, "{report:?}");
    assert_eq!(second.moved_bytes(), report.received_bytes);
    assert!(report.summary.resumed_bytes > 0, "{report:?}");
}

#[tokio::test]
async fn fifty_fetches_at_once_on_one_connection_each_get_their_own() {
    let world = World::new(|source| {
        for i in 0..50 {
            fs::write(source.join(format!("f{i}")), noise(i, 100_000 + i as usize)).unwrap();
        }
    });
    let client = world.admitted().await;
    let names: Vec<_> = (0..50).map(|i| format!("f{i}")).collect();
    let fetches = names.iter().map(|name| world.fetch(&client, name));
    for result in futures::future::join_all(fetches).await {
        result.unwrap();
    }
    assert_eq!(tree(&world.dest()), tree(&world.source()));
}

#[tokio::test]
async fn a_shutdown_lets_transfers_finish() {
    let mut world = World::new(small_tree);
    let client = world.admitted().await;
    let fetch = shiplane_protocols::internals::Fetch::open(
        &client,
        shiplane_protocols::internals::FetchRequest::of(b""),
        &Default::default(),
    )
    .await
    .unwrap();
    let target = world.destination(&fetch).unwrap();
    let options = world.options.clone();
    let (fetched, ()) =
        tokio::join!(fetch.receive(target, &options, std::sync::Arc::new(|_| ())), world.shut_down());
    fetched.unwrap();
    assert_eq!(tree(&world.dest()), tree(&world.source()));
}

#[tokio::test]
async fn a_link_does_not_lead_out_of_a_ticket_s_scope() {
    let world = World::new(|source| {
        fs::create_dir_all(source.join("public/inner")).unwrap();
        fs::create_dir(source.join("private")).unwrap();
        fs::write(source.join("private/key"), b"secret").unwrap();
        fs::write(source.join("public/inner/x"), b"open").unwrap();
        let link = std::os::unix::fs::symlink::<&str, _>;
        link("../private/key", source.join("public/file-link")).unwrap();
        link("../private", source.join("public/dir-link")).unwrap();
    });
    let ticket = world.ticket_below("public");
    let client = world.client();
    let rpc = client.connect().await.unwrap();
    redeem(&rpc, &ticket).await.unwrap();
    for path in ["public/file-link", "public/dir-link", "public/dir-link/key"] {
        let error = world.fetch(&rpc, path).await.unwrap_err();
        assert_eq!(fault(&error), FaultCode::PathRefused, "{path}");
    }
    world.fetch(&rpc, "public/inner/x").await.unwrap();
    assert_eq!(tree(&world.dest()).len(), 1);

    // A peer that may read all of it may also follow its links.
    let everything = world.admitted().await;
    world.fetch(&everything, "public/file-link").await.unwrap();
    assert_eq!(fs::read(world.dest().join("file-link")).unwrap(), b"secret");
}

#[tokio::test]
async fn a_key_that_comes_back_is_served_though_its_old_connection_lingers() {
    let world = World::new(small_tree);
    let key = world.dest().with_file_name("key");
    let ticket = world.ticket();
    let before = world.client_as(Identity::load_or_create(&key).unwrap());
    let old = before.connect().await.unwrap();
    redeem(&old, &ticket).await.unwrap();
    // As after a kill -9: the server does not know yet that the first one is gone.
    let after = world.client_as(Identity::load_or_create(&key).unwrap());
    let new = after.connect().await.unwrap();
    for path in ["hello", "a"] {
        world.fetch(&new, path).await.unwrap();
    }
    world.fetch(&old, "empty").await.expect("nor is the old one harmed");
}

#[tokio::test]
async fn a_source_that_changes_is_not_published_and_harms_no_other() {
    let world = World::new(|source| {
        fs::write(source.join("log"), noise(1, 6_000_000)).unwrap();
        for i in 0..20 {
            fs::write(source.join(format!("f{i}")), noise(i, 5000)).unwrap();
        }
    });
    let client = world.admitted().await;
    let log = world.source().join("log");
    let once = std::sync::Once::new();
    let change_it = std::sync::Arc::new(move |event| {
        if matches!(event, TransferEvent::Moved { .. }) {
            once.call_once(|| {
                let mut log = fs::OpenOptions::new().append(true).open(&log).unwrap();
                std::io::Write::write_all(&mut log, b"one more line").unwrap();
            });
        }
    });
    let report = world.fetch_watched(&client, "", change_it).await.unwrap();
    assert_eq!(report.left_out(), 1);
    assert!(!world.dest().join("log").exists());
    let mut expected = tree(&world.source());
    expected.remove(Path::new("log"));
    assert_eq!(tree(&world.dest()), expected);

    world.fetch(&client, "").await.expect("the next run gets the new state");
    assert_eq!(tree(&world.dest()), tree(&world.source()));
}

/// That it has gone is said, not waited for: a deadline would have another error.
#[tokio::test]
async fn a_source_that_is_deleted_midway_is_named_and_harms_no_other() {
    let world = World::new(|source| {
        fs::write(source.join("large"), noise(1, 6_000_000)).unwrap();
        fs::write(source.join("small"), noise(2, 5000)).unwrap();
    });
    let client = world.admitted().await;
    let large = world.source().join("large");
    let once = std::sync::Once::new();
    let delete_it = std::sync::Arc::new(move |event| {
        if matches!(event, TransferEvent::Moved { .. }) {
            once.call_once(|| fs::remove_file(&large).unwrap());
        }
    });
    let report = world.fetch_watched(&client, "", delete_it).await.unwrap();
    assert_eq!(report.left_out(), 1);
    assert_eq!(tree(&world.dest()), tree(&world.source()));
    assert!(!world.dest().join("large").exists());
}
