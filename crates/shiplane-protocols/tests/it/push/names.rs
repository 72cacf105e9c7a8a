//! Hostile names in a push.

use std::{fs, os::unix::fs::symlink};

use serde::{Deserialize, Serialize};
use shiplane_rpc::{CallError, FaultCode, Method, RpcClient};

use super::{code, file, limits, named, push, push_watched, request, source};
use crate::harness::{Events, World, tree};
use crate::hostile::RawFilters;
use shiplane_protocols::internals::{Push, PushRequest};

/// The body of `push.open` as it travels (SPEC 5.5).
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RawOpen {
    pub(crate) transfer: [u8; 16],
    pub(crate) path: Vec<u8>,
    pub(crate) shape: RawShape,
    pub(crate) source: [u8; 32],
    pub(crate) total_bytes: Option<u64>,
    /// 0 refuse, 1 keep, 2 replace.
    pub(crate) existing: u32,
    pub(crate) delete: Option<bool>,
    pub(crate) durable: bool,
    pub(crate) chunk_len_bytes: u64,
    pub(crate) compression: u32,
    pub(crate) digests: u8,
    pub(crate) filters: RawFilters,
    pub(crate) attributes: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum RawShape {
    File { name: Vec<u8> },
    Directory { name: Vec<u8> },
    Contents,
    Parts { name: Vec<u8> },
}

/// The answer: 0 ready, 1 known.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum RawOpened {
    Ready { compression: u32, bytes_per_second: Option<u64>, digest: u8, invites: bool },
    Known,
}

pub(crate) fn raw(transfer: u8, path: &[u8], shape: RawShape) -> RawOpen {
    RawOpen {
        transfer: [transfer; 16],
        path: path.to_vec(),
        shape,
        source: [0; 32],
        total_bytes: None,
        existing: 2,
        delete: None,
        durable: false,
        chunk_len_bytes: 0,
        compression: 0,
        digests: 3,
        filters: RawFilters::default(),
        attributes: false,
    }
}

pub(crate) async fn open(client: &RpcClient, raw: &RawOpen) -> Result<RawOpened, CallError> {
    const OPEN: Method<RawOpen, RawOpened> = Method::new("push.open");
    client.call_typed(OPEN, raw, std::time::Duration::from_secs(10)).await
}

async fn refused(client: &RpcClient, raw: &RawOpen) -> FaultCode {
    match open(client, raw).await {
        Err(CallError::Fault(fault)) => fault.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_malformed_path_or_name_is_refused_and_nothing_is_made() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let long = [b'x'; 256];
    let deep = b"d/".repeat(17 << 10);
    let vast = [[b'y'; 255]; 129].join(&b'/');
    let journal = b".shiplane-0123456789abcdef.journal";
    let bad: [&[u8]; 13] = [
        b"../x",
        b"a/../../x",
        b"/etc/x",
        b"..",
        b".",
        b"a//b",
        b"a/",
        b"a\0b",
        b"/",
        &long,
        &deep,
        &vast,
        journal,
    ];
    let before = tree(&world.outside());
    for path in bad {
        let file = RawShape::File { name: b"x".to_vec() };
        for shape in [file, RawShape::Directory { name: b"x".to_vec() }, RawShape::Contents] {
            assert_eq!(refused(&client, &raw(1, path, shape)).await, FaultCode::PathRefused, "{path:?}");
        }
        // As a name below a directory that would have to be made first.
        let name = || path.to_vec();
        let file = RawShape::File { name: name() };
        for shape in [file, RawShape::Directory { name: name() }, RawShape::Parts { name: name() }] {
            assert_eq!(refused(&client, &raw(1, b"new", shape)).await, FaultCode::PathRefused, "{path:?}");
        }
    }
    let two = RawShape::File { name: b"a/b".to_vec() };
    assert_eq!(refused(&client, &raw(1, b"", two)).await, FaultCode::PathRefused);
    let empty = RawShape::File { name: Vec::new() };
    assert_eq!(refused(&client, &raw(1, b"new", empty)).await, FaultCode::PathRefused);
    assert_eq!(tree(&world.outside()), before);
}

#[tokio::test]
async fn names_that_are_merely_odd_arrive_byte_for_byte() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let longest = "z".repeat(255);
    for name in [&b"\xff\xfe"[..], b"\x1b[2J", b"CON", b"x:ads", b"a\\b", longest.as_bytes()] {
        fs::write(world.dest().join(OsStr::from_bytes(name)), name).unwrap();
    }
    push(&world, &client, source(&world.dest()), &named("", "odd\u{202e}")).await.unwrap();
    assert_eq!(tree(&world.source().join("odd\u{202e}")), tree(&world.dest()));
}

