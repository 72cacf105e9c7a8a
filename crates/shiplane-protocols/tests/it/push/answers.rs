//! Lost answers: the outcome is unknown, and asking again changes nothing.

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
use shiplane_protocols::{
    Delivery,
    internals::{FileServer, PushError},
};
use shiplane_rpc::{CallError, FaultCode, Method, Router};
use shiplane_transport::{Identity, QuicTransport};
use shiplane_wire::{Code, Digest};
use tokio_util::sync::CancellationToken;

use super::{
    file, limits,
    names::{RawOpened, RawShape, open, raw},
    push, request,
};
use crate::harness::World;

/// Serves each connection by a router of its own, the last one from then on.
async fn serve_by(
    files: Arc<FileServer>,
    transport: Arc<QuicTransport>,
    routers: impl Fn(&Arc<FileServer>, usize) -> Router,
) {
    let mut number = 0;
    while let Ok((_, connection)) = transport.accept().await {
        tokio::spawn(Arc::new(routers(&files, number)).serve(connection));
        number += 1;
    }
}

/// A server whose first connection ends instead of settling anything.
fn forgetful() -> World {
    World::writable_by(limits(), |files, transport, _: CancellationToken| {
        serve_by(files, transport, |files, number| match number {
            0 => files.router(&[]).method("push.settle", |context, _| async move {
                context.connection.close(Code::Cancelled);
                std::future::pending::<Result<Bytes, _>>().await
            }),
            _ => files.router(&[]),
        })
    })
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_asking_again_tells_the_same_without_a_second_effect() {
    let world = forgetful();
    let ticket = world.ticket_to_write("");
    let key = world.outside().join("key");
    let identity = || Identity::load_or_create(&key).unwrap();
    let first = world.client_as(identity());
    let rpc = first.connect().await.unwrap();
    shiplane_protocols::internals::redeem(&rpc, &ticket).await.unwrap();
    let error = push(&world, &rpc, file("x", b"content"), &request("")).await.unwrap_err();
    assert_eq!(error.delivery(), Delivery::Unknown);
    let PushError::Unknown { receipt, source } = error else { panic!("{error:?}") };
    assert!(matches!(source, CallError::ConnectionLost(_)), "{source:?}");

    let second = world.client_as(identity());
    let rpc = second.connect().await.unwrap();
    let report = receipt.clone().settle(&rpc).await.unwrap();
    assert_eq!((report.summary.published_files, report.sent_bytes), (1, 7));
    let pushed = world.source().join("x");
    assert_eq!(fs::read(&pushed).unwrap(), b"content");

    fs::remove_file(&pushed).unwrap();
    assert_eq!(receipt.clone().settle(&rpc).await.unwrap(), report);
    assert!(!pushed.exists(), "it was asked for, not pushed again");

    let stranger = world.admitted_by(world.ticket_to_write("")).await;
    let error = receipt.settle(&stranger).await.unwrap_err();
    assert!(matches!(error, PushError::Unknown { .. }), "another key learns nothing: {error:?}");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_timeout_and_not_a_success() {
    let world = World::writable_by(limits(), |files, transport, _| {
        serve_by(files, transport, |files, _| {
            files.router(&[]).method("push.settle", |_, _| std::future::pending::<Result<Bytes, _>>())
        })
    });
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let error = push(&world, &client, file("x", b"content"), &request("")).await.unwrap_err();
    let PushError::Unknown { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source, CallError::DeadlineExceeded { .. } | CallError::Fault(_)), "{source:?}");
}

/// The answer that there is no verdict yet, as it travels: variant 0 (SPEC 5.8).
const WORKING: [u8; 4] = [0; 4];

/// The answer to `push.settle`, as far as these stories read it.
#[derive(Serialize, Deserialize)]
enum RawSettled {
    Working,
    Done,
}

#[tokio::test]
async fn a_server_that_is_at_work_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let world = World::writable_by(limits(), move |files, transport, _| {
        serve_by(files, transport, move |files, number| {
            let count = Arc::clone(&count);
            match number {
                0 => files.router(&[]).method("push.settle", move |context, _| {
                    if count.fetch_add(1, Ordering::SeqCst) == 1 {
                        context.connection.close(Code::Cancelled);
                    }
                    async { Ok(Bytes::from_static(&WORKING)) }
                }),
                _ => files.router(&[]),
            }
        })
    });
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let error = push(&world, &client, file("x", b"content"), &request("")).await.unwrap_err();
    assert!(matches!(error, PushError::Unknown { .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_replayed_push_of_a_finished_transfer_has_no_second_effect() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let report = push(&world, &client, file("x", b"content"), &request("")).await.unwrap();
    let pushed = world.source().join("x");
    fs::remove_file(&pushed).unwrap();

    let mut replay = raw(0, b"", RawShape::File { name: b"x".to_vec() });
    replay.transfer = *report.transfer.as_bytes();
    replay.source = *Digest::blake3(b"test").as_bytes();
    (replay.existing, replay.durable, replay.chunk_len_bytes) = (0, true, 64 << 10);
    for _ in 0..2 {
        assert_eq!(open(&client, &replay).await, Ok(RawOpened::Known));
    }
    assert!(!pushed.exists());

    let mut other = replay.clone();
    other.existing = 2;
    let Err(CallError::Fault(fault)) = open(&client, &other).await else { panic!("another request") };
    assert_eq!(fault.code, FaultCode::InvalidRequest);
}

#[tokio::test]
async fn a_push_that_does_not_begin_is_given_up_and_leaves_nothing() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let opened = raw(9, b"new", RawShape::Directory { name: b"d".to_vec() });
    assert_eq!(
        open(&client, &opened).await,
        Ok(RawOpened::Ready { compression: 0, bytes_per_second: None, digest: 2, invites: true })
    );
    // Its records stream is not claimed, so it is parked here and not read.
    #[derive(Serialize, Deserialize)]
    struct Settle {
        transfer: [u8; 16],
    }
    const SETTLE: Method<Settle, RawSettled> = Method::new("push.settle");
    let settle = Settle { transfer: [9; 16] };
    let verdict = loop {
        match client.call_typed(SETTLE, &settle, Duration::from_secs(10)).await {
            Ok(RawSettled::Working) => {}
            Ok(RawSettled::Done) => panic!("nothing was sent"),
            Err(error) => break error,
        }
    };
    let CallError::Fault(fault) = verdict else { panic!("{verdict:?}") };
    assert_eq!(fault.code, FaultCode::Gone);
    push(&world, &client, file("d", b"now a file"), &request("new")).await.unwrap();
}

#[tokio::test]
async fn two_programs_with_one_key_do_not_get_in_each_others_way() {
    let world = World::writable(limits());
    let ticket = world.ticket_to_write("");
    let key = world.outside().join("key");
    let clients: Vec<_> = (0..4).map(|_| world.client_as(Identity::load_or_create(&key).unwrap())).collect();
    let rpcs = futures::future::join_all(clients.iter().map(|client| async {
        let rpc = client.connect().await.unwrap();
        shiplane_protocols::internals::redeem(&rpc, &ticket).await.unwrap();
        rpc
    }))
    .await;
    let pushes = rpcs.iter().enumerate().map(|(i, rpc)| {
        let (name, world) = (format!("f{i}"), &world);
        async move {
            for round in 0..3 {
                let name = format!("{name}-{round}");
                push(world, rpc, file(&name, name.as_bytes()), &request("")).await.unwrap();
            }
        }
    });
    futures::future::join_all(pushes).await;
    for i in 0..4 {
        for round in 0..3 {
            let name = format!("f{i}-{round}");
            assert_eq!(fs::read(world.source().join(&name)).unwrap(), name.as_bytes());
        }
    }
    let fetches = rpcs.iter().enumerate().map(|(i, rpc)| {
        let world = &world;
        async move { world.fetch(rpc, &format!("f{i}-0")).await.unwrap() }
    });
    futures::future::join_all(fetches).await;
}
