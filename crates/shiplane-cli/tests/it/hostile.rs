//! The program against lying peers: bounded memory, correct errors, service for others.

use std::fs;
use std::time::{Duration, Instant};

use lab::peers::hostile::{Lie, LyingPusher, LyingServer};

use crate::program::{Machine, Running};

#[test]
fn get_refuses_a_size_that_no_disk_has() {
    let here = Machine::within(BOUND_KIB);
    for lie in [Lie::HugeFile, Lie::VastFile] {
        let liar = LyingServer::start(lie, 0).unwrap();
        here.run(&["get", liar.ticket(), "copy"]).failed(7, "space");
    }
}

#[test]
fn serve_refuses_a_pushed_size_that_no_disk_has() {
    for lie in [Lie::HugeFile, Lie::VastFile] {
        pushed_to_serve(lie);
    }
}

#[test]
fn get_holds_long_paths_within_its_bound() {
    let here = Machine::within(BOUND_KIB);
    let liar = LyingServer::start(Lie::LongDirectories, ENTRIES).unwrap();
    let run = here.run(&["get", liar.ticket(), "copy", "--durability", "verified", "--json"]).done();
    assert_eq!(run.last_event()["event"], "done");
}

#[test]
fn get_holds_block_signatures_within_its_bound() {
    let here = Machine::within(BOUND_KIB);
    for name in ["copy/file", "copy/file2"] {
        let old = fs::File::options().write(true).open(here.write(name, "")).unwrap();
        old.set_len(1 << 20).unwrap();
    }
    let liar = LyingServer::start(Lie::EndlessSignatures, 0).unwrap();
    here.run(&["get", liar.ticket(), "copy", "--overwrite"]).failed(1, "block signatures");
}

#[test]
fn serve_holds_pushed_long_paths_within_its_bound() {
    pushed_to_serve(Lie::LongDirectories);
}

#[test]
fn ctrl_c_ends_a_get_from_a_peer_that_never_delivers() {
    let lies = [Lie::AliveForEntries, Lie::AliveForChunks, Lie::Drip, Lie::EndlessFiles, Lie::EndlessSkipped];
    for lie in lies {
        let here = Machine::within(BOUND_KIB);
        let liar = LyingServer::start(lie, 0).unwrap();
        // What is left out is told on standard error, which is not read here.
        let skip = "links,special,names,unreadable,changed";
        let get =
            Running::start(&mut here.command(&["get", liar.ticket(), "copy", "--quiet", "--skip", skip]));
        assert!(liar.goes_on_within(SOON), "{lie:?}");
        let interrupted = Instant::now();
        get.interrupt();
        assert_eq!(get.end().code, Some(130), "{lie:?}");
        assert!(interrupted.elapsed() < INTERRUPT_LIMIT, "{lie:?}");
    }
}

/// A push that tells `lie` is ended soon by a server that stays within its bound, serves others afterwards, and ends
/// in order.
#[track_caller]
fn pushed_to_serve(lie: Lie) {
    let (here, there) = (Machine::new(), Machine::within(BOUND_KIB));
    there.run(&["peers", "add", "laptop", &here.id(), "--read"]).done();
    there.write("inbox/honest", "honest");
    let server = there.serve_with("inbox", &["--writable", "--listen", "127.0.0.1:0"]);
    let mut pusher = LyingPusher::start(server.ticket(), lie, ENTRIES).unwrap();
    assert!(pusher.ends_within(SOON), "{lie:?} goes on");
    let source = format!("{}@{}/honest", there.id(), server.address());
    assert_eq!(here.run(&["get", &source, "-"]).done().out, "honest");
    assert_eq!(server.stop().code, Some(0), "{lie:?}");
}

/// 96 MiB: what a program may have in writable memory. Some 30 MB is what it has anyway.
const BOUND_KIB: u64 = 96 << 10;

/// Paths that took some 16 KiB each as they were once kept: 100 MB.
const ENTRIES: u32 = 6000;

/// A second, and some more for a busy machine.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(5);

/// Many times what it takes, for a busy machine.
const SOON: Duration = Duration::from_secs(60);
