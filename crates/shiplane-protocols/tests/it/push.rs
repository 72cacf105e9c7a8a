//! Push: what arrives, what is refused before a byte of it is sent, and what is known when the answer is
//! lost.

mod answers;
mod input;
pub(crate) mod names;
mod resuming;

use std::{fs, path::Path, sync::Arc};

use shiplane_files::internals::{Source, SourceRoot};
use shiplane_protocols::internals::{
    Push, PushError, PushRequest, WriteLimits,
    transfer::{EventFn, FilesReport},
};
use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_wire::Durability;

use crate::harness::{Events, World, noise, tree};

fn limits() -> WriteLimits {
    WriteLimits::default()
}

/// What is to be pushed into `path` in the name of `path`'s own content.
pub(crate) fn request(path: &str) -> PushRequest {
    PushRequest {
        path: path.into(),
        name: None,
        total_bytes: None,
        existing: shiplane_files::internals::Existing::Refuse,
        delete: None,
        chunk_len_bytes: 64 << 10,
        durability: Durability::Durable,
        filters: Arc::default(),
        attributes: false,
        source_name: b"test".to_vec(),
    }
}

fn named(path: &str, name: &str) -> PushRequest {
    PushRequest { name: Some(name.into()), ..request(path) }
}

pub(crate) fn source(path: &Path) -> Source {
    SourceRoot::open(path).unwrap().resolve(b"").unwrap()
}

/// A file with that name and content, wherever it is.
pub(crate) fn file(name: &str, content: &[u8]) -> Source {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    Source::of_open_file(file, name.as_bytes()).unwrap()
}

pub(crate) async fn push(
    world: &World,
    client: &RpcClient,
    source: Source,
    request: &PushRequest,
) -> Result<FilesReport, PushError> {
    push_watched(world, client, source, request, Arc::new(|_| ())).await
}

pub(crate) async fn push_watched(
    world: &World,
    client: &RpcClient,
    source: Source,
    request: &PushRequest,
    events: EventFn,
) -> Result<FilesReport, PushError> {
    Push::open(client, source, request, &world.options).await?.send(&world.options, events).await
}

#[track_caller]
fn code(error: PushError) -> FaultCode {
    match error {
        PushError::Refused(CallError::Fault(fault)) | PushError::Rejected(fault) => fault.code,
        other => panic!("not a fault: {other:?}"),
    }
}

fn small_tree(at: &Path) {
    fs::create_dir_all(at.join("a/b/void")).unwrap();
    fs::write(at.join("empty"), b"").unwrap();
    fs::write(at.join("a/large"), noise(1, 300_000)).unwrap();
    for i in 0..100 {
        fs::write(at.join(format!("a/b/{i}")), noise(i, 17 * i as usize)).unwrap();
    }
}

#[tokio::test]
async fn a_tree_arrives_by_its_name_and_a_second_push_sends_nothing() {
    let world = World::writable(limits());
    small_tree(&world.dest());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let request = named("new/inbox", "tree");
    let report = push(&world, &client, source(&world.dest()), &request).await.unwrap();
    assert_eq!(tree(&world.source().join("new/inbox/tree")), tree(&world.dest()));
    assert_eq!(
        (report.durability, report.summary.published_files, report.summary.identical_files),
        (Durability::Durable, 102, 0)
    );
    assert_eq!(report.sent_bytes, report.total_bytes);

    let again = push(&world, &client, source(&world.dest()), &request).await.unwrap();
    assert_eq!((again.sent_bytes, again.summary.published_files, again.summary.identical_files), (0, 0, 102));
    let entries: Vec<_> = fs::read_dir(world.source().join("new/inbox")).unwrap().collect();
    assert_eq!(entries.len(), 1, "nothing of our own is left");
}

#[tokio::test]
async fn a_file_and_the_content_of_a_root_land_without_a_directory_around_them() {
    let world = World::writable(limits());
    small_tree(&world.dest());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    push(&world, &client, source(&world.dest().join("a/large")), &request("")).await.unwrap();
    assert_eq!(fs::read(world.source().join("large")).unwrap(), noise(1, 300_000));
    push(&world, &client, source(&world.dest()), &request("all")).await.unwrap();
    assert_eq!(tree(&world.source().join("all")), tree(&world.dest()));
}

