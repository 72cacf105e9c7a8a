//! A sync in one direction from a server takes no more rights than a fetch, and leaves no trace there.

use std::fs;

use shiplane_files::internals::sync::{Consent, Side};
use shiplane_protocols::internals::sync::{
    Step, SyncDirection, SyncJob, SyncReport, SyncRequest, SyncResponse, synchronise,
};
use shiplane_rpc::{FaultCode, RpcClient};
use shiplane_transport::ChunkSource;
use shiplane_wire::{LeftOutReason, TaggedChunk, TransferId};

use super::{
    hostile_asked::{OPEN, START, Started, changes, listed},
    hostile_asking::{call, compare, open, start},
    job, silent, write,
};
use crate::harness::{World, transfer_lane, tree};

/// Takes what the server has.
async fn take(world: &World, client: &RpcClient) -> SyncReport {
    let consent = Consent { mass_deletion: true };
    let job = SyncJob { only_to: Some(Side::Local), consent, ..job(world) };
    synchronise(client, &job, silent()).await.unwrap()
}

/// Names of all that is in the served directory, our own files too.
fn names(world: &World) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(world.source()).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_read_only_caller_takes_edits_and_deletions() {
    let world = World::syncing();
    for (name, content) in [("d/kept", "1"), ("d/edited", "2"), ("d/deleted", "3"), ("both", "4")] {
        write(&world.source(), name, content.as_bytes());
    }
    // More than fits into a call, and in other directories.
    for at in 0..1500 {
        write(&world.source(), &format!("many/{at}/of-a-name-that-is-long-enough"), b"x");
    }
    let before = names(&world);
    let client = world.admitted_by(world.ticket()).await;
    let report = take(&world, &client).await;
    assert!(report.left.is_empty(), "{:?}", report.left);
    assert_eq!(tree(&world.dest()), tree(&world.source()));
    // What both had is known, although the server remembers nothing.
    write(&world.source(), "d/edited", b"another");
    write(&world.source(), "both", b"there");
    fs::remove_file(world.source().join("d/deleted")).unwrap();
    write(&world.dest(), "both", b"here");
    write(&world.dest(), "ours", b"5");
    let served = tree(&world.source());
    let report = take(&world, &client).await;
    let left: Vec<_> = report.left.iter().map(|left| (left.path.to_string(), left.why.reason())).collect();
    assert_eq!(left, [("both".to_owned(), LeftOutReason::InTheWay)]);
    let ours = tree(&world.dest());
    for (path, content) in [("d/kept", Some("1")), ("d/edited", Some("another")), ("d/deleted", None)] {
        let found = ours.get(std::path::Path::new(path)).cloned().flatten();
        assert_eq!(found.as_deref(), content.map(str::as_bytes), "{path}");
    }
    assert_eq!(fs::read(world.dest().join("both")).unwrap(), b"here");
    assert_eq!(fs::read(world.dest().join("ours")).unwrap(), b"5");
    assert_eq!(take(&world, &client).await.actions.len(), 0);
    assert_eq!((tree(&world.source()), names(&world)), (served, before));
    let remembered = fs::read_dir(world.state()).into_iter().flatten().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".base")
    });
    assert_eq!(remembered.count(), 0, "a reader fills no disk");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_neither_created_nor_taken_for_empty() {
    let world = World::syncing();
    write(&world.dest(), "kept", b"1");
    let client = world.admitted_by(world.ticket()).await;
    let job = SyncJob { only_to: Some(Side::Local), remote_path: b"missing".to_vec(), ..job(&world) };
    let refused = super::code(synchronise(&client, &job, silent()).await.unwrap_err());
    assert_eq!(refused, FaultCode::NotFound);
    assert!(tree(&world.source()).is_empty() && world.dest().join("kept").exists());
}

#[tokio::test]
async fn a_caller_that_announced_to_take_and_then_gives_is_refused() {
    let world = World::syncing();
    write(&world.source(), "theirs", b"1");
    let client = world.admitted_by(world.ticket()).await;
    let evil = listed("evil", b"x");
    for direction in [SyncDirection::Both, SyncDirection::ToCallee] {
        let request = SyncRequest { direction, ..open() };
        assert_eq!(call(&client, OPEN, &request).await, Err(FaultCode::Unauthorised), "{direction:?}");
    }
    let request = SyncRequest { direction: SyncDirection::ToCaller, ..open() };
    let opened = compare(&client, &request, &evil).await.unwrap();
    assert!(matches!(opened, Step::Done(SyncResponse::Differs { base: None, .. })), "{opened:?}");
    let request = start(changes(&evil));
    assert!(matches!(call(&client, START, &request).await, Ok(Started::Ready { .. })));
    // It sends chunks that were not requested, in every transfer that it knows of.
    for transfer in [request.up, request.down, request.sync] {
        let source = ChunkSource::Memory(b"x".as_slice().into()).open().unwrap();
        let tag = TaggedChunk { transfer: TransferId::from_bytes(transfer), index: 0 };
        let options = transfer_lane();
        let sending = client.connection().send_tagged_chunk(tag, source, &options);
        let sent = tokio::time::timeout(std::time::Duration::from_secs(20), sending).await;
        assert!(!matches!(sent, Ok(Ok(_))), "{sent:?}");
    }
    drop(client);
    assert_eq!(names(&world), ["theirs"]);
}

#[tokio::test]
async fn only_a_caller_that_takes_may_send_its_base() {
    let world = World::syncing();
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let theirs = listed("f", b"1");
    for (direction, told, expected) in [
        (SyncDirection::Both, changes(&theirs), FaultCode::InvalidRequest),
        (SyncDirection::ToCallee, changes(&theirs), FaultCode::InvalidRequest),
        (SyncDirection::ToCaller, b"nonsense".to_vec(), FaultCode::InvalidRequest),
    ] {
        let client = world.admitted_by(world.ticket_to_write("")).await;
        compare(&client, &SyncRequest { direction, ..open() }, &theirs).await.unwrap();
        let base = Some(shiplane_protocols::internals::sync::SyncBody::Inline(told));
        let mut request = start(changes(&theirs));
        request.base = base;
        assert_eq!(call(&client, START, &request).await, Err(expected), "{direction:?}");
        client.connection().close(shiplane_wire::Code::Cancelled);
    }
    drop(client);
    assert!(names(&world).is_empty());
}
