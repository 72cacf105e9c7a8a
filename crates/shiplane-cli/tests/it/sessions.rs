//! What happens to a transfer that is under way. The receiver writes to a pipe that nobody reads,
//! so that it stands still in the middle for as long as the story needs.

use std::io::{BufRead, BufReader};

use crate::program::{Machine, Running, Server};

/// More than all the windows, buffers and pipes on the way hold together.
const MORE_THAN_IS_UNDER_WAY: usize = 192 << 20;

fn stuck_get(here: &Machine, source: &str) -> Running {
    let mut get = Running::start(&mut here.command(&["get", source, "-"]));
    get.first_byte();
    get
}

fn serve_much(there: &Machine) -> Server {
    there.write("src/much", vec![7; MORE_THAN_IS_UNDER_WAY]);
    there.serve("src")
}

#[test]
fn an_interrupted_get_says_so_and_leaves_the_server_free() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = serve_much(&there);
    let get = stuck_get(&here, &server.ticket_for("much"));
    get.interrupt();
    let run = get.end().told(130, "interrupted");
    assert!(run.err.contains("stopping"), "{run:?}");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_reader_that_leaves_ends_the_get_without_a_word() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = serve_much(&there);
    let mut get = stuck_get(&here, &server.ticket_for("much"));
    get.stop_reading();
    let ended = get.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(141), ""), "{ended:?}");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_withdrawn_right_ends_the_session() {
    let (here, there) = (Machine::new(), Machine::new());
    there.run(&["peers", "add", "laptop", &here.id(), "--read"]).done();
    let server = serve_much(&there);
    let source = format!("{}@{}/much", there.id(), server.address());
    let get = stuck_get(&here, &source);
    there.run(&["peers", "remove", "laptop"]).done();
    get.end().told(4, "(revoked)");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_list_of_peers_that_breaks_ends_every_session() {
    let (here, there) = (Machine::new(), Machine::new());
    let server = serve_much(&there);
    let get = stuck_get(&here, &server.ticket_for("much"));
    std::fs::write(there.path("peers"), "nonsense\n").unwrap();
    get.end().told(4, "(revoked)");
    let run = server.stop();
    assert!(run.err.contains("line 1"), "{run:?}");
}

#[test]
fn the_first_interrupt_drains_and_the_second_ends() {
    let (here, there) = (Machine::new(), Machine::new());
    let mut server = serve_much(&there);
    let _get = stuck_get(&here, &server.ticket_for("much"));
    let mut said = BufReader::new(server.stderr()).lines();
    server.signal();
    let draining = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("finishing")));
    assert!(draining.is_some(), "it ended instead of draining");
    server.signal();
    assert_eq!(server.wait().code(), Some(130));
}