#[tokio::test]
async fn twenty_pushes_at_once_on_one_connection_all_arrive_unchanged() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let content = |i: u64| noise(i, 100_000 + i as usize);
    let pushes = (0..20).map(|i| {
        let (world, client) = (&world, &client);
        async move {
            let source = file(&format!("f{i}"), &content(i));
            push(world, client, source, &PushRequest { total_bytes: Some(100_000), ..request("in") }).await
        }
    });
    let reports = futures::future::join_all(pushes).await;
    for (i, report) in (0..20).zip(reports) {
        let report = report.unwrap();
        assert_eq!((report.total_bytes, report.durability), (100_000 + i, Durability::Durable));
        assert_eq!(fs::read(world.source().join(format!("in/f{i}"))).unwrap(), content(i), "f{i}");
    }
    assert_eq!(tree(&world.source()).len(), 21, "nothing else is there");
}

#[tokio::test]
async fn a_caller_without_permission_is_refused_before_anything_is_sent() {
    let world = World::writable(limits());
    let reader = world.admitted().await;
    let refused = Push::open(&reader, file("x", b"x"), &request(""), &Default::default()).await.unwrap_err();
    assert_eq!(code(refused), FaultCode::Unauthorised);

    let guest = world.client();
    let ticket = world.ticket_to_write("");
    let guest = guest.connect().await.unwrap();
    let refused = Push::open(&guest, file("x", b"x"), &request(""), &Default::default()).await.unwrap_err();
    assert_eq!(code(refused), FaultCode::Unauthorised);
    drop(ticket);

    let world = World::new(|_| ());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let refused = Push::open(&client, file("x", b"x"), &request(""), &Default::default()).await.unwrap_err();
    assert_eq!(code(refused), FaultCode::ReadOnly);
    assert_eq!(tree(&world.source()).len(), 0);
}

#[tokio::test]
async fn a_push_over_the_limit_is_refused_though_it_announced_less_or_nothing() {
    let world =
        World::writable(WriteLimits { max_transfer_bytes: Some(1000), max_pushes_per_peer: 1, ..limits() });
    let client = world.admitted_by(world.ticket_to_write("")).await;
    for told in [None, Some(1)] {
        let request = PushRequest { total_bytes: told, ..request("new") };
        let refused = push(&world, &client, file("x", &[0; 1001]), &request).await;
        assert_eq!(code(refused.unwrap_err()), FaultCode::TooLarge);
        // What was offered may have been sent.
        assert!(tree(&world.source()).values().all(Option::is_none), "nothing of it is kept");
    }
}

#[tokio::test]
async fn a_push_over_the_limit_is_refused_before_anything_is_sent() {
    let world =
        World::writable(WriteLimits { max_transfer_bytes: Some(1000), max_pushes_per_peer: 1, ..limits() });
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let sized = |total_bytes| PushRequest { total_bytes, ..request("new") };
    let refused = Push::open(&client, file("x", &[0; 1001]), &sized(Some(1001)), &Default::default())
        .await
        .unwrap_err();
    assert_eq!(code(refused), FaultCode::TooLarge);
    assert!(!world.source().join("new").exists());

    let exactly = push(&world, &client, file("x", &[0; 1000]), &sized(Some(1000))).await.unwrap();
    assert_eq!(exactly.sent_bytes, 1000);

    let first = Push::open(&client, file("y", b"y"), &request(""), &Default::default()).await.unwrap();
    let busy = Push::open(&client, file("z", b"z"), &request(""), &Default::default()).await.unwrap_err();
    assert!(busy.is_busy(), "{busy}");
    first.send(&world.options, Arc::new(|_| ())).await.unwrap();
    push(&world, &client, file("z", b"z"), &request("")).await.unwrap();

    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let refused =
        Push::open(&client, file("x", b"x"), &sized(Some(1 << 60)), &Default::default()).await.unwrap_err();
    assert_eq!(code(refused), FaultCode::NoSpace);
    assert_eq!(tree(&world.source()).len(), 0, "the directory that was made for it is gone again");
}

