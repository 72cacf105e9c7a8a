//! One file to and from Octopii nodes, with the warnings.

use std::fs;

use shiplane_octopii::{
    AcceptAnyPeer, ChunkSource, InsecureOctopiiTransport, Lane, LaneOptions, TransportConfig,
};

use crate::program::{Machine, Run};

fn content() -> Vec<u8> {
    testlink::Rng::new(1).bytes(3_000_000)
}

/// A node that is no shiplane program.
fn node() -> InsecureOctopiiTransport {
    let addr = "127.0.0.1:0".parse().unwrap();
    InsecureOctopiiTransport::bind(addr, TransportConfig::default(), AcceptAnyPeer).unwrap()
}

/// Runs the program beside the node that this test plays.
fn run(machine: &Machine, args: &[&str]) -> impl Future<Output = Run> + use<> {
    let mut command = machine.command(args);
    async move { tokio::task::spawn_blocking(move || Run::of(&mut command)).await.unwrap() }
}

#[track_caller]
fn expect_loud(run: &Run) {
    assert!(run.err.contains("AUTHENTICATES NO PEER"), "{run:?}");
}

#[test]
fn a_file_that_is_served_is_got_by_everybody() {
    let (here, there) = (Machine::new(), Machine::new());
    let path = there.write("root/film", content());
    let server = there.serve_file(&path, &["--insecure-octopii", "--listen", "127.0.0.1:0"]);
    let address = server.first_line.trim_end().to_owned();
    for name in ["one", "two"] {
        let run = here.run(&["get", "--insecure-octopii", &address, "-o", name]).done();
        expect_loud(&run);
        assert_eq!(run.out, "");
        assert!(fs::read(here.file(name)).unwrap() == content());
    }
    // Without -o it has a name of its own, and nothing is ever replaced.
    let quiet = here.run(&["get", "--insecure-octopii", &address, "--quiet"]).done();
    expect_loud(&quiet);
    assert!(fs::read(here.file("octopii-chunk")).unwrap() == content());
    let again = here.run(&["get", "--insecure-octopii", &address]);
    assert_eq!(again.code, Some(6), "{again:?}");
    assert!(again.err.contains("exists already") && again.err.contains("hint:"), "{again:?}");

    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    expect_loud(&ended);
}

#[tokio::test]
async fn a_node_takes_a_push_and_answers_a_get() {
    let here = Machine::new();
    here.write("film", content());
    let node = node();
    let address = node.local_addr().unwrap().to_string();
    let taking = async {
        let peer = node.accept(Lane).await.unwrap();
        let chunk = peer.recv_chunk_verified().await.unwrap().unwrap();
        peer.drained().await;
        chunk
    };
    let (pushed, chunk) = tokio::join!(run(&here, &["push", "--insecure-octopii", "film", &address]), taking);
    expect_loud(&pushed.done());
    assert!(chunk == content());

    let source = ChunkSource::File(here.file("film"));
    let sending = async {
        let peer = node.accept(Lane).await.unwrap();
        peer.send_chunk_with(&source, &LaneOptions::default()).await.unwrap();
        peer.drained().await;
    };
    let (got, ()) = tokio::join!(run(&here, &["get", "--insecure-octopii", &address, "-o", "back"]), sending);
    expect_loud(&got.done());
    assert!(fs::read(here.file("back")).unwrap() == content());
}

#[tokio::test]
async fn a_refusal_and_a_silent_end_are_errors_that_leave_no_file() {
    let here = Machine::new();
    let node = node();
    let address = node.local_addr().unwrap().to_string();
    let silent = async { drop(node.accept(Lane).await) };
    let (got, ()) = tokio::join!(run(&here, &["get", "--insecure-octopii", &address]), silent);
    assert_eq!(got.code, Some(1), "{got:?}");
    assert!(got.err.contains("without sending"), "{got:?}");
    assert!(!here.file("octopii-chunk").exists());

    let missing = run(&here, &["push", "--insecure-octopii", "none", &address]).await;
    assert_eq!(missing.code, Some(7), "{missing:?}");
}

#[test]
fn the_two_dialects_do_not_meet() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = there.serve("root");
    let run = here.run(&["get", "--insecure-octopii", &server.address()]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.err.contains("does not speak the octopii dialect"), "{run:?}");
    assert!(run.err.contains("omit --insecure-octopii"), "{run:?}");
    for args in [
        &["get", "--insecure-octopii", server.ticket()][..],
        &["push", "--insecure-octopii", ".", "127.0.0.1:1"],
        &["serve", "--insecure-octopii", "."],
    ] {
        let run = here.run(args);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.err.contains("hint:"), "{run:?}");
    }
}
