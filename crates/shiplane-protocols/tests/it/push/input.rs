//! Inputs of unknown length that can be read once.

use std::{
    fs,
    io::Write as _,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use shiplane_files::internals::{Existing, Source};
use shiplane_protocols::internals::{PushRequest, WriteLimits, transfer::TransferEvent};
use shiplane_rpc::FaultCode;
use tokio::sync::oneshot;

use super::{code, limits, push, push_watched, request};
use crate::harness::{Events, World, noise, tree};

/// An input, and the end of the pipe that fills it.
fn pipe() -> (fs::File, Source) {
    let (read, write) = std::io::pipe().unwrap();
    let source = Source::of_open_file(OwnedFd::from(read).into(), b"f").unwrap();
    (OwnedFd::from(write).into(), source)
}

/// An input that gives this as fast as it is taken.
fn input(content: Vec<u8>) -> Source {
    let (mut write, source) = pipe();
    // A source that is dropped early breaks the pipe.
    thread::spawn(move || _ = write.write_all(&content));
    source
}

#[tokio::test]
async fn an_input_of_any_length_arrives_as_one_file() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    for len in [0, 1, 70_000, 5_000_000] {
        let content = noise(len as u64, len);
        let request = PushRequest { existing: Existing::Replace, ..request("") };
        let report = push(&world, &client, input(content.clone()), &request).await.unwrap();
        assert_eq!((report.summary.published_files, report.total_bytes), (1, len as u64));
        assert_eq!(report.sent_bytes, len as u64);
        assert!(fs::read(world.source().join("f")).unwrap() == content, "other bytes");
        assert_eq!(tree(&world.source()).len(), 1);
        // The same again is there, if it may not be replaced.
        let report = push(&world, &client, input(content), &super::request("")).await.unwrap();
        assert_eq!((report.summary.identical_files, report.sent_bytes), (1, 0));
    }
    let other = push(&world, &client, input(noise(1, 5_000_001)), &request("")).await;
    assert_eq!(code(other.unwrap_err()), FaultCode::Exists);
}

#[tokio::test]
async fn an_input_may_be_idle_longer_than_the_peer_waits_for_anything_else() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let patience = client.connection().config().timeouts().progress;
    let (mut write, source) = pipe();
    let events = Events::default();
    let request = request("");
    let pushing = push_watched(&world, &client, source, &request, events.watch());
    let producing = async {
        write.write_all(b"before").unwrap();
        let mut periods = tokio::time::interval(patience);
        // The first is over at once.
        for _ in 0..4 {
            periods.tick().await;
        }
        assert!(events.moved_bytes() > 0, "it has begun");
        write.write_all(b" and after").unwrap();
        drop(write);
    };
    let (report, ()) = tokio::join!(pushing, producing);
    report.unwrap();
    assert_eq!(fs::read(world.source().join("f")).unwrap(), b"before and after");
}

/// Pushes until this number of bytes has been transferred, then drops the push.
async fn cut(world: &World, client: &shiplane_rpc::RpcClient, source: Source, after_bytes: u64) {
    let (tell, reached) = oneshot::channel();
    let told = Mutex::new((0, Some(tell)));
    let events = Arc::new(move |event| {
        let TransferEvent::Kept { len_bytes } = event else { return };
        let mut told = told.lock().unwrap();
        told.0 += len_bytes;
        if told.0 >= after_bytes
            && let Some(tell) = told.1.take()
        {
            tell.send(()).unwrap();
        }
    });
    let request = request("");
    tokio::select! {
        result = push_watched(world, client, source, &request, events) => panic!("not cut: {result:?}"),
        _ = reached => {}
    }
}

#[tokio::test]
async fn an_input_resumes_from_the_held_parts_after_each_cut() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let content = noise(9, 60_000_000);
    let source = input(content.clone());
    for after_bytes in [1_000_000, 7_000_000, 20_000_000] {
        cut(&world, &client, source.clone(), after_bytes).await;
        assert!(!world.source().join("f").exists());
    }
    let report = push(&world, &client, source, &request("")).await.unwrap();
    assert_eq!((report.summary.published_files, report.total_bytes), (1, 60_000_000));
    assert!(report.sent_bytes < 40_000_000, "{report:?}");
    assert!(fs::read(world.source().join("f")).unwrap() == content, "other bytes");
    assert_eq!(tree(&world.source()).len(), 1);
}

#[tokio::test]
async fn an_input_of_which_the_peer_has_lost_a_part_that_was_let_go_of_fails_and_says_why() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    // More than is held.
    let source = input(noise(9, 60_000_000));
    cut(&world, &client, source.clone(), 30_000_000).await;
    let own: Vec<PathBuf> = tree(&world.source()).into_keys().collect();
    assert_eq!(own.len(), 2, "a journal and a temporary file: {own:?}");
    own.iter().for_each(|path| fs::remove_file(world.source().join(path)).unwrap());
    let lost = push(&world, &client, source, &request("")).await.unwrap_err();
    assert!(lost.to_string().contains("cannot be read twice"), "{lost}");
    assert_eq!(code(lost), FaultCode::NotResumable);
    assert!(!world.source().join("f").exists());
}

#[tokio::test]
async fn an_input_that_fails_publishes_nothing_and_names_the_cause() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    // At its beginning nothing is mapped: reading is an error, and no end.
    let source = Source::of_open_file(fs::File::open("/proc/self/mem").unwrap(), b"f").unwrap();
    let failed = push(&world, &client, source, &request("")).await.unwrap_err();
    assert!(failed.to_string().contains("Input/output error"), "{failed}");
    assert!(!world.source().join("f").exists());
}

#[tokio::test]
async fn an_input_is_stopped_at_the_limit_of_a_push() {
    let limits = WriteLimits { max_transfer_bytes: Some(1_000_000), ..limits() };
    let world = World::writable(limits);
    let client = world.admitted_by(world.ticket_to_write("")).await;
    push(&world, &client, input(noise(1, 1_000_000)), &request("")).await.unwrap();
    let request = PushRequest { existing: Existing::Replace, ..request("") };
    let refused = push(&world, &client, input(noise(1, 1_000_001)), &request).await.unwrap_err();
    assert_eq!(code(refused), FaultCode::TooLarge);
    assert_eq!(fs::metadata(world.source().join("f")).unwrap().len(), 1_000_000);
}