#[tokio::test]
async fn one_of_two_pushes_to_a_name_wins_and_the_other_gets_an_error() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let other = world.admitted_by(world.ticket_to_write("")).await;
    let first = Push::open(&client, file("x", b"first"), &request("a"), &Default::default()).await.unwrap();
    for path in ["a", ""] {
        let busy = Push::open(&other, source(&world.dest()), &named(path, "x"), &Default::default()).await;
        let busy = if path == "a" {
            busy
        } else {
            Push::open(&other, source(&world.dest()), &request(""), &Default::default()).await
        };
        assert!(busy.unwrap_err().is_busy(), "{path:?}");
    }
    let beside = push(&world, &other, file("y", b"other"), &request("a")).await;
    assert_eq!(beside.unwrap().summary.published_files, 1);
    first.send(&world.options, Arc::new(|_| ())).await.unwrap();

    let events = Events::default();
    let late = push_watched(&world, &other, file("x", b"other"), &request("a"), events.watch()).await;
    assert_eq!(code(late.unwrap_err()), FaultCode::Exists);
    assert_eq!(events.moved_bytes(), 0);
    assert_eq!(fs::read(world.source().join("a/x")).unwrap(), b"first");
    let overwrite = PushRequest { existing: shiplane_files::internals::Existing::Replace, ..request("a") };
    push(&world, &other, file("x", b"other"), &overwrite).await.unwrap();
    assert_eq!(fs::read(world.source().join("a/x")).unwrap(), b"other");
}

#[tokio::test]
async fn pushes_of_many_to_one_name_never_mix() {
    let world = World::writable(limits());
    let mut pushers = Vec::new();
    for i in 0..5 {
        let at = world.dest().join(i.to_string());
        fs::create_dir(&at).unwrap();
        for file in 0..40 {
            fs::write(at.join(file.to_string()), noise(i * 100 + file, 5000)).unwrap();
        }
        pushers.push((at, world.admitted_by(world.ticket_to_write("")).await));
    }
    let request = named("", "name");
    let pushes = pushers.iter().map(|(at, client)| push(&world, client, source(at), &request));
    let ended = futures::future::join_all(pushes).await;
    let found = tree(&world.source().join("name"));
    let mut winners = 0;
    for ((at, _), ended) in pushers.iter().zip(ended) {
        match ended {
            Ok(_) => {
                winners += 1;
                assert_eq!(found, tree(at));
            }
            Err(error) => assert!(matches!(code(error), FaultCode::Busy | FaultCode::Exists)),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_shutdown_lets_pushes_finish_and_takes_no_new_ones() {
    let mut world = World::writable(limits());
    small_tree(&world.dest());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let opened =
        Push::open(&client, source(&world.dest()), &named("", "tree"), &Default::default()).await.unwrap();
    let options = world.options.clone();
    let send = async {
        // The server has begun to end by the time that the first byte moves, or has not: either way.
        opened.send(&options, Arc::new(|_| ())).await
    };
    let (sent, ()) = tokio::join!(send, world.shut_down());
    sent.unwrap();
    assert_eq!(tree(&world.source().join("tree")), tree(&world.dest()));
    assert!(Push::open(&client, file("x", b"x"), &request(""), &Default::default()).await.is_err());
}

#[tokio::test]
async fn a_push_of_an_edited_file_sends_only_the_bytes_around_the_edits() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let old = noise(1, 4 << 20);
    let mut new = [b"xy", &old[..]].concat();
    new[3 << 20..][..4096].copy_from_slice(&noise(2, 4096));
    fs::write(world.source().join("large"), &old).unwrap();
    let kept = push(&world, &client, file("large", &new), &request("")).await.unwrap_err();
    assert_eq!(code(kept), FaultCode::Exists);
    let overwrite = PushRequest { existing: shiplane_files::internals::Existing::Replace, ..request("") };
    let report = push(&world, &client, file("large", &new), &overwrite).await.unwrap();
    assert!(fs::read(world.source().join("large")).unwrap() == new, "it is the new one");
    // The edit of 4 KiB, the insertion, and the pieces of 2 KiB on average that they fall into.
    assert!(report.sent_bytes < 48 * 1024, "{} bytes", report.sent_bytes);
}