#[tokio::test]
async fn no_link_is_followed_on_the_way_or_at_its_end() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let outside = world.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"mine").unwrap();
    symlink(&outside, world.source().join("link")).unwrap();
    symlink(outside.join("file"), world.source().join("name")).unwrap();
    symlink("inner", world.source().join("within")).unwrap();
    fs::create_dir(world.source().join("inner")).unwrap();

    for path in ["link", "link/sub", "within", "name"] {
        let error =
            Push::open(&client, file("x", b"x"), &request(path), &Default::default()).await.unwrap_err();
        assert_eq!(code(error), FaultCode::PathRefused, "{path}");
    }
    let error = Push::open(&client, source(&world.dest()), &named("", "link"), &Default::default())
        .await
        .unwrap_err();
    assert_eq!(code(error), FaultCode::PathRefused);

    let events = Events::default();
    let error = push_watched(&world, &client, file("name", b"theirs"), &request(""), events.watch()).await;
    assert_eq!(code(error.unwrap_err()), FaultCode::Exists);
    assert_eq!(events.moved_bytes(), 0);
    let overwrite = PushRequest { existing: shiplane_files::internals::Existing::Replace, ..request("") };
    push(&world, &client, file("name", b"theirs"), &overwrite).await.unwrap();
    assert!(fs::symlink_metadata(world.source().join("name")).unwrap().is_file(), "the link was replaced");
    assert_eq!(fs::read(world.source().join("name")).unwrap(), b"theirs");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn a_link_within_the_tree_that_is_pushed_to_is_not_followed_either() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    let outside = world.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(world.source().join("t")).unwrap();
    symlink(&outside, world.source().join("t/d")).unwrap();
    fs::create_dir(world.dest().join("d")).unwrap();
    fs::write(world.dest().join("d/x"), b"x").unwrap();
    let overwrite = PushRequest { existing: shiplane_files::internals::Existing::Replace, ..named("", "t") };
    let report = push(&world, &client, source(&world.dest()), &overwrite).await.unwrap();
    assert_eq!((report.summary.published_files, report.left_out_there), (0, 2));
    let refused = push(&world, &client, source(&world.dest()), &named("", "t")).await.unwrap_err();
    assert_eq!(code(refused), FaultCode::PathRefused);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_grant_ends_at_its_directory() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("inbox")).await;
    for path in [".ssh", "", "inbox2"] {
        let error = Push::open(&client, file("authorized_keys", b"x"), &request(path), &Default::default())
            .await
            .unwrap_err();
        assert_eq!(code(error), FaultCode::Unauthorised, "{path}");
    }
    assert_eq!(tree(&world.source()).len(), 0);
    // Within it, it is a file like any other.
    push(&world, &client, file("authorized_keys", b"x"), &request("inbox/.ssh")).await.unwrap();
    assert_eq!(fs::read(world.source().join("inbox/.ssh/authorized_keys")).unwrap(), b"x");
}

#[tokio::test]
async fn directories_above_the_grant_are_not_created() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("a/inbox")).await;
    let error =
        Push::open(&client, file("x", b"x"), &request("a/inbox"), &Default::default()).await.unwrap_err();
    assert_eq!(code(error), FaultCode::NotFound);
    assert_eq!(tree(&world.source()).len(), 0);
    fs::create_dir(world.source().join("a")).unwrap();
    push(&world, &client, file("x", b"x"), &request("a/inbox")).await.unwrap();
}

#[tokio::test]
async fn a_file_is_not_taken_for_a_directory() {
    let world = World::writable(limits());
    let client = world.admitted_by(world.ticket_to_write("")).await;
    fs::write(world.source().join("d"), b"a file").unwrap();
    for path in ["d", "d/e"] {
        let error =
            Push::open(&client, file("x", b"x"), &request(path), &Default::default()).await.unwrap_err();
        assert_eq!(code(error), FaultCode::Exists);
    }
    assert_eq!(fs::read(world.source().join("d")).unwrap(), b"a file");
}
